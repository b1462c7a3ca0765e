"""The steps of a distributed run, each of one parcel of files: list, chunk and compare, embed, write, finish.

Any step may run twice, on any machine: ids follow from content, writes overwrite, and a repository counts as done only
when the sum of all its chunks' ids is that of the rows the store holds.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from c2llm_integrations.code.chunk import CodeChunk
from c2llm_integrations.code.chunking import chunk_source
from c2llm_integrations.code.commit import Claim, CommitSeen
from c2llm_integrations.code.origin import normalise_origin
from c2llm_integrations.code.reading import Source
from c2llm_integrations.code.repository import Tree, checkout_id, iter_sources, open_tree
from c2llm_integrations.comparing import Change, Held
from c2llm_integrations.errors import InputError, RepositoryError, StoreError
from c2llm_integrations.ingest import require_claim
from c2llm_integrations.loading import Loader
from c2llm_integrations.stores import open_store
from c2llm_integrations.stores.base import Row, Stored, VectorStore

if TYPE_CHECKING:
    from c2llm_integrations.embedder import C2LLMEmbedder

# Files in one parcel, and their characters: what is chunked, embedded and stored as one, and again after a death.
FILES, CHARACTERS = 64, 2**20
# How long git may take to clone.
GIT_SECONDS = 3600
# How long git may take to clone.
GIT_SECONDS = 3600
# What sums of 128-bit ids are taken modulo.
MODULUS = 2**128


@dataclass(frozen=True)
class Place:
    """Where rows go; `api_key` as for `open_store`, shown nowhere."""

    url: str
    collection: str = "code"
    api_key: str | None = field(default=None, repr=False)

    def open(self) -> VectorStore:
        """Return this process's one store of that name."""
        return _opened(self)


@lru_cache(8)
def _opened(place: Place) -> VectorStore:
    return open_store(place.url, place.collection, api_key=place.api_key)


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

    `parcels`: how many the repository has; `texts`: path → text where the files are no files; `held`: rows the store
    has under these paths; `ids`: of the rows the store should hold of them; `commit`: what they were all read from;
    `is_done`: the store holds this very commit of the repository.
    """

    repository: str
    source: str
    root: str = ""
    prefix: str = ""
    parcels: int = 1
    files: list[str] = field(default_factory=list)
    texts: dict[str, str] | None = None
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
    is_text: bool = False


def list_source(source: str, place: Place, force: bool) -> list[Parcel]:
    """List a source, claim its repository, and cut it into parcels with the rows that the store has of their files.

    `source`: a folder, or a git URL or bare repository, whose parcels carry their texts. What the store says it holds
    at the very commit that is there now is one parcel that is done.
    Raises RepositoryError as `ingest` does and for what cannot be cloned, InputError for a URL with a password in it.
    """
    if not _is_remote(source):
        tree = open_tree(source)
        return _parcels(tree, source, place, force, checkout_id(tree.root))
    name = normalise_origin(source) or Path(source).name.removesuffix(".git")
    mine = checkout_id(Path(source))
    if place.open().claims().get(name) == str(Claim(mine, _git(["ls-remote", "--", source, "HEAD"], source)[:40])):
        return [Parcel(name, source, is_done=True)]
    with TemporaryDirectory(prefix="c2llm-") as folder:
        _git(["clone", "--quiet", "--depth", "1", "--no-tags", "--", source, folder], source)
        found = _parcels(open_tree(folder, name), source, place, force, mine)
        for parcel in found:
            tree = _tree_of(parcel)
            parcel.texts = {one.path: one.text for one in iter_sources(tree)}
            parcel.skipped = {**parcel.skipped, **tree.skipped}
    return found


def _is_remote(source: str) -> bool:
    is_bare = (Path(source) / "HEAD").is_file() and (Path(source) / "objects").is_dir()
    return is_bare or "://" in source or source.endswith(".git")


def _git(arguments: list[str], source: str) -> str:
    """Run git on a source that others may have made: no prompt, no hooks, no transport that runs a command."""
    if urlsplit(source).password is not None:
        raise InputError("the git URL holds a password; take it out, URLs end up in logs, and use a credential helper")
    quiet = {"GIT_TERMINAL_PROMPT": "0", "GIT_LFS_SKIP_SMUDGE": "1", "GIT_ALLOW_PROTOCOL": "file:git:http:https:ssh"}
    safe = ["-c", "core.hooksPath=/dev/null", "-c", "core.symlinks=false"]
    done = subprocess.run(
        ["git", *safe, *arguments], env={**os.environ, **quiet}, capture_output=True, timeout=GIT_SECONDS, check=False
    )
    if done.returncode:
        why = done.stderr.decode(errors="replace").strip().splitlines() or ["git said nothing"]
        raise RepositoryError(f"{source} cannot be read: {why[-1]}")
    return done.stdout.decode()


def _parcels(tree: Tree, source: str, place: Place, force: bool, mine: str) -> list[Parcel]:
    store = place.open()
    require_claim(tree, store, force, False, mine)
    claim = store.claims().get(tree.name)
    commit = CommitSeen(tree.root).commit
    if commit and not tree.prefix and claim == str(Claim(mine, commit)) and _seen(tree, iter_sources(tree)) == commit:
        return [Parcel(tree.name, source, is_done=True, skipped=tree.skipped)]
    if claim != mine:  # while rows change, it names no commit
        store.claim(tree.name, mine)
    by_path: dict[str, list[Stored]] = {}
    for row in store.scan(tree.name):
        by_path.setdefault(row.path, []).append(row)
    common = Parcel(tree.name, source, str(tree.root), tree.prefix, commit=None if tree.prefix else commit)
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


def _seen(tree: Tree, sources: Iterable[Source]) -> str | None:
    """Return the commit that is checked out if the sources are what it holds."""
    seen = CommitSeen(tree.root)
    for source in sources:
        seen.see(source)
        if seen.commit is None:
            return None
    return seen.commit


def _tree_of(parcel: Parcel) -> Tree:
    return Tree(Path(parcel.root), parcel.prefix, parcel.repository, list(parcel.files))


def list_texts(repository: str, paths: Sequence[str], texts: Sequence[str], source: str, place: Place) -> Parcel:
    """Make a parcel of some texts of a repository that is no folder, with the rows that the store has of them."""
    wanted = set(paths)
    held = [row for row in _held_of(place, repository) if row.path in wanted]
    mine = checkout_id(Path(source))
    if place.open().claims().get(repository) != mine:
        place.open().claim(repository, mine)
    named = dict(zip(paths, texts, strict=True))
    return Parcel(repository, source, parcels=0, files=list(paths), texts=named, held=held, is_text=True)


@lru_cache(64)
def _held_of(place: Place, repository: str) -> list[Stored]:
    return list(place.open().scan(repository))


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


def chunk(parcel: Parcel) -> Parcel:
    """Read and chunk the parcel's files, and leave in it what is new, what has moved and what is stale."""
    tree = _tree_of(parcel)
    held = Held(parcel.held)
    seen = CommitSeen(tree.root) if parcel.texts is None and parcel.commit else None
    done = replace(parcel, texts=None, held=[])
    for source in _sources(parcel, tree):
        if seen is not None:
            seen.see(source)
        for one in chunk_source(tree.name, source.path, source.text):
            done.chunks += 1
            done.ids = done.ids.add([one.id])
            change = held.take(one)
            if change is Change.NEW:
                done.new.append(one)
            elif change is Change.MOVED:
                done.moved.append(one)
            else:
                done.unchanged += 1
    for id, path in held.left():
        if parcel.texts is not None or tree.can_tell(path):
            done.stale.append(id)
        else:
            done.ids = done.ids.add([id])
    done.skipped = {**parcel.skipped, **tree.skipped}
    if seen is not None and seen.commit != parcel.commit:
        done.commit = None
    return done


