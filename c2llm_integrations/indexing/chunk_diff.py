"""Compare a tree with the rows of a collection: which chunks are new, moved or gone."""

from __future__ import annotations

import hashlib
import uuid
from array import array
from collections.abc import Iterable, Iterator, Sequence
from enum import Enum
from functools import cached_property
from heapq import nlargest
from os.path import commonprefix

import numpy as np
from numpy.typing import NDArray

from c2llm_integrations.code.chunk import CodeChunk, chunk_id
from c2llm_integrations.stores.ids import RecordId, packed
from c2llm_integrations.stores.row_fields import Stored

# Paths that a new chunk's text is looked for under (each takes microseconds, embedding milliseconds), and the vanished
# and changed paths that they are chosen from.
MAX_GUESSES, MAX_FORMER = 64, 2_000


# Bytes of `key_of`.
KEY_BYTES = 17


def key_of(id: RecordId) -> bytes:
    """Return what a row's id is compared by: an integer is not the UUID of that number."""
    return (b"i" if isinstance(id, int) else b"u") + packed(id)


class Change(Enum):
    """How a chunk differs from its row; a moved one has other lines, another symbol, kind or language."""

    NEW = "new"
    MOVED = "moved"
    NONE = "none"


class StoredKeys:
    """The rows of one source in a collection, and which of them a run has taken."""

    def __init__(self, keys: bytes | bytearray) -> None:
        """Take what `key_of` gives for each row, in any order; `_first` are the places of those that are kept."""
        # As NumPy's strings of bytes, which lose NULs at their end: that changes neither order nor equality.
        self._keys, self._first = np.unique(np.frombuffer(keys, f"S{KEY_BYTES}"), return_index=True)
        self._left = np.ones(len(self._keys), bool)

    def __len__(self) -> int:
        """How many rows there were at first."""
        return len(self._keys)

    def __contains__(self, id: RecordId) -> bool:
        """Return whether there was a row of that id at first."""
        return self._place(id) >= 0

    def among(self, keys: NDArray[np.bytes_]) -> int:
        """Count the rows whose packed id is in `keys`."""
        whole = self._keys.view("S1").reshape(-1, KEY_BYTES)[:, 1:]
        return int(np.isin(np.ascontiguousarray(whole).view(f"S{KEY_BYTES - 1}"), keys).sum())

    def take_all(self, ids: Sequence[RecordId]) -> NDArray[np.intp]:
        """Count the rows of these ids as taken, and return the place of each, -1 for one that is not there."""
        places = self._places(ids)
        self._left[places[places >= 0]] = False
        return places

    def _left_at(self) -> Iterator[tuple[int, RecordId]]:
        """Yield place and id of the rows that are not taken."""
        for at in map(int, np.flatnonzero(self._left)):
            key = self._keys[at].ljust(KEY_BYTES, b"\0")
            number = int.from_bytes(key[1:], "big")
            yield at, number if key[:1] == b"i" else str(uuid.UUID(int=number))

    def _place(self, id: RecordId) -> int:
        """Return the place of a row, -1 if there is none: in a third of the time that `_places` takes for one."""
        key = np.bytes_(key_of(id).rstrip(b"\0"))
        at = int(self._keys.searchsorted(key))
        return at if at < len(self._keys) and self._keys[at] == key else -1

    def _places(self, ids: Sequence[RecordId]) -> NDArray[np.intp]:
        if not len(self._keys):
            return np.full(len(ids), -1)
        keys = np.frombuffer(b"".join(map(key_of, ids)), self._keys.dtype)
        at = np.minimum(self._keys.searchsorted(keys), len(self._keys) - 1)
        return np.where(self._keys[at] == keys, at, -1)


class StoredRows(StoredKeys):
    """The rows of one repository in a collection, about 30 bytes each."""

    def __init__(self, rows: Iterable[Stored] = ()) -> None:
        """Read all `rows`; their order means nothing. `paths` are those that they have."""
        ids, places, looks = bytearray(), array("l"), array("Q")
        self._numbers: dict[str, int] = {}  # of paths
        for row in rows:
            ids += key_of(row.id)
            places.append(self._numbers.setdefault(row.path, len(self._numbers)))
            looks.append(_look(row))
        super().__init__(ids)
        self._files = np.frombuffer(places, places.typecode)[self._first]
        self._looks = np.frombuffer(looks, np.uint64)[self._first]
        self.paths = list(self._numbers)

    def take(self, chunk: CodeChunk) -> Change:
        """Return how a chunk differs from its row, and remove that row, if any, from those that are left."""
        at = self._place(chunk.id)
        if at < 0:
            return Change.NEW
        self._left[at] = False
        return Change.NONE if self._looks[at] == _look(chunk) else Change.MOVED

    def take_file(self, path: str, digest: str) -> int:
        """Take all rows of a file and return their number, if their `rows_digest` is this one; else 0."""
        number = self._numbers.get(path)
        if number is None or not digest:
            return 0
        order, starts = self._by_file
        places = order[starts[number] : starts[number + 1]]
        if _digest(self._keys[places].tobytes(), self._looks[places].tobytes()) != digest:
            return 0
        self._left[places] = False
        return len(places)

    @cached_property
    def _by_file(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Places of rows, file after file and by id in each, and where each file's begin."""
        order = np.argsort(self._files, kind="stable")
        return order, self._files[order].searchsorted(np.arange(len(self.paths) + 1))

    def left(self) -> Iterator[tuple[RecordId, str]]:
        """Yield id and path of the rows that no chunk has taken."""
        for at, id in self._left_at():
            yield id, self.paths[self._files[at]]


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


def rows_digest(chunks: Sequence[CodeChunk]) -> str:
    """Return a digest of what is compared of the rows of one file's chunks."""
    rows = sorted((key_of(chunk.id), _look(chunk)) for chunk in chunks)
    return _digest(b"".join(key for key, _ in rows), array("Q", [look for _, look in rows]).tobytes())


def _digest(keys: bytes, looks: bytes) -> str:
    return hashlib.blake2b(keys + looks, digest_size=16).hexdigest()


def _look(row: Stored | CodeChunk) -> int:
    """Return a 64-bit hash of what can change in a row while its text and path stay, the same in every process."""
    look = f"{row.language}\0{row.symbol}\0{row.kind}\0{row.start_line}\0{row.end_line}"
    return int.from_bytes(hashlib.blake2b(look.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
