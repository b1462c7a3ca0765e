"""What every store promises of get, delete, count, scroll and their awaited counterparts."""

from __future__ import annotations

import asyncio
import uuid
import warnings
from collections.abc import Callable
from dataclasses import replace
from threading import Barrier
from typing import Any

import numpy as np
import pytest

from c2llm_integrations.errors import InputError, RowsRefused, StoreError
from c2llm_integrations.stores.backend import AWAITED_CALLS
from c2llm_integrations.stores.filter import Filter
from c2llm_integrations.stores.records import Record, Row
from c2llm_integrations.stores.spec import CollectionSpec
from c2llm_integrations.stores.vector_store import VectorStore
from tests.stores.conftest import WIDTH, Database
from tests.stores.foreign_writers import write_foreign
from tests.stores.test_contract_records import a_row
from tests.stores.toy_store import ToyStore

MakeRow = Callable[..., Row]


@pytest.fixture
def filled(store: VectorStore, make_row: MakeRow) -> VectorStore:
    """Records of two sources, one of them with an id that the other has too, and one chunk."""
    store.upsert(
        [
            a_row("a", "first", "one", votes=1, tags=["x"]),
            a_row("b", "second", "one", votes=2),
            a_row("a", "third", "two", votes=3, author={"name": "Ada"}),
            a_row(7, "fourth", "two", votes=4),
            make_row(),
        ]
    )
    return store


def texts(records: Any) -> list[str]:
    return sorted(record.text for record in records)


def test_a_uuid_or_an_integer_is_the_row_itself_whatever_source_is_named(filled: VectorStore) -> None:
    named = str(uuid.uuid4())
    filled.upsert([a_row(named, "fifth", "two")])
    filled.delete(["a", named, 7], source="one")
    assert texts(filled.scroll()) == ["second", "third", "x = 1\n"]


def test_get_returns_records_by_the_ids_they_were_given(filled: VectorStore) -> None:
    found = filled.get(["a", "b", "missing", 7], source="one")
    assert found == {
        "a": Record("a", "first", {"votes": 1, "tags": ["x"]}, "one"),
        "b": Record("b", "second", {"votes": 2}, "one"),
        7: Record(7, "fourth", {"votes": 4}, "two"),  # an integer is a row's id whatever the source
    }
    assert filled.get("a", source="two")["a"].metadata == {"votes": 3, "author": {"name": "Ada"}}
    assert filled.get([]) == {}


@pytest.mark.parametrize(
    ("where", "source", "expected"),
    [
        (None, None, ["first", "fourth", "second", "third", "x = 1\n"]),
        ({}, "one", ["first", "second"]),
        ({"votes": {"gte": 2}}, None, ["fourth", "second", "third"]),
        ({"votes": {"gte": 2}}, "two", ["fourth", "third"]),
        ({"author.name": "Ada"}, None, ["third"]),
        ({"language": "python"}, None, ["x = 1\n"]),
        ({"not": {"votes": [1, 2]}}, "one", []),
        (Filter({"tags": "x"}) | Filter({"votes": 4}), None, ["first", "fourth"]),
    ],
)
def test_count_scroll_rows_and_scan_choose_the_same_rows(
    filled: VectorStore, where: Any, source: str | None, expected: list[str]
) -> None:
    assert texts(filled.scroll(where, source=source)) == expected
    assert filled.count(where, source=source) == len(expected)
    rows = list(filled.rows(where, source=source))
    assert texts(row.record for row in rows) == expected
    assert all(row.vector.shape == (WIDTH,) for row in rows)
    assert sorted(str(one.id) for one in filled.scan(where, source=source)) == sorted(
        str(row.record.row_id) for row in rows
    )


@pytest.mark.parametrize(
    ("where", "source", "left"),
    [
        ({"votes": {"gte": 2}}, None, ["first", "x = 1\n"]),
        ({"votes": {"gte": 2}}, "one", ["first", "fourth", "third", "x = 1\n"]),
        ({}, "two", ["first", "second", "x = 1\n"]),
        ({"votes": 99}, None, ["first", "fourth", "second", "third", "x = 1\n"]),
        ({"path": "src/a.py"}, None, ["first", "fourth", "second", "third"]),
    ],
)
def test_delete_by_filter_deletes_what_matches_and_nothing_else(
    filled: VectorStore, where: Any, source: str | None, left: list[str]
) -> None:
    filled.delete(where=where, source=source)
    assert texts(filled.scroll()) == left


@pytest.mark.parametrize(
    "where",
    [
        {},
        {"and": []},
        {"and": [{}]},
        {"or": [{}]},
        {"or": [{"votes": 2}, {}]},
        {"not": {"or": []}},
        {"votes": {"not": []}},
        Filter() | Filter({"votes": 2}),
        ~~Filter({"and": []}),
    ],
)
def test_delete_refuses_a_filter_that_matches_every_row(filled: VectorStore, where: Any) -> None:
    assert not Filter(where)
    with pytest.raises(InputError, match="matches every row, so all would be deleted"):
        filled.delete(where=where)
    assert filled.count() == 5


@pytest.mark.parametrize("where", [{"or": []}, {"votes": []}, {"not": {}}, {"and": [{}, {"or": []}]}])
def test_delete_by_a_filter_that_matches_no_row_deletes_none(filled: VectorStore, where: Any) -> None:
    assert Filter(where)
    assert filled.delete(where=where) == 0


def test_delete_by_id_is_within_its_source(filled: VectorStore) -> None:
    filled.delete("a", source="one")
    assert texts(filled.scroll()) == ["fourth", "second", "third", "x = 1\n"]


