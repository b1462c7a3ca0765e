"""The batches of a distributed run, one type for each stage, and the destination of their rows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from c2llm_integrations.code.chunk import CodeChunk
from c2llm_integrations.code.repository import checkout_id
from c2llm_integrations.code.repository_name import normalize_origin
from c2llm_integrations.indexing.report import IngestReport
from c2llm_integrations.stores import open_store
from c2llm_integrations.stores.vector_store import Stored, VectorStore

# The modulus of sums of 128-bit ids.
MODULUS = 2**128


@dataclass(frozen=True)
class Destination:
    """Where rows go; `api_key` as for `open_store`, shown nowhere.

    `host`: the driver's machine, which identifies folders wherever they are read; `token`: identifies one pass; what
    a process has read of the store is kept for that pass.
    """

    url: str
    collection: str = "code"
    api_key: str | None = field(default=None, repr=False)
    host: str | None = None
    token: str = ""

    def open(self) -> VectorStore:
        """Return this process's one store of that name."""
        return _opened(self)

    def claims(self) -> dict[str, str]:
        """Return the claims as of about the start of the pass, cached: every repository's batches ask for them."""
        return _claims(self)

    def owner_of(self, source: str) -> str:
        """Return what identifies a source in its repositories' claims, the same on every machine."""
        if "://" not in source:
            return checkout_id(Path(source), self.host)
        return hashlib.sha256((normalize_origin(source) or source).encode()).hexdigest()[:16]


@lru_cache(4)
def _opened(destination: Destination) -> VectorStore:
    return open_store(destination.url, destination.collection, api_key=destination.api_key)


@lru_cache(1)
def _claims(destination: Destination) -> dict[str, str]:
    return destination.open().claims()


@dataclass
class Sum:
    """A multiset of ids, by their number and their sum: two are equal if both agree, up to a chance of 2^-128."""

    count: int = 0
    total: int = 0

    def add(self, ids: Iterable[str]) -> Sum:
        """Return this sum with more ids in it."""
        numbers = [int(id.replace("-", ""), 16) for id in ids]
        return Sum(self.count + len(numbers), (self.total + sum(numbers)) % MODULUS)

    def __add__(self, other: Sum) -> Sum:
        return Sum(self.count + other.count, (self.total + other.total) % MODULUS)

    def __sub__(self, other: Sum) -> Sum:
        return Sum(self.count - other.count, (self.total - other.total) % MODULUS)


@dataclass
class BatchResult:
    """The outcome for some files of one repository; the driver gets nothing else.

    Attributes:
        repository: Name of the repository.
        source: The source, as the user named it.
        owner: What identifies the source in its repository's claim.
        batches: How many batches the repository has, 0 where nobody knows: it comes from a data set of texts.
        files: Paths in this batch.
        rows: Rows of the data set that it comes from.
        commit: The commit that all its files were read from, if any.
        report: Counts of this batch, in the fields of a whole run.
        ids: Those of the rows that the store should hold of its files.
        stale: Ids of rows to delete once the repository is verified.
        is_done: The store holds this very commit of the repository already.
        is_lost: A row did not read back as it was sent.
        failed: Why nothing could be done, or "".

    """

    repository: str
    source: str
    owner: str = ""
    batches: int = 1
    files: list[str] = field(default_factory=list)
    rows: int = 0
    commit: str | None = None
    report: IngestReport = field(default_factory=lambda: IngestReport(""))
    ids: Sum = field(default_factory=Sum)
    stale: list[str] = field(default_factory=list)
    is_done: bool = False
    is_lost: bool = False
    failed: str = ""


@dataclass
class FileBatch:
    """Files to read: those under `root`, or the `texts` by path where they are not files.

    `taken_back`: those that .c2llmignore includes again (`Tree.wanted`); `held`: rows that the store has.
    """

    result: BatchResult
    root: str = ""
    prefix: str = ""
    taken_back: frozenset[str] = frozenset()
    texts: dict[str, str] | None = None
    held: list[Stored] = field(default_factory=list)


@dataclass
class ChunkBatch:
    """New chunks, with their vectors once they are embedded, and chunks whose rows only have other lines.

    `vectors`: float32 (len(new), width), None where nothing is new.
    """

    result: BatchResult
    new: list[CodeChunk] = field(default_factory=list)
    vectors: NDArray[np.float32] | None = None
    moved: list[CodeChunk] = field(default_factory=list)
