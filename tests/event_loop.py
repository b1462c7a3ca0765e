"""What work leaves of an event loop for others."""

import asyncio
import time
from collections.abc import Coroutine
from typing import Any


async def run_beside(work: Coroutine[Any, Any, Any]) -> tuple[Any, int, float]:
    """Return the result, how many turns others got meanwhile, and the loop's longest turn.

    Work that holds the loop until it is done leaves one turn, however fast the machine; work that does not leaves more.
    A turn is measured in seconds of the thread's processor time, so what another process takes is not counted.
    """
    task = asyncio.ensure_future(work)
    turns, longest, last = 0, 0.0, time.thread_time()
    while not task.done():
        await asyncio.sleep(0.001)
        turns, now = turns + 1, time.thread_time()
        longest, last = max(longest, now - last), now
    return task.result(), turns, longest
