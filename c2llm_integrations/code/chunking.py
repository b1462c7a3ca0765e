"""One source file → its chunks: whole functions, methods and classes where they fit.

Lines are never cut. Every non-blank line is in exactly one chunk, and the chunks' texts joined are the file.
Symbols are qualified with "." in every language: `Class.method`, `Type.Method` of a Go receiver or a Rust
impl, `namespace.Class.method` in C++, `outer.inner`. Packages of Java, C# and PHP are left out.
"""

from __future__ import annotations

import re
from collections import Counter
from itertools import count

from tree_sitter import Node, Parser

from c2llm_integrations.code import syntax
from c2llm_integrations.code.chunk import CodeChunk, chunk_id
from c2llm_integrations.code.languages import grammar, language_of
from c2llm_integrations.code.lines import TINY_CHARS, Lines, Piece, cut, join
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
    if not text.removeprefix("\ufeff").strip():
        return []
    language = language_of(path, text)
    lines = Lines(text)
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
    return _split(lines, root, max_chars)


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


def _split(lines: Lines, root: Node, max_chars: int) -> list[Piece]:
    """Cut a file along its syntax tree: a node that is too large gives way to its children.

    A stack instead of recursion, because source may nest deeper than Python's own stack.
    """
    owners = count(1)
    whole = Piece(0, len(lines))
    todo = _group(lines, whole, root.children, owners)[::-1] or [(whole, [])]
    pieces: list[Piece] = []
    while todo:
        piece, nodes = todo.pop()
        fits = lines.size(piece.start, piece.end) <= max_chars
        if fits and not _cuts_off_head(lines, pieces, piece, max_chars) and not any(map(syntax.is_transparent, nodes)):
            pieces.append(piece)
        elif parts := _expand(lines, piece, nodes, owners):
            todo.extend(reversed(parts))
        else:
            # In halves at most, so that what stands before or after can still join.
            pieces.extend(cut(lines, piece, max(1, max_chars // 2)))
    return pieces


def _cuts_off_head(lines: Lines, pieces: list[Piece], piece: Piece, max_chars: int) -> bool:
    """Say whether keeping `piece` whole would leave a definition's first line or two alone before it."""
    if not pieces or pieces[-1].owner != piece.owner or piece.owner == 0:
        return False
    head = pieces[-1]
    is_head = len(pieces) == 1 or pieces[-2].owner != head.owner
    is_tiny = lines.size(head.start, head.end) < TINY_CHARS
    return is_head and is_tiny and lines.size(head.start, piece.end) > max_chars


_Part = tuple[Piece, list[Node]]


def _expand(lines: Lines, piece: Piece, nodes: list[Node], owners: count[int]) -> list[_Part]:
    """Replace nodes of several lines by their children until the lines fall apart; [] if they never do."""
    while any(node.start_point[0] != node.end_point[0] and node.child_count for node in nodes):
        nodes = [inner for node in nodes for inner in _opened(node)]
        parts = _group(lines, piece, nodes, owners)
        if len(parts) > 1:
            return parts
    return []


def _opened(node: Node) -> list[Node]:
    """Return a node's children, with those of its body in the body's place."""
    if node.start_point[0] == node.end_point[0] or not node.child_count:
        return [node]
    body = node.child_by_field_name("body")
    if body is None:
        return node.children
    return [inner for child in node.children for inner in (child.children or [child] if child == body else [child])]


def _group(lines: Lines, outer: Piece, nodes: list[Node], owners: count[int]) -> list[_Part]:
    """Gather nodes into runs of whole lines that cover `outer`: a comment goes with the node right below it."""
    groups: list[list[Node]] = []
    starts: list[int] = []
    last, leading = -1, False
    for node in nodes:
        if node.start_byte == node.end_byte:
            continue  # a token the parser missed: it has no place
        first = node.start_point[0]
        leads = syntax.is_comment(node) or syntax.is_attribute(node)
        attached = leading and (first <= last + 1 or syntax.is_attribute(groups[-1][-1]))
        if groups and (first <= last or attached or syntax.is_punctuation(node)):
            groups[-1].append(node)
            leading = leading and leads
        else:
            groups.append([node])
            starts.append(first)
            leading = leads
        row, column = node.end_point
        last = max(last, row - (column == 0 and row > first))
    starts[:1] = [outer.start]
    ends = [*starts[1:], outer.end]
    return [
        (_described(lines, outer, start, end, group, owners), group)
        for start, end, group in zip(starts, ends, groups, strict=bool(groups))
    ]


def _described(lines: Lines, outer: Piece, start: int, end: int, nodes: list[Node], owners: count[int]) -> Piece:
    """Return the piece of some nodes inside `outer`: their own definition, or more of its content."""
    found = [
        definition for node in nodes if (definition := syntax.definition_in(node)) and definition.node.id != outer.node
    ]
    in_function = outer.kind in ("function", "method")
    if not found or (in_function and lines.size(start, end) < TINY_CHARS):
        loose = outer.kind in ("module", "class")
        return Piece(start, end, outer.symbol, outer.kind, outer.owner, loose, outer.node)
    main = max(found, key=lambda definition: definition.node.end_byte - definition.node.start_byte)
    symbol = f"{outer.symbol}.{main.name}" if outer.symbol else main.name
    if main.kind == "module":
        return Piece(start, end, symbol, "module", outer.owner, True, main.node.id)
    kind = "method" if main.kind == "function" and outer.kind == "class" else main.kind
    return Piece(start, end, symbol, kind, next(owners), False, main.node.id)
