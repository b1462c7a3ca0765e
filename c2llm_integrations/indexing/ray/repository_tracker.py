"""Add up a distributed run in its driver: a report for each repository, and when it is complete.

The driver keeps sums, and the refused, skipped and stale ids; for a data set of texts also the paths, because only they
show which rows are of a path that is gone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from c2llm_integrations.errors import StoreError
from c2llm_integrations.indexing.claims import Claim
from c2llm_integrations.indexing.ray.batches import BatchResult, Sum
from c2llm_integrations.indexing.report import IngestReport


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
