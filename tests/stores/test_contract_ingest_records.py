"""What `ingest_records` promises on every store."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from c2llm_integrations import CodeChunk, InputError, RepositoryError, SpecMismatch, StoreError, ingest_records
from c2llm_integrations.stores.records import Record, Row
from c2llm_integrations.stores.spec import CollectionSpec
from c2llm_integrations.stores.vector_store import VectorStore
from tests.indexing.record_models import WIDTH, CountingEmbedder, held, vectors_of
from tests.stores.conftest import SLOW, Database, lists
from tests.stores.foreign_writers import add_fields

RECORDS = [
    {"id": "doc-1", "text": "one", "votes": 1, "tags": ["a"], "author": {"name": "Ada"}, "none": None},
    {"id": 7, "text": "two", "votes": 2.5},
    {"id": str(uuid.UUID(int=2**127)), "text": "three", "a.b": True, "$cost": 3, "größe": "x"},
    {"text": "four, known by what it says"},
]


@pytest.fixture
def bare(open_: Database) -> Iterator[VectorStore]:
    """A store without a collection."""
    with open_("answers") as store:
        store.drop()
        yield store


def load(store: VectorStore, records: Any, **options: Any) -> tuple[Any, list[str]]:
    """Load records; return the report and which texts were embedded."""
    embedder = CountingEmbedder()
    report = ingest_records(records, embedder, store, **{"source": "answers", **options})  # type: ignore[arg-type]
    assert report.stored == store.count(source="answers")
    return report, embedder.embedded


def test_records_come_back_and_are_embedded_once(bare: VectorStore) -> None:
    report, texts = load(bare, iter(RECORDS))
    assert (report.written, report.records, len(texts), report.refused) == (4, 4, 4, {})
    found = held(bare, "answers")
    assert found["doc-1"] == ("one", {"votes": 1, "tags": ["a"], "author": {"name": "Ada"}, "none": None})
    assert found[7] == ("two", {"votes": 2.5})
    assert found[RECORDS[2]["id"]] == ("three", {"a.b": True, "$cost": 3, "größe": "x"})
    assert ("four, known by what it says", {}) in found.values()
    report, texts = load(bare, RECORDS, delete_missing=True)
    assert (report.written, report.updated, report.unchanged, report.deleted, texts) == (0, 0, 4, 0, [])
    assert held(bare, "answers") == found


def test_only_what_changed_is_embedded_updated_and_deleted(bare: VectorStore) -> None:
    load(bare, RECORDS)
    changed = [{**RECORDS[0], "votes": 99, "tags": []}, {**RECORDS[1], "text": "other"}, RECORDS[2]]
    del changed[0]["author"]
    report, texts = load(bare, changed)
    assert (report.written, report.updated, report.unchanged, report.deleted, texts) == (1, 1, 1, 0, ["other"])
    report, texts = load(bare, changed, delete_missing=True)
    assert (report.written, report.deleted, report.stored, texts) == (0, 1, 3, [])
    found = held(bare, "answers")
    assert found["doc-1"] == ("one", {"votes": 99, "tags": [], "none": None})
    assert found[7] == ("other", {"votes": 2.5})


def test_a_field_that_others_have_added_is_no_change(bare: VectorStore) -> None:
    load(bare, RECORDS)
    add_fields(bare, 7, {"label": "theirs"})
    report, texts = load(bare, RECORDS)
    assert (report.written, report.updated, report.unchanged, texts) == (0, 0, 4, [])
    assert held(bare, "answers")[7] == ("two", {"votes": 2.5, "label": "theirs"})


BAD: dict[str, tuple[Any, str]] = {
    "no-mapping": (5, r"it is 5 \(int\), expected a mapping"),
    "a-string": ("text", "it is 'text'"),
    "a-list": (["id", "text"], "it is .*list"),
    "metadata-list": (Record("bad", "x", ["a"]), "metadata is list"),  # type: ignore[arg-type]
    "metadata-none": (Record("bad", "x", None), "metadata is NoneType"),  # type: ignore[arg-type]
    "of-another-source": (Record("bad", "x", {}, "others"), "source is 'others', this run fills 'answers'"),
    "a-chunk": (CodeChunk("bad", "r", "p", "", "", "", 1, 1, "x"), "chunk of repository 'r'"),
    "id-twice": ({"id": "doc-1", "text": "again"}, "came before in this run"),
    "id-twice-as-uuid": ({"id": str(uuid.UUID(int=2**127)).upper(), "text": "again"}, "came before in this run"),
    "id-float": ({"id": 1.5, "text": "x"}, "id 1.5"),
    "id-negative": ({"id": -1, "text": "x"}, "id -1"),
    "no-text": ({"id": "bad", "votes": 1}, "no text; name the field"),
    "text-empty": ({"id": "bad", "text": " \n"}, "text is empty"),
    "text-number": ({"id": "bad", "text": 5}, r"text is 5 \(int\)"),
    "text-surrogate": ({"id": "bad", "text": "\ud800"}, "surrogate"),
    "nan": ({"id": "bad", "text": "x", "n": float("nan")}, "not JSON"),
    "infinity-deep": ({"id": "bad", "text": "x", "n": {"a": [float("inf")]}}, "not JSON"),
    "deep": ({"id": "bad", "text": "x", "n": lists(64)}, "not JSON .over 64 levels"),
    "deeper-than-python": ({"id": "bad", "text": "x", "n": lists(100_000)}, "not JSON"),
    "set": ({"id": "bad", "text": "x", "n": {1, 2}}, "not JSON"),
    "bytes": ({"id": "bad", "text": "x", "n": b"1"}, "not JSON"),
    "too-much": ({"id": "bad", "text": "x", "n": "y" * 10_000_000}, "bytes as JSON"),
    "ours": ({"id": "bad", "text": "x", "page_content": "y"}, "store's own; rename"),
    "ours-digest": ({"id": "bad", "text": "x", "c2llm_digest": "y"}, "store's own; rename"),
    "quoted-name": ({"id": "bad", "text": "x", 'a"b': "y"}, "field name"),
    "name-is-number": ({"id": "bad", "text": "x", 5: "y"}, "field name 5"),
    "language-is-number": ({"id": "bad", "text": "x", "language": 5}, "language is 5"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_records_are_refused_in_one_line_and_the_rest_is_stored(
    bare: VectorStore, case: str, tmp_path: Path
) -> None:
    bad, why = BAD[case]
    file = tmp_path / "refused.jsonl"
    report, texts = load(bare, [*RECORDS, bad, {"id": "last", "text": "last"}], refused=str(file))
    assert (report.written, len(texts), len(report.refused)) == (5, 5, 1)
    [reason] = report.refused.values()
    assert re.search(why, reason)
    assert "\n" not in reason
    assert len(file.read_text().splitlines()) == 1
    again, texts = load(bare, [*RECORDS, bad, {"id": "last", "text": "last"}])
    assert (again.written, again.unchanged, texts) == (0, 5, [])


def test_a_refused_record_keeps_its_row(bare: VectorStore) -> None:
    load(bare, RECORDS)
    worse = [{**RECORDS[0], "text": None}, {**RECORDS[1], "n": float("nan")}, RECORDS[2]]
    report, _ = load(bare, worse, delete_missing=True)
    assert (len(report.refused), report.deleted, report.stored) == (2, 1, 3)
    report, _ = load(bare, [*RECORDS[1:], {"id": True, "text": "which one?"}], delete_missing=True)
    assert report.deleted == 0
    assert "no usable id" in report.notes[0]


def test_a_type_may_change_between_records(bare: VectorStore) -> None:
    values: list[Any] = [1, "1", 1.5, True, None, [1], ["1"], {"a": 1}]
    records = [{"id": f"n{at}", "text": f"n{at}", "value": value} for at, value in enumerate(values)]
    report, _ = load(bare, records)
    assert report.refused == {}
    assert [held(bare, "answers")[f"n{at}"][1]["value"] for at in range(len(values))] == values
    assert load(bare, records)[0].unchanged == len(values)


def test_names_inside_that_are_not_strings_become_strings_as_in_json(bare: VectorStore) -> None:
    records = [
        {"id": "n", "text": "n", "value": {2024: {True: 1}, "all": [{None: 2}]}, "day": {1.5: date(2026, 1, 31)}}
    ]
    report, _ = load(bare, records)
    assert report.refused == {}
    assert held(bare, "answers")["n"][1] == {
        "value": {"2024": {"true": 1}, "all": [{"null": 2}]},
        "day": {"1.5": "2026-01-31"},
    }
    assert load(bare, records)[0].unchanged == 1


def test_rows_of_other_sources_are_not_touched(bare: VectorStore) -> None:
    load(bare, RECORDS)
    before = held(bare, "answers")
    report = ingest_records(
        [{"id": "doc-1", "text": "mine"}, {"id": 7, "text": "theirs"}],
        CountingEmbedder(),  # type: ignore[arg-type]
        bare,
        source="others",
        delete_missing=True,
    )
    assert (report.written, report.stored, list(report.refused)) == (1, 1, [7])
    assert "not write" in report.refused[7]
    assert held(bare, "answers") == before


def test_a_source_belongs_to_one_writer(bare: VectorStore) -> None:
    load(bare, RECORDS)
    bare.claim("shop", "checkout-of-a-repository")
    with pytest.raises(RepositoryError, match="'shop' is a repository"):
        load(bare, RECORDS, source="shop")

    def interrupted() -> Iterator[dict[str, Any]]:
        yield RECORDS[0]
        load(bare, RECORDS)  # another run of the same source

    with pytest.raises(StoreError, match="lost ownership of 'answers'"):
        ingest_records(interrupted(), CountingEmbedder(), bare, source="answers", delete_missing=True)  # type: ignore[arg-type]
    assert bare.count(source="answers") == 4


def test_vectors_may_be_made_elsewhere(bare: VectorStore) -> None:
    texts = ["one", "two", "three"]
    records = [{"id": text, "text": text, "n": at} for at, text in enumerate(texts)]
    report = ingest_records(iter(records), None, bare, source="answers", vectors=vectors_of(texts))
    assert (report.written, bare.spec and bare.spec.width) == (3, WIDTH)
    held(bare, "answers")
    named = [{**record, "v": vector.tolist()} for record, vector in zip(records, vectors_of(texts), strict=True)]
    named += [
        {"id": "bad", "text": "x", "v": [1.0]},
        {"id": "none", "text": "x"},
        {"id": "zero", "text": "x", "v": [0] * WIDTH},
    ]
    report = ingest_records(named, None, bare, source="answers", vectors="v")
    assert (report.written, report.unchanged, set(report.refused)) == (0, 3, {"bad", "none", "zero"})
    rows = (
        Row(Record(text, text + "!", {}), vector)
        for text, vector in zip(texts, vectors_of([t + "!" for t in texts]), strict=True)
    )
    assert ingest_records(rows, None, bare, source="answers").written == 3
    held(bare, "answers")
    for wrong in (vectors_of(texts[:2]), vectors_of([*texts, "more"])):
        with pytest.raises(InputError, match="vectors"):
            ingest_records(records, None, bare, source="answers", vectors=wrong)
    for _ in range(2):  # the collection exists, then it does not
        with pytest.raises(InputError, match="neither an embedder nor vectors"):
            ingest_records(records, None, bare, source="answers")
        bare.drop()


def test_records_with_vectors_of_their_own_may_stand_among_others(bare: VectorStore) -> None:
    load(bare, RECORDS)
    row = Row(Record("own", "own", {}), vectors_of(["own"])[0])
    report = ingest_records([row, {"id": "none", "text": "x"}], None, bare, source="answers")
    assert (report.written, set(report.refused)) == (1, {"none"})
    assert ingest_records([], None, bare, source="answers").stored == 5


@pytest.mark.parametrize("fingerprint", [{}, {"vectors": "given"}])
def test_a_model_on_given_vectors_is_refused_with_the_way_out(bare: VectorStore, fingerprint: dict[str, str]) -> None:
    bare.create(CollectionSpec(WIDTH, fingerprint))
    with pytest.raises(SpecMismatch, match=r"filled with given vectors, .* drop the collection") as caught:
        load(bare, RECORDS)
    assert "\n" not in str(caught.value)


def test_a_replacement_takes_the_place_once_it_is_complete(bare: VectorStore) -> None:
    load(bare, RECORDS, fields={"votes": "float"})
    before, other = held(bare, "answers"), [{"id": "doc-1", "text": "one", "votes": "many"}, RECORDS[2]]
    options: dict[str, Any] = {"source": "answers", "fields": {"votes": "keyword"}, "replace": True, "batch_size": 1}

    def stopped() -> Iterator[Any]:
        yield from [other[0]] * 3  # the second is refused as a copy
        raise RuntimeError("the generator fails")

    with pytest.raises(RuntimeError, match="generator"):
        ingest_records(stopped(), CountingEmbedder(), bare, **options)
    assert held(bare, "answers") == before
    report = ingest_records([*other, {"id": 7}], CountingEmbedder(), bare, **options)
    assert (len(report.refused), report.replaced) == (1, False)
    assert held(bare, "answers") == before
    report = ingest_records(other, CountingEmbedder(), bare, **options)
    assert (report.refused, report.replaced, report.written, report.unchanged) == ({}, True, 0, 2)
    assert held(bare, "answers").keys() == {"doc-1", RECORDS[2]["id"]}
    assert bare.spec is not None
    assert bare.spec.fields == {"votes": "keyword"}
    assert load(bare, other, replace=True)[0].written == 2
    assert bare.spec.fields == {"votes": "keyword"}


def test_a_replacement_holds_nothing_that_an_earlier_one_has_begun(bare: VectorStore) -> None:
    load(bare, RECORDS)
    first = [{"id": "gone", "text": "one"}, {"id": "kept", "text": "two"}, {"id": "refused"}]
    assert not ingest_records(first, CountingEmbedder(), bare, source="answers", replace=True).replaced
    report = ingest_records(first[1:2], CountingEmbedder(), bare, source="answers", replace=True)
    assert (report.replaced, report.deleted, held(bare, "answers").keys()) == (True, 1, {"kept"})


def test_a_replacement_begun_with_other_kinds_of_fields_is_begun_anew(bare: VectorStore) -> None:
    load(bare, RECORDS)
    records = [{"id": "doc-1", "text": "one", "votes": "many", "seen": 1}]
    fields: dict[str, str]
    for fields, is_replaced in (({"votes": "integer"}, False), ({"seen": "integer"}, True)):
        report = ingest_records(records, CountingEmbedder(), bare, source="answers", fields=fields, replace=True)
        assert report.replaced is is_replaced
    assert bare.spec is not None
    assert bare.spec.fields == {"seen": "integer"}


def test_a_replacement_by_nothing_is_refused(bare: VectorStore) -> None:
    load(bare, RECORDS)
    before = held(bare, "answers")
    with pytest.raises(InputError, match="no records, and replacing would leave nothing of 'answers'"):
        ingest_records([], CountingEmbedder(), bare, source="answers", replace=True)
    assert held(bare, "answers") == before


def test_a_replacement_keeps_how_long_texts_are_stored(bare: VectorStore) -> None:
    load(bare, RECORDS, long_text="cut")
    assert load(bare, RECORDS, replace=True)[0].replaced
    assert bare.spec is not None
    assert bare.spec.long_text == "cut"


def test_a_replacement_drops_no_other_source(bare: VectorStore) -> None:
    load(bare, RECORDS)
    bare.upsert([Row(Record("own", "own", {}, "unclaimed"), vectors_of(["own"])[0])])
    with pytest.raises(RepositoryError, match="1 rows that no source claims; take another collection"):
        load(bare, RECORDS, replace=True)
    ingest_records(RECORDS, CountingEmbedder(), bare, source="others")
    with pytest.raises(RepositoryError, match="what others filled: others; take another collection"):
        load(bare, RECORDS, replace=True)


def test_a_replacement_drops_no_source_that_began_meanwhile(bare: VectorStore) -> None:
    load(bare, RECORDS)

    def late() -> Iterator[Any]:
        yield RECORDS[0]
        bare.claim("others", "another run")

    with pytest.raises(RepositoryError, match="what others filled: others"):
        ingest_records(late(), CountingEmbedder(), bare, source="answers", replace=True)


SCALARS = st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(["a", "b"])
VALUES = SCALARS | st.lists(st.integers(0, 3), max_size=2)
VERSION = st.dictionaries(
    st.sampled_from([*(f"doc-{n}" for n in range(6)), 1, 2, str(uuid.UUID(int=2**100 + 5))]),
    st.tuples(st.sampled_from("pqrs"), st.dictionaries(st.sampled_from(["x", "y.z", "$w"]), VALUES, max_size=2)),
    max_size=8,
)
RUNS = st.lists(st.tuples(VERSION, st.booleans(), st.integers(1, 5)), min_size=1, max_size=4)


@pytest.mark.slow
def test_any_runs_end_as_a_plain_dict_would(open_: Database, bare: VectorStore) -> None:
    @settings(max_examples=2 if open_.kind in SLOW else 8, deadline=None)
    @given(RUNS)
    def check(runs: list[Any]) -> None:
        bare.drop()
        model: dict[Any, Any] = {}
        for wanted, delete_missing, size in runs:
            records = [{"id": id, "text": text, **metadata} for id, (text, metadata) in wanted.items()]
            delete_missing = delete_missing and bool(records)
            report, texts = load(bare, records, delete_missing=delete_missing, batch_size=size)
            new = {id for id, row in wanted.items() if id not in model or model[id][0] != row[0]}
            assert sorted(texts) == sorted(wanted[id][0] for id in new)
            assert (report.written, report.records) == (len(new), len(records))
            kept = {id: json.dumps(row, sort_keys=True) for id, row in model.items()}  # where True is not 1
            same = {id for id in wanted.keys() - new if kept[id] == json.dumps(wanted[id], sort_keys=True)}
            assert report.updated == len(wanted) - len(new) - len(same)
            assert report.deleted == (len(model.keys() - wanted.keys()) if delete_missing else 0)
            model = wanted if delete_missing else {**model, **wanted}
            assert held(bare, "answers") == model

    check()
