"""Compute batches in parallel: on a CPU one thread each, on a GPU one batch prepared while another is computed.

Also what that asks of the allocator and of PyTorch's math functions.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from functools import cache
from itertools import islice
from threading import Barrier, RLock
from typing import TypeVar

import torch

_Item = TypeVar("_Item")
_T = TypeVar("_T")

GPU_LANES = 2
# PyTorch's setting is the process's for a moment while lanes begin: nobody else may take it for the caller's then.
_SETTING = RLock()

# From malloc.h: sizes from which a block is the system's own, and from which free memory goes back to the system.
M_MMAP_THRESHOLD, M_TRIM_THRESHOLD = -3, -1
KEPT_BYTES = 256 * 2**20
# From which size a block is the system's own; glibc up to 2.34 or so takes the second only.
LARGE_BLOCK_BYTES = 64 * 2**20, 32 * 2**20


def lane_count(device: torch.device) -> int:
    """Return how many batches go side by side on a device."""
    with _SETTING:
        return torch.get_num_threads() if device.type == "cpu" else GPU_LANES


def lanes(device: torch.device) -> ThreadPoolExecutor:
    """Start threads, one for each lane of a device; PyTorch's setting elsewhere stays.

    On a CPU each computes on itself alone: threads that share a batch wait for each other in every layer.
    """
    count = lane_count(device)
    started = Barrier(count + 1)

    def start() -> None:
        try:
            if device.type == "cuda" and torch.cuda.is_available():
                # On a shared one, a lane that waits for its vectors would also wait for what others have queued since.
                stream = torch.cuda.Stream(device)
                stream.wait_stream(torch.cuda.default_stream(device))  # on which the weights were copied
                torch.cuda.set_stream(stream)
            torch.set_num_threads(1)  # holds for the calling thread, and for those that ask for it first after this
            torch.get_num_threads()  # has the thread take it now, not at its first work, when it is another again
        finally:
            started.wait()

    threads = ThreadPoolExecutor(count, "c2llm-lane")
    with _SETTING:
        others = torch.get_num_threads()
        for _ in range(count):
            threads.submit(start)
        started.wait()
        torch.set_num_threads(others)
    return threads


def run(
    threads: ThreadPoolExecutor, call: Callable[[_Item], _T], items: Iterable[_Item], count: int
) -> Iterator[tuple[_Item, _T]]:
    """Yield each item and what `call` returns for it, as they come.

    At most one more than `count` wait at a time, so that few results are held and an interrupted run ends soon.
    """
    items = iter(items)
    waiting: dict[Future[_T], _Item] = {}
    try:
        while True:
            for item in islice(items, count + 1 - len(waiting)):
                waiting[threads.submit(call, item)] = item
            if not waiting:
                return
            for ended in wait(waiting, return_when=FIRST_COMPLETED).done:
                yield waiting.pop(ended), ended.result()
    finally:
        for future in waiting:
            future.cancel()


@cache
def settle_functions() -> None:
    """Call once, alone, each function that PyTorch on a CPU takes from Intel's vector library.

    Of several threads that make a function's first call at the same time, one may get a kernel of low precision, once,
    without a word (https://github.com/pytorch/pytorch/issues/188792).
    """
    one = torch.ones(1)
    for function in (torch.sin, torch.cos, torch.exp, torch.log, torch.sqrt, torch.tanh, torch.erf):
        function(one)


@cache
def keep_freed_memory() -> bool:
    """Make glibc keep up to `KEPT_BYTES` of freed memory for the next batch; return whether it does.

    By default glibc gives a layer's activations back to the system, which clears every page when the next layer asks
    for them again: a quarter of the speed on a CPU. Set when a model is loaded on a CPU, never by an import.
    """
    if sys.platform == "linux":
        with suppress(AttributeError, OSError):  # musl has no such settings
            return _set_thresholds(ctypes.CDLL(None).mallopt)
    return False


def _set_thresholds(mallopt: Callable[[int, int], int]) -> bool:
    """Set both thresholds or neither: the second alone would return every large block to the system."""
    accepted = any(mallopt(M_MMAP_THRESHOLD, size) for size in LARGE_BLOCK_BYTES)
    return accepted and bool(mallopt(M_TRIM_THRESHOLD, KEPT_BYTES))
