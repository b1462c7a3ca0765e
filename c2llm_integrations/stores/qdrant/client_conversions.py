"""Collections, rows, filters and searches as qdrant-client's types; `edge_conversions`: as Qdrant Edge's."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from c2llm_integrations.code.lexical_terms import sparse, sparse_query
from c2llm_integrations.errors import MissingExtra
from c2llm_integrations.stores.backend import Gone, Terms
from c2llm_integrations.stores.filter import Filter
from c2llm_integrations.stores.ids import RecordId
from c2llm_integrations.stores.qdrant.payload import (
    BINARY,
    DENSE,
    LEXICAL,
    METADATA_FIELD,
    TURBO,
    Types,
    filter_of,
    payload_of,
    quoted,
    search_params,
)
from c2llm_integrations.stores.records import AnyRecord, Vector
from c2llm_integrations.stores.spec import CollectionSpec

try:
    from qdrant_client import AsyncQdrantClient, QdrantClient, models
except ImportError as error:
    raise MissingExtra("qdrant-client", "qdrant") from error

__all__ = ["AsyncQdrantClient", "QdrantClient", "models"]  # whoever imports them from here is told of the extra

# Decimals of a vector's numbers as they are sent: a unit vector loses less than float32 does, and JSON a third.
DECIMALS = 9
# What they take as JSON at most, and what a term's hash and weight take.
NUMBER_BYTES, TERM_BYTES = 13, 32
# Requests are cut to about this size. A server refuses bodies over 32 MiB, and time-outs come long before.
REQUEST_BYTES = 4 * 2**20
# What a spec's `index` may say: how the graph is built, and how a cluster keeps the collection.
GRAPH = frozenset({"m", "ef_construct"})
SPREAD = frozenset({"shard_number", "replication_factor", "write_consistency_factor"})

Vectors = NDArray[np.floating[Any]]  # rounded ones are float64
# What filters are made of.
TYPES = Types(models, models.Range, models.DatetimeRange, bool)


def creation(spec: CollectionSpec) -> dict[str, Any]:
    """Return how a collection is made, as `create_collection` takes it; full vectors with codes lie on disk."""
    spread = {name: number for name, number in spec.index.items() if name in SPREAD}
    graph = models.HnswConfigDiff(m=spec.index.get("m"), ef_construct=spec.index.get("ef_construct"))
    vectors = models.VectorParams(
        size=spec.width,
        distance=models.Distance.COSINE,
        datatype=None if spec.datatype == "float32" else models.Datatype(spec.datatype),
        quantization_config=_quantization(spec.quantization),
        on_disk=None if spec.quantization is None else True,
        hnsw_config=graph if spec.index.keys() & GRAPH else None,
    )
    made: dict[str, Any] = {"vectors_config": vectors, **spread}
    if spec.analyzer is not None:
        made["sparse_vectors_config"] = {LEXICAL: models.SparseVectorParams(modifier=models.Modifier.IDF)}
    return made


def _quantization(name: str | None) -> Any:
    # `always_ram` is what every server since 1.16 knows; the newer `memory` it does not.
    if name == "int8":
        return models.ScalarQuantization(
            scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8, always_ram=True)
        )
    if name in TURBO:
        bits = models.TurboQuantBitSize(TURBO[name])
        return models.TurboQuantization(turbo=models.TurboQuantQuantizationConfig(bits=bits, always_ram=True))
    if name == "product":
        ratio = models.CompressionRatio.X16
        return models.ProductQuantization(product=models.ProductQuantizationConfig(compression=ratio, always_ram=True))
    if name in BINARY:
        # Compared with 8-bit queries, codes of one bit find far more than with queries of one bit.
        return models.BinaryQuantization(
            binary=models.BinaryQuantizationConfig(
                encoding=models.BinaryQuantizationEncoding(BINARY[name]),
                query_encoding=models.BinaryQuantizationQueryEncoding.SCALAR8BITS,
                always_ram=True,
            )
        )
    return None


def field_index(kind: str) -> Any:
    """Return how a field of the payload is indexed (`spec.FIELD_KINDS`)."""
    if kind in ("keyword", "tenant"):
        tenant = True if kind == "tenant" else None
        return models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, is_tenant=tenant)
    return models.PayloadSchemaType({"boolean": "bool"}.get(kind, kind))


def points_of(records: Sequence[AnyRecord], vectors: Vectors, terms: Terms) -> list[models.PointStruct]:
    """Return rows as points; `vectors`: (len(records), width)."""
    # Their parts are of the right types; checking them again would take half as long as storing them in memory.
    return [
        models.PointStruct.model_construct(id=record.row_id, vector=vector, payload=payload_of(record))
        for record, vector in zip(records, vectors_of(vectors, terms), strict=True)
    ]


def vectors_of(vectors: Vectors | None, terms: Terms) -> list[Any]:
    """Return the vectors of each row as points take them: dense, lexical or both."""
    dense = None if vectors is None else [numbers.tolist() for numbers in vectors]
    if terms is None:
        return dense or []
    lexical = [models.SparseVector(indices=indices, values=values) for indices, values in sparse(terms)]
    if dense is None:
        return [{LEXICAL: words} for words in lexical]
    return [{DENSE: numbers, LEXICAL: words} for numbers, words in zip(dense, lexical, strict=True)]


def updates_of(records: Sequence[AnyRecord], vectors: Vectors | None, terms: Terms, gone: Gone) -> list[Any]:
    """Return what overwrites our fields of existing rows and leaves those of others; see `VectorStore._update`."""
    operations: list[Any] = []
    changed = vectors_of(vectors, terms) or [None] * len(records)
    for record, vector, names in zip(records, changed, gone, strict=True):
        payload = payload_of(record)
        points: list[Any] = [record.row_id]
        metadata = payload.pop(METADATA_FIELD)
        if vector is not None:
            moved = models.UpdateVectors(points=[models.PointVectors(id=record.row_id, vector=vector)])
            operations.append(models.UpdateVectorsOperation(update_vectors=moved))
        if names:
            keys = [f"{METADATA_FIELD}.{quoted(name)}" for name in names]
            operations.append(
                models.DeletePayloadOperation(delete_payload=models.DeletePayload(keys=keys, points=points))
            )
        # The digest goes last, with the text: whatever a kill leaves out, it does not claim to be there.
        for fields, key in ((metadata, METADATA_FIELD), (payload, None)):
            change = models.SetPayload(payload=fields, points=points, key=key)
            operations.append(models.SetPayloadOperation(set_payload=change))
    return operations


def json_bytes(point: models.PointStruct) -> int:
    """Return an upper estimate of what a point takes in a request."""
    return len(json.dumps(point.payload)) + _vector_bytes(point.vector)


def _vector_bytes(vector: Any) -> int:
    if isinstance(vector, dict):
        numbers, terms = vector.get(DENSE, ()), vector.get(LEXICAL)
        return 128 + NUMBER_BYTES * len(numbers) + (TERM_BYTES * len(terms.indices) if terms else 0)
    return 128 + NUMBER_BYTES * len(vector)


def operation_bytes(operation: Any) -> int:
    """Return an upper estimate of what a change of one row takes in a request."""
    if isinstance(operation, models.UpdateVectorsOperation):
        return _vector_bytes(operation.update_vectors.points[0].vector)
    if isinstance(operation, models.SetPayloadOperation):
        return len(json.dumps(operation.set_payload.payload)) + 128
    return len(str(operation.delete_payload.keys)) + 128


def queries_of(
    spec: CollectionSpec, vector: Vector | None, terms: Sequence[str], limit: int, where: Filter
) -> list[models.QueryRequest]:
    """Return the searches of one question: by its vector if it has one, by its terms if it has any."""
    common: dict[str, Any] = {"limit": limit, "filter": filter_of(TYPES, where), "with_payload": True}
    requests: list[models.QueryRequest] = []
    if vector is not None:
        requests.append(models.QueryRequest(query=vector.tolist(), params=search_params(models, spec), **common))
    if terms:
        requests.append(models.QueryRequest(query=lexical_query(terms), using=LEXICAL, **common))
    return requests


def lexical_scores_of(terms: Sequence[str], ids: Sequence[RecordId]) -> models.QueryRequest:
    """Return the search for the lexical scores of these rows alone."""
    rows = models.Filter(must=[models.HasIdCondition(has_id=list(ids))])
    return models.QueryRequest(query=lexical_query(terms), using=LEXICAL, filter=rows, limit=len(ids))


def lexical_query(terms: Sequence[str]) -> models.SparseVector:
    """Return the terms of a question as Qdrant compares them with those of the rows."""
    indices, values = sparse_query(terms)
    return models.SparseVector(indices=indices, values=values)
