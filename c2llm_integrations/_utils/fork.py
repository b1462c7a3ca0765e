"""Objects in a forked process, where their threads and connections still belong to the parent."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar
from weakref import WeakSet

_T = TypeVar("_T")


def watched(call: Callable[[_T], None]) -> WeakSet[_T]:
    """Return an empty set; `call` gets each object that is in it, in every process that is forked from this one."""
    objects: WeakSet[_T] = WeakSet()

    def call_all() -> None:
        for one in objects:
            call(one)

    if hasattr(os, "register_at_fork"):  # Windows forks nothing
        os.register_at_fork(after_in_child=call_all)
    return objects
