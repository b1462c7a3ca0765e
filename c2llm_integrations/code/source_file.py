"""Read one file: its text or why it is left out, and its state at that moment."""

from __future__ import annotations

import codecs
import hashlib
import os
import re
import time
import unicodedata
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from c2llm_integrations._utils.json_lines import has_too_many_values
from c2llm_integrations.code import exclude, notebook
from c2llm_integrations.code.languages import is_prose, language_of
from c2llm_integrations.code.safe_open import NotRegular, open_inside
from c2llm_integrations.code.secrets import without_secrets


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file's text, the encoding it was read in, and its bytes. A notebook's text is the script of its cells."""

    path: str
    text: str
    encoding: str
    data: bytes


# Languages of names and values, in which a value needs no quotes.
_SETTINGS = frozenset({"json", "yaml", "toml", "xml", "ini", "terraform", "dockerfile"})


def redacted(source: SourceFile) -> SourceFile:
    """Return a source without the secrets in its text."""
    text = without_secrets(source.text, language_of(source.path) in _SETTINGS)
    return source if text == source.text else replace(source, text=text)


# The coarsest time stamps in use, FAT's. git guards its index against the same race.
RACY_NS = 2_000_000_000


def is_settled(info: os.stat_result, now: int) -> bool:
    """Return whether a change at `now` (ns) or later would show in a file's times, because neither is close to now.

    A time far ahead comes from another clock or was set by hand; a change would replace it.
    """
    return all(abs(now - stamp) > RACY_NS for stamp in (info.st_mtime_ns, info.st_ctime_ns))


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


def read_source(root: Path, path: str, wanted: bool = False) -> tuple[SourceFile | str, FileState | None]:
    """Return what `source_of` gives for a file of a tree, and the state it was read in; None if it is gone."""
    content, state = read_file(root, path)
    return content if isinstance(content, str) else source_of(path, content, wanted), state


def read_file(root: Path, path: str) -> tuple[bytes | str, FileState | None]:
    """Return a file's content, or why it cannot be had, and the state it was read in; None if it is gone.

    Of a file that is too large to index, the content is only its beginning.
    """
    begin = time.time_ns()
    try:
        with open_inside(root, path) as file:
            info = os.fstat(file.fileno())  # before its content, so that a change meanwhile shows
            data = file.read(max(exclude.MAX_FILE_BYTES, min(info.st_size, exclude.MAX_WANTED_BYTES)) + 1)
    except (FileNotFoundError, NotADirectoryError):
        return exclude.GONE, None
    except NotRegular:
        return "not a regular file", None
    except OSError:
        return exclude.UNREADABLE, _unread(root / path)
    times = (info.st_mtime_ns, info.st_ctime_ns) if is_settled(info, begin) else (0, 0)
    digest = hashlib.blake2b(data, digest_size=16).hexdigest()
    return data, FileState(*times, info.st_size, info.st_ino, digest)


def _unread(file: Path) -> FileState | None:
    try:
        info = os.lstat(file)
    except OSError:
        return None
    return FileState(info.st_mtime_ns, info.st_ctime_ns, info.st_size, info.st_ino, "")


def source_of(path: str, data: bytes, wanted: bool = False, include_secrets: bool = False) -> SourceFile | str:
    """Return the source that a file's content is, or why it is left out; it still has the secrets `redacted` replaces.

    Args:
        path: The file's POSIX path below the tree's root.
        data: Its content.
        wanted: Leave it out only if it is binary, holds a secret or has over `exclude.MAX_WANTED_BYTES`.
        include_secrets: Do not leave it out for a private key.

    """
    if len(data) > exclude.max_bytes(path, wanted):
        return exclude.TOO_LARGE
    decoded = decode(data)
    if decoded is None:
        return exclude.BINARY
    text, encoding = decoded
    if "\n" not in text:  # lines end as they did on old Macs
        text = text.replace("\r", "\n")
    if path.lower().endswith(notebook.SUFFIX):
        if has_too_many_values(text):
            return exclude.TOO_LARGE
        text = notebook.script_of(text) or text
        if len(text) > exclude.MAX_FILE_BYTES and not wanted:
            return exclude.TOO_LARGE
    why = exclude.why_skip_text(text, is_prose(path, language_of(path, text)), include_secrets)
    return why if why and not (wanted and why in exclude.GUESSES) else SourceFile(path, text, encoding, data)


# Encodings that the detector names by what browsers call them → Python's name of the same, or of what contains it.
_SUPERSETS = {
    "gbk": "gb18030",
    "gb2312": "gb18030",
    "shift_jis": "cp932",
    "euc-kr": "cp949",
    "euc_kr": "cp949",
    "big5": "big5hkscs",
    "windows-874": "cp874",
    "iso8859-1": "cp1252",
}
# What says so in a file: Python's, Emacs' and Ruby's "coding:", XML's "encoding=", HTML's "charset=".
_DECLARED = re.compile(rb"(?:coding[:=][ \t]*|(?:encoding|charset)=[\"']?)([A-Za-z][\w.:-]{1,30})")
_DECLARED_BYTES = 1_024
# Codecs of texts; Python has others under such names, which run code's own rules ("unicode_escape") or compress.
_NATIONAL = re.compile(r"(?:gb|big5|shift_?jis|euc_|iso|latin|koi8|cp\d|mac_|kz1048|ptcp154|tis_620|johab|hz)")
_UTF16 = {b"\xff\xfe": "utf-16-le", b"\xfe\xff": "utf-16-be"}
# Characters that no text of a one-byte encoding has; tab, newlines, form feed and escape are allowed on purpose.
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")
# 11 % of random bytes are such control characters, and no text in a national encoding has any.
_MAX_CONTROL = 0.05
# The least share of them in UTF-16 whose bytes are valid UTF-8 as well: each letter of ASCII or Cyrillic has one.
_MIN_UTF16_CONTROL = 0.25
# The least share of characters of ASCII in a source in UTF-16, without a mark.
_MIN_UTF16_ZEROS = 0.05
# The share of an encoding's characters beyond ASCII that must be valid, for the rest to count as damage.
# Text in another encoding gives far fewer in UTF-8.
_MIN_VALID = 0.5
# Bytes that the detector looks at, and groups of lines that it looks at one by one.
_SAMPLE_BYTES = 2**16
_GROUPS = 8
_BEYOND_ASCII = re.compile(rb"[\x80-\xff]")
_FEW = 3
_REPLACEMENT = "\ufffd"


def decode(data: bytes) -> tuple[str, str] | None:
    """Return a file's text and the name of its encoding, or None for binary data.

    A byte-order mark stays in the text as U+FEFF. What is valid UTF-8 is UTF-8. What mostly is has U+FFFD in place of
    each damaged character, so that one stray byte does not spoil the rest; otherwise the encoding is what the file says
    at its beginning, or is detected, among those that browsers know and UTF-16 without a mark.
    """
    utf16 = _UTF16.get(data[:2])
    if utf16:
        return _strict(data, utf16)
    if b"\0" in data:
        return _unmarked_utf16(data)
    if b"\x1b$" in data and (found := _strict(data, "iso2022_jp")):
        return found
    if found := _strict(data, "utf-8"):
        return found
    if len(_CONTROL.findall(data)) > _MAX_CONTROL * len(data):
        return None
    return _damaged(data, "utf-8") or _declared(data) or _detected(data)


def _strict(data: bytes, encoding: str) -> tuple[str, str] | None:
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else (text, encoding)


def _damaged(data: bytes, encoding: str) -> tuple[str, str] | None:
    """Decode with a replacement for each damaged character, if most of those beyond ASCII are valid."""
    text = data.decode(encoding, "replace")
    beyond = len(text) - len(text.encode("ascii", "ignore"))
    return (text, encoding) if text.count(_REPLACEMENT) <= (1 - _MIN_VALID) * beyond else None


def _declared(data: bytes) -> tuple[str, str] | None:
    """Decode as the file itself says, if it may be so encoded."""
    said = _DECLARED.search(data, 0, _DECLARED_BYTES)
    try:
        name = codecs.lookup(said[1].decode()).name if said else ""
    except LookupError:
        return None
    name = _SUPERSETS.get(name, name)
    return _damaged(data, name) if _NATIONAL.match(name.replace("-", "_")) else None


def _detected(data: bytes) -> tuple[str, str]:
    """Decode as the lines that are not ASCII seem to be encoded; any byte is a character of latin-1.

    A damaged byte rules the right encoding out for the whole, so that groups of lines vote as well.
    """
    lines = [line for line in data.split(b"\n") if not line.isascii()]
    size = max(1, len(lines) // _GROUPS)
    votes = Counter(_guess(lines[at : at + size]) for at in range(0, len(lines), size) for _ in "12")
    votes[_guess(lines)] += votes.total() // 4
    [(encoding, _)] = votes.most_common(1)
    return _damaged(data, encoding) or (data.decode("latin-1"), "latin-1")


def _guess(lines: list[bytes]) -> str:
    from chardetng_py import detect

    sample = b"\n".join(lines)[:_SAMPLE_BYTES]
    name = detect(sample).lower()
    # A letter or a sign or two fit several encodings equally well, of which one is by far the most frequent.
    if name.startswith("iso-8859") and len(_BEYOND_ASCII.findall(sample)) <= _FEW:
        return "cp1252"
    return codecs.lookup(_SUPERSETS.get(name, name)).name


def _unmarked_utf16(data: bytes) -> tuple[str, str] | None:
    """Decode UTF-16 without a mark: one half of its bytes, every other one, has nearly all the zeros."""
    zeros = data[0::2].count(0), data[1::2].count(0)
    has_few = len(_CONTROL.findall(data)) < _MIN_UTF16_CONTROL * len(data)
    if (has_few and _strict(data.replace(b"\0", b""), "utf-8")) or max(zeros) < _MIN_UTF16_ZEROS * len(
        data
    ) / 2:  # a zero byte or two in another text
        return None
    found = _strict(data, "utf-16-le" if zeros[1] > zeros[0] else "utf-16-be")
    if found is None or any(unicodedata.category(char) in ("Cn", "Co") or char < "\t" for char in set(found[0])):
        return None
    return found
