"""What every store promises of filters on records."""

from __future__ import annotations

import re
import uuid
from decimal import Decimal
from functools import reduce
from operator import and_, or_
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from c2llm_integrations.errors import InputError
from c2llm_integrations.stores.filter import Filter
from c2llm_integrations.stores.vector_store import VectorStore
from tests.stores.conftest import SLOW, WIDTH, Database
from tests.stores.test_contract_records import a_row, found

names = st.sampled_from(["", "go", "c++", 'a" or 1==1', "Ü", "x.y"])
# One type a field; the last two are fields of chunks, which are columns in Milvus.
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "votes": st.integers(-3, 3) | st.sampled_from([2**53 + 1, -(2**53)]),
    "score": st.sampled_from([-1.5, 0.0, 0.1, 1.0, 2, 1e20]),
    "draft": st.booleans(),
    "name": names,
    "tags": st.lists(names, max_size=3),
    "counts": st.lists(st.integers(-3, 3), max_size=3),
    "language": names,
    "start_line": st.integers(0, 3),
    "author": st.fixed_dictionaries({}, optional={"name": names, "age": st.integers(0, 3)}),
    "we ird": names,
}
NUMBERS = ("votes", "score", "start_line", "author.age", "draft", "name")
metadata = st.fixed_dictionaries(
    {},
    optional={
        name: values | st.none() if name not in ("language", "start_line") else values
        for name, values in FIELDS.items()
    },
)
values = {**FIELDS, "tags": names, "counts": st.integers(-3, 3), "author.name": names, "author.age": st.integers(0, 3)}
del values["author"]
numbers = st.integers(-3, 3) | st.sampled_from([0.5, 1e20])


def leaves() -> st.SearchStrategy[dict[str, Any]]:
    equal = st.one_of(
        *(st.fixed_dictionaries({key: some | st.lists(some, max_size=3)}) for key, some in values.items())
    )
    bounds = st.fixed_dictionaries({}, optional=dict.fromkeys(("gt", "gte", "lt", "lte"), numbers)).filter(bool)
    ranges = st.sampled_from(["votes", "score", "start_line", "author.age"]).flatmap(
        lambda key: st.fixed_dictionaries({key: bounds})
    )
    there = st.sampled_from([*values, "missing"]).flatmap(
        lambda key: st.fixed_dictionaries({key: st.fixed_dictionaries({"exists": st.booleans()})})
    )
    return st.one_of(equal, ranges, there)


wheres = st.recursive(
    leaves(),
    lambda inner: st.one_of(
        st.builds(lambda one: {"not": one}, inner),
        st.builds(lambda some: {"and": some}, st.lists(inner, max_size=3)),
        st.builds(lambda some: {"or": some}, st.lists(inner, max_size=3)),
    ),
    max_leaves=5,
)


def nested(depth: int) -> dict[str, Any]:
    """Return a filter on votes that is negated so many times."""
    where: dict[str, Any] = {"votes": 5}
    for _ in range(depth):
        where = {"not": where}
    return where


