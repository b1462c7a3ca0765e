"""A Milvus that fails now and then, or is killed, and a killed client: nothing lost, nothing twice."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pymilvus.grpc_gen.milvus_pb2 import GetVersionResponse

from c2llm_integrations._utils import retry
from c2llm_integrations.code.lexical_terms import ANALYZER, query_terms
from c2llm_integrations.errors import StoreError
from c2llm_integrations.stores import open_store
from c2llm_integrations.stores.bulk_loader import load
from c2llm_integrations.stores.milvus import collections as milvus_collections
from c2llm_integrations.stores.records import Row
from c2llm_integrations.stores.spec import CollectionSpec
from c2llm_integrations.stores.vector_store import VectorStore
from tests.milvus_proxy import KINDS, Faults, LiteServer, between, faked
from tests.repeats import KILLS
from tests.stores.conftest import empty_milvus

pytestmark = pytest.mark.server

MakeRows = Callable[..., list[Row]]
BATCH = 25


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_SECONDS", 0.01)


@pytest.fixture
def rows(make_rows: MakeRows) -> list[Row]:
    return make_rows(1_000)


@pytest.fixture
def spec(spec: CollectionSpec) -> CollectionSpec:
    return replace(spec, analyzer=ANALYZER)


def load_all(store: VectorStore, rows: list[Row], spec: CollectionSpec) -> None:
    store.create(spec)
    with store.bulk():
        load((rows[start : start + BATCH] for start in range(0, len(rows), BATCH)), store)
    store.claim("repo", "checkout")


def assert_undisturbed(store: VectorStore, rows: list[Row], spec: CollectionSpec) -> None:
    """Fail unless the collection is what one load without any trouble makes of the rows."""
    assert (store.spec, store.claims()) == (spec, {"repo": "checkout"})
    kept = list(store.rows())
    assert len(kept) == store.count() == len(rows)
    chunks = {row.chunk.id: row.chunk for row in kept}
    assert chunks == {row.chunk.id: row.chunk for row in rows}
    vectors = {row.chunk.id: row.vector for row in kept}
    for row in rows:
        np.testing.assert_allclose(vectors[row.chunk.id], row.vector / np.linalg.norm(row.vector), atol=1e-6)
    for row in rows[::300]:
        found = store.candidates(row.vector, query_terms(row.chunk.text), 1)
        assert found.dense[0].chunk == found.lexical[0].chunk == row.chunk


@pytest.mark.parametrize("kind", KINDS)
def test_a_share_of_failing_calls_changes_nothing(
    milvus_lite_address: str, rows: list[Row], spec: CollectionSpec, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "hang":
        monkeypatch.setattr(milvus_collections, "TIMEOUT_SECONDS", 1)
    faults = Faults([kind], seed=3)
    with between(milvus_lite_address, faults) as address, open_store(f"milvus+{address}") as store:
        faults.rate = 0.1
        load_all(store, rows, spec)
        faults.rate = 0
        assert faults.seen[kind] >= 3
        assert_undisturbed(store, rows, spec)
    empty_milvus(milvus_lite_address)


def test_every_kind_of_failure_at_once_while_replacing(
    milvus_lite_address: str, rows: list[Row], spec: CollectionSpec
) -> None:
    faults = Faults([kind for kind in KINDS if kind != "hang"])
    with between(milvus_lite_address, faults) as address, open_store(f"milvus+{address}") as store:
        store.create(spec)
        store.upsert(rows[:10])
        faults.rate = 0.2
        successor = store.successor()
        load_all(successor, rows, spec)
        store.replace_by(successor)
        faults.rate = 0
        assert_undisturbed(store, rows, spec)
    empty_milvus(milvus_lite_address)


def test_a_killed_server_that_comes_back_has_it_all(tmp_path: Path, rows: list[Row], spec: CollectionSpec) -> None:
    with LiteServer(tmp_path) as server, open_store(f"milvus+{server.address}") as store:
        begun, pieces = threading.Event(), [rows[start : start + BATCH] for start in range(0, len(rows), BATCH)]

        def batches() -> Iterator[list[Row]]:
            for number, piece in enumerate(pieces):
                if number == len(pieces) // 3:
                    begun.set()
                yield piece

        def restart() -> None:
            begun.wait()
            server.kill()
            server.start()

        with ThreadPoolExecutor(1) as threads:
            restarting = threads.submit(restart)
            store.create(spec)
            with store.bulk():
                assert load(batches(), store).written == len(rows)
            store.claim("repo", "checkout")
            restarting.result()
        assert_undisturbed(store, rows, spec)


COMMON = """
import sys, uuid
import numpy as np
from c2llm_integrations.code.chunk import CodeChunk
from c2llm_integrations.code.lexical_terms import ANALYZER
from c2llm_integrations.stores import open_store
from c2llm_integrations.stores.vector_store import CollectionSpec, Row

