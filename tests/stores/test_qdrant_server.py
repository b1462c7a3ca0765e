"""What a Qdrant server adds to the contract: keys, its limits, its version. Over REST, on the real engine."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import AsyncQdrantClient, QdrantClient, models

from c2llm_integrations.code.chunk import CodeChunk, chunk_id
from c2llm_integrations.code.lexical_terms import ANALYZER
from c2llm_integrations.errors import InputError, RowsRefused, StoreError
from c2llm_integrations.stores import list_collections, open_store
from c2llm_integrations.stores.qdrant import store as qdrant
from c2llm_integrations.stores.qdrant.client import creation
from c2llm_integrations.stores.qdrant.store import DEFERRED_KEY, QdrantStore
from c2llm_integrations.stores.records import Row
from c2llm_integrations.stores.spec import CollectionSpec
from tests.qdrant_engine import Collections
from tests.qdrant_facade import Faults, serve

pytestmark = pytest.mark.server

KEY = "s3cret-key"


@pytest.fixture(autouse=True)
def _over_plain_http() -> Any:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Api key is used with an insecure connection")
        yield


@pytest.mark.parametrize("source", ["argument", "environment"])
def test_the_key_is_sent_and_never_shown(
    quick_path: Path, source: str, spec: CollectionSpec, monkeypatch: pytest.MonkeyPatch, capfd: Any, caplog: Any
) -> None:
    caplog.set_level(logging.DEBUG)
    if source == "environment":
        monkeypatch.setenv("QDRANT_API_KEY", f"{KEY}\n")
    argument = KEY if source == "argument" else None
    with serve(quick_path, key=KEY) as address, open_store(f"qdrant+{address}", api_key=argument) as store:
        store.create(spec)
        assert list_collections(f"qdrant+{address}", api_key=argument) == ["code"]
        with open_store(f"qdrant+{address}", api_key=KEY) as other:
            other.drop()
        with pytest.raises(StoreError) as caught:
            store.optimize()
        shown = f"{store!r} {store.url} {vars(store)} {caught.value}"
    assert KEY not in shown + caplog.text + "".join(capfd.readouterr())


@pytest.mark.parametrize("key", [None, "another-s3cret"])
def test_a_refused_key_is_one_line_without_it(quick_path: Path, key: str | None) -> None:
    with (
        serve(quick_path, key=KEY) as address,
        pytest.raises(StoreError, match=r"401 \(Unauthorized\).*the key right") as caught,
    ):
        open_store(f"qdrant+{address}", api_key=key)
    assert "s3cret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_server_that_is_not_there_is_named() -> None:
    with pytest.raises(StoreError, match=r"qdrant\+http://127\.0\.0\.1:9 cannot be opened: .*refused"):
        open_store("qdrant+http://127.0.0.1:9")


def test_a_server_that_would_lose_the_spec_is_refused(quick_path: Path) -> None:
    with serve(quick_path, version="1.15.5") as address:
        with pytest.raises(StoreError, match=r"1\.15\.5.*update it to 1\.16"):
            open_store(f"qdrant+{address}")
        with pytest.raises(StoreError, match=r"1\.15\.5.*update it to 1\.16"):
            QdrantStore.from_client(QdrantClient(url=address, check_compatibility=False))


@pytest.mark.parametrize(
    ("version", "datatypes", "quantizations"),
    [
        ("1.16.3", set(), set()),
        ("1.17.0", set(), set()),
        ("1.18.0", set(), {"turbo", "turbo2", "turbo1.5", "turbo1"}),
        ("1.19.0", {"turbo4"}, {"turbo", "turbo2", "turbo1.5", "turbo1"}),
        ("1.20.1", {"turbo4", "turbo8", "turbo16"}, {"turbo8", "turbo", "turbo2", "turbo1.5", "turbo1"}),
    ],
)
def test_only_what_the_server_has_is_offered(
    quick_path: Path, version: str, datatypes: set[str], quantizations: set[str]
) -> None:
    with serve(quick_path, version=version) as address, open_store(f"qdrant+{address}") as store:
        can = store.capabilities
        assert can.datatypes == {"float32", "float16"} | datatypes
        assert can.quantizations == {"int8", "product", "binary", "binary1.5", "binary2"} | quantizations


def test_an_older_client_offers_what_it_knows(quick_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("c2llm_integrations.stores.qdrant.store.distribution_version", lambda _: "1.18.2")
    with serve(quick_path, version="1.20.1") as address, open_store(f"qdrant+{address}") as store:
        assert "turbo" in store.capabilities.quantizations
        assert "turbo8" not in store.capabilities.quantizations | store.capabilities.datatypes


def test_in_memory_there_is_nothing_compact() -> None:
    with QdrantStore.in_memory() as store:
        assert (store.capabilities.quantizations, store.capabilities.datatypes) == (set(), {"float32"})


def test_busy_servers_are_waited_for_when_opening(quick_path: Path) -> None:
    faults = Faults(rate=1, most=2, kinds=["429", "500"])
    with serve(quick_path, faults=faults) as address, open_store(f"qdrant+{address}") as store:
        assert store.spec is None


@pytest.mark.parametrize("analyzer", [None, ANALYZER])
def test_wide_vectors_stay_under_the_limit_of_a_request(
    quick_path: Path, analyzer: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    # [a REST body over 32 MiB shows as a time-out]
    sizes: list[int] = []
    refused = Collections.upsert
    monkeypatch.setattr(
        Collections, "upsert", lambda self, name, body: sizes.append(len(str(body))) or refused(self, name, body)
    )
    rng, width = np.random.default_rng(0), 3_584
    words = " ".join(f"w{number}" for number in range(500))
    chunks = [CodeChunk(chunk_id("r", "p", "t", i), "r", "p", "", "", "", 1, 1, words) for i in range(250)]
    rows = [Row(chunk, rng.standard_normal(width).astype(np.float32)) for chunk in chunks]  # 12 or 16 MB as JSON
    with serve(quick_path) as address, open_store(f"qdrant+{address}") as store:
        store.create(CollectionSpec(width, {}, analyzer=analyzer))
        store.upsert(rows)
        assert len(store.vectors([chunk.id for chunk in chunks])) == len(list(store.rows())) == 250
    assert 3 <= len(sizes) <= 6
    assert max(sizes) < 1.1 * 4 * 2**20


def test_the_largest_texts_stay_under_the_limit_of_a_request(quick_path: Path, make_row: Any) -> None:
    size = 2 * 2**20
    words = " ".join(f"{number:x}" for number in range(2**19))[:size]  # as many terms as so many bytes can hold
    with serve(quick_path) as address, open_store(f"qdrant+{address}") as store:
        store.create(CollectionSpec(16, {}, analyzer=ANALYZER))
        store.upsert([make_row(text="\x01" * size), make_row(text=words)])
        with pytest.raises(RowsRefused, match=f"text has {size + 1} bytes, the store takes {size}"):
            store.upsert([make_row(text="x" * (size + 1))])
        assert store.count() == 2


# ---- a client of the user's own


def test_a_given_client_is_left_open(quick_path: Path, spec: CollectionSpec, make_rows: Any) -> None:
    with serve(quick_path) as address:
        client = QdrantClient(url=address, check_compatibility=False)
        with QdrantStore.from_client(client, "mine") as store:
            store.create(spec)
            store.upsert(make_rows(3))
        assert client.count("mine").count == 3
        client.close()


async def test_an_async_client_names_the_server(quick_path: Path, spec: CollectionSpec, make_rows: Any) -> None:
    with serve(quick_path, key=KEY) as address:
        client = AsyncQdrantClient(url=address, api_key=KEY, check_compatibility=False)
        assert (await client.get_collections()).collections == []  # its connections belong to this event loop
        with QdrantStore.from_client(client) as store:
            assert store.capabilities.uploads > 1
            store.create(spec)
            store.upsert(make_rows(3))
            assert (await client.count("code")).count == 3
            store.drop()
            with pytest.raises(StoreError) as caught:
                store.optimize()
            assert KEY not in f"{store!r} {vars(store)} {caught.value}"
        assert (await client.get_collections()).collections == []
        await client.close()


async def test_an_async_client_without_a_server_is_refused(tmp_path: Path) -> None:
    for client in (AsyncQdrantClient(":memory:"), AsyncQdrantClient(path=str(tmp_path))):
        with pytest.raises(InputError, match="give a QdrantClient"):
            QdrantStore.from_client(client)
        await client.close()


# ---- the index


@pytest.fixture
def server(quick_path: Path) -> Iterator[tuple[QdrantStore, Callable[[], dict[str, Any]]]]:
    """A store on a server, and what reads the collection's indexing threshold and metadata."""
    with serve(quick_path) as address, QdrantStore.connect(address) as store:

        def config() -> dict[str, Any]:
            config = store.client.get_collection("code").config
            metadata = config.metadata or {}
            return {"kb": config.optimizer_config.indexing_threshold, "before": metadata.get(DEFERRED_KEY)}

        yield store, config


