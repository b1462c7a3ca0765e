"""What the tests of both frameworks put rows into: the stores of this machine by name, and databases filled by us."""

from contextlib import contextmanager
from datetime import date, datetime
from uuid import UUID

import numpy as np
from qdrant_client import QdrantClient

from c2llm_integrations import ingest
from c2llm_integrations.stores import open_store
from c2llm_integrations.stores.qdrant.store import QdrantStore
from tests.conftest import write_project

STORES = ["edge", "memory", "lite"]
# Metadata as people have it, and what is stored of it.
OBJECTS = {
    "day": date(2026, 1, 31),
    "at": datetime(2026, 1, 31, 12),
    "key": UUID(int=5),
    "votes": np.int64(3),
    "share": np.float32(0.5),
}
OBJECTS_AS_JSON = {
    "day": "2026-01-31",
    "at": "2026-01-31T12:00:00",
    "key": "00000000-0000-0000-0000-000000000005",
    "votes": 3,
    "share": 0.5,
}


def url_of(name, folder):
    return {
        "edge": f"qdrant+edge://{folder / 'edge'}",
        "memory": "qdrant+memory://",
        "lite": f"milvus+lite://{folder / 'lite.db'}",
    }[name]


@contextmanager
def filled_qdrant(project, embedder):
    """Yield an in-memory Qdrant that our ingest has filled."""
    client = QdrantClient(":memory:")
    ingest(project, embedder, QdrantStore.from_client(client), repository="shop")
    yield client
    client.close()


@contextmanager
def filled_milvus(folder, embedder, address=None):
    """Yield what pymilvus calls a database that our ingest has filled: the server's at an address, else Milvus Lite."""
    write_project(folder / "shop")
    name = address or str(folder / "rows.db")
    url = f"milvus+{name}" if address else f"milvus+lite://{name}"
    with open_store(url) as store:
        ingest(folder / "shop", embedder, store, repository="shop")
    yield name
    if address:
        with open_store(url) as store:
            store.drop()
