"""Nested ignore files with git's own meaning (gitignore(5)), for folders that git cannot list."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from c2llm_integrations.errors import RepositoryError

_POSIX_CLASSES = {
    "alnum": "0-9A-Za-z",
    "alpha": "A-Za-z",
    "blank": " \\t",
    "cntrl": "\\x00-\\x1f\\x7f",
    "digit": "0-9",
    "graph": "!-~",
    "lower": "a-z",
    "print": " -~",
    "punct": "!-/:-@\\[-`{-~",
    "space": " \\t\\n\\r\\f\\v",
    "upper": "A-Z",
    "xdigit": "0-9A-Fa-f",
}


@dataclass(frozen=True, slots=True)
class Pattern:
    """One line of an ignore file: `regex` must match the whole path below that file's folder."""

    regex: re.Pattern[str]
    negated: bool
    folders_only: bool


def compile_pattern(line: str) -> Pattern | None:
    """Translate one line; None for blank lines, comments and patterns that git never matches."""
    line = _strip_trailing_spaces(line.rstrip("\n").removesuffix("\r"))
    if line.startswith("#"):
        return None
    negated = line.startswith("!")
    pattern = line[negated:]
    folders_only = pattern.endswith("/")
    pattern = pattern[: len(pattern) - folders_only]
    if not pattern:
        return None
    anywhere = "/" not in pattern
    body = _translate(pattern.removeprefix("/"), anywhere)
    if body is None:
        return None
    return Pattern(re.compile(("(?:.*/)?" if anywhere else "") + body, re.DOTALL), negated, folders_only)


def _strip_trailing_spaces(line: str) -> str:
    end = len(line)
    while end and line[end - 1] == " ":
        backslashes = len(line[: end - 1]) - len(line[: end - 1].rstrip("\\"))
        if backslashes % 2:
            break
        end -= 1
    return line[:end]


def _translate(glob: str, anywhere: bool) -> str | None:
    """Return the regular expression of a glob, or None where it can match nothing."""
    out: list[str] = []
    at = 0
    while at < len(glob):
        char = glob[at]
        if char == "*":
            stars = len(glob[at:]) - len(glob[at:].lstrip("*"))
            before, after = glob[at - 1 : at], glob[at + stars : at + stars + 1]
            whole_part = stars == 2 and before in ("", "/") and after in ("", "/") and not anywhere
            if whole_part and after == "/":
                out.append("(?:.*/)?")
                stars += 1
            else:
                out.append(".*" if whole_part else "[^/]*")
            at += stars
        elif char == "[":
            parsed = _translate_class(glob, at + 1)
            if parsed is None:
                return None
            piece, at = parsed
            out.append(piece)
        elif char == "\\":
            if at + 1 == len(glob):
                return None
            out.append(re.escape(glob[at + 1]))
            at += 2
        else:
            out.append("[^/]" if char == "?" else re.escape(char))
            at += 1
    return "".join(out)


def _translate_class(glob: str, at: int) -> tuple[str, int] | None:
    """Translate a bracket expression whose "[" stands before `at`; return it and where it ends."""
    negated = glob[at : at + 1] in ("!", "^")
    at += negated
    items: list[str] = []
    low = ""  # the last single character: the lower end of a range, should a "-" follow
    first = True
    while first or glob[at : at + 1] != "]":
        first = False
        char, name = glob[at : at + 1], ""
        if glob.startswith("[:", at) and (close := glob.find("]", at + 2)) > 0 and glob[close - 1] == ":":
            name = glob[at + 2 : close - 1]
        if not char or (name and name not in _POSIX_CLASSES):
            return None
        if name:
            items.append(_POSIX_CLASSES[name])
            low, at = "", at + len(name) + 4
        elif char == "-" and low and glob[at + 1 : at + 2] not in ("", "]"):
            at += 2 if glob[at + 1] != "\\" else 3
            high = glob[at - 1 : at]
            if not high:
                return None
            items.append(f"{re.escape(low)}-{re.escape(high)}" if low <= high else "")
            low = ""
        else:
            at += char == "\\"
            low = glob[at : at + 1]
            if not low:
                return None
            items.append(re.escape(low))
            at += 1
    body = "".join(items)
    if negated:
        return f"[^/{body}]", at + 1
    return (f"(?!/)[{body}]" if body else "(?!)"), at + 1


def read_patterns(file: Path) -> list[Pattern]:
    """Return the patterns of an ignore file, in order; a missing file or a symbolic link has none, as in git.

    Raises RepositoryError if the file is there but cannot be read: what it hides must not be guessed.
    """
    try:
        if not stat.S_ISREG(os.lstat(file).st_mode):
            return []
    except OSError:
        return []  # not there, or in a folder that nothing can be read from
    try:
        data = file.read_bytes()
    except OSError as error:
        raise RepositoryError(f"cannot read {file}: {error.strerror}; make it readable or remove it") from error
    lines = data.removeprefix(b"\xef\xbb\xbf").decode("latin-1").split("\n")
    return [pattern for line in lines if (pattern := compile_pattern(line))]


@dataclass(slots=True)
class IgnoreFiles:
    """The rules of every file called `name` in the folders under `root`, read when first needed.

    `base` holds patterns of lower rank than any of them, relative to `root` (git's info/exclude).
    """

    root: Path
    name: str
    base: Iterable[Pattern] = ()
    _frames: dict[str, list[tuple[int, list[Pattern]]]] = field(default_factory=dict)

    def ignores(self, path: str, is_folder: bool) -> bool:
        """Say whether `path` (POSIX, relative to the root) is ignored, given that no folder above it is."""
        # git compares bytes: as latin-1 each character stands for one of them.
        raw = os.fsencode(path).decode("latin-1")
        for depth, patterns in reversed(self._rules(path.rpartition("/")[0])):
            below = raw[depth:]
            for pattern in reversed(patterns):
                if (is_folder or not pattern.folders_only) and pattern.regex.fullmatch(below):
                    return not pattern.negated
        return False

    def _rules(self, folder: str) -> list[tuple[int, list[Pattern]]]:
        """Return (length of the folder's prefix in bytes, its patterns) from the root down to `folder`."""
        rules = self._frames.get(folder)
        if rules is not None:
            return rules
        rules = [(0, list(self.base))]
        parts = folder.split("/") if folder else []
        for depth in range(len(parts) + 1):
            above = "/".join(parts[:depth])
            if above not in self._frames:
                own = read_patterns(self.root / above / self.name)
                below = len(os.fsencode(above)) + bool(above)
                self._frames[above] = [*rules, (below, own)] if own else rules
            rules = self._frames[above]
        return rules
