"""What a collection of 1 million to 10 billion chunks takes: sizes, GPU-hours, cost, days, shards, and what is slow.

    python -m benchmarks.scale      # writes the tables of scale.md

Measured figures are read from results/; what could not be measured here stands under "Assumptions", by name. The last
table comes from a simulation of the pipeline: batches pass three stages, each of several servers behind a short queue,
and a stage whose next queue is full waits, as in Ray Data.
"""

from __future__ import annotations

import heapq
import json
import math
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.common import RESULTS
from c2llm_integrations.stores.spec import CompactPlan

PAGE = Path(__file__).parent / "scale.md"
CHUNKS = (10**6, 10**8, 10**10)

# ---- measured, on 2 cores of an AMD EPYC with AVX512-BF16; see README, "Speed and memory"
# c2llm index over networkx: files, bytes and chunks, and the seconds to list, chunk and compare all of it.
FILES, BYTES, NETWORKX = 580, 6.5e6, 8_857
# Of `compact_vectors`: a row without its vectors, in bytes on disk, and what each row keeps in memory for its id.
PAYLOAD_BYTES, ID_BYTES = 875, 29

# ---- assumptions
# bfloat16 FLOP/s of an H100 or H200 by its data sheet, and the share of it that embedding reaches.
PEAK, UTILISATION = 989e12, {"nano": 0.10, "C2LLM-0.5B": 0.40, "C2LLM-7B": 0.55}
# Parameters that a token is multiplied with, layers, width.
SHAPES = {"nano": (5.65e6, 3, 384), "C2LLM-0.5B": (357.9e6, 24, 896), "C2LLM-7B": (6_525.6e6, 28, 3_584)}
GPU_HOUR, CORE_HOUR = 2.50, 0.04  # dollars
# Links of HNSW's lowest layer, 2 M = 32 of 4 bytes; memory of a node for searched codes and graph.
GRAPH_BYTES, NODE_BYTES = 128, 48e9
# Rows one Qdrant shard or Milvus query node holds before building and merging its indexes takes days.
NODE_ROWS = 100e6
# Rows a second into one Qdrant shard; the Milvus figure is measured.
QDRANT_ROWS = 3_000
# Chunks in a batch, batches that wait before a stage, for each of its servers.
BATCH, QUEUE = 256, 2


def result(name: str, **where: object) -> dict[str, Any]:
    """The first row of a result file that has these values."""
    rows = json.loads((RESULTS / f"{name}.json").read_text())["rows"]
    return next(row for row in rows if all(row.get(key) == value for key, value in where.items()))


NANO_TOKENS = result("main_job", what="nano, chunks as they come", unit="tokens/s")["value"]
NANO_CHUNKS = result("main_job", what="nano, chunks as they come", unit="chunks/s")["value"]
HALF_TOKENS = result("embedder_speed", row="released")["ours"]
MILVUS_ROWS = result("milvus_load", side="ours", database="server")["rows/s"]
CHUNKING = NETWORKX / result("main_job", what="c2llm index, nothing changed", unit="s")["value"]
TOKENS = NANO_TOKENS / NANO_CHUNKS


def gpu_chunks(model: str) -> float:
    """Chunks a second of one GPU: 2 N FLOP a token for the weights and 2 L n d for attention among n tokens."""
    weights, layers, width = SHAPES[model]
    return UTILISATION[model] * PEAK / (2 * weights + 2 * layers * TOKENS * width) / TOKENS


@dataclass(frozen=True)
class Stage:
    """Servers that each take `seconds` for a batch, a factor of lognormal spread on it."""

    name: str
    servers: int
    seconds: float
    spread: float = 0.5


