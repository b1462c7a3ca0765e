"""Text that is safe to print: nothing in it can steer a terminal."""

from __future__ import annotations

import os
import re

# Control characters can rewrite a terminal, bidirectional ones can reorder what is read; both stand in files.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


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
    """Return `text` safe to print, line breaks and tabs made spaces."""
    return " ".join(clean(text).strip().splitlines()).replace("\t", " ")


def shortened(text: str, most: int) -> str:
    """Return `text` as one line of at most `most` characters, its middle left out."""
    line = one_line(text)
    end = (most - 1) // 2
    return line if len(line) <= most else f"{line[: most - 1 - end]}…{line[len(line) - end :]}"
