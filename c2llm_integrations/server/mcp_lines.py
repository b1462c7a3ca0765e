"""Lines of JSON-RPC between an agent and the SDK: one that the SDK would drop is repaired or answered with an error."""

from __future__ import annotations

import io
import json
import os
import re
import sys
from typing import Any, BinaryIO

from mcp_types import jsonrpc_message_adapter

# Bytes of a line: a question may be a pasted file.
MAX_LINE_BYTES = 4 * 2**20
PARSE_ERROR, INVALID_REQUEST = -32700, -32600

# Python reads no longer integer, and no limit or line is that large.
_MAX_DIGITS = 300
# Where the id stands in a request that is too deep or too long to be read: clients write it first or last.
_KEY = rb'"id"\s{0,9}:\s{0,9}(\d{1,15}|"[^"\\]{0,99}")'
_VERSION = rb'"jsonrpc"\s{0,9}:\s{0,9}"2\.0"'
_ID = re.compile(rb"\s*\{\s*(?:" + _VERSION + rb"\s*,\s*)?" + _KEY)
_LAST_ID = re.compile(rb",\s{0,9}" + _KEY + rb"\s{0,9}(?:,\s{0,9}" + _VERSION + rb"\s{0,9})?\}\s{0,9}$")
_LAST_ID_BYTES = 300


def guard_streams() -> None:
    """Let the SDK read and write through here; the standard streams themselves are left empty for child processes."""
    heard, said = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)
    os.dup2(2, 1)
    sys.stdin = io.TextIOWrapper(io.BufferedReader(_Lines(heard, said)))
    sys.stdout = io.TextIOWrapper(said)


def readable(line: bytes) -> bytes | dict[str, Any] | None:
    """Return a line that the SDK can read, or the answer to one that nobody can, or None where none is due."""
    try:
        data = json.loads(line.decode("utf-8", "replace"), parse_int=_number)
    except RecursionError:
        return _error(INVALID_REQUEST, "the message is nested too deep", _id_in(line, line))
    except ValueError as error:
        return _error(PARSE_ERROR, f"the line is not valid JSON ({error})", None)
    # Half an emoji, where a client cut a text, becomes the replacement character.
    whole = json.dumps(data, ensure_ascii=False).encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    data = json.loads(whole)
    key = data.get("id") if isinstance(data, dict) else None
    is_notification = isinstance(data, dict) and "method" in data and "id" not in data
    if is_notification or _is_id(key):
        for candidate in (line, whole.encode()):
            if _is_message(candidate):
                return candidate
    if is_notification:
        return None
    return _error(INVALID_REQUEST, "the line is not a JSON-RPC 2.0 message", key if _is_id(key) else None)


def _id_in(begin: bytes, end: bytes) -> object:
    """Return the id of a request of which not all can be read, None where it has none."""
    found = _ID.match(begin) or _LAST_ID.search(end[-_LAST_ID_BYTES:])
    return json.loads(found[1]) if found else None


def _is_id(key: object) -> bool:
    return isinstance(key, (str, int)) and not isinstance(key, bool)


def _is_message(line: bytes) -> bool:
    try:
        jsonrpc_message_adapter.validate_json(line, by_name=False)
    except ValueError:
        return False
    return True


def _number(digits: str) -> int | float:
    return int(digits) if len(digits) <= _MAX_DIGITS else float(digits)


def _error(code: int, message: str, key: object) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": key, "error": {"code": code, "message": message}}


class _Lines(io.RawIOBase):
    """What is `heard`, a readable line at a time; the others are answered where the SDK answers."""

    def __init__(self, heard: BinaryIO, said: BinaryIO) -> None:
        self._heard, self._said = heard, said
        self._line = io.BytesIO()

    def readable(self) -> bool:
        """See `io.IOBase.readable`."""
        return True

    def readinto(self, buffer: Any) -> int:
        """See `io.RawIOBase.readinto`; 0 at the end."""
        while not (taken := self._line.readinto(buffer)):
            line = self._heard.readline(MAX_LINE_BYTES)
            if not line:
                return 0
            if line.strip():
                self._take(line)
        return taken

    def _take(self, line: bytes) -> None:
        found: bytes | dict[str, Any] | None
        if len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
            begin = end = line
            while line and not line.endswith(b"\n"):
                line = self._heard.readline(MAX_LINE_BYTES)
                end = end[-_LAST_ID_BYTES:] + line
            why = f"the line is longer than {MAX_LINE_BYTES} bytes"
            found = _error(INVALID_REQUEST, why, _id_in(begin, end))
        else:
            found = readable(line)
        if isinstance(found, bytes):
            self._line = io.BytesIO(found.rstrip(b"\r\n") + b"\n")
        elif found is not None:
            # One call, which the buffer's own lock keeps apart from the SDK's answers.
            self._said.write(json.dumps(found).encode() + b"\n")
            self._said.flush()
