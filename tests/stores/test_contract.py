"""What every store promises, run over every store."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from qdrant_client import QdrantClient

from c2llm_integrations.errors import InputError, RowsRefused, SpecMismatch, StoreError
from c2llm_integrations.stores import open_store
from c2llm_integrations.stores.base import CollectionSpec, Filter, Row, Stored, Vector, VectorStore
from c2llm_integrations.stores.qdrant import QdrantStore
from tests.stores.conftest import empty_milvus
from tests.stores.qdrant_facade import serve

MakeRow = Callable[..., Row]
MakeRows = Callable[..., list[Row]]
Open = Callable[..., VectorStore]

WIDTH = 16  # of the `spec` and `make_row` fixtures


@pytest.fixture(params=["edge", "memory", "http", "milvus-lite", "milvus-grpc"])
def open_(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Open a collection of one database; opening again after closing finds what was written."""
    with ExitStack() as cleanup:
        if request.param == "memory":
            client = QdrantClient(":memory:")
            cleanup.callback(client.close)
        elif request.param == "edge":
            url = f"qdrant+edge://{tmp_path / 'store'}"
        elif request.param == "http":
            url = f"qdrant+{cleanup.enter_context(serve(tmp_path / 'store'))}"
        elif request.param == "milvus-lite":
            url = f"milvus+lite://{tmp_path / 'store.db'}"
        else:
            address = request.getfixturevalue("milvus_lite_address")
            cleanup.callback(empty_milvus, address)
            url = f"milvus+{address}"

        def open_one(collection: str = "code") -> VectorStore:
            memory = request.param == "memory"
            store = QdrantStore.from_client(client, collection) if memory else open_store(url, collection)
            cleanup.callback(store.close)
            return store

        yield open_one


def ids(rows: list[Row]) -> list[str]:
    return [row.chunk.id for row in rows]


def as_stored(row: Row) -> Stored:
    chunk = row.chunk
    return Stored(chunk.id, chunk.path, chunk.language, chunk.symbol, chunk.kind, chunk.start_line, chunk.end_line)


def unit(vector: Vector) -> Vector:
    return np.asarray(vector / np.linalg.norm(vector), dtype=np.float32)


# ---- the collection


def test_missing_collection_reads_as_empty_and_refuses_writes(open_: Open, make_row: MakeRow) -> None:
    store, row = open_(), make_row()
    assert store.spec is None
    assert store.claims() == {}
    assert store.count() == 0
    assert list(store.scan()) == []
    assert store.vectors([row.chunk.id]) == {}
    store.delete([row.chunk.id])
    store.drop()
    for refused in (
        lambda: store.upsert([row]),
        lambda: store.update([row.chunk]),
        lambda: store.search(row.vector, 1),
        lambda: store.claim("repo", "here"),
        store.optimize,
    ):
        with pytest.raises(StoreError, match="no collection 'code'"):
            refused()


def test_spec_survives_reopening(open_: Open, spec: CollectionSpec) -> None:
    with open_() as first:
        first.create(spec)
        assert first.spec == spec
    with open_() as second:
        assert second.spec == spec
        second.create(spec)
        assert second.count() == 0


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"width": WIDTH + 1}, ["width", str(WIDTH), str(WIDTH + 1)]),
        ({"fingerprint": {"model": "m", "weights": "other"}}, ["fingerprint", "None", "True"]),
        ({"fingerprint": {"weights": "xyz", "normalize": True, "projection": None}}, ["weights", "'abc'", "'xyz'"]),
    ],
)
def test_another_spec_is_refused_by_name(
    store: VectorStore, spec: CollectionSpec, change: dict[str, Any], names: list[str]
) -> None:
    with pytest.raises(SpecMismatch) as caught:
        store.create(replace(spec, **change))
    message = str(caught.value)
    assert all(name in message for name in names)
    assert "\n" not in message
    assert store.spec == spec


def test_a_moved_model_is_the_same_spec(store: VectorStore, spec: CollectionSpec) -> None:
    store.create(replace(spec, fingerprint={**spec.fingerprint, "model": "/elsewhere/nano"}))
    assert store.spec == spec


@pytest.mark.parametrize("change", [{"datatype": "uint8"}, {"quantization": "binary"}, {"analyser": "code-1"}])
def test_a_plan_beyond_the_store_is_refused_before_anything_is_made(
    open_: Open, spec: CollectionSpec, change: dict[str, Any]
) -> None:
    store = open_()
    with pytest.raises(StoreError, match=next(iter(change.values()))):
        store.create(replace(spec, **change))
    assert store.spec is None


