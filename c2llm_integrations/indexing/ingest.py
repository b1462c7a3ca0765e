"""Index a repository into a collection: write new rows, verify them, then delete stale ones.

Progress is recorded nowhere but in the collection. A run compares it with the tree, so a repeated run writes nothing,
and a killed run continues where it stopped.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from dataclasses import replace as with_fields
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, TypeVar

from c2llm_integrations._utils.progress import Progress, shown
from c2llm_integrations.code import exclude
from c2llm_integrations.code.chunk import CodeChunk
from c2llm_integrations.code.chunking import chunk_source
from c2llm_integrations.code.git_commit import CommitSeen
from c2llm_integrations.code.parsing import ParseBudget
from c2llm_integrations.code.repository import Tree, iter_sources, open_tree
from c2llm_integrations.code.safe_open import list_inside
from c2llm_integrations.errors import RepositoryError, SpecMismatch
from c2llm_integrations.indexing.chunk_cache import ChunkCache
from c2llm_integrations.indexing.claims import CommitClaim, claim, claim_of, names_of, require_alone, require_claim
from c2llm_integrations.indexing.file_states import SnapshotWriter
from c2llm_integrations.indexing.options import IngestOptions
from c2llm_integrations.indexing.report import Estimator, IngestReport, RunReport
from c2llm_integrations.indexing.row_diff import Change, StoredRows
from c2llm_integrations.indexing.vector_reuse import SameTexts, SharedIndex, known_vectors
from c2llm_integrations.indexing.write_changes import Work, embed_rows, fill, require_count, write_changes
from c2llm_integrations.model.fingerprint import Fingerprint
from c2llm_integrations.model.options import remember_model
from c2llm_integrations.stores.backend import require_parts
from c2llm_integrations.stores.bulk_loader import Loader
from c2llm_integrations.stores.ids import RecordId
from c2llm_integrations.stores.records import Row
from c2llm_integrations.stores.spec import CollectionSpec, CompactPlan
from c2llm_integrations.stores.vector_store import VectorStore

if TYPE_CHECKING:
    from c2llm_integrations.indexing.options import VectorsFrom, WriteOptions
    from c2llm_integrations.model.embedder import C2LLMEmbedder

_Report = TypeVar("_Report", bound=RunReport)


def ingest(
    root: str | os.PathLike[str],
    embedder: C2LLMEmbedder,
    store: VectorStore,
    *,
    repository: str | None = None,
    compact: CompactPlan | None = None,
    long_text: str | None = None,
    replace: bool = False,
    force: bool = False,
    include_secrets: bool = False,
    refused: str | Path | None = None,
    only: Collection[str] | None = None,
    expected_root: Path | None = None,
    progress: Progress | bool | None = None,
    vectors_from: VectorStore | VectorsFrom | None = None,
) -> IngestReport:
    """Make the store hold exactly the chunks of the tree under `root`, and report what that took.

    Rows of other repositories, of paths outside `root`, of files that could not be read, and rows written by others
    are never touched. Lexical terms are stored wherever the store searches them.

    Args:
        root: A repository, or a folder in one.
        embedder: The model; an existing collection must have been made with the same one.
        store: The collection, which is created if it does not exist.
        repository: Name of a checkout that is indexed for the first time, by default that of its origin. It keeps
            that name, and the collection remembers it.
        compact: How vectors are stored. Without it an existing collection stays as it is, and a new one keeps float32
            without codes.
        long_text: "refuse" or "cut", for a text over the store's byte limit (see `CollectionSpec`).
        replace: Fill a new collection, which takes the old one's place once it is complete. Until then, and if a row
            is refused, a file unreadable or the run killed, the old one serves, and the next such run continues.
            Nothing of the old one is kept, so this needs `force` if other checkouts fill it, too.
        force: Take over a name that another checkout fills.
        include_secrets: Store files and values that are otherwise left out because they look like secrets.
        refused: File that gets one JSON object per row that could not be stored.
        only: If given, only these paths are compared; the caller knows that no other changed (`staleness.stale`).
        expected_root: The repository's folder when `root` was chosen; the run stops if `root` now belongs to another.
        progress: Called with (files done, files, path) before each file; True draws a bar on a terminal. A file counts
            once it is cut and compared: up to two batches of chunks may not be stored yet.
        vectors_from: A collection of the same model, such as a team's on a server: vectors that it holds are copied
            and not computed. Or a function that is given chunks and returns the vector of each, None for one to embed.

    Returns:
        What was found and done.

    Raises:
        RepositoryError: Another checkout fills the same name (unless `force`), this one was indexed under another
            name, or the folder vanished during the run.
        SpecMismatch: The collection or `vectors_from` was made with another model, or the collection differs from what
            `compact` asks for.
        StoreError: The store does not hold what it acknowledged, or `vectors_from` does not hold this model's vectors.

    """
    require_parts(embedder, store)
    with shown(progress) as report:
        options = IngestOptions(
            repository=repository,
            compact=compact,
            long_text=long_text,
            replace=replace,
            force=force,
            include_secrets=include_secrets,
            refused=None if refused is None else Path(refused),
            only=only,
            expected_root=expected_root,
            progress=report,
            vectors_from=vectors_from,
        )
        return ingest_with(root, embedder, store, options)


def ingest_with(
    root: str | os.PathLike[str], embedder: C2LLMEmbedder, store: VectorStore, options: IngestOptions
) -> IngestReport:
    """Do what `ingest` does, its options in one object."""
    begin = perf_counter()
    tree = _named_tree(root, store, options)
    if options.only is not None:
        tree.restrict(options.only)
    remember_model(str(embedder.fingerprint["model"]))
    spec, cache = store.spec, ChunkCache(tree, store)
    kept = None if options.replace else spec
    asked = spec_for(embedder.output_dim, embedder.fingerprint, store, options, kept)
    if isinstance(shared := options.vectors_from, VectorStore):
        options = with_fields(options, vectors_from=SharedIndex(shared, embedder, asked.datatype).vectors)
    run = _Run(tree, embedder, options, cache)
    if spec is None or not options.replace:
        is_new = store.create(asked)
        require_claim(tree, store, options.force)
        with SnapshotWriter(tree, store) as snapshot:
            report = run.write_and_verify(store, is_new, snapshot.changed)
            snapshot.finish(report.stored)
    else:
        asked, check = with_fields(asked, index=spec.index), partial(_require_no_other_checkout, tree, store, options)
        check()
        with SnapshotWriter(tree, store, anew=True) as snapshot:
            report = fill_and_replace(run.write_and_verify, store, asked, tree.name, check)
            if report.replaced:
                snapshot.finish(report.stored)
    cache.save()
    report.seconds = perf_counter() - begin
    return report


def plan(
    root: str | os.PathLike[str],
    store: VectorStore | None = None,
    embedder: C2LLMEmbedder | None = None,
    options: IngestOptions | None = None,
) -> IngestReport:
    """Report what `ingest` would write, move and delete, without changing anything.

    Args:
        root: As for `ingest`.
        store: None for an empty one.
        embedder: With one, `estimate` of the report says what the run would cost, and errors are those of `ingest`.
        options: As for `ingest`.

    """
    begin = perf_counter()
    options = options or IngestOptions()
    tree = _named_tree(root, store, options)
    report = IngestReport(tree.name, notes=tree.notes)
    stored, cache = StoredRows(), None
    spec = None if store is None else store.spec
    if store is not None and spec is not None:
        if options.replace:
            _require_no_other_checkout(tree, store, options)
            spec = None
        else:
            require_claim(tree, store, options.force)
            stored, cache = StoredRows(store.scan(source=tree.name)), ChunkCache(tree, store)
    estimator = None
    if embedder is not None:
        asked = spec_for(embedder.output_dim, embedder.fingerprint, store, options, spec)
        if store is not None:
            store.capabilities.require(asked)
        if spec is not None:
            spec.require_same(asked)
        estimator = Estimator(embedder, asked)
    report.stored = len(stored)
    for chunk, change in _compare(tree, stored, report, cache):
        if change is Change.NEW:
            report.written += 1
            if estimator is not None:
                estimator.add(chunk)
    report.deleted = len(_stale(tree, stored))
    report.estimate = None if estimator is None else estimator.estimate()
    report.seconds = perf_counter() - begin
    return report


def spec_for(
    width: int,
    fingerprint: Fingerprint,
    store: VectorStore | None,
    options: WriteOptions,
    existing: CollectionSpec | None,
) -> CollectionSpec:
    """Return the spec for a run: as asked, and what was not asked for stays as the `existing` collection has it.

    Raises:
        InputError: The plan has another width.

    """
    if existing is None:
        lexical = store is None or store.capabilities.lexical
        asked = CollectionSpec.planned(width, fingerprint, options.compact, lexical=lexical)
    else:
        plan = options.compact or with_fields(existing.plan, output_dim=None)
        lexical = existing.analyzer is not None
        asked = CollectionSpec.planned(width, fingerprint, plan, lexical=lexical, fields=existing.fields)
        kept = {name: getattr(existing, name) for name in ("long_text", "layout", "index")}
        asked = with_fields(asked, **kept)
    return asked if options.long_text is None else with_fields(asked, long_text=options.long_text)


def _named_tree(root: str | os.PathLike[str], store: VectorStore | None, options: IngestOptions) -> Tree:
    """List a tree under the name asked for, else the one the store knows its checkout by, else its origin's."""
    tree = open_tree(
        root, options.repository, include_secrets=options.include_secrets, expected_root=options.expected_root
    )
    claimed = claim_of(tree.root, store) if store is not None and options.repository is None else None
    if claimed is not None:
        tree.name = claimed[0]
    return tree


