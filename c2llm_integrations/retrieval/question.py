"""Analyze a question: its kind, its terms, and the name or the places it asks for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from c2llm_integrations.code.lexical_terms import query_terms, stem
from c2llm_integrations.stores.row_checks import require

Kind = Literal["words", "symbol", "code", "error"]

# The characters of a question that are read, by every interface: more than any model or the lexical index reads.
MAX_QUESTION_CHARS = 2**18
# Nobody defines longer names.
MAX_NAME_CHARS = 1_000
# The characters of a pasted file or log that decide its kind.
_HEAD_CHARS = 10_000
# What colors a terminal's text, or makes a link of it.
_STYLE = re.compile(r"\x1b(?:\[[0-9;:]{0,40}[A-Za-z]|\]8;[^\x1b\x07]{0,500}(?:\x1b\\|\x07))")
# A message or sentence that is quoted has no more words.
_QUOTED_WORDS = 64
_WORD = re.compile(r"\w+")
_NAME = re.compile(r"[\w$]+(?:(?:\.|::|#|->)[\w$]+)*[?!]?(?:\(\))?")
_SEPARATOR = re.compile(r"\.|::|#|->")
# The bounds here and below keep the time linear in any text.
_ERROR = re.compile(
    r"Traceback \(most recent|\b\w{0,80}(?:Error|Exception|Warning)\b[ \t]{0,3}:|panicked at|"
    r"^[ \t]{0,40}at \S{1,200} ?\(|^[ \t]{0,40}File \"[^\"\n]{1,300}\", line \d|"
    r"^(?:error|fatal|panic)\b.{0,12}:|^(?=\w{3,80}: )\w*[a-z][A-Z]",
    re.MULTILINE,
)
# A place ends in a line number, which runtimes write in a few ways; what stands before it on its line names the file.
# .NET says "line" in the language of its machine.
_LINE = r"(?:[Ll]ines?:?|Zeile|ligne|línea|linha|riga|строка|wiersz|řádek|行号|行|줄)"
_LINE_NUMBER = re.compile(
    rf"(?:[\"')]?[,:]? ?(?:on |\()?{_LINE} |\?[\w=&.%-]{{0,80}}:|:\[|: (?=\d{{1,7}}:)|:|"
    r":? ?\((?=\d{1,7}[,:)])| (?=\d{1,7}:\d)|#L?)"
    r"(\d{1,7})\b(?!\.?\w)"
)
# The same the other way round, as Fortran and people say it.
_LINE_OF = re.compile(r"\bline (\d{1,7}) (?:of|in) (?:file )?([^\s\"'`<>|*?,;=()]{1,300})")
_PATH_CHARS = 300
# Characters that end a file's name to the left.
_OUTSIDE = re.compile(r"[\"'`<>|*?\n\t,;=]")
# What stands before a path in a file: a server, a function in it, Godot's resources, Dart's package, a program's name.
_BEFORE = re.compile(r"(?:\S{1,100}@)?(?:res://|\w+://[^/\s]*/)|\bpackage:\w+/|^\s*\w{2,40}:(?=[A-Za-z][\w.-]{0,100}$)")
_ABSOLUTE = re.compile(r"(?:^|\s)(?:[A-Za-z]:)?/")
_PATH_WORDS = 4
_SUFFIX = re.compile(r"[^.\s]\.[A-Za-z]\w{0,14}$")
# Files without a suffix that tools name without a folder.
_BARE = {"Makefile", "GNUmakefile", "makefile", "Dockerfile", "Containerfile", "Jenkinsfile", "Rakefile", "Gemfile"}
_MARK = re.compile(r"[{}()\[\];<>]|=+")
_CODE_LINE = re.compile(r"[ \t]+\S.*|.*[,:;{}()\[\]=]|(?:import|from|def|class|return|[@#/]).*")


@dataclass(frozen=True, slots=True)
class Question:
    """A question as the ranking rules see it.

    `stems`: of its `terms`; `name`: the parts of the qualified name that it consists of, or (); `locations`: the (path,
    line) pairs that a stack trace names; `words`: all its words as they stand, in lower case, or () if there are more
    than anybody quotes.
    """

    kind: Kind
    terms: Sequence[str]
    stems: frozenset[str]
    name: Sequence[str]
    locations: Sequence[tuple[str, int]]
    words: Sequence[str]


def bounded(query: str) -> str:
    """Return the part of a question that is read: all but colors, unless it is as long as a pasted file."""
    require(query, str, "a question in words")
    return _STYLE.sub("", query[:MAX_QUESTION_CHARS])


def read(query: str) -> Question:
    """Analyze a question."""
    query = bounded(query)
    kind, terms = kind_of(query), query_terms(query)
    name = _SEPARATOR.split(query.strip().removesuffix("()").rstrip("?!")) if kind == "symbol" else []
    words, places = words_of(query[:_HEAD_CHARS]), _places(query[:_HEAD_CHARS])
    quoted = words if len(words) <= _QUOTED_WORDS else ()
    return Question(kind, terms, frozenset(map(stem, terms)), name, places, quoted)


def words_of(text: str) -> list[str]:
    """Return the words of a text as they stand, in lower case."""
    return _WORD.findall(text.lower())


def _places(text: str) -> list[tuple[str, int]]:
    """Return the (path, line) pairs that a text names; a path that may have spaces also without the words before."""
    found = []
    for number in _LINE_NUMBER.finditer(text):
        before = _OUTSIDE.split(text[max(0, number.start() - _PATH_CHARS) : number.start()].rstrip("\"'"))[-1]
        before = _BEFORE.sub("", before[_open_bracket(before) :]).replace("\\", "/").strip()
        if absolute := _ABSOLUTE.search(before):
            paths = [before[absolute.end() - 1 :]]
        else:
            words = before.split(" ")[-_PATH_WORDS:]
            paths = [" ".join(words[start:]) for start in range(len(words))]
        found += [(path, int(number[1])) for path in paths if _is_file(path)]
    return found + [(said[2], int(said[1])) for said in _LINE_OF.finditer(text) if _is_file(said[2])]


def _open_bracket(text: str) -> int:
    """Return where the text after the last bracket begins that is not closed, as in `at Page (app/(auth)/page.tsx`."""
    closed = 0
    for at in range(len(text) - 1, -1, -1):
        closed += (text[at] in ")]") - (text[at] in "([")
        if closed < 0:
            return at + 1
    return 0


def _is_file(path: str) -> bool:
    """Return whether a name looks like one of a file: with a suffix or a folder, or known without."""
    name = path.rpartition("/")[2]
    return bool(_SUFFIX.search(name) or ("/" in path and name) or name in _BARE) and ":" not in path


def kind_of(query: str) -> Kind:
    """Return the kind of a question: one name, an error message or stack trace, code, or words."""
    query = query.strip()
    head = query[:_HEAD_CHARS]
    if len(query) <= MAX_NAME_CHARS and _NAME.fullmatch(query):
        return "symbol"
    if _ERROR.search(head):
        return "error"
    lines = head.splitlines()
    marks = len(_MARK.findall(head))
    coded = sum(_CODE_LINE.fullmatch(line) is not None for line in lines)
    return "code" if 3 <= marks >= 0.04 * len(head) or 2 * coded > len(lines) > 1 else "words"
