"""Reports of a run, one class for repositories and one for records, and the estimate of its cost."""

from __future__ import annotations

from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING

from c2llm_integrations._utils.sampling import Reservoir
from c2llm_integrations.code.chunk import CodeChunk
from c2llm_integrations.code.exclude import UNREADABLE
from c2llm_integrations.code.lexical_terms import document_terms
from c2llm_integrations.stores.bulk_loader import LoadReport
from c2llm_integrations.stores.spec import CollectionSpec

if TYPE_CHECKING:
    from c2llm_integrations.model.embedder import C2LLMEmbedder


# Chunks kept as a sample; 4, 8, 16, … of them are embedded until one group has taken this long.
SAMPLE_CHUNKS = 508
ENOUGH_SECONDS = 2.0
# Bytes that Qdrant Edge takes on disk, measured on 40,000 chunks of Python: for a row's id and indexed fields; for each
# of its different terms, a hash and a weight, stored and indexed. The other fields and the text, compressed, take about
# the text's own bytes.
ROW_BYTES, TERM_BYTES = 200, 14


@dataclass(kw_only=True)
class RunReport(LoadReport):
    """What a run found and did; `IngestReport` and `RecordsReport` say what is counted."""

    tokens: int = 0
    cut: int = 0
    unchanged: int = 0
    deleted: int = 0
    stored: int = 0
    notes: list[str] = field(default_factory=list)
    replaced: bool = False

    @property
    def is_complete(self) -> bool:
        """Whether everything that was to be stored is."""
        return not self.refused_count


@dataclass(frozen=True)
class Estimate:
    """The estimated cost of writing chunks, accurate to about a tenth.

    `store_bytes`: on disk, without the store's log and a graph; `minutes`: of embedding, on this machine as it is now.
    """

    tokens: int = 0
    store_bytes: int = 0
    tokens_per_second: float = 0.0
    minutes: float = 0.0


@dataclass
class IngestReport(RunReport):
    """What one run over a repository found and did. Counts are of chunks unless they say otherwise.

    Attributes:
        repository: The name under which the rows are stored.
        files: Source files of the tree.
        chunks: Chunks that the files gave.
        written: Embedded, or copied with their vectors, and stored.
        unchanged: Already stored as they are.
        moved: Stored already, and now with other line numbers.
        deleted: Stale rows that were deleted.
        stored: Rows of the repository now.
        refused: Row id → its place and why it is not in the store, of the first 1,000 (on a cluster, of all).
        refused_count: How many were refused in all.
        shortened: Texts that the store cut at its byte limit.
        cut: Texts whose end the model did not read.
        tokens: Tokens embedded.
        seconds: How long the run took.
        skipped: Reason → files that were left out.
        encodings: Encoding → files that are not plain UTF-8.
        notes: Why git's own listing was not used, or which grammars are not installed.
        replaced: Whether the collection took the place of the one before.
        estimate: Of a dry run, what the run would cost.

    """

    repository: str
    files: int = 0
    chunks: int = 0
    moved: int = 0
    skipped: dict[str, list[str]] = field(default_factory=dict)
    encodings: dict[str, list[str]] = field(default_factory=dict)
    estimate: Estimate | None = None

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
class RecordsReport(RunReport):
    """What one run over records found and did. Counts are of records; attributes not listed are as in `IngestReport`.

    Attributes:
        source: The name that the run was given.
        records: Records read.
        written: Embedded, or given with their vectors, and stored.
        updated: Stored already; only their metadata changed.
        stored: Rows of the source now.
        notes: What to look at.
        is_complete: Whether everything that was to be stored is.

    """

    source: str
    records: int = 0
    updated: int = 0


class Estimator:
    """Collect chunks one by one and keep a random sample of them."""

    def __init__(self, embedder: C2LLMEmbedder, spec: CollectionSpec) -> None:
        """Take the model, and the spec of the collection that the chunks would be written to."""
        self._embedder = embedder
        self._spec = spec
        self._rows = self._characters = self._bytes = 0
        self._sample = Reservoir[CodeChunk](SAMPLE_CHUNKS)

    def add(self, chunk: CodeChunk) -> None:
        """Count a chunk, and perhaps keep it in the sample."""
        self._rows += 1
        self._characters += len(chunk.text)
        self._bytes += len(chunk.text.encode(errors="replace"))
        self._sample.add(chunk)

    def estimate(self) -> Estimate:
        """Embed some of the sample and extrapolate to all chunks."""
        if not self._rows:
            return Estimate()
        tokens_per_character, characters_per_second = self._measure()
        tokens, seconds = tokens_per_character * self._characters, self._characters / characters_per_second
        spec, sample, terms = self._spec, self._sample.items, 0.0
        if spec.analyzer is not None:
            terms = sum(len(set(document_terms(chunk.path, chunk.text))) for chunk in sample) / len(sample)
        row_bytes = spec.plan.bytes_per_vector + ROW_BYTES + TERM_BYTES * terms
        return Estimate(round(tokens), round(self._rows * row_bytes) + self._bytes, tokens / seconds, seconds / 60)

    def _measure(self) -> tuple[float, float]:
        """Return tokens per character, 0 for a server that does not count, and characters per second at last."""
        embedder = self._embedder
        sample = self._sample.items
        embedder.encode_documents([sample[0].text])  # the first call also sets up
        before, start, size = embedder.tokens_seen, 0, 4
        characters, rate, took = 0, 0.0, 0.0
        while start < len(sample) and took < ENOUGH_SECONDS:
            texts = [chunk.text for chunk in sample[start : start + size]]
            begin = perf_counter()
            embedder.encode_documents(texts)
            took = perf_counter() - begin
            read = sum(map(len, texts))
            rate, characters = read / took, characters + read
            start, size = start + size, 2 * size
        return (embedder.tokens_seen - before) / max(1, characters), rate
