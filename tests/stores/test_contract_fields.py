"""What every store promises of fields that the spec declares: an index, one kind of values, and ranges of moments."""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import date, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from c2llm_integrations.code.lexical_terms import ANALYZER
from c2llm_integrations.errors import InputError, RowsRefused, SpecMismatch
from c2llm_integrations.stores.filter import Filter, moment_of
from c2llm_integrations.stores.spec import CollectionSpec, CompactPlan
from c2llm_integrations.stores.vector_store import VectorStore
from tests.stores.conftest import SLOW, WIDTH, Database
from tests.stores.foreign_writers import write_foreign
from tests.stores.test_contract_records import a_row, found

FIELDS = {
    "created": "datetime",
    "seen.last": "datetime",
    "votes": "integer",
    "score": "float",
    "draft": "boolean",
    "lang": "keyword",
    "customer": "tenant",
}
EARLY, LATE = datetime(2026, 1, 31, 12, tzinfo=timezone.utc), datetime(2026, 1, 31, 13, tzinfo=timezone.utc)


@pytest.fixture
def fielded(open_: Database, spec: CollectionSpec) -> VectorStore:
    store = open_()
    store.create(replace(spec, fields=FIELDS))
    return store


def a_record(id: int, **metadata: Any) -> Any:
    return a_row(id, **{"customer": "acme", **metadata})


def test_declared_fields_are_kept_and_filtered(fielded: VectorStore, open_: Database) -> None:
    fielded.upsert(
        [
            a_record(1, votes=5, score=1, draft=True, lang="go", created="2026-01-31T12:00:00Z"),
            a_record(2, votes=[6, 7], score=1.5, lang=["go", "c"], created=None, seen={"last": "2026-01-31"}),
            a_record(3, customer="other"),
        ]
    )
    for where, expected in [
        ({"votes": {"gte": 5}}, [1]),
        ({"votes": 7}, [2]),
        ({"score": {"gt": 0.5, "lt": 1.2}}, [1]),
        ({"score": 1}, [1]),
        ({"draft": True}, [1]),
        ({"lang": "go"}, [1, 2]),
        ({"customer": "other"}, [3]),
        ({"not": {"customer": "other"}}, [1, 2]),
        ({"created": {"exists": True}}, [1]),
        ({"seen.last": {"gte": "2026-01-31", "lt": "2026-02-01"}}, [2]),
        ({"created": "2026-01-31T12:00:00Z"}, [1]),
    ]:
        assert found(fielded, where) == expected, where
    assert fielded.count(where={"created": {"lt": LATE}}) == 1
    fielded.close()
    again = open_()
    assert again.spec is not None
    assert again.spec.fields == FIELDS
    assert [one.metadata["seen"] for one in again.scroll({"votes": 6})] == [{"last": "2026-01-31"}]


def test_tenants_are_told_apart(fielded: VectorStore) -> None:
    fielded.upsert([a_record(1, customer="acme", votes=1), a_record(2, customer='o"ther', votes=2), a_record(3)])
    theirs = str(uuid.uuid4())
    write_foreign(fielded, theirs, np.ones(WIDTH, np.float32), "of another program", {"note": "theirs"})
    for where, expected in [
        ({"customer": "acme"}, {1, 3}),
        ({"customer": ["acme", 'o"ther', 5]}, {1, 2, 3}),
        ({"customer": "acme", "votes": 1}, {1}),
        ({"customer": ""}, set()),
        ({"customer": {"exists": True}}, {1, 2, 3}),
        ({"not": {"customer": "acme"}}, {2, theirs}),
    ]:
        assert set(found(fielded, where)) == expected, where
    [hit] = fielded.search(np.ones(WIDTH, np.float32), 9, {"customer": {"exists": False}})
    assert (hit.record.id, dict(hit.record.metadata)) == (theirs, {"note": "theirs"})
    fielded.update([a_record(1, customer="third").record])
    fielded.upsert([a_record(2, customer="third")])
    assert found(fielded, {"customer": "third"}) == [1, 2]
    assert [one.metadata["customer"] for one in fielded.get({1, 2, 3}).values()] == ["third", "third", "acme"]


