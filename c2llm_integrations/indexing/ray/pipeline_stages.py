"""The stages of a distributed run, each of one batch of files: list, chunk and compare, embed, write, finish.

Any stage may run twice, on any machine: ids follow from content, writes overwrite, and a repository counts as done only
when the sum of all its chunks' ids is that of the rows the store holds.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy, deepcopy
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import numpy as np

from c2llm_integrations._utils.files import real_path
from c2llm_integrations.code import exclude
from c2llm_integrations.code.chunk import CodeChunk
from c2llm_integrations.code.chunking import chunk_source
from c2llm_integrations.code.git import GitFolder, check_out, run_git
from c2llm_integrations.code.git_commit import CommitSeen
from c2llm_integrations.code.repository import Tree, checkout_id, iter_sources, open_tree
from c2llm_integrations.code.repository_name import normalize_origin
from c2llm_integrations.code.source_file import SourceFile, redacted, source_of
from c2llm_integrations.code.version_control import is_git_folder
from c2llm_integrations.errors import RepositoryError, StoreError, reason_of
from c2llm_integrations.indexing.claims import Claim, require_claim
from c2llm_integrations.indexing.ingest import require_there
from c2llm_integrations.indexing.ray.batches import BatchResult, ChunkBatch, Destination, FileBatch, Sum
from c2llm_integrations.indexing.report import IngestReport
from c2llm_integrations.indexing.row_diff import Change, StoredRows
from c2llm_integrations.indexing.write_changes import embed_rows
from c2llm_integrations.stores.bulk_loader import Loader
from c2llm_integrations.stores.records import Row
from c2llm_integrations.stores.row_fields import Stored

if TYPE_CHECKING:
    from c2llm_integrations.model.embedder import C2LLMEmbedder

# The most files of one batch, and their characters: a batch is done as one, and repeated if its task dies.
BATCH_FILES, BATCH_CHARACTERS = 64, 2**20
# How long git may take to clone.
GIT_SECONDS = 3600
# What it may clone by: none of these runs a command.
_PROTOCOLS = "git:http:https:ssh"


def list_source(source: str, destination: Destination, force: bool) -> Iterator[FileBatch]:
    """List a source, claim its repository, and cut it into batches with the rows that the store has of their files.

    `source`: a folder, or a git URL or bare repository, whose batches carry their texts. A remote repository whose
    commit the store already holds becomes one batch that is done, unless `force`. A source that cannot be listed,
    cloned or claimed becomes a batch that failed.
    """
    try:
        if is_remote(source):
            yield from _list_remote(source, destination, force)
        else:
            tree = open_tree(source)
            owner = checkout_id(tree.root, destination.host)
            claims = ((name, Claim.parse(text)) for name, text in destination.claims().items())
            tree.name = next((name for name, claim in claims if claim.checkout == owner), tree.name)
            yield from _batches(tree, source, destination, force, owner)
    except (RepositoryError, OSError, ValueError) as error:  # the other sources are still done
        yield FileBatch(BatchResult(source, source, failed=reason_of(error)))


def name_of_remote(source: str, owner: str) -> str:
    """Return the name of a remote's repository, or its owner's digest if the URL has no name that is safe to keep."""
    return normalize_origin(source) or normalize_origin(os.path.dirname(source)) or owner  # /srv/repo/.git is "repo"


def _list_remote(source: str, destination: Destination, force: bool) -> Iterator[FileBatch]:
    owner = destination.owner_of(source)
    name = name_of_remote(source, owner)
    try:
        with _address(source) as (url, protocols):
            listed = run_git("ls-remote", "--", url, "HEAD", seconds=GIT_SECONDS, protocols=protocols)
            # Of any name that ends so, which need not be UTF-8.
            heads = (line.partition(b"\t") for line in listed.split(b"\n"))
            commit = next((one.decode("ascii", "replace") for one, _, name in heads if name == b"HEAD"), "")
            if not force and commit and destination.claims().get(name) == str(Claim(owner, commit)):
                yield FileBatch(BatchResult(name, source, owner, is_done=True))
                return
            folder = TemporaryDirectory(prefix="c2llm-")
            options = ("--quiet", "--depth", "1", "--no-tags", "--no-recurse-submodules", "--no-checkout")
            clone = ("-c", "fetch.unpackLimit=1", "clone")  # into one file, which has a limit
            run_git(*clone, *options, "--", url, folder.name, seconds=GIT_SECONDS, protocols=protocols)
            if commit:
                check_out(Path(folder.name), GIT_SECONDS)
    except RepositoryError as error:
        raise RepositoryError(f"{source} cannot be read: {error}") from error
    with folder:
        for batch in _batches(open_tree(folder.name, name), source, destination, force, owner):
            tree = _tree_of(batch)
            batch.texts = {one.path: one.text for one in iter_sources(tree)}
            report = batch.result.report
            report.skipped, report.encodings = {**report.skipped, **tree.skipped}, tree.encodings
            yield batch


@contextmanager
def _address(source: str) -> Iterator[tuple[str, str]]:
    """Make an address that git can clone, and name the protocols it may use.

    A repository on this machine is seen through a view, because git would run in it and believe its configuration.
    Raises RepositoryError for one that would give the content of another: a clone is all that its git folder names.
    """
    is_file = source.startswith("file://")
    if "://" in source and not is_file:  # whatever folder has such a name here
        yield source, _PROTOCOLS
        return
    folder = real_path(unquote(urlsplit(source).path) if is_file else source)
    git = GitFolder(folder, folder) if is_git_folder(folder) else GitFolder.of(folder)
    if git is None:
        yield source, _PROTOCOLS
        return
    git.require_own(folder)
    with git.view(to_clone=True) as view:
        yield view.as_uri(), "file"


def is_remote(source: str) -> bool:
    """Return whether a source is a git URL or a bare repository, which is cloned."""
    return is_git_folder(Path(source)) or "://" in source or source.endswith(".git")


def _batches(tree: Tree, source: str, destination: Destination, force: bool, owner: str) -> list[FileBatch]:
    """Return the tree's batches; the first one has no files, only the facts about the tree as a whole."""
    require_claim(tree, destination, force, owner)
    if destination.claims().get(tree.name) != owner:  # while rows change, it names no commit
        destination.open().claim(tree.name, owner)
    by_path = _by_path(destination, tree.name)
    seen = None if tree.prefix else _commit_of(str(tree.root), destination.token)
    groups = list(_groups(tree))
    common = BatchResult(tree.name, source, owner, batches=len(groups) + 1, commit=seen.commit if seen else None)
    notes = [*tree.notes, *(seen.notes if seen else ())]
    first = replace(common, report=IngestReport(tree.name, skipped=dict(tree.skipped), notes=notes), stale=[])
    for path in by_path.keys() - set(tree.files):
        ids = [str(row.id) for row in by_path[path]]
        if tree.can_tell(path):
            first.stale += ids
        else:
            first.ids = first.ids.add(ids)
    found = [FileBatch(first, str(tree.root), tree.prefix)]
    for paths in groups:
        result = replace(common, files=paths, report=IngestReport(tree.name))
        held = [row for path in paths for row in by_path.get(path, ())]
        found.append(
            FileBatch(result, str(tree.root), tree.prefix, frozenset(tree.wanted.intersection(paths)), held=held)
        )
    return found


