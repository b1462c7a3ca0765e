"""Which records, vectors and arguments a store refuses, and why, before the database sees them."""

from __future__ import annotations

import json
import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from functools import lru_cache
from numbers import Integral
from typing import Any, NamedTuple, TypeVar

import numpy as np

from c2llm_integrations.code.chunk import CHUNK_FIELDS, CodeChunk
from c2llm_integrations.errors import InputError
from c2llm_integrations.stores.filter import moment_of, value_of
from c2llm_integrations.stores.ids import RecordId, why_id_refused
from c2llm_integrations.stores.records import AnyRecord, PreparedRecord, Row, is_chunk, require_storable, utf8_bytes
from c2llm_integrations.stores.row_fields import RESERVED, not_json

_T = TypeVar("_T")

# The metadata of a record as JSON: what a Milvus server takes of all dynamic fields of a row together, less our own.
MAX_METADATA_BYTES = 60_000
_CANONICAL_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def refused_records(
    records: Sequence[AnyRecord], max_text_bytes: int | None, fields: Mapping[str, str]
) -> dict[int, str]:
    """Return place → reason for the records that could not be stored or found again; `fields` as the spec has them."""
    refused: dict[int, str] = {}
    seen: set[RecordId] = set()
    for place, record in enumerate(records):
        why = _why_refused(record, max_text_bytes) or (_why_fields_refused(record, fields) if fields else None)
        if why is None and record.row_id in seen:
            why = "the id occurs twice in one batch; ids must be unique"
        if why is None:
            seen.add(record.row_id)
        else:
            refused[place] = why
    return refused


def hashable(id: Any) -> Any:
    """Return what stands for an id, which may be anything that a record was given, in reports."""
    return id if isinstance(id, Hashable) else repr(id)


def _why_refused(record: AnyRecord, max_text_bytes: int | None) -> str | None:
    if isinstance(record, CodeChunk) and not (isinstance(record.id, str) and _CANONICAL_UUID.fullmatch(record.id)):
        return f"id {record.id!r} is not a lower-case UUID; make ids with chunk_id"
    metadata = record.metadata  # made anew by each chunk that is asked
    is_checked = isinstance(record, PreparedRecord) and record.id is not None
    why = None if is_checked else why_id_refused(record.id)
    if why is None and type(metadata) is not dict and not isinstance(metadata, Mapping):
        why = f"metadata is {type(metadata).__name__}, must be a mapping of names to JSON values"
    if why is not None:
        return why
    names = _names_of(tuple(metadata))
    why = _why_field_refused("text", record.text, str, max_text_bytes)
    why = why or _why_field_refused("source", record.source, str, max_text_bytes)
    for name in names.of_chunk:
        if metadata[name] is not None or is_chunk(record):  # null means that a record has none
            why = why or _why_field_refused(name, metadata[name], CHUNK_FIELDS[name], max_text_bytes)
    return why or (None if isinstance(record, CodeChunk) else names.why_refused or _why_metadata_refused(record))


def _why_field_refused(name: str, value: object, kind: type, max_bytes: int | None) -> str | None:
    if type(value) is not kind:
        way_out = "; chunks of code have this field, so convert it or rename it" if name in CHUNK_FIELDS else ""
        return f"{name} is {value!r:.60} ({type(value).__name__}), must be {kind.__name__}{way_out}"
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
            return f"{key} is {value!r:.60}, but it is the tenant, by which rows are kept apart; give a string"
        # A moment and a tenant are one value; of other kinds there may be a list.
        elements = value if isinstance(value, list | tuple) and kind not in ("datetime", "tenant") else [value]
        for one in elements if value is not None else ():
            wanted = _KINDS.get(kind, str)
            if not isinstance(one, wanted) or (isinstance(one, bool) and kind != "boolean"):
                return f"{key} is {one!r:.60} ({type(one).__name__}), the collection's fields say {kind}"
            if kind == "datetime" and moment_of(one) is None:
                return f"{key} is {one!r:.60}, which is not a date or time; write it like '2026-01-31T12:00:00Z'"
    return None


class _Names(NamedTuple):
    """The names of a record's metadata: why they are refused, and which of them a chunk has."""

    why_refused: str | None
    of_chunk: tuple[str, ...]


@lru_cache(256)  # most records of a source have the same fields
def _names_of(names: tuple[object, ...]) -> _Names:
    return _Names(
        next(filter(None, map(_why_name_refused, names)), None), tuple(name for name in CHUNK_FIELDS if name in names)
    )


def _why_name_refused(name: object) -> str | None:
    if not isinstance(name, str) or not name or '"' in name or "\\" in name:
        return f"metadata has the field name {name!r:.60}; use strings without quotes or backslashes"
    return f"metadata has a field {name!r}, which is the store's own; rename it" if name in RESERVED else None


def _why_metadata_refused(record: AnyRecord) -> str | None:
    if isinstance(record, PreparedRecord) and record.json_bytes <= MAX_METADATA_BYTES:
        return None
    try:
        size = len(json.dumps(record.metadata, sort_keys=True, allow_nan=False, ensure_ascii=False).encode())
        require_storable(record.metadata)
    except (TypeError, ValueError, RecursionError) as error:
        return not_json(record.metadata, error)
    if size > MAX_METADATA_BYTES:
        return f"metadata has {size} bytes as JSON, stores take {MAX_METADATA_BYTES}; put long texts into the text"
    return None


def refused_vectors(rows: Sequence[Row], width: int) -> dict[int, str]:
    """Return place → reason for the rows whose vector could not be compared with (width,) others."""
    if all(isinstance(row.vector, np.ndarray) and row.vector.shape == (width,) for row in rows):
        vectors = np.array([row.vector for row in rows])
        if vectors.dtype.kind in "fiu" and np.isfinite(vectors).all() and vectors.any(axis=-1).all():
            return {}
    whys = (why_vector_refused(row.vector, width) for row in rows)
    return {place: why for place, why in enumerate(whys) if why is not None}


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


def require_count(value: object, what: str) -> None:
    """Raise InputError unless a value is a whole number of at least 1."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise InputError(f"{what} is {value!r:.60}, must be a whole number of at least 1")


def require_share(value: object, what: str) -> None:
    """Raise InputError unless a value is a number in 0…1."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating) or not 0 <= value <= 1:
        raise InputError(f"{what} is {value!r:.60}, must be a number in 0…1")
