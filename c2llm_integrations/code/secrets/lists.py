"""Find the elements of lists and mappings of secrets: in brackets, and as lines of YAML and of other settings."""

from __future__ import annotations

import re
from collections.abc import Iterator

# An element: in quotes, between which it may hold any sign, or bare; and what it may be the value of.
_ELEMENT = r"(?:(?P<quote>[\"'`])|)(?P<value>(?(quote)[^\s\"'`\\]|[^\s\"'`{stops}]){{1,400}})(?(quote)(?P=quote))"
_KEY = r"[\"'`]?[\w.@:-]{1,64}?[\"'`]?\s{0,3}(?:=>|[:=,])\s{0,8}"
_IN_BRACKETS = _ELEMENT.format(stops=r",\[\](){}") + r"\s{0,40}(?:,\s{0,40}|(?=[\])}]))"
_SET = r"[\"']?\s{0,3}(?::=|=>|[:=])\s{0,3}"
# How a collection in brackets begins behind a name, and an element of it, matched from where the last one ends.
_COLLECTIONS = (
    # passwords = ["…", …], passwords := []string{"…"}, passwords = List.of("…")
    (
        rf"[\w-]{{0,20}}{_SET}(?:\[\]\w{{1,20}}|new ?\w{{0,20}}\[\]\s?|(?:List|Set|Arrays?|Map)[\w.]{{0,12}})?"
        r"[\[({]\s{0,40}",
        _IN_BRACKETS,
    ),
    # passwords = {"me": "…"}, passwords := map[string]string{"me": "…"}
    (rf"[sS]{_SET}(?:map\[\w{{1,20}}\]\w{{1,20}}|Map\.of)?[{{(]\s{{0,40}}", _KEY + _IN_BRACKETS),
    # passwords = %w[… …], qw(… …)
    (
        r"[\w-]{0,20}\s{0,3}=>?\s{0,3}(?:qw|%[wWiI])\s?[{(\[</|]\s{0,40}",
        r"(?P<quote>)(?P<value>[^\s\"'`,{}()\[\]<>|/]{1,200})(?:\s{1,40}|(?=[})\]>/|]))",
    ),
)
_OPENINGS = tuple((re.compile(opening), re.compile(element)) for opening, element in _COLLECTIONS)
# What is set on the next lines: passwords:\n  - …, passwords:\n  me: …, password: |\n  …, password = """\n….
_ENDS_LINE = re.compile(
    r"([\w.-]{0,20})[\"']?[ \t]{0,8}(?::|=[ \t]{0,8}(\\|\"{3}|'{3})?)[ \t]{0,8}(?:[>|][+-]?\d?[+-]?)?"
    r"[ \t]{0,8}(?:#[^\n]{0,200})?(?=\r?\n)"
)
_NEXT_LINE = re.compile(
    r"[ \t]{0,20}(?:#[^\n]{0,200})?\r?\n(?:[ \t]{0,20}#[^\n]{0,200}\r?\n){0,9}"
    r"(?P<indent>[ \t]{0,40})(?P<dash>-[ \t]{1,8})?(?P<key>[\"']?[\w.@-]{1,64}[\"']?:[ \t]{1,8}(?![|>]))?"
    + _ELEMENT.format(stops=r",:{}\[\]")
    + r"(?=(?:\"{3}|'{3})?[ \t]*(?:#|\\|\r?\n|$))"
)


def find_elements(text: str, at: int, settings: bool) -> Iterator[re.Match[str]]:
    """Yield the elements of a list or mapping that a name is set to, in quotes unless it is in settings."""
    for opening, element in _OPENINGS:
        begin = opening.match(text, at)
        match = begin and element.match(text, begin.end())
        while match and (match["quote"] is not None or settings):
            yield match
            match = element.match(text, match.end())
        if begin and begin.end() < (match.end() if match else 0):
            return
    if settings and (begin := _ENDS_LINE.match(text, at)):
        yield from _lines(text, begin)


def _lines(text: str, begin: re.Match[str]) -> Iterator[re.Match[str]]:
    """Yield the elements that stand on lines of their own, all as far indented, and further than the name."""
    line = text[max(0, begin.start() - 100) : begin.start()].rpartition("\n")[2]
    least = len(line) - len(line.lstrip(" \t"))
    first = match = _NEXT_LINE.match(text, begin.end())
    while match and first:
        is_deep = begin[2] or match["dash"] or len(match["indent"]) > least
        is_alike = all(bool(match[part]) == bool(first[part]) for part in ("dash", "key"))
        if (
            not (is_deep and is_alike)
            or match["indent"] != first["indent"]
            or (match["key"] and begin[1] not in ("s", "S"))
        ):
            return
        yield match
        match = None if begin[2] else _NEXT_LINE.match(text, match.end())
