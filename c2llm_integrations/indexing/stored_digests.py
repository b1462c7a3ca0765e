"""The ids and digests of a source's rows, and a compact set of the ids that a run has seen."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from c2llm_integrations.indexing.chunk_diff import Change, StoredKeys, key_of
from c2llm_integrations.stores.ids import RecordId
from c2llm_integrations.stores.row_fields import Stored

# Hexadecimal digits of each half of a digest.
HALF = 16
_TWO = struct.Struct(">QQ")
_MIXER, _WORD = 0x9E3779B97F4A7C15, 2**64 - 1


class StoredDigests(StoredKeys):
    """The rows of one source in a collection, 34 bytes each."""

    def __init__(self, rows: Iterable[Stored] = ()) -> None:
        """Read all `rows`; their order means nothing."""
        ids, texts, metadata = bytearray(), array("Q"), array("Q")
        for row in rows:
            ids += key_of(row.id)
            text, other = _halves(row.digest)
            texts.append(text)
            metadata.append(other)
        super().__init__(ids)
        self._texts = np.frombuffer(texts, np.uint64)[self._first]
        self._metadata = np.frombuffer(metadata, np.uint64)[self._first]

    def take(self, ids: Sequence[RecordId], digests: Sequence[str]) -> list[Change | None]:
        """Return how records differ from their rows, None for one without a row; the rows count as taken.

        NEW is a row whose text differs, MOVED one of which only the metadata does.
        """
        if not len(self):
            return [None] * len(ids)
        places = self.take_all(ids)
        changes: list[Change | None] = []
        for place, digest in zip(places, digests, strict=True):
            if place < 0:
                changes.append(None)
            elif self._texts[place] != int(digest[:HALF], 16):
                changes.append(Change.NEW)
            else:
                changes.append(Change.NONE if self._metadata[place] == int(digest[HALF:], 16) else Change.MOVED)
        return changes

    def keep(self, id: RecordId) -> None:
        """Count the row of this id, if there is one, as taken."""
        self.take_all([id])

    def left(self) -> Iterator[RecordId]:
        """Yield the ids of the rows that no record has taken."""
        return (id for _, id in self._left_at())


def _halves(digest: str) -> tuple[int, int]:
    """Return the halves of a digest as numbers, 0 for one that is not one: others may write anything into a row."""
    try:
        raw = bytes.fromhex(digest)
    except ValueError:
        raw = b""
    return _TWO.unpack(raw) if len(raw) == HALF else (0, 0)


class KeySet:
    """A set of ids that takes 16 to 32 bytes each, where Python's own takes about 100.

    It keeps 64-bit hashes in an open table: of ten million ids, two are taken for one with a chance of 1 in 400,000.
    """

    def __init__(self) -> None:
        self._table = array("Q", bytes(8 * 1024))
        self._held = 0

    def __contains__(self, id: RecordId) -> bool:
        return self._table[self._place(_hash(id))] != 0

    def add(self, id: RecordId) -> bool:
        """Add an id; say whether it is new."""
        key, table = _hash(id), self._table
        place = self._place(key)
        if table[place]:
            return False
        table[place] = key
        self._held += 1
        if 2 * self._held > len(table):
            self._grow()
        return True

    def _place(self, key: int) -> int:
        """Return where a key is, or would be put."""
        table = self._table
        mask = len(table) - 1
        place = key & mask
        while (found := table[place]) and found != key:
            place = (place + 1) & mask
        return place

    def _grow(self) -> None:
        before, self._table = self._table, array("Q", bytes(16 * len(self._table)))
        for key in filter(None, before):
            self._table[self._place(key)] = key


def _hash(id: RecordId) -> int:
    """Return 64 bits that are not 0; consecutive numbers are spread."""
    number = id if isinstance(id, int) else hash(id)
    return ((number + 1) * _MIXER & _WORD) or 1
