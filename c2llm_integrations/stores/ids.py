"""The id that a row is known by.

The rule, for every store: a UUID or an unsigned 64-bit integer is the row's id as it is; any other string stands for
the UUIDv5 of (source, string) and comes back as it was given; a record without one gets the UUIDv5 of (source, text,
ordinal). The chunks of a repository follow the last rule with their path, in `code.chunk.chunk_id`.
"""

from __future__ import annotations

import re
import uuid
from functools import lru_cache
from hashlib import sha1
from typing import Any

from c2llm_integrations.code.chunk import NAMESPACE
from c2llm_integrations.errors import InputError

RecordId = str | int
# Fixed forever, like NAMESPACE; a namespace of its own keeps ids of records and of chunks apart.
_RECORDS = uuid.uuid5(NAMESPACE, "record").bytes
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_UUID_LETTERS = 36
MAX_INTEGER_ID = 2**64 - 1


def row_id(source: str, id: RecordId | None = None, text: str = "", ordinal: int = 0) -> RecordId:
    """Return the id of a record's row; see this module for the rule.

    Args:
        source: The set that the record came from.
        id: The record's own id, if it has one.
        text: Its text, only looked at where there is no id.
        ordinal: How many earlier records of the source without an id have the same text.

    Raises InputError for an id that is not a string or an unsigned 64-bit integer.

    """
    if id is None:
        return _uuid5("\0".join((source, "", str(ordinal), text)))
    why = why_id_refused(id)
    if why is not None:
        raise InputError(why)
    if isinstance(id, int):
        return id
    return id.lower() if len(id) == _UUID_LETTERS and _UUID.fullmatch(id) else _named(source, id)


@lru_cache(8192)  # each record of a batch is asked for its own again and again
def _named(source: str, id: str) -> str:
    return _uuid5(f"{source}\0{id}")


def _uuid5(name: str) -> str:
    """Return what `uuid.uuid5` does, in less time: SHA-1 with version 5 and variant 10, as RFC 9562 says."""
    digest = bytearray(sha1(_RECORDS + name.encode(), usedforsecurity=False).digest()[:16])
    digest[6] = digest[6] & 0x0F | 0x50
    digest[8] = digest[8] & 0x3F | 0x80
    digits = digest.hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def why_id_refused(id: object) -> str | None:
    """Return why a value cannot be an id, or None."""
    if isinstance(id, int) and not isinstance(id, bool):
        return None if 0 <= id <= MAX_INTEGER_ID else f"id {id} is not in 0…2**64-1; give such ids as strings"
    if not isinstance(id, str) or not id:
        return f"id {id!r} ({type(id).__name__}) cannot be one; use a UUID, an unsigned integer or another string"
    try:
        id.encode()
    except UnicodeEncodeError:
        return f"id {id!r} holds a lone surrogate; decode it again"
    return None


def packed(id: RecordId) -> bytes:
    """Return the 16 bytes of a row id."""
    return id.to_bytes(16, "big") if isinstance(id, int) else bytes.fromhex(id.replace("-", ""))


def unpacked(key: bytes) -> Any:
    """Return the row id that `packed` gave `key` for; NUL bytes may be missing at its end, as NumPy leaves them out."""
    number = int.from_bytes(key.ljust(16, b"\0"), "big")
    return str(uuid.UUID(int=number)) if number > MAX_INTEGER_ID else number
