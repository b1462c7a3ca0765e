"""Rows as other libraries write them, past our stores; a new store registers how that is done in it."""

from __future__ import annotations

from functools import singledispatch
from typing import Any

import qdrant_edge as edge
from qdrant_client import models

from c2llm_integrations.code.lexical_terms import query_terms, sparse
from c2llm_integrations.stores.ids import RecordId
from c2llm_integrations.stores.milvus.store import MilvusStore
from c2llm_integrations.stores.qdrant.edge import QdrantEdgeStore
from c2llm_integrations.stores.qdrant.payload import LEXICAL, METADATA_FIELD
from c2llm_integrations.stores.qdrant.store import QdrantStore
from c2llm_integrations.stores.records import Vector
from c2llm_integrations.stores.vector_store import VectorStore


@singledispatch
def write_foreign(store: Any, id: str, vector: Vector, text: str, metadata: dict[str, Any]) -> None:
    """Write a row into a store's collection as LangChain's own store for that database does."""
    store.write_foreign(id, vector, text, metadata)


@write_foreign.register
def _(store: QdrantEdgeStore, id: str, vector: Vector, text: str, metadata: dict[str, Any]) -> None:
    payload = {"page_content": text, "metadata": metadata}
    store.client.update(edge.UpdateOperation.upsert_points([edge.Point(id, vector.tolist(), payload)]))


@write_foreign.register
def _(store: QdrantStore, id: str, vector: Vector, text: str, metadata: dict[str, Any]) -> None:
    payload = {"page_content": text, "metadata": metadata}
    store.client.upsert(store.collection, [models.PointStruct(id=id, vector=vector.tolist(), payload=payload)])


@write_foreign.register
def _(store: MilvusStore, id: str, vector: Vector, text: str, metadata: dict[str, Any]) -> None:
    row = {"id": id, "vector": vector.tolist(), "page_content": text, **metadata}
    store.client.insert(store.collection, [row])


@singledispatch
def add_fields(store: Any, id: RecordId, fields: dict[str, Any]) -> None:
    """Add fields to the metadata of a row, past our stores, as another program does."""
    store.add_fields(id, fields)


@add_fields.register
def _(store: QdrantEdgeStore, id: RecordId, fields: dict[str, Any]) -> None:
    store.client.update(edge.UpdateOperation.set_payload([id], fields, METADATA_FIELD))


@add_fields.register
def _(store: QdrantStore, id: RecordId, fields: dict[str, Any]) -> None:
    operation = models.SetPayload(payload=fields, points=[id], key=METADATA_FIELD)
    store.client.batch_update_points(store.collection, [models.SetPayloadOperation(set_payload=operation)])


@add_fields.register
def _(store: MilvusStore, id: RecordId, fields: dict[str, Any]) -> None:
    store.count()
    [row] = store.client.query(store._physical, ids=[str(id)], output_fields=["*"], consistency_level="Strong")
    row = {name: value for name, value in row.items() if name != "lexical"}
    store.client.upsert(store._physical, [{**row, **fields}])


def write_words(store: VectorStore, id: str, text: str, dense: dict[str, Any] | None = None) -> None:
    """Write a row that has the sparse vector of a text, and the `dense` one that is given, if any."""
    [(indices, values)] = sparse([query_terms(text)])
    if isinstance(store, QdrantEdgeStore):
        vectors = {LEXICAL: edge.SparseVector(indices, values), **(dense or {})}
        point = edge.Point(id, vectors, {"page_content": text})
        store.client.update(edge.UpdateOperation.upsert_points([point]))
    else:
        assert isinstance(store, QdrantStore)
        vector = {LEXICAL: models.SparseVector(indices=indices, values=values), **(dense or {})}
        store.client.upsert(
            store.collection, [models.PointStruct(id=id, vector=vector, payload={"page_content": text})]
        )
