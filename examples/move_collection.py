"""Move a collection to another store without embedding anything again, and ask both the same question.

    python examples/move_collection.py qdrant+edge://.c2llm milvus+lite://rows.db "where is the retry delay computed?"
        [--collection code] [--model codefuse-ai/C2LLM-0.5B]

The copy has plain float32 vectors, which every store takes, and lexical terms if the store searches them. The model
only embeds the question. `c2llm export` and `c2llm import` do the same through a file.
"""

import argparse
import sys
from collections.abc import Iterator
from itertools import islice

from c2llm_integrations import C2LLMEmbedder, CollectionSpec, Row, VectorStore, load, open_store, search


def batches(store: VectorStore) -> Iterator[list[Row]]:
    """Read the rows of a store, a thousand at a time."""
    rows = store.rows()
    while batch := list(islice(rows, 1_000)):
        yield batch


def main(source: str, target: str, question: str, collection: str, model: str) -> None:
    """Copy the collection, and print what each store answers best."""
    embedder = C2LLMEmbedder.from_pretrained(model)
    with open_store(source, collection) as old, open_store(target, collection) as new:
        spec = old.spec or sys.exit(f"{source} holds no collection {collection!r}")
        spec.require_model(embedder.output_dim, embedder.fingerprint)
        new.create(CollectionSpec.for_embedder(embedder, lexical=new.capabilities.lexical, fields=spec.fields))
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
