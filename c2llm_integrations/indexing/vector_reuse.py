"""Reuse vectors of equal texts: of moved code, of a repository's other worktrees, and of an index a team shares."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from heapq import nlargest
from os.path import commonprefix
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from typing_extensions import Self

from c2llm_integrations.code.chunk import CodeChunk, chunk_id
from c2llm_integrations.code.exclude import INDEX_FOLDER
from c2llm_integrations.code.git import GitFolder
from c2llm_integrations.errors import StoreError
from c2llm_integrations.indexing.row_diff import StoredRows
from c2llm_integrations.stores import open_store, own_index
from c2llm_integrations.stores.bulk_loader import MIN_COSINE
from c2llm_integrations.stores.records import Vector
from c2llm_integrations.stores.vector_store import VectorStore

if TYPE_CHECKING:
    from c2llm_integrations.indexing.options import VectorsFrom
    from c2llm_integrations.model.embedder import C2LLMEmbedder

# Paths that a new chunk's text is looked for under (each takes microseconds, embedding milliseconds), and the vanished
# and changed paths that they are chosen from.
MAX_GUESSES, MAX_FORMER = 64, 2_000
# Embedding fewer chunks is faster than reading another index.
WORTHWHILE = 64
# Seconds to wait for another worktree's index; it only saves work.
WORKTREE_WAIT_SECONDS = 5.0
# Texts of each index that are embedded to check that its vectors are this model's.
CHECKED = 4


def known_vectors(chunks: Sequence[CodeChunk], *sources: VectorsFrom) -> list[Vector | None]:
    """Return the vector of each chunk from the first source that has it, else None."""
    found: list[Vector | None] = [None] * len(chunks)
    for source in sources:
        rest = [at for at, vector in enumerate(found) if vector is None]
        if rest:
            for at, vector in zip(rest, source([chunks[at] for at in rest]), strict=True):
                found[at] = vector if _is_usable(vector) else None
    return found


def _is_usable(vector: Vector | None) -> bool:
    """Return whether a vector can be stored: another program may have written zeros, which have no direction."""
    return vector is not None and bool(np.isfinite(vector).all()) and bool(vector.any())


class SameTexts:
    """Find rows that have a new chunk's text under another path: code moves, and a vector depends on the text alone.

    A row's id follows from its path and text, so a guess at the former path is right if such a row exists.
    """

    def __init__(self, store: VectorStore, held: StoredRows, files: Iterable[str], changed: Iterable[str] = ()) -> None:
        """Take the store and its rows, the paths that the tree has now, and those whose files may have lost code."""
        self._store = store
        self._held = held
        self._named: dict[str, list[str]] = {}
        for path in held.paths:
            self._named.setdefault(path.rpartition("/")[2], []).append(path)
        gone = set(held.paths) - set(files)
        changed = dict.fromkeys(path for path in changed if path not in gone)
        self._former = [*sorted(gone), *changed][:MAX_FORMER]
        self._guesses: dict[str, list[str]] = {}

    def vectors(self, chunks: Sequence[CodeChunk]) -> list[Vector | None]:
        """Return the vector of a row that holds the text of each chunk, None if none was found."""
        ids = [self._find(chunk) for chunk in chunks]
        vectors = self._store.vectors([id for id in dict.fromkeys(ids) if id is not None])
        return [None if id is None else vectors.get(id) for id in ids]

    def _find(self, chunk: CodeChunk) -> str | None:
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


class SharedIndex:
    """A collection that somebody else fills, such as a team's on a server: it is read, and never written.

    `copied` counts the vectors taken. The same chunk of the same repository has the same id everywhere, so vectors are
    asked for by id, a batch at a time; the text is always the checkout's own.
    """

    def __init__(self, store: VectorStore, embedder: C2LLMEmbedder, datatype: str = "float32") -> None:
        """Take the open collection, the model, and the datatype that vectors are to be stored in.

        Raises:
            StoreError: There is no such collection, or its vectors are kept in another datatype.
            SpecMismatch: It was made with another model, or its vectors have another width.

        """
        self.copied = 0
        self._store = store
        self._embedder = embedder
        self._unchecked = CHECKED
        if store.spec is None:
            raise StoreError(f"{store.url} holds no collection {store.collection!r} to take vectors from")
        _require_usable(store, embedder, datatype)

    def vectors(self, chunks: Sequence[CodeChunk]) -> list[Vector | None]:
        """Return the vector of each chunk that the collection holds, else None.

        Raises:
            StoreError: The collection cannot be read, or a vector is not what the model gives for its text.

        """
        held = self._store.vectors(dict.fromkeys(chunk.id for chunk in chunks))
        held = {id: vector for id, vector in held.items() if _is_usable(vector)}
        found = [held.get(chunk.id) for chunk in chunks]
        if self._unchecked and held:
            sample = {chunk.text: held[chunk.id] for chunk in chunks if chunk.id in held}
            sample = dict(list(sample.items())[: self._unchecked])
            _require_own(sample, self._embedder, f"{self._store.collection!r} of {self._store.url}")
            self._unchecked -= len(sample)
        self.copied += sum(vector is not None for vector in found)
        return found


class Worktrees:
    """The indexes of a repository's other worktrees, read when first needed: a `with` block around one run.

    `copied` counts the vectors taken; `notes` says in lines which indexes were not used.
    """

    def __init__(self, root: Path, collection: str, embedder: C2LLMEmbedder, datatype: str = "float32") -> None:
        """Take the checkout and collection to fill, the model, and the datatype that its vectors are stored in."""
        self.copied = 0
        self.notes: list[str] = []
        self._root = root
        self._collection = collection
        self._embedder = embedder
        self._datatype = datatype
        self._stores: list[tuple[VectorStore, dict[bytes, str]]] | None = None
        self._opened = ExitStack()

    def vectors(self, chunks: Sequence[CodeChunk]) -> list[Vector | None]:
        """Return for each chunk the vector that the embedder would give its text as a document, or None."""
        found: list[Vector | None] = [None] * len(chunks)
        if self._stores is None:
            if len(chunks) < WORTHWHILE:
                return found
            self._stores = list(self._read())
        keys = [_key(chunk.text) for chunk in chunks]
        for store, ids in self._stores:
            wanted = {place: ids[key] for place, key in enumerate(keys) if found[place] is None and key in ids}
            try:
                held = store.vectors(list(dict.fromkeys(wanted.values())))
            except StoreError as error:  # such as StoreBusy
                self.notes.append(f"nothing more was copied from {store.url}: {error}")
                ids.clear()
                continue
            for place, id in wanted.items():
                found[place] = held.get(id)
        self.copied += sum(vector is not None for vector in found)
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def _read(self) -> Iterator[tuple[VectorStore, dict[bytes, str]]]:
        for other in other_worktrees(self._root):
            if not (other / INDEX_FOLDER / self._collection).is_dir():
                continue
            try:
                store = open_store(own_index(other), self._collection, wait=WORKTREE_WAIT_SECONDS)
                self._opened.callback(store.close)
                yield store, self._texts(store)
            except StoreError as error:
                self.notes.append(f"nothing was copied from {other}: {error}")

    def _texts(self, store: VectorStore) -> dict[bytes, str]:
        """Return digest of a text → id of a row that holds it; raises StoreError if the vectors are not ours."""
        if store.spec is None:
            return {}
        _require_usable(store, self._embedder, self._datatype)
        ids: dict[bytes, str] = {}
        sample: dict[str, Vector] = {}
        for row in store.rows():
            ids[_key(row.chunk.text)] = row.chunk.id
            if len(sample) < CHECKED:
                sample[row.chunk.text] = row.vector
        _require_own(sample, self._embedder, "it")
        return ids


def _require_usable(store: VectorStore, embedder: C2LLMEmbedder, datatype: str) -> None:
    """Raise SpecMismatch for another model, StoreError for vectors that are stored more coarsely than wanted."""
    spec = store.spec
    assert spec is not None
    spec.require_model(embedder.output_dim, embedder.fingerprint)
    if spec.datatype not in ("float32", datatype):
        raise StoreError(f"its vectors are {spec.datatype}, expected {datatype}")


def _require_own(sample: Mapping[str, Vector], embedder: C2LLMEmbedder, place: str) -> None:
    """Raise StoreError unless these are the vectors that the model gives for these texts."""
    given = embedder.encode_documents(list(sample))
    for vector, held in zip(given, sample.values(), strict=True):
        cosine = float(vector @ held) / float(np.linalg.norm(vector))
        if not cosine >= MIN_COSINE:
            raise StoreError(
                f"a vector of {place} has cosine {cosine:.4f} to what the model gives, expected {MIN_COSINE}"
            )


def other_worktrees(root: Path) -> list[Path]:
    """Return the folders of the repository's other worktrees, as they and git know them; [] outside git."""
    git = GitFolder.of(root)
    return git.worktrees(root) if git is not None else []


def _key(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()
