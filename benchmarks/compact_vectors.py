"""What each way of storing vectors compactly costs and loses in Qdrant Edge, on real code vectors.

    python -m benchmarks.compact_vectors [--rows 100000] [--plans int8 binary]

Each plan is loaded, optimized and reopened by a process of its own. Recall and nDCG are against exact float32 search
for the 1,000 questions of `code_vectors`; nDCG@10 takes 10 for the nearest row, 9 for the next, down to 1. Memory is
what opening and searching adds to the process: pages of files it has mapped count while they are resident, though the
system may take them back, all but the codes'. "rescore" is how many times the asked rows are compared by full vectors.
Results: results/compact_vectors.json and .svg.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import code_vectors
from benchmarks.common import RESULTS, report
from benchmarks.drawing import scatter
from c2llm_integrations.stores.qdrant.edge import QdrantEdgeStore
from c2llm_integrations.stores.qdrant.edge_files import SPEC_FILE
from c2llm_integrations.stores.records import Row
from c2llm_integrations.stores.spec import CollectionSpec, CompactPlan

LIMIT = 10
BATCH = 1_000
PLANS = {
    "float32": CompactPlan(256),
    "float16": CompactPlan(256, "float16"),
    **{name: CompactPlan(256, quantization=name) for name in ("int8", "turbo", "product", "binary")},
    "float16+int8": CompactPlan(256, "float16", "int8"),
    "float16+binary": CompactPlan(256, "float16", "binary"),
}
# What a file of a segment holds, by how its path begins.
PARTS = {
    "vector_storage/quantized": "codes",
    "vector_storage": "vectors",
    "vector_index": "graph",
    "id_tracker": "ids",
    "mutable_id_tracker": "ids",
    "payload": "payload",
}


def load(name: str, folder: Path, rows: int) -> float:
    """Write the rows under a plan and optimize; return the seconds."""
    plan = PLANS[name]
    chunks, vectors, _ = code_vectors.load(rows)
    spec = CollectionSpec(plan.output_dim, {"model": "nano"}, plan.datatype, plan.quantization, plan.rescore or 0.0)
    with QdrantEdgeStore(folder) as store:
        begin = time.perf_counter()
        store.create(spec)
        for start in range(0, rows, BATCH):
            part = slice(start, start + BATCH)
            store.upsert([Row(chunk, vector) for chunk, vector in zip(chunks[part], vectors[part], strict=True)])
        store.optimize()
        return time.perf_counter() - begin


def bytes_on_disk(folder: Path) -> dict[str, int]:
    """Part of the segments → bytes that its files take; sparse files count what is written of them."""
    sizes = dict.fromkeys(PARTS.values(), 0)
    for file in folder.glob("code/shard*/segments/*/**/*"):
        if file.is_file():
            inside = file.relative_to(folder).parts[4:]
            part = next((part for begin, part in PARTS.items() if "/".join(inside).startswith(begin)), None)
            if part is not None:
                sizes[part] += 512 * file.stat().st_blocks
    return sizes


def resident() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def ask(folder: Path, rows: int) -> dict[str, Any]:
    """Search the questions in this process; return what was found, the milliseconds and the memory."""
    queries = np.load(code_vectors.CACHE / "queries.npy")
    before = resident()
    with QdrantEdgeStore(folder) as store:
        store.search(queries[0], LIMIT)
        found, times = [], []
        for query in queries:
            begin = time.perf_counter()
            hits = store.search(query, LIMIT)
            times.append(1e3 * (time.perf_counter() - begin))
            found.append([(hit.chunk.id, hit.score) for hit in hits])
        indexed = store._shard.info().indexed_vectors_count
        assert store.count() == rows
    return {"found": found, "times": times, "memory": resident() - before, "indexed": indexed}


def in_process(*arguments: str) -> Any:
    """Run a step of this file in a process of its own and return what it prints as JSON."""
    command = [sys.executable, "-m", "benchmarks.compact_vectors", "--step", *arguments]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def gains(best: NDArray[np.int64]) -> list[dict[int, int]]:
    """Row → its worth, of each question, from (questions, LIMIT) row numbers, best first."""
    return [{int(row): LIMIT - rank for rank, row in enumerate(line)} for line in best]


def ndcg(found: Iterable[int], worth: dict[int, int]) -> float:
    """Discounted gain of the rows found, over that of the exact ones."""
    discounts = 1 / np.log2(np.arange(2, LIMIT + 2))
    reached = sum(worth.get(row, 0) * by for row, by in zip(found, discounts, strict=False))
    return float(reached / (np.arange(LIMIT, 0, -1) @ discounts))


def measure(name: str, rows: int, exact: NDArray[np.float32], numbers: dict[str, int]) -> list[dict[str, Any]]:
    """Load a plan and search it, with codes alone too where it has any."""
    plan = PLANS[name]
    measured = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        seconds = in_process("load", name, temporary, str(rows))
        sizes = {part: size / rows for part, size in bytes_on_disk(folder).items()}
        for rescore in [0.0, plan.rescore] if plan.quantization else [0.0]:
            file = folder / "code" / SPEC_FILE
            settings = json.loads(file.read_text())
            settings["spec"]["rescore"] = rescore
            file.write_text(json.dumps(settings))
            asked = in_process("ask", name, temporary, str(rows))
            row = {
                "plan": name,
                "rescore": rescore,
                **quality(asked["found"], exact, numbers),
                "p50 ms": float(np.percentile(asked["times"], 50)),
                "p99 ms": float(np.percentile(asked["times"], 99)),
                "load s": seconds,
                "memory B/row": asked["memory"] / rows,
                **{f"{part} B/row": size for part, size in sizes.items()},
                "searched % of float32": 100 * (sizes["codes"] or sizes["vectors"]) / (4 * plan.output_dim),
                "coded rows": asked["indexed"] if plan.quantization else 0,
            }
            print(json.dumps(row), flush=True)
            measured.append(row)
    return measured


def quality(found: list[list[Any]], exact: NDArray[np.float32], numbers: dict[str, int]) -> dict[str, float]:
    """Compare (id, score) pairs found for each question with its exact scores (questions, rows)."""
    worth = gains(np.argsort(-exact, axis=1, kind="stable")[:, :LIMIT])
    rows = [[numbers[id] for id, _ in hits] for hits in found]
    scores = [hits[0][1] for hits in found]
    return {
        "recall@10": float(np.mean([len(set(one) & of.keys()) / LIMIT for one, of in zip(rows, worth, strict=True)])),
        "nDCG@10": float(np.mean([ndcg(one, of) for one, of in zip(rows, worth, strict=True)])),
        # A score is the exact cosine only if full vectors were compared: codes give another.
        "score error": float(np.mean([abs(score - exact[n, rows[n][0]]) for n, score in enumerate(scores)])),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=code_vectors.ROWS)
    parser.add_argument("--plans", nargs="+", default=list(PLANS))
    parser.add_argument("--step", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        step, name, folder, rows = options.step
        print(json.dumps(load(name, Path(folder), int(rows)) if step == "load" else ask(Path(folder), int(rows))))
        return
    chunks, vectors, queries = code_vectors.load(options.rows)
    numbers = {chunk.id: n for n, chunk in enumerate(chunks)}
    exact = queries @ vectors.T
    rows = [row for name in options.plans for row in measure(name, len(chunks), exact, numbers)]
    report("compact_vectors", rows)
    dots = [
        (
            row["plan"] + (f", {row['rescore']:g} times rescored" if row["rescore"] else ""),
            row["codes B/row"] or row["vectors B/row"],
            row["recall@10"],
        )
        for row in rows
    ]
    picture = scatter(dots, "bytes a row that are searched", "recall@10", f"{len(chunks):,} code vectors of 256")
    (RESULTS / "compact_vectors.svg").write_text(picture)


if __name__ == "__main__":
    main()