def test_indexing_is_put_off_and_restored(server: Any, spec: CollectionSpec, make_rows: Any) -> None:
    store, config = server
    store.create(spec)
    store.client.update_collection("code", optimizers_config=models.OptimizersConfigDiff(indexing_threshold=777))
    with store.bulk():
        store.upsert(make_rows(10))
        assert config() == {"kb": 0, "before": 777}
        with store.bulk():
            assert config() == {"kb": 0, "before": 777}
        assert config() == {"kb": 777, "before": None}
    assert config() == {"kb": 777, "before": None}
    with pytest.raises(KeyError), store.bulk():
        raise KeyError
    assert config() == {"kb": 777, "before": None}


@pytest.mark.parametrize("repaired_by", ["bulk", "optimize"])
def test_a_killed_load_leaves_no_index_put_off(server: Any, spec: CollectionSpec, repaired_by: str) -> None:
    store, config = server
    store.create(spec)
    store._defer()  # as `bulk` does, and never leaves it
    assert config() == {"kb": 0, "before": 20_000}
    with QdrantStore.from_client(store.client) as again:
        if repaired_by == "optimize":
            again.optimize()
        else:
            with again.bulk():
                assert config() == {"kb": 0, "before": 20_000}
    assert config() == {"kb": 20_000, "before": None}


