"""A question taken apart: what it looks like, its terms, and the name or the places it asks for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from c2llm_integrations.code.terms import query_terms, stem

Kind = Literal["words", "symbol", "code", "error"]

# What of a pasted file or log decides its kind.
_HEAD_CHARS = 10_000
_NAME = re.compile(r"[\w$]+(?:(?:\.|::|#|->)[\w$]+)*[?!]?(?:\(\))?")
_SEPARATOR = re.compile(r"\.|::|#|->")
# The bounds here and below keep the time linear in any text.
_ERROR = re.compile(
    r"Traceback \(most recent|\b\w{0,80}(?:Error|Exception|Warning)\b[ \t]{0,3}:|panicked at|"
    r"^[ \t]{0,40}at \S{1,200} ?\(|^[ \t]{0,40}File \"[^\"\n]{1,300}\", line \d|"
    r"^(?:error|fatal|panic)\b.{0,12}:|^(?=\w{3,80}: )\w*[a-z][A-Z]",
    re.MULTILINE,
)
_LOCATION = re.compile(r"([\w./\\@-]{1,200}\.\w{1,5})(?:\", line |:|\()(\d{1,7})")
_MARK = re.compile(r"[{}()\[\];<>]|=+")
_CODE_LINE = re.compile(r"[ \t]+\S.*|.*[,:;{}()\[\]=]|(?:import|from|def|class|return|[@#/]).*")


@dataclass(frozen=True, slots=True)
class Question:
    """What the ranking rules need to know of a question.

    `stems` are those of its `terms`; `name` the parts of the qualified name it consists of, or nothing;
    `locations` the (path, line) pairs that a stack trace names.
    """

    kind: Kind
    terms: Sequence[str]
    stems: frozenset[str]
    name: Sequence[str]
    locations: Sequence[tuple[str, int]]


def read(query: str) -> Question:
    """Take a question apart."""
    kind, terms = kind_of(query), query_terms(query)
    name = _SEPARATOR.split(query.strip().removesuffix("()").rstrip("?!")) if kind == "symbol" else []
    places = _LOCATION.findall(query[:_HEAD_CHARS])
    locations = [(path.replace("\\", "/"), int(line)) for path, line in places]
    return Question(kind, terms, frozenset(map(stem, terms)), name, locations)


def kind_of(query: str) -> Kind:
    """Return what a question looks like: one name, an error message or stack trace, code, or words."""
    head = query.strip()[:_HEAD_CHARS]
    if _NAME.fullmatch(head):
        return "symbol"
    if _ERROR.search(head):
        return "error"
    lines = head.splitlines()
    marks = len(_MARK.findall(head))
    coded = sum(_CODE_LINE.fullmatch(line) is not None for line in lines)
    return "code" if 3 <= marks >= 0.04 * len(head) or 2 * coded > len(lines) > 1 else "words"
