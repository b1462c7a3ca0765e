"""Texts of many lengths → batches of bounded work."""

from __future__ import annotations

from collections.abc import Iterator, Sequence


def batches(lengths: Sequence[int], budget: int, *, padded: bool = False) -> Iterator[list[int]]:
    """Yield lists of indices, longest texts first, each at most `budget` tokens (a longer text stands alone).

    Like lengths come together. With `padded`, a batch costs its size times its longest text, else the sum.
    Every index is yielded exactly once.
    """
    batch: list[int] = []
    used = 0
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        cost = lengths[batch[0]] if padded and batch else lengths[index]
        if batch and used + cost > budget:
            yield batch
            batch, used = [], 0
            cost = lengths[index]
        batch.append(index)
        used += cost
    if batch:
        yield batch
