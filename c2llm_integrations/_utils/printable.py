"""Text that is safe to print: it cannot control a terminal."""

from __future__ import annotations

import os
import re

# Control characters can rewrite a terminal, bidirectional ones can reorder what is read, and tags and spaces without a
# width say to an agent what nobody sees; all stand in files.
_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\U000e0000-\U000e007f]"
)
# Letters of some languages are joined by these, and emoji; two names that differ in them look alike.
_JOINERS = re.compile("[\u200c\u200d]")


def clean(text: str) -> str:
    """Return `text` with every character that could steer a terminal replaced; newlines and tabs stay."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text.replace("\r\n", "\n"))


def as_unicode(path: str | os.PathLike[str]) -> str:
    """Return a path with the bytes of its name that are not UTF-8 escaped, as any stream and file takes it."""
    return os.fspath(path).encode("utf-8", "backslashreplace").decode()


def is_unicode(text: str) -> bool:
    """Return whether a text can be written as UTF-8; one with a lone surrogate, such as an undecodable byte, cannot."""
    return as_unicode(text) == text


def one_line(text: str) -> str:
    """Return `text` safe to print as a name: nothing in it is unseen, line breaks and tabs are spaces."""
    shown = _JOINERS.sub("\N{REPLACEMENT CHARACTER}", clean(text))
    return " ".join(shown.strip().splitlines()).replace("\t", " ")


def shortened(text: str, most: int) -> str:
    """Return `text` as one line of at most `most` characters, its middle left out."""
    line = one_line(text)
    end = (most - 1) // 2
    return line if len(line) <= most else f"{line[: most - 1 - end]}…{line[len(line) - end :]}"
