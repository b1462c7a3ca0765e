"""qdrant-client: opened with bounded answers, our collections and rows as its types, and what its errors say.

`edge_conversions`: as Qdrant Edge's types.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Any

import httpx

from c2llm_integrations._utils.json_lines import has_too_many_values
from c2llm_integrations._utils.retry import seconds_of
from c2llm_integrations.errors import MissingExtra, StoreError
from c2llm_integrations.stores.ids import RecordId
from c2llm_integrations.stores.qdrant.payload import BINARY, LEXICAL, TURBO, Types, pages
from c2llm_integrations.stores.spec import CollectionSpec

try:
    from pydantic import ValidationError
    from qdrant_client import AsyncQdrantClient, QdrantClient, models
    from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
    from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse
except ImportError as error:
    raise MissingExtra("qdrant-client", "qdrant") from error

__all__ = ["AsyncQdrantClient", "QdrantClient", "models"]  # whoever imports them from here is told of the extra

# Decimals of a vector's numbers as they are sent: a unit vector loses less than float32 does, and JSON a third.
DECIMALS = 9
# What a spec's `index` may say: how the graph is built, and how a cluster keeps the collection.
GRAPH = frozenset({"m", "ef_construct"})
SPREAD = frozenset({"shard_number", "replication_factor", "write_consistency_factor"})
# Busy, restarting or too slow: worth another try. 408 is what Qdrant answers when its own time runs out.
TRANSIENT = {408, 429, 500, 502, 503, 504}
# The content of a write is wrong or too large.
REFUSED = {400, 413, 422}
# The same as gRPC's status names, for a client that prefers gRPC.
GRPC = {
    "RESOURCE_EXHAUSTED": 429,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
    "NOT_FOUND": 404,
    "INVALID_ARGUMENT": 400,
}
LONGEST_REASON = 300
# What an answer may take; a page of rows that takes more is read again in halves. Nested lists take 20 times as much
# memory as bytes, so commas and brackets are counted too, of which no fewer bytes can have more.
ANSWER_SECONDS, ANSWER_BYTES, ANSWER_VALUES = 300.0, 2**28, 2**24


_FEWER = "ask for fewer rows at once, or give a client of yours (from_client), which reads any"


class AnswerTooLarge(StoreError):
    """An answer is over `ANSWER_BYTES` or `ANSWER_VALUES`."""


def bounded_client(address: str, api_key: str | None, timeout_seconds: int) -> QdrantClient:
    """Return a client for the server at `address` that reads no answer without end."""
    hooks = {"request": [_ask_for_gzip], "response": [_read_bounded]}
    return QdrantClient(
        url=address, api_key=api_key, timeout=timeout_seconds, check_compatibility=False, event_hooks=hooks
    )


def _ask_for_gzip(request: httpx.Request) -> None:
    request.headers["Accept-Encoding"] = "gzip"  # whose 64 KiB never unpack to more than 64 MiB


def _read_bounded(response: httpx.Response) -> None:
    """Read an answer; qdrant-client itself would read on, and unpack, without end."""
    packing = response.headers.pop("Content-Encoding", "identity").strip().lower()
    if packing not in ("gzip", "identity"):
        raise StoreError(f"the answer is packed as {packing[:40]!r}, and was asked for as gzip")
    headers, content = {"Content-Encoding": packing}, bytearray()
    end = time.monotonic() + ANSWER_SECONDS
    with closing(httpx.Response(response.status_code, headers=headers, stream=response.stream)) as packed:
        for part in packed.iter_bytes():
            content += part
            if len(content) > ANSWER_BYTES:
                raise AnswerTooLarge(f"the answer has over {ANSWER_BYTES:,} bytes; {_FEWER}")
            if time.monotonic() > end:
                raise httpx.ReadTimeout(f"the answer did not end within {ANSWER_SECONDS:.0f} s")
    answer = bytes(content)
    if has_too_many_values(answer, ANSWER_VALUES):
        raise AnswerTooLarge(f"the answer has over {ANSWER_VALUES:,} commas and brackets; {_FEWER}")
    response.stream = httpx.ByteStream(answer)


def _request(vector: Any, using: str, limit: int, rows: Any, params: Any = None, with_payload: bool = False) -> Any:
    return models.QueryRequest(
        query=vector, using=using or None, limit=limit, filter=rows, params=params, with_payload=with_payload
    )


def _move(pairs: Sequence[tuple[RecordId, Any]]) -> Any:
    moved = models.UpdateVectors(points=[models.PointVectors(id=id, vector=vector) for id, vector in pairs])
    return models.UpdateVectorsOperation(update_vectors=moved)


TYPES = Types(
    client=models,
    Range=models.Range,
    Period=models.DatetimeRange,
    boolean=bool,
    request=_request,
    has_ids=lambda ids: models.HasIdCondition(has_id=list(ids)),
    # Their parts are of the right types; checking them again would take half as long as storing them in memory.
    point=lambda id, vector, payload: models.PointStruct.model_construct(id=id, vector=vector, payload=payload),
    move=_move,
    remove=lambda id, keys: models.DeletePayloadOperation(delete_payload=models.DeletePayload(keys=keys, points=[id])),
    put=lambda id, fields, key: models.SetPayloadOperation(
        set_payload=models.SetPayload(payload=fields, points=[id], key=key)
    ),
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


# ---- what went wrong: in one line, and whether it is worth another try


def status_of(error: BaseException) -> int | None:
    """Return the HTTP status that the server answered, None if it did not answer."""
    if isinstance(error, UnexpectedResponse):
        return error.status_code
    if isinstance(error, ResourceExhaustedResponse):
        return 429
    code = getattr(error, "code", None)
    return GRPC.get(getattr(code(), "name", "")) if callable(code) else None


def pause_after(error: Exception) -> float | None:
    """Return the least seconds to wait before another try, None if the same error would come again."""
    if isinstance(error, ResourceExhaustedResponse):
        return max(0.0, float(error.retry_after_s))
    if isinstance(error, UnexpectedResponse):
        return seconds_of(error.headers.get("Retry-After")) if error.status_code in TRANSIENT else None
    if isinstance(error, ResponseHandlingException):
        lost = (httpx.TimeoutException, httpx.NetworkError, httpx.RemoteProtocolError)
        return 0.0 if isinstance(error.source, lost) else None
    return 0.0 if status_of(error) in TRANSIENT else None


def is_too_large(error: BaseException) -> bool:
    """Return whether fewer rows might be read."""
    return isinstance(getattr(error, "source", error), AnswerTooLarge)


def retrieved(ask: Callable[[list[RecordId]], Sequence[Any]], ids: Sequence[RecordId], rows: int) -> Iterator[Any]:
    """Yield the points of ids, at most so many `rows` in one answer."""

    def read(start: int | None, rows: int) -> tuple[Sequence[Any], int | None]:
        end = (start or 0) + rows
        return ask(list(ids[end - rows : end])), end if end < len(ids) else None

    for points, _ in pages(read, rows, is_too_large) if ids else ():
        yield from points


def is_gone(error: BaseException) -> bool:
    """Return whether the error says that the collection does not exist; in memory that is a ValueError."""
    return status_of(error) == 404 or (isinstance(error, ValueError) and str(error).endswith("not found"))


def reason(error: BaseException) -> str:
    """Return one line that says what went wrong, as the server put it."""
    if isinstance(error, UnexpectedResponse):
        told = f"{error.status_code} ({error.reason_phrase}): {_told(error.content)}"
    elif isinstance(getattr(error, "source", error), (json.JSONDecodeError, ValidationError, RecursionError)):
        told = f"the answer is not one of Qdrant's ({str(error).splitlines()[0]})"
    elif isinstance(error, ResponseHandlingException):
        told = str(error.source) or type(error.source).__name__
    else:
        details: Any = getattr(error, "details", None)
        told = str(details()) if callable(details) else str(error)
    return " ".join(told.split())[:LONGEST_REASON] or type(error).__name__


def _told(content: bytes) -> str:
    try:
        return str(json.loads(content)["status"]["error"])
    except (ValueError, TypeError, KeyError):
        return content[:LONGEST_REASON].decode(errors="replace")
