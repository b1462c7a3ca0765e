"""Rows on their way into a store: their fields, the size of a batch, and their short form in a listing."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import date, time
from decimal import Decimal
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from c2llm_integrations.code.chunk import CHUNK_FIELDS, CodeChunk
from c2llm_integrations.errors import InputError
from c2llm_integrations.stores.ids import RecordId, row_id, why_id_refused
from c2llm_integrations.stores.records import (
    MAX_LINE,
    AnyRecord,
    PreparedRecord,
    Record,
    Vector,
    chunk_field,
    prepared_of,
)

_T = TypeVar("_T")

# A write is cut into pieces of about this size: well under every engine's limit on one request (Qdrant's
# write-ahead log and REST body take 32 MiB), large enough that the cost per call vanishes.
BATCH_BYTES = 8 * 2**20
# The same for calls that carry only ids.
BATCH_IDS = 10_000


class OwnField:
    """The names of our own fields of a row."""

    TEXT = "page_content"  # LangChain's and LlamaIndex's own stores read this name
    # Of a record that is not a chunk: its source, its id where the row has another, the names of its metadata, by which
    # an update tells what it may remove from what others added, and a digest of what was written.
    SOURCE, ID, FIELDS, DIGEST = "c2llm_source", "c2llm_id", "c2llm_fields", "c2llm_digest"
    # Milvus's own: a record's empty values (null and lists), which `exists` would find on some servers, and what its
    # "datetime" fields name as numbers.
    EMPTY, TIMES = "c2llm_empty", "c2llm_times"


# Names that a field of the metadata cannot have on every store.
RESERVED = frozenset(
    {"id", "vector", "terms", "lexical", "$meta", OwnField.TEXT, OwnField.SOURCE, OwnField.ID, OwnField.FIELDS}
    | {OwnField.DIGEST, OwnField.EMPTY, OwnField.TIMES}
)


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


_LISTED = Stored._fields[1:-1]
_LISTED_TYPES = [CHUNK_FIELDS[name] for name in _LISTED]
_LISTED_EMPTY = [kind() for kind in _LISTED_TYPES]


def stored_of(id: RecordId, metadata: Mapping[str, Any], digest: object = "") -> Stored:
    """Return what a listing says of a row with this metadata; what is missing, or of another type, is "" or 0."""
    fields: list[Any] = [metadata.get(name) for name in _LISTED]
    # Millions are listed, and nearly all are as we wrote them: chunks, or records that have none of these fields.
    if not any(fields):
        fields = _LISTED_EMPTY
    elif [*map(type, fields)] != _LISTED_TYPES or not 0 <= fields[-2] <= fields[-1] <= MAX_LINE:
        fields = [chunk_field(name, metadata) for name in _LISTED]
    return Stored._make((id, *fields, digest if isinstance(digest, str) else ""))


def made_of(id: RecordId, text: str, metadata: Mapping[str, Any], ours: Mapping[str, Any]) -> AnyRecord:
    """Return what a row holds as a record, a chunk if it is no more than that; `ours`: where our own fields may be."""
    if OwnField.SOURCE in ours:
        own, source = ours.get(OwnField.ID, id), ours[OwnField.SOURCE]
        source = source if isinstance(source, str) else ""
        # An id that does not lead back to the row would be that of another one.
        is_own = why_id_refused(own) is None and row_id(source, own) == id
        return Record(own if is_own else id, text, metadata, source)
    if metadata.keys() == CHUNK_FIELDS.keys() and all(
        type(metadata[name]) is CHUNK_FIELDS[name] and metadata[name] == chunk_field(name, metadata)
        for name in metadata
    ):
        return CodeChunk(id=str(id), text=text, **metadata)
    repository = metadata.get("repository")
    return Record(id, text, metadata, repository if isinstance(repository, str) else "")


def field_names(value: object) -> Sequence[str]:
    """Return the names in a list that we keep in a row; none where others wrote something else."""
    return [name for name in value if isinstance(name, str)] if isinstance(value, list) else ()


def path_of(record: AnyRecord) -> str:
    """Return the path of a record, whose words count for its lexical terms; "" if it has none."""
    path = record.metadata.get("path")
    return path if isinstance(path, str) else ""


def batch_bytes(records: Sequence[AnyRecord], width: int) -> int:
    """Return an upper estimate of what rows take on the wire: UTF-8 has at most 4 bytes a character."""
    return sum([_row_bytes(record, width) for record in records])


def _row_bytes(record: AnyRecord, width: int) -> int:
    if isinstance(record, PreparedRecord):
        metadata = record.json_bytes
    else:
        metadata = 0 if isinstance(record, CodeChunk) else len(json.dumps(record.metadata))
    return 4 * width + 4 * len(record.text) + 512 + metadata


def slices(records: Sequence[AnyRecord], width: int, most: int = BATCH_BYTES) -> Iterator[slice]:
    """Cut rows into runs of at most about so many bytes, at least one row each."""
    return runs([_row_bytes(record, width) for record in records], most)


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


def prepared_for(record: AnyRecord, max_bytes: int | None) -> AnyRecord:
    """Return a record as a store takes it, its text cut to so many bytes of UTF-8 between two characters.

    One that cannot be prepared comes back as it is; `row_checks` says why it is refused.
    """
    text = record.text
    if not isinstance(text, str):
        return record
    if isinstance(record, Record) and not isinstance(record, PreparedRecord):
        try:
            record = prepared_of(record.id, text, record.metadata, record.source, record.row_id)
        except (InputError, TypeError, ValueError, RecursionError):
            return record
    if max_bytes is None or 4 * len(text) <= max_bytes:
        return record
    head = text.encode(errors="surrogatepass")[:max_bytes].decode(errors="ignore")
    return replace(record, text=head) if len(head) < len(text) else record


def plain_record(
    id: RecordId, text: str, metadata: Mapping[str, Any], source: str, key: RecordId
) -> PreparedRecord | str:
    """Return what `prepared_of` does, or why there is none; what JSON does not know becomes what `json_value` says."""
    try:
        return prepared_of(id, text, metadata, source, key)
    except (TypeError, ValueError, RecursionError) as error:
        try:
            whole = json.dumps(metadata, allow_nan=False, default=json_value)
            return prepared_of(id, text, json.loads(whole), source, key)
        except (TypeError, ValueError, RecursionError):
            return f"its {not_json(metadata, error)}"


def not_json(metadata: Mapping[str, Any], error: Exception) -> str:
    """Return that metadata is not JSON, for which field and why."""
    known = "strings, finite numbers, true, false, null, lists and mappings"
    return f"metadata is not JSON ({_culprit(metadata, error)}); use {known}"


def _culprit(metadata: Mapping[str, Any], error: Exception) -> str:
    """Return which field is not JSON and why, or what `error` says."""
    for name, value in metadata.items():
        try:
            json.dumps(value, sort_keys=True, allow_nan=False, default=json_value)
        except (TypeError, ValueError, RecursionError) as why:
            return f"field {name!r:.60}: {why}"
    return str(error)


def json_value(value: object) -> object:
    """Return what JSON keeps of a value; raises TypeError for what it cannot keep.

    A date or a time of day becomes ISO 8601, a UUID a string, a decimal number and those of NumPy the nearest number.
    """
    if isinstance(value, date | time) and value == value:  # a datetime too, but not pandas' NaT, which says it is one
        return value.isoformat()
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, uuid.UUID):
        return str(value)
    raise TypeError(f"{type(value).__name__} is not JSON")


def parts(ids: Sequence[_T]) -> Iterator[Sequence[_T]]:
    """Cut ids into runs of at most `BATCH_IDS`."""
    for start in range(0, len(ids), BATCH_IDS):
        yield ids[start : start + BATCH_IDS]


def unit(vectors: ArrayLike) -> Vector:
    """(…, width) → the same at unit length; a vector of zeros, which is like no other, stays as it is.

    In float64, where no float32 overflows or vanishes when squared.
    """
    wide = np.asarray(vectors, np.float64)
    lengths = np.linalg.norm(wide, axis=-1, keepdims=True)
    scaled: Vector = (wide / np.maximum(lengths, np.finfo(np.float64).tiny)).astype(np.float32)
    return scaled