class Pipeline:
    """Stages with a bounded queue before each but the first; a server keeps what the next queue has no room for."""

    def __init__(self, stages: Sequence[Stage], batches: int, seed: int) -> None:
        self.stages = stages
        self.waiting = [batches, *(0 for _ in stages[1:])]
        self.idle = [stage.servers for stage in stages]
        self.blocked = [0 for _ in stages]
        self.busy = [0.0 for _ in stages]
        self.events: list[tuple[float, int]] = []
        self.random = random.Random(seed)

    def settle(self, now: float) -> None:
        """Move and begin all that can be."""
        moved = True
        while moved:
            moved = False
            for at, stage in enumerate(self.stages):
                while self.idle[at] and self.waiting[at]:
                    self.idle[at] -= 1
                    self.waiting[at] -= 1
                    work = stage.seconds * self.random.lognormvariate(-(stage.spread**2) / 2, stage.spread)
                    self.busy[at] += work
                    heapq.heappush(self.events, (now + work, at))
                    moved = True
                while self.blocked[at] and self.has_room(at + 1):
                    self.blocked[at] -= 1
                    self.idle[at] += 1
                    if at + 1 < len(self.stages):
                        self.waiting[at + 1] += 1
                    moved = True

    def has_room(self, at: int) -> bool:
        return at == len(self.stages) or self.waiting[at] < QUEUE * self.stages[at].servers


def simulate(stages: Sequence[Stage], batches: int = 20_000, seed: int = 0) -> tuple[float, list[float]]:
    """Return batches a second, and the share of time that each stage's servers work."""
    pipeline, now = Pipeline(stages, batches, seed), 0.0
    pipeline.settle(now)
    while pipeline.events:
        now, at = heapq.heappop(pipeline.events)
        pipeline.blocked[at] += 1
        pipeline.settle(now)
    return batches / now, [work / now / stage.servers for work, stage in zip(pipeline.busy, stages, strict=True)]


def pipeline(embed: float, embedders: int, cores: int, nodes: int, rows: float) -> list[Stage]:
    """The three stages: cores that list and chunk, embedders of `embed` chunks a second, nodes that store `rows`."""
    return [
        Stage("chunk", cores, BATCH / CHUNKING),
        Stage("embed", embedders, BATCH / embed),
        Stage("write", nodes, BATCH / rows),
    ]


# ---- tables


def corpus() -> list[list[str]]:
    rows = [["chunks", "files", "source", "tokens", "to list and chunk"]]
    for chunks in CHUNKS:
        hours = chunks / CHUNKING / 3600
        share = chunks / NETWORKX
        rows.append(
            [_n(chunks), _n(share * FILES), _bytes(share * BYTES), _n(chunks * TOKENS), f"{_n(hours)} core-hours"]
        )
    return rows


def embedding() -> list[list[str]]:
    rows = [["model on", "chunks/s", *(f"{_n(chunks)} chunks" for chunks in CHUNKS), "days for 10 G on 64"]]
    two = {"nano, 2 cores (measured)": NANO_CHUNKS, "C2LLM-0.5B, 2 cores (measured)": HALF_TOKENS / TOKENS}
    for name, speed in two.items():
        cells = [_hours(chunks / speed / 3600, 2 * CORE_HOUR) for chunks in CHUNKS]
        rows.append([name, _n(speed), *cells, _n(CHUNKS[-1] / speed / 64 / 86400)])
    for model in SHAPES:
        speed = gpu_chunks(model)
        cells = [_hours(chunks / speed / 3600, GPU_HOUR) for chunks in CHUNKS]
        rows.append([f"{model}, a GPU (assumed)", _n(speed), *cells, _n(CHUNKS[-1] / speed / 64 / 86400)])
    return rows


def storage() -> list[list[str]]:
    rows = [
        ["dimensions", "codes", "chunks", "vectors on disk", "rows on disk", "in memory", "Qdrant shards", "Milvus"]
    ]
    for width in (64, 256, 896):
        for codes in ("int8", "binary"):
            plan = CompactPlan(width, "float16", codes)
            for chunks in CHUNKS:
                memory = chunks * (plan.code_bytes + GRAPH_BYTES + ID_BYTES)
                # Milvus has no binary codes of its own before 2.6 (RaBitQ, as small) and keeps no graph with IVF.
                flat = chunks * (plan.code_bytes + ID_BYTES)
                sizes = map(_bytes, (chunks * plan.bytes_per_vector, chunks * PAYLOAD_BYTES, memory))
                counts = (str(nodes(chunks, memory)), str(nodes(chunks, flat)))
                rows.append([str(width), codes, _n(chunks), *sizes, *counts])
    return rows