def _require_no_other_checkout(tree: Tree, store: VectorStore, options: IngestOptions) -> None:
    if not options.force:
        require_alone({tree.name, *names_of(tree.root, store)}, store, "drop them with --force")


def fill_and_replace(
    fill_successor: Callable[[VectorStore, bool], _Report],
    store: VectorStore,
    spec: CollectionSpec,
    source: str,
    check: Callable[[], None],
) -> _Report:
    """Fill a successor, which a killed run may have begun, and let it take the store's place if nothing is missing.

    `fill_successor` is told whether the successor was made for it; `check` raises if the store has come to hold what
    would be lost.
    """
    with store.successor() as successor:
        try:
            is_new = successor.create(spec)
            begun = successor.spec
            usable = begun is not None and begun.fields == spec.fields and not successor.claims().keys() - {source}
        except SpecMismatch:
            usable = False
        if not usable:  # begun for another model, other kinds of fields or another source
            successor.drop()
            is_new = successor.create(spec)
        report = fill_successor(successor, is_new)
        if report.is_complete:
            check()
            store.replace_by(successor)
            report.replaced = True
            require_count(store, source, report.stored)
    return report


@dataclass(frozen=True)
class _Run:
    """One run over a tree."""

    tree: Tree
    embedder: C2LLMEmbedder
    options: IngestOptions
    cache: ChunkCache

    def write_and_verify(self, store: VectorStore, is_new: bool, changed: Iterable[str] = ()) -> IngestReport:
        """Claim the repository, compare, write, verify, delete, verify again.

        `is_new`: as of `Work`; `changed`: files that differ from what the rows were read from.
        """
        tree, embedder, options = self.tree, self.embedder, self.options
        claim(tree, store)
        report = IngestReport(tree.name, notes=tree.notes)
        tokens, cut = embedder.tokens_seen, embedder.texts_cut
        stored, commit = StoredRows(() if is_new else store.scan(source=tree.name)), CommitClaim(tree, store)
        report.notes += commit.seen.notes
        # With more files than rows, most of the collection is still to be written.
        bulk = is_new or store.count() < len(tree.files)

        def write(loader: Loader) -> None:
            changes = commit.before(_compare(tree, stored, report, self.cache, options.progress, commit.seen))
            known: list[VectorsFrom] = [SameTexts(store, stored, tree.files, changed).vectors]
            if callable(options.vectors_from):  # `ingest_with` has made a function of a store
                known.append(options.vectors_from)
            write_changes(changes, partial(_rows, embedder=embedder, loader=loader, known=known), loader)

        def stale() -> list[RecordId]:
            require_there(tree)
            return _stale(tree, stored)

        fill(Work(tree.name, stored, write, stale, is_new), store, report, bulk=bulk, refused=options.refused)
        commit.record()
        report.tokens, report.cut = embedder.tokens_seen - tokens, embedder.texts_cut - cut
        return report


