"""Find secrets in tables by the name of their column: in Markdown, in CSV, and in SQL's INSERT."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from c2llm_integrations.code.secrets.named import judge_of

_Columns = dict[int, Callable[[str], bool]]

# The line below the head of a table in Markdown or as databases print it, the head of one in CSV, and SQL that inserts.
# A rule is looked for where a line begins, and as a whole, so that no line is read more than once.
_RULE = re.compile(r"\n(?=([-:=|+ \t]{3,1000}))\1\r?(?![^\n])")
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


def find_in_tables(text: str) -> Iterator[tuple[int, int]]:
    """Yield where each secret of a table begins and ends."""
    end = 0
    for rule in _RULE.finditer(text) if "|" in text and ("--" in text or "==" in text) else ():
        if rule.start() < end or not ("--" in rule[1] or "==" in rule[1]) or {*"|+"}.isdisjoint(rule[1]):
            continue
        columns = _columns(text[text.rfind("\n", end, rule.start()) + 1 : rule.start()].split("|"))
        for line in _LINE.finditer(text, rule.end()) if columns else ():
            if "|" not in line[0] and not line[0].startswith("+--"):
                break
            end = line.end()
            yield from _secrets(line[0].split("|"), line.start(), columns)
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


def _secrets(cells: list[str], start: int, columns: _Columns) -> Iterator[tuple[int, int]]:
    """Yield the secrets among the cells of a row, which begins at `start`; one character is between two cells."""
    for number, cell in enumerate(cells):
        value = cell.strip(_MARKS)
        if value and number in columns and " " not in value and columns[number](value):
            at = start + cell.index(value)
            yield at, at + len(value)
        start += len(cell) + 1
