"""Bytes of a file → text that encodes back to exactly those bytes."""

from __future__ import annotations

import re

_UTF16 = {b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}
# What no text of a one-byte encoding holds; tab, newlines, form feed and escape are left out on purpose.
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")
# Of random bytes 11 % are such control characters, of text in any national encoding none.
_MAX_CONTROL = 0.05


def decode(data: bytes) -> tuple[str, str] | None:
    """Return (text, encoding) with `text.encode(encoding) == data`, or None for binary data.

    UTF-16 needs its byte-order mark; else UTF-8, then cp1252, then latin-1, which takes any byte. A mark stays
    in the text as U+FEFF. Data with a NUL character, or none of these and full of control characters, is binary.
    """
    utf16 = _UTF16.get(data[:2])
    if utf16:
        return _strict(data, utf16)
    if b"\0" in data:
        return None
    found = _strict(data, "utf-8")
    if found is None and len(_CONTROL.findall(data)) <= _MAX_CONTROL * len(data):
        found = _strict(data, "cp1252") or _strict(data, "latin-1")
    return found


def _strict(data: bytes, encoding: str) -> tuple[str, str] | None:
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else (text, encoding)
