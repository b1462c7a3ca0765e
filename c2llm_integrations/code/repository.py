"""Which files of a folder belong in an index, and under which repository name."""

from __future__ import annotations

import hashlib
import os
import re
import socket
import stat
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass, field
from pathlib import Path

from c2llm_integrations.code import skipping
from c2llm_integrations.code.gitignore import IgnoreFiles
from c2llm_integrations.code.listing import Listing, git, is_ignored, list_git, walk
from c2llm_integrations.code.origin import normalise_origin, origin_of
from c2llm_integrations.code.reading import FileState, Source, read_source
from c2llm_integrations.errors import InputError, RepositoryError

IGNORE_FILE = ".c2llmignore"
_URL = re.compile(r"\w[\w+.-]+:/")  # one letter would be a Windows drive; pathlib makes two slashes one
_LINK_OUT, _LINK_IN = "symlink leaves the root", "symlink"


@dataclass(slots=True)
class Tree:
    """The files to index of one folder, and what was left out.

    `root` is the git root, or the folder itself outside git; `prefix` the POSIX path of the folder under it
    ("" for all); `name` the repository's name. `files` are POSIX paths relative to `root`, sorted. `skipped`
    maps a reason to paths; a folder left out as a whole stands there once, with a "/" at its end. Reasons that
    need the content are added by `iter_sources`, and to `states` what each file looked like when it was read.
    `unreadable` are folders that could not be listed; `only` the paths to look at, if not all.
    """

    root: Path
    prefix: str
    name: str
    files: list[str] = field(default_factory=list)
    skipped: dict[str, list[str]] = field(default_factory=dict)
    unreadable: tuple[str, ...] = ()
    states: dict[str, FileState] = field(default_factory=dict, repr=False)
    only: frozenset[str] | None = None
    _unknown: set[str] = field(default_factory=set, repr=False)

    def skip(self, reason: str, path: str) -> None:
        """Count and name a path that is left out."""
        printable = path.encode("utf-8", "backslashreplace").decode()
        self.skipped.setdefault(reason, []).append(printable)
        if reason == skipping.UNREADABLE:
            self._unknown.add(path.rstrip("/"))

    def restrict(self, paths: Iterable[str]) -> None:
        """Look at some paths only, which may be gone; the rest is as it was."""
        self.only = frozenset(paths)
        self.files = [path for path in self.files if path in self.only]

    def can_tell(self, path: str) -> bool:
        """Say whether this tree knows what became of `path`, once its sources were read.

        True for a path under the indexed folder that could be read, or is gone: only then may rows of a path
        that gave no chunk be deleted.
        """
        if (self.prefix and not path.startswith(self.prefix + "/")) or (
            self.only is not None and path not in self.only
        ):
            return False
        parts = path.split("/")
        above = {"", *("/".join(parts[:depth]) for depth in range(1, len(parts) + 1))}
        return not self._unknown & above


def open_tree(path: str | os.PathLike[str], repository: str | None = None) -> Tree:
    """List the files to index under a folder; `repository` overrides the repository's name.

    In a git work tree these are the tracked and the untracked, not ignored files; elsewhere, or where git is
    missing or refuses the folder, all that nested .gitignore files leave. `.c2llmignore` files of the same
    syntax hide more in either case. A folder that git ignores is indexed like one outside git, when asked for.
    Raises RepositoryError for a folder that cannot be listed, InputError for an unusable name.
    """
    folder = _listable(path)
    root, by_git = _find_root(folder)
    prefix = folder.relative_to(root).as_posix() if folder != root else ""
    tree = Tree(root, prefix, _name(root, repository))
    sieve = _Sieve(tree)
    listing = list_git(root, prefix) if by_git else walk(root, prefix, sieve.leave_out)
    _fill(tree, listing, sieve)
    return tree


def list_again(root: Path, prefix: str, known: Set[str]) -> tuple[Set[str], list[str]]:
    """List the files under `prefix` of a root that `open_tree` found: those in `known`, as they stand, and new ones.

    Raises RepositoryError for a folder that cannot be listed.
    """
    _listable(root / prefix)
    tree = Tree(root, prefix, "")
    sieve = _Sieve(tree)
    try:
        by_git = os.path.lexists(root / ".git")
        listing = list_git(root, prefix) if by_git else walk(root, prefix, sieve.leave_out)
    except RepositoryError:
        listing = walk(root, prefix, sieve.leave_out)
    listed = set(listing.paths)
    _fill(tree, Listing(sorted(listed - known), listing.unreadable), sieve)
    return known & listed, tree.files


def root_of(path: str | os.PathLike[str]) -> Path:
    """Return the root that `open_tree` would give for a folder, without listing its files; the same errors."""
    return _find_root(_listable(path))[0]


def is_bare(folder: Path) -> bool:
    """Say whether a folder is what git keeps, without files of a work tree."""
    return (folder / "HEAD").is_file() and (folder / "objects").is_dir()


def _listable(path: str | os.PathLike[str]) -> Path:
    folder = Path(path).resolve()
    try:
        os.scandir(folder).close()
    except OSError as error:
        if _URL.match(os.fspath(path)):  # may hold a password, so it is not repeated
            raise RepositoryError("a URL is no folder; clone it and give the clone's folder") from None
        raise RepositoryError(f"cannot list {folder}: {error.strerror}; give a folder that you can read") from error
    if is_bare(folder):
        raise RepositoryError(f"{folder} is a bare git repository, without files; clone it and give the clone's folder")
    return folder


