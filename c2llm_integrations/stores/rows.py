"""Rows on their way into a store: how many go at once, which ones are refused, and what a listing says of them."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from c2llm_integrations.code.chunk import CHUNK_FIELDS, CodeChunk
from c2llm_integrations.errors import InputError
from c2llm_integrations.stores.filter import moment_of, value_of
from c2llm_integrations.stores.ids import RecordId, row_id, why_id_refused
from c2llm_integrations.stores.records import AnyRecord, Hit, PreparedRecord, Record, Row, Vector, prepared, utf8_bytes

_T = TypeVar("_T")

# A write is cut into pieces of about this size: well under every engine's limit on one request (Qdrant's
# write-ahead log and REST body take 32 MiB), large enough that the cost per call vanishes.
BATCH_BYTES = 8 * 2**20
# The same for calls that carry only ids.
BATCH_IDS = 10_000
# The metadata of a record as JSON: what a Milvus server takes of all dynamic fields of a row together, less our own.
MAX_METADATA_BYTES = 60_000
# Where a row's text lies: LangChain's and LlamaIndex's own stores read this name.
TEXT_FIELD = "page_content"
# Our own fields of a record that is not a chunk: its source, its id where the row has another, the names of its
# metadata, by which an update tells what it may remove from what others added, and a digest of what was written.
SOURCE_FIELD, ID_FIELD, FIELDS_FIELD = "c2llm_source", "c2llm_id", "c2llm_fields"
DIGEST_FIELD = "c2llm_digest"
# Milvus's own: a record's empty values (null and lists), which `exists` would find on some servers, and what its
# "datetime" fields name as numbers.
EMPTY_FIELD, TIMES_FIELD = "c2llm_empty", "c2llm_times"
# Names that a field of the metadata cannot have on every store.
RESERVED = frozenset(
    {
        *("id", "vector", "terms", "lexical", TEXT_FIELD, "$meta"),
        *(SOURCE_FIELD, ID_FIELD, FIELDS_FIELD, DIGEST_FIELD, EMPTY_FIELD, TIMES_FIELD),
    }
)

_CANONICAL_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Stored(NamedTuple):
    """What an incremental run needs to know of a row that is already there (no text, no vector)."""

    id: Any  # the row's: a string, or an integer of a record that has one; never of a chunk
    path: str
    language: str
    symbol: str
    kind: str
    start_line: int
    end_line: int
    digest: str = ""  # `digest_of` the record; "" of a chunk, and of rows that an earlier release wrote


@dataclass(frozen=True, slots=True)
class Candidates:
    """The two ranked lists of one question, best first; the scores of one list say nothing about the other's.

    `dense` scores are cosine similarities.
    """

    dense: list[Hit]
    lexical: list[Hit]


# The fields of a chunk that are asked for most; a store that indexes fields indexes these.
FILTER_FIELDS = ("repository", "language", "path", "kind")


def stored_of(id: RecordId, metadata: Mapping[str, Any], digest: object = "") -> Stored:
    """Return what a listing says of a row with this metadata; what is missing is "" or 0."""
    get = metadata.get
    return Stored(
        id,
        get("path") or "",
        get("language") or "",
        get("symbol") or "",
        get("kind") or "",
        get("start_line") or 0,
        get("end_line") or 0,
        digest if isinstance(digest, str) else "",
    )


def made_of(id: RecordId, text: str, metadata: Mapping[str, Any], ours: Mapping[str, Any]) -> AnyRecord:
    """Return what a row holds as a record, a chunk if it is no more than that; `ours`: where our own fields may be."""
    if SOURCE_FIELD in ours:
        return Record(ours.get(ID_FIELD, id), text, metadata, ours[SOURCE_FIELD])
    if metadata.keys() == CHUNK_FIELDS.keys() and all(type(metadata[name]) is CHUNK_FIELDS[name] for name in metadata):
        return CodeChunk(id=str(id), text=text, **metadata)
    repository = metadata.get("repository")
    return Record(id, text, metadata, repository if isinstance(repository, str) else "")


def path_of(record: AnyRecord) -> str:
    """Return the path of a record, whose words count for its lexical terms; "" if it has none."""
    path = record.metadata.get("path")
    return path if isinstance(path, str) else ""


def batch_bytes(records: Sequence[AnyRecord], width: int) -> int:
    """Return an upper estimate of what rows take on the wire: UTF-8 has at most 4 bytes a character."""
    return sum(4 * width + 4 * len(record.text) + 512 + _metadata_bytes(record) for record in records)


def _metadata_bytes(record: AnyRecord) -> int:
    if isinstance(record, PreparedRecord):
        return record.json_bytes
    return 0 if isinstance(record, CodeChunk) else len(json.dumps(record.metadata))


def slices(records: Sequence[AnyRecord], width: int) -> Iterator[slice]:
    """Cut rows into runs of at most about `BATCH_BYTES`, at least one row each."""
    return runs([batch_bytes([record], width) for record in records], BATCH_BYTES)


def runs(sizes: Sequence[int], most: int) -> Iterator[slice]:
    """Cut things of these sizes, in their order, into runs of at most `most` in all, at least one thing each."""
    start = total = 0
    for position, size in enumerate(sizes):
        if position > start and total + size > most:
            yield slice(start, position)
            start, total = position, 0
        total += size
    if start < len(sizes):
        yield slice(start, len(sizes))


def refused_records(
    records: Sequence[AnyRecord], max_text_bytes: int | None, fields: Mapping[str, str]
) -> dict[RecordId, str]:
    """Return id → reason for the records that could not be stored or found again; `fields` as the spec has them."""
    refused: dict[RecordId, str] = {}
    seen: set[RecordId] = set()
    for record in records:
        why = _why_refused(record, max_text_bytes) or _why_fields_refused(record, fields)
        if why is None and record.row_id in seen:
            why = "the id stands twice in one batch; ids must be unique"
        if why is None:
            seen.add(record.row_id)
        else:
            refused.setdefault(_hashable(record.id), why)
    return refused


def _hashable(id: Any) -> RecordId:
    return id if isinstance(id, Hashable) else repr(id)  # type: ignore[return-value]


def prepared_for(record: AnyRecord, max_bytes: int | None) -> AnyRecord:
    """Return a record as a store takes it, its text cut to so many bytes of UTF-8 between two characters.

    One that cannot be prepared comes back as it is; `refused_records` says why it is refused.
    """
    text = record.text
    if not isinstance(text, str):
        return record
    if isinstance(record, Record):
        try:
            record = prepared(record)
        except (InputError, TypeError, ValueError, RecursionError):
            return record
    if max_bytes is None or 4 * len(text) <= max_bytes:
        return record
    head = text.encode(errors="surrogatepass")[:max_bytes].decode(errors="ignore")
    return replace(record, text=head) if len(head) < len(text) else record


def plain_record(record: Record, key: RecordId | None = None) -> PreparedRecord | str:
    """Return a record whose metadata is JSON, or why there is none; `key` is its row's id where that is known.

    What JSON does not know becomes what `json_value` says.
    """
    try:
        return prepared(record, key)
    except (TypeError, ValueError, RecursionError) as error:
        try:
            whole = json.dumps(record.metadata, sort_keys=True, allow_nan=False, default=json_value)
            return prepared(replace(record, metadata=json.loads(whole)), key)
        except (TypeError, ValueError, RecursionError):
            known = "strings, finite numbers, true, false, null, lists and mappings"
            return f"its metadata is not JSON ({error}); use {known}"


def json_value(value: object) -> object:
    """Return a date as ISO 8601, a UUID as a string, NumPy's numbers as numbers; raises TypeError for anything else."""
    if isinstance(value, date):  # a datetime too
        return value.isoformat()
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, uuid.UUID):
        return str(value)
    raise TypeError(f"{type(value).__name__} is not JSON")


