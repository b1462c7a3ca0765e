"""A repository → the rows of a collection: write what is new, verify it, then delete what is gone.

The collection is the only record of what is done. A run compares it with the tree, so a repeated run writes nothing,
and a run that was killed goes on where it stopped.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from dataclasses import replace as with_fields
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from c2llm_integrations.claims import CommitClaim, require_alone, require_claim
from c2llm_integrations.code.chunk import CodeChunk
from c2llm_integrations.code.chunking import chunk_source
from c2llm_integrations.code.commit import CommitSeen
from c2llm_integrations.code.repository import Tree, checkout_id, iter_sources, open_tree
from c2llm_integrations.code.skipping import UNREADABLE
from c2llm_integrations.code.terms import ANALYSER
from c2llm_integrations.comparing import Change, Held
from c2llm_integrations.compression import CompactPlan
from c2llm_integrations.errors import InputError, RepositoryError, SpecMismatch, StoreError
from c2llm_integrations.estimate import Estimate, Estimator
from c2llm_integrations.loading import Loader
from c2llm_integrations.progress import Progress, silent
from c2llm_integrations.stores.base import CollectionSpec, Row, Vector, VectorStore
from c2llm_integrations.tree_record import Recording

if TYPE_CHECKING:
    from c2llm_integrations.embedder import C2LLMEmbedder

# Chunks embedded and stored together: what a killed run may have to embed again.
BATCH = 256

VectorsFrom = Callable[[Sequence[str]], Sequence[Vector | None]]
Refuse = Callable[[Sequence[CodeChunk], Mapping[str, str]], None]


@dataclass
class IngestReport:
    """What one run found and did. Counts are chunks unless named otherwise; a moved chunk only has other lines.

    `cut`: texts whose end the model did not read; `shortened`: texts that the store cut at its byte limit;
    `refused`: row id → its place and why it is not in the store; `skipped`: reason → files that were left out;
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
    skipped: dict[str, list[str]] = field(default_factory=dict)
    replaced: bool = False
    estimate: Estimate | None = None
    seconds: float = 0.0

    @property
    def unreadable(self) -> list[str]:
        """Paths that could not be read; their rows stay, and the run counts as failed."""
        return self.skipped.get(UNREADABLE, [])


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
    own_store: bool = False,
    refused: Path | None = None,
    progress: Progress | None = None,
    only: Iterable[str] | None = None,
    vectors_from: VectorsFrom | None = None,
) -> IngestReport:
    """Make the store hold exactly the chunks of the tree under `root`, and say what that took.

    Rows of other repositories, of paths outside `root`, of files that could not be read, and rows written by others
    are never touched. `compact` says how vectors are stored; without it an existing collection stays as it is, and a
    new one keeps float32 without codes; `long_text` ("refuse" or "cut") is that of `CollectionSpec`. Lexical terms are
    stored wherever the store searches them.
    `replace` fills a new collection, which takes the old one's place once it is complete: until then, and if a row is
    refused, a file unreadable or the run killed, the old one serves, and the next such run goes on. Nothing of the old
    one is kept; that drops other checkouts' repositories too, so it needs `force` if there are any.
    `own_store` says that the collection serves this tree alone, so that it may have been moved. `refused`: a file that
    gets a line of JSON for each row that could not be stored. `progress(files done, files, path)` is called before
    each file. `only`: the paths to look at, where nothing else can have changed (`freshness.stale`).
    `vectors_from(texts)` may give a text the vector that the embedder would give it, None for one to embed.
    Raises RepositoryError when another checkout fills the same repository name (unless `force`), when this one was
    indexed under another name, or when it vanishes during the run; SpecMismatch when the collection was made with
    another model or otherwise than `compact` says; StoreError when the store does not hold what it acknowledged.
    """
    begin = perf_counter()
    tree = open_tree(root, repository)
    if only is not None:
        tree.restrict(only)
    held = store.spec
    if held is None or not replace:
        spec = spec_for(embedder, store, compact, long_text, held)
        store.create(spec)
        if require_claim(tree, store, force, own_store) != checkout_id(tree.root):
            store.claim(tree.name, checkout_id(tree.root))
        with Recording(tree, store) as recording:
            report = _fill(tree, embedder, store, refused, progress, vectors_from)
            recording.finish(report.stored)
    else:
        require_alone(tree, store, force or own_store)
        spec = spec_for(embedder, store, compact, long_text, None)
        with Recording(tree, store, anew=True) as recording:
            report = _replace(tree, embedder, store, spec, refused, progress, vectors_from)
            if report.replaced:
                recording.finish(report.stored)
    report.seconds = perf_counter() - begin
    return report


