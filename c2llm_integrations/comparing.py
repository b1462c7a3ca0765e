"""A tree against the rows that a collection holds of it: what is new, what has moved, what is gone."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from enum import Enum

import numpy as np

from c2llm_integrations.code.chunk import CodeChunk
from c2llm_integrations.stores.rows import Stored, packed, unpacked


class Change(Enum):
    """What a chunk is to a collection; a moved one is there with other lines, symbol, kind or language."""

    NEW = "new"
    MOVED = "moved"
    NONE = "none"


class Held:
    """The rows of one repository in a collection, about 30 bytes each."""

    def __init__(self, rows: Iterable[Stored] = ()) -> None:
        """Read all `rows`; their order means nothing."""
        ids, places, looks = bytearray(), array("l"), array("q")
        numbers: dict[str, int] = {}
        for row in rows:
            ids += packed(row.id)
            places.append(numbers.setdefault(row.path, len(numbers)))
            looks.append(_look(row))
        # As NumPy's strings of bytes, which lose NULs at their end: that changes neither order nor equality.
        self._ids, first = np.unique(np.frombuffer(ids, "S16"), return_index=True)
        self._places = np.frombuffer(places, places.typecode)[first]
        self._looks = np.frombuffer(looks, looks.typecode)[first]
        self._left = np.ones(len(first), bool)
        self._paths = list(numbers)

    def __len__(self) -> int:
        """How many rows there were at first."""
        return len(self._ids)

    def take(self, chunk: CodeChunk) -> Change:
        """Say what a chunk is to the collection, and take its row, if any, from those that are left."""
        key = np.bytes_(packed(chunk.id).rstrip(b"\0"))
        at = int(self._ids.searchsorted(key))
        if at == len(self._ids) or self._ids[at] != key:
            return Change.NEW
        self._left[at] = False
        return Change.NONE if self._looks[at] == _look(chunk) else Change.MOVED

    def left(self) -> Iterator[tuple[str, str]]:
        """Yield id and path of the rows that no chunk has taken."""
        for at in np.flatnonzero(self._left):
            yield unpacked(self._ids[at]), self._paths[self._places[at]]


def _look(row: Stored | CodeChunk) -> int:
    """All that may change of a row without its text or path, in 64 bits."""
    return hash((row.language, row.symbol, row.kind, row.start_line, row.end_line))
