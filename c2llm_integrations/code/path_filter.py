"""Resolve a path filter: a path copied from an answer, a folder, or a pattern in .gitignore syntax."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable
from pathlib import Path
from posixpath import normpath
from unicodedata import normalize
from urllib.parse import unquote

from c2llm_integrations.code.exclude import within_limits
from c2llm_integrations.code.glob import Glob, GlobSet
from c2llm_integrations.code.safe_open import MAX_PATH_BYTES
from c2llm_integrations.errors import InputError

# Characters of a filter: each row's path is compared with all of a pattern.
MAX_FILTER_CHARS = MAX_PATH_BYTES
# How many patterns one with braces may expand to.
MAX_ALTERNATIVES = 256
# Line numbers after a path, as answers, compilers and links write them.
_LINES = re.compile(
    r":L?(\d{1,9})(?:[:,]\d{1,9})?(?:(?:[-\u2013]|\.\.)L?\d{1,9}(?::\d{1,9})?)?:?"
    r"|#(?:L|lines-)?(\d{1,9})(?:C\d{1,9})?(?:[-:]L?\d{1,9}(?:C\d{1,9})?)?"
    r"| ?\((\d{1,9})(?:, ?\d{1,9}|-\d{1,9})?\):?|,? \(?lines?:? ?(\d{1,9})(?:(?: ?[-\u2013] ?| to )\d{1,9})?\)?"
)
# What chats and shells put around a path.
_AROUND = "`'\" \t\n"
# What comes before a path where it is copied from: a list or a link of Markdown, brackets, a forge's page.
_BEFORE = re.compile(
    r"(?!\*+/)[\s*-]*(?:\[[^\]]*\]\()?[(<\[`'\"@*“\u2018«]*"
    r"(?:\w+://\S*?/(?:blob|blame|tree|raw|src)/(?:commit/|branch/)?[^/]+/|file:)?"
)
# What may follow it: the end, a line in any notation, a query, a test's name, a sentence; not the rest of a pattern.
_AFTER = re.compile(
    r"[:#,;|@+)>\]}`'\"”\u2019»]|\*{1,3}(?![\w*./?-])|\?(?:[\w-]+=|[^\w*./?-]|$)|\.?\s*$|\.?\s+(?:[(\[—\u2013-]|lines?\b)"
)
# A file: URL, and how editors are told to open a file.
_FILE_URL = re.compile(r"(?:file:(?://(?:localhost)?)?|[\w-]+://file/?)(?=/)", re.IGNORECASE)
_MAGIC = re.compile(r"[*?\[\]{}\\]")
_ESCAPED = re.compile(r"\\([^\w/])")
_BRACES = re.compile(r"(?<!\\)\{([^{}]*,[^{}]*)(?<!\\)\}")


def without_lines(path: str) -> tuple[str, int | None]:
    """Return a path without the line numbers after it, and the first of these or None."""
    for match in _LINES.finditer(path, max(1, len(path) - 50)):
        if match.end() == len(path):
            return path[: match.start()], int(next(filter(None, match.groups())))
    return path, None


def selected(path: str, indexed: Collection[str]) -> list[str]:
    """Return the indexed paths that a path or pattern selects, sorted.

    A literal path wins over a pattern; like a pattern it may be that of a folder and, without "/", lie in any folder.
    "{a,b}" means both. Raises InputError for a path that nothing can match.
    """
    if path in ("/", ".", "./"):
        return sorted(indexed)
    if len(path) > MAX_FILTER_CHARS:
        raise InputError(
            f"path pattern {path[:80]!r}… has {len(path):,} characters, at most {MAX_FILTER_CHARS:,} are read"
        )
    readings = [[escaped(one)] for one in _spellings(path)] + [_alternatives(one) for one in _spellings(path)]
    is_possible = False
    for reading in readings:
        found = _matched(reading, indexed)
        if found:
            return found
        is_possible |= found is not None
    if (file := _written(path, indexed)) is not None:
        return [file]
    if not is_possible or path[0] in "#!":
        raise InputError(f"path pattern {path!r} selects nothing; give one such as 'src/' or '*.py'")
    return []


def literal(path: str, indexed: Collection[str]) -> str | None:
    """Return the one indexed file that a path names, ignoring line numbers after it; None if no file is called so."""
    spelled = next((inner for one in _spellings(path) if (inner := _clean(one)) in indexed), None)
    return _written(path, indexed) if spelled is None else spelled


def from_root(path: str, root: Path, here: Path) -> str | None:
    """Return a path given relative to the folder `here` as one from `root` that begins with "/".

    Only an absolute path or a file: URL, a path that begins with "." or "..", or a literal one that exists is
    converted, and only if it lies below the root; None for any other.
    """
    bare = without_lines(path)[0].replace("\0", "")
    if not os.path.lexists(os.path.join(here, bare)):
        bare = _unquoted(path).replace("\0", "")
    if is_url := _FILE_URL.match(bare):
        bare = unquote(bare[is_url.end() :])
    elif bare.startswith("~/"):
        bare = os.path.expanduser(bare) if not os.path.lexists(os.path.join(here, "~")) else bare
    full = os.path.normpath(os.path.join(here, bare))
    is_place = os.path.isabs(bare) or bare.split("/", 1)[0] in (".", "..")
    is_literal = "/" in bare.rstrip("/") or _MAGIC.search(bare)
    for one in map(Path, (full, os.path.join(os.path.realpath(os.path.dirname(full)), os.path.basename(full)))):
        if one.is_relative_to(root) and (is_place or (is_literal and os.path.lexists(one))):
            inner = one.relative_to(root).as_posix()
            return "/" if inner == "." else f"/{inner}{'/' * bare.endswith('/')}"
    return None


def escaped(path: str) -> str:
    """Return a pattern that matches just this path."""
    return re.sub(r"([*?\[\]{}\\ ])", r"\\\1", path)


def _spellings(path: str) -> list[str]:
    """Return the ways to read a literal path: quoted, with line numbers after it, escaped, with Windows separators."""
    both = [one for one in (path, without_lines(path)[0], _unquoted(path)) if one]
    return list(
        dict.fromkeys([*both, *(_ESCAPED.sub(r"\1", one) for one in both), *(one.replace("\\", "/") for one in both)])
    )


def _unquoted(path: str) -> str:
    """Return a path without the line numbers after it and what chats put around it."""
    return without_lines(path.strip(_AROUND).removeprefix("@").strip(_AROUND))[0].strip(_AROUND)


def _written(text: str, indexed: Collection[str]) -> str | None:
    """Return the longest indexed path that a text begins with, however it is written there; None if there is none.

    It may be escaped as in a URL, not in its shortest form, or have its accents composed otherwise.
    """
    text = text[: 2 * MAX_FILTER_CHARS]
    start = _BEFORE.match(text)
    rest = text[start.end() if start else 0 :]
    is_diff = rest[:2] in ("a/", "b/") and not any(path.startswith(rest[:2]) for path in indexed)
    rests = {text, rest[2:] if is_diff else rest}
    forms = {
        normalize("NFC", _clean(normpath(form)))
        for rest in rests
        for form in (rest, unquote(rest))
        if form[-1:] not in ("", "/")
    }
    best, found = 0, None
    for path in filter(within_limits, indexed):
        plain = path if path.isascii() else normalize("NFC", path)
        if len(plain) > best and any(form.startswith(plain) and _AFTER.match(form, len(plain)) for form in forms):
            best, found = len(plain), path
    return found


def _clean(path: str) -> str:
    return path.removeprefix("./").removeprefix("/")


def _alternatives(pattern: str) -> list[str]:
    """Return the patterns that one with braces expands to."""
    todo, done = [pattern], []
    while todo:
        one = todo.pop()
        braces = _BRACES.search(one)
        if braces is None:
            done.append(one)
        else:
            todo += [one[: braces.start()] + part + one[braces.end() :] for part in braces[1].split(",")]
        if len(todo) + len(done) > MAX_ALTERNATIVES:
            raise InputError(
                f"path pattern {pattern[:80]!r} has braces for over {MAX_ALTERNATIVES} patterns; use fewer"
            )
    return done


def _matched(patterns: Iterable[str], paths: Iterable[str]) -> list[str] | None:
    """Return the paths that a pattern matches, or a folder above them, sorted; None for patterns that match nothing.

    A path that is longer than an index has them is not looked at.
    """
    read = (Glob.parse(f"\\{one}" if one[:1] in ("#", "!") else one.removeprefix("./")) for one in patterns)
    globs = GlobSet([(tokens, glob.folders_only) for glob in read if glob and (tokens := glob.tokens())])
    if not globs.size:
        return None
    found = []
    # The folders above a path, from the root down: the end of each, the state behind its slash, whether it matches.
    above = [(0, globs.start, False)]
    last = ""
    for path in sorted(filter(within_limits, paths)):
        while not path.startswith(last[: above[-1][0]]):
            above.pop()
        last = path
        end, state, is_inside = above[-1]
        while state and not is_inside and (slash := path.find("/", end)) >= 0:
            state = globs.advance(state, path[end:slash])
            is_inside = globs.last(state, True) is not None
            end, state = slash + 1, globs.advance(state, "/")
            above.append((end, state, is_inside))
        if is_inside or (state and globs.last(globs.advance(state, path[end:]), False) is not None):
            found.append(path)
    return found
