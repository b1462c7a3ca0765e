"""Questions from what code says about itself: doc comments, documentation pages, changelogs."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import PurePosixPath

from benchmarks.development_set.archives import Tree, is_code
from benchmarks.development_set.languages import (
    ATTRIBUTE,
    BLOCK_DOCS,
    LANGUAGES,
    LINE_DOCS,
    Candidate,
    definitions,
    language,
)
from c2llm_integrations.training.docstring_pairs import words

# Nothing is asked about these files, which stay in the index.
ASIDE = re.compile(
    r"(^|/)(x?t|[\w-]*tests?|testing|__tests__|testdata|specs?|[\w-]*mocks?|fixtures?|[\w-]*examples?|samples?|demos?|"
    r"docs?|bench|benchmarks?|contrib|tools|debian|debug|website|features)/"
    r"|(^|/)(test_[^/]*|conftest\.py|setup\.py|[^/]*([._-](test|tests|spec|bench)|[a-z]Tests?|Spec)\.[^/.]+)$",
    re.IGNORECASE,
)
_TRIVIAL = re.compile(
    r"(?i)^(param|todo|fixme|xxx|hack|note|see|deprecated|example|usage|internal|override|inherit|retained|eslint|region|default|"
    r"constructor|initiali[sz]es a new instance|gets or sets|redistribution|permission is|you (may|should)|"
    r"this (program|(file|library|software) is (part|free)))\b|copyright|licen[sc]e|spdx|\bgenerated\b|inheritdoc|"
    r"https?:|@\w|\\\w|[{}=;<>|]|\bFILE\b|^\W*$|-{3}|\w\(\w|non-javadoc|\bpragma\b|#\d|!\[|"
    r"to be implemented by|internal module|has been moved"
)
_MARKS = re.compile(
    r"^[ \t]*(?:///?!?|/?\*+!?/?|\(\*+|\*+\)|#'?|--+[ \t]*\|?|\{-\|?|-\}|@doc \"{3}|\"{3})[ \t]?", re.MULTILINE
)
_TAG = re.compile(r"^\s*(?:[@\\]\w+|:\w+[ :]|Args:|Returns:|Parameters\b|Example)", re.MULTILINE)
_MARKUP = re.compile(
    r"</?\w+[^<>]*>|\{@\w+\s+([^}\s]*)[^}]*\}|:\w+(?::\w+)?:(?=`)|[`*]+|\[([^\]]*)\](?:\([^)]*\)|\[[^\]]*\])?"
)
_CHANGES = r"changelog|changes|history|news|release[-_]?notes|whats[-_]?new"
_CHANGELOG = re.compile(rf"(^|/)({_CHANGES})[^/]*$", re.IGNORECASE)
_NO_PAGE = re.compile(
    rf"(^|/)({_CHANGES}|readme|contributing|licen[sc]e|governance|security|sponsors?|code_of_conduct|authors)[^/]*$",
    re.I,
)
_NO_PROSE = re.compile(r"\s*(\.\.|:|!|\[!|<|[-*+] )")
_ENTRY = re.compile(r"^[ \t]*[-*+•][ \t]+(.+(?:\n[ \t]+(?![-*+•] )\S.*)*)", re.MULTILINE)
_NAME = re.compile(r"(?<![\w./-])(?:\w+(?:\.|::|#|->))*([A-Za-z_]\w*[a-z]\w*)(?:\(\))?(?![\w/-]|[.:#]{1,2}\w)")
# What stands before an entry: a platform, a number, a pull request.
_LABEL = re.compile(
    r"^(?:\W*(?:iOS|Android|Web|JRuby|github)\b|\W*\[[^\]]*\](?:\([^)]*\))?|\W*#?\d+\b|\W*\*\*[^*]*\*\*:)\W*(?=\w)"
)
_CREDIT = re.compile(r"\s*\([^()]*(?:#\d+|@\w+|[0-9a-f]{7,}|https?:)[^()]*\)|\s*\bby @\S+.*$|#\d+")
_TITLE = re.compile(r"^(?:#{1,2} (.+)|(?:[=~*-]{3,}\n)?(\S.*)\n[=~*#-]{3,})$", re.MULTILINE)
_DIRECTIVE = re.compile(r"^\s*(?:\.\. (?:auto)?(?:module|class|currentmodule)::|:::) *([\w.]+)", re.MULTILINE)
# What a file begins with to say what it is for; a block needs an empty line after it, or it is about what follows.
_HEAD = re.compile(
    r"^(?:\{-\||/\*\*|\(\*\*)(?:(?!\*/|-\}|\*\))[\s\S])*(?:-\}|\*/|\*\))(?=[ \t]*\n[ \t]*\n|\s*module\b)|"
    r"^[ \t]+@moduledoc \"{3}[^\"]*\"{3}|(?:^//![^\n]*\n)+|(?:^--[-\s|][^\n]*\n)+(?=\s*module\b)|"
    r"\A---[^\n]*\n(?:--[^\n]*\n)*",
    re.MULTILINE,
)
_HEADED = frozenset(("javascript", "typescript", "ocaml", "haskell", "elixir", "rust", "lua"))
_HEAD_CHARS, _HEADED_LINES = 4_000, 40
_LINK = re.compile(r"/(?:blob|tree)/[^/\s]+/([\w./-]+\.\w+)|\]\((?:\.\./)+([\w./-]+\.\w+)(?:#L\d+)?\)")


def sentence(comment: str) -> str:
    """Return a comment's first sentence without its marks, or "" if that says too little or is not English."""
    text = _TAG.split(re.sub(r"</?summary>", "", _MARKS.sub("", comment)).strip(), maxsplit=1)[0]
    text = " ".join(_MARKUP.sub(r"\1\2", text.split("\n\n")[0]).split())
    first = re.split(r"(?<=[a-z)\d]{2})[.!?](?:\s|$)|:$", text, maxsplit=1)[0].strip(" .:-/*")
    first = first.rstrip(" )") if first.count(")") > first.count("(") else first
    letters = sum(char.isascii() and (char.isalpha() or char == " ") for char in first)
    plain = len(re.findall(r"\b[a-z]{2,}\b", first))
    is_good = 5 <= len(first.split()) <= 40 and plain >= 4 and letters > 0.85 * len(first)
    return first if is_good and not _TRIVIAL.search(first) else ""