def _by_path(destination: Destination, repository: str) -> dict[str, list[Stored]]:
    rows: dict[str, list[Stored]] = {}
    for row in destination.open().scan(source=repository):
        rows.setdefault(row.path, []).append(row)
    return rows


@lru_cache(4)
def _commit_of(root: str, _token: str) -> CommitSeen:
    """Return the commit that is checked out, listed once a process and pass; a copy sees one batch's sources."""
    return CommitSeen(Path(root))


def _tree_of(batch: FileBatch) -> Tree:
    result = batch.result
    root = Path(batch.root).resolve()  # where it lies on this machine
    return Tree(root, batch.prefix, result.repository, list(result.files), wanted=set(batch.taken_back))


def list_texts(
    repository: str,
    paths: Sequence[str],
    texts: Sequence[str | None],
    source: str,
    destination: Destination,
    force: bool,
) -> FileBatch:
    """Make a batch of some texts of a repository that is not a folder, with the rows that the store has of them.

    Texts are left out as files of a folder would be. If another source fills the repository, the batch has failed,
    unless `force`.
    """
    owner, claim = destination.owner_of(source), destination.claims().get(repository)
    if claim is not None and Claim.parse(claim).checkout != owner and not force:
        why = f"repository {repository!r} in this collection was indexed from elsewhere; take it over with --force"
        return FileBatch(BatchResult(repository, source, batches=0, rows=len(paths), failed=why))
    if claim != owner:
        destination.open().claim(repository, owner)
    tree = Tree(Path(), "", repository)
    kept: dict[str, str] = {}
    for path, text in zip(paths, texts, strict=True):
        source_file = "no text" if text is None else _source_of(path, text)
        if isinstance(source_file, str):
            tree.skip(source_file, path)
        else:
            tree.files.append(path)
            kept[path] = redacted(source_file).text
            if kept[path] != source_file.text:
                tree.skip(exclude.REDACTED, path)
    held = [row for path in kept for row in _held_of(destination, repository).get(path, ())]
    report = IngestReport(repository, skipped=tree.skipped)
    result = BatchResult(repository, source, owner, batches=0, files=tree.files, rows=len(paths), report=report)
    return FileBatch(result, texts=kept, held=held)


