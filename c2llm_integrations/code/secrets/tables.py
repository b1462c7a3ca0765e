"""Find secrets in tables by the name of their column: in Markdown, reStructuredText, CSV, and SQL's INSERT."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import islice

from c2llm_integrations.code.secrets.names import judge_of
from c2llm_integrations.code.secrets.values import is_mixed

_Columns = dict[int, Callable[[str], bool]]

# The line below the head of a table in Markdown, also in a quote or comment, or as databases print it, the head of one
# in CSV, and SQL that inserts. A rule is looked for where a line begins, and as a whole, so that no line is read more
# than once.
_RULE = re.compile(r"\n(?=([ \t>#*/]{0,40}))\1(?=([-:=|+][-:=|+ \t]{1,1000}))\2\r?(?![^\n])")
# Where the columns begin below a rule that has no bars: ====  ====.
_COLUMN = re.compile(r"(?<=[=-][=-] )[=-]|(?<=[=-]  )[=-]")
_CSV_NAME = r"[\"']?[\w.@-]{1,64}[\"']?"
_CSV_HEAD = re.compile(rf"\ufeff?{_CSV_NAME}([,;\t]) ?{_CSV_NAME}(?:\1 ?{_CSV_NAME}){{0,60}}\r?\n")
_INSERT = re.compile(
    r"\binsert\s{1,9}(?:ignore\s{1,9})?into\s{1,9}[^\s()]{1,99}\s{0,9}\(([^()]{1,2000})\)\s{0,9}values\s{0,9}(?=\()",
    re.I,
)
_ROW = re.compile(r"\s{0,9},?\s{0,9}\(((?:'(?:[^'\\]|\\.){0,2000}'|[^()']){1,400})\)", re.DOTALL)
_FIELD = re.compile(r"(?:'(?:[^'\\]|\\.){0,2000}'|[^',]){1,400}", re.DOTALL)
_LINE = re.compile(r"[^\n]+")
_MARKS = " \t\r\n\"'`*"
_MAX_CUTS = 60
# In reStructuredText, a table as a list of lists or as CSV, with the names of its columns, and a row of such a list.
_DIRECTIVE = re.compile(
    r"\.\.[ \t]+(?:list|(csv))-table::[^\n]*\n(?:[ \t]+:(?!header:)[\w-]+:[^\n]*\n){0,9}(?:[ \t]+:header:([^\n]+)\n)?"
)
_LIST_ROW = re.compile(r"(?:[ \t]*(?::[\w-]+:[^\n]*)?\n){0,9}([ \t]+\*[ \t]+-[^\n]*(?:\n[ \t]+-[^\n]*){1,60})(?:\n|$)")


def find_in_tables(text: str) -> Iterator[tuple[int, int]]:
    """Yield where each secret of a table begins and ends."""
    end = 0
    for rule in _RULE.finditer(text) if "--" in text or "==" in text else ():
        signs = rule[1] + rule[2]
        has_bars = not {*"|+"}.isdisjoint(signs)
        cuts = [] if has_bars else [column.start() - 1 for column in islice(_COLUMN.finditer(signs), _MAX_CUTS)]
        if rule.start() < end or not (has_bars or cuts) or not ("--" in signs or "==" in signs):
            continue
        columns = _columns(_cells(text[text.rfind("\n", 0, rule.start()) + 1 : rule.start()], cuts))
        below = rule.end()
        for line in _LINE.finditer(text, rule.end()) if columns or cuts else ():
            if cuts and (
                line.start() != below + 1 or line[0].startswith(("==", "--"))
            ):  # a blank line or the last rule
                break
            if not cuts and "|" not in line[0] and not line[0].startswith("+--"):
                break
            end = below = line.end()
            cells = _cells(line[0], cuts)
            yield from _secrets(cells, line.start(), _of_row(cells, columns) if cuts else columns)
    yield from _in_directives(text)
    if (first := _CSV_HEAD.match(text)) and (columns := _columns(first[0].split(first[1]))):
        for line in _LINE.finditer(text, first.end()):
            yield from _secrets(line[0].split(first[1]), line.start(), columns)
    for insert in _INSERT.finditer(text) if "INSERT INTO" in text or "insert into" in text else ():
        columns = _columns(insert[1].split(","))
        row = _ROW.match(text, insert.end()) if columns else None
        while row:
            yield from _secrets(_FIELD.findall(row[1]), row.start(1), columns)
            row = _ROW.match(text, row.end())


def _columns(names: list[str]) -> _Columns:
    """Return how the values of a column are judged, by its number, where its name is that of a secret."""
    judges = ((number, judge_of(name.strip(_MARKS))) for number, name in enumerate(names))
    return {number: judge for number, judge in judges if judge}


def _in_directives(text: str) -> Iterator[tuple[int, int]]:
    """Yield the secrets of reStructuredText's tables that are lists or CSV."""
    end = 0
    for table in _DIRECTIVE.finditer(text) if "-table::" in text else ():
        if table.start() < end:  # within another, whose lines are read once
            continue
        if table[1]:
            columns = _columns((table[2] or "").split(","))
            for line in _LINE.finditer(text, table.end()) if columns else ():
                if not line[0].startswith((" ", "\t")):
                    break
                end = line.end()
                yield from _secrets(line[0].split(","), line.start(), columns)
            continue
        row = _LIST_ROW.match(text, table.end())
        columns = _columns(row[1].split("\n")) if row else {}
        while row:
            end, cells = row.end(), row[1].split("\n")
            yield from _secrets(cells, row.start(1), _of_row(cells, columns))
            row = _LIST_ROW.match(text, row.end())


def _cells(line: str, cuts: list[int]) -> list[str]:
    """Return the cells of a line: what stands between its bars, or where it is cut if it has none."""
    if not cuts:
        return line.split("|")
    return [line[start:stop] for start, stop in zip((0, *(cut + 1 for cut in cuts)), (*cuts, None), strict=True)]


def _of_row(cells: list[str], columns: _Columns) -> _Columns:
    """Return how the cells of a row are judged, of which the first may name the second."""
    judge = judge_of(cells[0].strip(_MARKS))
    # Beside a parameter may stand its type, or since when it is there.
    return {1: lambda value: judge(value) and is_mixed(value), **columns} if judge else columns


def _secrets(cells: list[str], start: int, columns: _Columns) -> Iterator[tuple[int, int]]:
    """Yield the secrets among the cells of a row, which begins at `start`; one character is between two cells."""
    for number, cell in enumerate(cells):
        value = cell.strip(_MARKS).removeprefix("- ").strip(_MARKS)
        if value and number in columns and " " not in value and columns[number](value):
            at = start + cell.index(value)
            yield at, at + len(value)
        start += len(cell) + 1
