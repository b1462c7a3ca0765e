"""The distributed run beside the local one, on this machine.

It writes into a Qdrant façade over the real engine (tests/stores); the part with most rows into a real Milvus, PyPI's
2.3.5, because the façade answers nobody while it builds its graph.

    python -m benchmarks.distributed [--only equal speed actors driver] [--files 5000] [--chunks 100000]

equal    rows of installed packages' files, distributed against local, with a small real checkpoint
speed    chunks a second with nano, one embedding actor against the local engine, side by side
actors   batches a second of 1, 2 and 8 actors whose embedder only sleeps
driver   peak memory of the driver, and what the object store spilled, with an embedder that only makes numbers up

Every figure comes from a process of its own; parts that are not run keep theirs in results/distributed.json. "load" is
the machine's when the part ended: other programs ran beside it where it is above 3.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import common, memory

PARTS = ("equal", "speed", "actors", "driver")
GOLDEN = Path("tests/data/golden/c2llm-tiny-tied")
MAX_BYTES = 40 * 10**6
SLEEP, BATCHES, SETTLED = 1.0, 96, 24


class Simulated:
    """An embedder that takes `seconds` a call and gives vectors that depend on the text alone."""

    def __init__(self, seconds: float = 0.0, width: int = 32) -> None:
        self.seconds, self.output_dim = seconds, width
        self.fingerprint = {"model": "simulated"}
        self.tokens_seen = self.texts_cut = 0

    def encode_documents(self, texts: list[str], progress: Any = None) -> np.ndarray:
        time.sleep(self.seconds)
        seeds = [int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big") for text in texts]
        return np.stack([np.random.default_rng(seed).standard_normal(self.output_dim, np.float32) for seed in seeds])


class Making:
    """Makes the simulated embedder in an actor."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds

    def __call__(self) -> Simulated:
        return Simulated(self.seconds)


def copy_files(to: Path, most: int) -> int:
    """Copy Python files of installed packages, up to a number and MAX_BYTES; return how many."""
    torch = importlib.util.find_spec("torch")
    assert torch is not None
    assert torch.origin is not None
    site = Path(torch.origin).parents[1]
    found, size = 0, 0
    for file in sorted(site.rglob("*.py")):
        if found == most or size > MAX_BYTES:
            break
        if "/tests/" in str(file) or not 0 < file.stat().st_size < 60_000:
            continue
        target = to / "sources" / file.relative_to(site)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
        found, size = found + 1, size + file.stat().st_size
    return found


def run_distributed(
    folder: Path, url: str, embedders: int, make: Callable[[], Any] | None = None
) -> tuple[Any, list[float]]:
    """Run it; return the report and when each batch was through."""
    from c2llm_integrations.indexing.options import IngestOptions
    from c2llm_integrations.indexing.ray.cluster import Cluster
    from c2llm_integrations.indexing.ray.run import ingest_distributed

    times: list[float] = []
    cluster = Cluster(embedders=embedders, make_embedder=make)
    [report] = ingest_distributed(
        [folder],
        url,
        cluster=cluster,
        options=IngestOptions(progress=lambda *_: times.append(time.perf_counter())),
    )
    return report, times


def run_local(folder: Path, url: str, model: str, **options: Any) -> Any:
    from c2llm_integrations.indexing.ingest import ingest
    from c2llm_integrations.model.embedder import C2LLMEmbedder
    from c2llm_integrations.stores import open_store

    with open_store(url) as store:
        return ingest(folder, C2LLMEmbedder.from_pretrained(model, **options), store)