def _sources(parcel: Parcel, tree: Tree) -> Iterator[Source]:
    if parcel.texts is None:
        yield from iter_sources(tree)
        return
    for path, text in parcel.texts.items():
        yield Source(path, text, "utf-8")


def embed(parcel: Parcel, embedder: C2LLMEmbedder) -> Parcel:
    """Add the vectors of the parcel's new chunks; one that cannot be embedded is refused alone."""
    tokens, cut = embedder.tokens_seen, embedder.texts_cut
    refused: dict[str, str] = {}
    rows = _embed(parcel.new, embedder, refused)
    vectors = np.stack([row.vector for row in rows]) if rows else None
    return replace(
        parcel,
        new=[row.chunk for row in rows],
        vectors=vectors,
        refused={**parcel.refused, **refused},
        tokens=embedder.tokens_seen - tokens,
        cut=embedder.texts_cut - cut,
    )


def _embed(chunks: Sequence[CodeChunk], embedder: C2LLMEmbedder, refused: dict[str, str]) -> list[Row]:
    if not chunks:
        return []
    try:
        vectors = embedder.encode_documents([one.text for one in chunks], progress=_silent)
    except InputError as error:
        if len(chunks) == 1:
            refused[chunks[0].id] = f"{chunks[0].path}:{chunks[0].start_line}-{chunks[0].end_line}: {error}"
            return []
        middle = len(chunks) // 2
        return _embed(chunks[:middle], embedder, refused) + _embed(chunks[middle:], embedder, refused)
    return [Row(one, vector) for one, vector in zip(chunks, vectors, strict=True)]


def write(parcel: Parcel, place: Place) -> Parcel:
    """Store the parcel's rows, and keep of it only what the driver must know."""
    rows = []
    if parcel.vectors is not None:
        rows = [Row(one, vector) for one, vector in zip(parcel.new, parcel.vectors, strict=True)]
    with Loader(place.open()) as loader:
        loader.add(rows)
        loader.update(parcel.moved)
    loader.verify_sample()
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
    )


def finish(
    name: str,
    place: Place,
    wanted: Sum | None,
    stale: Sequence[str],
    paths: Collection[str] | None,
    commit: str | None,
) -> tuple[int, int]:
    """Delete a repository's stale rows, now that all its new ones are stored, and verify that it holds what it should.

    `wanted`: the ids it should hold, None if it was done before; `paths`: all that it has, rows of others are stale;
    None where `stale` names all. `commit`: what its rows were read from. Returns rows deleted and rows held.
    Raises StoreError if the store holds anything else.
    """
    store, gone = place.open(), list(stale)
    if wanted is None:
        return 0, store.count(name)
    if paths is not None:
        gone += [row.id for row in store.scan(name) if row.path not in paths]
    store.delete(gone)
    held = Sum().add(row.id for row in store.scan(name))
    if held != wanted:
        raise StoreError(
            f"{store.collection!r} holds {held.count} rows of {name!r} where {wanted.count} were meant"
            f"{'' if held.count != wanted.count else ', but others'}; run again, and check who else writes there"
        )
    claim = Claim.parse(store.claims()[name])
    if claim.commit != commit:
        store.claim(name, str(Claim(claim.checkout, commit)))
    return len(gone), held.count


def _silent(_done: int, _total: int) -> None:
    """The run has a progress bar of its own."""
