"""A repository → the rows of a collection: write what is new, verify it, then delete what is gone.

The collection is the only record of what is done. A run compares it with the tree, so a repeated run writes nothing,
and a run that was killed goes on where it stopped.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from c2llm_integrations.code.chunk import CodeChunk
from c2llm_integrations.code.chunking import chunk_source
from c2llm_integrations.code.repository import Tree, checkout_id, iter_sources, open_tree
from c2llm_integrations.errors import InputError, RepositoryError, RowsRefused, StoreError
from c2llm_integrations.stores.base import CollectionSpec, Row, Stored, Vector, VectorStore

if TYPE_CHECKING:
    from c2llm_integrations.embedder import C2LLMEmbedder

# Chunks embedded and stored together: what a killed run may have to embed again.
BATCH = 256
# Vectors read back after a run; each must be what was sent up to the rounding of the store's datatype.
VERIFIED = 32
MIN_COSINE = 0.999

Progress = Callable[[int, int | None, str], None]


@dataclass
class IngestReport:
    """What one run found and did. Counts are chunks unless named otherwise; a moved chunk only has other lines.

    `refused`: row id → why it is not in the store; `skipped`: reason → files that were left out.
    """

    repository: str
    files: int = 0
    chunks: int = 0
    tokens: int = 0
    cut: int = 0
    written: int = 0
    unchanged: int = 0
    moved: int = 0
    deleted: int = 0
    stored: int = 0
    refused: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, list[str]] = field(default_factory=dict)
    seconds: float = 0.0


def ingest(
    root: str | os.PathLike[str],
    embedder: C2LLMEmbedder,
    store: VectorStore,
    *,
    repository: str | None = None,
    force: bool = False,
    own_store: bool = False,
    progress: Progress | None = None,
) -> IngestReport:
    """Make the store hold exactly the chunks of the tree under `root`, and say what that took.

    Rows of other repositories, of paths outside `root`, of files that could not be read, and rows written by others
    are never touched. `own_store` says that the collection serves this tree alone, so that it may have been moved.
    `progress(files done, files, path)` is called before each file.
    Raises RepositoryError when another checkout fills the same repository name (unless `force`), when this one was
    indexed under another name, or when it vanishes during the run; SpecMismatch when the collection was made with
    another model; StoreError when the store does not hold what it acknowledged.
    """
    begin = perf_counter()
    tree = open_tree(root, repository)
    store.create(CollectionSpec(embedder.output_dim, embedder.fingerprint))
    if _require_claim(tree, store, force, own_store) != checkout_id(tree.root):
        store.claim(tree.name, checkout_id(tree.root))
    report = IngestReport(tree.name)
    tokens, cut = embedder.tokens_seen, embedder.texts_cut
    absent = {row.id: row for row in store.scan(tree.name)}
    before = len(absent)
    writer = _Writer(embedder, store, report)
    moved: list[CodeChunk] = []
    for chunk, known in _compare(tree, absent, report, progress):
        if known:
            moved.append(chunk)
        else:
            writer.add(chunk)
        if len(moved) == BATCH:
            store.update(moved)
            moved.clear()
    store.update(moved)
    writer.flush()
    _require_there(tree)
    store.delete([row.id for row in _stale(tree, absent.values(), report)])
    if report.written or report.deleted:
        store.optimize()
    report.stored = store.count(tree.name)
    _verify(store, before + report.written - report.deleted, report.stored, writer.sample)
    report.tokens, report.cut = embedder.tokens_seen - tokens, embedder.texts_cut - cut
    report.seconds = perf_counter() - begin
    return report


def plan(
    root: str | os.PathLike[str],
    store: VectorStore | None = None,
    *,
    repository: str | None = None,
    force: bool = False,
    own_store: bool = False,
) -> IngestReport:
    """Say what `ingest` would write, move and delete, without a model and without changing anything."""
    begin = perf_counter()
    tree = open_tree(root, repository)
    report = IngestReport(tree.name)
    absent: dict[str, Stored] = {}
    if store is not None and store.spec is not None:
        _require_claim(tree, store, force, own_store)
        absent = {row.id: row for row in store.scan(tree.name)}
    report.stored = len(absent)
    report.written = sum(not known for _, known in _compare(tree, absent, report, None))
    for _ in _stale(tree, absent.values(), report):
        pass
    report.seconds = perf_counter() - begin
    return report


def _compare(
    tree: Tree, absent: dict[str, Stored], report: IngestReport, progress: Progress | None
) -> Iterator[tuple[CodeChunk, bool]]:
    """Yield the chunks to act on, each with whether its row exists and only its place or name changed.

    Takes every chunk's row out of `absent`, so that what is left at the end is in the store but not in the tree.
    """
    for source in iter_sources(tree):
        if progress is not None:
            progress(report.files, len(tree.files), source.path)
        report.files += 1
        for chunk in chunk_source(tree.name, source.path, source.text):
            report.chunks += 1
            row = absent.pop(chunk.id, None)
            if row is None:
                yield chunk, False
            elif (row.language, row.symbol, row.kind, row.start_line, row.end_line) == (
                chunk.language,
                chunk.symbol,
                chunk.kind,
                chunk.start_line,
                chunk.end_line,
            ):
                report.unchanged += 1
            else:
                report.moved += 1
                yield chunk, True
    report.skipped = dict(tree.skipped)


def _stale(tree: Tree, absent: Iterable[Stored], report: IngestReport) -> Iterator[Stored]:
    """Rows under the indexed folder whose text is gone; a file that could not be read may still hold its text."""
    for row in absent:
        if tree.can_tell(row.path):
            report.deleted += 1
            yield row


def _require_claim(tree: Tree, store: VectorStore, force: bool, own_store: bool) -> str | None:
    """Return the checkout that fills this repository's name so far; raise RepositoryError if that must not be."""
    mine, claims = checkout_id(tree.root), store.claims()
    former = sorted(name for name, owner in claims.items() if name != tree.name and (own_store or owner == mine))
    if former:
        raise RepositoryError(
            f"this checkout was indexed as {former[0]!r} and would now be {tree.name!r}, twice in one collection; "
            f"keep the name with --repository {former[0]}, or start over with --replace"
        )
    owner = claims.get(tree.name)
    if owner not in (None, mine) and not (force or own_store):
        raise RepositoryError(
            f"repository {tree.name!r} in this collection was indexed from another checkout ({owner}, this is {mine}); "
            "name this one with --repository, or take it over with --force"
        )
    return owner