def test_claims_survive_reopening_and_can_move(open_: Open, spec: CollectionSpec) -> None:
    with open_() as first:
        first.create(spec)
        first.claim("github.com/a/b", "checkout-1")
        first.claim('odd "name" %é', "checkout-2")
        first.claim("github.com/a/b", "checkout-3")
    with open_() as second:
        assert second.claims() == {"github.com/a/b": "checkout-3", 'odd "name" %é': "checkout-2"}
        assert second.spec == spec


def test_collections_are_separate(open_: Open, spec: CollectionSpec, make_rows: MakeRows) -> None:
    one, two = open_("one"), open_("two")
    one.create(spec)
    two.create(replace(spec, width=3))
    one.upsert(make_rows(5))
    assert (one.count(), two.count()) == (5, 0)
    one.drop()
    assert (one.spec, two.spec) == (None, replace(spec, width=3))


def test_dropped_collection_can_be_made_anew(open_: Open, spec: CollectionSpec, make_rows: MakeRows) -> None:
    store = open_()
    store.create(spec)
    store.upsert(make_rows(5))
    store.claim("repo", "here")
    store.drop()
    store.drop()
    assert store.spec is None
    assert list(store.scan()) == []
    store.create(replace(spec, width=4))
    assert (store.count(), store.claims()) == (0, {})


def test_closed_store_refuses_everything_but_closing(
    store: VectorStore, spec: CollectionSpec, make_row: MakeRow
) -> None:
    row = make_row()
    store.upsert([row])
    scanning = store.scan()
    store.close()
    store.close()
    for call in (
        lambda: store.spec,
        lambda: store.create(spec),
        store.claims,
        lambda: store.claim("repo", "here"),
        lambda: store.upsert([row]),
        lambda: store.update([row.chunk]),
        lambda: store.delete([row.chunk.id]),
        store.scan,
        lambda: next(scanning),
        store.count,
        lambda: store.vectors([row.chunk.id]),
        lambda: store.search(row.vector, 1),
        store.optimize,
        store.drop,
    ):
        with pytest.raises(StoreError, match="closed"):
            call()


# ---- rows


def test_rows_come_back_as_written(open_: Open, spec: CollectionSpec, make_rows: MakeRows) -> None:
    rows = make_rows(57)
    with open_() as first:
        first.create(spec)
        first.upsert(rows)
    store = open_()
    assert store.count() == len(rows)
    assert {row.id: row for row in store.scan()} == {row.chunk.id: as_stored(row) for row in rows}
    assert all(str(uuid.UUID(row.id)) == row.id for row in store.scan())
    found = store.vectors([*ids(rows), str(uuid.uuid4())])
    assert found.keys() == set(ids(rows))
    for row in rows:
        assert found[row.chunk.id].dtype == np.float32
        np.testing.assert_allclose(found[row.chunk.id], unit(row.vector), atol=1e-6)


def test_a_large_batch_is_stored_whole(store: VectorStore, make_rows: MakeRows) -> None:
    rows = make_rows(5_000)
    store.upsert(rows)
    assert store.count() == 5_000
    assert {row.id for row in store.scan()} == set(ids(rows))


def test_a_batch_over_the_wire_size_is_cut_and_stored_whole(store: VectorStore, make_row: MakeRow) -> None:
    size = min(3_000_000, (store.capabilities.max_text_bytes or 3_000_000) - 10)
    n = 9_000_000 // size
    rows = [make_row(text=f"# {i}\n" + "x" * size, ordinal=i) for i in range(n)]
    store.upsert(rows)
    [hit] = store.search(rows[2].vector, 1)
    assert (store.count(), hit.chunk) == (n, rows[2].chunk)


def test_repeated_upsert_changes_nothing(store: VectorStore, make_rows: MakeRows) -> None:
    rows = make_rows(20)
    store.upsert(rows)
    before = store.vectors(ids(rows))
    store.upsert([Row(row.chunk, before[row.chunk.id]) for row in rows])
    after = store.vectors(ids(rows))
    assert store.count() == 20
    assert all(np.allclose(before[id], after[id], atol=1e-7) for id in before)


def test_upsert_overwrites_vector_and_fields(store: VectorStore, make_row: MakeRow) -> None:
    row = make_row()
    store.upsert([row])
    changed = Row(replace(row.chunk, start_line=40, symbol="g"), -row.vector)
    store.upsert([changed])
    assert list(store.scan()) == [as_stored(changed)]
    np.testing.assert_allclose(store.vectors([row.chunk.id])[row.chunk.id], unit(-row.vector), atol=1e-6)