def _source_of(path: str, text: str) -> SourceFile | str:
    try:
        data = text.encode()
    except UnicodeEncodeError:
        return exclude.BINARY
    return exclude.why_skip_name(path) or source_of(path, data)


@lru_cache(4)
def _held_of(destination: Destination, repository: str) -> dict[str, list[Stored]]:
    return _by_path(destination, repository)


def _groups(tree: Tree) -> Iterator[list[str]]:
    group: list[str] = []
    size = 0
    for path in tree.files:
        try:
            more = (tree.root / path).lstat().st_size
        except OSError:
            more = 0
        if group and (len(group) == BATCH_FILES or size + more > BATCH_CHARACTERS):
            yield group
            group, size = [], 0
        group.append(path)
        size += more
    if group:
        yield group


def chunk(batch: FileBatch, destination: Destination) -> ChunkBatch:
    """Read and chunk the batch's files; sort the chunks into new and moved ones, and list the stale rows.

    A file that cannot be chunked is reported as unreadable and keeps its rows; the other files are done.
    """
    tree = _tree_of(batch)
    stored = StoredRows(batch.held)
    done = ChunkBatch(deepcopy(batch.result))
    result, report = done.result, done.result.report
    is_folder = batch.texts is None and bool(result.files)
    commit_seen = copy(_commit_of(batch.root, destination.token)) if is_folder and result.commit else None
    for source in _sources(batch, tree):
        if commit_seen is not None:
            commit_seen.see(source.path, source.data)
        try:
            chunks = list(chunk_source(tree.name, source.path, source.text))
        except Exception:
            tree.skip(exclude.UNREADABLE, source.path)
            continue
        report.files += 1
        _compare(chunks, stored, done)
    _keep_or_drop(stored, tree, result)
    try:
        if is_folder:  # if this machine does not have the folder, all its files seem gone
            require_there(tree)
    except RepositoryError as error:
        return ChunkBatch(replace(result, stale=[], failed=str(error)))
    report.skipped = {**report.skipped, **tree.skipped}
    report.encodings = tree.encodings or report.encodings
    if commit_seen is not None and commit_seen.commit != result.commit:
        result.commit = None
    return done


