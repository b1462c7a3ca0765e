"""One file → its text, or why it is left out, and what the file looked like at that moment."""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from c2llm_integrations.code import skipping
from c2llm_integrations.code.decoding import decode
from c2llm_integrations.code.languages import PROSE, language_of


@dataclass(frozen=True, slots=True)
class Source:
    """One file's text; `text.encode(encoding)` is the file, byte for byte."""

    path: str
    text: str
    encoding: str


# The coarsest time stamps in use, FAT's. git guards its index against the same race.
RACY_NS = 2_000_000_000


class FileState(NamedTuple):
    """When a file's content and its inode last changed (ns), its bytes, its inode, and the digest of its content.

    The times are 0, which equals no file's, where it was read so soon after a change that it may have changed once
    more without a trace; the digest is "" where it could not be read.
    """

    modified: int
    changed: int
    size: int
    inode: int
    digest: str


def read_source(root: Path, path: str) -> tuple[Source | str, FileState | None]:
    """Return a file's source, or why it is left out, and the state it was read in; None if it is gone."""
    begin = time.time_ns()
    try:
        with open(root / path, "rb", opener=_open_no_link) as file:
            info = os.fstat(file.fileno())  # before its content: what is written meanwhile then shows
            data = file.read(skipping.MAX_FILE_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return "gone while indexing", None
    except OSError:
        return skipping.UNREADABLE, _unread(root / path)
    is_settled = max(info.st_mtime_ns, info.st_ctime_ns) < begin - RACY_NS
    times = (info.st_mtime_ns, info.st_ctime_ns) if is_settled else (0, 0)
    return _judge(path, data), FileState(*times, info.st_size, info.st_ino, _digest(data))


def _unread(file: Path) -> FileState | None:
    try:
        info = os.lstat(file)
    except OSError:
        return None
    return FileState(info.st_mtime_ns, info.st_ctime_ns, info.st_size, info.st_ino, "")


def _open_no_link(path: str, flags: int) -> int:
    # A link that took the file's place since it was listed may lead anywhere.
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0))


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _judge(path: str, data: bytes) -> Source | str:
    if len(data) > skipping.MAX_FILE_BYTES:
        return skipping.TOO_LARGE
    decoded = decode(data)
    if decoded is None:
        return skipping.BINARY
    text, encoding = decoded
    return skipping.why_skip_text(text, language_of(path) in PROSE) or Source(path, text, encoding)