@pytest.mark.core
def test_filters_mean_the_same_on_every_store(open_: Database, store: VectorStore) -> None:
    @settings(max_examples=5 if open_.kind in SLOW else 40)
    @given(st.lists(metadata, min_size=1, max_size=8), st.lists(wheres, min_size=1, max_size=8))
    def check(records: list[dict[str, Any]], asked: list[dict[str, Any]]) -> None:
        store.delete([row.id for row in store.scan()])
        store.upsert([a_row(number, **one) for number, one in enumerate(records)])
        for where in asked:
            expected = [number for number, one in enumerate(records) if Filter(where).matches(one)]
            assert found(store, where) == expected, where

    check()


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({"votes": {"gte": 5, "lt": 10}}, [1]),
        ({"votes": {"not": 5}}, [2, 3, 4]),
        ({"votes": 5.0}, [1]),
        ({"start_line": {"gt": 0.5}}, []),
        ({"tags": ["a", "z"], "votes": {"exists": True}}, [1, 2]),
        ({"author.name": "Ada"}, [3]),
        ({"author.roles": ["dev", "art"]}, [3]),
        ({"not": {"author.roles": "dev"}}, [1, 2, 4]),
        ({"author.levels": 2}, [3]),
        ({"votes": np.int64(5)}, [1]),
        ({"votes": {"gt": np.float32(5)}}, [2]),
        ({"draft": np.bool_(True)}, [4]),
        ({"by": uuid.UUID(int=7)}, [4]),
        ({"votes": Decimal("5.0")}, [1]),
        ({"votes": {"gt": Decimal(5)}}, [2]),
        ({"or": [{"author.name": "Ada"}, {"votes": {"gt": 5}}]}, [2, 3]),
        ({"not": {"tags": {"exists": True}}}, [3, 4]),
        ({"draft": True}, [4]),
        (Filter({"draft": True}) | Filter({"votes": 5}), [1, 4]),
        (~Filter({"tags": "a"}) & Filter({"votes": {"exists": False}}), [3, 4]),
        (nested(30), [1]),
        (reduce(or_, [Filter({"votes": votes}) for votes in range(300)]), [1, 2]),
        (reduce(and_, [Filter({"votes": {"gt": votes}}) for votes in range(-300, 7)]), [2]),
        ({"votes": []}, []),
        ({"votes": {"not": []}}, [1, 2, 3, 4]),
        ({"not": {"language": []}}, [1, 2, 3, 4]),
        ({"not": {"or": []}}, [1, 2, 3, 4]),
        ({"language": 5}, []),
        ({"or": []}, []),
        ({"and": []}, [1, 2, 3, 4]),
        ({"big": 2**53 + 1}, [4]),
        ({}, [1, 2, 3, 4]),
    ],
)
def test_a_filter_says_what_it_looks_like(store: VectorStore, where: Any, expected: list[int]) -> None:
    store.upsert(
        [
            a_row(1, votes=5, tags=["a", "b"]),
            a_row(2, votes=10, tags=["z"]),
            a_row(3, author={"name": "Ada", "roles": ["ops", "dev"], "levels": [1, 2]}, tags=[]),
            a_row(4, draft=True, big=2**53 + 1, by=str(uuid.UUID(int=7))),
        ]
    )
    assert found(store, where) == expected


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ({"$and": [{"votes": 1}]}, "'$and' is not known; write 'and'"),
        ({"votes": {"$gte": 1}}, "'$gte' is not known; write 'gte'"),
        ({"votes": {"$nin": [1]}}, "'$nin' is not known; write 'not'"),
        ({"votes": {}}, "'votes' is {}, which every row would match"),
        ({"votes": {"not": {}}}, "'votes' is {}, which every row would match"),
        ({"author": {"name": "Ada"}}, "a field of the mapping in it is 'author.name'"),
        ({"license": None}, "write {'license': {'exists': False}} for null"),
        ({"AND": [{"votes": 1}]}, "write 'and'"),
    ],
)
def test_a_filter_in_words_of_other_databases_says_what_to_write(where: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=re.escape(said)):
        Filter(where)


@pytest.mark.parametrize(
    "where",
    [
        "language",
        ["language"],
        {"votes": {"greater": 5}},
        {"votes": {"gte": "5"}},
        {"votes": {"gte": "2026-31-01"}},
        {"votes": {"gte": True}},
        {"votes": {"lt": float("nan")}},
        {"votes": None},
        {"votes": [None]},
        {"votes": {"exists": 1}},
        {"or": {"votes": 1}},
        {"not": ["votes"]},
        {"and": "votes"},
        {7: 1},
        {"a..b": 1},
        {'a"b': 1},
        {"votes": 2**64},
        {"name": "\ud800"},
        {"name": b"x"},
        nested(70),
        nested(5_000),
        7,
    ],
)
def test_a_filter_that_means_nothing_is_refused_in_one_line(store: VectorStore, where: Any) -> None:
    with pytest.raises(InputError) as caught:
        store.search(np.ones(WIDTH), 1, where)
    assert "\n" not in str(caught.value)
