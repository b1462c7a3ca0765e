"""How fast given vectors are stored and indexed in Milvus, in how much memory, beside langchain-milvus's `add_texts`.

    python -m benchmarks.milvus_load [--rows 100000] [--runs 2] [--only lite server]

lite     Milvus Lite in a folder; ready when the folder is closed, which builds what is left of the index
server   a real Milvus, PyPI's 2.3.5; ready when its index is and the collection is loaded

Both sides write the same rows in batches of 1,000, in turn, each in a process of its own. Ours verifies what it wrote.
Theirs gets the vectors of 10,000 rows at a time, so that its memory is that of the smallest caller. Both then answer
the same questions: recall@10 of exact search by cosine, and the median time of one. "cpu_s" is the processor time of
both processes until all is ready, which says more than seconds do where others use the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from langchain_core.embeddings import Embeddings
from milvus_lite.server_manager import server_manager_instance
from pymilvus import MilvusClient

from benchmarks.common import memory_mb, process, report
from benchmarks.load_speed import batches, real_chunks
from c2llm_integrations.stores import open_store
from c2llm_integrations.stores.bulk_loader import load
from c2llm_integrations.stores.records import Row, Vector
from c2llm_integrations.stores.spec import CollectionSpec

WIDTH = 256
BATCH = 1_000
AT_ONCE = 10_000
QUESTIONS = 50


def made(count: int) -> list[list[Row]]:
    """Rows of real code with unit vectors in a thousand clusters, in batches."""
    random = np.random.default_rng(1)
    centres = random.standard_normal((1_000, WIDTH), np.float32)
    rows = []
    for small in batches(count, WIDTH, real_chunks()):
        vectors = centres[random.integers(0, len(centres), len(small))] + np.stack([row.vector for row in small])
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        rows += [Row(row.chunk, vector) for row, vector in zip(small, vectors, strict=True)]
    return [rows[start : start + BATCH] for start in range(0, count, BATCH)]


class Ours:
    """Our loader and our search."""

    def __init__(self, uri: str) -> None:
        self.store = open_store(("milvus+" if uri.startswith("http") else "milvus+lite://") + uri)

    def write(self, parts: list[list[Row]]) -> None:
        self.store.create(CollectionSpec(WIDTH, {"model": "given"}))
        with self.store.bulk():
            assert not load(parts, self.store).refused

    def ids(self, question: Vector) -> set[str]:
        return {hit.chunk.id for hit in self.store.search(question, 10)}

    def client(self) -> MilvusClient:
        return self.store._client  # type: ignore[attr-defined]


class Theirs:
    """langchain-milvus with its defaults, but for the ids, which are ours."""

    def __init__(self, uri: str) -> None:
        from langchain_milvus import Milvus

        self.given = Given()
        self.store = Milvus(self.given, collection_name="code", connection_args={"uri": uri}, auto_id=False)

    def write(self, parts: list[list[Row]]) -> None:
        self.given.vectors = (row.vector.tolist() for part in parts for row in part)
        step = AT_ONCE // BATCH
        for start in range(0, len(parts), step):
            chunks = [row.chunk for part in parts[start : start + step] for row in part]
            metadatas = [chunk.metadata for chunk in chunks]
            self.store.add_texts([chunk.text for chunk in chunks], metadatas, ids=[chunk.id for chunk in chunks])
        client = self.client()
        client.flush("code")
        while (index := client.describe_index("code", "vector"))["state"] != "Finished" or index["pending_index_rows"]:
            time.sleep(0.1)

    def ids(self, question: Vector) -> set[str]:
        found = self.store.similarity_search_by_vector(question.tolist(), k=10)
        return {document.metadata["pk"] for document in found}

    def client(self) -> MilvusClient:
        return self.store.client


class Given(Embeddings):
    """The vectors of the rows that come next."""

    vectors: Iterator[list[float]]

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [next(self.vectors) for _ in texts]

    def embed_query(self, text: str) -> list[float]:
        raise NotImplementedError


def side(name: str, uri: str, count: int) -> dict[str, Any]:
    """Write all rows with one of the two, then ask."""
    parts = made(count)
    before = memory_mb("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    database = SIDES[name](uri)
    begin, used = time.perf_counter(), time.process_time()
    database.write(parts)
    if not uri.startswith("http"):
        # Its index is built behind its back; closing the folder waits for it.
        server_manager_instance.release_server(uri)
    written, used = time.perf_counter() - begin, time.process_time() - used
    peak = memory_mb("VmHWM")
    if not uri.startswith("http"):
        database = SIDES[name](uri)
        database.client().load_collection("code")
    figures = {"rows/s": count / written, "cpu_s": used, "peak_mb": peak, "added_mb": peak - before}
    return {**figures, **asked(database, parts)}


def asked(database: Ours | Theirs, parts: list[list[Row]]) -> dict[str, float]:
    """Recall@10 and the median time of a question, as each side asks by default."""
    held = database.client().query("code", output_fields=["count(*)"], consistency_level="Strong")[0]["count(*)"]
    ids = [row.chunk.id for part in parts for row in part]
    assert held == len(ids)
    matrix = np.stack([row.vector for part in parts for row in part])
    noise = 0.02 * np.random.default_rng(2).standard_normal((QUESTIONS, WIDTH))
    questions = (matrix[:: len(matrix) // QUESTIONS][:QUESTIONS] + noise).astype(np.float32)
    hits, times = 0, []
    for question in questions / np.linalg.norm(questions, axis=1, keepdims=True):
        nearest = {ids[i] for i in np.argpartition(-(matrix @ question), 10)[:10]}
        begin = time.perf_counter()
        found = database.ids(question)
        times.append(time.perf_counter() - begin)
        hits += len(nearest & found)
    return {"recall@10": hits / 10 / QUESTIONS, "query_ms": 1_000 * statistics.median(times)}


SIDES: dict[str, type[Ours] | type[Theirs]] = {"ours": Ours, "langchain-milvus": Theirs}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--rows", type=int, default=100_000)
    arguments.add_argument("--runs", type=int, default=2)
    arguments.add_argument("--only", nargs="+", choices=["lite", "server"], default=["lite", "server"])
    arguments.add_argument("--side", nargs=2, metavar=("SIDE", "URI"), help="one process of the benchmark")
    options = arguments.parse_args()
    if options.side:
        name, uri = options.side
        print(json.dumps(side(name, uri, options.rows)))
        return
    rows = [row for kind in options.only for row in measured(kind, options.rows, options.runs)]
    report("milvus_load", rows)


def measured(kind: str, count: int, runs: int) -> Iterator[dict[str, Any]]:
    """Each side in turn, in a fresh database."""
    for run in range(1, runs + 1):
        for name in SIDES:
            with tempfile.TemporaryDirectory() as folder:
                stop, uri, pid = started(kind, folder)
                before = cpu_seconds(pid)
                command = ("-m", "benchmarks.milvus_load", "--rows", str(count), "--side", name, uri)
                figures = json.loads(process(sys.executable, *command)["output"].splitlines()[-1])
                figures["cpu_s"] += cpu_seconds(pid) - before
                stop()
            yield {"database": kind, "run": run, "side": name, **figures}


def started(kind: str, folder: str) -> tuple[Callable[[], None], str, int | None]:
    """How to stop a new database, what pymilvus calls it, and its process if it has one."""
    if kind == "lite":
        return lambda: None, str(Path(folder) / "rows.db"), None
    from milvus import MilvusServer

    server = MilvusServer(data_dir=folder, wait_for_started=False)
    server.listen_port = 0
    server.start()
    server.wait_started(timeout=120_000)
    return server.stop, f"http://127.0.0.1:{server.listen_port}", server.server_proc.pid


def cpu_seconds(pid: int | None) -> float:
    """Processor time of another process so far, 0 for none."""
    if pid is None:
        return 0.0
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
