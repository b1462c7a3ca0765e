"""One source file → its chunks: whole functions, methods and classes where they fit.

Lines are never cut. Every non-blank line is in exactly one chunk, and the chunks' texts joined are the file.
Symbols are qualified with "." in every language: `Class.method`, `Type.Method` of a Go receiver or a Rust
impl, `namespace.Class.method` in C++, `outer.inner`. Packages of Java, C# and PHP are left out.
"""

from __future__ import annotations

import re
from collections import Counter

from tree_sitter import Node, Parser

from c2llm_integrations.code.chunk import CodeChunk, chunk_id
from c2llm_integrations.code.languages import grammar, language_of
from c2llm_integrations.code.lines import Lines, Piece, cut, join
from c2llm_integrations.code.splitting import split
from c2llm_integrations.errors import InputError

# The bundled model reads 512 tokens, and code has about three characters to a token.
CHUNK_CHARS = 1_500
# A syntax tree of which a larger part is errors says nothing about where to cut.
_MAX_ERRORS = 0.5
_HEADING = re.compile(r" {0,3}#{1,6}\s+(.*?)[\s#]*$")
_FENCE = re.compile(r" {0,3}(```+|~~~+)")


def chunk_source(repository: str, path: str, text: str, max_chars: int = CHUNK_CHARS) -> list[CodeChunk]:
    """Return the chunks of one file, in order; a blank file has none.

    A chunk has at most `max_chars` characters, blank lines at its ends not counted; only a single longer line
    has more. Blank lines belong to the chunk above them. `kind` is "function", "method", "class" (any type),
    "module" (a file's own statements), "section" (Markdown) or "text". Raises InputError for text that is no
    Unicode, or a `max_chars` below 1.
    """
    if max_chars < 1:
        raise InputError(f"max_chars is {max_chars}; a chunk has at least 1 character")
    try:
        data = text.encode()
        f"{repository}{path}".encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{path!a} holds a lone surrogate at {error.start}; decode it as latin-1") from error
    lines = Lines(text)
    if not lines.size(0, len(lines)):
        return []
    language = language_of(path, text)
    pieces = join(lines, _pieces(lines, language, data, max_chars), max_chars)
    seen: Counter[str] = Counter()
    chunks = []
    for piece in pieces:
        body = lines.text(piece.start, piece.end)
        key = chunk_id(repository, path, body, seen[body])
        seen[body] += 1
        chunks.append(
            CodeChunk(key, repository, path, language, piece.symbol, piece.kind, piece.start + 1, piece.end, body)
        )
    return chunks


def _pieces(lines: Lines, language: str, data: bytes, max_chars: int) -> list[Piece]:
    if language == "markdown":
        return _sections(lines, max_chars)
    rules = grammar(language)
    root = Parser(rules).parse(data).root_node if rules else None
    if root is None or _is_useless(root, len(lines)):
        return cut(lines, Piece(0, len(lines), kind="text"), max_chars)
    return split(lines, root, max_chars)


def _is_useless(root: Node, lines: int) -> bool:
    if root.type == "ERROR" or not root.child_count:
        return True
    errors = [child for child in root.children if child.is_error] if root.has_error else []
    return sum(node.end_point[0] - node.start_point[0] + 1 for node in errors) > _MAX_ERRORS * lines


def _sections(lines: Lines, max_chars: int) -> list[Piece]:
    """Cut Markdown at its headings, which are the symbols."""
    starts = [(0, "")]
    fence = ""
    for number, line in enumerate(lines.lines):
        if opened := _FENCE.match(line):
            mark = opened[1]
            fence = "" if fence and mark.startswith(fence) else fence or mark
        elif not fence and (heading := _HEADING.match(line.rstrip())):
            starts.append((number, heading[1]))
    if len(starts) > 1 and lines.size(0, starts[1][0]) == 0:
        starts[:2] = [(0, starts[1][1])]
    ends = [*(start for start, _ in starts[1:]), len(lines)]
    return [
        part
        for owner, ((start, symbol), end) in enumerate(zip(starts, ends, strict=True), 1)
        for part in cut(lines, Piece(start, end, symbol, "section", owner), max_chars)
    ]
