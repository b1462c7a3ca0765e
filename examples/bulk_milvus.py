"""Index every repository below a folder into one Milvus collection, and ask all of them a question.

    python examples/bulk_milvus.py FOLDER "where is the retry delay computed?" [--url milvus+http://localhost:19530]
        [--model codefuse-ai/C2LLM-0.5B]

Each repository owns its rows. Run it again after changes or a kill: only what is new is embedded. The run fails if
Milvus refuses rows, and names them.
"""

import argparse
import sys
from pathlib import Path

from c2llm_integrations import C2LLMEmbedder, ingest, open_store, search


def main(folder: str, question: str, url: str, model: str) -> None:
    """Index what is below `folder` and print the five chunks that answer `question` best."""
    embedder = C2LLMEmbedder.from_pretrained(model)
    refused: dict[str, str] = {}
    with open_store(url) as store:
        for repository in sorted(path for path in Path(folder).iterdir() if path.is_dir()):
            report = ingest(repository, embedder, store)
            print(
                f"{report.repository}: {report.written} written, {report.unchanged} unchanged, "
                f"{report.deleted} deleted, {report.seconds:.1f} s"
            )
            refused |= report.refused
        for hit in search(question, embedder, store, limit=5):
            chunk = hit.chunk
            print(f"{hit.score:.3f}  {chunk.repository}  {chunk.path}:{chunk.start_line}-{chunk.end_line}")
    if refused:
        sys.exit("refused: " + "; ".join(refused.values()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("question")
    parser.add_argument("--url", default="milvus+lite://repositories.db")
    parser.add_argument("--model", default="nano")
    main(**vars(parser.parse_args()))
