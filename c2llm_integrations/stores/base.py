"""The contract every store keeps: what a collection holds, and how it is written, compared and searched."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from types import TracebackType

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from c2llm_integrations.code.chunk import CodeChunk
from c2llm_integrations.errors import RowsRefused, SpecMismatch, StoreError

Vector = NDArray[np.float32]
Fingerprint = Mapping[str, str | int | bool | None]

# The layout of rows and metadata that this release writes and reads.
LAYOUT = 1


@dataclass(frozen=True, slots=True)
class CollectionSpec:
    """What every row of a collection has in common; written before the first row, checked at every opening.

    `width` counts vector dimensions; `fingerprint` says what the vectors mean (`C2LLMEmbedder.fingerprint`).
    """

    width: int
    fingerprint: Fingerprint
    datatype: str = "float32"
    quantization: str | None = None
    analyser: str | None = None
    layout: int = LAYOUT

    def to_json(self) -> str:
        """Return the spec as one line of JSON, keys sorted."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> CollectionSpec:
        """Read what `to_json` wrote; raises SpecMismatch for a layout this release does not know."""
        data = json.loads(text)
        if data.get("layout") != LAYOUT:
            raise SpecMismatch(
                f"the collection has layout {data.get('layout')}, this release reads {LAYOUT}; "
                "index again with --replace or install the release that wrote it"
            )
        return cls(**data)

    def require_same(self, asked: CollectionSpec) -> None:
        """Raise SpecMismatch, naming the differing field and both values, unless `asked` means the same vectors."""
        mine, theirs = _comparable(self), _comparable(asked)
        for key in sorted(mine.keys() | theirs.keys()):
            if mine.get(key) != theirs.get(key):
                raise SpecMismatch(
                    f"the collection has {key} {mine.get(key)!r}, asked for {theirs.get(key)!r}; "
                    "use the model it was made with, another --collection, or drop it first"
                )


def _comparable(spec: CollectionSpec) -> dict[str, object]:
    flat = asdict(spec)
    fingerprint = dict(flat.pop("fingerprint"))
    fingerprint.pop("model", None)  # a name: the weights' digest decides, and a folder may be moved
    return {**flat, **{f"fingerprint.{key}": value for key, value in fingerprint.items()}}


@dataclass(frozen=True, slots=True)
class Row:
    """A chunk and its vector, float32 of the collection's width."""

    chunk: CodeChunk
    vector: Vector


@dataclass(frozen=True, slots=True)
class Stored:
    """What an incremental run needs to know of a row that is already there (no text, no vector)."""

    id: str
    path: str
    language: str
    symbol: str
    kind: str
    start_line: int
    end_line: int


@dataclass(frozen=True, slots=True)
class Hit:
    """A chunk found, with its score (cosine similarity, higher is better)."""

    chunk: CodeChunk
    score: float


@dataclass(frozen=True, slots=True)
class Filter:
    """Which rows to search: every non-empty field must match one of its values exactly."""

    repositories: Sequence[str] = ()
    languages: Sequence[str] = ()
    paths: Sequence[str] = ()
    kinds: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a store can do; a plan outside it is refused by name."""

    datatypes: frozenset[str] = frozenset({"float32"})
    quantizations: frozenset[str] = frozenset()
    lexical: bool = False
    max_text_bytes: int | None = None
    options: Mapping[str, str] = field(default_factory=dict)


class VectorStore(ABC):
    """One collection of one database.

    Public methods check their input, then hand over to the underscored ones that a database implements.
    Every write is durable and acknowledged when the call returns.
    """

    capabilities: Capabilities = Capabilities()
    url: str
    collection: str

    @property
    @abstractmethod
    def spec(self) -> CollectionSpec | None:
        """The collection's spec, or None while it does not exist."""

    @abstractmethod
    def create(self, spec: CollectionSpec) -> None:
        """Create the collection with its spec; opening one that exists checks that the specs agree."""

    @abstractmethod
    def claims(self) -> dict[str, str]:
        """Return repository name → id of the checkout that fills it."""

    @abstractmethod
    def claim(self, repository: str, checkout: str) -> None:
        """Record that `checkout` fills `repository` from now on."""

    @abstractmethod
    def _upsert(self, rows: Sequence[Row]) -> None: ...

    @abstractmethod
    def update(self, chunks: Sequence[CodeChunk]) -> None:
        """Overwrite everything but the vector of rows that exist."""

    @abstractmethod
    def delete(self, ids: Sequence[str]) -> None:
        """Delete rows by id; ids that are not there are no error."""

    @abstractmethod
    def scan(self, repository: str | None = None) -> Iterator[Stored]:
        """Yield every row this package wrote (of one repository), in no particular order."""

    @abstractmethod
    def count(self, repository: str | None = None) -> int:
        """Count exactly the rows of the collection (of one repository)."""

    @abstractmethod
    def vectors(self, ids: Sequence[str]) -> dict[str, Vector]:
        """Read back vectors by id; ids that are not there are left out."""

    @abstractmethod
    def search(self, vector: Vector, limit: int, where: Filter | None = None) -> list[Hit]:
        """Return the `limit` nearest rows, best first."""

    @abstractmethod
    def optimize(self) -> None:
        """Build the index and wait until it is ready."""

    @abstractmethod
    def drop(self) -> None:
        """Delete the collection and all its rows; no error if there is none."""

    @abstractmethod
    def close(self) -> None:
        """Release the database; calling it twice is no error."""

    def upsert(self, rows: Sequence[Row]) -> None:
        """Insert or overwrite rows by id.

        Raises RowsRefused, before anything is sent, if a row could not be found again: wrong width,
        NaN or infinity, zero length, an id twice in one call, text over the store's byte limit.
        """
        spec = self.spec
        if spec is None:
            raise StoreError(f"collection {self.collection!r} does not exist; create it before writing")
        refused = {row.chunk.id: why for row in rows if (why := self._why_refused(row, spec.width))}
        seen: set[str] = set()
        for row in rows:
            if row.chunk.id in seen:
                refused.setdefault(row.chunk.id, "the id stands twice in one batch; ids must be unique")
            seen.add(row.chunk.id)
        if refused:
            raise RowsRefused(refused)
        if rows:
            self._upsert(rows)

    def _why_refused(self, row: Row, width: int) -> str | None:
        if row.vector.shape != (width,):
            return f"vector has shape {row.vector.shape}, the collection holds ({width},)"
        if not np.isfinite(row.vector).all():
            return "vector holds NaN or infinity; embed the text again"
        if not row.vector.any():
            return "vector is all zeros, which has no direction for cosine"
        limit = self.capabilities.max_text_bytes
        if limit is not None and (size := len(row.chunk.text.encode())) > limit:
            return f"text has {size} bytes, the store takes {limit}; use smaller chunks"
        return None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
