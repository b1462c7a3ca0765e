"""Questions from what code says about itself: doc comments, documentation pages, changelogs."""

from __future__ import annotations

import ast
import re
from collections import Counter, defaultdict
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
from c2llm_integrations.training.pairs import words

# Nothing is asked about these files, which stay in the index.
ASIDE = re.compile(
    r"(^|/)([\w-]*tests?|testing|__tests__|testdata|specs?|[\w-]*mocks?|fixtures?|[\w-]*examples?|samples?|demos?|docs?|"
    r"bench|benchmarks?|contrib|tools|debian|debug|website|features)/"
    r"|(^|/)(test_[^/]*|conftest\.py|setup\.py|[^/]*([._-](test|tests|spec|bench)|[a-z]Tests?|Spec)\.[^/.]+)$",
    re.IGNORECASE,
)
_TRIVIAL = re.compile(
    r"(?i)^(param|todo|fixme|xxx|hack|note|see|deprecated|example|usage|internal|override|inherit|eslint|region|default|"
    r"constructor|initiali[sz]es a new instance|gets or sets|redistribution|permission is|you (may|should)|"
    r"this (program|(file|library|software) is (part|free)))\b|copyright|licen[sc]e|spdx|\bgenerated\b|inheritdoc|"
    r"https?:|@\w|\\\w|[{}=;<>|]|\bFILE\b|^\W*$|-{3}|\w\(\w|non-javadoc|\bpragma\b|#\d|to be implemented by|!\["
)
_MARKS = re.compile(
    r"^[ \t]*(?:///?!?|/?\*+!?/?|\(\*+|\*+\)|#'?|--+[ \t]*\|?|\{-\|?|-\}|@doc \"{3}|\"{3})[ \t]?", re.MULTILINE
)
_TAG = re.compile(r"^\s*(?:[@\\]\w+|:\w+[ :]|Args:|Returns:|Parameters\b|Example)", re.MULTILINE)
_MARKUP = re.compile(
    r"</?\w+[^<>]*>|\{@\w+\s+([^}\s]*)[^}]*\}|:\w+(?::\w+)?:(?=`)|[`*]+|\[([^\]]*)\](?:\([^)]*\)|\[[^\]]*\])?"
)
_CHANGELOG = re.compile(r"(^|/)(changelog|changes|history|news|release[-_]?notes|whats[-_]?new)[^/]*$", re.IGNORECASE)
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
_HEAD_CHARS = 4_000
_META = re.compile(
    r"(^|/)(readme|contributing|licen[sc]e|governance|security|sponsors?|code_of_conduct|authors)[^/]*$", re.I
)
_LINK = re.compile(r"/(?:blob|tree)/[^/\s]+/([\w./-]+\.\w+)|\]\((?:\.\./)+([\w./-]+\.\w+)(?:#L\d+)?\)")


def sentence(comment: str) -> str:
    """Return a comment's first sentence without its marks, or "" if that says too little or is not English."""
    text = _TAG.split(re.sub(r"</?summary>", "", _MARKS.sub("", comment)).strip(), maxsplit=1)[0]
    text = " ".join(_MARKUP.sub(lambda found: found[1] or found[2] or "", text.split("\n\n")[0]).split())
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
                yield Candidate(question, path, line, line, (f"{path}:{first}-{last}",))


def _tells(question: str, name: str) -> bool:
    """Return whether a question holds all words of a name next to one another, or the name itself."""
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    asked = re.sub(r"[^a-z0-9 ]", "", question.lower().replace("-", ""))
    joined = " ".join(words(name))
    return len(plain) > 2 and (plain in asked.split() or f" {joined}" in f" {asked}" or plain in asked.replace(" ", ""))


def _documented(path: str, text: str) -> Iterator[tuple[str, int, int, int, str]]:
    """Yield (name, line, first and last line of its documentation, that), lines counted from 1."""
    if language(path) == "python":
        yield from _docstrings(text)
        return
    lines = text.split("\n")
    for name, line in definitions(path, text):
        above = line - 1
        while above >= 0 and ATTRIBUTE.match(lines[above]):
            above -= 1
        first = _start_of_comment(lines, above, language(path))
        if first <= above:
            yield name, line + 1, first + 1, above + 1, "\n".join(lines[first : above + 1])


def _start_of_comment(lines: list[str], last: int, spoken: str) -> int:
    """Return where the doc comment that ends on a line begins, or a line after it if there is none."""
    first = last + 1
    mark = LINE_DOCS.get(spoken)
    while mark and first > 0 and lines[first - 1].lstrip().startswith(mark):
        first -= 1
    opening, closing = BLOCK_DOCS.get(spoken, ("", ""))
    if first > last >= 0 and closing and lines[last].rstrip().endswith(closing):
        begin = last
        while begin >= 0 and last - begin < 60 and not lines[begin].lstrip().startswith(opening):
            begin -= 1
        return begin if begin >= 0 and lines[begin].lstrip().startswith(opening) else first
    return first


