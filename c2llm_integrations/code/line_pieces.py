"""Lines of a text, runs of lines as pieces, and the rules that cut and join pieces."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from itertools import accumulate, groupby, islice
from math import ceil

# Characters. Smaller neighbors are merged: five lines or fewer say too little to be found by meaning.
TINY_CHARS = 200


@dataclass(frozen=True, slots=True)
class Piece:
    """Lines [start, end) of a file, counted from 0, and what they are.

    `owner` numbers the definition whose direct content the lines are, 0 being the file; pieces of one owner are
    joined again as far as they fit. `loose` lines, a file's or a class's own statements, also join a neighbor
    when they are tiny. `node` is the id of the syntax node that gave the symbol.
    """

    start: int
    end: int
    symbol: str = ""
    kind: str = "module"
    owner: int = 0
    loose: bool = True
    node: int = -1


class Lines:
    """The lines of a text, cut after each newline character and nowhere else."""

    def __init__(self, text: str) -> None:
        self.lines = [line + "\n" for line in text.split("\n")]
        self.lines[-1] = self.lines[-1][:-1]
        if not self.lines[-1]:
            self.lines.pop()
        self._before = [0, *accumulate(map(len, self.lines))]
        self._blank = [line.strip() in ("", "\ufeff") for line in self.lines]
        # Of each line the first one from there on that is not blank, or the number of lines.
        self.first_full = self._nearest(range(len(self.lines) - 1, -1, -1), 0)
        self._last_full = self._nearest(range(len(self.lines)), 1)

    def _nearest(self, order: range, offset: int) -> list[int]:
        """Return for each line boundary the nearest one, against `order`, at which a non-blank line stands."""
        nearest = [0 if offset else len(self.lines)] * (len(self.lines) + 1)
        for line in order:
            here, before = line + offset, line + 1 - offset
            nearest[here] = nearest[before] if self._blank[line] else here
        return nearest

    def __len__(self) -> int:
        return len(self.lines)

    def size(self, start: int, end: int) -> int:
        """Return the characters of lines [start, end) without the blank lines at either end."""
        return max(0, self._before[self._last_full[end]] - self._before[self.first_full[start]])

    def text(self, start: int, end: int) -> str:
        """Return lines [start, end) as they are."""
        return "".join(self.lines[start:end])

    def is_blank(self, line: int) -> bool:
        """Return whether a line holds only white space, or a byte-order mark."""
        return self._blank[line]


def cut(lines: Lines, piece: Piece, max_chars: int) -> list[Piece]:
    """Cut a piece that is too large: at blank lines, unindented text first, and only then between any lines.

    A single line is never cut, however long.
    """
    spans = [(piece.start, piece.end)]
    tests: tuple[Callable[[int], bool], ...] = (
        lambda line: lines.is_blank(line - 1) and not lines.lines[line][0].isspace(),
        lambda line: lines.is_blank(line - 1),
        lambda line: True,
    )
    for may_start in tests:
        spans = [part for span in spans for part in _cut_span(lines, span, max_chars, may_start)]
    return [replace(piece, start=run[0][0], end=run[-1][1]) for run in _runs(lines, spans, max_chars)]


def _cut_span(
    lines: Lines, span: tuple[int, int], max_chars: int, may_start: Callable[[int], bool]
) -> list[tuple[int, int]]:
    start, end = span
    if lines.size(start, end) <= max_chars:
        return [span]
    full = [line for line in range(start, end) if not lines.is_blank(line)]
    starts = [start, *(line for line in full[1:] if may_start(line))]
    return list(zip(starts, [*starts[1:], end], strict=True))


def join(lines: Lines, pieces: Iterable[Piece], max_chars: int) -> list[Piece]:
    """Join neighbors: those of one owner as far as they fit, then tiny ones of different owners."""
    joined: list[Piece] = []
    for _, owned in groupby(pieces, key=lambda piece: piece.owner):
        left = iter(members := list(owned))
        for run in _runs(lines, [(piece.start, piece.end) for piece in members], max_chars):
            piece = reduce(partial(_union, lines), islice(left, len(run)))
            if joined and _belong_together(lines, joined[-1], piece, max_chars):
                joined[-1] = _union(lines, joined[-1], piece)
            else:
                joined.append(piece)
    return joined


def _runs(lines: Lines, spans: Sequence[tuple[int, int]], max_chars: int) -> Iterator[Sequence[tuple[int, int]]]:
    """Divide adjacent spans of one owner into as few runs as fit, of about equal size, so that no tiny rest is left."""
    origin = spans[0][0]
    total = lines.size(origin, spans[-1][1])
    goal = total / ceil(total / max_chars) if total else 1.0
    first, parts = 0, 1
    for at in range(1, len(spans)):
        start, end = spans[at]
        past_goal = (lines.size(origin, start) + lines.size(origin, end)) / 2 > goal * parts
        if past_goal or lines.size(spans[first][0], end) > max_chars:
            yield spans[first:at]
            first = at
            parts += 1
    yield spans[first:]


def _belong_together(lines: Lines, left: Piece, right: Piece, max_chars: int) -> bool:
    left_size, right_size = lines.size(left.start, left.end), lines.size(right.start, right.end)
    if not left_size or not right_size:
        return True
    if lines.size(left.start, right.end) > max_chars:
        return False
    if left.loose and left_size < TINY_CHARS:
        return True
    if right_size >= TINY_CHARS:
        return False
    if right.loose:
        # The line that opens a class or a namespace belongs to the members after it, never to the text before.
        return not right.symbol or left.symbol.startswith(right.symbol + ".")
    return left_size < TINY_CHARS and not left.loose


def _union(lines: Lines, left: Piece, right: Piece) -> Piece:
    """Return both as one piece, which is called after the definition among them, else after the larger."""

    def weight(piece: Piece) -> tuple[bool, bool, bool, int]:
        return (not piece.loose, piece.kind == "class", bool(piece.symbol), lines.size(piece.start, piece.end))

    return replace(max(left, right, key=weight), start=left.start, end=right.end)