def behavior(tree: Tree) -> Iterator[Candidate]:
    """Yield first sentences of doc comments that name neither their symbol nor their file."""
    for path, text in tree.items():
        if ASIDE.search(path) or language(path) not in LANGUAGES:
            continue
        for name, line, first, last, comment in _documented(path, text):
            question = sentence(re.sub(rf"^(\W*){re.escape(name)}\b(?:\s+is\b)?", r"\1", comment))
            if question and not _tells(question, name) and not _tells(question, PurePosixPath(path).stem):
                yield Candidate(question, path, line, f"{path}:{first}-{last}")


def _tells(question: str, name: str) -> bool:
    """Return whether a question holds all words of a name next to one another, or the name itself."""
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    asked = re.sub(r"[^a-z0-9 ]", "", question.lower().replace("-", ""))
    joined = " ".join(words(name))
    return len(plain) > 2 and (plain in asked.split() or f" {joined}" in f" {asked}" or plain in asked.replace(" ", ""))


def _documented(path: str, text: str) -> Iterator[tuple[str, int, int, int, str]]:
    """Yield (name, line, first and last line of its documentation, that), lines counted from 1."""
    if language(path) == "python":
        yield from (one for one in _docstrings(text) if one[0])
        return
    lines = text.split("\n")
    for name, line in definitions(path, text):
        last = line - 1
        while last > 0 and ATTRIBUTE.match(lines[last - 1]):
            last -= 1
        first = _start_of_comment(lines[:last], language(path))
        if first < last:
            yield name, line, first + 1, last, "\n".join(lines[first:last])


def _start_of_comment(lines: list[str], spoken: str) -> int:
    """Return the index of the line where the doc comment that ends `lines` begins; their number if there is none."""
    first, mark = len(lines), LINE_DOCS.get(spoken)
    while mark and first > 0 and lines[first - 1].lstrip().startswith(mark):
        first -= 1
    opening, closing = BLOCK_DOCS.get(spoken, ("", ""))
    if first == len(lines) > 0 and closing and lines[-1].rstrip().endswith(closing):
        begins = [number for number in range(max(first - 61, 0), first) if lines[number].lstrip().startswith(opening)]
        return begins[-1] if begins else first
    return first


def _docstrings(text: str) -> Iterator[tuple[str, int, int, int, str]]:
    """Yield what `_documented` does for Python, and for the file itself, whose name is ""."""
    try:
        nodes = list(ast.walk(ast.parse(text)))
    except (SyntaxError, ValueError):
        return
    for node in nodes:
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            name, line = ("", 1) if isinstance(node, ast.Module) else (node.name, node.lineno)
            if doc := ast.get_docstring(node):
                yield name, line, node.body[0].lineno, node.body[0].end_lineno or line, doc


