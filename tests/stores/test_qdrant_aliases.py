"""Which collections stand behind a name at Qdrant, wherever a run was killed."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from qdrant_client import QdrantClient, models

from c2llm_integrations.errors import SpecMismatch, StoreError
from c2llm_integrations.stores.qdrant.aliases import SPEC_KEY
from c2llm_integrations.stores.qdrant.store import QdrantStore
from c2llm_integrations.stores.records import Row
from c2llm_integrations.stores.spec import CollectionSpec

MakeRows = Callable[..., list[Row]]


class Killed(BaseException):
    """The end of the process, between two requests."""


@pytest.fixture
def client() -> QdrantClient:
    return QdrantClient(":memory:")


def make_plain(client: QdrantClient, spec: CollectionSpec) -> None:
    """Make the collection as releases before aliases did."""
    client.create_collection(
        "code",
        vectors_config=models.VectorParams(size=spec.width, distance=models.Distance.COSINE),
        metadata={SPEC_KEY: json.loads(spec.to_json())},
    )


def kill_after(store: QdrantStore, requests: int) -> None:
    """Have the process die when the store is about to send another request."""
    real, left = store._alias.call, [None] * requests

    def call(*args: Any, **options: Any) -> Any:
        if not left:
            raise Killed
        left.pop()
        return real(*args, **options)

    store._alias.call = call  # type: ignore[method-assign, assignment]


def names(client: QdrantClient) -> list[str]:
    return sorted(one.name for one in client.get_collections().collections)


def test_the_name_is_an_alias(client: QdrantClient, spec: CollectionSpec) -> None:
    QdrantStore.from_client(client).create(spec)
    assert names(client) == ["code__1"]
    assert [(one.alias_name, one.collection_name) for one in client.get_aliases().aliases] == [("code", "code__1")]


def test_a_plain_collection_is_used_and_replaced(
    client: QdrantClient, spec: CollectionSpec, make_rows: MakeRows
) -> None:
    make_plain(client, spec)
    store = QdrantStore.from_client(client)
    store.create(spec)
    store.upsert(make_rows(5))
    assert (store.spec, store.count(), names(client)) == (spec, 5, ["code"])
    successor = store.successor()
    successor.create(spec)
    successor.upsert(make_rows(3))
    store.replace_by(successor)
    assert (store.count(), client.count("code").count, names(client)) == (3, 3, ["code__1"])
    store.drop()
    assert names(client) == []


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("requests", range(12))
def test_a_replacement_killed_anywhere_loses_nothing(
    client: QdrantClient, spec: CollectionSpec, make_rows: MakeRows, requests: int, plain: bool
) -> None:
    if plain:
        make_plain(client, spec)
    killed = QdrantStore.from_client(client)
    killed.create(spec)
    killed.upsert(make_rows(5))
    successor = killed.successor()
    successor.create(spec)
    successor.upsert(make_rows(3))
    kill_after(killed, requests)
    try:
        killed.replace_by(successor)
    except Killed:
        assert requests < 8
    store = QdrantStore.from_client(client)
    assert store.count() in (5, 3)
    again = store.successor()
    assert again.count() in (0, 3)  # never the rows that were to be replaced
    again.create(spec)
    again.upsert(make_rows(3))
    store.replace_by(again)
    assert (store.count(), len(names(client))) == (3, 1)
    store.drop()
    assert (names(client), client.get_aliases().aliases) == ([], [])


@pytest.mark.parametrize("requests", range(8))
def test_a_creation_killed_anywhere_can_be_repeated_with_another_spec(
    client: QdrantClient, spec: CollectionSpec, requests: int
) -> None:
    killed = QdrantStore.from_client(client)
    kill_after(killed, requests)
    with contextlib.suppress(Killed):
        killed.create(spec)
    store, other = QdrantStore.from_client(client), replace(spec, width=4)
    if store.spec is None:
        store.create(other)
        assert (store.spec, names(client)) == (other, ["code__1"])
    assert store.count() == 0
    store.drop()
    assert names(client) == []


@pytest.mark.parametrize("requests", range(8))
def test_a_drop_killed_anywhere_can_be_repeated(
    client: QdrantClient, spec: CollectionSpec, make_rows: MakeRows, requests: int
) -> None:
    killed = QdrantStore.from_client(client)
    killed.create(spec)
    killed.successor().create(spec)
    kill_after(killed, requests)
    with contextlib.suppress(Killed):
        killed.drop()
    QdrantStore.from_client(client).drop()
    assert names(client) == []


def test_a_reader_of_another_model_is_told(client: QdrantClient, spec: CollectionSpec, make_rows: MakeRows) -> None:
    store, reader = QdrantStore.from_client(client), QdrantStore.from_client(client)
    store.create(spec)
    rows = make_rows(3)
    store.upsert(rows)
    assert reader.count() == 3
    successor = store.successor()
    successor.create(replace(spec, fingerprint={"weights": "other"}))
    successor.upsert(rows[:1])
    store.replace_by(successor)
    with pytest.raises(SpecMismatch, match="fingerprint"):
        reader.search(rows[0].vector, 1)
    assert reader.spec == store.spec


def test_a_dropped_collection_is_noticed(client: QdrantClient, spec: CollectionSpec) -> None:
    store, other = QdrantStore.from_client(client), QdrantStore.from_client(client)
    store.create(spec)
    assert other.count() == 0
    store.drop()
    with pytest.raises(StoreError, match="no collection 'code'"):
        other.count()
    assert other.spec is None


@pytest.mark.parametrize("name", ["code", "code__1"])
def test_collections_of_others_are_refused_and_kept(client: QdrantClient, spec: CollectionSpec, name: str) -> None:
    client.create_collection(name, vectors_config={})
    store = QdrantStore.from_client(client)
    with pytest.raises(StoreError, match=f"{name}.* (was not made by this package|is not part of 'code')"):
        store.create(spec)
    if name == "code":
        with pytest.raises(StoreError, match="was not made by this package"):
            store.drop()
    else:
        store.drop()
    assert names(client) == [name]


def test_a_successor_has_none_itself(client: QdrantClient, spec: CollectionSpec) -> None:
    store = QdrantStore.from_client(client)
    store.create(spec)
    successor = store.successor()
    successor.create(spec)
    with pytest.raises(StoreError, match="is a successor itself"):
        successor.successor()
    assert names(client) == ["code__1", "code__2"]


def test_a_part_is_opened_by_its_name_only(client: QdrantClient, spec: CollectionSpec) -> None:
    QdrantStore.from_client(client).create(spec)
    with pytest.raises(StoreError, match=r"'code__1'.* is part of collection 'code'"):
        QdrantStore.from_client(client, "code__1").drop()
    assert names(client) == ["code__1"]


def test_a_reader_that_slept_through_a_replacement_reads_no_unfinished_rows(
    client: QdrantClient, spec: CollectionSpec, make_rows: MakeRows
) -> None:
    store, reader = QdrantStore.from_client(client), QdrantStore.from_client(client)
    store.create(spec)
    store.upsert(make_rows(5))
    assert reader.count() == 5
    for rows in (4, 3):
        successor = store.successor()
        successor.create(spec)
        successor.upsert(make_rows(rows))
        if rows == 4:
            store.replace_by(successor)
    assert (reader.count(), names(client)) == (4, ["code__2", "code__3"])
