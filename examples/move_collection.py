"""Move a collection to another store without embedding anything again, and ask both the same question.

    python examples/move_collection.py qdrant+edge://.c2llm milvus+lite://rows.db "where is the retry delay computed?"
        [--collection code] [--model codefuse-ai/C2LLM-0.5B]

The copy holds plain float32 vectors, which every store takes, and words wherever it searches them. The model only
embeds the question. `c2llm export` and `c2llm import` do the same by way of a file.
"""

import argparse
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

from c2llm_integrations import C2LLMEmbedder, Row, VectorStore, load, open_store, search
from c2llm_integrations.code.lexical_terms import ANALYZER
from c2llm_integrations.retrieval.search import spec_of


def batches(store: VectorStore) -> Iterator[list[Row]]:
    """Read the rows of a store, a thousand at a time."""
    rows = store.rows()
    while batch := list(islice(rows, 1_000)):
        yield batch


def main(source: str, target: str, question: str, collection: str, model: str) -> None:
    """Copy the collection, and print what each store answers best."""
    embedder = C2LLMEmbedder.from_pretrained(model)
    with open_store(source, collection) as old, open_store(target, collection) as new:
        words = ANALYZER if new.capabilities.lexical else None
        new.create(replace(spec_of(old), datatype="float32", quantization=None, rescore=0.0, analyzer=words))
        with new.bulk():
            report = load(batches(old), new)
        for repository, checkout in old.claims().items():
            new.claim(repository, checkout)  # so that `c2llm index` may go on with the copy
        print(f"{report.written} of {old.count()} rows moved in {report.seconds:.1f} s")
        for store in (old, new):
            best = search(question, embedder, store, limit=1)[0]
            print(f"{best.score:.3f}  {best.chunk.path}:{best.chunk.start_line}-{best.chunk.end_line}  {store.url}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("source")
    parser.add_argument("target")
    parser.add_argument("question")
    parser.add_argument("--collection", default="code")
    parser.add_argument("--model", default="nano")
    main(**vars(parser.parse_args()))
