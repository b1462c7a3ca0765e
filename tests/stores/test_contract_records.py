"""What every store promises of records: any id, any metadata, filters on it, and fields that others have added."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from c2llm_integrations.code.chunk import CHUNK_FIELDS, NAMESPACE
from c2llm_integrations.code.lexical_terms import ANALYZER, query_terms
from c2llm_integrations.errors import InputError, RowsRefused
from c2llm_integrations.stores.ids import RecordId, row_id, why_id_refused
from c2llm_integrations.stores.records import Record, Row
from c2llm_integrations.stores.spec import CollectionSpec
from c2llm_integrations.stores.vector_store import VectorStore
from tests.stores.conftest import WIDTH, Database, lists
from tests.stores.foreign_writers import add_fields, write_foreign
from tests.stores.test_contract import unit

MakeRow = Callable[..., Row]
EVERYTHING: dict[str, Any] = {
    "votes": 5,
    "score": 1.5,
    "draft": False,
    "license": None,
    "none": [],
    "tags": ["http", "réseau", ""],
    "author": {"name": "Ada", "ids": [1, 2], "more": {"deep": True}},
    "we ird": "x",
    "größe": 3,
    "in": "a word of Milvus's language",
    "language": "go",
    "path": "a/b.go",
    "source": "a field that readers of documents use",
    "big": 2**53 + 1,
}


def a_row(id: RecordId, text: str = "x", source: str = "answers", /, **metadata: Any) -> Row:
    vector = np.random.default_rng(abs(hash((id, source))) % 2**32).standard_normal(WIDTH).astype(np.float32)
    return Row(Record(id, text, metadata, source), vector)


def found(store: VectorStore, where: Any) -> list[RecordId]:
    return sorted((hit.record.id for hit in store.search(np.ones(WIDTH), 1_000, where)), key=str)


# ---- ids and metadata


@pytest.mark.parametrize(
    "id",
    [
        0,
        7,
        2**64 - 1,
        "doc-17",
        "7",
        "https://example.org/a?b=c",
        "é" * 300,
        "6cf0c13b-8697-4adc-96fb-5d779de42247",
        "443D5DF8-B1EF-48AF-ADEF-9704A1655C80",
    ],
)
def test_any_id_comes_back_as_it_was_given(store: VectorStore, id: RecordId) -> None:
    row = a_row(id)
    store.upsert([row])
    store.upsert([row])
    [hit] = store.search(row.vector, 5)
    assert (hit.record.id, hit.record.source, store.count()) == (id, "answers", 1)
    assert store.known([id, "other"], source="answers") == {id}
    np.testing.assert_allclose(store.vectors(id, source="answers")[id], unit(row.vector), atol=1e-6)
    assert [stored.id for stored in store.scan(source="answers")] == [row.record.row_id]
    store.delete([id], source="answers")
    assert store.count() == 0


def test_ids_are_names_within_their_source(store: VectorStore) -> None:
    store.upsert([a_row("doc", "x", "one"), a_row("doc", "x", "two")])
    assert (store.count(source="one"), store.count(source="two"), store.count()) == (1, 1, 2)
    store.delete("doc", source="one")
    assert [row.record.source for row in store.rows()] == ["two"]


@pytest.mark.core
def test_any_metadata_comes_back_and_can_be_written_again(store: VectorStore) -> None:
    rows = [
        a_row("full", "é\n", **EVERYTHING),
        a_row("bare"),
        a_row("empty", "", symbol="", start_line=0),
        a_row("part", start_line=1),
    ]
    store.upsert(rows)
    for _ in range(2):
        kept = {row.record.id: row for row in store.rows(source="answers")}
        assert {id: row.record for id, row in kept.items()} == {row.record.id: row.record for row in rows}
        assert {hit.record.id: hit.record for hit in store.search(rows[0].vector, 9)} == {
            row.record.id: row.record for row in rows
        }
        store.upsert(list(kept.values()))
        store.update([row.record for row in kept.values()])


@pytest.mark.core
def test_a_field_of_chunks_may_be_null(store: VectorStore) -> None:
    nothing = dict.fromkeys(CHUNK_FIELDS)
    rows = [a_row(1, **nothing), a_row(2, language="go", path=None), a_row(3, language="", path="a.go")]
    store.upsert(rows)
    for _ in range(2):
        assert store.get([1, 2, 3]) == {row.record.id: row.record for row in rows}
        assert found(store, {"language": {"exists": True}}) == [2, 3]
        assert found(store, {"language": {"not": "go"}}) == [1, 3]
        assert found(store, {"path": {"exists": False}}) == [1, 2]
        assert found(store, {"start_line": {"exists": True}}) == []
        assert found(store, {"language": ""}) == [3]
        store.update([row.record for row in rows])
    store.update([replace(rows[1].record, metadata={"language": None, "path": "b.go"})])
    assert found(store, {"language": {"exists": True}}) == [3]
    assert found(store, {"path": {"exists": True}}) == [2, 3]


def test_records_and_chunks_of_one_collection_keep_apart(store: VectorStore, make_row: MakeRow) -> None:
    chunk = make_row(repository="r")
    looks_like = a_row("note", "x", "reviews", **{**chunk.chunk.metadata, "stars": 3})
    store.upsert([chunk, looks_like])
    assert (store.count(source="r"), store.count(source="reviews"), store.count()) == (1, 1, 2)
    assert [row.record for row in store.rows(source="r")] == [chunk.chunk]
    assert [row.record for row in store.rows(source="reviews")] == [looks_like.record]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"id": True}, "id True"),
        ({"id": -1}, "id -1"),
        ({"id": 2**64}, "id 18446744073709551616"),
        ({"id": 1.5}, "id 1.5"),
        ({"id": ""}, "id ''"),
        ({"id": ["a"]}, "id .*list"),
        ({"text": None}, "text is None"),
        ({"text": b"x"}, "text is b'x'"),
        ({"source": 7}, "source is 7"),
        ({"metadata": ["a"]}, "metadata is list"),
        ({"metadata": {"when": uuid.UUID(int=1)}}, "not JSON.*UUID"),
        ({"metadata": {"m": 1, "n": float("nan")}}, "not JSON.*'n'"),
        ({"metadata": {"n": {"m": [2**64]}}}, "an integer has 65 bits"),
        ({"metadata": {"n": -(10**400)}}, "an integer has 1329 bits"),
        ({"metadata": {"deep": lists(64)}}, "over 64 levels"),
        ({"metadata": {7: "x"}}, "field name 7"),
        ({"metadata": {"by year": {2024: 1}}}, "not JSON.*the name 2024 inside"),
        ({"metadata": {"all": [[{"a": {None: 1}}]]}}, "not JSON.*the name None inside"),
        ({"metadata": {'a"b': 1}}, "field name"),
        ({"metadata": {"vector": 1}}, "field 'vector'.*rename"),
        ({"metadata": {"long": "x" * 10_000_000}}, "10000012 bytes"),
        ({"metadata": {"language": 5}}, "language is 5 .*rename it"),
        ({"metadata": {"start_line": "5"}}, "start_line is '5'"),
        ({"metadata": {"a": "\ud800"}}, "not JSON|surrogate"),
    ],
)
def test_what_cannot_be_stored_is_refused_in_one_line(store: VectorStore, change: dict[str, Any], why: str) -> None:
    good, bad = a_row("good"), a_row("bad")
    with pytest.raises(RowsRefused, match=why) as caught:
        store.upsert([good, Row(replace(bad.record, **change), bad.vector)])  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert len(caught.value.reasons) == 1
    assert store.count() == 0


def test_metadata_of_the_most_levels_can_be_read_again(open_: Database, spec: CollectionSpec) -> None:
    deep = {"deep": lists(63)}
    with open_("deep") as store:
        store.drop()
        store.create(spec)
        store.upsert([a_row("deep", **deep), a_row("plain")])
    with open_("deep") as store:
        assert {hit.record.id: hit.record.metadata for hit in store.search(np.ones(WIDTH), 9)} == {
            "deep": deep,
            "plain": {},
        }
        store.drop()


# ---- updates


@pytest.mark.parametrize("kind", ["chunk", "record", "record again with its vector"])
def test_an_update_leaves_nothing_of_before(lexical: VectorStore, make_row: MakeRow, kind: str) -> None:
    if kind == "chunk":
        before = make_row("old/place.py", "def alpha(): ...\n")
        after: Any = replace(before.chunk, path="new/site.py", text="def gamma(): ...\n", start_line=9, end_line=9)
    else:
        before = a_row("doc", "alpha", path="old/place", votes=5, tags=["a"], gone=1, empty=None)
        after = Record("doc", "gamma", {"path": "new/site", "votes": None, "tags": ["b"], "empty": 2}, "answers")
    other = make_row("b.py", "def beta(): ...\n", repository="other")
    lexical.upsert([before, other])
    if kind.endswith("vector"):
        lexical.upsert([Row(after, before.vector)])
    else:
        lexical.update([after])
    for words, expected in (("alpha", []), ("old place", []), ("gamma", [after]), ("new site", [after])):
        assert [hit.record for hit in lexical.candidates(None, query_terms(words), 5).lexical] == expected
    assert [row.record for row in lexical.rows(source=after.source)] == [after]
    np.testing.assert_allclose(lexical.vectors(after.row_id)[after.row_id], unit(before.vector), atol=1e-6)
    if kind != "chunk":
        assert found(lexical, {"gone": {"exists": True}}) == found(lexical, {"votes": {"exists": True}}) == []
        assert found(lexical, {"empty": 2}) == found(lexical, {"tags": "b"}) == ["doc"]
    assert [hit.record for hit in lexical.candidates(None, ["beta"], 5).lexical] == [other.chunk]


@pytest.mark.core
@pytest.mark.parametrize("write", ["update", "upsert"])
@pytest.mark.parametrize("kind", ["chunk", "record"])
def test_fields_that_others_have_added_survive(
    open_: Database, spec: CollectionSpec, make_row: MakeRow, kind: str, write: str
) -> None:
    store = open_()
    store.create(replace(spec, analyzer=ANALYZER if store.capabilities.lexical else None))
    row = make_row() if kind == "chunk" else a_row("doc", "x", votes=1)
    key = row.record.row_id
    store.upsert([row, make_row("other.py")])
    added = {"owner": "alice", "acl": ["x", "y"], "reviewed": {"by": "bob", "stars": 4}}
    add_fields(store, key, added)
    changed: Any = replace(row.record, text="new text")
    if write == "update":
        store.update([changed])
    else:
        store.upsert([Row(changed, -row.vector), make_row("third.py")])
    [hit] = store.search(row.vector, 5, {"owner": "alice", "acl": "y"})
    assert (hit.record.text, hit.record.metadata) == ("new text", {**row.record.metadata, **added})
    if store.capabilities.lexical:
        assert [hit.record.text for hit in store.candidates(None, ["new"], 5).lexical] == ["new text"]
    expected = unit(row.vector if write == "update" else -row.vector)
    np.testing.assert_allclose(store.vectors(key)[key], expected, atol=1e-6)


@pytest.mark.core
@pytest.mark.parametrize("write", ["update", "upsert"])
@pytest.mark.parametrize("kind", ["chunk", "record"])
def test_a_row_of_others_that_is_overwritten_becomes_ours(
    store: VectorStore, make_row: MakeRow, kind: str, write: str
) -> None:
    row = make_row() if kind == "chunk" else a_row("doc", "our text", votes=1)
    key, theirs = str(row.record.row_id), np.ones(WIDTH, np.float32)
    write_foreign(store, key, theirs, "their text", {"note": "theirs"})
    if write == "update":
        store.update([row.record])
    else:
        store.upsert([row])
    [ours] = store.rows()
    assert (ours.record.row_id, ours.record.text, ours.record.source) == (key, row.record.text, row.record.source)
    assert ours.record.metadata == {**row.record.metadata, "note": "theirs"}
    assert [one.id for one in store.scan(source=row.record.source)] == [key]
    assert (store.count(), store.count(source=row.record.source), store.total()) == (1, 1, 1)
    np.testing.assert_allclose(ours.vector, unit(theirs if write == "update" else row.vector), atol=1e-6)


def test_changing_what_was_written_or_read_changes_no_row(store: VectorStore) -> None:
    def metadata() -> dict[str, Any]:
        return {"tags": ["a"], "author": {"name": "Ada"}}

    row = a_row("doc", **metadata())
    kept = unit(row.vector)

    def spoil(record: Any) -> None:
        record.metadata["tags"].append("b")
        record.metadata["author"]["name"] = "Bob"

    for write in (lambda: store.upsert([row]), lambda: store.update([row.record])):
        row.record.metadata.update(metadata())  # type: ignore[attr-defined]
        write()
        spoil(row.record)
        for read in (
            lambda: store.get("doc", source="answers")["doc"],
            lambda: next(store.scroll()),
            lambda: next(store.rows()).record,
            lambda: store.search(row.vector, 1)[0].record,
        ):
            for _ in range(2):
                record = read()
                assert record.metadata == metadata()
                spoil(record)
    for vector in (lambda: store.vectors("doc", source="answers")["doc"], lambda: next(store.rows()).vector):
        for _ in range(2):
            np.testing.assert_allclose(found := vector(), kept, atol=1e-6)
            if found.flags.writeable:
                found[:] = 0


# ---- arguments


def test_arguments_of_a_wrong_type_are_refused_in_one_line(
    store: VectorStore, make_row: MakeRow, spec: CollectionSpec
) -> None:
    row: Any = make_row()
    wrong: dict[str, Callable[[Any], object]] = {
        "upsert(None)": lambda s: s.upsert(None),
        "upsert(str)": lambda s: s.upsert("rows"),
        "upsert(row)": lambda s: s.upsert(row),
        "upsert(chunks)": lambda s: s.upsert([row.chunk]),
        "upsert(row of str)": lambda s: s.upsert([Row("x", row.vector)]),  # type: ignore[arg-type]
        "update(rows)": lambda s: s.update([row]),
        "update(int)": lambda s: s.update(5),
        "delete(None)": lambda s: s.delete(None),
        "delete([None])": lambda s: s.delete([None]),
        "delete(float)": lambda s: s.delete([1.5]),
        "delete(bytes)": lambda s: s.delete([b"x"]),
        "known(dict)": lambda s: s.known([{}]),
        "vectors(bool)": lambda s: s.vectors(True),
        "delete(source)": lambda s: s.delete("x", source=5),
        "scan": lambda s: s.scan(source=5),
        "rows": lambda s: s.rows(source=["r"]),
        "count": lambda s: s.count(source=5),
        "search(str)": lambda s: s.search("retry", 5),
        "search(list of str)": lambda s: s.search(["a"] * WIDTH, 5),
        "search(ragged)": lambda s: s.search([[1], [1, 2]], 5),
        "limit str": lambda s: s.search(row.vector, "5"),
        "limit float": lambda s: s.search(row.vector, 2.5),
        "limit None": lambda s: s.search(row.vector, None),
        "limit bool": lambda s: s.search(row.vector, True),
        "terms str": lambda s: s.candidates(None, "retry", 5),
        "terms int": lambda s: s.candidates(None, [5], 5),
        "claim": lambda s: s.claim(1, "x"),
        "claim None": lambda s: s.claim("x", None),
        "create": lambda s: s.create({"width": 5}),
        "replace_by": lambda s: s.replace_by("code__2"),
    }
    for name, call in wrong.items():
        with pytest.raises(InputError) as caught:
            call(store)
        assert "\n" not in str(caught.value), name
    for vector in ("x", None, [1, 2], ["a"] * WIDTH, [[1], [1, 2]]):
        with pytest.raises(RowsRefused, match="vector"):
            store.upsert([Row(row.chunk, vector)])  # type: ignore[arg-type]
    assert store.count() == 0
    store.search([1.0] * WIDTH, np.int64(5))  # type: ignore[arg-type]


@given(st.text(), st.text(min_size=1))
def test_ids_are_uuids_of_version_5(source: str, id: str) -> None:
    assume(why_id_refused(id) is None and why_id_refused(source or "x") is None)
    namespace = uuid.uuid5(NAMESPACE, "record")
    assert row_id(source, id) == str(uuid.uuid5(namespace, f"{source}\0{id}"))
    assert row_id(source, text=id) == str(uuid.uuid5(namespace, f"{source}\0\0" + f"0\0{id}"))


def test_ids_follow_from_their_source_and_nothing_else() -> None:
    assert row_id("a", 7) == row_id("b", 7) == 7
    assert row_id("a", "doc") == row_id("a", "doc") != row_id("b", "doc")
    assert len({row_id("a", text="x"), row_id("a", text="x", ordinal=1), row_id("b", text="x"), row_id("a", "x")}) == 4
    assert row_id("a", "3F6B7A52-5D0E-5B43-9F0C-6A1C2A9D7E11") == "3f6b7a52-5d0e-5b43-9f0c-6a1c2a9d7e11"
