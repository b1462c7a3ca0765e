"""The contract every store keeps: how a collection is made, written, compared and searched.

Public methods check their input and the store's state once, here; the underscored ones, which a database
implements, may trust what they get.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType

import numpy as np
from typing_extensions import Self

from c2llm_integrations.code.chunk import CodeChunk
from c2llm_integrations.errors import C2LLMError, InputError, RowsRefused, StoreError
from c2llm_integrations.stores.rows import (
    Filter,
    Hit,
    Row,
    Stored,
    Vector,
    parts,
    refused_chunks,
    row_ids,
    slices,
    unit,
    why_vector_refused,
)
from c2llm_integrations.stores.spec import Capabilities, CollectionSpec

__all__ = ["Capabilities", "CollectionSpec", "Filter", "Hit", "Row", "Stored", "Vector", "VectorStore"]


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
        """Build the index and wait until it is ready."""
        with self._open():
            self._existing()
            self._optimize()

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

    def upsert(self, rows: Sequence[Row]) -> None:
        """Insert or overwrite rows by id; vectors are stored at unit length.

        Raises RowsRefused, before anything is sent, if a row could not be found again: wrong width,
        NaN or infinity, zero length, an id that is no UUID or stands twice in one call, text that is no
        valid Unicode or over the store's byte limit.
        """
        rows = list(rows)
        with self._open():
            width = self._existing().width
            chunks = [row.chunk for row in rows]
            refused = refused_chunks(chunks, self.capabilities.max_text_bytes)
            for row in rows:
                why = why_vector_refused(row.vector, width)
                if why is not None:
                    refused.setdefault(row.chunk.id, why)
            if refused:
                raise RowsRefused(refused)
            for part in slices(chunks, width):
                self._upsert(chunks[part], unit(np.stack([row.vector for row in rows[part]])))

    def update(self, chunks: Sequence[CodeChunk]) -> None:
        """Overwrite everything but the vector of rows that exist.

        Raises RowsRefused, before anything is sent, for what `upsert` refuses and for ids not in the collection.
        """
        chunks = list(chunks)
        with self._open():
            width = self._existing().width
            refused = refused_chunks(chunks, self.capabilities.max_text_bytes)
            ids = [chunk.id for chunk in chunks if chunk.id not in refused]
            known = {id for part in parts(ids) for id in self._known(part)}
            refused.update({id: "there is no such row; upsert it with its vector" for id in ids if id not in known})
            if refused:
                raise RowsRefused(refused)
            for part in slices(chunks, width):
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
            return iter(()) if self._read_spec() is None else self._guarded_scan(repository)

    def count(self, repository: str | None = None) -> int:
        """Count exactly the rows this package wrote (of one repository)."""
        with self._open():
            return 0 if self._read_spec() is None else self._count(repository)

    def vectors(self, ids: Sequence[str]) -> dict[str, Vector]:
        """Read back vectors, unit length, by id; ids that are not there are left out."""
        ids = row_ids(ids)
        with self._open():
            if self._read_spec() is None:
                return {}
            return {id: vector for part in parts(ids) for id, vector in self._vectors(part).items()}

    def search(self, vector: Vector, limit: int, where: Filter | None = None) -> list[Hit]:
        """Return the `limit` nearest rows, best first.

        `vector`: (width,) float32 of any length. Raises InputError for a vector or limit that cannot be used.
        """
        with self._open():
            vector = np.asarray(vector)
            why = why_vector_refused(vector, self._existing().width)
            if why is not None:
                raise InputError(f"the query's {why}")
            if limit < 1:
                raise InputError(f"limit must be at least 1, got {limit}")
            return self._search(unit(vector[None])[0], limit, where or Filter())

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
    def _upsert(self, chunks: Sequence[CodeChunk], vectors: Vector) -> None:
        """Write one batch; `vectors`: (len(chunks), width) float32, unit length."""

    @abstractmethod
    def _update(self, chunks: Sequence[CodeChunk]) -> None: ...

    @abstractmethod
    def _delete(self, ids: Sequence[str]) -> None: ...

    @abstractmethod
    def _scan(self, repository: str | None) -> Iterator[Stored]: ...

    @abstractmethod
    def _count(self, repository: str | None) -> int: ...

    @abstractmethod
    def _vectors(self, ids: Sequence[str]) -> dict[str, Vector]: ...

    @abstractmethod
    def _search(self, vector: Vector, limit: int, where: Filter) -> list[Hit]:
        """Search with a unit vector of the right width."""

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

    def _guarded_scan(self, repository: str | None) -> Iterator[Stored]:
        with self._open():
            yield from self._scan(repository)