def _rows(chunks: list[CodeChunk], embedder: C2LLMEmbedder, loader: Loader, known: Sequence[VectorsFrom]) -> list[Row]:
    """Return the rows of chunks, with known vectors where there are some."""
    pairs = list(zip(chunks, known_vectors(chunks, *known), strict=True))
    embedded = embed_rows([chunk for chunk, vector in pairs if vector is None], embedder, loader.refuse)
    return [Row(chunk, vector) for chunk, vector in pairs if vector is not None] + embedded


def _compare(
    tree: Tree,
    stored: StoredRows,
    report: IngestReport,
    cache: ChunkCache | None = None,
    progress: Progress | None = None,
    seen: CommitSeen | None = None,
) -> Iterator[tuple[CodeChunk, Change]]:
    """Yield the chunks to act on, and take the rows of all chunks out of `stored`."""

    def note_file(path: str, data: bytes) -> None:
        if progress is not None:
            progress(report.files, len(tree.files), path)
        if seen is not None:
            seen.see(path, data)
        report.files += 1

    def take_if_unchanged(path: str, data: bytes, digest: str) -> bool:
        rows = stored.take_file(path, cache.rows(path, digest)) if cache is not None else 0
        if rows:
            note_file(path, data)
            report.chunks += rows
            report.unchanged += rows
        return rows > 0

    budget = ParseBudget()
    for source in iter_sources(tree, take_if_unchanged):
        note_file(source.path, source.data)
        refused = budget.refused
        chunks = chunk_source(tree.name, source.path, source.text, budget=budget)
        if cache is not None and budget.refused == refused:  # else the next run is to parse it
            cache.keep(source, chunks)
        for chunk in chunks:
            report.chunks += 1
            change = stored.take(chunk)
            if change is Change.NONE:
                report.unchanged += 1
                continue
            report.moved += change is Change.MOVED
            yield chunk, change
    report.skipped, report.encodings = dict(tree.skipped), dict(tree.encodings)
    report.notes += budget.notes


def _stale(tree: Tree, stored: StoredRows) -> list[RecordId]:
    """Return the ids of rows under the indexed folder whose text is gone; rows of unreadable files are kept."""
    return [id for id, path in stored.left() if tree.can_tell(path)]


def require_there(tree: Tree) -> None:
    """Raise RepositoryError for a tree that vanished, such as a lost network mount, whose files only seem deleted.

    Another folder may be in its place. An inode alone says little: some file systems number a folder anew.
    """
    folder = tree.root / tree.prefix
    way_out = "no row was deleted, run again when it is back"
    try:
        list_inside(tree.root, tree.prefix)
        info = os.stat(folder)
    except OSError as error:
        raise RepositoryError(f"{folder} vanished during the run ({error.strerror}); {way_out}") from error
    is_same = tree.place in (None, (info.st_dev, info.st_ino))
    if not is_same and exclude.GONE in tree.skipped:
        raise RepositoryError(f"{folder} vanished during the run (another folder is in its place); {way_out}")