def equal(folder: Path, url: str, files: int) -> dict[str, Any]:
    from c2llm_integrations.model.embedder import C2LLMEmbedder
    from c2llm_integrations.stores import open_store

    count = copy_files(folder, files)
    load = {"dtype": "float32"}
    run_distributed(folder / "sources", url, 1, partial(C2LLMEmbedder.from_pretrained, str(GOLDEN), **load))
    edge = f"qdrant+edge://{folder / 'local'}"
    report = run_local(folder / "sources", edge, str(GOLDEN), **load)
    with open_store(url) as one, open_store(edge) as other:
        mine, theirs = ({row.id: row for row in store.scan()} for store in (one, other))
        ids = list(theirs)[:: max(1, len(theirs) // 2000)]
        held, wanted = one.vectors(ids), other.vectors(ids)
        worst = min(float(held[id] @ wanted[id]) for id in ids)
    return {"files": count, "chunks": report.chunks, "equal rows": mine == theirs, "lowest cosine": worst}


def speed(folder: Path, url: str, way: str, files: int) -> dict[str, Any]:
    copy_files(folder, files)
    begin = time.perf_counter()
    if way == "local":
        report = run_local(folder / "sources", url, "nano")
        return {"way": way, "chunks": report.chunks, "chunks/s": report.chunks / (time.perf_counter() - begin)}
    report, times = run_distributed(folder / "sources", url, 1)
    end = time.perf_counter()
    # Ray and the actor begin once; what remains is the work, its first batch left out.
    steady = (len(times) - 1) / len(times) * report.chunks / (times[-1] - times[0])
    return {"way": way, "chunks": report.chunks, "chunks/s": report.chunks / (end - begin), "steady chunks/s": steady}


def actors(folder: Path, url: str, number: int) -> dict[str, Any]:
    for at in range(max(BATCHES, 48 * number) * 64):  # what had queued up at first must not count for much
        file = folder / "sources" / f"part_{at // 64}" / f"file_{at}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"def f_{at}(x):\n    return x + {at}\n")
    _, times = run_distributed(folder / "sources", url, number, Making(SLEEP))
    # Not all actors are there at first, and at the end they have no work for all.
    seconds = times[-SETTLED // 2] - times[SETTLED]
    return {"actors": number, "batches/s": (len(times) - SETTLED - SETTLED // 2) / seconds}


def driver(folder: Path, url: str, chunks: int) -> dict[str, Any]:
    import ray
    from ray._private.internal_api import memory_summary

    memory.generate(folder / "sources", chunks)
    ray.init("local", num_cpus=4, include_dashboard=False, log_to_driver=False)
    begin, before = time.perf_counter(), common.own_peak_mb()
    report, _ = run_distributed(folder / "sources", url, 1, Making())
    summary = memory_summary(ray.get_runtime_context().gcs_address, stats_only=True)
    return {
        "chunks": report.chunks,
        "rows/s": report.stored / (time.perf_counter() - begin),
        "driver MB": common.own_peak_mb(),
        "MB at first": before,
        "spilled": "Spilled" in summary,
    }


def measure(part: str, *options: object) -> dict[str, Any]:
    """Run a part in a process of its own, with a server and a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        stop, url = started_milvus(folder) if part == "driver" else started_facade(folder)
        command = [sys.executable, "-m", "benchmarks.distributed", "--run", part, folder, url]
        try:
            done = subprocess.run([*command, *map(str, options)], stdout=subprocess.PIPE, text=True, check=True)
        finally:
            stop()
    row = {"part": part, **json.loads(done.stdout.splitlines()[-1]), "load": round(os.getloadavg()[0], 1)}
    print(row, flush=True)
    return row


def started_facade(folder: str) -> tuple[Callable[[], None], str]:
    from tests.qdrant_facade import ServerProcess

    server = ServerProcess(Path(folder) / "server")
    server.start()
    return server.kill, f"qdrant+{server.address}"


def started_milvus(folder: str) -> tuple[Callable[[], None], str]:
    from benchmarks.milvus_load import started

    stop, uri, _ = started("server", f"{folder}/server")
    return stop, f"milvus+{uri}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--files", type=int, default=5_000)
    parser.add_argument("--chunks", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--run", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        part, folder, url, *more = options.run
        numbers = [int(one) if one.isdigit() else one for one in more]
        print(json.dumps(globals()[part](Path(folder), url, *numbers)))
        return
    rows = []
    if "equal" in options.only:
        rows.append(measure("equal", options.files))
    if "speed" in options.only:
        rows += [measure("speed", way, min(options.files, 2_000)) for way in ("local", "distributed")]
    if "actors" in options.only:
        rows += [measure("actors", number) for number in (1, 2, 8)]
    if "driver" in options.only:
        rows += [measure("driver", chunks) for chunks in options.chunks]
    known = common.RESULTS / "distributed.json"
    before = json.loads(known.read_text())["rows"] if known.exists() else []
    rows = [row for row in before if row["part"] not in options.only] + rows
    columns = dict.fromkeys(name for row in rows for name in row)
    common.report("distributed", [{name: row.get(name, "") for name in columns} for row in rows])


if __name__ == "__main__":
    main()
