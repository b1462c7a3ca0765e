"""The contract every store keeps: how a collection is made, written, compared and searched.

Public methods check their input and the store's state once, here; the underscored ones, which a database
implements, may trust what they get.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import TypeVar

import numpy as np
from typing_extensions import Self

from c2llm_integrations.code.chunk import CodeChunk
from c2llm_integrations.code.terms import document_terms
from c2llm_integrations.errors import C2LLMError, InputError, RowsRefused, StoreError
from c2llm_integrations.stores.rows import (
    Candidates,
    Filter,
    Hit,
    Row,
    Stored,
    Vector,
    cut_text,
    parts,
    refused_chunks,
    refused_vectors,
    row_ids,
    slices,
    unit,
    why_vector_refused,
)
from c2llm_integrations.stores.spec import Capabilities, CollectionSpec

__all__ = ["Candidates", "Capabilities", "CollectionSpec", "Filter", "Hit", "Row", "Stored", "Vector", "VectorStore"]

_T = TypeVar("_T")


class VectorStore(ABC):
    """One collection of one database.

    Every write outlives this process once the call returns, however the process ends. While the collection
    does not exist, reading finds nothing and writes nothing, deleting does nothing, and searching or writing
    is an error.
    After `close` every method but `close` raises StoreError.
    """

    capabilities: Capabilities = Capabilities()

    def __init__(self, url: str, collection: str) -> None:
        """`url` names the database without credentials; `collection` one named set of rows in it."""
        self.url = url
        self.collection = collection
        self._closed = False

    # ---- the collection

    @property
    def spec(self) -> CollectionSpec | None:
        """The collection's spec, or None while it does not exist."""
        with self._open():
            return self._read_spec()

    def create(self, spec: CollectionSpec) -> None:
        """Create the collection with its spec; if it exists, check that the specs agree.

        Raises SpecMismatch if they do not, StoreError if this store cannot honour the spec.
        """
        with self._open():
            self.capabilities.require(spec)
            if self._read_spec() is None:
                self._create(spec)
            self._existing().require_same(spec)

    def claims(self) -> dict[str, str]:
        """Return repository name → id of the checkout that fills it."""
        with self._open():
            return {} if self._read_spec() is None else self._claims()

    def claim(self, repository: str, checkout: str) -> None:
        """Record that `checkout` fills `repository` from now on."""
        with self._open():
            self._existing()
            self._claim(repository, checkout)

    def optimize(self) -> None:
        """Build the index, also where a killed run had put it off, and wait until it is ready."""
        with self._open():
            self._existing()
            self._restore()
            self._optimize()

    @contextmanager
    def bulk(self) -> Iterator[None]:
        """Put off building the index while many rows are written; leaving it restores that, however it is left.

        After a clean exit the index is ready. What a killed run left put off, the next `optimize` restores.
        """
        with self._open():
            self._existing()
            self._defer()
        try:
            yield
        except BaseException:
            with suppress(StoreError), self._open():  # what cannot be restored now must not hide what went wrong
                self._restore()
            raise
        self.optimize()

    def successor(self) -> VectorStore:
        """Return a store on the collection that is to take this one's place, which a former run may have begun.

        Raises StoreError if this store has no collection yet: then there is nothing to replace.
        """
        with self._open():
            self._existing()
            return self._successor()

    def replace_by(self, successor: VectorStore) -> None:
        """Give this collection's name to its filled successor in one step, then drop what stood there.

        Readers by name find the old rows or the new ones. This store then serves the new ones, `successor` is closed.
        """
        with self._open():
            successor._existing()
            successor.close()
            self._replace()

    def drop(self) -> None:
        """Delete the collection and all its rows; no error if there is none."""
        with self._open():
            self._drop()

    def close(self) -> None:
        """Release the database; calling it twice is no error."""
        if not self._closed:
            self._closed = True
            with self._errors():
                self._close()

    # ---- writing

    def upsert(self, rows: Sequence[Row]) -> int:
        """Insert or overwrite rows by id; vectors are stored at unit length. Return how many texts were cut.

        Raises RowsRefused, before anything is sent, if a row could not be found again: wrong width,
        NaN or infinity, zero length, an id that is no UUID or stands twice in one call, text that is no
        valid Unicode or over the store's byte limit (unless the spec says to cut it). Raises BatchRefused if
        the database refuses what these checks let pass.
        """
        rows = list(rows)
        with self._open():
            spec = self._existing()
            whole = [row.chunk for row in rows]
            chunks = self._cut(whole, spec)
            refused = refused_vectors(rows, spec.width) | refused_chunks(chunks, self.capabilities.max_text_bytes)
            if refused:
                raise RowsRefused(refused)
            for part in slices(chunks, spec.width):
                terms = None if spec.analyser is None else [document_terms(one.path, one.text) for one in whole[part]]
                self._upsert(chunks[part], unit(np.stack([row.vector for row in rows[part]])), terms)
        return sum(one is not other for one, other in zip(whole, chunks, strict=True))

    def update(self, chunks: Sequence[CodeChunk]) -> None:
        """Overwrite everything but the vector of rows that exist.

        Raises RowsRefused, before anything is sent, for what `upsert` refuses and for ids not in the collection.
        """
        with self._open():
            spec = self._existing()
            chunks = self._cut(chunks, spec)
            refused = refused_chunks(chunks, self.capabilities.max_text_bytes)
            ids = [chunk.id for chunk in chunks if chunk.id not in refused]
            known = {id for part in parts(ids) for id in self._known(part)}
            refused.update({id: "there is no such row; upsert it with its vector" for id in ids if id not in known})
            if refused:
                raise RowsRefused(refused)
            for part in slices(chunks, spec.width):
                self._update(chunks[part])

    def delete(self, ids: Sequence[str]) -> None:
        """Delete rows by id; ids that are not there are no error."""
        ids = row_ids(ids)
        with self._open():
            if self._read_spec() is not None:
                for part in parts(ids):
                    self._delete(part)

    # ---- reading

    def scan(self, repository: str | None = None) -> Iterator[Stored]:
        """Yield every row this package wrote (of one repository), in no particular order."""
        with self._open():
            return iter(()) if self._read_spec() is None else self._guarded(self._scan, repository)

    def rows(self, repository: str | None = None) -> Iterator[Row]:
        """Yield every row this package wrote (of one repository) whole, vectors at unit length, in no order."""
        with self._open():
            return iter(()) if self._read_spec() is None else self._guarded(self._rows, repository)

    def count(self, repository: str | None = None) -> int:
        """Count exactly the rows this package wrote (of one repository)."""
        with self._open():
            return 0 if self._read_spec() is None else self._count(repository)

    def total(self) -> int:
        """Count exactly all rows, those of other programs too, which most stores do faster than `count`."""
        with self._open():
            return 0 if self._read_spec() is None else self._total()

    def known(self, ids: Sequence[str]) -> set[str]:
        """Return those of `ids` that are in the collection, whoever wrote them."""
        ids = row_ids(ids)
        with self._open():
            if self._read_spec() is None:
                return set()
            return {id for part in parts(ids) for id in self._known(part)}

    def vectors(self, ids: Sequence[str]) -> dict[str, Vector]:
        """Read back vectors, unit length, by id; ids that are not there are left out."""
        ids = row_ids(ids)
        with self._open():
            if self._read_spec() is None:
                return {}
            return {id: vector for part in parts(ids) for id, vector in self._vectors(part).items()}

    def search(self, vector: Vector, limit: int, where: Filter | None = None) -> list[Hit]:
        """Return the `limit` nearest rows, best first; arguments and errors are those of `candidates`."""
        return self.candidates(vector, (), limit, where).dense

    def candidates(
        self, vector: Vector | None, terms: Sequence[str], limit: int, where: Filter | None = None
    ) -> Candidates:
        """Return the `limit` nearest rows and the `limit` rows that share most with `terms`, in one round trip.

        `vector`: (width,) of any length; `terms` as `query_terms` gives them. Without a vector, without terms,
        or in a collection without an analyser, that list is empty. Rows that others wrote are found too.
        Raises InputError for a vector or limit that cannot be used.
        """
        with self._open():
            spec = self._existing()
            if limit < 1:
                raise InputError(f"limit must be at least 1, got {limit}")
            if vector is not None:
                why = why_vector_refused(np.asarray(vector), spec.width)
                if why is not None:
                    raise InputError(f"the query's {why}")
                vector = unit(np.asarray(vector)[None])[0]
            terms = terms if spec.analyser is not None else ()
            if vector is None and not terms:
                return Candidates([], [])
            return self._candidates(vector, terms, limit, where or Filter())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---- what a database implements; the collection exists wherever it is not said otherwise

    @abstractmethod
    def _read_spec(self) -> CollectionSpec | None:
        """Return the spec, or None while the collection does not exist; called often, so cheap."""

    @abstractmethod
    def _create(self, spec: CollectionSpec) -> None:
        """Create a missing collection with its spec, in one step that a crash cannot halve."""

    @abstractmethod
    def _claims(self) -> dict[str, str]: ...

    @abstractmethod
    def _claim(self, repository: str, checkout: str) -> None: ...

    @abstractmethod
    def _optimize(self) -> None: ...

    @abstractmethod
    def _drop(self) -> None:
        """Delete the collection, which may be missing."""

    @abstractmethod
    def _close(self) -> None:
        """Release everything, called once."""

    @abstractmethod
    def _known(self, ids: Sequence[str]) -> set[str]:
        """Return those of `ids` that are in the collection."""

    @abstractmethod
    def _upsert(self, chunks: Sequence[CodeChunk], vectors: Vector, terms: Sequence[Sequence[str]] | None) -> None:
        """Write one batch; `vectors`: (len(chunks), width) float32, unit length; terms if the spec has an analyser."""

    @abstractmethod
    def _update(self, chunks: Sequence[CodeChunk]) -> None: ...

    @abstractmethod
    def _delete(self, ids: Sequence[str]) -> None: ...

    @abstractmethod
    def _scan(self, repository: str | None) -> Iterator[Stored]: ...

    @abstractmethod
    def _count(self, repository: str | None) -> int: ...

    @abstractmethod
    def _total(self) -> int: ...

    @abstractmethod
    def _vectors(self, ids: Sequence[str]) -> dict[str, Vector]: ...

    @abstractmethod
    def _rows(self, repository: str | None) -> Iterator[Row]: ...

    @abstractmethod
    def _candidates(self, vector: Vector | None, terms: Sequence[str], limit: int, where: Filter) -> Candidates:
        """Search with a unit vector of the right width, with terms if the spec has an analyser, or with both."""

    @abstractmethod
    def _successor(self) -> VectorStore: ...

    @abstractmethod
    def _replace(self) -> None:
        """Put the filled, closed successor in place."""

    def _defer(self) -> None:  # noqa: B027 (most stores have nothing to put off)
        """Put off index building; nothing to do where the index is only built by `_optimize`."""

    def _restore(self) -> None:  # noqa: B027
        """Undo `_defer`, also that of a run that was killed."""

    def _translate(self, error: BaseException) -> StoreError:
        """Return the error to raise for one of the database's own."""
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return StoreError(f"collection {self.collection!r} of {self.url} failed: {lines[0]}")

    # ---- shared by all

    @contextmanager
    def _open(self) -> Iterator[None]:
        if self._closed:
            raise StoreError(f"the store {self.url} is closed; open it again")
        with self._errors():
            yield

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except C2LLMError:
            raise
        except Exception as error:
            raise self._translate(error) from error
        except BaseException as error:
            # What a database written in Rust raises where it would have crashed; it has no importable name.
            if type(error).__name__ != "PanicException":
                raise
            raise self._translate(error) from error

    def _existing(self) -> CollectionSpec:
        spec = self._read_spec()
        if spec is None:
            raise StoreError(f"{self.url} has no collection {self.collection!r}; index a repository into it first")
        return spec

    def _cut(self, chunks: Sequence[CodeChunk], spec: CollectionSpec) -> list[CodeChunk]:
        limit = self.capabilities.max_text_bytes if spec.long_text == "cut" else None
        return [cut_text(chunk, limit) for chunk in chunks]

    def _guarded(self, read: Callable[[str | None], Iterator[_T]], repository: str | None) -> Iterator[_T]:
        with self._open():
            yield from read(repository)