def nodes(chunks: float, memory: float) -> int:
    """Nodes that hold so many rows with so much memory."""
    return max(1, math.ceil(memory / NODE_BYTES), math.ceil(chunks / NODE_ROWS))


FLEETS = (
    # model, chunks a second of an embedder, embedders, cores for chunking, nodes that store, rows/s of each
    ("nano, 2 cores each", NANO_CHUNKS, 8, 4, 1, MILVUS_ROWS),
    ("nano, 2 cores each", NANO_CHUNKS, 64, 8, 1, MILVUS_ROWS),
    ("nano, 2 cores each", NANO_CHUNKS, 64, 8, 8, QDRANT_ROWS),
    ("C2LLM-0.5B, a GPU each", gpu_chunks("C2LLM-0.5B"), 1, 2, 1, QDRANT_ROWS),
    ("C2LLM-0.5B, a GPU each", gpu_chunks("C2LLM-0.5B"), 8, 2, 8, QDRANT_ROWS),
    ("C2LLM-0.5B, a GPU each", gpu_chunks("C2LLM-0.5B"), 8, 16, 8, QDRANT_ROWS),
    ("C2LLM-0.5B, a GPU each", gpu_chunks("C2LLM-0.5B"), 64, 96, 16, QDRANT_ROWS),
    ("C2LLM-0.5B, a GPU each", gpu_chunks("C2LLM-0.5B"), 64, 96, 100, QDRANT_ROWS),
    ("nano, a GPU each", gpu_chunks("nano"), 8, 64, 100, QDRANT_ROWS),
)


def simulation() -> list[list[str]]:
    rows = [["embedders", "of", "cores", "nodes", "chunks/s", "chunk", "embed", "write", "the slow stage", "10 G in"]]
    for name, speed, embedders, cores, shards, each in FLEETS:
        stages = pipeline(speed, embedders, cores, shards, each)
        rate, busy = simulate(stages)
        slow = stages[busy.index(max(busy))].name
        share = [f"{100 * one:.0f} %" for one in busy]
        days = CHUNKS[-1] / (rate * BATCH) / 86400
        rows.append([str(embedders), name, str(cores), str(shards), _n(rate * BATCH), *share, slow, f"{_n(days)} days"])
    return rows


def write(text: str) -> str:
    """Return the page with each table, between its marks, as it comes out now."""
    for make in (corpus, embedding, storage, simulation):
        head, *body = make()
        lines = [head, ["---"] * len(head), *body]
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        marks = rf"(<!-- {make.__name__} -->\n).*?(<!-- end -->)"
        text, found = re.subn(marks, lambda match, table=table: f"{match[1]}{table}\n{match[2]}", text, flags=re.DOTALL)
        assert found == 1, make.__name__
    return text


def _hours(hours: float, price: float) -> str:
    return f"{_n(hours)} h, ${_n(hours * price)}"


def _n(value: float) -> str:
    """Three digits, and thousands, millions, billions."""
    for unit, size in ((" T", 1e12), (" G", 1e9), (" M", 1e6)):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{float(f'{value:.3g}'):,.0f}" if value >= 100 else f"{value:.2g}"


def _bytes(value: float) -> str:
    return next(
        f"{value / size:.3g} {unit}"
        for unit, size in (("PB", 1e15), ("TB", 1e12), ("GB", 1e9), ("MB", 1e6))
        if value >= size
    )


if __name__ == "__main__":
    PAGE.write_text(write(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    print(PAGE.read_text(encoding="utf-8"))
