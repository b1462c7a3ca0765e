#!/usr/bin/env python3
"""Keep track of what is on the shelves."""

from __future__ import annotations

import csv
from dataclasses import dataclass

LIMIT = 40


# A shelf is a place with a code, and it never moves.
@dataclass(frozen=True)
class Shelf:
    """One place in the warehouse."""

    code: str
    depth: int = 1


class Inventory:
    """All shelves with the articles on them, as the nightly stock-taking found them.

    Amounts are pieces, never boxes. An article may lie on several shelves; the sum is what counts for orders,
    and a shelf that holds nothing is kept, because the next delivery goes there first.
    """

    def __init__(self, shelves: list[Shelf]) -> None:
        self.shelves = {shelf.code: shelf for shelf in shelves}
        self.amounts: dict[tuple[str, str], int] = {}
        self.waiting: list[tuple[str, int]] = []
        self.log: list[str] = []

    @property
    def is_empty(self) -> bool:
        return not any(self.amounts.values())

    # Boxes are opened before they come here.
    def put(self, code: str, article: str, pieces: int) -> None:
        """Add pieces of an article to a shelf that exists and has room for them."""
        if code not in self.shelves:
            raise KeyError(f"no shelf {code}; known are {sorted(self.shelves)}")
        if self.amounts.get((code, article), 0) + pieces > LIMIT * self.shelves[code].depth:
            self.waiting.append((article, pieces))
            return
        self.amounts[code, article] = self.amounts.get((code, article), 0) + pieces
        self.log.append(f"+{pieces} {article} on {code}")

    def take(self, article: str, pieces: int) -> list[tuple[str, int]]:
        """Take pieces from the fullest shelves first; return how many came from where."""

        def fullest(item: tuple[tuple[str, str], int]) -> int:
            (code, _), amount = item
            return -amount * self.shelves[code].depth

        taken = []
        for (code, name), amount in sorted(self.amounts.items(), key=fullest):
            if name != article or not pieces:
                continue
            here = min(amount, pieces)
            self.amounts[code, name] -= here
            pieces -= here
            taken.append((code, here))
        return taken


def read_counts(path: str) -> dict[str, int]:
    """Read a two-column table of article and amount, skipping lines that are not filled in."""
    with open(path, newline="", encoding="utf-8") as file:
        rows = [row for row in csv.reader(file) if len(row) == 2 and row[1].isdigit()]
    return {article: int(amount) for article, amount in rows}


if __name__ == "__main__":
    print(read_counts("counts.csv"))
