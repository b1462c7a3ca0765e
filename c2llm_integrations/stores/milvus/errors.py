"""Milvus's errors in one line, with what to do about them."""

from __future__ import annotations

from typing import Any

from pymilvus.exceptions import DataNotMatchException, ParamError

# Milvus's codes, of the server and of Milvus Lite.
MISSING = {100}  # no such collection or, on Lite, alias
UNLOADED = {101}
INVALID = {6, 1100, 1101}
# Unavailable, too many requests, not fully loaded, channel or node not there yet: as after a restart.
TRANSIENT = {2, 4, 103, 503, 901, 902, 905, "UNAVAILABLE", "DEADLINE_EXCEEDED"}
# The same under the numbers of everything else that goes wrong.
UNEXPECTED = {1, 65535}
# A server that restarts; Milvus Lite, where two of its threads change one collection's properties at the same moment.
PASSING = ("node not match", "node not found", "not ready", "not healthy", "schema.json.tmp")

# What one part of a server says of the answer of another, under those numbers.
TOO_MUCH = ("deadline exceeded", "resourceexhausted", "larger than max")


def code_of(error: BaseException) -> int | str | None:
    """Return Milvus's number or the name of gRPC's status, None if the error has neither."""
    code: Any = getattr(error, "code", None)
    code = code() if callable(code) else code
    return int(code) if isinstance(code, int) else getattr(code, "name", None)


def pause_after(error: Exception) -> float | None:
    """Return 0.0 if another try may succeed, None if the same error would come again.

    While a server cannot be reached or limits the rate, pymilvus tries again by itself until the call's time is over.
    """
    if is_refusal(error):  # what pymilvus refuses before sending has the number 1 too
        return None
    code = code_of(error)
    passing = code in UNEXPECTED and any(words in str(error) for words in PASSING)
    return 0.0 if passing or code in TRANSIENT or getattr(error, "retriable", False) else None


def is_missing(error: BaseException) -> bool:
    """Return whether the error says that the collection does not exist."""
    return code_of(error) in MISSING


def is_unloaded(error: BaseException) -> bool:
    """Return whether the error says that the collection must be loaded first."""
    return code_of(error) in UNLOADED


def is_too_large(error: BaseException) -> bool:
    """Return whether a message was over the 64 MB that servers send and take."""
    return code_of(error) == "RESOURCE_EXHAUSTED" and "larger than max" in reason(error)


def is_too_much(error: BaseException) -> bool:
    """Return whether an answer was too large, or took longer or more memory than there was."""
    return code_of(error) in {"DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED"} or (
        code_of(error) in UNEXPECTED and any(words in str(error).lower() for words in TOO_MUCH)
    )


def is_refusal(error: BaseException) -> bool:
    """Return whether a write was refused for what is in it."""
    asked = isinstance(error, (DataNotMatchException, ParamError)) or bool(getattr(error, "is_input_error", False))
    return asked or code_of(error) in INVALID or is_too_large(error)


def reason(error: BaseException) -> str:
    """Return one line of what went wrong, without the code and the calls that are wrapped around it."""
    details = getattr(error, "details", None)
    said = str(getattr(error, "message", None) or (details() if callable(details) else error))
    if "stack trace:" in said:  # of Go code, each try of it; the last one tells
        said = said.rpartition("attempt #")[2].partition(": ")[2]
    lines = said.strip().splitlines()
    return lines[0] if lines else type(error).__name__