def iter_sources(tree: Tree) -> Iterator[Source]:
    """Yield each file's text in order of path, and note in `tree.skipped` what its content rules out.

    One file is held in memory at a time. Iterating again yields the same sources and notes nothing twice.
    """
    known = {path for paths in tree.skipped.values() for path in paths}
    for path in tree.files:
        if path in known:
            continue
        found, state = read_source(tree.root, path)
        if state is not None:
            tree.states[path] = state
        if isinstance(found, Source):
            yield found
        else:
            tree.skip(found, path)


def checkout_id(root: Path, host: str | None = None) -> str:
    """Return 16 hexadecimal digits that stand for this folder on this machine, or on the one called `host`."""
    place = (host or socket.gethostname()).encode() + b"\0" + os.fsencode(root.resolve())
    return hashlib.sha256(place).hexdigest()[:16]


def _find_root(folder: Path) -> tuple[Path, bool]:
    """Return the root that paths in `folder` are relative to, and whether git can list it."""
    root, by_git = _work_tree(folder)
    if folder != root and _hides(root, folder.relative_to(root).as_posix(), by_git):
        return folder, False
    return root, by_git


def _work_tree(folder: Path) -> tuple[Path, bool]:
    done = git(folder, "rev-parse", "--show-toplevel")
    if done is not None and done.returncode == 0:
        return Path(os.fsdecode(done.stdout).removesuffix("\n")).resolve(), True
    for above in (folder, *folder.parents):
        if (above / ".git").is_file() or (above / ".git" / "HEAD").is_file():
            return above, False
    return folder, False


def _hides(root: Path, prefix: str, by_git: bool) -> bool:
    """Say whether a folder is ignored and nothing in it is tracked."""
    if not by_git:
        return is_ignored(root, prefix)
    done = git(root, "check-ignore", "-q", "--", prefix)
    return done is not None and done.returncode == 0 and not list_git(root, prefix).paths


def _name(root: Path, repository: str | None) -> str:
    if repository is None:
        origin = origin_of(root)
        name = (normalise_origin(origin) if origin else None) or root.name or "root"
        return name.encode("utf-8", "backslashreplace").decode()
    if not repository.strip() or "\0" in repository or not _is_unicode(repository):
        raise InputError(f"repository name {repository!r} cannot be stored; give a name of plain characters")
    return repository


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _fill(tree: Tree, listing: Listing, sieve: _Sieve) -> None:
    for folder in listing.unreadable:
        tree.skip(skipping.UNREADABLE, folder + "/")
    tree.unreadable = tuple(listing.unreadable)
    for path in listing.paths:
        if sieve.leave_out(path.rpartition("/")[0]):
            continue
        reason = sieve.why_skip(path)
        if reason is None:
            tree.files.append(path)
        elif reason:
            tree.skip(reason, path)


class _Sieve:
    """What is left out by name, place and size, before any file is read."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._rules = IgnoreFiles(tree.root, IGNORE_FILE)
        self._left_out = {tree.prefix: False}  # the folder asked for is never left out, whatever its name

    def leave_out(self, folder: str) -> bool:
        """Say whether a folder, or one above it, is left out; the first time, note why."""
        known = self._left_out.get(folder)
        if known is not None:
            return known
        ends = [at for at, char in enumerate(folder) if char == "/" and at > len(self._tree.prefix)]
        for end in (*ends, len(folder)):
            above = folder[:end]
            if above not in self._left_out:
                self._left_out[above] = self._judge(above)
            if self._left_out[above]:
                self._left_out[folder] = True
                break
        return self._left_out[folder]

    def _judge(self, folder: str) -> bool:
        full = self._tree.root / folder
        # git lists tracked files behind a folder that became a link: to git they are deleted.
        if full.name in skipping.INTERNAL_NAMES or full.is_symlink():
            return True
        reason = IGNORE_FILE if self._rules.ignores(folder, True) else skipping.why_skip_folder(full)
        if reason:
            self._tree.skip(reason, folder + "/")
        return reason is not None

    def why_skip(self, path: str) -> str | None:
        """Return why a file is left out, "" without a word, or None to keep it."""
        if path.rpartition("/")[2] in skipping.INTERNAL_NAMES:
            return ""
        if not _is_unicode(path):
            return "undecodable name"
        if self._rules.ignores(path, False):
            return IGNORE_FILE
        full = self._tree.root / path
        try:
            info = os.lstat(full)
        except (FileNotFoundError, NotADirectoryError):
            return ""
        except OSError:
            return skipping.UNREADABLE
        if stat.S_ISLNK(info.st_mode):
            return _LINK_IN if Path(os.path.realpath(full)).is_relative_to(self._tree.root) else _LINK_OUT
        if stat.S_ISDIR(info.st_mode):
            return "nested repository"
        if not stat.S_ISREG(info.st_mode):
            return "not a regular file"
        return skipping.why_skip_name(path) or (skipping.TOO_LARGE if info.st_size > skipping.MAX_FILE_BYTES else None)
