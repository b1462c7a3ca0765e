"""Open files and folders of an untrusted tree: no link is followed out of it, and no pipe blocks.

A root is a folder without links in its path; one that has become a link meanwhile is not followed either.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

# No system opens a longer path, with its root's; so none has more characters, either.
MAX_PATH_BYTES = 4096
# Of a file that we keep beside rows: of a million source files, one takes half of it.
MAX_OWN_BYTES = 2**28

_BY_DESCRIPTOR = os.open in os.supports_dir_fd  # everywhere but on Windows
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
# A folder that may be entered but not listed still holds files.
_ENTER = getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_PATH", os.O_RDONLY)
_LIST = _NO_LINK | getattr(os, "O_DIRECTORY", 0) | os.O_RDONLY
_READ = _NO_LINK | os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_BINARY", 0)


# Windows has a second kind of symbolic link.
_HAS_JUNCTIONS = os.name == "nt" and hasattr(os.DirEntry, "is_junction")


class NotRegular(OSError):
    """A link, pipe, device or folder where a file was expected."""


def open_inside(root: Path, path: str) -> BinaryIO:
    """Open the regular file `path` (POSIX, relative to `root`) for reading; no link below `root` is followed.

    Raises OSError: NotRegular for what is not a file, FileNotFoundError for a path that leads out of the root.
    """
    try:
        descriptor = _open(root, path, _READ)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK, errno.ENXIO):  # a link, or a socket
            raise NotRegular(error.errno, "not a regular file") from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NotRegular(errno.EINVAL, "not a regular file")
    return os.fdopen(descriptor, "rb")


def read_inside(root: Path, path: str, limit: int = -1) -> bytes:
    """Return the first `limit` bytes of a file that `open_inside` opens, or all of them."""
    with open_inside(root, path) as file:
        return file.read(limit)


def require_small(file: Path) -> Path:
    """Return a file's path; raises OSError for a link, a pipe and the like, and for one larger than any of ours.

    It may have come with a checkout.
    """
    about = os.lstat(file)
    if not stat.S_ISREG(about.st_mode):
        raise NotRegular(errno.EINVAL, "not a regular file")
    if about.st_size > MAX_OWN_BYTES:
        raise OSError(errno.EFBIG, f"it has {about.st_size:,} bytes, at most {MAX_OWN_BYTES:,} are read")
    return file


def list_inside(root: Path, path: str) -> list[tuple[str, bool]]:
    """Return the names in a folder under `root` and whether each is a folder; no link below `root` is followed."""
    if not _BY_DESCRIPTOR:
        with os.scandir(_checked(root, path)) as entries:
            return [(entry.name, _is_folder(entry)) for entry in entries]
    descriptor = _open(root, path, _LIST)
    try:
        with os.scandir(descriptor) as entries:
            return [(entry.name, _is_folder(entry)) for entry in entries]
    finally:
        os.close(descriptor)


def _open(root: Path, path: str, flags: int) -> int:
    if not _BY_DESCRIPTOR:
        return os.open(_checked(root, path), flags)
    parts = parts_inside(path)
    if not parts:
        return os.open(root, flags)
    at = os.open(root, _ENTER | _NO_LINK)
    try:
        for folder in parts[:-1]:
            below = os.open(folder, _ENTER | _NO_LINK, dir_fd=at)
            os.close(at)
            at = below
        return os.open(parts[-1], flags, dir_fd=at)
    finally:
        os.close(at)


def _checked(root: Path, path: str) -> Path:
    """Raise for a link on the way, on systems that cannot open a path relative to a folder."""
    full = Path(os.path.realpath(root)).joinpath(*parts_inside(path))
    if os.path.normcase(os.path.realpath(full)) != os.path.normcase(full):
        raise NotADirectoryError(errno.ENOTDIR, "leads through a link", path)
    return full


def parts_inside(path: str) -> list[str]:
    """Return the parts of a POSIX path below a root; raises FileNotFoundError for one that may lead out of it."""
    parts = path.split("/") if path else []
    odd = ("\\", ":") if os.name == "nt" else ()
    if any(part in ("", ".", "..") or "\0" in part or any(char in part for char in odd) for part in parts):
        raise FileNotFoundError(errno.ENOENT, "not a path inside the folder", path)
    return parts


def _is_folder(entry: os.DirEntry[str]) -> bool:
    return entry.is_dir(follow_symlinks=False) and not (_HAS_JUNCTIONS and entry.is_junction())  # type: ignore[attr-defined,unused-ignore]
