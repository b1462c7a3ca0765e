"""What every store promises of loading much, of taking a collection's place, and of what a killed run leaves."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier, Event

import pytest

from c2llm_integrations.errors import InputError, StoreBusy, StoreError
from c2llm_integrations.stores import list_collections
from c2llm_integrations.stores.filter import Filter
from c2llm_integrations.stores.records import Row
from c2llm_integrations.stores.spec import CollectionSpec
from c2llm_integrations.stores.vector_store import READ_ROWS, VectorStore
from tests.stores.conftest import Database
from tests.stores.test_contract import ids

MakeRows = Callable[..., list[Row]]


# ---- loading


def test_a_bulk_load_ends_with_everything_found(store: VectorStore, make_rows: MakeRows) -> None:
    rows = make_rows(1_500)
    with store.bulk():
        for start in range(0, len(rows), 500):
            store.upsert(rows[start : start + 500])
    assert store.count() == 1_500
    for row in rows[::100]:
        assert store.search(row.vector, 1)[0].chunk == row.chunk


def test_a_failed_bulk_load_keeps_what_was_written(store: VectorStore, make_rows: MakeRows) -> None:
    rows = make_rows(40)

    def load() -> None:
        with store.bulk():
            store.upsert(rows[:30])
            raise ValueError("on purpose")

    with pytest.raises(ValueError, match="on purpose"):
        load()
    assert {row.id for row in store.scan()} == set(ids(rows[:30]))
    with store.bulk():
        store.upsert(rows)
    assert store.search(rows[35].vector, 1)[0].chunk == rows[35].chunk


def test_what_a_killed_bulk_load_put_off_is_made_good(
    open_: Database, spec: CollectionSpec, make_rows: MakeRows
) -> None:
    rows = make_rows(40)
    with open_() as killed:
        killed.create(spec)
        killed._defer()  # as `bulk` does, and never leaves it
        killed.upsert(rows[:20])
    store = open_()
    assert store.search(rows[3].vector, 1)[0].chunk == rows[3].chunk
    with store.bulk():
        store.upsert(rows[20:])
    assert store.count() == 40
    assert store.search(rows[33].vector, 1)[0].chunk == rows[33].chunk


def test_several_uploads_at_once_lose_nothing(store: VectorStore, make_rows: MakeRows) -> None:
    if store.capabilities.uploads == 1:
        pytest.skip("is for one thread")
    batches = [make_rows(150, repository=f"r{number}") for number in range(12)]
    with store.bulk(), ThreadPoolExecutor(store.capabilities.uploads) as threads:
        assert list(threads.map(store.upsert, batches)) == [0] * 12
    assert store.count() == 12 * 150
    assert {row.id for row in store.scan()} == {id for rows in batches for id in ids(rows)}


def test_two_writers_at_once_write_one_collection(open_: Database, store: VectorStore, make_rows: MakeRows) -> None:
    if store.capabilities.uploads == 1:
        pytest.skip("is for one thread")
    rows, other = make_rows(200), open_()
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda writer: writer.upsert(rows), (store, other)))
    assert store.count() == len(list(store.scan())) == 200


def test_a_store_that_is_not_used_yet_can_be_copied_and_sent(open_: Database, spec: CollectionSpec) -> None:
    with open_() as store:
        if store._client is not None:
            pytest.skip("has a connection or rows from the first moment on")
        copied = pickle.loads(pickle.dumps(store))
    with copied:
        assert copied.create(spec)
        assert copied.count() == 0


def test_threads_make_open_and_claim_one_collection(open_: Database, spec: CollectionSpec, make_rows: MakeRows) -> None:
    if open_.kind == "memory":
        pytest.skip("its client is for one thread")
    for number in range(4):
        store, rows, begin = open_(f"threads{number}"), make_rows(8), Barrier(8)

        def write(place: int, store: VectorStore = store, rows: list[Row] = rows, begin: Barrier = begin) -> bool:
            begin.wait()
            if place % 2:
                assert store.count() <= 8  # a reader opens what another thread is making
            is_new = store.create(spec)
            store.claim(f"source-{place}", "run")
            store.upsert([rows[place]])
            return is_new

        with ThreadPoolExecutor(8) as threads:
            assert sorted(threads.map(write, range(8))) == [False] * 7 + [True]
        assert (store.count(), len(store.claims())) == (8, 8)
        store.close()


# ---- taking a collection's place


@pytest.fixture
def old(store: VectorStore, make_rows: MakeRows) -> VectorStore:
    """A collection of 30 rows, claimed, which is to be replaced."""
    store.upsert(make_rows(30, repository="old"))
    store.claim("old", "checkout-1")
    return store


def fill(successor: VectorStore, spec: CollectionSpec, rows: list[Row]) -> None:
    successor.create(spec)
    with successor.bulk():
        successor.upsert(rows)


@pytest.mark.core
def test_a_successor_takes_the_place_with_its_own_model(
    open_: Database, old: VectorStore, spec: CollectionSpec, make_rows: MakeRows
) -> None:
    other = replace(spec, width=4, fingerprint={"model": "other", "weights": "xyz"})
    rows = [Row(row.chunk, row.vector[:4]) for row in make_rows(7)]
    successor = old.successor()
    assert (successor.spec, successor.count(), old.count()) == (None, 0, 30)
    fill(successor, other, rows)
    successor.claim("repo", "checkout-2")
    assert (old.spec, old.count(), old.claims()) == (spec, 30, {"old": "checkout-1"})
    old.replace_by(successor)
    with pytest.raises(StoreError, match="closed"):
        successor.count()
    assert (old.spec, old.claims()) == (other, {"repo": "checkout-2"})
    assert {row.id for row in old.scan()} == set(ids(rows))
    assert old.search(rows[2].vector, 1)[0].chunk == rows[2].chunk
    name = old.collection.removeprefix(open_.prefix)
    old.close()
    with open_(name) as again:
        assert (again.spec, again.count()) == (other, 7)
        again.drop()
        assert again.spec is None
    with open_(name) as dropped:
        assert dropped.spec is None


def test_it_can_be_replaced_again_and_again(old: VectorStore, spec: CollectionSpec, make_rows: MakeRows) -> None:
    for number in (1, 2, 3):
        successor = old.successor()
        assert successor.spec is None
        fill(successor, spec, make_rows(number))
        old.replace_by(successor)
        assert old.count() == number


def test_a_failed_rebuild_leaves_the_old_rows_serving_and_is_continued(
    open_: Database, old: VectorStore, spec: CollectionSpec, make_rows: MakeRows
) -> None:
    # [pipelines that delete the old vectors before the new ones are there: llama_index #22638]
    rows = make_rows(12)
    successor = old.successor()
    successor.create(spec)
    successor.upsert(rows[:5])
    successor.close()
    old.close()  # the run was killed
    with open_() as store:
        assert (store.count(), store.count(source="old")) == (30, 30)
        successor = store.successor()
        assert {row.id for row in successor.scan()} == set(ids(rows[:5]))
        fill(successor, spec, rows)
        store.replace_by(successor)
        assert {row.id for row in store.scan()} == set(ids(rows))


def test_an_abandoned_rebuild_can_be_begun_anew_and_is_dropped_with_its_collection(
    open_: Database, old: VectorStore, spec: CollectionSpec, make_rows: MakeRows
) -> None:
    successor = old.successor()
    fill(successor, spec, make_rows(5))
    successor.drop()
    assert successor.spec is None
    fill(successor, replace(spec, width=4), [])
    successor.close()
    old.drop()
    old.create(spec)
    assert (old.count(), old.successor().spec) == (0, None)


def test_readers_by_name_never_see_a_gap(
    open_: Database, old: VectorStore, spec: CollectionSpec, make_rows: MakeRows
) -> None:
    try:
        reader = open_()
    except StoreBusy:
        pytest.skip("one store at a time may have it open")
    assert reader.count() == 30
    threads = ThreadPoolExecutor(1) if old.capabilities.uploads > 1 else None
    vector, replaced, seen = make_rows(1)[0].vector, Event(), set()

    def read() -> None:
        while not replaced.is_set():
            seen.add((reader.count(), len(reader.search(vector, 100))))

    reading = threads.submit(read) if threads else None
    for number in (10, 20):
        successor = old.successor()
        fill(successor, spec, make_rows(number))
        old.replace_by(successor)
        assert (reader.count(), len(reader.search(vector, 100))) == (number, number)
    replaced.set()
    if reading:
        reading.result()
    assert {count for pair in seen for count in pair} <= {30, 10, 20}


def test_a_successor_has_no_successor(old: VectorStore, spec: CollectionSpec) -> None:
    successor = old.successor()
    successor.create(spec)
    with pytest.raises(StoreError, match="is a successor itself"):
        successor.successor()
    assert old.successor().spec == spec


def test_a_missing_collection_has_no_successor(open_: Database) -> None:
    with pytest.raises(StoreError, match="no collection"):
        open_().successor()


# ---- which ones there are


def test_collections_are_listed_under_their_names(open_: Database, spec: CollectionSpec, make_rows: MakeRows) -> None:
    if open_.client is not None:
        assert list_collections(open_.url) == []  # every opening is a new, empty store
        return
    for name in ("one", "two", "three"):
        with open_(name) as store:
            store.create(spec)
            if name == "two":
                fill(store.successor(), spec, make_rows(1))
            if name == "three":
                successor = store.successor()
                fill(successor, spec, [])
                store.replace_by(successor)
    names = [name.removeprefix(open_.prefix) for name in list_collections(open_.url) if name.startswith(open_.prefix)]
    assert names == ["one", "three", "two"]
    with open_("one") as store:
        store.drop()
    assert open_.prefix + "one" not in list_collections(open_.url)


def test_an_empty_store_is_filled_without_reading_it(
    store: VectorStore, make_rows: MakeRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = make_rows(20)
    looked: list[int] = []
    look_up = store._written_fields
    monkeypatch.setattr(store, "_written_fields", lambda ids: looked.append(len(ids)) or look_up(ids))
    with store.bulk():
        store.upsert(rows[:10])
        store.upsert(rows[10:])
    assert looked == []
    assert store.count() == 20
    assert store.client is not None  # whoever has it may add fields of their own
    with store.bulk():
        store.upsert(rows)
    assert sum(looked) == 20


# ---- how the database builds and spreads a collection

INDEX = {"m": 24, "ef_construct": 150, "M": 24, "efConstruction": 150}


def test_what_a_spec_says_of_the_index_is_kept(open_: Database, spec: CollectionSpec, make_rows: MakeRows) -> None:
    store = open_()
    index = {name: number for name, number in INDEX.items() if name in store.capabilities.index}
    store.create(replace(spec, index=index))
    store.upsert(rows := make_rows(20))
    store.optimize()
    store.close()
    again = open_()
    again.create(spec)  # who does not care takes what is there
    assert again.spec is not None
    assert again.spec.index == index
    assert again.search(rows[3].vector, 1)[0].chunk == rows[3].chunk


def test_what_the_database_does_not_know_of_an_index_is_refused_first(open_: Database, spec: CollectionSpec) -> None:
    store = open_()
    with pytest.raises(StoreError, match="index 'links' is not supported here, only"):
        store.create(replace(spec, index={"links": 3}))
    assert store.spec is None
    with pytest.raises(InputError, match="index 'm' is 0, must be an integer of at least 1"):
        replace(spec, index={"m": 0})


def test_others_are_served_between_two_rows(store: VectorStore, make_rows: MakeRows) -> None:
    store.upsert(make_rows(READ_ROWS + 20))
    rows = store.scroll()
    first = next(rows)
    if store.capabilities.uploads > 1:
        with ThreadPoolExecutor(1) as thread:
            assert thread.submit(store.count).result() == READ_ROWS + 20
    assert store.count() == READ_ROWS + 20
    assert len({first.id, *(one.id for one in rows)}) == READ_ROWS + 20
    rows = store.scroll()
    next(rows)
    store.close()
    with pytest.raises(StoreError, match="is closed"):
        list(rows)


async def closed_meanwhile(store: VectorStore, monkeypatch: pytest.MonkeyPatch) -> None:
    real, begun, go = store._count, Event(), Event()

    def count(where: Filter, source: str | None) -> int:
        begun.set()
        assert go.wait(20)
        return real(where, source)

    monkeypatch.setattr(store, "_count", count)
    first = asyncio.ensure_future(store.acount())
    assert await asyncio.to_thread(begun.wait, 20)
    others = [asyncio.ensure_future(store.acount()) for _ in range(40)]
    closing = asyncio.ensure_future(asyncio.to_thread(store.close))
    while not store._closed:
        await asyncio.sleep(0)
    go.set()
    answers = await asyncio.gather(first, *others, return_exceptions=True)
    await closing
    assert all(one == 0 or isinstance(one, StoreError) for one in answers)
    assert isinstance(answers[-1], StoreError)
    with pytest.raises(StoreError, match="is closed"):
        await store.acount()


def test_whoever_waits_for_a_store_that_is_closed_is_told(store: VectorStore, monkeypatch: pytest.MonkeyPatch) -> None:
    asyncio.run(closed_meanwhile(store, monkeypatch))
