"""Nested ignore files as git reads them (gitignore(5)), in time linear in the patterns and in the paths."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from c2llm_integrations.code.glob import Glob, GlobSet, Token
from c2llm_integrations.code.safe_open import NotRegular, read_inside
from c2llm_integrations.errors import RepositoryError

# Bytes of an ignore file, and of all that apply to one folder.
MAX_BYTES, MAX_TOTAL_BYTES = 2**20, 2**21
# Characters of patterns with wildcards that apply to one folder; those without are looked up and may be many.
MAX_WILDCARDS = 2**14


class Rules:
    """The patterns of one ignore file: the last one that matches a path decides.

    `size`: the bytes of the file; `wildcards`: the characters of the patterns with wildcards, and their ends.
    """

    def __init__(self, data: bytes = b"") -> None:
        """Read the content of an ignore file."""
        self.size = len(data)
        self._negated: list[bool] = []
        # "name", or "/path/from/here", with "/" at its end for a folder only → the number of its pattern.
        self._literals: dict[str, int] = {}
        # The others, whether they match folders only, and their numbers.
        self._globs: list[tuple[list[Token], bool]] = []
        self._numbers: list[int] = []
        # git compares bytes: as latin-1 each character stands for one of them.
        for line in data.removeprefix(b"\xef\xbb\xbf").decode("latin-1").split("\n"):
            glob = Glob.parse(line)
            if glob is None:
                continue
            if glob.is_literal:
                key = f"{'' if glob.anywhere else '/'}{glob.text}{'/' * glob.folders_only}"
                self._literals[key] = len(self._negated)
            elif tokens := glob.tokens():
                self._globs.append((tokens, glob.folders_only))
                self._numbers.append(len(self._negated))
            self._negated.append(glob.negated)
        self.wildcards = sum(len(tokens) + 1 for tokens, _ in self._globs)

    @cached_property
    def globs(self) -> GlobSet:
        """The patterns with wildcards."""
        return GlobSet(self._globs)

    def __len__(self) -> int:
        """Return the number of patterns."""
        return len(self._negated)

    def says(self, path: str, is_folder: bool, state: int | None = None) -> bool | None:
        """Return whether a path (latin-1) is ignored, or taken back by a pattern with "!"; None if none matches it.

        `state`: that of `globs` after the path's folder, where it is known.
        """
        folder, slash, name = path.rpartition("/")
        if state is None:
            state = self.globs.advance(self.globs.start, folder + slash)
        found = self.globs.last(self.globs.advance(state, name), is_folder)
        number = -1 if found is None else self._numbers[found]
        for key in (name, f"/{path}", f"{name}/", f"/{path}/")[: 4 if is_folder else 2]:
            number = max(number, self._literals.get(key, -1))
        return None if number < 0 else not self._negated[number]


_NO_RULES = Rules()


def read_rules(root: Path, path: str) -> Rules:
    """Return the rules of an ignore file; a missing file, a link or a pipe has none, as in git.

    `path` is POSIX and relative to `root`. Raises RepositoryError if the file is there but cannot be read, or is too
    large: what it hides must not be guessed.
    """
    try:
        data = read_inside(root, path, MAX_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError, NotRegular):
        return _NO_RULES
    except OSError as error:
        if not os.path.lexists(root / path):  # in a folder that nothing can be read from
            return _NO_RULES
        raise RepositoryError(f"cannot read {root / path}: {error.strerror}; make it readable or remove it") from error
    if len(data) > MAX_BYTES:
        raise RepositoryError(f"{root / path} has more than {MAX_BYTES:,} bytes; make it shorter or remove it")
    return Rules(data)


class _Applied(NamedTuple):
    """Rules that apply to a folder: their file's folder has that many bytes before it, and `state` is theirs there."""

    rules: Rules
    above: int
    state: int


@dataclass(slots=True)
class IgnoreFiles:
    """The rules of every file called `name` in the folders under `root`, read when first needed.

    `base` holds rules of lower rank than any of them, relative to `root` (git's info/exclude). A file is read
    again only when paths outside its folder were asked about meanwhile.
    """

    root: Path
    name: str
    base: Iterable[Rules] = ()
    # The folder asked about last and those above it, from the root down.
    _chain: list[tuple[str, list[_Applied]]] = field(default_factory=list)

    def ignores(self, path: str, is_folder: bool) -> bool:
        """Return whether `path` (POSIX, relative to the root) is ignored, given that no folder above it is."""
        return self.says(path, is_folder) or False

    def says(self, path: str, is_folder: bool) -> bool | None:
        """Return whether `path` is ignored, or taken back by a pattern with "!"; None if no pattern matches it."""
        raw = os.fsencode(path).decode("latin-1")
        for rules, above, state in reversed(self._applied(path.rpartition("/")[0])):
            said = rules.says(raw[above:], is_folder, state)
            if said is not None:
                return said
        return None

    def _applied(self, folder: str) -> Sequence[_Applied]:
        """Return the rules that apply in `folder`, from the root down."""
        chain = self._chain
        while chain and chain[-1][0] not in ("", folder) and not folder.startswith(f"{chain[-1][0]}/"):
            chain.pop()
        if not chain:
            chain.append(("", self._with_own("", [], *self.base)))
        while chain[-1][0] != folder:
            above, applied = chain[-1]
            start = len(above) + bool(above)
            name = folder[start:].partition("/")[0]
            step = os.fsencode(name).decode("latin-1") + "/"
            moved = [_Applied(rules, at, rules.globs.advance(state, step)) for rules, at, state in applied]
            chain.append((folder[:start] + name, self._with_own(folder[:start] + name, moved)))
        return chain[-1][1]

    def _with_own(self, folder: str, applied: list[_Applied], *base: Rules) -> list[_Applied]:
        """Add `base` and the rules of the file in `folder`; raises RepositoryError for more than are followed."""
        added = [rules for rules in (*base, read_rules(self.root, f"{folder}/{self.name}".lstrip("/"))) if rules]
        together = [*(one.rules for one in applied), *added]
        for total, limit, what in (
            (sum(rules.size for rules in together), MAX_TOTAL_BYTES, "bytes of ignore files"),
            (sum(rules.wildcards for rules in together), MAX_WILDCARDS, "characters of ignore patterns with wildcards"),
        ):
            if total > limit:
                place = self.root / folder
                raise RepositoryError(f"{total:,} {what} apply to {place}, at most {limit:,} are followed; remove some")
        above = len(os.fsencode(folder)) + bool(folder)
        return [*applied, *(_Applied(rules, above, rules.globs.start) for rules in added)]
