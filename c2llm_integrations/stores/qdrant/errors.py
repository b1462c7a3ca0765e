"""What went wrong at a Qdrant server: in one line, and whether it is worth another try."""

from __future__ import annotations

import json
from typing import Any

import httpx

from c2llm_integrations._utils.retry import seconds_of
from c2llm_integrations.errors import MissingExtra

try:
    from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
    from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse
except ImportError as error:
    raise MissingExtra("qdrant-client", "qdrant") from error

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


def is_gone(error: BaseException) -> bool:
    """Return whether the error says that the collection does not exist; in memory that is a ValueError."""
    return status_of(error) == 404 or (isinstance(error, ValueError) and str(error).endswith("not found"))


def reason(error: BaseException) -> str:
    """Return one line that says what went wrong, as the server put it."""
    if isinstance(error, UnexpectedResponse):
        told = f"{error.status_code} ({error.reason_phrase}): {_told(error.content)}"
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
