"""What a run says of itself: one class for repositories, one for records."""

from __future__ import annotations

from dataclasses import dataclass, field

from c2llm_integrations.code.exclude import UNREADABLE
from c2llm_integrations.indexing.cost_estimate import Estimate


@dataclass
class IngestReport:
    """What one run over a repository found and did. Counts are chunks unless named otherwise.

    A moved chunk only has other lines.

    `cut`: texts whose end the model did not read; `shortened`: texts that the store cut at its byte limit;
    `refused`: row id → its place and why it is not in the store, of the first 1,000 (on a cluster, of all);
    `refused_count`: how many were refused in all; `skipped`: reason → files that were left out;
    `encodings`: encoding → files that are not plain UTF-8; `notes`: why git's own listing was not used, or which
    grammars are not installed, if so;
    `replaced`: the collection took the place of the one before; `estimate`: of a dry run, what the run would cost.
    """

    repository: str
    files: int = 0
    chunks: int = 0
    tokens: int = 0
    cut: int = 0
    shortened: int = 0
    written: int = 0
    unchanged: int = 0
    moved: int = 0
    deleted: int = 0
    stored: int = 0
    refused: dict[str, str] = field(default_factory=dict)
    refused_count: int = 0
    skipped: dict[str, list[str]] = field(default_factory=dict)
    encodings: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    replaced: bool = False
    estimate: Estimate | None = None
    seconds: float = 0.0

    def add(self, other: IngestReport) -> None:
        """Add what was found and done in another part of the same repository."""
        names = ("files", "chunks", "tokens", "cut", "shortened", "written", "unchanged", "moved", "deleted")
        for name in (*names, "refused_count"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.refused |= other.refused
        self.notes += other.notes
        for mine, more in ((self.skipped, other.skipped), (self.encodings, other.encodings)):
            for reason, paths in more.items():
                mine.setdefault(reason, []).extend(paths)

    @property
    def is_complete(self) -> bool:
        """Whether everything that was to be stored is."""
        return not self.refused_count and not self.unreadable

    @property
    def unreadable(self) -> list[str]:
        """Paths that could not be read; their rows stay, and the run counts as failed."""
        return self.skipped.get(UNREADABLE, [])


@dataclass
class RecordsReport:
    """What one run over records found and did. Counts are records; of an updated one only the metadata changed.

    `source`: the name that the run was given; `written`: embedded, or given with their vectors, and stored; `stored`:
    rows of the source now; `cut`, `shortened`, `refused`, `refused_count` and `replaced` as in `IngestReport`; `notes`:
    what to look at.
    """

    source: str
    records: int = 0
    tokens: int = 0
    cut: int = 0
    shortened: int = 0
    written: int = 0
    unchanged: int = 0
    updated: int = 0
    deleted: int = 0
    stored: int = 0
    refused: dict[str, str] = field(default_factory=dict)
    refused_count: int = 0
    notes: list[str] = field(default_factory=list)
    replaced: bool = False
    seconds: float = 0.0

    @property
    def is_complete(self) -> bool:
        """Whether everything that was to be stored is."""
        return not self.refused_count


def note_if_all_refused(report: RecordsReport) -> None:
    """Put a note first if every record of the run was refused, so that nothing is stored."""
    if report.refused_count and not report.written + report.unchanged + report.updated:
        first = next(iter(report.refused.values()))
        report.notes.insert(0, f"nothing is stored of {report.records:,} records: each was refused, such as {first}")
