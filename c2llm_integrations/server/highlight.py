"""Prepare code for a page: lines of spans, each with its color, and a mark or the weight of its tokens."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import groupby

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
    marks = (match.span() for match in _WORD.finditer(text) if not wanted.isdisjoint(query_terms(match[0])))
    return _lines(text, _colors(path, text), marks)


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
    return _lines(text, ((*place, f"w{step}") for place, step in steps.items() if step), ())


def _shown(text: str) -> str:
    # Replaced one by one, so that every character keeps its place.
    return clean(text[:MAX_HIT_CHARS].replace("\r", " "))


def _colors(path: str, text: str) -> Iterator[Span]:
    for start, kind, value in BoundedLexer(path).get_tokens_unprocessed(text):
        short = STANDARD_TYPES.get(kind, "")
        if color := _CLASSES.get(short[:2]) or _CLASSES.get(short[:1]):
            yield start, start + len(value), color


def _lines(text: str, colors: Iterable[Span], marks: Iterable[tuple[int, int]]) -> list[list[Piece]]:
    """Cut a text at its line breaks and wherever the color or the mark changes."""
    color, is_marked = [""] * len(text), [False] * len(text)
    for start, end, name in colors:
        color[start:end] = [name] * (min(end, len(text)) - start)
    for start, end in marks:
        is_marked[start:end] = [True] * (end - start)
    lines: list[list[Piece]] = []
    begin = 0
    for line in text.removesuffix("\n").split("\n"):
        runs = groupby(range(begin, begin + len(line)), lambda at: (color[at], is_marked[at]))
        lines.append([("".join(text[at] for at in places), *kind) for kind, places in runs])
        begin += len(line) + 1
    return lines
