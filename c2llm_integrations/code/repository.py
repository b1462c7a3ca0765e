"""The tree of files that is indexed: which ones, under which repository name, and their sources and chunks."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import socket
import stat
from collections.abc import Callable, Iterable, Iterator, Set
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from c2llm_integrations._utils.files import real_path
from c2llm_integrations._utils.printable import as_unicode, is_unicode
from c2llm_integrations.code import exclude
from c2llm_integrations.code.chunk import CodeChunk
from c2llm_integrations.code.chunking import chunk_source
from c2llm_integrations.code.git import GitFolder, has_git, may_rule
from c2llm_integrations.code.gitignore import IgnoreFiles
from c2llm_integrations.code.languages import missing_grammars_note
from c2llm_integrations.code.listing import Listing, hides, list_files
from c2llm_integrations.code.parsing import ParseBudget
from c2llm_integrations.code.repository_name import normalize_origin
from c2llm_integrations.code.safe_open import MAX_PATH_BYTES
from c2llm_integrations.code.source_file import FileState, SourceFile, read_file, redacted, source_of
from c2llm_integrations.code.version_control import is_git_folder
from c2llm_integrations.errors import InputError, RepositoryError

IGNORE_FILE = ".c2llmignore"
# Characters of a path in a command to run: where notes are shortened, a part of the command could be another one.
MAX_QUOTED = 200
_URL = re.compile(r"\w[\w+.-]+:/")  # one letter would be a Windows drive; pathlib makes two slashes one
_LINK_OUT, _LINK_IN = "symlink leaves the root", "symlink"


@dataclass(slots=True)
class Tree:
    """The files to index of one folder, and what was left out.

    `root` is the git root, or the folder itself outside git; `prefix` the POSIX path of the folder under it
    ("" for all); `name` the repository's name. `files` are POSIX paths relative to `root`, sorted. `skipped`
    maps a reason to paths; a folder left out as a whole stands there once, with a "/" at its end. Reasons that
    need the content are added by `iter_sources`, and to `states` what each file looked like when it was read.
    `wanted` are files that IGNORE_FILE takes back from a guess, `encodings` maps what is not plain UTF-8 to paths.
    `unreadable` are folders that could not be listed; `only` the paths to look at, if not all; `include_secrets`: no
    file and no text is left out for its secrets; `place`: the device and inode that the folder had; `notes` lines that
    say why git's own listing was not used, or which grammars are not installed.
    """

    root: Path
    prefix: str
    name: str
    files: list[str] = field(default_factory=list)
    skipped: dict[str, list[str]] = field(default_factory=dict)
    wanted: set[str] = field(default_factory=set)
    encodings: dict[str, list[str]] = field(default_factory=dict)
    unreadable: tuple[str, ...] = ()
    states: dict[str, FileState] = field(default_factory=dict, repr=False)
    only: frozenset[str] | None = None
    include_secrets: bool = False
    place: tuple[int, int] | None = None
    notes: list[str] = field(default_factory=list)
    _unknown: set[str] = field(default_factory=set, repr=False)

    def skip(self, reason: str, path: str) -> None:
        """Count and name a path that is left out."""
        self.skipped.setdefault(reason, []).append(as_unicode(path))
        if reason == exclude.UNREADABLE:
            self._unknown.add(path.rstrip("/"))

    def note_encoding(self, source: SourceFile) -> None:
        """Name a file that is not plain UTF-8 under what it was read as."""
        is_damaged = "\ufffd" in source.text and "\ufffd".encode() not in source.data
        name = f"{source.encoding}, damaged" if is_damaged else source.encoding
        if name != "utf-8" and source.path not in self.encodings.setdefault(name, []):
            self.encodings[name].append(source.path)

    def restrict(self, paths: Iterable[str]) -> None:
        """Look at some paths only, which may be gone; the rest is as it was."""
        self.only = frozenset(paths)
        self.files = [path for path in self.files if path in self.only]

    def can_tell(self, path: str) -> bool:
        """Return whether this tree knows what became of `path`, once its sources were read.

        True for a path under the indexed folder that could be read, or is gone: only then may rows of a path
        that gave no chunk be deleted.
        """
        if (self.prefix and not path.startswith(self.prefix + "/")) or (
            self.only is not None and path not in self.only
        ):
            return False
        if not exclude.within_limits(path):  # a row is data: the folders above it could be any number
            return "" not in self._unknown and not any(f"{path}/".startswith(f"{one}/") for one in self._unknown)
        parts = path.split("/")
        above = {"", *("/".join(parts[:depth]) for depth in range(1, len(parts) + 1))}
        return not self._unknown & above


def open_tree(
    path: str | os.PathLike[str],
    repository: str | None = None,
    *,
    include_secrets: bool = False,
    expected_root: Path | None = None,
) -> Tree:
    """List the files to index under a folder.

    In a git work tree these are the tracked files and the untracked ones that are not ignored; elsewhere, or where git
    is missing, all that nested .gitignore files leave. `.c2llmignore` files of the same syntax hide more, and a pattern
    with "!" in them includes files that are left out as large, generated, minified, vendored or data, but no secrets.
    Of the repository's git configuration only the origin is read. A folder that git ignores is indexed as if it were
    outside git.

    Args:
        path: A repository, or a folder in one.
        repository: The repository's name; None for that of its origin, else its folder's.
        include_secrets: Leave out no file and no text because it looks like a secret.
        expected_root: The root that the folder had when it was chosen; a link may have taken its place since.

    Raises:
        RepositoryError: The folder cannot be listed, or has another root.
        InputError: The name cannot be stored.

    """
    root, notes = find_root(path, expected_root)
    folder = real_path(path)
    prefix = folder.relative_to(root).as_posix() if folder != root else ""
    tree = Tree(root, prefix, _name(root, repository), include_secrets=include_secrets)
    with suppress(OSError):  # gone since: then no file is found
        info = os.stat(folder)
        tree.place = (info.st_dev, info.st_ino)
    tree.notes = [*notes, *_fill(tree).notes]
    if missing := missing_grammars_note(tree.files):
        tree.notes.append(missing)
    return tree


def list_again(root: Path, prefix: str, known: Set[str]) -> tuple[Set[str], list[str]]:
    """List the files under `prefix` of a root that `open_tree` found, without judging the `known` ones again.

    Returns the known files that are still listed, and the new ones. Raises RepositoryError for a folder that cannot be
    listed.
    """
    _listable(root / prefix)
    tree = Tree(root, prefix, "")
    listed = set(_fill(tree, known).paths)
    return known & listed, tree.files


def root_of(path: str | os.PathLike[str]) -> Path:
    """Return the root that `open_tree` would give for a folder, without listing its files; raises the same errors."""
    return find_root(path)[0]


def find_root(path: str | os.PathLike[str], expected: Path | None = None) -> tuple[Path, list[str]]:
    """Return what `root_of` does, and lines that say why it is not the root of the work tree around the folder.

    Raises RepositoryError for another root than the `expected` one, too.
    """
    root, notes = _root_of(_listable(path))
    if expected not in (None, root):
        raise RepositoryError(
            f"{path} lies in {root} now, but in {expected} when it was chosen; start again if it moved"
        )
    return root, notes


def _listable(path: str | os.PathLike[str]) -> Path:
    if not isinstance(path, str | os.PathLike):
        raise InputError(f"expected a folder, got {path!r:.60} ({type(path).__name__})")
    folder = Path(path)
    try:
        folder = real_path(path)
        os.scandir(folder).close()
    except (OSError, ValueError) as error:  # a name with a zero byte, which no folder has
        if _URL.match(os.fspath(path)):  # may hold a password, so it is not repeated
            raise RepositoryError("a URL is not a folder; clone it and give the clone's folder") from None
        why = getattr(error, "strerror", None) or error
        raise RepositoryError(f"cannot list {folder}: {why}; give a folder that you can read") from error
    return folder


def iter_sources(tree: Tree, is_known: Callable[[str, bytes, str], bool] | None = None) -> Iterator[SourceFile]:
    """Yield each file's text in order of path, and add files that their content rules out to `tree.skipped`.

    Secrets in a text are replaced, unless `tree.include_secrets`. One file is in memory at a time. Iterating again
    yields the same sources and adds nothing twice. A file for whose path, content and the content's digest `is_known`
    returns True is only read.
    """
    redacted_paths = set(tree.skipped.get(exclude.REDACTED, ()))
    known = {path for paths in tree.skipped.values() for path in paths} - redacted_paths
    for path in tree.files:
        if path in known:
            continue
        content, state = read_file(tree.root, path)
        if state is not None:
            tree.states[path] = state
        if isinstance(content, str):
            tree.skip(content, path)
            continue
        if is_known is not None and state is not None and is_known(path, content, state.digest):
            continue
        found = source_of(path, content, path in tree.wanted, tree.include_secrets)
        if isinstance(found, str):
            tree.skip(found, path)
            continue
        tree.note_encoding(found)
        clean = found if tree.include_secrets else redacted(found)
        if clean is not found and path not in redacted_paths:
            tree.skip(exclude.REDACTED, path)
        yield clean


def iter_chunks(tree: Tree) -> Iterator[CodeChunk]:
    """Yield the chunks of what `iter_sources` yields, parsed within one budget."""
    budget = ParseBudget()
    for source in iter_sources(tree):
        yield from chunk_source(tree.name, source.path, source.text, budget=budget)


def checkout_id(root: Path, host: str | None = None) -> str:
    """Return 16 hexadecimal digits that identify this folder on this machine, or on the one called `host`."""
    place = (host or socket.gethostname()).encode() + b"\0" + os.fsencode(root.resolve())
    return hashlib.sha256(place).hexdigest()[:16]


def _root_of(folder: Path) -> tuple[Path, list[str]]:
    """Return the root that paths in `folder` are relative to, and why it is not the work tree around it."""
    for above in (folder, *folder.parents):
        if has_git(above):
            if not may_rule(above / ".git", folder):
                why = f"{above / '.git'} belongs to another user, so {folder} is indexed without it"
                place = shlex.quote(str(above))
                how = f": git config --global --add safe.directory {place}" if len(place) <= MAX_QUOTED else ""
                return folder, [f"{why}; to use it, name it in git's safe.directory{how}"]
            if folder != above and hides(above, folder.relative_to(above).as_posix()):
                return folder, []
            return above, []
        if is_git_folder(above):
            raise RepositoryError(
                f"{above} is a bare git repository, without files; clone it and give the clone's folder, "
                "or give the folder of a worktree"
            )
    return folder, []


def name_of(root: Path) -> str:
    """Return the name that the tree at `root` has unless it is given one: its origin's, else its folder's."""
    git = GitFolder.of(root)
    origin = git.config.get("remote.origin.url") if git is not None and not git.is_of_another(root) else None
    name = (normalize_origin(origin) if origin else None) or root.name or "root"
    return as_unicode(name)


def _name(root: Path, repository: str | None) -> str:
    if repository is None:
        return name_of(root)
    if not repository.strip() or "\0" in repository or not is_unicode(repository):
        raise InputError(f"repository name {repository!r} cannot be stored; give a name of plain characters")
    return repository


def _fill(tree: Tree, known: Set[str] = frozenset()) -> Listing:
    """List the files of a tree, and judge those that are not `known`."""
    file_filter = _FileFilter(tree)
    listing = list_files(tree.root, tree.prefix, file_filter.leave_out)
    for folder in listing.unreadable:
        tree.skip(exclude.UNREADABLE, folder + "/")
    tree.unreadable = tuple(listing.unreadable)
    for path in listing.paths:
        if path in known or file_filter.leave_out(path.rpartition("/")[0]):
            continue
        reason = file_filter.why_skip(path)
        if reason is None:
            tree.files.append(path)
        elif reason:
            tree.skip(reason, path)
    return listing


def _is_empty(folder: Path) -> bool:
    try:
        with os.scandir(folder) as entries:
            return not any(entries)
    except OSError:
        return True


def _is_gone(path: str) -> bool:
    try:
        os.lstat(path)
    except OSError as error:
        return isinstance(error, (FileNotFoundError, NotADirectoryError))
    return False


class _FileFilter:
    """Leave out files by name, place and size, before any is read."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._rules = IgnoreFiles(tree.root, IGNORE_FILE)
        self._left_out = {tree.prefix: False}  # the folder asked for is never left out
        self._deepest = exclude.MAX_DEPTH + tree.prefix.count("/") + bool(tree.prefix)  # slashes of what is too deep

    def leave_out(self, folder: str) -> bool:
        """Return whether a folder, or one above it, is left out; the first time, note why."""
        if (known := self._left_out.get(folder)) is not None:
            return known
        above = folder.rpartition("/")[0]
        end = len(above if self._left_out.get(above) is False else self._tree.prefix)
        # From the top down: an index may name millions of folders below one that is left out or gone.
        while end < len(folder):
            next_slash = folder.find("/", end + 1)
            end = len(folder) if next_slash < 0 else next_slash
            part = folder[:end]
            if part not in self._left_out:
                self._left_out[part] = self._judge(part)
            if self._left_out[part]:
                return True
        return False

    def _judge(self, folder: str) -> bool:
        full = f"{self._tree.root}/{folder}"
        # git lists tracked files behind a folder that became a link: to git they are deleted.
        if folder.rpartition("/")[2] in exclude.INTERNAL_NAMES or _is_gone(full) or os.path.islink(full):
            return True
        ignored = self._rules.says(folder, True)
        reason = IGNORE_FILE if ignored else exclude.why_skip_folder(full) if ignored is None else None
        if is_git_folder(full):
            reason = exclude.GIT
        if folder.count("/") == self._deepest or len(os.fsencode(folder)) > MAX_PATH_BYTES:
            reason = exclude.TOO_DEEP
        if reason:
            self._tree.skip(reason, folder + "/")
        return reason is not None

    def why_skip(self, path: str) -> str | None:
        """Return why a file is left out, "" to leave it out unreported, or None to keep it."""
        if path.rpartition("/")[2] in exclude.INTERNAL_NAMES:
            return ""
        if not is_unicode(path):
            return "undecodable name"
        ignored = self._rules.says(path, False)
        if ignored:
            return IGNORE_FILE
        if ignored is False:
            self._tree.wanted.add(path)
        full = self._tree.root / path
        try:
            info = os.lstat(full)
            target = os.readlink(full) if stat.S_ISLNK(info.st_mode) else ""
        except (FileNotFoundError, NotADirectoryError):
            return ""
        except OSError:
            return exclude.UNREADABLE
        if stat.S_ISLNK(info.st_mode):
            # Where one link leads is enough to say: following thousands of links to links takes their square.
            is_inside = Path(os.path.normpath(full.parent / target)).is_relative_to(self._tree.root)
            return _LINK_IN if is_inside else _LINK_OUT
        if stat.S_ISDIR(info.st_mode):
            # A tracked file that became a folder is gone; what the folder holds is listed.
            return "nested repository" if has_git(full) or _is_empty(full) else ""
        if not stat.S_ISREG(info.st_mode):
            return "not a regular file"
        why = exclude.why_skip_name(path)
        taken = (ignored is False and why in exclude.GUESSES) or (self._tree.include_secrets and why == exclude.SECRET)
        if why and not taken:
            return why
        return exclude.TOO_LARGE if info.st_size > exclude.max_bytes(path, ignored is False) else None