@pytest.mark.parametrize(
    ("spelled", "moment"),
    [
        ("2026-01-31T12:00:00Z", EARLY),
        ("2026-01-31T12:00:00", EARLY),
        ("2026-01-31 12:00:00", EARLY),
        ("2026-01-31 12:00", EARLY),
        ("2026-01-31T13:00:00+01:00", EARLY),
        ("2026-01-31T12:00:00.5Z", EARLY + timedelta(milliseconds=500)),
        ("2026-01-31T12:00:00.000001+00:00", EARLY + timedelta(microseconds=1)),
        ("2026-01-31", EARLY - timedelta(hours=12)),
    ],
)
def test_a_moment_is_the_same_however_it_is_spelled(fielded: VectorStore, spelled: str, moment: datetime) -> None:
    assert moment_of(spelled) == moment
    fielded.upsert([a_record(1, created=spelled)])
    step = timedelta(microseconds=1)
    for bounds, matches in [
        ({"gte": moment, "lte": moment}, True),
        ({"gt": moment - step, "lt": moment + step}, True),
        ({"gt": moment}, False),
        ({"lt": moment}, False),
        ({"gte": (moment + step).isoformat()}, False),
        ({"gte": spelled, "lte": spelled}, True),
    ]:
        assert found(fielded, {"created": bounds}) == [1] * matches, bounds


offsets = st.sampled_from([timezone.utc, timezone(timedelta(hours=1)), timezone(-timedelta(hours=5, minutes=30))])
near = st.integers(-3, 3).map(lambda hours: EARLY + timedelta(hours=hours))
moments = st.builds(lambda moment, offset: moment.astimezone(offset), near, offsets)
bounds = st.fixed_dictionaries({}, optional=dict.fromkeys(("gt", "gte", "lt", "lte"), moments)).filter(bool)


def test_ranges_of_moments_mean_the_same_on_every_store(open_: Database, fielded: VectorStore) -> None:
    @settings(max_examples=5 if open_.kind in SLOW else 25)
    @given(st.lists(st.none() | moments, min_size=1, max_size=6), st.lists(bounds, min_size=1, max_size=5))
    def check(created: list[datetime | None], asked: list[dict[str, Any]]) -> None:
        fielded.delete([row.id for row in fielded.scan()])
        records = [{} if one is None else {"created": one.isoformat()} for one in created]
        fielded.upsert([a_record(number, **one) for number, one in enumerate(records)])
        for bound in asked:
            for where in ({"created": bound}, {"not": {"created": bound}}):
                expected = [number for number, one in enumerate(records) if Filter(where).matches(one)]
                assert found(fielded, where) == expected, where

    check()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"votes": "5"}, r"votes is '5' \(str\).*say integer"),
        ({"votes": 5.5}, "votes is 5.5"),
        ({"votes": True}, "votes is True"),
        ({"votes": [5, "6"]}, "votes is '6'"),
        ({"score": "high"}, "score is 'high'"),
        ({"draft": 1}, "draft is 1"),
        ({"lang": 7}, "lang is 7"),
        ({"lang": {"name": "go"}}, "lang is"),
        ({"created": "yesterday"}, "created is 'yesterday'.*2026-01-31T12:00:00Z"),
        ({"created": "2026-02-31"}, "created is '2026-02-31'"),
        ({"created": 1_769_860_800}, "created is 1769860800"),
        ({"created": ["2026-01-31"]}, "created is"),
        ({"customer": None}, "customer is None.*tenant"),
        ({"customer": ""}, "customer is ''"),
        ({"customer": ["a", "b"]}, "customer is"),
    ],
)
def test_a_value_of_another_kind_is_refused(fielded: VectorStore, change: dict[str, Any], why: str) -> None:
    with pytest.raises(RowsRefused, match=why) as caught:
        fielded.upsert([a_record(1), a_record(2, **change)])
    assert list(caught.value.reasons) == [2]
    fielded.upsert([a_record(2)])
    with pytest.raises(RowsRefused, match=why):
        fielded.update([a_record(2, **change).record])


