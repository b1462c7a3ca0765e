"""What each index of Milvus Lite finds and costs, with filters and without.

    python -m benchmarks.milvus_lite_indexes [--rows 100000]

One collection of 256 dimensions in a thousand clusters gets one index after another: ours (one cluster, full vectors or
int8 codes rescored by our store), the engine's FLAT, and its graphs. Each answers the same 20 questions over all rows,
half, a hundredth and a thousandth of them: recall@10 against exact search, median time, and median time of the index
itself; the rest is the engine's look at every row. "index_mb" is the file beside the rows.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from milvus_lite.index import brute_force, faiss_hnsw, faiss_hnsw_sq, faiss_ivf_flat, faiss_ivf_sq8
from pymilvus import MilvusClient

from benchmarks.common import report
from c2llm_integrations import CodeChunk, CollectionSpec, Row, open_store
from c2llm_integrations.stores.milvus.schema import LITE_NPROBE
from c2llm_integrations.stores.vector_store import VectorStore

WIDTH, BATCH, QUESTIONS, SHARES = 256, 1_000, 20, (1, 0.5, 0.01, 0.001)
GRAPH = {"M": 16, "efConstruction": 64}
# What is asked → the index's type and parameters, how it is searched, and for how many times the hits.
CASES: dict[str, tuple[str, dict[str, int], dict[str, int], int]] = {
    "FLAT, the engine's own": ("FLAT", {}, {}, 1),
    "ours: IVF_FLAT, one cluster": ("IVF_FLAT", {"nlist": 1}, {"nprobe": LITE_NPROBE}, 1),
    "ours, int8: IVF_SQ8, one cluster, rescored x 2": ("IVF_SQ8", {"nlist": 1}, {"nprobe": LITE_NPROBE}, 2),
    "IVF_SQ8, one cluster, codes alone": ("IVF_SQ8", {"nlist": 1}, {"nprobe": LITE_NPROBE}, 1),
    "IVF_SQ8, 128 clusters, 32 searched": ("IVF_SQ8", {"nlist": 128}, {"nprobe": 32}, 1),
    "HNSW, ef 192": ("HNSW", GRAPH, {"ef": 192}, 1),
    "HNSW_SQ, ef 192": ("HNSW_SQ", GRAPH, {"ef": 192}, 1),
}
_inside: list[float] = []


def watched(search: Callable[..., Any]) -> Callable[..., Any]:
    """Note how long an index takes."""

    def timed(*arguments: Any, **options: Any) -> Any:
        begin = time.thread_time()
        found = search(*arguments, **options)
        _inside.append(time.thread_time() - begin)
        return found

    return timed


def measured(count: int, folder: str) -> Iterator[dict[str, Any]]:
    """Yield what each index does."""
    random = np.random.default_rng(1)
    centers = random.standard_normal((1_000, WIDTH), np.float32)
    made = centers[random.integers(0, 1_000, count + QUESTIONS)]
    made += random.standard_normal(made.shape, np.float32)
    made /= np.linalg.norm(made, axis=1, keepdims=True)
    questions, vectors, shares = made[:QUESTIONS], made[QUESTIONS:], random.random(count)
    ids = [str(uuid.UUID(bytes=random.bytes(16))) for _ in vectors]
    with open_store(f"milvus+lite://{folder}/rows.db") as store:
        store.create(CollectionSpec(WIDTH, {"model": "given"}))
        for start in range(0, count, BATCH):
            part = range(start, min(count, start + BATCH))
            # The line is what the filters ask for: how many of a thousand rows come before.
            chunks = [CodeChunk(ids[n], "", "a", "", "", "", 1 + int(1_000 * shares[n]), 1, "text") for n in part]
            store.upsert([Row(chunk, vectors[n]) for chunk, n in zip(chunks, part, strict=True)])
        store.optimize()
        for name, case in CASES.items():
            built = indexed(store, folder, case)
            for share in SHARES:
                exact = np.where(shares < share, questions @ vectors.T, -2).argsort(axis=1)[:, :-11:-1]
                figures = asked(store.client, case, questions, share, exact, vectors, ids)
                yield {"index": name, "share": share, **figures, **built}


def indexed(store: VectorStore, folder: str, case: tuple[str, dict[str, int], dict[str, int], int]) -> dict[str, Any]:
    """Give the collection another index."""
    kind, params, _, _ = case
    client: MilvusClient = store.client
    client.release_collection("code")
    client.drop_index("code", "vector")
    wanted = MilvusClient.prepare_index_params()
    wanted.add_index("vector", index_name="vector", index_type=kind, metric_type="COSINE", params={"params": params})
    begin = time.process_time()
    client.create_index("code", wanted)
    client.load_collection("code")
    size = sum(file.stat().st_size for file in Path(folder).rglob("*.idx"))
    return {"build_cpu_s": time.process_time() - begin, "index_mb": size / 2**20}


def asked(
    client: MilvusClient,
    case: tuple[str, dict[str, int], dict[str, int], int],
    questions: np.ndarray,
    share: float,
    exact: np.ndarray,
    vectors: np.ndarray,
    ids: list[str],
) -> dict[str, float]:
    """Recall, hits and times of the questions over a share of the rows."""
    _, _, params, times = case
    place = {id: number for number, id in enumerate(ids)}
    _inside.clear()
    took, same, fewest = [], 0, 10
    for question, nearest in zip(questions, exact.tolist(), strict=True):
        begin = time.perf_counter()
        [hits] = client.search(
            "code",
            data=[question],
            anns_field="vector",
            limit=10 * times,
            filter="" if share == 1 else f"start_line <= {round(1_000 * share)}",
            output_fields=["vector"] if times > 1 else ["path"],
            search_params={"metric_type": "COSINE", "params": params},
        )
        found = sorted((place[hit["id"]] for hit in hits), key=lambda number: -float(vectors[number] @ question))[:10]
        took.append(time.perf_counter() - begin)
        same, fewest = same + len(set(found) & set(nearest)), min(fewest, len(found))
    figures = {"recall@10": same / 10 / len(questions), "fewest_hits": fewest}
    return {**figures, "ms": 1_000 * statistics.median(took), "index_ms": 1_000 * statistics.median(_inside)}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--rows", type=int, default=100_000)
    options = arguments.parse_args()
    for kind in (
        brute_force.BruteForceIndex,
        faiss_hnsw.FaissHnswIndex,
        faiss_hnsw_sq.FaissHnswSqIndex,
        faiss_ivf_flat.FaissIvfFlatIndex,
        faiss_ivf_sq8.FaissIvfSq8Index,
    ):
        kind.search = watched(kind.search)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for row in measured(options.rows, folder):
            rows.append(row)
            print(row, flush=True)
    report("milvus_lite_indexes", rows)


if __name__ == "__main__":
    main()
