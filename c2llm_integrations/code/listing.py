"""List the files of a folder: those that git tracks, and those that a walk under git's ignore rules finds."""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from shutil import which

from c2llm_integrations.code.git import MAX_PATHS, GitFolder, TooManyPaths, has_git, user_excludes
from c2llm_integrations.code.gitignore import IgnoreFiles, read_rules
from c2llm_integrations.code.safe_open import list_inside
from c2llm_integrations.errors import RepositoryError


@dataclass(slots=True)
class Listing:
    """Paths found, POSIX and relative to the root; `unreadable` are folders whose content is not known.

    `notes` say, a line each, why the list differs from git's own.
    """

    paths: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def list_files(root: Path, prefix: str, leave_out: Callable[[str], bool]) -> Listing:
    """List the tracked files and those that no .gitignore hides under `prefix`; links are listed, not followed.

    `leave_out` is asked before a folder is entered. In a work tree, a nested repository, submodule or not, is listed
    as one path, which is a folder; tracked files that were deleted are listed too. A bare repository's root only holds
    worktrees, which are entered. Raises RepositoryError for an index or an ignore file that cannot be read.
    """
    listing = Listing()
    git = GitFolder.of(root)
    tracked = set[str]() if git is None else _tracked_below(root, prefix, git, listing.notes)
    _walk(root, prefix, leave_out, tracked, git, listing)
    listing.paths = sorted({*listing.paths, *tracked})
    return listing


def _tracked_below(root: Path, prefix: str, git: GitFolder, notes: list[str]) -> set[str]:
    """Return the tracked files under `prefix`; `notes` get a line for each reason why git's list is not used."""
    notes += git.unread
    if (other := git.other_tree(root)) is not None:
        notes.append(
            f"{git.common / 'config'} sets core.worktree to {other}, which is ignored: "
            f"the files of {root} are indexed; to index the others give {other}"
        )
    if not os.path.isdir(git.own):
        notes.append(f"{root / '.git'} names no git folder: only files that no .gitignore hides are indexed")
        return set()
    if not git.has_index:
        return set()
    if which("git") is None:
        notes.append("git is not installed: tracked files that a .gitignore hides are not indexed")
        return set()
    if (found := _tracked(root, git)) is None:
        notes.append(f"git lists over {MAX_PATHS:,} paths: tracked files that a .gitignore hides are not indexed")
        return set()
    tracked = {path for path in found if path.startswith(f"{prefix}/" if prefix else "")}
    if lost := sorted(path for path in tracked if path.endswith("/")):
        notes.append(
            f"git cannot name the files of {len(lost):,} folders, such as {lost[0]}, whose objects are "
            "missing: those that a .gitignore hides are not indexed"
        )
    return tracked.difference(lost)


def hides(root: Path, prefix: str) -> bool:
    """Return whether the ignore rules of a root hide the folder `prefix` under it, and nothing in it is tracked."""
    git = GitFolder.of(root)
    rules = _rules(root, git)
    parts = prefix.split("/")
    if not any(rules.ignores("/".join(parts[: depth + 1]), True) for depth in range(len(parts))):
        return False
    if git is None or not git.has_index or which("git") is None:
        return True
    return not any(path.startswith(f"{prefix}/") for path in _tracked(root, git) or ())


def _tracked(root: Path, git: GitFolder) -> frozenset[str] | None:
    """Return the tracked paths, None for too many; raises RepositoryError if git cannot list them."""
    try:
        info = os.stat(git.own / "index")  # git never writes into it: another index is another file
        return _tracked_by(git, (info.st_ino, info.st_mtime_ns, info.st_ctime_ns, info.st_size))
    except (OSError, RepositoryError) as error:
        raise RepositoryError(f"git cannot list {root}: {error}; repair the repository and index again") from error


@lru_cache(8)
def _tracked_by(git: GitFolder, _stamp: tuple[int, ...]) -> frozenset[str] | None:
    """Return the paths in the index of this stamp, cached: asking git takes longer than looking at 10,000 files."""
    try:
        return git.tracked()
    except TooManyPaths:
        return None


def _rules(root: Path, git: GitFolder | None) -> IgnoreFiles:
    base = []
    if git is not None:
        own = Path(os.path.realpath(user_excludes()))
        base = [read_rules(own.parent, own.name), read_rules(git.common, "info/exclude")]
    return IgnoreFiles(root, ".gitignore", base)


def _walk(
    root: Path,
    prefix: str,
    leave_out: Callable[[str], bool],
    tracked: Set[str],
    git: GitFolder | None,
    listing: Listing,
) -> None:
    rules = _rules(root, git)
    has_nested = git is not None and not git.is_bare
    in_order = sorted(tracked) if has_nested else []
    todo = [prefix]
    while todo:
        folder = todo.pop()
        try:
            found = list_inside(root, folder)
        except OSError:
            listing.unreadable.append(folder)
            continue
        for name, is_folder in found:
            path = f"{folder}/{name}" if folder else name
            # A tracked path may be a folder by now; only a repository of its own is a submodule.
            if (path in tracked and not is_folder) or rules.ignores(path, is_folder):
                continue
            if not is_folder or (has_nested and _is_nested(f"{root}/{path}", path, in_order)):
                listing.paths.append(path)
            elif not leave_out(path):
                todo.append(path)


def _is_nested(folder: str, path: str, tracked: Sequence[str]) -> bool:
    """Return whether a folder is a repository of its own; to git it is not where the outer one tracks files in it."""
    if not has_git(folder):
        return False
    after = bisect_left(tracked, f"{path}/")
    return after == len(tracked) or not tracked[after].startswith(f"{path}/")
