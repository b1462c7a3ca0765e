"""The databases that the contract runs over, and rows to put into them."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import numpy as np
import pytest
from pymilvus import MilvusClient
from qdrant_client import QdrantClient

from c2llm_integrations import stores
from c2llm_integrations.code.chunk import CodeChunk, chunk_id
from c2llm_integrations.code.lexical_terms import ANALYZER
from c2llm_integrations.stores import DATABASES, open_store
from c2llm_integrations.stores.milvus.collections import CONNECTION
from c2llm_integrations.stores.qdrant.store import QdrantStore
from c2llm_integrations.stores.records import Row
from c2llm_integrations.stores.spec import CollectionSpec
from c2llm_integrations.stores.vector_store import VectorStore
from tests.conftest import ON_MILVUS
from tests.qdrant_facade import serve

WIDTH = 16
# A collection takes two seconds to make there and a read a third of one; the whole contract takes six minutes.
SLOW = ("milvus-server",)
QDRANT_URL = "QDRANT_URL"


class Database:
    """One database; calling it opens a collection of it, and opening again finds what was written."""

    def __init__(self, kind: str, url: str, client: QdrantClient | None = None, prefix: str = "") -> None:
        """`client` holds the rows of a database without URL; `prefix` keeps a shared server's collections apart."""
        self.kind, self.url, self.client, self.prefix = kind, url, client, prefix
        self.opened: list[VectorStore] = []

    def __call__(self, collection: str = "code") -> VectorStore:
        name = self.prefix + collection
        store = QdrantStore.from_client(self.client, name) if self.client else open_store(self.url, name)
        self.opened.append(store)
        return store

    def close(self) -> None:
        """Close whatever was opened and not closed."""
        for store in self.opened:
            store.close()


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave what no `core` test shows on a slow server to make test-stress, and skip an absent server but once."""
    for one in _on(items, SLOW):
        if one.get_closest_marker("core") is None:
            one.add_marker(pytest.mark.stress)
    if not os.environ.get(QDRANT_URL):
        left_out = _on(items, ("qdrant-server",))[1:]
        items[:] = [one for one in items if one not in set(left_out)]
        config.hook.pytest_deselected(items=left_out)


def _on(items: list[pytest.Item], kinds: Sequence[str]) -> list[pytest.Function]:
    functions = [one for one in items if isinstance(one, pytest.Function) and hasattr(one, "callspec")]
    return [one for one in functions if one.callspec.params.get("open_") in kinds]


@pytest.fixture
def quick_path(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where there is one: a shard is made in 20 ms there, in half a second on a disk."""
    memory = Path("/dev/shm")
    if not (memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 2 * 2**30):
        yield tmp_path
        return
    with TemporaryDirectory(prefix="c2llm-test-", dir=memory) as folder:
        yield Path(folder)


# Databases without a server and their URLs in a folder; a new one is a line here.
LOCAL = {"toy": "toy://{}", "edge": "qdrant+edge://{}/store", "milvus-lite": "milvus+lite://{}/store.db"}
# What a quick run leaves out.
ALSO = dict.fromkeys(("memory", "milvus-lite"), pytest.mark.slow)
ALSO |= dict.fromkeys(("http", "qdrant-server", "milvus-grpc"), pytest.mark.server)
ALSO |= {"milvus-server": ON_MILVUS}


@pytest.fixture(params=[pytest.param(name, marks=ALSO.get(name, ())) for name in dict.fromkeys([*LOCAL, *ALSO])])
def open_(request: pytest.FixtureRequest, quick_path: Path) -> Iterator[Database]:
    """Open a collection of one database after another."""
    kind = request.param
    with ExitStack() as cleanup:
        # All that a new database takes: a file, this line of the registry, and one of `LOCAL`.
        cleanup.enter_context(patch.dict(DATABASES, toy=stores.Database("tests.stores.toy_store:ToyStore", "NAME")))
        if kind in LOCAL:
            database = Database(kind, LOCAL[kind].format(quick_path))
        elif kind == "memory":
            database = Database(kind, "qdrant+memory://", QdrantClient(":memory:"))
        elif kind == "http":
            database = Database(kind, f"qdrant+{cleanup.enter_context(serve(quick_path / 'store'))}")
        elif kind == "qdrant-server":
            database = _real_qdrant()
            cleanup.callback(_empty_qdrant, database)
        else:
            address = request.getfixturevalue("milvus_lite_address" if kind == "milvus-grpc" else "milvus_address")
            cleanup.callback(empty_milvus, address)
            database = Database(kind, f"milvus+{address}")
        cleanup.callback(database.close)
        yield database


def _real_qdrant() -> Database:
    address = os.environ.get(QDRANT_URL)
    if not address:
        pytest.skip(f"{QDRANT_URL} names no Qdrant server, such as http://localhost:6333")
    return Database("qdrant-server", f"qdrant+{address}", prefix=f"c2llm-test-{uuid.uuid4().hex[:8]}-")


def _empty_qdrant(database: Database) -> None:
    address, key = database.url.removeprefix("qdrant+"), os.environ.get("QDRANT_API_KEY")
    client = QdrantClient(url=address, api_key=key, check_compatibility=False)
    for one in client.get_collections().collections:
        if one.name.startswith(database.prefix):
            client.delete_collection(one.name)
    client.close()


@pytest.fixture
def store(open_: Database, spec: CollectionSpec) -> VectorStore:
    """An empty collection of the database that `open_` opens."""
    opened = open_()
    opened.create(spec)
    return opened


@pytest.fixture
def lexical(open_: Database, spec: CollectionSpec) -> VectorStore:
    """The same with lexical search, where the database has it."""
    opened = open_()
    if not opened.capabilities.lexical:
        pytest.skip(f"{open_.kind} has no lexical search")
    opened.create(replace(spec, analyzer=ANALYZER))
    return opened


def empty_milvus(address: str) -> None:
    """Drop every collection of a test server."""
    client = MilvusClient(address, **CONNECTION)
    for name in client.list_collections():
        for alias in client.list_aliases(name)["aliases"]:
            client.drop_alias(alias)
        client.drop_collection(name)
    client.close()


def lists(levels: int) -> object:
    """So many lists in one another."""
    value: object = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.fixture
def spec() -> CollectionSpec:
    return CollectionSpec(WIDTH, {"model": "somewhere/nano", "weights": "abc", "normalize": True, "projection": None})


@pytest.fixture
def make_row() -> Callable[..., Row]:
    """Return a row whose id and vector follow from its path, text and ordinal."""

    def make(path: str = "src/a.py", text: str = "x = 1\n", ordinal: int = 0, **fields: object) -> Row:
        repository = str(fields.get("repository", "repo"))
        known: dict[str, object] = {
            "language": "python",
            "symbol": f"f{ordinal}",
            "kind": "function",
            "start_line": 1 + ordinal,
            "end_line": 2 + ordinal,
        }
        row_id = chunk_id(repository, path, text, ordinal)
        vector = np.random.default_rng(int(row_id[:8], 16)).standard_normal(WIDTH).astype(np.float32)
        chunk = CodeChunk(id=row_id, path=path, text=text, **{**known, "repository": repository, **fields})  # type: ignore[arg-type]
        return Row(chunk, vector)

    return make


@pytest.fixture
def make_rows(make_row: Callable[..., Row]) -> Callable[..., list[Row]]:
    """Return `n` rows, ten to a file."""

    def make(n: int, **fields: object) -> list[Row]:
        return [make_row(f"src/file{i // 10}.py", f"def f{i}():\n    return {i}\n", i, **fields) for i in range(n)]

    return make