def _compare(chunks: Sequence[CodeChunk], stored: StoredRows, done: ChunkBatch) -> None:
    """Add chunks to those of a batch, by how they differ from their rows."""
    report = done.result.report
    report.chunks += len(chunks)
    done.result.ids = done.result.ids.add(one.id for one in chunks)
    for one in chunks:
        change = stored.take(one)
        if change is Change.NEW:
            done.new.append(one)
        elif change is Change.MOVED:
            done.moved.append(one)
        else:
            report.unchanged += 1


def _keep_or_drop(stored: StoredRows, tree: Tree, result: BatchResult) -> None:
    """List the rows that no chunk has taken as stale, but keep those of files that could not be read."""
    for id, path in stored.left():
        if tree.can_tell(path):
            result.stale.append(str(id))
        else:
            result.ids = result.ids.add([str(id)])


def _sources(batch: FileBatch, tree: Tree) -> Iterator[SourceFile]:
    if batch.texts is None:
        yield from iter_sources(tree)
        return
    for path, text in batch.texts.items():
        yield SourceFile(path, text, "utf-8", text.encode())


def embed(batch: ChunkBatch, embedder: C2LLMEmbedder) -> ChunkBatch:
    """Add the vectors of the batch's new chunks; one that cannot be embedded is refused alone."""
    tokens, cut = embedder.tokens_seen, embedder.texts_cut
    result = deepcopy(batch.result)
    report = result.report

    def refuse(chunks: Sequence[CodeChunk], reasons: Mapping[str, str]) -> None:
        for one in chunks:
            report.refuse(one.id, f"{one.path}:{one.start_line}-{one.end_line}: {reasons[one.id]}", None)

    rows = embed_rows(batch.new, embedder, refuse)
    report.tokens, report.cut = embedder.tokens_seen - tokens, embedder.texts_cut - cut
    vectors = np.stack([row.vector for row in rows]) if rows else None
    return ChunkBatch(result, [row.chunk for row in rows], vectors, batch.moved)


def write(batch: ChunkBatch, destination: Destination) -> BatchResult:
    """Store the batch's rows and return their report for the driver."""
    result, rows = deepcopy(batch.result), []
    if batch.vectors is not None:
        rows = [Row(one, vector) for one, vector in zip(batch.new, batch.vectors, strict=True)]
    with Loader(destination.open(), result.report, kept=None) as loader:  # the driver sums the ids of all
        loader.add(rows)
        loader.update(batch.moved)
    try:
        loader.verify_sample()
    except StoreError:  # deleted, so that the next pass writes all of it again
        result.is_lost = True
        destination.open().delete([row.chunk.id for row in rows])
    result.report.moved = len(batch.moved)
    return result


def finish(
    name: str,
    destination: Destination,
    wanted: Sum | None,
    stale: Collection[str],
    paths: Collection[str] | None,
    claim: Claim,
) -> tuple[int, int]:
    """Verify that the store holds the right rows of a repository, delete its stale ones, and record its commit.

    `wanted`: the ids it should hold, None if it was done before; `paths`: all paths that it has, so that rows of any
    other are stale, or None if `stale` names all. Returns rows deleted and rows held.
    Raises StoreError if the store holds other rows than wanted and stale ones; then nothing is deleted.
    """
    store, stale = destination.open(), set(stale)
    if wanted is None:
        return 0, store.count(source=name)
    gone, held = [], Sum()
    for row in store.scan(source=name):
        if row.id in stale or (paths is not None and row.path not in paths):
            gone.append(row.id)
        else:
            held = held.add([row.id])
    if held == wanted:
        store.delete(gone)
        held = replace(held, count=store.count(source=name))
    if held != wanted:
        others = "but not the expected ones" if held.count == wanted.count else f"expected {wanted.count}"
        raise StoreError(
            f"{store.collection!r} holds {held.count} rows of {name!r}, {others}; run again, and check who else writes "
            "there"
        )
    if claim.commit:
        store.claim(name, str(claim))
    return len(gone), held.count
