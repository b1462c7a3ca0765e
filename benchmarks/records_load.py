"""How fast `ingest_records` loads records with given vectors, beside the loader of chunks and other libraries' own.

    python -m benchmarks.records_load [--records 100000] [--width 128] [--turns 5] [--only WORD ...] [--json FILE]

Records have five fields of metadata and a text of a few words. Ours verifies everything; each side runs in a process
of its own, one after another, each once in a turn, and makes no lexical terms. Milvus Lite builds its index behind its
callers' backs, so its time ends when the folder is closed. "cpu_s" is the processor time of both processes, if the
database has one, and says more than seconds do where others use the machine. The Milvus server is PyPI's 2.3.5.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import RESULTS, machine, process, seconds
from c2llm_integrations import CodeChunk, CollectionSpec, Row, ingest_records, load, open_store

BATCH_ROWS = 256
# Records that langchain-milvus is given in one call; it sends a thousand in one request.
AT_ONCE = 10_000
LANGUAGES = ("go", "python", "rust", "java")


def records(count: int) -> Iterator[dict[str, Any]]:
    """Yield records as a question-and-answer corpus has them."""
    for number in range(count):
        yield {
            "id": f"answer-{number}",
            "text": f"how to retry request {number} with a delay of {number % 97} seconds in {LANGUAGES[number % 4]}",
            "language": LANGUAGES[number % 4],
            "votes": number % 1000,
            "accepted": number % 3 == 0,
            "tags": ["http", f"tag-{number % 50}"],
            "created": f"2026-01-{number % 28 + 1:02d}T12:00:00Z",
        }


def vectors(count: int, width: int) -> np.ndarray:
    """Return random vectors."""
    return np.random.default_rng(0).standard_normal((count, width), np.float32)


def chunk_batches(count: int, width: int) -> Iterator[list[Row]]:
    """Yield the same texts as chunks of a repository."""
    made, batch = vectors(count, width), []
    for number, record in enumerate(records(count)):
        id = str(uuid.UUID(int=(number + 1) * 0x9E3779B97F4A7C15F39CC0605CEDC835 % 2**128))
        path = f"{record['language']}/{number // 100}"
        chunk = CodeChunk(id, "answers", path, record["language"], "", "", 1, 1, record["text"])
        batch.append(Row(chunk, made[number]))
        if len(batch) == BATCH_ROWS:
            yield batch
            batch = []
    yield batch


def loaded_chunks(url: str, count: int, width: int) -> float:
    with open_store(url, "answers") as store:
        store.create(CollectionSpec(width, {"model": "given"}))

        def work() -> None:
            with store.bulk():
                assert load(chunk_batches(count, width), store).written == count

        return seconds(work)


def loaded_records(url: str, count: int, width: int) -> float:
    with open_store(url, "answers") as store:
        if not url.startswith(SERVER):  # of 2.3.5, which knows no words; creating is timed there, as on the other side
            store.create(CollectionSpec(width, {"model": "given"}))  # without words, like the other side
        made = vectors(count, width)

        def work() -> None:
            ingest_records(records(count), None, store, source="answers", vectors=made)
            if url.startswith(LITE):
                store.close()

        return seconds(work)


def unchanged_records(url: str, count: int, width: int) -> float:
    loaded_records(url, count, width)
    with open_store(url, "answers") as store:
        made = vectors(count, width)
        reports: list[Any] = []
        took = seconds(
            lambda: reports.append(ingest_records(records(count), None, store, source="answers", vectors=made))
        )
        assert (reports[0].unchanged, reports[0].written) == (count, 0)
        return took


def uploaded_points(url: str, count: int, width: int) -> float:
    from qdrant_client import QdrantClient, models

    client, made = QdrantClient(":memory:"), vectors(count, width)
    client.create_collection("answers", models.VectorParams(size=width, distance=models.Distance.COSINE))

    def points() -> Iterator[models.PointStruct]:
        for number, record in enumerate(records(count)):
            text = record.pop("text")
            payload = {"page_content": text, "metadata": record}
            yield models.PointStruct(id=number, vector=made[number].tolist(), payload=payload)

    took = seconds(lambda: client.upload_points("answers", points(), batch_size=BATCH_ROWS, wait=True))
    assert client.count("answers").count == count
    return took


def langchain_milvus(url: str, count: int, width: int) -> float:
    from langchain_core.embeddings import DeterministicFakeEmbedding
    from langchain_milvus import Milvus
    from milvus_lite.server_manager import server_manager_instance
    from pymilvus import MilvusClient

    from c2llm_integrations.stores.milvus.collections import await_indexes

    uri = url.removeprefix("milvus+lite://").removeprefix("milvus+")
    made, given = vectors(count, width), list(records(count))
    store = Milvus(
        DeterministicFakeEmbedding(size=width),
        collection_name="answers",
        connection_args={"uri": uri},
        auto_id=False,
        enable_dynamic_field=True,
    )

    def work() -> None:
        for start in range(0, count, AT_ONCE):
            some = given[start : start + AT_ONCE]
            ids, texts = [one.pop("id") for one in some], [one.pop("text") for one in some]
            store.add_embeddings(texts, made[start : start + AT_ONCE].tolist(), some, ids=ids)
        store.client.flush("answers")
        await_indexes(store.client, "answers")
        if url.startswith(LITE):
            store.client.close()
            server_manager_instance.release_server(uri)

    took = seconds(work)
    client = MilvusClient(uri)
    client.load_collection("answers")
    assert count == client.query("answers", output_fields=["count(*)"], consistency_level="Strong")[0]["count(*)"]
    return took


EDGE, MEMORY, LITE, SERVER = "qdrant+edge", "qdrant+memory", "milvus+lite", "milvus+http"
SIDES: dict[str, tuple[str, Callable[[str, int, int], float]]] = {
    "Edge, the loader of chunks": (EDGE, loaded_chunks),
    "Edge, ingest_records": (EDGE, loaded_records),
    "Edge, ingest_records without a change": (EDGE, unchanged_records),
    "qdrant-client in memory, upload_points": (MEMORY, uploaded_points),
    "qdrant-client in memory, ingest_records": (MEMORY, loaded_records),
    "Milvus Lite, langchain-milvus": (LITE, langchain_milvus),
    "Milvus Lite, ingest_records": (LITE, loaded_records),
    "Milvus server, langchain-milvus": (SERVER, langchain_milvus),
    "Milvus server, ingest_records": (SERVER, loaded_records),
}


def run_side(name: str, count: int, width: int) -> None:
    """Print what one side took, as JSON."""
    scheme, work = SIDES[name]
    urls = {EDGE: "qdrant+edge://{}/rows", MEMORY: "qdrant+memory://", LITE: "milvus+lite://{}/rows.db"}
    server_seconds: Callable[[], float] = float
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, ExitStack() as cleanup:
        if scheme == SERVER:
            from benchmarks.milvus_load import cpu_seconds, started

            stop, uri, pid = started("server", folder)
            cleanup.callback(stop)
            urls[SERVER], server_seconds = f"milvus+{uri}", partial(cpu_seconds, pid)
        used = time.process_time() + server_seconds()
        took = work(urls[scheme].format(folder), count, width)
        used = time.process_time() + server_seconds() - used
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    figures = {"seconds": round(took, 2), "rows/s": round(count / took), "cpu_s": round(used, 2)}
    print(json.dumps({**figures, "peak_mb": round(peak)}))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--records", type=int, default=10_000)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--turns", type=int, default=1)
    parser.add_argument("--json", type=Path, default=RESULTS / "records_load.json")
    parser.add_argument("--only", nargs="+", default=[""], metavar="WORD", help="sides whose name holds one of these")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        run_side(given.side, given.records, given.width)
        return
    size = ("--records", str(given.records), "--width", str(given.width))
    results: dict[str, list[dict[str, float]]] = {}
    for name in given.turns * [name for name in SIDES if any(word in name for word in given.only)]:
        done = process(sys.executable, "-m", "benchmarks.records_load", *size, "--side", name)
        results.setdefault(name, []).append(json.loads(done["output"].splitlines()[-1]))
        print(f"{name:<42} {results[name][-1]}", flush=True)
    made = {"date": time.strftime("%Y-%m-%d"), "machine": machine(), "records": given.records, "width": given.width}
    document = {**made, "results": results}
    given.json.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