def _docstrings(text: str) -> Iterator[tuple[str, int, int, int, str]]:
    for node in (node for module in _parsed(text) for node in ast.walk(module)):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and (doc := ast.get_docstring(node)):
            first = node.body[0]
            yield node.name, node.lineno, first.lineno, first.end_lineno or first.lineno, doc


def central(tree: Tree) -> Iterator[Candidate]:
    """Yield what describes one file as a whole: a documentation page that names or links it, or the file's own head."""
    modules = _modules(tree)
    for page, text in tree.items():
        if language(page) in LANGUAGES and not ASIDE.search(page):
            yield from _head(page, text)
        title = _TITLE.search(text)
        if is_code(page) or _CHANGELOG.search(page) or _META.search(page) or not title:
            continue
        links = {found[1] or found[2] for found in _LINK.finditer(text)}
        files = {link for link in links & tree.keys() if language(link) in LANGUAGES and not ASIDE.search(link)}
        for dotted in dict.fromkeys(_DIRECTIVE.findall(text)):
            found = modules.get(dotted) or modules.get(dotted.rpartition(".")[0], [])
            files |= set(found) if len(found) == 1 else set()
        head = (title[1] or title[2]).strip(" `*")
        if len(files) == 1 and len(head.split()) <= 8 and re.fullmatch(r"[\w ,./()-]+", head):
            first = next(filter(None, map(_prose, re.split(r"\n\s*\n", text[title.end() :]))), "")
            if first or len(head.split()) > 1:
                yield Candidate(f"{head}: {first}" if first else head, *files, 1, 1, (_whole(page, text),))


def _modules(tree: Tree) -> dict[str, list[str]]:
    """Return dotted name, however much of it is left out at its beginning → the Python files that may be meant."""
    modules: defaultdict[str, list[str]] = defaultdict(list)
    for path in tree:
        if path.endswith(".py") and not ASIDE.search(path):
            dotted = path.removesuffix(".py").removesuffix("/__init__").split("/")
            for start in range(len(dotted)):
                modules[".".join(dotted[start:])].append(path)
    return modules


def _prose(paragraph: str) -> str:
    return "" if re.match(r"\s*(\.\.|:|!|\[!|<|[-*+] )", paragraph) else sentence(paragraph)


def _whole(page: str, text: str) -> str:
    return f"{page}:1-{text.count(chr(10)) + 1}"


def _head(path: str, text: str) -> Iterator[Candidate]:
    """Yield the first sentence of a file's own documentation, unless it tells the file's name."""
    first, last, comment = 0, 0, ""
    if language(path) == "python":
        found = _parsed(text)
        if found and (comment := ast.get_docstring(found[0]) or ""):
            first, last = found[0].body[0].lineno, found[0].body[0].end_lineno or 0
    elif language(path) in _HEADED and (match := _HEAD.search(text[:_HEAD_CHARS])):
        comment = match[0]
        first = text.count("\n", 0, match.start()) + 1
        last = first + comment.rstrip("\n").count("\n")
    question = sentence(comment)
    if question and not _tells(question, PurePosixPath(path).stem):
        yield Candidate(question, path, 1, 1, (f"{path}:{first}-{last}",))


def _parsed(text: str) -> list[ast.Module]:
    try:
        return [ast.parse(text)]
    except (SyntaxError, ValueError):
        return []


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
                yield Candidate(question, path, line, line, (_whole(page, text),))


def _entry(text: str) -> str:
    """Return the first sentence of a changelog's entry without labels and credits, "" if it names a path."""
    said = _LABEL.sub("", _LABEL.sub("", " ".join(text.split())))
    said = _CREDIT.sub("", _MARKUP.sub(lambda found: found[1] or found[2] or found[0].strip("`*"), said))
    said = re.split(r"(?<=[a-z)\d\"']{2})\.(?:\s|$)", said, maxsplit=1)[0].strip(" .:,-")
    return "" if re.search(r"/|http|;", said) else said


def all_definitions(tree: Tree) -> list[tuple[str, str, int]]:
    """Return (name, path, line counted from 1) of everything that the tree defines."""
    return [
        (name, path, line + 1) for path, text in tree.items() for name, line in sorted(set(definitions(path, text)))
    ]


def unique_definitions(tree: Tree) -> dict[str, tuple[str, int]]:
    """Return the names that the tree defines once → the file and line, counted from 1."""
    found = all_definitions(tree)
    times = Counter(name for name, *_ in found)
    return {name: (path, line) for name, path, line in found if times[name] == 1}