def _why_refused(record: AnyRecord, max_text_bytes: int | None) -> str | None:
    is_chunk = isinstance(record, CodeChunk)
    if is_chunk and not (isinstance(record.id, str) and _CANONICAL_UUID.fullmatch(record.id)):
        return f"id {record.id!r} is not a lower-case UUID; make ids with chunk_id"
    why, metadata = why_id_refused(record.id), record.metadata  # made anew by each chunk that is asked
    if why is None and not isinstance(metadata, Mapping):
        why = f"metadata is {type(metadata).__name__}, must be a mapping of names to JSON values"
    if why is not None:
        return why
    fields = [("text", record.text), ("source", record.source)]
    fields += [(name, metadata[name]) for name in CHUNK_FIELDS if name in metadata]
    for name, value in fields:
        why = _why_field_refused(name, value, CHUNK_FIELDS.get(name, str), max_text_bytes)
        if why is not None:
            return why
    return None if is_chunk else _why_metadata_refused(record)


def _why_field_refused(name: str, value: object, kind: type, max_bytes: int | None) -> str | None:
    if type(value) is not kind:
        return f"{name} is {value!r:.60} ({type(value).__name__}), must be {kind.__name__}"
    if not isinstance(value, str):
        return None
    try:
        size = utf8_bytes(value)
    except UnicodeEncodeError as error:
        return f"lone surrogate {error.object[error.start]!r} in {error.object[:80]!r}; decode the file again"
    if max_bytes is not None and size > max_bytes:
        return f"{name} has {size} bytes, the store takes {max_bytes}; use smaller chunks"
    return None


_KINDS: dict[str, type | tuple[type, ...]] = {"integer": int, "float": (int, float), "boolean": bool}


