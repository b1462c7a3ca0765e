"""The steps of a distributed run, each of one parcel of files: list, chunk and compare, embed, write, finish.

Any step may run twice, on any machine: ids follow from content, writes overwrite, and a repository counts as done only
when the sum of all its chunks' ids is that of the rows the store holds.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from c2llm_integrations.claims import require_claim
from c2llm_integrations.code import skipping
from c2llm_integrations.code.chunk import CodeChunk
from c2llm_integrations.code.chunking import chunk_source
from c2llm_integrations.code.commit import Claim, CommitSeen
from c2llm_integrations.code.languages import PROSE, language_of
from c2llm_integrations.code.origin import normalise_origin
from c2llm_integrations.code.reading import Source
from c2llm_integrations.code.repository import Tree, checkout_id, is_bare, iter_sources, open_tree
from c2llm_integrations.comparing import Change, Held
from c2llm_integrations.errors import RepositoryError, StoreError
from c2llm_integrations.ingest import embed_rows, require_there
from c2llm_integrations.loading import Loader
from c2llm_integrations.stores import open_store
from c2llm_integrations.stores.base import Row, Stored, VectorStore

if TYPE_CHECKING:
    from c2llm_integrations.embedder import C2LLMEmbedder

# Files in one parcel, and their characters: what is chunked, embedded and stored as one, and again after a death.
FILES, CHARACTERS = 64, 2**20
# How long git may take to clone.
GIT_SECONDS = 3600
# What sums of 128-bit ids are taken modulo.
MODULUS = 2**128


@dataclass(frozen=True)
class Place:
    """Where rows go; `api_key` as for `open_store`, shown nowhere.

    `host`: the driver's machine, by which folders are known wherever they are read; `token`: stands for one pass,
    which is as long as a process keeps what it has read of the store.
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
        """Return the claims at about the begin of the pass: there are as many as repositories, and all ask."""
        return _claims(self)

    def owner_of(self, source: str) -> str:
        """Return what stands for a source in its repositories' claims, on whichever machine that is asked."""
        if "://" not in source:
            return checkout_id(Path(source), self.host)
        return hashlib.sha256((normalise_origin(source) or source).encode()).hexdigest()[:16]


@lru_cache(4)
def _opened(place: Place) -> VectorStore:
    return open_store(place.url, place.collection, api_key=place.api_key)


@lru_cache(1)
def _claims(place: Place) -> dict[str, str]:
    return place.open().claims()


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
class Parcel:
    """Some files of one repository on their way, and what became of them.

    `parcels`: how many the repository has, 0 where nobody knows; `owner`: for the claim; `texts`: path → text where
    the files are no files; `rows`: of the data set they come from; `held`: rows the store has under these paths;
    `read`: files that gave a text; `ids`: of the rows the store should hold of them; `commit`: what they were all read
    from; `is_done`: the store holds this very commit of the repository; `failed`: why nothing can be done;
    `is_lost`: a row of it did not read back as it was sent.
    """

    repository: str
    source: str
    owner: str = ""
    root: str = ""
    prefix: str = ""
    parcels: int = 1
    files: list[str] = field(default_factory=list)
    texts: dict[str, str] | None = None
    rows: int = 0
    read: int = 0
    held: list[Stored] = field(default_factory=list)
    new: list[CodeChunk] = field(default_factory=list)
    moved: list[CodeChunk] = field(default_factory=list)
    vectors: NDArray[np.float32] | None = None
    ids: Sum = field(default_factory=Sum)
    chunks: int = 0
    stale: list[str] = field(default_factory=list)
    unchanged: int = 0
    updated: int = 0
    written: int = 0
    tokens: int = 0
    cut: int = 0
    shortened: int = 0
    refused: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, list[str]] = field(default_factory=dict)
    commit: str | None = None
    is_done: bool = False
    failed: str = ""
    is_lost: bool = False


def list_source(source: str, place: Place, force: bool) -> Iterator[Parcel]:
    """List a source, claim its repository, and cut it into parcels with the rows that the store has of their files.

    `source`: a folder, or a git URL or bare repository, whose parcels carry their texts. A distant repository of which
    the store says that it holds the very commit is one parcel that is done, unless `force`. A source that cannot be
    listed, cloned or claimed is a parcel that failed.
    """
    try:
        if is_remote(source):
            yield from _list_remote(source, place, force)
        else:
            tree = open_tree(source)
            yield from _parcels(tree, source, place, force, checkout_id(tree.root, place.host))
    except RepositoryError as error:
        yield Parcel(source, source, failed=str(error))


def _list_remote(source: str, place: Place, force: bool) -> Iterator[Parcel]:
    name = normalise_origin(source) or Path(source).name.removesuffix(".git")
    owner = place.owner_of(source)
    head = _git(["ls-remote", "--", source, "HEAD"], source).partition("\t")[0]
    if not force and head and place.claims().get(name) == str(Claim(owner, head)):
        yield Parcel(name, source, owner, is_done=True)
        return
    with TemporaryDirectory(prefix="c2llm-") as folder:
        _git(["clone", "--quiet", "--depth", "1", "--no-tags", "--", source, folder], source)
        for parcel in _parcels(open_tree(folder, name), source, place, force, owner):
            tree = _tree_of(parcel)
            parcel.texts = {one.path: one.text for one in iter_sources(tree)}
            parcel.skipped = {**parcel.skipped, **tree.skipped}
            yield parcel