def test_the_index_is_waited_for(server: Any, spec: CollectionSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    store, _ = server
    store.create(spec)
    seen: list[str] = []
    describe = Collections.describe

    def record(self: Collections, name: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = describe(self, name, body)
        seen.append(answer["status"])
        return answer

    monkeypatch.setattr(Collections, "describe", record)
    with store.bulk():
        pass
    assert seen[-2:] == ["yellow", "green"]
    monkeypatch.setattr(qdrant, "OPTIMIZE_SECONDS", 0.05)
    monkeypatch.setattr(Collections, "describe", lambda *some: {**describe(*some), "status": "yellow"})
    with pytest.raises(StoreError, match="still indexing"):
        store.optimize()
    monkeypatch.setattr(Collections, "describe", lambda *some: {**describe(*some), "status": "red"})
    with pytest.raises(StoreError, match=r"could not index.*log"):
        store.optimize()


def test_a_restarted_server_is_told_to_go_on_indexing(
    server: Any, spec: CollectionSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, _ = server
    store.create(spec)
    describe, change = Collections.describe, Collections.change
    status = ["grey"]
    monkeypatch.setattr(Collections, "describe", lambda *some: {**describe(*some), "status": status[0]})

    def wake(self: Collections, name: str, body: dict[str, Any]) -> bool:
        status[0] = "green"
        return change(self, name, body)

    monkeypatch.setattr(Collections, "change", wake)
    store.optimize()
    assert status == ["green"]


# ---- payload


def test_fields_are_indexed_and_the_repository_is_the_tenant(
    quick_path: Path, spec: CollectionSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    indexed: dict[str, dict[str, Any]] = {}
    index = Collections.index

    def record(self: Collections, name: str, body: dict[str, Any]) -> dict[str, Any]:
        indexed[body["field_name"]] = body["field_schema"]
        return index(self, name, body)

    monkeypatch.setattr(Collections, "index", record)
    with serve(quick_path) as address, open_store(f"qdrant+{address}") as store:
        store.create(spec)
    assert indexed == {
        "metadata.repository": {"type": "keyword", "is_tenant": True},
        "metadata.path": {"type": "keyword"},
        "metadata.language": {"type": "keyword"},
        "metadata.kind": {"type": "keyword"},
        "c2llm_source": {"type": "keyword"},
    }


def test_the_spec_says_how_a_cluster_keeps_the_collection(spec: CollectionSpec) -> None:
    made = creation(replace(spec, index={"m": 32, "shard_number": 6, "replication_factor": 2}))
    assert (made["vectors_config"].hnsw_config.m, made["vectors_config"].hnsw_config.ef_construct) == (32, None)
    assert (made["shard_number"], made["replication_factor"]) == (6, 2)