def central(tree: Tree) -> Iterator[Candidate]:
    """Yield what describes one file as a whole: a documentation page that names or links it, or the file's own head."""
    for path, text in tree.items():
        if language(path) in LANGUAGES and not ASIDE.search(path):
            for _, _, first, last, comment in _heads(path, text):
                question = sentence(comment)
                if question and not _tells(question, PurePosixPath(path).stem):
                    yield Candidate(question, path, 1, f"{path}:{first}-{last}")
        elif not is_code(path) and not _NO_PAGE.search(path):
            files, question = _described(tree, text), _opening(text)
            if len(files) == 1 and question:
                yield Candidate(question, min(files), 1, f"{path}:1-{text.count(chr(10)) + 1}")


def _heads(path: str, text: str) -> Iterator[tuple[str, int, int, int, str]]:
    """Yield at most what `_documented` does for a whole file that holds more than what it hands on."""
    if path.endswith("/__init__.py") or text.count("\n") < _HEADED_LINES:
        return
    if language(path) == "python":
        yield from (one for one in _docstrings(text) if not one[0])
    elif language(path) in _HEADED and (match := _HEAD.search(text[:_HEAD_CHARS])):
        first = text.count("\n", 0, match.start()) + 1
        yield "", 1, first, first + match[0].rstrip("\n").count("\n"), match[0]


def _described(tree: Tree, page: str) -> set[str]:
    """Return the files of code that a documentation page links, or that it documents by a directive."""
    files = {found[1] or found[2] for found in _LINK.finditer(page)} & tree.keys()
    for dotted in set(_DIRECTIVE.findall(page)):
        for tail in (dotted.replace(".", "/"), dotted.rpartition(".")[0].replace(".", "/")):
            ends = (f"/{tail}.py", f"/{tail}/__init__.py")
            if tail and (found := [path for path in tree if f"/{path}".endswith(ends) and not ASIDE.search(path)]):
                files |= set(found) if len(found) == 1 else set()
                break
    return {path for path in files if language(path) in LANGUAGES and not ASIDE.search(path)}


def _opening(page: str) -> str:
    """Return a page's title and first sentence, or a title of several words alone; "" if there is none."""
    if not (title := _TITLE.search(page)):
        return ""
    head = (title[1] or title[2]).strip(" `*")
    paragraphs = (one for one in re.split(r"\n\s*\n", page[title.end() :]) if not _NO_PROSE.match(one))
    first = next(filter(None, map(sentence, paragraphs)), "")
    is_good = 1 + bool(not first) <= len(head.split()) <= 8 and re.fullmatch(r"[\w ,./()-]+", head)
    return ": ".join(filter(None, (head, first))) if is_good else ""


def changelog(tree: Tree) -> Iterator[Candidate]:
    """Yield entries that name one symbol, which one file defines; the name is masked."""
    homes = unique_definitions(tree)
    for page, text in tree.items():
        if not _CHANGELOG.search(page) or page.count("/") > 2:
            continue
        for entry in _ENTRY.finditer(text):
            said = _entry(entry[1])
            named = {found[1]: found[0] for found in _NAME.finditer(said) if found[1] in homes}
            if len(named) != 1:
                continue
            ((name, whole),) = named.items()
            path, line = homes[name]
            question = re.sub(r"\b(the|an?) it\b(?! \w+s\b)", "it", " ".join(said.replace(whole, "it").split()))
            is_enough = 6 <= len(question.split()) <= 40 and len(re.findall(r"\b[a-z]{3,}\b", question)) >= 5
            if is_enough and len(words(name)) > 1 and not ASIDE.search(path) and not _tells(question, name):
                yield Candidate(question, path, line, f"{page}:1-{text.count(chr(10)) + 1}")


def _entry(text: str) -> str:
    """Return the first sentence of a changelog's entry without labels and credits, "" if it names a path."""
    said = _LABEL.sub("", _LABEL.sub("", " ".join(text.split())))
    said = _CREDIT.sub("", _MARKUP.sub(r"\1\2", said))
    said = re.split(r"(?<=[a-z)\d\"']{2})\.(?:\s|$)", said, maxsplit=1)[0].strip(" .:,-")
    return "" if re.search(r"/|http|;", said) else said


def all_definitions(tree: Tree) -> list[tuple[str, str, int]]:
    """Return (name, path, line) of everything that the tree defines."""
    return [(name, path, line) for path, text in tree.items() for name, line in sorted(set(definitions(path, text)))]


def unique_definitions(tree: Tree) -> dict[str, tuple[str, int]]:
    """Return the names that the tree defines once → the file and line."""
    found = all_definitions(tree)
    times = Counter(name for name, *_ in found)
    return {name: (path, line) for name, path, line in found if times[name] == 1}