def plan(
    root: str | os.PathLike[str],
    store: VectorStore | None = None,
    embedder: C2LLMEmbedder | None = None,
    *,
    repository: str | None = None,
    compact: CompactPlan | None = None,
    long_text: str | None = None,
    replace: bool = False,
    force: bool = False,
    own_store: bool = False,
) -> IngestReport:
    """Say what `ingest` would write, move and delete, without changing anything; `store=None`: into an empty one.

    With an embedder, `estimate` says what that would cost, and the errors are those of `ingest`.
    """
    begin = perf_counter()
    tree = open_tree(root, repository)
    report = IngestReport(tree.name)
    held, spec = Held(), None if store is None else store.spec
    if store is not None and spec is not None and replace:
        require_alone(tree, store, force or own_store)
        spec = None
    elif store is not None and spec is not None:
        require_claim(tree, store, force, own_store)
        held = Held(store.scan(tree.name))
    estimator = None
    if embedder is not None:
        wanted = spec_for(embedder, store, compact, long_text, spec)
        if store is not None:
            store.capabilities.require(wanted)
        if spec is not None:
            spec.require_same(wanted)
        estimator = Estimator(embedder, wanted)
    report.stored = len(held)
    for chunk, change in _compare(tree, held, report):
        if change is Change.NEW:
            report.written += 1
            if estimator is not None:
                estimator.add(chunk)
    report.deleted = len(_stale(tree, held))
    report.estimate = None if estimator is None else estimator.estimate()
    report.seconds = perf_counter() - begin
    return report


def spec_for(
    embedder: C2LLMEmbedder,
    store: VectorStore | None,
    compact: CompactPlan | None,
    long_text: str | None,
    held: CollectionSpec | None,
) -> CollectionSpec:
    """Return the spec to ask for: the embedder's, and of the rest what is asked, else what the collection has.

    Raises InputError for a plan of another width than the embedder gives.
    """
    width = embedder.output_dim
    if held is None:
        lexical = store is None or store.capabilities.lexical
        held = CollectionSpec(width, {}, analyser=ANALYSER if lexical else None)
    asked: dict[str, Any] = {"width": width, "fingerprint": embedder.fingerprint}
    if held.analyser is not None:
        asked["analyser"] = ANALYSER
    if long_text is not None:
        asked["long_text"] = long_text
    if compact is not None:
        if compact.output_dim != width:
            raise InputError(
                f"the plan stores {compact.output_dim} dimensions, the embedder gives {width}; "
                "load it with projection=FILE or truncate=N, or plan for its width"
            )
        asked |= {"datatype": compact.datatype, "quantization": compact.quantization, "rescore": compact.rescore}
    return with_fields(held, **asked)


def _replace(
    tree: Tree,
    embedder: C2LLMEmbedder,
    store: VectorStore,
    spec: CollectionSpec,
    refused: Path | None,
    progress: Progress | None,
    vectors_from: VectorsFrom | None,
) -> IngestReport:
    """Fill a successor, which a killed run may have begun, and let it take the store's place if nothing is missing."""
    with store.successor() as successor:
        try:
            successor.create(spec)
            usable = not successor.claims().keys() - {tree.name}
        except SpecMismatch:
            usable = False
        if not usable:  # begun for another model or another repository
            successor.drop()
            successor.create(spec)
        successor.claim(tree.name, checkout_id(tree.root))
        report = _fill(tree, embedder, successor, refused, progress, vectors_from)
        if not report.refused and not report.unreadable:
            store.replace_by(successor)
            report.replaced = True
            _require_count(store, tree.name, report.stored)
    return report


