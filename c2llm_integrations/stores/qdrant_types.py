"""A collection, its rows, filters and searches in qdrant-client's own types."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from c2llm_integrations.code.chunk import CodeChunk
from c2llm_integrations.code.terms import sparse, sparse_query
from c2llm_integrations.errors import MissingExtra
from c2llm_integrations.stores.rows import DENSE, LEXICAL, Filter, Vector, key_of, payload_of
from c2llm_integrations.stores.spec import CollectionSpec

try:
    from qdrant_client import models
except ImportError as error:
    raise MissingExtra("qdrant-client", "qdrant") from error

# Decimals of a vector's numbers as they are sent: a unit vector loses less than float32 does, and JSON a third.
DECIMALS = 9
# What they take as JSON at most, and what a term's hash and weight take.
NUMBER_BYTES, TERM_BYTES = 13, 32
# Requests are cut to about this size. A server refuses bodies over 32 MiB, and time-outs come long before.
REQUEST_BYTES = 4 * 2**20


def creation(spec: CollectionSpec) -> dict[str, Any]:
    """Return how a collection is made, as `create_collection` takes it.

    Where there are codes, they alone are kept in memory and the full vectors lie on disk.
    """
    vectors = models.VectorParams(
        size=spec.width,
        distance=models.Distance.COSINE,
        datatype=None if spec.datatype == "float32" else models.Datatype(spec.datatype),
        quantization_config=_quantization(spec.quantization),
        on_disk=None if spec.quantization is None else True,
    )
    made: dict[str, Any] = {"vectors_config": vectors}
    if spec.analyser is not None:
        made["sparse_vectors_config"] = {LEXICAL: models.SparseVectorParams(modifier=models.Modifier.IDF)}
    return made


def _quantization(name: str | None) -> Any:
    # `always_ram` is what every server since 1.16 knows; the newer `memory` it does not.
    if name == "int8":
        return models.ScalarQuantization(
            scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8, always_ram=True)
        )
    if name == "turbo":
        bits = models.TurboQuantBitSize.BITS4
        return models.TurboQuantization(turbo=models.TurboQuantQuantizationConfig(bits=bits, always_ram=True))
    if name == "product":
        ratio = models.CompressionRatio.X16
        return models.ProductQuantization(product=models.ProductQuantizationConfig(compression=ratio, always_ram=True))
    if name == "binary":
        queries = models.BinaryQuantizationQueryEncoding.SCALAR8BITS
        return models.BinaryQuantization(
            binary=models.BinaryQuantizationConfig(query_encoding=queries, always_ram=True)
        )
    return None


def field_index(name: str) -> models.KeywordIndexParams:
    """Return how a field that a filter can name is indexed: the repository as the one that parts the rows."""
    tenant = True if name == "repository" else None
    return models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, is_tenant=tenant)


def points_of(
    chunks: Sequence[CodeChunk], vectors: NDArray[np.floating[Any]], terms: Sequence[Sequence[str]] | None
) -> list[models.PointStruct]:
    """Return rows as points; `vectors`: (len(chunks), width)."""
    points: list[models.PointStruct] = []
    weighted = None if terms is None else sparse(terms)
    for number, numbers in enumerate(vectors):
        dense = numbers.tolist()
        vector: Any = dense
        if weighted is not None:
            indices, values = weighted[number]
            vector = {DENSE: dense, LEXICAL: models.SparseVector(indices=indices, values=values)}
        chunk = chunks[number]
        # Its parts are of the right types; checking them again would take half as long as storing them in memory.
        points.append(models.PointStruct.model_construct(id=chunk.id, vector=vector, payload=payload_of(chunk)))
    return points


def json_bytes(point: models.PointStruct) -> int:
    """Return an upper estimate of what a point takes in a request."""
    vector: Any = point.vector
    size = len(json.dumps(point.payload)) + 128
    if isinstance(vector, dict):
        return size + NUMBER_BYTES * len(vector[DENSE]) + TERM_BYTES * len(vector[LEXICAL].indices)
    return size + NUMBER_BYTES * len(vector)


def queries_of(
    spec: CollectionSpec, vector: Vector | None, terms: Sequence[str], limit: int, where: Filter
) -> list[models.QueryRequest]:
    """Return the searches of one question: by its vector if it has one, by its terms if it has any."""
    conditions = _conditions(where)
    common: dict[str, Any] = {
        "limit": limit,
        "filter": models.Filter(must=conditions) if conditions else None,
        "with_payload": True,
    }
    requests: list[models.QueryRequest] = []
    if vector is not None:
        requests.append(models.QueryRequest(query=vector.tolist(), params=_params(spec), **common))
    if terms:
        indices, values = sparse_query(terms)
        query = models.SparseVector(indices=indices, values=values)
        requests.append(models.QueryRequest(query=query, using=LEXICAL, **common))
    return requests


def _params(spec: CollectionSpec) -> models.SearchParams | None:
    if spec.quantization is None:
        return None
    rescore = models.QuantizationSearchParams(rescore=spec.rescore > 0, oversampling=spec.rescore or None)
    return models.SearchParams(quantization=rescore)


def ours(repository: str | None) -> models.Filter:
    """Return what only rows of this package (and of one repository) match."""
    missing: list[Any] = [
        models.IsEmptyCondition(is_empty=models.PayloadField(key=key_of(name))) for name in ("repository", "path")
    ]
    return models.Filter(must=_conditions(Filter.of(repository)), must_not=missing)


def _conditions(where: Filter) -> list[Any]:
    return [
        models.FieldCondition(key=key_of(name), match=models.MatchAny(any=values))
        for name, values in where.conditions().items()
    ]


def dense_of(vector: Any) -> list[float]:
    """Return the dense vector of a record read with `with_vectors=[DENSE]`, however the client spells it."""
    found: list[float] = vector[DENSE] if isinstance(vector, dict) else vector
    return found
