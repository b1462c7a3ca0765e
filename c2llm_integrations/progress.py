"""How long work says how far it is."""

from __future__ import annotations

from collections.abc import Callable

# What is done, how much there is in all (None while nobody knows), and what is being done.
Progress = Callable[[int, int | None, str], None]


def silent(_done: int, _total: int) -> None:
    """Say nothing: an embedder that is given no `progress` would draw a bar on the terminal."""