def _fill(
    tree: Tree,
    embedder: C2LLMEmbedder,
    store: VectorStore,
    refused: Path | None,
    progress: Progress | None,
    vectors_from: VectorsFrom | None,
) -> IngestReport:
    """Compare, write, verify, delete, verify again."""
    report = IngestReport(tree.name)
    tokens, cut = embedder.tokens_seen, embedder.texts_cut
    held, commit = Held(store.scan(tree.name)), CommitClaim(tree, store)
    # With more files than rows, most of the collection is still to be written.
    bulk = store.count() < len(tree.files)
    with store.bulk() if bulk else nullcontext(), Loader(store, refused=refused) as loader:
        changes = commit.before(_compare(tree, held, report, progress, commit.seen))
        _write(changes, partial(_rows, embedder=embedder, loader=loader, vectors_from=vectors_from), loader)
    report.written, report.shortened, report.refused = loader.report.written, loader.report.cut, loader.report.refused
    loader.verify(len(held), tree.name)
    require_there(tree)
    stale = _stale(tree, held)
    store.delete(stale)
    report.deleted = len(stale)
    if stale or not bulk:
        store.optimize()
    report.stored = len(held) + report.written - report.deleted
    _require_count(store, tree.name, report.stored)
    commit.record()
    report.tokens, report.cut = embedder.tokens_seen - tokens, embedder.texts_cut - cut
    return report


def _write(
    changes: Iterator[tuple[CodeChunk, Change]], rows: Callable[[list[CodeChunk]], list[Row]], loader: Loader
) -> None:
    """Embed what is new, a batch ahead of what is being stored, and pass on what has moved."""
    new: list[CodeChunk] = []
    moved: list[CodeChunk] = []
    for chunk, change in changes:
        (new if change is Change.NEW else moved).append(chunk)
        if len(new) == BATCH:
            loader.add(rows(new))
            new = []
        if len(moved) == BATCH:
            loader.update(moved)
            moved = []
    loader.add(rows(new))
    loader.update(moved)


def _rows(
    chunks: list[CodeChunk], embedder: C2LLMEmbedder, loader: Loader, vectors_from: VectorsFrom | None
) -> list[Row]:
    """Return the rows of chunks, with vectors that are known already where there are some."""
    if vectors_from is None or not chunks:
        return embed_rows(chunks, embedder, loader.refuse)
    known = list(zip(chunks, vectors_from([chunk.text for chunk in chunks]), strict=True))
    rest = embed_rows([chunk for chunk, vector in known if vector is None], embedder, loader.refuse)
    return [Row(chunk, vector) for chunk, vector in known if vector is not None] + rest


def embed_rows(chunks: Sequence[CodeChunk], embedder: C2LLMEmbedder, refuse: Refuse) -> list[Row]:
    """Return the rows of chunks, without those that cannot be embedded; `refuse(chunks, id → reason)` gets these."""
    if not chunks:
        return []
    try:
        vectors = embedder.encode_documents([chunk.text for chunk in chunks], progress=silent)
    except InputError as error:
        if len(chunks) == 1:
            refuse(chunks, {chunks[0].id: str(error)})
            return []
        middle = len(chunks) // 2
        return embed_rows(chunks[:middle], embedder, refuse) + embed_rows(chunks[middle:], embedder, refuse)
    return [Row(chunk, vector) for chunk, vector in zip(chunks, vectors, strict=True)]


def _compare(
    tree: Tree,
    held: Held,
    report: IngestReport,
    progress: Progress | None = None,
    seen: CommitSeen | None = None,
) -> Iterator[tuple[CodeChunk, Change]]:
    """Yield the chunks to act on, and take the rows of all chunks out of `held`."""
    for source in iter_sources(tree):
        if progress is not None:
            progress(report.files, len(tree.files), source.path)
        if seen is not None:
            seen.see(source)
        report.files += 1
        for chunk in chunk_source(tree.name, source.path, source.text):
            report.chunks += 1
            change = held.take(chunk)
            if change is Change.NONE:
                report.unchanged += 1
                continue
            report.moved += change is Change.MOVED
            yield chunk, change
    report.skipped = dict(tree.skipped)


def _stale(tree: Tree, held: Held) -> list[str]:
    """Ids of rows under the indexed folder whose text is gone; a file that could not be read may still hold its."""
    return [id for id, path in held.left() if tree.can_tell(path)]


def require_there(tree: Tree) -> None:
    """Raise RepositoryError for a tree that vanished, such as a lost network mount: its files only seem deleted."""
    folder = tree.root / tree.prefix
    try:
        os.scandir(folder).close()
    except OSError as error:
        raise RepositoryError(
            f"{folder} vanished during the run ({error.strerror}); no row was deleted, run again when it is back"
        ) from error


def _require_count(store: VectorStore, repository: str, expected: int) -> None:
    found = store.count(repository)
    if found != expected:
        raise StoreError(
            f"{store.collection!r} holds {found} rows of this repository where {expected} were acknowledged; "
            "run the command again, and check who else writes there"
        )
