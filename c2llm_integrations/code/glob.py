"""Translate one pattern of an ignore file (gitignore(5))."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import count
from typing import NamedTuple, TypeAlias

from c2llm_integrations.code.safe_open import MAX_PATH_BYTES


class Star(Enum):
    """A token that matches any number of characters."""

    NAME = "within a name"
    FOLDERS = "any number of folders, with a slash after each"
    ALL = "anything below"


class Class(NamedTuple):
    """One character in (or, `negated`, outside) these ranges, but no slash."""

    ranges: tuple[tuple[str, str], ...]
    negated: bool


# A string is the one character that it holds.
Token: TypeAlias = str | Star | Class

_ANY = Class((), negated=True)
# Character class → the first and last character of each range.
_POSIX_CLASSES = {
    "alnum": "09AZaz",
    "alpha": "AZaz",
    "blank": "  \t\t",
    "cntrl": "\0\x1f\x7f\x7f",
    "digit": "09",
    "graph": "!~",
    "lower": "az",
    "print": " ~",
    "punct": "!/:@[`{~",
    "space": "  \t\r",
    "upper": "AZ",
    "xdigit": "09AFaf",
}
_MAGIC = re.compile(r"[*?\[\\]")


class Glob(NamedTuple):
    """One line of an ignore file, taken apart.

    `text` must match the whole path below that file's folder, or, if `anywhere`, the path below any folder in it.
    """

    text: str
    negated: bool
    folders_only: bool
    anywhere: bool

    @classmethod
    def parse(cls, line: str) -> Glob | None:
        """Take one line apart; None for blank lines and comments."""
        line = _strip_trailing_spaces(line.rstrip("\n").removesuffix("\r"))
        if line.startswith("#"):
            return None
        negated = line.startswith("!")
        text = line.removeprefix("!")
        folders_only = text.endswith("/")
        text = text.removesuffix("/")
        return cls(text.removeprefix("/"), negated, folders_only, "/" not in text) if text else None

    @property
    def is_literal(self) -> bool:
        """True if it matches just its own text, and a path can be that long."""
        return len(self.text) <= MAX_PATH_BYTES and not _MAGIC.search(self.text)

    def tokens(self) -> list[Token] | None:
        """Return the tokens that a path must match; None if no path can: each but a star needs a character of it."""
        tokens = _tokens(self.text, self.anywhere)
        if tokens is None or sum(not isinstance(token, Star) for token in tokens) > MAX_PATH_BYTES:
            return None
        return [Star.FOLDERS, *tokens] if self.anywhere else tokens


@dataclass(frozen=True, slots=True)
class Pattern:
    """A glob alone: `regex` must match the whole path."""

    regex: re.Pattern[str]
    folders_only: bool


def compile_pattern(line: str) -> Pattern | None:
    """Translate one line; None for blank lines, comments and patterns that git never matches."""
    glob = Glob.parse(line)
    tokens = glob.tokens() if glob else None
    return Pattern(re.compile(_translate(tokens), re.DOTALL), glob.folders_only) if glob and tokens else None


def _strip_trailing_spaces(line: str) -> str:
    kept = line.rstrip(" ")
    backslashes = len(kept) - len(kept.rstrip("\\"))
    is_escaped = backslashes % 2 == 1 and len(kept) < len(line)
    return f"{kept} " if is_escaped else kept


def _translate(tokens: Sequence[Token]) -> str:
    """Return the regular expression of a glob.

    The text after a star is matched where it first occurs, and no other place is tried: a later one would leave less of
    the path to the rest of the pattern. So the time is at most the product of the two lengths, however many stars.
    """
    names = map("g{}".format, count())
    out = ""
    for number, run in enumerate(_split([*tokens, None], Star.FOLDERS)):
        body, *pieces = ("".join(map(_regex, part)) for part in _split(run, Star.NAME))
        for piece in pieces:
            body += _first(f"[^/]*?{piece}", next(names))
        out += _first(f"(?:[^/]*/)*?{body}", next(names)) if number else body
    return out


def _first(regex: str, name: str) -> str:
    """Return an atomic group: `regex` without backtracking into it (from Python 3.11 on also written "(?>…)")."""
    return f"(?=(?P<{name}>{regex}))(?P={name})"


def _split(tokens: Sequence[Token | None], at: Star) -> list[list[Token | None]]:
    parts: list[list[Token | None]] = [[]]
    for token in tokens:
        if token == at:
            parts.append([])
        else:
            parts[-1].append(token)
    return parts


def _regex(token: Token | None) -> str:
    """Return the regular expression of a character, of Star.ALL, or of the end, which is None."""
    if token is None:
        return r"\Z"
    if isinstance(token, Star):
        return ".*"
    if isinstance(token, str):
        return re.escape(token)
    body = "".join(f"{re.escape(low)}-{re.escape(high)}" for low, high in token.ranges)
    if token.negated:
        return f"[^/{body}]"
    return f"(?!/)[{body}]" if body else "(?!)"


def _tokens(glob: str, anywhere: bool) -> list[Token] | None:
    """Return the tokens of a glob; None if no path can match it."""
    out: list[Token] = []
    at = 0
    while at < len(glob):
        char = glob[at]
        if char == "*":
            end = at
            while glob[end : end + 1] == "*":
                end += 1
            before, after = glob[at - 1 : at], glob[end : end + 1]
            if anywhere or end - at != 2 or before not in ("", "/") or after not in ("", "/"):
                out.append(Star.NAME)
            elif not after:
                out.append(Star.ALL)
            else:
                if out[-1:] != [Star.FOLDERS]:
                    out.append(Star.FOLDERS)
                end += 1
            at = end
        elif char == "[":
            parsed = _class(glob, at + 1)
            if parsed is None:
                return None
            found, at = parsed
            out.append(found)
        elif char == "\\":
            if at + 1 == len(glob):
                return None
            out.append(glob[at + 1])
            at += 2
        else:
            out.append(_ANY if char == "?" else char)
            at += 1
    return out


def _class(glob: str, at: int) -> tuple[Class, int] | None:
    """Read a bracket expression whose "[" stands before `at`; return it and where it ends.

    None if it has no end or names an unknown class: git matches nothing with such a pattern.
    """
    negated = glob[at : at + 1] in ("!", "^")
    begin = at = at + 1 if negated else at
    ranges: dict[tuple[str, str], None] = {}
    low = ""  # the last single character: the lower end of a range, should a "-" follow
    bracket = -1  # the next "]" after a "[:"; kept, because a search from each "[:" would take quadratic time
    while at == begin or glob[at : at + 1] != "]":  # at the begin it stands for itself
        name = ""
        if glob.startswith("[:", at):
            bracket = bracket if bracket >= at + 2 else glob.find("]", at + 2)
            if bracket < 0:
                return None
            name = glob[at + 2 : bracket - 1] if glob[bracket - 1] == ":" else ""
        if name:
            if name not in _POSIX_CLASSES:
                return None
            ends = _POSIX_CLASSES[name]
            ranges |= dict.fromkeys(zip(ends[::2], ends[1::2], strict=True))
            low = ""
            at = bracket + 1
            continue
        is_range = bool(low) and glob[at : at + 1] == "-" and glob[at + 1 : at + 2] not in ("", "]")
        char, at = _unescaped(glob, at + 1 if is_range else at)
        if not char:
            return None
        if not is_range:
            ranges[char, char] = None
        elif low <= char:
            ranges[low, char] = None
        low = "" if is_range else char
    return Class(tuple(ranges), negated), at + 1


def _unescaped(glob: str, at: int) -> tuple[str, int]:
    """Return the character at `at`, or after the backslash there, and where it ends; "" at the glob's end."""
    if glob[at : at + 1] == "\\":
        at += 1
    return glob[at : at + 1], at + 1
