"""Collections and rows as Qdrant Edge's types; `client`: as qdrant-client's."""

from __future__ import annotations

import math
from typing import Any

from c2llm_integrations.errors import StoreError
from c2llm_integrations.stores.qdrant.payload import BINARY, LEXICAL, TURBO, Types, indexed
from c2llm_integrations.stores.spec import CollectionSpec, CompactPlan

try:
    import qdrant_edge as edge
except ImportError as error:
    raise StoreError(
        "qdrant-edge-py is not installed; run: pip install qdrant-edge-py (no wheel for this platform? "
        'pip install "c2llm-integrations[qdrant]" and use a Qdrant server)'
    ) from error

__all__ = ["edge"]  # whoever imports it from here is told how to install it

# Exact search of less is a matter of milliseconds, and building a graph one of minutes.
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
# Links of a row in the graph and candidates while it is built, unless a spec's `index` says otherwise: the engine's own
# defaults, like the kilobytes of filtered rows from which the graph is walked.
GRAPH = {"m": 16, "ef_construct": 100}
QUANTIZATIONS = ("int8", *TURBO, "product", *BINARY)


def _request(vector: Any, using: str, limit: int, rows: Any, params: Any = None, with_payload: bool = False) -> Any:
    query = edge.Query.Nearest(vector, using=using or None)
    return edge.QueryRequest(query=query, limit=limit, filter=rows, params=params, with_payload=with_payload)


class _EngineBool:
    """A boolean for the engine, which takes Python's own for integers, and those of NumPy 2.2 and older too."""

    def __init__(self, value: bool) -> None:
        self._value = value

    def __bool__(self) -> bool:
        return self._value


# The engine's bindings (PyO3) know NumPy's booleans by these; this one has no `__index__`, which they try first.
_EngineBool.__module__, _EngineBool.__name__ = "numpy", "bool_"

TYPES = Types(
    client=edge,
    Range=edge.RangeFloat,
    Period=edge.RangeDateTime,
    boolean=_EngineBool,
    request=_request,
    has_ids=lambda ids: edge.HasIdCondition(set(ids)),
    point=edge.Point,
    move=lambda pairs: edge.UpdateOperation.update_vectors([edge.PointVectors(*pair) for pair in pairs]),
    remove=lambda id, keys: edge.UpdateOperation.delete_payload([id], keys),
    put=lambda id, fields, key: edge.UpdateOperation.set_payload([id], fields, key),
)


def config_of(spec: CollectionSpec, *, graph: bool) -> edge.EdgeConfig:
    """Return how a shard is kept; with a graph, `optimize` builds what is missing of it.

    Payload stays on disk and vectors in mapped files, so resident memory is what the system can spare; where there
    are codes, those alone are kept in memory.
    """
    quantization = _quantization(spec.quantization)
    links = {**GRAPH, **spec.index}
    vectors = edge.EdgeVectorParams(
        size=spec.width,
        distance=edge.Distance.Cosine,
        datatype=getattr(edge.VectorStorageDatatype, spec.datatype.capitalize()),
        quantization_config=quantization,
        hnsw_config=edge.HnswIndexConfig(
            m=links["m"] if graph else 0, ef_construct=links["ef_construct"], full_scan_threshold=10_000
        ),
        memory=edge.Memory.Cached if quantization is None else edge.Memory.Cold,
    )
    lexical = edge.EdgeSparseVectorParams(modifier=edge.Modifier.Idf, memory=edge.Memory.Cached)
    row = CompactPlan(spec.width, spec.datatype).bytes_per_vector
    largest = row if spec.analyzer is None else max(row, TERMS_BYTES)
    rewritten = CODED_ROWS if spec.quantization else LEXICAL_ROWS if spec.analyzer else GRAPH_BYTES / row
    optimizers = edge.EdgeOptimizersConfig(
        default_segment_number=SEGMENTS,
        indexing_threshold=math.ceil(rewritten * largest / 1024),
        max_segment_size=math.ceil(SEGMENT_ROWS * largest / 1024),
    )
    return edge.EdgeConfig(
        vectors=vectors,
        sparse_vectors=None if spec.analyzer is None else {LEXICAL: lexical},
        payload_memory=edge.Memory.Cold,
        optimizers=optimizers,
    )


def needs_graph(spec: CollectionSpec, rows: int) -> bool:
    """Return whether so many rows are too many to compare each of them with a query."""
    return rows * (spec.plan.code_bytes or spec.plan.bytes_per_vector) > GRAPH_BYTES


def _quantization(name: str | None) -> Any:
    pinned = edge.Memory.Pinned
    if name is None:
        return None
    if name == "int8":
        return edge.ScalarQuantizationConfig(edge.ScalarType.Int8, memory=pinned)
    if name in TURBO:
        bits = getattr(edge.TurboQuantBitSize, TURBO[name].capitalize())
        return edge.TurboQuantQuantizationConfig(bits=bits, memory=pinned)
    if name == "product":
        return edge.ProductQuantizationConfig(edge.CompressionRatio.X16, memory=pinned)
    encoding = getattr(edge.BinaryQuantizationEncoding, BINARY[name].title().replace("_", ""))
    asked = edge.BinaryQuantizationQueryEncoding.Scalar8Bits
    return edge.BinaryQuantizationConfig(encoding=encoding, query_encoding=asked, memory=pinned)


def field_indexes(spec: CollectionSpec) -> list[edge.UpdateOperation]:
    """Return what indexes the fields that are asked for most, and those that the spec names."""
    cold = edge.Memory.Cold
    made: dict[str, Any] = {
        "keyword": edge.KeywordIndexParams(memory=cold),
        "tenant": edge.KeywordIndexParams(is_tenant=True, memory=cold),
        "integer": edge.IntegerIndexParams(memory=cold),
        "float": edge.FloatIndexParams(memory=cold),
        "boolean": edge.BoolIndexParams(memory=cold),
        "datetime": edge.DatetimeIndexParams(memory=cold),
    }
    return [edge.UpdateOperation.create_field_index(key, made[kind]) for key, kind in indexed(spec).items()]
