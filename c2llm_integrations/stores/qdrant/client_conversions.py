"""Collections and rows as qdrant-client's types; `edge_conversions`: as Qdrant Edge's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from c2llm_integrations.errors import MissingExtra
from c2llm_integrations.stores.backend import Gone, Terms
from c2llm_integrations.stores.qdrant.payload import (
    BINARY,
    LEXICAL,
    METADATA_FIELD,
    TURBO,
    Types,
    changes_of,
    payload_of,
    vectors_of,
)
from c2llm_integrations.stores.records import AnyRecord
from c2llm_integrations.stores.spec import CollectionSpec

try:
    from qdrant_client import AsyncQdrantClient, QdrantClient, models
except ImportError as error:
    raise MissingExtra("qdrant-client", "qdrant") from error

__all__ = ["AsyncQdrantClient", "QdrantClient", "models"]  # whoever imports them from here is told of the extra

# Decimals of a vector's numbers as they are sent: a unit vector loses less than float32 does, and JSON a third.
DECIMALS = 9
# What a spec's `index` may say: how the graph is built, and how a cluster keeps the collection.
GRAPH = frozenset({"m", "ef_construct"})
SPREAD = frozenset({"shard_number", "replication_factor", "write_consistency_factor"})

Vectors = NDArray[np.floating[Any]]  # rounded ones are float64


def _request(vector: Any, using: str, limit: int, rows: Any, params: Any = None, with_payload: bool = False) -> Any:
    return models.QueryRequest(
        query=vector, using=using or None, limit=limit, filter=rows, params=params, with_payload=with_payload
    )


TYPES = Types(
    models,
    models.Range,
    models.DatetimeRange,
    bool,
    _request,
    lambda ids: models.HasIdCondition(has_id=list(ids)),
)


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


def points_of(
    records: Sequence[AnyRecord], vectors: Vectors, terms: Terms, *, as_arrays: bool = False
) -> list[models.PointStruct]:
    """Return rows as points; `vectors`: (len(records), width); `as_arrays`: see `vectors_of`."""
    # Their parts are of the right types; checking them again would take half as long as storing them in memory.
    return [
        models.PointStruct.model_construct(id=record.row_id, vector=vector, payload=payload_of(record))
        for record, vector in zip(records, vectors_of(models, vectors, terms, as_arrays=as_arrays), strict=True)
    ]


def updates_of(records: Sequence[AnyRecord], vectors: Vectors | None, terms: Terms, gone: Gone) -> list[Any]:
    """Return the operations of `changes_of`."""
    operations: list[Any] = []
    for one in changes_of(models, records, vectors, terms, gone):
        points: list[Any] = [one.id]
        if one.vector is not None:
            moved = models.UpdateVectors(points=[models.PointVectors(id=one.id, vector=one.vector)])
            operations.append(models.UpdateVectorsOperation(update_vectors=moved))
        if one.gone:
            removed = models.DeletePayload(keys=one.gone, points=points)
            operations.append(models.DeletePayloadOperation(delete_payload=removed))
        for fields, key in ((one.metadata, METADATA_FIELD), (one.payload, None)):
            change = models.SetPayload(payload=fields, points=points, key=key)
            operations.append(models.SetPayloadOperation(set_payload=change))
    return operations
