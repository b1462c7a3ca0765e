"""Retry after temporary failures: a busy or restarting server, a lost connection. Knows no database."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

_T = TypeVar("_T")

# The first pause, and the longest one that nobody asked for. Each doubles the one before.
FIRST_SECONDS = 0.2
LONGEST_SECONDS = 10.0
# Nothing is begun again once this much time has passed since the first try: a server may take a minute to restart.
LIMIT_SECONDS = 120.0


def retrying(
    call: Callable[[], _T], pause_after: Callable[[Exception], float | None], *, limit: float = LIMIT_SECONDS
) -> _T:
    """Return what `call` returns, trying again while it fails for a moment; else raise its last error.

    `pause_after` returns None for an error that would come again, else the least seconds to wait: what the server asked
    for (`Retry-After`) or 0.0. A wait that ends after `limit` seconds is not begun. `call` must be idempotent: it may
    have succeeded although it raised.
    """
    deadline = time.monotonic() + limit
    backoff = FIRST_SECONDS
    while True:
        try:
            return call()
        except Exception as error:
            asked = pause_after(error)
            if asked is None:
                raise
            # Random, so that many writers do not come back all at once.
            pause = asked + random.uniform(0, backoff)
            if time.monotonic() + pause > deadline:
                raise
        time.sleep(pause)
        backoff = min(2 * backoff, LONGEST_SECONDS)


def seconds_of(header: str | None) -> float:
    """Return what a Retry-After header asks for in seconds, 0.0 without one or for a date."""
    try:
        return max(0.0, float(header or 0))
    except ValueError:
        return 0.0
