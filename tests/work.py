"""How much work a call is, whatever else the machine does."""

import sys
from collections.abc import Callable
from typing import Any


def calls(function: Callable[..., Any], *arguments: Any, **options: Any) -> int:
    """Return how many functions, Python's and C's, are called in a call."""
    count = 0

    def seen(_frame: Any, event: str, _argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(seen)
    try:
        function(*arguments, **options)
    finally:
        sys.setprofile(before)
    return count
