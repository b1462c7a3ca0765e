"""A collection, its rows, filters and searches in Qdrant Edge's own types."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from c2llm_integrations.code.chunk import CodeChunk
from c2llm_integrations.code.terms import sparse, sparse_query
from c2llm_integrations.compression import CompactPlan
from c2llm_integrations.errors import StoreError
from c2llm_integrations.stores.rows import DENSE, FILTER_FIELDS, LEXICAL, Filter, Vector, key_of, payload_of
from c2llm_integrations.stores.spec import CollectionSpec

try:
    import qdrant_edge as edge
except ImportError as error:
    raise StoreError(
        "qdrant-edge-py is not installed; run: pip install qdrant-edge-py (no wheel for this platform? "
        'pip install "c2llm-integrations[qdrant]" and use a Qdrant server)'
    ) from error

__all__ = [
    "DATATYPES",
    "QUANTIZATIONS",
    "config_of",
    "edge",
    "field_indexes",
    "needs_graph",
    "ours",
    "points_of",
    "queries_of",
]

# Exact search takes 5 ms on 100 MB (100,000 float32 vectors of 256, or 400,000 int8 codes; two cores), where building
# a graph takes 35 s. So a graph is made only where more than this is searched.
GRAPH_BYTES = 256 * 2**20
# `optimize` rewrites segments with more rows than these. Codes are made by rewriting alone, so hardly anything stays as
# it was written. The terms of a segment that is written to are in memory, and read whole at each opening (2 s for
# 100,000 rows where 0.2 s do), so these are kept small. A plain segment would gain only a graph.
CODED_ROWS, LEXICAL_ROWS = 1_000, 40_000
# More segments than these are joined, two at a time, into ones of at most so many rows: joining takes 3 to 8 KB of
# memory a row.
SEGMENTS, SEGMENT_ROWS = 8, 100_000
# What the engine takes for a row's size: its vector or its terms, whichever is more. Code has 35 to 70 terms a chunk.
TERMS_BYTES = 500
# The engine's own defaults: links of a row in the graph, and from how many kilobytes filtered rows it is walked.
GRAPH_LINKS = 16
DATATYPES = {"float32": edge.VectorStorageDatatype.Float32, "float16": edge.VectorStorageDatatype.Float16}
QUANTIZATIONS = ("int8", "turbo", "product", "binary")


def config_of(spec: CollectionSpec, *, graph: bool) -> edge.EdgeConfig:
    """Return how a shard is kept; with a graph, `optimize` builds what is missing of it.

    Payload stays on disk and vectors in mapped files, so resident memory is what the system can spare; where there
    are codes, those alone are kept in memory.
    """
    quantization = _quantization(spec.quantization)
    vectors = edge.EdgeVectorParams(
        size=spec.width,
        distance=edge.Distance.Cosine,
        datatype=DATATYPES[spec.datatype],
        quantization_config=quantization,
        hnsw_config=edge.HnswIndexConfig(m=GRAPH_LINKS if graph else 0, ef_construct=100, full_scan_threshold=10_000),
        memory=edge.Memory.Cached if quantization is None else edge.Memory.Cold,
    )
    lexical = edge.EdgeSparseVectorParams(modifier=edge.Modifier.Idf, memory=edge.Memory.Cached)
    row = CompactPlan(spec.width, spec.datatype).bytes_per_vector
    largest = row if spec.analyser is None else max(row, TERMS_BYTES)
    rewritten = CODED_ROWS if spec.quantization else LEXICAL_ROWS if spec.analyser else GRAPH_BYTES / row
    optimizers = edge.EdgeOptimizersConfig(
        default_segment_number=SEGMENTS,
        indexing_threshold=math.ceil(rewritten * largest / 1024),
        max_segment_size=math.ceil(SEGMENT_ROWS * largest / 1024),
    )
    return edge.EdgeConfig(
        vectors=vectors,
        sparse_vectors=None if spec.analyser is None else {LEXICAL: lexical},
        payload_memory=edge.Memory.Cold,
        optimizers=optimizers,
    )


def needs_graph(spec: CollectionSpec, rows: int) -> bool:
    """Say whether so many rows are too many to compare each of them with a query."""
    plan = CompactPlan(spec.width, spec.datatype, spec.quantization)
    return rows * (plan.code_bytes or plan.bytes_per_vector) > GRAPH_BYTES


def _quantization(name: str | None) -> Any:
    pinned = edge.Memory.Pinned
    if name is None:
        return None
    if name == "int8":
        return edge.ScalarQuantizationConfig(edge.ScalarType.Int8, memory=pinned)
    if name == "turbo":
        return edge.TurboQuantQuantizationConfig(bits=edge.TurboQuantBitSize.Bits4, memory=pinned)
    if name == "product":
        return edge.ProductQuantizationConfig(edge.CompressionRatio.X16, memory=pinned)
    return edge.BinaryQuantizationConfig(
        encoding=edge.BinaryQuantizationEncoding.OneBit,
        query_encoding=edge.BinaryQuantizationQueryEncoding.Scalar8Bits,
        memory=pinned,
    )


def field_indexes() -> list[edge.UpdateOperation]:
    """Return what indexes the fields a filter can name, the repository as the one that parts the rows."""
    return [
        edge.UpdateOperation.create_field_index(
            key_of(name), edge.KeywordIndexParams(is_tenant=name == "repository", memory=edge.Memory.Cold)
        )
        for name in FILTER_FIELDS
    ]


def points_of(chunks: Sequence[CodeChunk], vectors: Vector, terms: Sequence[Sequence[str]] | None) -> list[edge.Point]:
    """Return rows as points; `vectors`: (len(chunks), width)."""
    dense = (vector.tolist() for vector in vectors)  # one at a time stays in the cache: half the time of all at once
    if terms is None:
        return [edge.Point(chunk.id, one, payload_of(chunk)) for chunk, one in zip(chunks, dense, strict=True)]
    return [
        edge.Point(chunk.id, {DENSE: one, LEXICAL: edge.SparseVector(*weighted)}, payload_of(chunk))
        for chunk, one, weighted in zip(chunks, dense, sparse(terms), strict=True)
    ]


def queries_of(
    spec: CollectionSpec, vector: Vector | None, terms: Sequence[str], limit: int, where: Filter
) -> list[edge.QueryRequest]:
    """Return the searches of one question: by its vector if it has one, by its terms if it has any."""
    asked: list[tuple[Any, edge.SearchParams | None]] = []
    if vector is not None:
        asked.append((edge.Query.Nearest(vector.tolist()), _params(spec)))
    if terms:
        asked.append((edge.Query.Nearest(edge.SparseVector(*sparse_query(terms)), using=LEXICAL), None))
    rows = edge.Filter(must=_conditions(where))
    return [
        edge.QueryRequest(query=query, limit=limit, filter=rows, params=params, with_payload=True)
        for query, params in asked
    ]


def _params(spec: CollectionSpec) -> edge.SearchParams | None:
    if spec.quantization is None:
        return None
    rescore = edge.QuantizationSearchParams(rescore=spec.rescore > 0, oversampling=spec.rescore or None)
    return edge.SearchParams(quantization=rescore)


def ours(repository: str | None) -> edge.Filter:
    """Return what only rows of this package (and of one repository) match."""
    must_not: list[Any] = [edge.IsEmptyCondition(key_of(name)) for name in ("repository", "path")]
    return edge.Filter(must=_conditions(Filter.of(repository)), must_not=must_not)


def _conditions(where: Filter) -> list[Any]:
    return [
        edge.FieldCondition(key_of(name), match=edge.MatchAny(values)) for name, values in where.conditions().items()
    ]
