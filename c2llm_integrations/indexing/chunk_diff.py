"""Compare a tree with the rows of a collection: which chunks are new, moved or gone."""

from __future__ import annotations

import uuid
from array import array
from collections.abc import Iterable, Iterator
from enum import Enum
from heapq import nlargest
from os.path import commonprefix

import numpy as np
from numpy.typing import NDArray

from c2llm_integrations.code.chunk import CodeChunk, chunk_id
from c2llm_integrations.stores.ids import RecordId, packed
from c2llm_integrations.stores.rows import Stored

# Paths that a new chunk's text is looked for under (each takes microseconds, embedding milliseconds), and the vanished
# and changed paths that they are chosen from.
MAX_GUESSES, MAX_FORMER = 64, 2_000


class Change(Enum):
    """How a chunk differs from its row; a moved one has other lines, another symbol, kind or language."""

    NEW = "new"
    MOVED = "moved"
    NONE = "none"


class StoredRows:
    """The rows of one repository in a collection, about 30 bytes each."""

    def __init__(self, rows: Iterable[Stored] = ()) -> None:
        """Read all `rows`; their order means nothing."""
        ids, places, looks = bytearray(), array("l"), array("q")
        numbers: dict[str, int] = {}
        for row in rows:
            ids += _key(row.id)
            places.append(numbers.setdefault(row.path, len(numbers)))
            looks.append(_look(row))
        # As NumPy's strings of bytes, which lose NULs at their end: that changes neither order nor equality.
        self._ids, first = np.unique(np.frombuffer(ids, "S17"), return_index=True)
        self._places = np.frombuffer(places, places.typecode)[first]
        self._looks = np.frombuffer(looks, looks.typecode)[first]
        self._left = np.ones(len(first), bool)
        self._paths = list(numbers)

    def __len__(self) -> int:
        """How many rows there were at first."""
        return len(self._ids)

    def __contains__(self, id: str) -> bool:
        """Return whether there was a row of that id at first."""
        return self._place(id) is not None

    def among(self, keys: NDArray[np.bytes_]) -> int:
        """Count the rows whose packed id is in `keys`, those of chunks: UUIDs."""
        return int(np.isin(np.char.add(b"u", keys), self._ids).sum())

    @property
    def paths(self) -> list[str]:
        """The paths that rows have."""
        return self._paths

    def take(self, chunk: CodeChunk) -> Change:
        """Return how a chunk differs from its row, and remove that row, if any, from those that are left."""
        at = self._place(chunk.id)
        if at is None:
            return Change.NEW
        self._left[at] = False
        return Change.NONE if self._looks[at] == _look(chunk) else Change.MOVED

    def left(self) -> Iterator[tuple[RecordId, str]]:
        """Yield id and path of the rows that no chunk has taken."""
        for at in np.flatnonzero(self._left):
            yield _id(self._ids[at]), self._paths[self._places[at]]

    def _place(self, id: str) -> int | None:
        key = np.bytes_(_key(id).rstrip(b"\0"))
        at = int(self._ids.searchsorted(key))
        return at if at < len(self._ids) and self._ids[at] == key else None


class SameTexts:
    """Find the row that has a new chunk's text under another path: code moves, and a vector depends on the text alone.

    A row's id follows from its path and text, so a guess at the former path is right if such a row exists.
    """

    def __init__(self, held: StoredRows, files: Iterable[str], changed: Iterable[str] = ()) -> None:
        """Take the rows, the paths that the tree has now, and the paths whose files may have lost code."""
        self._held = held
        self._named: dict[str, list[str]] = {}
        for path in held.paths:
            self._named.setdefault(path.rpartition("/")[2], []).append(path)
        gone = set(held.paths) - set(files)
        changed = dict.fromkeys(path for path in changed if path not in gone)
        self._former = [*sorted(gone), *changed][:MAX_FORMER]
        self._guesses: dict[str, list[str]] = {}

    def find(self, chunk: CodeChunk) -> str | None:
        """Return the id of a row with the chunk's text, None if none was found."""
        guesses = self._guesses.get(chunk.path)
        if guesses is None:
            guesses = self._guesses[chunk.path] = self._guess(chunk.path)
        for at, path in enumerate(guesses):
            id = chunk_id(chunk.repository, path, chunk.text, 0)
            if id in self._held:
                guesses.insert(0, guesses.pop(at))  # where the file's other chunks will have been
                return id
        return None

    def _guess(self, path: str) -> list[str]:
        """Return the likeliest former paths of a file, best first: of its name, gone, or changed."""

        def likeness(other: str) -> int:
            begin, end = commonprefix((path, other)), commonprefix((path[::-1], other[::-1]))  # noqa: RUF071 (characters)
            return len(begin) + 2 * len(end)

        known = self._named.get(path.rpartition("/")[2], [])
        return nlargest(MAX_GUESSES, {path, *known, *self._former}, likeness)


def _key(id: RecordId) -> bytes:
    """Return 17 bytes for a row's id: an integer is not the UUID of that number."""
    return (b"i" if isinstance(id, int) else b"u") + packed(id)


def _id(key: bytes) -> RecordId:
    number = int.from_bytes(key[1:].ljust(16, b"\0"), "big")
    return number if key[:1] == b"i" else str(uuid.UUID(int=number))


def _look(row: Stored | CodeChunk) -> int:
    """Return a 64-bit hash of what can change in a row while its text and path stay."""
    return hash((row.language, row.symbol, row.kind, row.start_line, row.end_line))