def is_remote(source: str) -> bool:
    """Say whether a source is a git URL or a bare repository, which is cloned."""
    return is_bare(Path(source)) or "://" in source or source.endswith(".git")


def _git(arguments: list[str], source: str) -> str:
    """Run git on a source that others may have made: no prompt, no hooks, no transport that runs a command."""
    quiet = {"GIT_TERMINAL_PROMPT": "0", "GIT_LFS_SKIP_SMUDGE": "1", "GIT_ALLOW_PROTOCOL": "file:git:http:https:ssh"}
    command, env = ["git", "-c", "core.hooksPath=/dev/null", *arguments], {**os.environ, **quiet}
    try:
        done = subprocess.run(command, env=env, capture_output=True, timeout=GIT_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RepositoryError(f"{source} cannot be read: {error}") from error
    if done.returncode:
        why = done.stderr.decode(errors="replace").strip().splitlines() or ["git said nothing"]
        raise RepositoryError(f"{source} cannot be read: {why[-1]}")
    return done.stdout.decode()


def _parcels(tree: Tree, source: str, place: Place, force: bool, owner: str) -> list[Parcel]:
    require_claim(tree, place, force, False, owner)
    if place.claims().get(tree.name) != owner:  # while rows change, it names no commit
        place.open().claim(tree.name, owner)
    by_path = _by_path(place, tree.name)
    commit = None if tree.prefix else _commit_of(str(tree.root), place.token).commit
    common = Parcel(tree.name, source, owner, str(tree.root), tree.prefix, commit=commit)
    first = replace(common, skipped=dict(tree.skipped), stale=[])
    for path in by_path.keys() - set(tree.files):
        ids = [row.id for row in by_path[path]]
        if tree.can_tell(path):
            first.stale += ids
        else:
            first.ids = first.ids.add(ids)
    found = [first]
    for paths in _groups(tree):
        held = [row for path in paths for row in by_path.get(path, ())]
        found.append(replace(common, files=paths, held=held))
    for parcel in found:
        parcel.parcels = len(found)
    return found


def _by_path(place: Place, repository: str) -> dict[str, list[Stored]]:
    rows: dict[str, list[Stored]] = {}
    for row in place.open().scan(repository):
        rows.setdefault(row.path, []).append(row)
    return rows


@lru_cache(4)
def _commit_of(root: str, _token: str) -> CommitSeen:
    """Return the commit that is checked out, listed once a process and pass; copies are told what was seen."""
    return CommitSeen(Path(root))


def _tree_of(parcel: Parcel) -> Tree:
    return Tree(Path(parcel.root), parcel.prefix, parcel.repository, list(parcel.files))


def list_texts(
    repository: str, paths: Sequence[str], texts: Sequence[str | None], source: str, place: Place, force: bool
) -> Parcel:
    """Make a parcel of some texts of a repository that is no folder, with the rows that the store has of them.

    What would be left out of a folder is left out here. One that another source fills, unless `force`, has failed.
    """
    owner, claim = place.owner_of(source), place.claims().get(repository)
    if claim is not None and Claim.parse(claim).checkout != owner and not force:
        why = f"repository {repository!r} in this collection was indexed from elsewhere; take it over with --force"
        return Parcel(repository, source, parcels=0, rows=len(paths), failed=why)
    if claim != owner:
        place.open().claim(repository, owner)
    tree = Tree(Path(), "", repository)
    kept: dict[str, str] = {}
    for path, text in zip(paths, texts, strict=True):
        reason = "no text" if text is None else _why_skip(path, text)
        if reason is not None:
            tree.skip(reason, path)
        elif text is not None:
            tree.files.append(path)
            kept[path] = text
    held = [row for path in kept for row in _held_of(place, repository).get(path, ())]
    common = Parcel(repository, source, owner, parcels=0, rows=len(paths), skipped=tree.skipped)
    return replace(common, files=tree.files, texts=kept, held=held)


def _why_skip(path: str, text: str) -> str | None:
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        return skipping.BINARY
    if size > skipping.MAX_FILE_BYTES:
        return skipping.TOO_LARGE
    return skipping.why_skip_name(path) or skipping.why_skip_text(text, language_of(path) in PROSE)


@lru_cache(4)
def _held_of(place: Place, repository: str) -> dict[str, list[Stored]]:
    return _by_path(place, repository)


def _groups(tree: Tree) -> Iterator[list[str]]:
    group: list[str] = []
    size = 0
    for path in tree.files:
        try:
            more = (tree.root / path).stat().st_size
        except OSError:
            more = 0
        if group and (len(group) == FILES or size + more > CHARACTERS):
            yield group
            group, size = [], 0
        group.append(path)
        size += more
    if group:
        yield group


def chunk(parcel: Parcel, place: Place) -> Parcel:
    """Read and chunk the parcel's files, and leave in it what is new, what has moved and what is stale.

    A file that cannot be chunked costs itself; it counts as unreadable, so that its rows stay.
    """
    tree, held = _tree_of(parcel), Held(parcel.held)
    is_folder = parcel.texts is None and bool(parcel.files)
    seen = copy(_commit_of(parcel.root, place.token)) if is_folder and parcel.commit else None
    done = replace(parcel, texts=None, held=[], stale=list(parcel.stale))
    for source in _sources(parcel, tree):
        if seen is not None:
            seen.see(source)
        try:
            chunks = list(chunk_source(tree.name, source.path, source.text))
        except Exception:
            tree.skip(skipping.UNREADABLE, source.path)
            continue
        done.read += 1
        _compare(chunks, held, done)
    for id, path in held.left():
        if tree.can_tell(path):
            done.stale.append(id)
        else:
            done.ids = done.ids.add([id])
    try:
        if is_folder:  # where this machine does not have the folder, all its files seem gone
            require_there(tree)
    except RepositoryError as error:
        return replace(done, new=[], moved=[], stale=[], failed=str(error))
    done.skipped = {**parcel.skipped, **tree.skipped}
    if seen is not None and seen.commit != parcel.commit:
        done.commit = None
    return done


def _compare(chunks: Sequence[CodeChunk], held: Held, done: Parcel) -> None:
    done.chunks += len(chunks)
    done.ids = done.ids.add(one.id for one in chunks)
    for one in chunks:
        change = held.take(one)
        if change is Change.NEW:
            done.new.append(one)
        elif change is Change.MOVED:
            done.moved.append(one)
        else:
            done.unchanged += 1


def _sources(parcel: Parcel, tree: Tree) -> Iterator[Source]:
    if parcel.texts is None:
        yield from iter_sources(tree)
        return
    for path, text in parcel.texts.items():
        yield Source(path, text, "utf-8")


def embed(parcel: Parcel, embedder: C2LLMEmbedder) -> Parcel:
    """Add the vectors of the parcel's new chunks; one that cannot be embedded is refused alone."""
    tokens, cut = embedder.tokens_seen, embedder.texts_cut
    refused = dict(parcel.refused)

    def refuse(chunks: Sequence[CodeChunk], reasons: Mapping[str, str]) -> None:
        for one in chunks:
            refused[one.id] = f"{one.path}:{one.start_line}-{one.end_line}: {reasons[one.id]}"

    rows = embed_rows(parcel.new, embedder, refuse)
    return replace(
        parcel,
        new=[row.chunk for row in rows],
        vectors=np.stack([row.vector for row in rows]) if rows else None,
        refused=refused,
        tokens=embedder.tokens_seen - tokens,
        cut=embedder.texts_cut - cut,
    )


def write(parcel: Parcel, place: Place) -> Parcel:
    """Store the parcel's rows, and keep of it only what the driver must know."""
    rows = []
    if parcel.vectors is not None:
        rows = [Row(one, vector) for one, vector in zip(parcel.new, parcel.vectors, strict=True)]
    with Loader(place.open()) as loader:
        loader.add(rows)
        loader.update(parcel.moved)
    is_lost = False
    try:
        loader.verify_sample()
    except StoreError:  # taken back, so that the next pass writes all of it again
        is_lost = True
        place.open().delete([row.chunk.id for row in rows])
    done = loader.report
    return replace(
        parcel,
        new=[],
        moved=[],
        vectors=None,
        updated=len(parcel.moved),
        written=done.written,
        shortened=done.cut,
        refused={**parcel.refused, **done.refused},
        is_lost=is_lost,
    )


def finish(
    name: str,
    place: Place,
    wanted: Sum | None,
    stale: Collection[str],
    paths: Collection[str] | None,
    claim: Claim,
) -> tuple[int, int]:
    """Verify that the store holds what it should of a repository, delete its stale rows, and record its commit.

    `wanted`: the ids it should hold, None if it was done before; `paths`: all that it has, rows of others are stale;
    None where `stale` names all. Returns rows deleted and rows held.
    Raises StoreError if the store holds anything else than wanted and stale rows; then nothing is deleted.
    """
    store, stale = place.open(), set(stale)
    if wanted is None:
        return 0, store.count(name)
    gone, held = [], Sum()
    for row in store.scan(name):
        if row.id in stale or (paths is not None and row.path not in paths):
            gone.append(row.id)
        else:
            held = held.add([row.id])
    if held == wanted:
        store.delete(gone)
        held = replace(held, count=store.count(name))
    if held != wanted:
        raise StoreError(
            f"{store.collection!r} holds {held.count} rows of {name!r} where {wanted.count} were meant"
            f"{'' if held.count != wanted.count else ', but others'}; run again, and check who else writes there"
        )
    if claim.commit:
        store.claim(name, str(claim))
    return len(gone), held.count
