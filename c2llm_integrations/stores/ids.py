"""Row ids: from a record's id, or from its source and text.

The rule, for every store: a UUID or an unsigned 64-bit integer is the row's id as it is; any other string stands for
the UUIDv5 of (source, string) and comes back as it was given; a record without one gets the UUIDv5 of (source, text,
ordinal). The chunks of a repository follow the last rule with their path, in `code.chunk.chunk_id`.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable
from functools import lru_cache
from hashlib import sha1
from typing import Any

from c2llm_integrations.code.chunk import NAMESPACE
from c2llm_integrations.errors import InputError

RecordId = str | int
# Fixed forever, like NAMESPACE; a namespace of its own keeps ids of records and of chunks apart.
_RECORDS = sha1(uuid.uuid5(NAMESPACE, "record").bytes, usedforsecurity=False)
# Hexadecimal digit → the same with the variant of RFC 9562 in its upper two bits.
_VARIANT = dict(zip("0123456789abcdef", 4 * "89ab", strict=True))
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_UUID_LETTERS = 36
MAX_INTEGER_ID = 2**64 - 1


def row_id(source: str, id: RecordId | None = None, text: str = "", ordinal: int = 0) -> RecordId:
    """Return the id of a record's row; see this module for the rule.

    `text` is only looked at where there is no id; `ordinal`: how many earlier records of the source without an id have
    the same text. Raises InputError for an id that is not a string or an unsigned 64-bit integer.
    """
    if id is None:
        return _uuid5("\0".join((source, "", str(ordinal), text)))
    why = why_id_refused(id)
    if why is not None:
        raise InputError(why)
    return id if isinstance(id, int) else _kept(source, id)


def checked_row_id(source: str, id: RecordId) -> RecordId:
    """Return what `row_id` does for an id that `why_id_refused` has looked at, and that is asked for once."""
    if isinstance(id, int):
        return id
    return id.lower() if is_uuid(id) else _uuid5(f"{source}\0{id}")


def is_uuid(id: str) -> bool:
    """Return whether a string is a UUID in the usual form, which is a row's id as it is."""
    return len(id) == _UUID_LETTERS and _UUID.fullmatch(id) is not None


_kept = lru_cache(8192)(checked_row_id)  # each record of a batch is asked for its own again and again


def _uuid5(name: str) -> str:
    """Return what `uuid.uuid5` does, in less time: SHA-1 with version 5 and variant 10, as RFC 9562 says."""
    hashed = _RECORDS.copy()
    hashed.update(name.encode())
    digits = hashed.hexdigest()
    return f"{digits[:8]}-{digits[8:12]}-5{digits[13:16]}-{_VARIANT[digits[16]]}{digits[17:20]}-{digits[20:32]}"


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


def listed_ids(ids: Iterable[RecordId] | RecordId) -> list[RecordId]:
    """Return one id or several as a list; raises InputError for what cannot be an id."""
    found: list[Any] = list(ids) if isinstance(ids, Iterable) and not isinstance(ids, str | bytes) else [ids]
    for why in map(why_id_refused, found):
        if why is not None:
            raise InputError(why)
    return found


def packed(id: RecordId) -> bytes:
    """Return the 16 bytes of a row id."""
    return id.to_bytes(16, "big") if isinstance(id, int) else bytes.fromhex(id.replace("-", ""))


def unpacked(key: bytes) -> Any:
    """Return the row id that `packed` gave `key` for; NUL bytes may be missing at its end, as NumPy leaves them out."""
    number = int.from_bytes(key.ljust(16, b"\0"), "big")
    return str(uuid.UUID(int=number)) if number > MAX_INTEGER_ID else number