def _require_there(tree: Tree) -> None:
    """A tree that vanished, such as a lost network mount, looks like one whose files were all deleted."""
    folder = tree.root / tree.prefix
    try:
        os.scandir(folder).close()
    except OSError as error:
        raise RepositoryError(
            f"{folder} vanished during the run ({error.strerror}); no row was deleted, run again when it is back"
        ) from error


class _Writer:
    """Chunks → embedded batches → the store, in order; what is refused is noted and the rest goes on."""

    def __init__(self, embedder: C2LLMEmbedder, store: VectorStore, report: IngestReport) -> None:
        self.embedder = embedder
        self.store = store
        self.report = report
        self.sample: dict[str, Vector] = {}
        self._pending: list[CodeChunk] = []
        self._random = random.Random(0)

    def add(self, chunk: CodeChunk) -> None:
        """Take a chunk; every `BATCH` of them are embedded and stored."""
        self._pending.append(chunk)
        if len(self._pending) == BATCH:
            self.flush()

    def flush(self) -> None:
        """Embed and store what waits."""
        chunks, self._pending = self._pending, []
        rows = self._embed(chunks)
        try:
            self.store.upsert(rows)
        except RowsRefused as refusal:
            self._refuse(refusal.reasons, chunks)
            rows = [row for row in rows if row.chunk.id not in refusal.reasons]
            self.store.upsert(rows)
        self.report.written += len(rows)
        for row in rows:  # a reservoir: every row of the run is equally likely to be read back
            if len(self.sample) < VERIFIED:
                self.sample[row.chunk.id] = row.vector
            elif self._random.random() < VERIFIED / self.report.written:
                del self.sample[self._random.choice(list(self.sample))]
                self.sample[row.chunk.id] = row.vector

    def _embed(self, chunks: list[CodeChunk]) -> list[Row]:
        try:
            vectors = self.embedder.encode_documents([chunk.text for chunk in chunks], progress=_silent)
        except InputError as error:
            if len(chunks) == 1:
                self._refuse({chunks[0].id: str(error)}, chunks)
                return []
            middle = len(chunks) // 2
            return self._embed(chunks[:middle]) + self._embed(chunks[middle:])
        return [Row(chunk, vector) for chunk, vector in zip(chunks, vectors, strict=True)]

    def _refuse(self, reasons: Mapping[str, str], chunks: list[CodeChunk]) -> None:
        places = {chunk.id: f"{chunk.path}:{chunk.start_line}-{chunk.end_line}" for chunk in chunks}
        self.report.refused |= {key: f"{places[key]}: {why}" for key, why in reasons.items()}


def _silent(_done: int, _total: int) -> None:
    """The run has a progress bar of its own."""


def _verify(store: VectorStore, expected: int, found: int, sample: Mapping[str, Vector]) -> None:
    if found != expected:
        raise StoreError(
            f"{store.collection!r} holds {found} rows of this repository where {expected} were acknowledged; "
            "run the command again, and check who else writes there"
        )
    held = store.vectors(list(sample))
    for key, sent in sample.items():
        if key not in held:
            raise StoreError(f"row {key} was acknowledged but cannot be read back; run the command again")
        cosine = float(sent @ held[key] / (np.linalg.norm(sent) * np.linalg.norm(held[key])))
        if not cosine >= MIN_COSINE:
            raise StoreError(
                f"row {key} reads back with cosine {cosine:.4f} to what was sent, expected at least {MIN_COSINE}; "
                "the store is damaged or another model writes to it"
            )
