"""A Qdrant server that fails now and then, or is killed, ends with what an undisturbed one holds."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from c2llm_integrations._utils import retry
from c2llm_integrations.code.lexical_terms import ANALYZER, query_terms
from c2llm_integrations.errors import BatchRefused, StoreError
from c2llm_integrations.stores import open_store
from c2llm_integrations.stores.bulk_loader import load
from c2llm_integrations.stores.qdrant import aliases
from c2llm_integrations.stores.qdrant import client as qdrant_client
from c2llm_integrations.stores.qdrant import store as qdrant
from c2llm_integrations.stores.records import Row
from c2llm_integrations.stores.spec import CollectionSpec
from c2llm_integrations.stores.vector_store import VectorStore
from tests.qdrant_engine import Collections
from tests.qdrant_facade import KINDS, Faults, ServerProcess, serve

pytestmark = pytest.mark.server

MakeRows = Callable[..., list[Row]]
BATCH = 25


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "FIRST_SECONDS", 0.01)


@pytest.fixture
def rows(make_rows: MakeRows) -> list[Row]:
    return make_rows(1_500)


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
    kept = {row.chunk.id: row for row in store.rows()}
    assert {id: row.chunk for id, row in kept.items()} == {row.chunk.id: row.chunk for row in rows}
    for row in rows:
        np.testing.assert_allclose(kept[row.chunk.id].vector, row.vector / np.linalg.norm(row.vector), atol=1e-6)
    assert store.count() == len(rows)
    for row in rows[::300]:
        found = store.candidates(row.vector, query_terms(row.chunk.text), 1)
        assert found.dense[0].chunk == found.lexical[0].chunk == row.chunk


@pytest.mark.parametrize("kind", KINDS)
def test_a_share_of_failing_requests_changes_nothing(
    quick_path: Path, rows: list[Row], spec: CollectionSpec, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    if kind == "hang":  # elsewhere a slow machine's request would be sent twice, and counted twice
        monkeypatch.setattr(qdrant, "TIMEOUT_SECONDS", 1)
    faults = Faults(rate=0.05, kinds=[kind], hang_seconds=3, seed=3)
    with serve(quick_path, faults=faults) as address, open_store(f"qdrant+{address}") as store:
        load_all(store, rows, spec)
        faults.rate = 0
        assert faults.seen[kind] >= 3
        assert_undisturbed(store, rows, spec)


def test_every_kind_of_failure_at_once_while_replacing(quick_path: Path, rows: list[Row], spec: CollectionSpec) -> None:
    faults = Faults(kinds=[kind for kind in KINDS if kind != "hang"])
    with serve(quick_path, faults=faults) as address, open_store(f"qdrant+{address}") as store:
        store.create(spec)
        store.upsert(rows[:10])
        faults.rate = 0.2
        successor = store.successor()
        load_all(successor, rows, spec)
        store.replace_by(successor)
        faults.rate = 0
        assert min(faults.seen[kind] for kind in faults.kinds) >= 3
        assert_undisturbed(store, rows, spec)
        assert [one.name for one in store.client.get_collections().collections] == ["code__2"]


def test_a_killed_server_that_comes_back_has_it_all(quick_path: Path, rows: list[Row], spec: CollectionSpec) -> None:
    server = ServerProcess(quick_path)
    server.start()
    killed = []

    def kill_and_start() -> None:
        server.kill()
        server.start()
        killed.append(True)

    try:
        with open_store(f"qdrant+{server.address}") as store, ThreadPoolExecutor(1) as threads:
            store.create(spec)

            def batches() -> Iterator[list[Row]]:
                for start in range(0, len(rows), BATCH):
                    if start in (len(rows) // 3, 2 * len(rows) // 3):  # those before are on their way or stored
                        threads.submit(kill_and_start)
                    yield rows[start : start + BATCH]

            with store.bulk():
                load(batches(), store)
            store.claim("repo", "checkout")
            threads.shutdown()
            assert killed == [True, True]
            assert_undisturbed(store, rows, spec)
    finally:
        server.kill()


def test_two_writers_at_once_change_nothing(quick_path: Path, rows: list[Row], spec: CollectionSpec) -> None:
    with serve(quick_path) as address, ThreadPoolExecutor(2) as threads:
        stores = [open_store(f"qdrant+{address}") for _ in range(2)]
        for done in [threads.submit(load_all, store, rows, spec) for store in stores]:
            done.result()
        assert_undisturbed(stores[0], rows, spec)
        for store in stores:
            store.close()


# ---- which failures are tried again


@pytest.fixture
def faults() -> Faults:
    return Faults()


@pytest.fixture
def store(quick_path: Path, faults: Faults, spec: CollectionSpec) -> Iterator[VectorStore]:
    with serve(quick_path, faults=faults) as address, open_store(f"qdrant+{address}") as store:
        store.create(spec)
        yield store


def test_retry_after_is_obeyed(
    store: VectorStore, faults: Faults, rows: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    faults.rate, faults.most, faults.kinds, faults.retry_after = 1, 1, ["429"], "30"
    slept: list[float] = []
    monkeypatch.setattr(retry.time, "sleep", slept.append)
    store.upsert(rows[:3])
    assert 30 <= sum(slept) <= 30 + retry.FIRST_SECONDS
    assert (faults.seen.total(), store.count()) == (1, 3)


def test_too_many_requests_without_a_time_are_tried_again(store: VectorStore, faults: Faults, rows: list[Row]) -> None:
    faults.rate, faults.most, faults.kinds, faults.retry_after = 1, 3, ["429"], None
    store.upsert(rows[:3])
    assert (faults.seen.total(), store.count()) == (3, 3)


def test_a_server_that_stays_broken_is_an_error_in_one_line(
    store: VectorStore, faults: Faults, rows: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    # [max_retries=0 that reports success and stores nothing]
    monkeypatch.setattr(aliases, "retrying", partial(retry.retrying, limit=0.2))
    faults.rate, faults.kinds = 1, ["500"]
    with pytest.raises(
        StoreError, match=r"500 \(Internal Server Error\): Service internal error: on purpose"
    ) as caught:
        store.upsert(rows[:3])
    assert "\n" not in str(caught.value)
    assert faults.seen["500"] > 1
    faults.rate = 0
    assert store.count() == 0


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("endless", r"has over 4,194,304 bytes"),
        ("unpacks", r"has over 4,194,304 bytes"),
        ("unasked", r"packed as 'br', and was asked for as gzip"),
        ("lists", r"has over 1,024 commas and brackets"),
        ("slow", r"did not end within 1 s"),
    ],
)
def test_an_answer_without_end_is_an_error_in_one_line(
    store: VectorStore, faults: Faults, monkeypatch: pytest.MonkeyPatch, kind: str, message: str
) -> None:
    monkeypatch.setattr(aliases, "retrying", partial(retry.retrying, limit=0.2))
    monkeypatch.setattr(qdrant_client, "ANSWER_SECONDS", 1.0 if kind == "slow" else 60.0)
    monkeypatch.setattr(qdrant_client, "ANSWER_BYTES", 2**22)
    monkeypatch.setattr(qdrant_client, "ANSWER_VALUES", 2**10)
    faults.rate, faults.kinds = 1, [kind]
    with pytest.raises(StoreError, match=message) as caught:
        store.count()
    assert "\n" not in str(caught.value)
    assert faults.seen[kind] == 1
    faults.rate = 0
    assert store.count() == 0  # over the same client


def test_pages_of_long_rows_are_read_again_in_halves(
    quick_path: Path, rows: list[Row], spec: CollectionSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve(quick_path) as address, open_store(f"qdrant+{address}") as store:
        load_all(store, rows, spec)
        monkeypatch.setattr(qdrant_client, "ANSWER_BYTES", 40_000)  # some rows with their vectors, far from a page
        assert_undisturbed(store, rows, spec)
        wanted = [row.chunk.id for row in rows]
        assert store.get(wanted).keys() == store.vectors(wanted).keys() == {*wanted}
        assert {one.id for one in store.scan()} == {*wanted}
        monkeypatch.setattr(qdrant_client, "ANSWER_BYTES", 100)
        with pytest.raises(StoreError, match=r"over 100 bytes; ask for fewer rows at once, or give a client of yours"):
            list(store.scroll())


def test_what_the_server_refuses_is_not_sent_again(store: VectorStore, faults: Faults, rows: list[Row]) -> None:
    # [a batch with one bad row losing the others: it is named as refused, so that the loader can take it apart]
    faults.poison = rows[1].chunk.text
    sent = faults.requests["PUT points"]
    with pytest.raises(BatchRefused, match=r"refused rows of collection 'code': 400 \(Bad Request\): Wrong input"):
        store.upsert(rows[:3])
    assert faults.requests["PUT points"] == sent + 1
    store.upsert([rows[0], rows[2]])
    assert store.count() == 2


def test_a_poisoned_load_keeps_every_good_row(
    store: VectorStore, faults: Faults, rows: list[Row], tmp_path: Path
) -> None:
    faults.poison = rows[17].chunk.text
    report = load([rows[:40], rows[40:60]], store, refused=tmp_path / "refused.jsonl")
    assert (report.written, set(report.refused)) == (59, {rows[17].chunk.id})
    assert store.count() == 59


def test_many_rows_take_few_requests(store: VectorStore, faults: Faults, rows: list[Row]) -> None:
    # [one insert a chunk: SeaGOAT #924, #925]
    before = faults.requests["PUT points"]
    store.upsert(rows)
    assert faults.requests["PUT points"] - before <= 2
    assert len(list(store.scan())) == len(rows)
    assert faults.requests["POST points/scroll"] == 1
    store.candidates(rows[0].vector, ["def"], 5)
    assert faults.requests["POST points/query/batch"] == 2  # both lists, and scores in the other one


@pytest.mark.parametrize(
    ("lie", "message"),
    [
        (lambda page, n: {**page, "next_page_offset": 1}, "two pages lead to 1"),
        (lambda page, n: {"points": [], "next_page_offset": n}, "a page without rows leads to 1"),
        (lambda page, n: {**page, "next_page_offset": n}, "1,800 rows came, at most 1,200 were expected"),
    ],
)
def test_pages_without_end_are_an_error_in_one_line(
    store: VectorStore,
    rows: list[Row],
    monkeypatch: pytest.MonkeyPatch,
    lie: Callable[[dict[str, Any], int], dict[str, Any]],
    message: str,
) -> None:
    store.upsert(rows[:600])
    honest, count = Collections.scroll, itertools.count(1)

    def scroll(self: Collections, name: str, body: dict[str, Any]) -> dict[str, Any]:
        return lie(honest(self, name, {**body, "offset": None}), next(count))

    monkeypatch.setattr(Collections, "scroll", scroll)
    for read in (store.scan, store.rows, store.scroll):
        count = itertools.count(1)
        with pytest.raises(StoreError, match=rf"sends pages of collection 'code' without end: {message}; read it"):
            list(read())
