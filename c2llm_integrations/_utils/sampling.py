"""A random sample of items whose number is not known in advance."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Generic, TypeVar

_T = TypeVar("_T")


class Reservoir(Generic[_T]):
    """Up to `size` of the `items` added, in random order, each equally likely to be among them."""

    def __init__(self, size: int, seed: int = 0) -> None:
        self.items: list[_T] = []
        self._size, self._added, self._random = size, 0, random.Random(seed)

    def add(self, item: _T) -> None:
        """Perhaps keep an item, in place of another one once there are `size`."""
        self._added += 1
        place = self._random.randrange(self._added)
        if self._added <= self._size:
            self.items.append(item)
            self.items[place], self.items[-1] = item, self.items[place]
        elif place < self._size:
            self.items[place] = item


def sample(items: Iterable[_T], size: int, seed: int = 0) -> list[_T]:
    """Return up to `size` of the items in random order, each equally likely to be among them."""
    chosen = Reservoir[_T](size, seed)
    for item in items:
        chosen.add(item)
    return chosen.items