def test_equal_moments_are_found_however_they_are_spelled(fielded: VectorStore) -> None:
    fielded.upsert(
        [a_record(1, created="2026-01-31T13:00:00+01:00"), a_record(2, created="2026-01-30"), a_record(3, created=None)]
    )
    day = date(2026, 1, 30)
    for where, expected in [
        (EARLY, [1]),
        (day, [2]),
        ([day, EARLY], [1, 2]),
        ([day, "2026-01-31T13:00:00+01:00"], [1, 2]),
        ({"in": [EARLY]}, [1]),
        ({"not": EARLY}, [2, 3]),
        ({"not": [day, EARLY]}, [3]),
        (EARLY + timedelta(microseconds=1), []),
        (EARLY.isoformat(), []),  # a string is a string
    ]:
        assert found(fielded, {"created": where}) == expected, where


@pytest.mark.parametrize(
    "where",
    [{"posted": EARLY}, {"posted": {"gt": "2026-01-31"}}, {"or": [{"not": {"votes": {"lt": date(2026, 1, 31)}}}]}],
)
def test_moments_need_a_declared_field(fielded: VectorStore, where: Any) -> None:
    for call in (lambda: fielded.search(np.ones(WIDTH), 1, where), lambda: fielded.count(where=where)):
        with pytest.raises(InputError, match="'datetime'"):
            call()


def test_moments_follow_an_update(fielded: VectorStore) -> None:
    fielded.upsert([a_record(1, created="2026-01-31T12:00:00Z")])
    fielded.update([a_record(1, created="2027-01-31T12:00:00Z").record])
    assert found(fielded, {"created": {"gt": LATE}}) == [1]
    fielded.update([a_record(1).record])
    assert found(fielded, {"created": {"gt": EARLY - timedelta(days=1)}}) == []


def test_a_collection_is_asked_for_with_its_fields_or_fewer(open_: Database, spec: CollectionSpec) -> None:
    store = open_()
    store.create(replace(spec, fields=FIELDS))
    store.create(spec)
    store.create(replace(spec, fields={"votes": "integer"}))
    for kind in ("float", "keyword"):
        with pytest.raises(SpecMismatch, match=f"indexes as integer the field 'votes', asked for {kind}"):
            store.create(replace(spec, fields={"votes": kind}))
    with pytest.raises(SpecMismatch, match="does not index the field 'more', asked for integer"):
        store.create(replace(spec, fields={"more": "integer"}))


def test_fields_are_of_known_kinds_and_one_is_the_tenant() -> None:
    with pytest.raises(InputError, match="kind 'text'; known are keyword"):
        CollectionSpec(4, {}, fields={"a": "text"})
    with pytest.raises(InputError, match="one field can be the tenant"):
        CollectionSpec(4, {}, fields={"a": "tenant", "b": "tenant"})


class Model:
    def __init__(self) -> None:
        self.output_dim = 4
        self.fingerprint = {"model": "nano", "weights": "abc"}


def test_a_spec_for_an_embedder_takes_its_width_and_fingerprint() -> None:
    spec = CollectionSpec.for_embedder(Model(), plan=CompactPlan(quantization="int8"), fields={"votes": "integer"})
    assert (spec.width, spec.fingerprint, spec.quantization, spec.rescore) == (4, Model().fingerprint, "int8", 2.0)
    assert (spec.analyzer, dict(spec.fields)) == (ANALYZER, {"votes": "integer"})
    assert CollectionSpec.from_json(spec.to_json()) == spec
    assert CollectionSpec.for_embedder(Model(), lexical=False).analyzer is None
    with pytest.raises(InputError, match="8 dimensions, the embedder gives 4"):
        CollectionSpec.for_embedder(Model(), plan=CompactPlan(8))
