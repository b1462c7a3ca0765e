"""What a question takes, warm: `nano` encodes it, Qdrant Edge gives both lists, and the rules rank them.

    python -m benchmarks.query_time [--rows 10000 100000]

Over real chunks and vectors (`code_vectors`); the questions are held-out docstrings' first lines and names.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from typing import Any

import numpy as np

from benchmarks.code_vectors import load
from benchmarks.common import report, seconds
from benchmarks.docstring_retrieval import load as load_pairs
from c2llm_integrations.code.lexical_terms import ANALYZER
from c2llm_integrations.model.embedder import C2LLMEmbedder
from c2llm_integrations.retrieval.search import search
from c2llm_integrations.stores import open_store
from c2llm_integrations.stores.bulk_loader import load as store_rows
from c2llm_integrations.stores.records import Row
from c2llm_integrations.stores.spec import CollectionSpec

QUESTIONS = 300
BATCH = 256


def measure(rows: int, embedder: C2LLMEmbedder) -> list[dict[str, Any]]:
    chunks, vectors, _ = load(rows)
    made = [Row(chunk, vector) for chunk, vector in zip(chunks, vectors, strict=True)]
    lines = [pair["doc"].strip().splitlines()[0] for pair in load_pairs()]
    questions = {
        "in words": lines[:QUESTIONS],
        "a name": [chunk.symbol for chunk in chunks if chunk.symbol][:QUESTIONS],
    }
    with tempfile.TemporaryDirectory() as folder, open_store(f"qdrant+edge://{folder}/store") as store:
        store.create(CollectionSpec(vectors.shape[1], embedder.fingerprint, analyzer=ANALYZER))
        with store.bulk():
            store_rows((made[start : start + BATCH] for start in range(0, rows, BATCH)), store)
        found = []
        for kind, asked in questions.items():
            for question in asked[:20]:
                search(question, embedder, store)
            took = [1000 * seconds(lambda: search(one, embedder, store)) for one in asked]  # noqa: B023
            encoding = [1000 * seconds(lambda: embedder.encode_queries([one])) for one in asked]  # noqa: B023
            found.append(
                {
                    "chunks": rows,
                    "question": kind,
                    "p50_ms": statistics.median(took),
                    "p99_ms": float(np.percentile(took, 99)),
                    "encoder_p50_ms": statistics.median(encoding),
                }
            )
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000])
    embedder = C2LLMEmbedder.from_pretrained("nano")
    report("query_time", [row for rows in parser.parse_args().rows for row in measure(rows, embedder)])


if __name__ == "__main__":
    main()
