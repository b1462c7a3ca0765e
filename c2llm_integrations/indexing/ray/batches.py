"""The batches of a distributed run: a type for each stage, where their rows go, and what the driver knows of a
repository and a pass.

The driver keeps sums, and the refused, skipped and stale ids; for a data set of texts also the paths, because only they
show which rows are of a path that is gone.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from c2llm_integrations.code.chunk import CodeChunk
from c2llm_integrations.code.repository import checkout_id
from c2llm_integrations.code.repository_name import normalize_origin
from c2llm_integrations.errors import StoreError
from c2llm_integrations.indexing.claims import Claim
from c2llm_integrations.indexing.report import IngestReport
from c2llm_integrations.stores import open_store
from c2llm_integrations.stores.row_fields import Stored
from c2llm_integrations.stores.vector_store import VectorStore

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

    @lru_cache(4)  # noqa: B019 (a process has one for each pass)
    def open(self) -> VectorStore:
        """Return this process's one store of that name."""
        return open_store(self.url, self.collection, api_key=self.api_key)

    @lru_cache(1)  # noqa: B019
    def claims(self) -> dict[str, str]:
        """Return the claims as of about the start of the pass, cached: every repository's batches ask for them."""
        return self.open().claims()

    def owner_of(self, source: str) -> str:
        """Return what identifies a source in its repositories' claims, the same on every machine."""
        if "://" not in source:
            return checkout_id(Path(source), self.host)
        return hashlib.sha256((normalize_origin(source) or source).encode()).hexdigest()[:16]


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


# ---- in the driver


@dataclass
class TrackedRepository:
    """The state of one repository until it is finished.

    `batches`: how many are through; `wanted`: the ids that the store should hold in the end, `stale` those to delete;
    `commits`: those of the batches; `is_done`, `is_lost`: whether any batch is (see `BatchResult`); `paths`: those of a
    data set of texts, None for a folder; `has_doubles`: whether one of these came twice.
    """

    report: IngestReport
    source: str
    owner: str = ""
    batches: int = 0
    wanted: Sum = field(default_factory=Sum)
    stale: list[str] = field(default_factory=list)
    commits: set[str | None] = field(default_factory=set)
    is_done: bool = False
    is_lost: bool = False
    paths: set[str] | None = None
    has_doubles: bool = False

    @property
    def claim(self) -> Claim:
        """Its new claim, with a commit if all of it was read from that one."""
        [commit] = self.commits if len(self.commits) == 1 and not self.report.unreadable else [None]
        return Claim(self.owner, commit)

    def add(self, result: BatchResult) -> None:
        """Add the result of a batch."""
        self.owner = result.owner
        self.batches += 1
        self.wanted = (self.wanted + result.ids) - Sum().add(result.report.refused)
        self.stale += result.stale
        self.commits.add(result.commit)
        self.is_done |= result.is_done
        self.is_lost |= result.is_lost
        if not result.batches:
            self.paths = self.paths or set()
            several = set(result.files)
            self.has_doubles |= len(several) < len(result.files) or not several.isdisjoint(self.paths)
            self.paths |= several
        self.report.add(result.report)


# Starts to verify and to delete stale rows. The function returned waits for the numbers of rows deleted and held, and
# raises StoreError if the store does not hold the right rows.
Finish = Callable[[TrackedRepository], Callable[[], tuple[int, int]]]


class PassTracker:
    """One pass over some sources.

    `total`: batches, as far as known; `problems`: source → why it cannot be read; `contested`: sources whose
    repository's name a second source has claimed too, and stored rows under. After `end`, `verified` and `failed` hold
    each repository by its outcome.
    """

    def __init__(self, rows: dict[str, int], finish: Finish) -> None:
        """Take the number of rows of each source that is a data set of texts."""
        self.total = 0
        self.problems: dict[str, str] = {}
        self.contested: set[str] = set()
        self.verified: dict[str, IngestReport] = {}
        self.failed: dict[str, TrackedRepository] = {}
        self._rows = rows
        self._came: Counter[str] = Counter()
        self._finish = finish
        self._repositories: dict[str, TrackedRepository] = {}
        self._finishing: dict[str, Callable[[], tuple[int, int]]] = {}

    def take(self, result: BatchResult) -> None:
        """Add a batch that is through; the last one of a repository starts to finish it."""
        name, source = result.repository, result.source
        self._came[source] += result.rows if source in self._rows else 1
        if result.failed:
            self.problems.setdefault(source, result.failed)
            return
        one = self._repositories.setdefault(name, TrackedRepository(IngestReport(name), source))
        if one.source != source:
            self.problems[source] = f"its repository is called {name!r} like that of {one.source}; index one of them"
            self.contested.add(one.source)
            return
        if not result.batches:  # of a data set, whose number of batches nobody knows
            self.total += 1
        elif not one.batches:
            self.total += result.batches
        one.add(result)
        if one.batches == result.batches and not one.is_lost:
            self._finishing[name] = self._finish(one)

    def end(self, sources: Sequence[str]) -> list[str]:
        """Finish what is complete, wait for all, and return the sources to go through again."""
        again = {source for source in sources if self._is_incomplete(source)}
        for name, one in self._repositories.items():
            if one.paths is not None and one.source not in again:
                if one.has_doubles:
                    self.problems[one.source] = f"it has several texts of one path of {name!r}"
                elif not one.is_lost:
                    self._finishing[name] = self._finish(one)
        for name, one in self._repositories.items():
            if self._is_verified(name, one):
                self.verified[name] = one.report
            else:
                self.failed[name] = one
        again |= {one.source for one in self.failed.values()}
        return [source for source in sources if source in again and source not in self.problems]

    def _is_incomplete(self, source: str) -> bool:
        """Return whether rows of a data set are missing, or all batches of any other source."""
        came = self._came[source]
        return came != self._rows[source] if source in self._rows else came == 0

    def _is_verified(self, name: str, one: TrackedRepository) -> bool:
        """Wait until a repository is finished; return whether the store then holds its rows and no others."""
        wait = self._finishing.get(name)
        if wait is None:  # not all of it came through
            return False
        try:
            one.report.deleted, one.report.stored = wait()
        except StoreError:
            return False
        return one.source not in self.contested