def row(i):
    id = str(uuid.uuid5(uuid.NAMESPACE_OID, str(i)))
    vector = np.random.default_rng(i).standard_normal(32).astype(np.float32)
    return Row(CodeChunk(id, "repo", f"f{i // 10}.py", "python", f"s{i}", "function", i + 1, i + 2, f"only{i}"), vector)
"""
WRITE = """
store = open_store(sys.argv[1])
store.create(CollectionSpec(32, {}, analyzer=ANALYZER))
for batch in range(int(sys.argv[2]), 10_000):
    store.upsert([row(100 * batch + i) for i in range(100)])
    print("upsert", batch, flush=True)
    if batch % 3 == 0:
        store.delete([row(100 * batch + i).chunk.id for i in range(10)])
        print("delete", batch, flush=True)
    if batch % 7 == 0:
        store.optimize()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_milvus_lite_keeps_what_it_acknowledged_before_any_kill(tmp_path: Path) -> None:
    url, generator = f"milvus+lite://{tmp_path / 'rows.db'}", random.Random(0)
    names: dict[str, Any] = {}
    exec(COMMON, names)
    upserted: set[int] = set()
    deleted: set[int] = set()
    for _ in range(KILLS):
        command = [sys.executable, "-c", COMMON + WRITE, url, str(max(upserted, default=-1) + 1)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            told = [process.stdout.readline()]
            time.sleep(generator.uniform(0, 1.5))
            process.kill()
            told += process.stdout.readlines()
        for kind, batch in (line.split() for line in told if line.endswith("\n")):
            (upserted if kind == "upsert" else deleted).add(int(batch))
        with open_store(url) as store:
            held = {row.id for row in store.scan()}
            assert len(held) == store.count()
            for batch in upserted:
                ids = [names["row"](100 * batch + i).chunk.id for i in range(100)]
                assert held.issuperset(ids[10:])
                if batch in deleted:
                    assert held.isdisjoint(ids[:10])
            last = names["row"](100 * max(upserted) + 50)
            assert store.search(last.vector, 1)[0].chunk == last.chunk
            assert store.candidates(None, query_terms(last.chunk.text), 1).lexical[0].chunk == last.chunk


# ---- servers that answer nonsense


def version_only(method: str) -> bytes:
    return GetVersionResponse(version="v2.6.0").SerializeToString() if method == "GetVersion" else b""


def test_a_server_that_never_says_its_version_is_an_error_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(milvus_collections, "CONNECT_SECONDS", 1)
    stop = threading.Event()
    with faked(lambda method: b"" if method == "Connect" else bytes(stop.wait(30))) as address:
        with pytest.raises(StoreError, match=r"cannot be opened: Deadline Exceeded; is the server up"):
            open_store(f"milvus+{address}")
        stop.set()


def test_an_answer_larger_than_servers_send_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    assert milvus_collections.MAX_ANSWER_BYTES == 2**28
    monkeypatch.setattr(milvus_collections, "MAX_ANSWER_BYTES", 2**16)
    answers = {"DescribeCollection": bytes(2**20)}
    with (
        faked(lambda method: answers.get(method, version_only(method))) as address,
        open_store(f"milvus+{address}") as store,
        pytest.raises(StoreError, match=r"Received message larger than max \(1048576 vs. 65536\)") as caught,
    ):
        store.count()
    assert "\n" not in str(caught.value)
