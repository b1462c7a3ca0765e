"""How fast given vectors are stored and indexed in Milvus, in how much memory, beside langchain-milvus's `add_texts`.

    python -m benchmarks.milvus_load [--rows 100000] [--runs 2] [--only lite server]

lite     Milvus Lite in a folder; ready when the folder is closed, which builds what is left of the index
server   a real Milvus, PyPI's 2.3.5; ready when its index is and the collection is loaded

Both sides write the same rows in batches of 1,000, in turn, each in a process of its own. Ours verifies what it wrote.
Theirs gets the vectors of 10,000 rows at a time, so that its memory is that of the smallest caller. Both then answer
the same questions: recall@10 of exact search by cosine, and the median time of one.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from pymilvus import MilvusClient

from benchmarks.common import own_peak_mb, process, report
from benchmarks.load_speed import batches, real_chunks
from c2llm_integrations.loading import load
from c2llm_integrations.stores import open_store
from c2llm_integrations.stores.base import CollectionSpec, Row
from c2llm_integrations.stores.rows import payload_of

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


def ours(uri: str, parts: list[list[Row]], done: Callable[[], None]) -> None:
    """Write with our loader."""
    scheme = "milvus+" if uri.startswith("http") else "milvus+lite://"
    with open_store(scheme + uri) as store:
        store.create(CollectionSpec(WIDTH, {"model": "given"}))
        with store.bulk():
            assert not load(iter(parts), store).refused
        if uri.startswith("http"):
            done()
    done()


def theirs(uri: str, parts: list[list[Row]], done: Callable[[], None]) -> None:
    """Write with langchain-milvus and its defaults, but for the ids, which are ours."""
    from langchain_core.embeddings import Embeddings
    from langchain_milvus import Milvus

    class Given(Embeddings):
        """The vectors of the next rows."""

        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            return [next(vectors) for _ in texts]

        def embed_query(self, text: str) -> list[float]:
            raise NotImplementedError

    vectors: Iterator[list[float]] = (row.vector.tolist() for part in parts for row in part)
    store = Milvus(Given(), collection_name="code", connection_args={"uri": uri}, auto_id=False)
    step = AT_ONCE // BATCH
    for start in range(0, len(parts), step):
        chunks = [row.chunk for part in parts[start : start + step] for row in part]
        metadatas = [payload_of(chunk)["metadata"] for chunk in chunks]
        store.add_texts([chunk.text for chunk in chunks], metadatas, ids=[chunk.id for chunk in chunks])
    store.client.flush("code")
    if uri.startswith("http"):
        wait(store.client)
    else:
        from milvus_lite.server_manager import server_manager_instance

        server_manager_instance.release_server(uri)
    done()


def wait(client: MilvusClient) -> None:
    """Until every row is indexed."""
    while True:
        [index] = [client.describe_index("code", name) for name in client.list_indexes("code") if name == "vector"]
        if index["state"] == "Finished" and not int(index["pending_index_rows"]):
            return
        time.sleep(0.1)


def side(write: Callable[[str, list[list[Row]], Callable[[], None]], None], uri: str, count: int) -> dict[str, Any]:
    """Write all rows with one of the two, then ask."""
    parts = made(count)
    before = own_peak_mb()
    begin, ends = time.perf_counter(), []
    write(uri, parts, lambda: ends.append(time.perf_counter() - begin))
    peak = own_peak_mb()
    found = asked(uri, parts)
    return {"rows/s": count / ends[0], "peak_mb": peak, "added_mb": peak - before, **found}


def asked(uri: str, parts: list[list[Row]]) -> dict[str, float]:
    """Recall@10 and the median seconds of a question."""
    client = MilvusClient(uri)
    client.load_collection("code")
    assert client.query("code", output_fields=["count(*)"], consistency_level="Strong")[0]["count(*)"] == sum(
        map(len, parts)
    )
    ids = [row.chunk.id for part in parts for row in part]
    matrix = np.stack([row.vector for part in parts for row in part])
    random = np.random.default_rng(2)
    questions = matrix[:: len(matrix) // QUESTIONS][:QUESTIONS] + 0.02 * random.standard_normal((QUESTIONS, WIDTH))
    hits, times = 0, []
    primary = next(f["name"] for f in client.describe_collection("code")["fields"] if f.get("is_primary"))
    for question in questions.astype(np.float32):
        nearest = {ids[i] for i in np.argpartition(-(matrix @ question), 10)[:10]}
        begin = time.perf_counter()
        [answers] = client.search("code", [question], anns_field="vector", limit=10, consistency_level="Bounded")
        times.append(time.perf_counter() - begin)
        hits += len(nearest & {answer["id"] if "id" in answer else answer[primary] for answer in answers})
    client.close()
    return {"recall@10": hits / 10 / QUESTIONS, "query_ms": 1_000 * statistics.median(times)}


SIDES = {"ours": ours, "langchain-milvus": theirs}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    arguments.add_argument("--rows", type=int, default=100_000)
    arguments.add_argument("--runs", type=int, default=2)
    arguments.add_argument("--only", nargs="+", choices=["lite", "server"], default=["lite", "server"])
    arguments.add_argument("--side", nargs=2, metavar=("SIDE", "URI"), help="one process of the benchmark")
    options = arguments.parse_args()
    if options.side:
        name, uri = options.side
        print(json.dumps(side(SIDES[name], uri, options.rows)))
        return
    rows = [row for kind in options.only for row in measured(kind, options.rows, options.runs)]
    report("milvus_load", rows)


def measured(kind: str, count: int, runs: int) -> Iterator[dict[str, Any]]:
    """Each side in turn, in a fresh database."""
    for run in range(1, runs + 1):
        for name in SIDES:
            with tempfile.TemporaryDirectory() as folder:
                stop, uri = started(kind, folder)
                command = ("-m", "benchmarks.milvus_load", "--rows", str(count), "--side", name, uri)
                figures = json.loads(process(sys.executable, *command)["output"].splitlines()[-1])
                stop()
            yield {"database": kind, "run": run, "side": name, **figures}


def started(kind: str, folder: str) -> tuple[Callable[[], None], str]:
    """How to stop a new database, and what pymilvus calls it."""
    if kind == "lite":
        return lambda: None, str(Path(folder) / "rows.db")
    from milvus import MilvusServer

    server = MilvusServer(data_dir=folder, wait_for_started=False)
    server.listen_port = 0
    server.start()
    server.wait_started(timeout=60_000)
    return server.stop, f"http://127.0.0.1:{server.listen_port}"


if __name__ == "__main__":
    main()