def _why_fields_refused(record: AnyRecord, fields: Mapping[str, str]) -> str | None:
    for key, kind in fields.items():
        value = value_of(record.metadata, key)
        if kind == "tenant" and not (isinstance(value, str) and value):
            return f"{key} is {value!r:.60}, and the collection keeps its rows apart by it; name the tenant in a string"
        # A moment and a tenant are one value; of other kinds there may be a list.
        elements = value if isinstance(value, list | tuple) and kind not in ("datetime", "tenant") else [value]
        for one in elements if value is not None else ():
            wanted = _KINDS.get(kind, str)
            if not isinstance(one, wanted) or (isinstance(one, bool) and kind != "boolean"):
                return f"{key} is {one!r:.60} ({type(one).__name__}), the collection's fields say {kind}"
            if kind == "datetime" and moment_of(one) is None:
                return f"{key} is {one!r:.60}, which names no moment; write it like '2026-01-31T12:00:00Z'"
    return None


def _why_metadata_refused(record: AnyRecord) -> str | None:
    for name in record.metadata:
        if not isinstance(name, str) or not name or '"' in name or "\\" in name:
            return f"metadata has the field name {name!r:.60}; use strings without quotes or backslashes"
        if name in RESERVED:
            return f"metadata has a field {name!r}, which is the store's own; rename it"
    if isinstance(record, PreparedRecord) and record.json_bytes <= MAX_METADATA_BYTES:
        return None
    try:
        size = len(json.dumps(record.metadata, sort_keys=True, allow_nan=False, ensure_ascii=False).encode())
    except (TypeError, ValueError, RecursionError) as error:
        return f"metadata is not JSON ({error}); use strings, finite numbers, true, false, null, lists and mappings"
    if size > MAX_METADATA_BYTES:
        return f"metadata has {size} bytes as JSON, stores take {MAX_METADATA_BYTES}; put long texts into the text"
    return None


def listed(values: Iterable[_T], kind: type | tuple[type, ...], what: str) -> list[_T]:
    """Return values as a list; raises InputError unless each is of a kind."""
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        raise InputError(f"expected a list of {what}, got {values!r:.60} ({type(values).__name__})")
    found = list(values)
    for value in found:
        if not isinstance(value, kind):
            require(value, kind, f"a list of {what}")
    return found


def require(value: object, kind: type | tuple[type, ...], what: str) -> None:
    """Raise InputError unless a value is of a kind."""
    if not isinstance(value, kind):
        raise InputError(f"expected {what}, got {value!r:.60} ({type(value).__name__})")


def row_ids(ids: Iterable[RecordId] | RecordId, source: str = "") -> dict[RecordId, RecordId]:
    """Return row id → the id that it was asked by; raises InputError for what cannot be an id."""
    if isinstance(ids, str | int) or not isinstance(ids, Iterable):
        ids = [ids]
    found = list(ids)
    for why in map(why_id_refused, found):
        if why is not None:
            raise InputError(why)
    require(source, str, "a source's name")
    return {row_id(source, id): id for id in found}


def parts(ids: Sequence[_T]) -> Iterator[Sequence[_T]]:
    """Cut ids into runs of at most `BATCH_IDS`."""
    for start in range(0, len(ids), BATCH_IDS):
        yield ids[start : start + BATCH_IDS]


def refused_vectors(rows: Sequence[Row], width: int) -> dict[RecordId, str]:
    """Return id → reason for the rows whose vector could not be compared with (width,) others."""
    if all(isinstance(row.vector, np.ndarray) and row.vector.shape == (width,) for row in rows):
        vectors = np.array([row.vector for row in rows])
        if vectors.dtype.kind in "fiu" and np.isfinite(vectors).all() and vectors.any(axis=-1).all():
            return {}
    whys = ((_hashable(row.record.id), why_vector_refused(row.vector, width)) for row in rows)
    return {id: why for id, why in whys if why is not None}


def why_vector_refused(vector: object, width: int) -> str | None:
    """Return why a vector could not be compared with (width,) others, or None."""
    try:
        numbers = np.asarray(vector)
    except (TypeError, ValueError):  # lists of unequal lengths
        numbers = np.asarray(None)
    if numbers.dtype.kind not in "fiu":
        return f"vector is {vector!r:.60} ({type(vector).__name__}), expected {width} numbers"
    if numbers.shape != (width,):
        return f"vector has shape {numbers.shape}, the collection holds ({width},)"
    if not np.isfinite(numbers).all():
        return "vector holds NaN or infinity; embed the text again"
    if not np.any(numbers):
        return "vector is all zeros, which has no direction for cosine"
    return None


def unit(vectors: NDArray[Any]) -> Vector:
    """(n, width) → the same at unit length; in float64, where no float32 overflows or vanishes when squared."""
    wide = vectors.astype(np.float64)
    scaled: Vector = (wide / np.linalg.norm(wide, axis=1, keepdims=True)).astype(np.float32)
    return scaled
