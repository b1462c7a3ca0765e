"""A sample of items whose number is not known."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import TypeVar

_T = TypeVar("_T")


def sample(items: Iterable[_T], size: int, seed: int = 0) -> list[_T]:
    """Return up to `size` of the items in random order, each equally likely to be among them."""
    chosen: list[_T] = []
    chance = random.Random(seed)
    for seen, item in enumerate(items):
        place = chance.randrange(seen + 1)
        if seen < size:
            chosen.append(item)
            chosen[place], chosen[-1] = chosen[-1], chosen[place]
        elif place < size:
            chosen[place] = item
    return chosen
