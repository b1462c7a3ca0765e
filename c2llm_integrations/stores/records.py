"""Records, rows and hits: what is stored and found."""

from __future__ import annotations

import json.encoder
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from c2llm_integrations.code.chunk import CHUNK_FIELDS, CodeChunk
from c2llm_integrations.stores.ids import RecordId, row_id

Vector = NDArray[np.float32]
# From here on a float no longer holds every integer.
MAX_EXACT_INTEGER = 2**53
# An integer of over 64 bits has at least so many digits.
_LONG_NUMBER = re.compile("[0-9]{19}")
# No file has more lines, and no column of an export takes a larger number.
MAX_LINE = 2**31 - 1
# Levels of lists and mappings in metadata, itself one: Qdrant's engine writes some more than it can read again, and
# then opens none of its rows.
MAX_LEVELS = 64
_NESTING = (Mapping, list, tuple)


@dataclass(frozen=True, slots=True)
class Record:
    """A text that is embedded and stored as a whole, with an id and metadata.

    Args:
        id: Your own: a UUID, an unsigned 64-bit integer, or any other string, unique within the source.
        text: What is embedded.
        metadata: Name → JSON value, for filters.
        source: The set that the record came from.

    """

    id: RecordId
    text: str
    metadata: Mapping[str, Any] = field(default_factory=dict, hash=False)
    source: str = ""

    @property
    def row_id(self) -> RecordId:
        """The id of the record's row in a database."""
        return row_id(self.source, self.id)


@dataclass(frozen=True, slots=True)
class PreparedRecord(Record):
    """A record with what comparing and storing it takes, computed once.

    `key` is the id of its row; `digest` that of `digest_of`, of the whole text where a store has cut it; `json_bytes`
    at least what its metadata takes as JSON.
    """

    key: RecordId = ""
    digest: str = ""
    json_bytes: int = 0

    @property
    def row_id(self) -> RecordId:
        """The id of the record's row in a database."""
        return self.key


AnyRecord = Record | CodeChunk
# Records, each with its vector as it is stored where that was asked for and is there.
RecordIterator = Iterator[tuple[AnyRecord, Vector | None]]


def digest_of(record: AnyRecord) -> str:
    """Return 32 hexadecimal digits: 16 of the text, 16 of the metadata; a row keeps them, so that runs can compare."""
    if isinstance(record, PreparedRecord):
        return record.digest
    return _digest(record.text) + _digest(_JSON(record.metadata))


def prepared_of(id: RecordId, text: str, metadata: Mapping[str, Any], source: str, key: RecordId) -> PreparedRecord:
    """Return a record prepared for storing; `key` is its row's id.

    Raises TypeError, ValueError or RecursionError for metadata that cannot be stored.
    """
    written = _JSON(metadata)
    if written.count("{") > 1 or written.count("[") >= MAX_LEVELS or _LONG_NUMBER.search(written):
        require_storable(metadata)
    if "\\ud" in written:  # half of a pair as JSON spells it, which must be a whole one
        json.dumps(metadata, ensure_ascii=False).encode()
    return PreparedRecord(id, text, metadata, source, key, _digest(text) + _digest(written), len(written))


def require_storable(metadata: object) -> None:
    """Raise ValueError for what databases refuse or change: over `MAX_LEVELS`, or an integer of over 64 bits.

    Raises TypeError for a name that is not a string, which JSON would change.
    """
    level = [metadata]
    for _ in range(MAX_LEVELS + 1):
        for value in level:
            if isinstance(value, int) and not -(2**63) <= value < 2**64:
                raise ValueError(f"an integer has {value.bit_length()} bits, stores keep 64; write it as a string")
        if odd := [key for one in level if isinstance(one, Mapping) for key in one if not isinstance(key, str)]:
            raise TypeError(f"the name {odd[0]!r:.60} inside is not a string")
        inner = (one.values() if isinstance(one, Mapping) else one for one in level if isinstance(one, _NESTING))
        level = [value for values in inner for value in values]
        if not level:
            return
    raise ValueError(f"over {MAX_LEVELS} levels of lists and mappings")


def utf8_bytes(text: str) -> int:
    """Return what a text takes in UTF-8; raises UnicodeEncodeError for a lone surrogate."""
    return len(text) if text.isascii() else len(text.encode())


def _encoder() -> Callable[[Any], str]:
    """Return what writes JSON with sorted keys, and raises ValueError for NaN and infinity.

    Python makes its encoder anew for each call, which takes as long as writing a record's metadata.
    """
    whole = json.JSONEncoder(sort_keys=True, allow_nan=False)
    make = getattr(json.encoder, "c_make_encoder", None)
    if make is None:  # an interpreter that has it in Python alone
        return whole.encode
    text = json.encoder.encode_basestring_ascii
    write = make(None, whole.default, text, None, whole.key_separator, whole.item_separator, True, False, False)
    return lambda value: "".join(write(value, 0))


_JSON = _encoder()
_BLAKE = blake2b(digest_size=8)  # a copy of it takes two thirds of the time that a new one does


def _digest(text: str) -> str:
    hashed = _BLAKE.copy()
    hashed.update(text.encode(errors="surrogatepass"))
    return hashed.hexdigest()


def is_chunk(record: AnyRecord) -> bool:
    """Return whether a record is a chunk: it has the metadata of one, and its source is that repository."""
    return isinstance(record, CodeChunk) or (
        record.source == record.metadata.get("repository") and record.metadata.keys() >= CHUNK_FIELDS.keys()
    )


def chunk_of(record: AnyRecord) -> CodeChunk:
    """Return a record as a chunk; what it lacks, or has of another type, is "" or 0."""
    if isinstance(record, CodeChunk):
        return record
    fields = {name: chunk_field(name, record.metadata) for name in CHUNK_FIELDS}
    return CodeChunk(id=str(record.id), text=record.text, **fields)


def chunk_field(name: str, metadata: Mapping[str, Any]) -> Any:
    """Return a field of a chunk; what is missing, or is none, is "" or 0: others may write anything into a row."""
    value: Any = metadata.get(name)
    kind = CHUNK_FIELDS[name]
    has_type = type(value) is kind
    return value if has_type and (kind is str or 0 <= value <= MAX_LINE) else kind()


@dataclass(frozen=True, slots=True)
class Row:
    """A record and its vector, float32 of the collection's width."""

    record: AnyRecord
    vector: Vector

    @property
    def chunk(self) -> CodeChunk:
        """The record as a chunk; see `chunk_of`."""
        return chunk_of(self.record)


@dataclass(frozen=True, slots=True)
class Hit:
    """A record found, with its score (higher is better) and, after ranking, the parts that sum to the score."""

    record: AnyRecord
    score: float
    explanation: Mapping[str, float] = field(default_factory=dict, compare=False)

    @property
    def chunk(self) -> CodeChunk:
        """The record as a chunk. If it is not one, repository, path, symbol … are "" and the lines 0."""
        return chunk_of(self.record)


@dataclass(frozen=True, slots=True)
class Candidates:
    """The two ranked lists of one question, best first; the scores of one list say nothing about the other's.

    `dense` scores are cosine similarities.
    """

    dense: list[Hit]
    lexical: list[Hit]
