"""Load a JSON-lines file of code snippets into Qdrant, searched by int8 codes, and ask it a question.

    python examples/bulk_qdrant.py FILE.jsonl "how is the delay computed?" [--url qdrant+http://localhost:6333]
        [--model codefuse-ai/C2LLM-0.5B]

Each line is {"path": ..., "text": ...}. What Qdrant refuses goes into FILE.jsonl.refused, with its reason.
"""

import argparse
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from c2llm_integrations import C2LLMEmbedder, open_store
from c2llm_integrations.code.chunk import CodeChunk, chunk_id
from c2llm_integrations.code.terms import ANALYSER
from c2llm_integrations.compression import OVERSAMPLING
from c2llm_integrations.loading import load
from c2llm_integrations.search import search
from c2llm_integrations.stores.base import CollectionSpec, Row

BATCH = 256


def chunk(path: str, text: str) -> CodeChunk:
    """Name a snippet by what it is, so that loading it again changes nothing."""
    return CodeChunk(chunk_id("snippets", path, text, 0), "snippets", path, "", "", "", 1, 1 + text.count("\n"), text)


def batches(file: Path, embedder: C2LLMEmbedder) -> Iterator[list[Row]]:
    """Embed the file, some snippets at a time, while those before them are uploaded."""
    with open(file, encoding="utf-8") as lines:
        while records := [json.loads(line) for line in islice(lines, BATCH)]:
            vectors = embedder.encode_documents([record["text"] for record in records])
            yield [Row(chunk(**record), vector) for record, vector in zip(records, vectors, strict=True)]


def main(file: str, question: str, url: str, model: str) -> None:
    """Load `file` and print the three snippets that answer `question` best."""
    embedder = C2LLMEmbedder.from_pretrained(model)
    with open_store(url, "snippets") as store:
        codes = {"quantization": "int8", "rescore": OVERSAMPLING["int8"]}
        store.create(CollectionSpec(embedder.output_dim, embedder.fingerprint, analyser=ANALYSER, **codes))
        with store.bulk():
            report = load(batches(Path(file), embedder), store, refused=Path(f"{file}.refused"))
        print(f"{report.written} snippets written, {len(report.refused)} refused, {report.seconds:.1f} s")
        for hit in search(question, embedder, store, limit=3):
            print(f"{hit.score:.3f}  {hit.chunk.path}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("file")
    parser.add_argument("question")
    parser.add_argument("--url", default="qdrant+edge://snippets")
    parser.add_argument("--model", default="nano")
    main(**vars(parser.parse_args()))
