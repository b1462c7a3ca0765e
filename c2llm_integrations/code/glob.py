"""The patterns of ignore files (gitignore(5)), and a path matched against many of them at once."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from enum import Enum
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
        line = line.rstrip("\n").removesuffix("\r")
        kept = line.rstrip(" ")
        backslashes = len(kept) - len(kept.rstrip("\\"))
        line = line[: len(kept) + backslashes % 2]  # a space behind a backslash stays
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
        """Return the tokens that a path must match; None if no path can, as each token but a star takes a character."""
        tokens = _tokens(self.text, self.anywhere)
        if tokens is None or sum(not isinstance(token, Star) for token in tokens) > MAX_PATH_BYTES:
            return None
        return [Star.FOLDERS, *tokens] if self.anywhere else tokens


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


class GlobSet:
    """Globs, of which the last one that matches a path counts.

    An integer has a bit for each token of each glob, and one for each glob's end. A state, such as `start`, is the set
    of tokens that may come next. A character of a path moves it by a few operations on integers of `size` bits
    ("Shift-And", Baeza-Yates and Gonnet 1992), so that no glob can make a path expensive.
    """

    def __init__(self, globs: Sequence[tuple[Sequence[Token], bool]]) -> None:
        """Take each glob's tokens, and whether it matches folders only."""
        places: defaultdict[Token, list[int]] = defaultdict(list)
        starts, ends = [], []
        self.size = 0
        for tokens, _ in globs:
            starts.append(self.size)
            for at, token in enumerate(tokens, self.size):
                places[token].append(at)
            ends.append(self.size + len(tokens))
            self.size = ends[-1] + 1
        self._number = dict(zip(ends, range(len(ends)), strict=True))
        self._ends = _bits(ends)
        self._file_ends = _bits(end for end, (_, folders_only) in zip(ends, globs, strict=True) if not folders_only)
        self._places = {token: _bits(found) for token, found in places.items()}
        self._folders, everything = self._places.get(Star.FOLDERS, 0), self._places.get(Star.ALL, 0)
        self._passed = self._places.get(Star.NAME, 0) | everything
        self._staying = self._passed | self._folders
        classes = [token for token in places if isinstance(token, Class)]
        # Between two of these all characters are in the same classes, whose tokens are kept: there may be a million.
        self._bounds = sorted({ord(end) + at for each in classes for one in each.ranges for at, end in enumerate(one)})
        self._in_classes: dict[int, int] = {}
        # Character → the tokens that it moves on from, and those that it stays at.
        self._moves = {"/": (self._places.get("/", 0) | self._folders, everything | self._folders)}
        self.start = self._reached(_bits(starts), 0)

    def advance(self, state: int, path: str) -> int:
        """Return the state after more of a path."""
        for char in path if self.size else "":
            accepting, staying = self._moves.get(char) or self._learned(char)
            state = self._reached((state & accepting) << 1, state & staying)
        return state

    def _learned(self, char: str) -> tuple[int, int]:
        """Return, from now on by looking it up, what a character other than a slash does."""
        between = bisect_right(self._bounds, ord(char))
        if between not in self._in_classes:
            self._in_classes[between] = 0
            for token, places in self._places.items():
                if isinstance(token, Class) and any(low <= char <= high for low, high in token.ranges) != token.negated:
                    self._in_classes[between] |= places
        accepting = self._in_classes[between]
        if char in self._places:
            accepting |= self._places[char]
        self._moves[char] = accepting, self._staying
        return self._moves[char]

    def _reached(self, entered: int, stayed: int) -> int:
        """Return the state where these tokens come next: "**/" may stand for no folder, a star for no character."""
        state = entered | (entered & self._folders) << 1 | stayed
        return state | (state & self._passed) << 1

    def last(self, state: int, is_folder: bool) -> int | None:
        """Return the number of the last glob that matches a path which ends in this state."""
        matched = state & (self._ends if is_folder else self._file_ends)
        return self._number[matched.bit_length() - 1] if matched else None


def _bits(positions: Iterable[int]) -> int:
    flags = bytearray()
    for at in positions:
        flags.extend(bytes(max(0, at // 8 + 1 - len(flags))))
        flags[at // 8] |= 1 << at % 8
    return int.from_bytes(flags, "little")