def test_update_replaces_every_field_and_keeps_the_vector(store: VectorStore, make_rows: MakeRows) -> None:
    rows = make_rows(3)
    store.upsert(rows)
    moved = replace(rows[1].chunk, repository="other", path="b/c.go", language="go", symbol="", kind="block", text="y")
    moved = replace(moved, start_line=7, end_line=9)
    store.update([moved])
    [hit] = store.search(rows[1].vector, 1)
    assert hit.chunk == moved
    assert store.count("other") == 1
    np.testing.assert_allclose(store.vectors([moved.id])[moved.id], unit(rows[1].vector), atol=1e-6)


def test_update_of_an_unknown_row_is_refused_and_writes_nothing(store: VectorStore, make_rows: MakeRows) -> None:
    rows = make_rows(3)
    store.upsert(rows[:2])
    with pytest.raises(RowsRefused, match="no such row") as caught:
        store.update([replace(row.chunk, symbol="changed") for row in rows])
    assert caught.value.reasons.keys() == {rows[2].chunk.id}
    assert {row.symbol for row in store.scan()} == {"f0", "f1"}


def test_delete_removes_exactly_the_named(store: VectorStore, make_rows: MakeRows) -> None:
    rows = make_rows(30)
    store.upsert(rows)
    store.delete([*ids(rows[:10]), str(uuid.uuid4())])
    store.delete(ids(rows[:10]))
    store.delete([])
    assert {row.id for row in store.scan()} == set(ids(rows[10:]))
    assert store.count() == 20


def test_one_repository_is_scanned_and_counted_alone(store: VectorStore, make_rows: MakeRows) -> None:
    mine, other = make_rows(12), make_rows(7, repository="other")
    store.upsert(mine + other)
    assert (store.count(), store.count("repo"), store.count("other"), store.count("none")) == (19, 12, 7, 0)
    assert {row.id for row in store.scan("other")} == set(ids(other))
    assert list(store.scan("none")) == []


def test_generators_are_stored_whole(store: VectorStore, make_rows: MakeRows) -> None:
    rows = make_rows(10)
    store.upsert(row for row in rows)  # type: ignore[arg-type]
    assert store.count() == 10
    store.update(replace(row.chunk, symbol="new") for row in rows)  # type: ignore[arg-type]
    assert {row.symbol for row in store.scan()} == {"new"}
    assert len(store.vectors(id for id in ids(rows))) == 10  # type: ignore[arg-type]
    store.delete(id for id in ids(rows))  # type: ignore[arg-type]
    assert store.count() == 0


# ---- refusals, before anything is sent


@pytest.mark.parametrize(
    ("vector", "why"),
    [
        (np.ones(WIDTH - 1, np.float32), f"({WIDTH - 1},)"),
        (np.ones((1, WIDTH), np.float32), f"(1, {WIDTH})"),
        (np.full(WIDTH, np.nan, np.float32), "NaN"),
        (np.array([np.inf] + [0] * (WIDTH - 1), np.float32), "infinity"),
        (np.zeros(WIDTH, np.float32), "zeros"),
    ],
)
def test_unusable_vectors_are_refused(store: VectorStore, make_rows: MakeRows, vector: Vector, why: str) -> None:
    good, bad = make_rows(2)
    with pytest.raises(RowsRefused) as caught:
        store.upsert([good, Row(bad.chunk, vector)])
    assert caught.value.reasons.keys() == {bad.chunk.id}
    assert why in caught.value.reasons[bad.chunk.id]
    assert store.count() == 0
    with pytest.raises(InputError):
        store.search(vector, 1)


@pytest.mark.parametrize("scale", [1e-30, 1e-4, 1e30])
def test_vectors_of_any_length_become_unit(store: VectorStore, make_row: MakeRow, scale: float) -> None:
    row = make_row()
    store.upsert([Row(row.chunk, (row.vector * scale).astype(np.float32))])
    np.testing.assert_allclose(store.vectors([row.chunk.id])[row.chunk.id], unit(row.vector), atol=1e-6)
    [hit] = store.search(row.vector * np.float32(scale), 1)
    assert hit.score == pytest.approx(1, abs=1e-5)


def test_an_id_twice_in_a_batch_is_refused(store: VectorStore, make_rows: MakeRows) -> None:
    rows = make_rows(3)
    with pytest.raises(RowsRefused, match="twice"):
        store.upsert([*rows, rows[1]])
    assert store.count() == 0


@pytest.mark.parametrize(
    "bad", ["7", "not-a-uuid", "{3F6B7A52-5D0E-5B43-9F0C-6A1C2A9D7E11}", str(uuid.uuid4()).upper()]
)
def test_ids_that_would_not_come_back_are_refused(store: VectorStore, make_row: MakeRow, bad: str) -> None:
    row = make_row()
    with pytest.raises(RowsRefused, match="UUID"):
        store.upsert([Row(replace(row.chunk, id=bad), row.vector)])
    with pytest.raises(InputError, match="UUID"):
        store.delete([bad])
    with pytest.raises(InputError, match="UUID"):
        store.vectors(bad)


