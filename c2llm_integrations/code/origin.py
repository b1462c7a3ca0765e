"""The name of a repository, the same on every machine: its origin URL without credentials."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

_SCP = re.compile(r"(?:[^/@:]*@)?(?P<host>[^/:@]{2,}):(?P<path>[^:].*)")  # one letter would be a Windows drive
_URL_LINE = re.compile(r'url\s*=\s*"?([^"]*)"?', re.IGNORECASE)


def normalise_origin(url: str) -> str | None:
    """Return "host/path" of a remote URL: no scheme, user, password, port, query or ".git".

    Every way to write one remote gives one name. A path on this machine gives its last part; None means that
    nothing safe is left.
    """
    url = url.strip()
    if re.match(r"\w+::", url):  # a remote helper: anything may follow, commands and tokens included
        return None
    scp = None if "://" in url else _SCP.fullmatch(url)
    try:
        parts = urlsplit(url)
        host, path = (scp["host"], scp["path"]) if scp else (parts.hostname or "", parts.path)
    except ValueError:
        return None
    if not scp and ("://" not in url or parts.scheme == "file"):
        host, path = "", re.split(r"[\\/]", (path if parts.scheme == "file" else url).rstrip("\\/"))[-1]
        path = path.rpartition(":")[2]
    # A password may hold an unescaped "/", a proxy's path a second URL: nothing before an "@" is kept.
    path = re.sub(r"[^/]*@", "", path.split("?")[0].split("#")[0])
    path = "/".join(part for part in path.split("/") if part).removesuffix(".git").rstrip("/")
    return "/".join(part for part in (host.lower(), path) if part) if path else None


def origin_of(root: Path) -> str | None:
    """Return the URL of the remote "origin" in the git configuration of a work tree, or None.

    The file is read without git, so that a machine where git is missing, or refuses the folder because
    somebody else owns it, names the repository the same.
    """
    section = ""
    for line in _read(_git_folder(root) / "config").split("\n"):
        line = line.strip()
        if line.startswith("["):
            section = line.replace(" ", "").lower()
        elif section == '[remote"origin"]' and (match := _URL_LINE.fullmatch(line)):
            return match[1].strip()
    return None


def branch_of(root: Path) -> str:
    """Return the branch that a work tree has checked out, the commit where it is on none, or "" outside git."""
    head = _read(own_git_folder(root) / "HEAD").strip()
    return head.removeprefix("ref:").strip().removeprefix("refs/heads/")


def _git_folder(root: Path) -> Path:
    """Return where a work tree's configuration lies, which several work trees share."""
    folder = own_git_folder(root)
    common = _read(folder / "commondir").strip()
    return folder / common if common else folder


def own_git_folder(root: Path) -> Path:
    """Return a work tree's git folder: `.git`, or what it points to (worktree, submodule)."""
    folder = root / ".git"
    return root / _read(folder).removeprefix("gitdir:").strip() if folder.is_file() else folder


def _read(file: Path) -> str:
    try:
        return file.read_bytes().decode("utf-8", "surrogateescape")
    except OSError:
        return ""
