"""Rows as other libraries write them, past our stores."""

from __future__ import annotations

from typing import Any

import qdrant_edge as edge
from qdrant_client import models

from c2llm_integrations.stores.base import Vector, VectorStore
from c2llm_integrations.stores.milvus import MilvusStore
from c2llm_integrations.stores.qdrant import QdrantStore
from c2llm_integrations.stores.qdrant_edge import QdrantEdgeStore


def write_foreign(store: VectorStore, id: str, vector: Vector, text: str, metadata: dict[str, Any]) -> None:
    """Write a row into a store's collection as LangChain's own store for that database does."""
    payload = {"page_content": text, "metadata": metadata}
    if isinstance(store, QdrantEdgeStore):
        store._shard.update(edge.UpdateOperation.upsert_points([edge.Point(id, vector.tolist(), payload)]))
    elif isinstance(store, QdrantStore):
        point = models.PointStruct(id=id, vector=vector.tolist(), payload=payload)
        store._client.upsert(store.collection, [point])
    else:
        assert isinstance(store, MilvusStore)
        row = {"id": id, "vector": vector.tolist(), "page_content": text, **metadata}
        store._client.insert(store.collection, [row])