def test_delete_says_how_many_rows_there_were(filled: VectorStore) -> None:
    assert filled.delete(["a", "b", "missing", 7], source="one") == 3
    assert filled.delete(["a", "b", "missing", 7], source="one") == 0
    assert filled.delete(where={"votes": 3}) == 1
    assert filled.delete([]) == filled.delete(where={"votes": 3}) == 0
    assert texts(filled.scroll()) == ["x = 1\n"]


def test_a_name_that_no_row_without_a_source_has_is_told_by_a_warning(filled: VectorStore) -> None:
    filled.upsert([a_row("plain", "fifth", "")])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert filled.get("a") == {}  # no source is known to have rows
        filled.claim("one", "records:x")
        assert filled.get(["a", "plain"]).keys() == {"plain"}
        assert filled.get("missing", source="one") == filled.get("a", source="") == filled.get(5) == {}
        assert filled.known(str(uuid.uuid4())) == set()
    for call in (filled.get, filled.known, filled.vectors, filled.delete):
        with pytest.warns(UserWarning, match=r"has the id 'a'; .* source=…, here one of \['one'\]") as told:
            assert not call("a")
        assert told[0].filename == __file__
    assert filled.count() == 6


def test_delete_by_filter_keeps_rows_of_others(filled: VectorStore) -> None:
    theirs = str(uuid.uuid4())
    write_foreign(filled, theirs, np.ones(WIDTH, np.float32), "their text", {"votes": 9})
    before = filled.total()
    filled.delete(where={"not": {"votes": -1}})
    assert (filled.count(), filled.total(), filled.get(theirs)[theirs].text) == (0, before - 5, "their text")


@pytest.mark.parametrize(
    ("call", "why"),
    [
        (lambda store: store.delete(), "ids or where"),
        (lambda store: store.delete("a", where={"votes": 1}), "ids or where"),
        (lambda store: store.delete(where={}), "every row"),
        (lambda store: store.delete(where="votes"), "a filter is a mapping"),
        (lambda store: store.delete(where={"votes": {"above": 1}}), "'above'"),
        (lambda store: store.delete(1.5), "expected|id 1.5"),
        (lambda store: store.delete(b"ab"), "id b'ab'"),  # no list of the numbers 97 and 98
        (lambda store: store.get(b"ab"), "id b'ab'"),
        (lambda store: store.get(None), "id None"),
        (lambda store: store.get([["a"]]), r"id \['a'\]"),
        (lambda store: store.get("a", source=5), "source"),
        (lambda store: store.count(source=5), "source"),
        (lambda store: store.count(where=5), "a filter is a mapping"),
        (lambda store: store.count(where=0), "a filter is a mapping"),
        (lambda store: store.scroll(["votes"]), "a filter is a mapping"),
        (lambda store: store.scroll(source=1), "source"),
        (lambda store: store.count("one"), "source=.one."),
        (lambda store: store.rows("one"), "source=.one."),
        (lambda store: store.rows(source=b"one"), "source"),
        (lambda store: asyncio.run(store.aget(-1)), "id -1"),
        (lambda store: asyncio.run(store.asearch("text", 5)), "vector"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(
    store: VectorStore, call: Callable[[VectorStore], object], why: str
) -> None:
    with pytest.raises(InputError, match=why) as caught:
        call(store)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("id", [None, "", True, -1])
def test_a_record_without_an_id_shares_no_row_with_another(store: VectorStore, id: Any) -> None:
    with pytest.raises(RowsRefused, match=f"id {id!r} "):
        store.upsert([Row(Record(id, "text", {}, "notes"), np.ones(WIDTH, "f4"))])
    assert store.count() == 0


def test_verbs_of_a_missing_collection_find_nothing(open_: Database) -> None:
    store = open_()
    assert (store.get("a"), list(store.scroll()), store.count(where={"a": 1})) == ({}, [], 0)
    store.delete(where={"a": 1})


def test_awaited_verbs_do_what_the_others_do(filled: VectorStore) -> None:
    row = a_row("new", "fifth", "one", votes=5)

    async def use() -> None:
        assert await filled.aupsert([row]) == 0
        assert (await filled.aget("new", source="one"))["new"] == row.record
        hits = await asyncio.gather(*(filled.asearch(row.vector, 1) for _ in range(8)))
        assert [[hit.record.id for hit in one] for one in hits] == [["new"]] * 8
        assert (await filled.acandidates(row.vector, [], 1, {"votes": 5})).dense[0].record == row.record
        assert await filled.acount({"votes": {"gt": 1}}, source="one") == 2
        await filled.adelete(where={"votes": 5})
        await filled.adelete("b", source="one")
        assert await filled.acount(source="one") == 1

    asyncio.run(use())


def test_awaited_calls_wait_for_a_server_together(spec: CollectionSpec) -> None:
    together = Barrier(AWAITED_CALLS, timeout=60)

    class Server(ToyStore):
        capabilities = replace(ToyStore.capabilities, uploads=4)

        def _count(self, where: Filter, source: str | None) -> int:
            together.wait()
            return super()._count(where, source)

    async def use(store: VectorStore) -> list[int]:
        return await asyncio.gather(*(store.acount() for _ in range(AWAITED_CALLS)))

    with Server("awaited", "code") as store:
        store.create(spec)
        assert asyncio.run(use(store)) == [0] * AWAITED_CALLS
        store.drop()


def test_the_client_is_the_databases_own(filled: VectorStore) -> None:
    client = filled.client
    assert client is not None
    assert not isinstance(client, VectorStore)
    assert filled.client is client
    filled.close()
    with pytest.raises(StoreError, match="closed"):
        _ = filled.client
    with pytest.raises(StoreError, match="closed"):
        asyncio.run(filled.asearch(np.ones(WIDTH), 1))