@pytest.mark.parametrize("field", ["text", "path", "symbol", "repository"])
def test_lone_surrogates_are_refused(store: VectorStore, make_row: MakeRow, field: str) -> None:
    row = make_row()
    bad: dict[str, Any] = {field: "a\udc80b"}
    chunk = replace(row.chunk, **bad)
    with pytest.raises(RowsRefused, match="surrogate"):
        store.upsert([Row(chunk, row.vector)])
    store.upsert([row])
    with pytest.raises(RowsRefused, match="surrogate"):
        store.update([chunk])
    assert list(store.scan()) == [as_stored(row)]


# ---- search


def test_search_ranks_by_cosine(store: VectorStore, make_rows: MakeRows) -> None:
    rows = make_rows(200)
    store.upsert(rows)
    query = np.random.default_rng(1).standard_normal(WIDTH).astype(np.float32)
    matrix = np.stack([unit(row.vector) for row in rows])
    scores = matrix @ unit(query)
    best = np.argsort(-scores)[:10]
    for _ in range(2):
        hits = store.search(query, 10)
        assert [hit.chunk for hit in hits] == [rows[i].chunk for i in best]
        np.testing.assert_allclose([hit.score for hit in hits], scores[best], atol=1e-5)
        store.optimize()
    assert len(store.search(query, 1_000)) == 200


@pytest.mark.parametrize("limit", [0, -1])
def test_useless_limits_are_refused(store: VectorStore, make_row: MakeRow, limit: int) -> None:
    with pytest.raises(InputError, match=str(limit)):
        store.search(make_row().vector, limit)


def test_filters_combine(store: VectorStore, make_row: MakeRow) -> None:
    rows = [
        make_row(path, f"{repository}{language}", ordinal, repository=repository, language=language, kind=kind)
        for ordinal, (repository, path, language, kind) in enumerate(
            (repository, path, language, kind)
            for repository in ("one", "two")
            for path in ("a.py", "b.py", "c.py")
            for language in ("python", "go")
            for kind in ("function", "block")
        )
    ]
    store.upsert(rows)
    where = Filter(repositories=["one"], languages=["go"], paths=["a.py", "c.py", "none"], kinds=["block"])
    expected = {
        row.chunk.id
        for row in rows
        if (row.chunk.repository, row.chunk.language, row.chunk.kind) == ("one", "go", "block")
        and row.chunk.path in {"a.py", "c.py"}
    }
    assert {hit.chunk.id for hit in store.search(rows[0].vector, 100, where)} == expected
    assert len(store.search(rows[0].vector, 100, Filter())) == len(rows)
    assert store.search(rows[0].vector, 100, Filter(paths=["none"])) == []


def test_a_string_is_no_list_of_filter_values() -> None:
    with pytest.raises(InputError, match=r"languages.*'python'"):
        Filter(languages="python")


NASTY = [*"\"'\\%_*\n\r\t\0é😀", "e\u0301", "a/b", '" or 1==1', "$(x)", "null", ""]
strings = st.one_of(
    st.lists(st.sampled_from(NASTY), max_size=5).map("".join),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
)


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(paths=st.lists(strings, min_size=1, max_size=6, unique=True), repository=strings)
def test_any_string_finds_and_deletes_exactly_itself(
    store: VectorStore, make_row: MakeRow, paths: list[str], repository: str
) -> None:
    store.delete([row.id for row in store.scan()])
    rows = [make_row(path, path, repository=repository, symbol=path) for path in paths]
    store.upsert(rows)
    assert {row.id: row for row in store.scan(repository)} == {row.chunk.id: as_stored(row) for row in rows}
    for row in rows:
        where = Filter(repositories=[repository], paths=[row.chunk.path])
        assert [hit.chunk for hit in store.search(row.vector, 10, where)] == [row.chunk]
    store.delete([rows[0].chunk.id])
    assert store.count(repository) == store.count() == len(rows) - 1


def test_a_filter_may_name_very_many_paths(store: VectorStore, make_rows: MakeRows) -> None:
    rows = make_rows(50)
    store.upsert(rows)
    paths = [f"elsewhere/{i}.py" for i in range(100_000)] + ["src/file3.py"]
    hits = store.search(rows[0].vector, 100, Filter(paths=paths))
    assert {hit.chunk.id for hit in hits} == set(ids(rows[30:40]))
