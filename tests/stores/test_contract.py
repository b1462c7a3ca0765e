"""What every store promises of its collections and rows, run over every store.

A name in brackets is where users report the failure that a test rules out.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from c2llm_integrations.errors import InputError, RowsRefused, SpecMismatch, StoreError
from c2llm_integrations.stores.records import Row, Vector
from c2llm_integrations.stores.row_fields import Stored
from c2llm_integrations.stores.spec import CollectionSpec
from c2llm_integrations.stores.vector_store import VectorStore
from tests.stores.conftest import WIDTH, Database

MakeRow = Callable[..., Row]
MakeRows = Callable[..., list[Row]]


def ids(rows: list[Row]) -> list[str]:
    return [row.chunk.id for row in rows]


def as_stored(row: Row) -> Stored:
    chunk = row.chunk
    return Stored(chunk.id, chunk.path, chunk.language, chunk.symbol, chunk.kind, chunk.start_line, chunk.end_line)


def unit(vector: Vector) -> Vector:
    return np.asarray(vector / np.linalg.norm(vector), dtype=np.float32)


# ---- the collection


@pytest.mark.core
def test_missing_collection_reads_as_empty_and_refuses_writes(open_: Database, make_row: MakeRow) -> None:
    store, row = open_(), make_row()
    assert store.spec is None
    assert store.claims() == {}
    assert store.count() == 0
    assert list(store.scan()) == []
    assert list(store.rows()) == []
    assert store.known([row.chunk.id]) == set()
    assert store.vectors([row.chunk.id]) == {}
    store.delete([row.chunk.id])
    store.drop()
    for refused in (
        lambda: store.upsert([row]),
        lambda: store.update([row.chunk]),
        lambda: store.search(row.vector, 1),
        lambda: store.claim("repo", "here"),
        store.optimize,
        store.successor,
        store.bulk().__enter__,
    ):
        with pytest.raises(StoreError, match=f"no collection '{store.collection}'"):
            refused()


def test_spec_survives_reopening(open_: Database, spec: CollectionSpec) -> None:
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


@pytest.mark.core
def test_claims_survive_reopening_and_can_move(open_: Database, spec: CollectionSpec) -> None:
    with open_() as first:
        first.create(spec)
        first.claim("github.com/a/b", "checkout-1")
        first.claim('odd "name" %é', "checkout-2")
        first.claim("github.com/a/b", "checkout-3")
    with open_() as second:
        assert second.claims() == {"github.com/a/b": "checkout-3", 'odd "name" %é': "checkout-2"}
        assert second.spec == spec


def test_changing_the_claims_read_changes_no_claim(store: VectorStore) -> None:
    store.claim("repo", "here")
    store.claims()["repo"] = "elsewhere"
    assert store.claims() == {"repo": "here"}


def test_collections_are_separate(open_: Database, spec: CollectionSpec, make_rows: MakeRows) -> None:
    one, two = open_("one"), open_("two")
    one.create(spec)
    two.create(replace(spec, width=3))
    one.upsert(make_rows(5))
    assert (one.count(), two.count()) == (5, 0)
    one.drop()
    assert (one.spec, two.spec) == (None, replace(spec, width=3))


def test_dropped_collection_can_be_made_anew(open_: Database, spec: CollectionSpec, make_rows: MakeRows) -> None:
    # ["indexed" but empty, "not indexed" but full: claude-context #145, #226, #393]
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
        store.rows,
        store.count,
        lambda: store.known([row.chunk.id]),
        store.successor,
        store.bulk().__enter__,
        lambda: store.vectors([row.chunk.id]),
        lambda: store.search(row.vector, 1),
        store.optimize,
        store.drop,
    ):
        with pytest.raises(StoreError, match="closed"):
            call()


# ---- rows


@pytest.mark.core
def test_rows_come_back_as_written(open_: Database, spec: CollectionSpec, make_rows: MakeRows) -> None:
    # [fewer ids than texts lose the rest: langchain #40522; every row carries its own here]
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
    # [a REST body over 32 MiB shows as a time-out, an RPC over 64 MB is refused]
    size = min(3_000_000, (store.capabilities.max_text_bytes or 3_000_000) - 10)
    n = 9_000_000 // size
    rows = [make_row(text=f"# {i}\n" + "x" * size, ordinal=i) for i in range(n)]
    store.upsert(rows)
    [hit] = store.search(rows[2].vector, 1)
    assert (store.count(), hit.chunk) == (n, rows[2].chunk)


@pytest.mark.core
def test_repeated_upsert_changes_nothing(store: VectorStore, make_rows: MakeRows) -> None:
    # [duplicates from plain inserts: milvus #33353]
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


@pytest.mark.core
def test_update_replaces_every_field_and_keeps_the_vector(store: VectorStore, make_rows: MakeRows) -> None:
    rows = make_rows(3)
    store.upsert(rows)
    moved = replace(rows[1].chunk, repository="other", path="b/c.go", language="go", symbol="", kind="block", text="y")
    moved = replace(moved, start_line=7, end_line=9)
    store.update([moved])
    [hit] = store.search(rows[1].vector, 1)
    assert hit.chunk == moved
    assert store.count(source="other") == 1
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


def test_whole_rows_are_streamed(store: VectorStore, make_rows: MakeRows) -> None:
    mine, other = make_rows(57), make_rows(7, repository="other")
    store.upsert(mine + other)
    for repository, expected in ((None, mine + other), ("other", other), ("none", [])):
        found = {row.chunk.id: row for row in store.rows(source=repository)}
        assert {id: row.chunk for id, row in found.items()} == {row.chunk.id: row.chunk for row in expected}
        for row in expected:
            vector = found[row.chunk.id].vector
            assert (vector.dtype, vector.shape) == (np.float32, (WIDTH,))
            np.testing.assert_allclose(vector, unit(row.vector), atol=1e-6)


def test_known_ids_are_told_from_unknown(store: VectorStore, make_rows: MakeRows) -> None:
    rows = make_rows(5)
    store.upsert(rows[:3])
    assert store.known(ids(rows)) == set(ids(rows[:3]))
    assert store.known([]) == set()


def test_many_repositories_in_one_collection_leave_each_other_alone(store: VectorStore, make_row: MakeRow) -> None:
    names = [f"github.com/org/repo-{number}" for number in range(40)]
    rows = {name: [make_row("src/a.py", "x = 1\n", i, repository=name) for i in range(5)] for name in names}
    store.upsert([row for some in rows.values() for row in some])
    one, *others = names
    store.delete([row.id for row in store.scan(source=one)])
    assert (store.count(source=one), store.count()) == (0, 39 * 5)
    for name in others[:5]:
        assert {row.id for row in store.scan(source=name)} == set(ids(rows[name]))
        assert store.count(source=name) == 5


@pytest.mark.core
def test_one_repository_is_scanned_and_counted_alone(store: VectorStore, make_rows: MakeRows) -> None:
    mine, other = make_rows(12), make_rows(7, repository="other")
    store.upsert(mine + other)
    assert (store.count(), store.count(source="repo"), store.count(source="other"), store.count(source="none")) == (
        19,
        12,
        7,
        0,
    )
    assert {row.id for row in store.scan(source="other")} == set(ids(other))
    assert list(store.scan(source="none")) == []


def test_generators_are_stored_whole(store: VectorStore, make_rows: MakeRows) -> None:
    # [a generator argument stores 0 points: langchain #39628]
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
    # [rows that a wrong width loses without a word: qdrant-client #17; NaN, infinity and zeros that Edge accepts]
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
    # [newer Milvus servers refuse it, Lite and 2.3.5 keep both]
    rows = make_rows(3)
    with pytest.raises(RowsRefused, match="twice"):
        store.upsert([*rows, rows[1]])
    assert store.count() == 0


@pytest.mark.parametrize(
    "bad", ["7", "not-a-uuid", "{3F6B7A52-5D0E-5B43-9F0C-6A1C2A9D7E11}", "368AD3A8-9E36-4BB4-9128-F35FEDF31A93"]
)
def test_ids_that_chunks_cannot_have_are_refused(store: VectorStore, make_row: MakeRow, bad: str) -> None:
    row = make_row()
    with pytest.raises(RowsRefused, match="UUID"):
        store.upsert([Row(replace(row.chunk, id=bad), row.vector)])
    store.delete([bad])
    assert store.vectors(bad) == {}


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


def test_a_text_over_the_limit_is_refused_or_cut_as_the_spec_says(
    open_: Database, spec: CollectionSpec, make_row: MakeRow
) -> None:
    # [a VARCHAR's 65,535 counts bytes, not characters]
    refusing, cutting = open_("refusing"), open_("cutting")
    refusing.create(spec)
    cutting.create(replace(spec, long_text="cut"))
    limit = cutting.capabilities.max_text_bytes
    size = limit or 3_000_000
    one_over = "x" * ((size + 1) % 2) + "é" * ((size + 1) // 2)  # in bytes, with a character across the limit
    fits, over = make_row(text="x" * size), make_row(text=one_over, ordinal=1)
    assert cutting.upsert([fits, over]) == (0 if limit is None else 1)
    assert refusing.upsert([fits]) == 0
    if limit is None:
        assert refusing.upsert([over]) == 0
    else:
        with pytest.raises(RowsRefused, match=f"text has {limit + 1} bytes, the store takes {limit}"):
            refusing.upsert([over])
    kept = {row.chunk.id: row.chunk.text for row in cutting.rows()}
    assert kept[fits.chunk.id] == fits.chunk.text
    assert kept[over.chunk.id] == (one_over if limit is None else one_over[:-1])
