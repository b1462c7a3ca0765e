"""Prepare code for a page: lines of spans, each with its color, and a mark or the weight of its tokens."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise

from pygments.token import STANDARD_TYPES

from c2llm_integrations._utils.highlighting import BoundedLexer
from c2llm_integrations._utils.printable import clean
from c2llm_integrations.code.lexical_terms import query_terms

# Text, CSS class or "", whether it is marked.
Piece = tuple[str, str, bool]
Span = tuple[int, int, str]

# Characters of one hit that a page shows; only a single line can be longer than a chunk.
MAX_HIT_CHARS = 20_000
# Steps of weight that the page has colors for.
LEVELS = 9
_WORD = re.compile(r"\w+")
_CLASSES = {"k": "k", "s": "s", "c": "c", "m": "m", "nf": "n", "nc": "n", "nd": "n"}


def highlighted(path: str, text: str, terms: Iterable[str]) -> list[list[Piece]]:
    """Return the lines of a file's text, colored by its language; words that have one of `terms` are marked."""
    text = _shown(text)
    wanted = frozenset(terms)
    marks = [(*match.span(), "mark") for match in _WORD.finditer(text) if not wanted.isdisjoint(query_terms(match[0]))]
    return _lines(text, list(_colors(path, text)), marks)


def weighted(text: str, weights: Iterable[tuple[int, int, float]]) -> list[list[Piece]]:
    """Return the lines of a text, each token by its weight: "" for the lightest to class "w9" for the heaviest one.

    The colors span the range of the weights, because a model may look almost evenly.
    """
    text = _shown(text)
    total: defaultdict[tuple[int, int], float] = defaultdict(float)
    for start, end, weight in weights:
        total[start, end] += weight  # one character may be several tokens
    least, most = min(total.values(), default=0.0), max(total.values(), default=0.0)
    steps = {place: round(LEVELS * (weight - least) / (most - least or 1)) for place, weight in total.items()}
    return _lines(text, [(*place, f"w{step}") for place, step in sorted(steps.items()) if step], [])


def _shown(text: str) -> str:
    # Replaced one by one, so that every character keeps its place.
    return clean(text[:MAX_HIT_CHARS].replace("\r", " "))


def _colors(path: str, text: str) -> Iterator[Span]:
    for start, kind, value in BoundedLexer(path).get_tokens_unprocessed(text):
        short = STANDARD_TYPES.get(kind, "")
        if color := _CLASSES.get(short[:2]) or _CLASSES.get(short[:1]):
            yield start, start + len(value), color


def _lines(text: str, colors: list[Span], marks: list[Span]) -> list[list[Piece]]:
    """Cut a text at its line breaks and wherever a color or a mark begins or ends; spans of a kind do not overlap."""
    breaks = [match.start() for match in re.finditer("\n", text)]
    cuts = {0, len(text), *breaks, *(at + 1 for at in breaks)}
    cuts.update(at for start, end, _ in (*colors, *marks) for at in (start, end) if at <= len(text))
    places = sorted(cuts)
    lines: list[list[Piece]] = [[]]
    color_at, mark_at = _lookup(colors), _lookup(marks)
    for start, end in pairwise(places):
        piece = text[start:end]
        if piece == "\n":
            lines.append([])
        else:
            lines[-1].append((piece, color_at(start), bool(mark_at(start))))
    if len(lines) > 1 and not lines[-1]:
        lines.pop()
    return lines


def _lookup(spans: list[Span]) -> Callable[[int], str]:
    """Return a function that maps a place to the class of its span, or ""."""
    starts = [start for start, _, _ in spans]

    def find(place: int) -> str:
        at = bisect_right(starts, place) - 1
        return spans[at][2] if at >= 0 and place < spans[at][1] else ""

    return find
