"""The files of a folder: as git lists them, or by walking it under the same ignore rules."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from c2llm_integrations.code.gitignore import IgnoreFiles, read_patterns
from c2llm_integrations.errors import RepositoryError

_CLOSED_FOLDER = re.compile(r"^warning: could not open directory '(.*?)/?': ", re.MULTILINE)


@dataclass(slots=True)
class Listing:
    """Paths found, POSIX and relative to the root; `unreadable` are folders whose content is not known."""

    paths: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)


def git(folder: Path, *arguments: str) -> subprocess.CompletedProcess[bytes] | None:
    """Run git in a folder; None if it is not installed."""
    # A hook's GIT_DIR or GIT_INDEX_FILE would answer for another repository. The file system monitor is
    # a command named by the repository's own configuration: an index must not run what it reads.
    keep = {key: value for key, value in os.environ.items() if _is_harmless(key)}
    command = ["git", "-c", "core.fsmonitor=false", "-C", str(folder), *arguments]
    try:
        return subprocess.run(command, capture_output=True, check=False, env={**keep, "LC_ALL": "C"})
    except FileNotFoundError:
        return None


def _is_harmless(variable: str) -> bool:
    return not variable.startswith("GIT_") or variable.startswith("GIT_CONFIG_")


def list_git(root: Path, prefix: str) -> Listing:
    """List the tracked and the untracked, not ignored files under `prefix` of a work tree.

    A nested repository, submodule or not, is listed as one path, which is a folder; tracked files that were
    deleted are listed too. Raises RepositoryError if git fails.
    """
    below = ["--", f":(literal){prefix}"] if prefix else []
    done = git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard", *below)
    if done is None or done.returncode:
        why = done.stderr.decode(errors="replace").strip().split("\n")[0] if done else "git is not installed"
        raise RepositoryError(f"git cannot list {root}: {why}; repair the repository and index again")
    names = {name.rstrip("/") for name in os.fsdecode(done.stdout).split("\0")} - {""}
    return Listing(sorted(names), _closed_folders(os.fsdecode(done.stderr)))


def _closed_folders(warnings: str) -> list[str]:
    folders = _CLOSED_FOLDER.findall(warnings)
    # A folder's name may hold a newline; then nothing is known, rather than a wrong name believed.
    return folders if warnings.count("could not open directory") == len(folders) else [""]


def walk(root: Path, prefix: str, leave_out: Callable[[str], bool]) -> Listing:
    """List every file under `prefix` that no .gitignore hides; symbolic links are listed, not followed.

    `leave_out` is asked before a folder is entered. If the root is a git work tree, nested repositories are
    listed as one path, as git does. Raises RepositoryError for an ignore file that cannot be read.
    """
    base = read_patterns(root / ".git" / "info" / "exclude")
    rules = IgnoreFiles(root, ".gitignore", base)
    is_repository = os.path.lexists(root / ".git")
    listing = Listing()
    todo = [prefix]
    while todo:
        folder = todo.pop()
        try:
            with os.scandir(root / folder) as entries:
                found = [(entry.name, _is_folder(entry)) for entry in entries]
        except OSError:
            listing.unreadable.append(folder)
            continue
        for name, is_folder in found:
            path = f"{folder}/{name}" if folder else name
            if rules.ignores(path, is_folder) or (is_folder and leave_out(path)):
                continue
            if is_folder and not (is_repository and os.path.lexists(root / path / ".git")):
                todo.append(path)
            else:
                listing.paths.append(path)
    listing.paths.sort()
    return listing


def _is_folder(entry: os.DirEntry[str]) -> bool:
    is_junction = getattr(entry, "is_junction", bool)  # Windows' other symbolic link, Python 3.12
    return entry.is_dir(follow_symlinks=False) and not is_junction()


def is_ignored(root: Path, prefix: str) -> bool:
    """Say whether the .gitignore files of a root hide the folder `prefix` under it."""
    rules = IgnoreFiles(root, ".gitignore", read_patterns(root / ".git" / "info" / "exclude"))
    parts = prefix.split("/") if prefix else []
    return any(rules.ignores("/".join(parts[: depth + 1]), True) for depth in range(len(parts)))
