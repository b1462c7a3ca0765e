"""Read an untrusted `.git` folder: no file that leads out of it, and no pipe."""

from __future__ import annotations

import os
import re
from pathlib import Path, PureWindowsPath

from c2llm_integrations.code.safe_open import read_inside

# Bytes that are read of each of git's small files.
MAX_BYTES = 2**20
# Folders of objects that others may name, how deep these may name more, and files in one: git itself gives up at six.
MAX_ALTERNATES, MAX_DEPTH, MAX_FILES = 64, 6, 2**20
_IS_WINDOWS = os.name == "nt"
# A drive, as Windows names it at length.
_LOCAL = re.compile(r"\\\\[?.]\\[a-z]:")
# What git opens in a folder of objects.
_OBJECTS = re.compile("info|pack|[0-9a-f]{2}")


def place_of(folder: Path, pointer: str) -> Path:
    """Return where a pointer of a git folder leads, without links if anything is there."""
    if _IS_WINDOWS and leads_to_host(folder, pointer):
        return folder / "(on another machine)"
    place = folder / pointer
    # The system gives up on long paths and on many links to links; without it Python takes the square of their length.
    return Path(os.path.realpath(place)) if os.path.exists(place) else place


def leads_to_host(folder: str | os.PathLike[str], pointer: str) -> bool:
    """Return whether a pointer names another machine to Windows, which would send it the user's name and password.

    A folder on a share may name others on that share.
    """
    plain, own = pointer.replace("/", "\\").lower(), PureWindowsPath(folder).drive.lower()
    if not plain.startswith("\\\\") or _LOCAL.match(plain):
        return False
    return not own or not f"{plain}\\".startswith(f"{own}\\")


def is_link(folder: Path) -> bool:
    """Return whether a path is a symbolic link, or what Windows has beside it (which Python knows from 3.12 on)."""
    return os.path.islink(folder) or getattr(os.path, "isjunction", os.path.islink)(folder)


def file_inside(folder: Path, name: str) -> Path | None:
    """Return where a file of a git folder really is; None for a link out of the folder, and for what is not a file."""
    real = place_of(folder, name)
    return real if os.path.isfile(real) and real.is_relative_to(place_of(folder, "")) else None


def read_small(folder: Path, name: str) -> str:
    """Return the text of one of git's own small files; "" for what is not a file inside the folder."""
    try:
        real = file_inside(folder, name)
        text = read_inside(real.parent, real.name, MAX_BYTES).decode("utf-8", "surrogateescape") if real else ""
    except (OSError, ValueError):
        return ""
    return "" if "\0" in text else text


def is_plain(folder: Path, only: re.Pattern[str] | None = None) -> bool:
    """Return whether a folder, itself no link, has only folders, files, and links to these: git would wait for a pipe.

    `only`: looks at what has such a name in the folder, and at no more than `MAX_FILES`: the folder may be any.
    """
    if is_link(folder):
        return False
    base = str(place_of(folder, ""))
    todo, seen = [base], 0
    try:
        while todo:
            with os.scandir(above := todo.pop()) as entries:
                for entry in entries:
                    if only is not None and above == base and not only.fullmatch(entry.name):
                        continue
                    seen += 1
                    if entry.is_dir(follow_symlinks=False):
                        todo.append(entry.path)
                    elif not _is_file(entry, base) or (only is not None and seen > MAX_FILES):
                        return False
    except OSError:
        return False
    return True


def _is_file(entry: os.DirEntry[str], base: str) -> bool:
    """Return whether an entry is a file, or a link to one or to nothing below `base`."""
    if not entry.is_symlink():
        return entry.is_file()
    target = os.path.normpath(os.path.join(entry.path, os.pardir, os.readlink(entry.path)))
    is_file = os.path.isfile(target) and not os.path.islink(target)
    return target.startswith(base + os.sep) and (is_file or not os.path.lexists(target))


def has_plain_alternates(objects: Path) -> bool:
    """Return whether all folders of objects that a plain one names, and that these name, are plain, too."""
    todo, seen = [(objects, 0)], {objects}
    while todo:
        folder, depth = todo.pop()
        file = folder / "info" / "alternates"
        if not os.path.lexists(file):
            continue
        text = read_small(file.parent, file.name)
        size = os.path.getsize(file)
        if size > MAX_BYTES or (size and not text):  # more of it than is read here, or not read at all
            return False
        for line in filter(None, text.split("\n")):
            if line.startswith("#"):
                continue
            place = place_of(folder, line)
            if line.startswith('"') or leads_to_host(folder, line) or len(seen) > MAX_ALTERNATES or depth == MAX_DEPTH:
                return False
            if place in seen or not os.path.isdir(place):  # git leaves out what is not there
                continue
            if not is_plain(place, _OBJECTS):
                return False
            seen.add(place)
            todo.append((place, depth + 1))
    return True
