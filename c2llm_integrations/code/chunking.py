"""Cut a source file into chunks: whole functions, methods and classes where they fit.

Every non-blank line is in exactly one chunk, and the chunks' texts joined are the file without its byte order mark;
only a line of more than `MAX_LINE_CHARS` is spread over several chunks.
Symbols are qualified with "." in every language: `Class.method`, `Type.Method` of a Go receiver or a Rust
impl, `namespace.Class.method` in C++, `outer.inner`. Packages of Java, Kotlin, Scala, C# and PHP are left out.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import count

from tree_sitter import Node

from c2llm_integrations.code import language_definitions, notebook
from c2llm_integrations.code.chunk import CodeChunk, chunk_id
from c2llm_integrations.code.definitions import Definition, Syntax, is_comment, is_punctuation
from c2llm_integrations.code.languages import language_of
from c2llm_integrations.code.line_pieces import TINY_CHARS, Lines, Piece, cut, join
from c2llm_integrations.code.parsing import ParseBudget, parse
from c2llm_integrations.errors import InputError

# The bundled model reads 512 tokens, and code has about three characters to a token.
CHUNK_CHARS = 1_500
# Every store takes this much in one row; a longer line, which is data, is spread over several.
MAX_LINE_CHARS = 16_000
# The byte order mark, as some editors put it in front of a file.
MARK = "\ufeff"
# A syntax tree with a larger share of errors is no guide to where to cut.
_MAX_ERRORS = 0.5
_HEADING = re.compile(r" {0,3}#{1,6}\s+(.*)")
# Parses a file, or ranges of it, by the rules of a language.
_Parse = Callable[..., Node | None]
_FENCE = re.compile(r" {0,3}(```+|~~~+)")


def chunk_source(
    repository: str, path: str, text: str, max_chars: int = CHUNK_CHARS, *, budget: ParseBudget | None = None
) -> list[CodeChunk]:
    """Return the chunks of one file, in order; a blank file has none.

    `kind` is "function", "method", "class" (any type), "module" (a file's own statements), "section" (Markdown) or
    "text". Blank lines belong to the chunk above them. A notebook is chunked as the script of its cells
    (`notebook.script_of`); a cell that defines nothing is its own symbol.

    Args:
        repository: The repository's name.
        path: The file's POSIX path in it.
        text: The file's text.
        max_chars: The most characters of a chunk, without the blank lines at its ends. A single longer line has more,
            at most `MAX_LINE_CHARS`.
        budget: What the files of one run may take to parse together; None for no bound but each file's own.

    Raises:
        InputError: The text is not valid Unicode, or `max_chars` is below 1.

    """
    if max_chars < 1:
        raise InputError(f"max_chars is {max_chars}; a chunk has at least 1 character")
    try:
        text.encode()
        f"{repository}{path}".encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{path!a} holds a lone surrogate at {error.start}; decode it as latin-1") from error
    text = text.lstrip(MARK)  # it says how the file is encoded, and would change the vector
    is_notebook = path.lower().endswith(notebook.SUFFIX)
    if is_notebook:
        text = notebook.script_of(text) or text
    lines = Lines(text)
    if not lines.size(0, len(lines)):
        return []
    language = language_of(path, text)
    is_notebook = is_notebook and language != "json"
    cells = notebook.cell_names(lines.lines) if is_notebook else []
    seen: Counter[str] = Counter()
    chunks = []
    within = partial(parse, path=path, budget=budget)
    for piece in join(lines, _pieces(lines, language, text.encode(), max_chars, within), max_chars):
        symbol = piece.symbol or (cells[piece.start] if is_notebook else "")
        for body in _bodies(lines.text(piece.start, piece.end), max(max_chars, MAX_LINE_CHARS)):
            key = chunk_id(repository, path, body, seen[body])
            seen[body] += 1
            chunks.append(
                CodeChunk(key, repository, path, language, symbol, piece.kind, piece.start + 1, piece.end, body)
            )
    return chunks


def _bodies(text: str, size: int) -> list[str]:
    """Cut the text of a piece, if it is a line that is too long; blank lines below it stay with its last part."""
    starts = range(0, max(1, len(text.rstrip())), size)
    return [text[start : start + size if start < starts[-1] else None] for start in starts]


def _pieces(lines: Lines, language: str, data: bytes, max_chars: int, parse: _Parse) -> list[Piece]:
    if language == "markdown":
        return _sections(lines, max_chars)
    root = parse(language, data)
    if root is None or _is_useless(root, len(lines)):
        return cut(lines, Piece(0, len(lines), kind="text"), max_chars)
    rules = language_definitions.SYNTAX.get(language) or Syntax()
    if language in language_definitions.PAGES:
        scripts = language_definitions.scripts(language, root)
        programs = [parse(script, data, ranges) for script, ranges in scripts.items()]
        rules = language_definitions.syntax_of(program for program in programs if program is not None)
    return split(lines, root, max_chars, rules)


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
            starts.append((number, heading[1].rstrip("# \t\f\v")[:MAX_SYMBOL_CHARS]))
    if len(starts) > 1 and lines.size(0, starts[1][0]) == 0:
        starts[:2] = [(0, starts[1][1])]
    ends = [*(start for start, _ in starts[1:]), len(lines)]
    return [
        part
        for owner, ((start, symbol), end) in enumerate(zip(starts, ends, strict=True), 1)
        for part in cut(lines, Piece(start, end, symbol, "section", owner), max_chars)
    ]


# Deeper nesting than any person writes would make the symbols longer than the file.
MAX_SYMBOL_CHARS = 400
# A piece, and the syntax nodes in it that have several lines and so can be opened.
_Part = tuple[Piece, list[Node]]


def split(lines: Lines, root: Node, max_chars: int, rules: Syntax) -> list[Piece]:
    """Cut a file along its syntax tree; the pieces cover every line, in order, and may still be joined.

    A node that is too large gives way to its children; text without any is cut by lines.
    """
    # A stack instead of recursion, because source may nest deeper than Python's own stack.
    owners = count(1)
    whole = Piece(0, len(lines))
    todo = _group(lines, whole, rules.children(root), owners, rules)[::-1] or [(whole, [])]
    pieces: list[Piece] = []
    while todo:
        piece, nodes = todo.pop()
        fits = lines.size(piece.start, piece.end) <= max_chars and not _cuts_off_head(lines, pieces, piece, max_chars)
        if fits and not any(map(rules.is_transparent, nodes)):
            pieces.append(piece)
        elif parts := _expand(lines, piece, nodes, owners, rules):
            todo.extend(reversed(parts))
        elif fits:
            pieces.append(piece)
        else:
            # Into halves or smaller, so that the text before or after can still join.
            pieces.extend(cut(lines, piece, max(1, max_chars // 2)))
    return pieces


def _cuts_off_head(lines: Lines, pieces: list[Piece], piece: Piece, max_chars: int) -> bool:
    """Return whether keeping `piece` whole would leave a definition's first line or two alone before it."""
    if not pieces or pieces[-1].owner != piece.owner or piece.owner == 0:
        return False
    head = pieces[-1]
    is_head = len(pieces) == 1 or pieces[-2].owner != head.owner
    is_tiny = lines.size(head.start, head.end) < TINY_CHARS
    return is_head and is_tiny and lines.size(head.start, piece.end) > max_chars


def _expand(lines: Lines, piece: Piece, nodes: list[Node], owners: count[int], rules: Syntax) -> list[_Part]:
    """Replace nodes by their children until the lines fall apart; [] if they never do."""
    while nodes:
        parts = _group(lines, piece, [inner for node in nodes for inner in _opened(node, rules)], owners, rules)
        if len(parts) != 1:
            return parts
        piece, nodes = parts[0]
    return []


def _opened(node: Node, rules: Syntax) -> list[Node]:
    """Return a node's children, with those of its body in the body's place."""
    body = node.child_by_field_name("body")
    if body is None:
        return rules.children(node)
    return [inner for child in node.children for inner in (child.children or [child] if child == body else [child])]


@dataclass(slots=True)
class _Group:
    """Nodes that share lines, or belong together.

    `first`, `last`: their lines; `nodes`: those that can be opened; `found`: the definitions among them; `is_leading`:
    all are comments and attributes, which belong to the node below.
    """

    first: int
    last: int = -1
    nodes: list[Node] = field(default_factory=list)
    found: list[Definition] = field(default_factory=list)
    is_leading: bool = True
    ends_in_attribute: bool = False

    def takes(self, node: Node, first: int, clause: str) -> bool:
        """Return whether a node belongs here: its text begins on line `first`, and may be a clause of that name."""
        if first <= self.last or self.ends_in_attribute or is_punctuation(node):
            return True
        if self.is_leading and first == self.last + 1:
            return True
        return bool(clause and self.found) and clause == self.found[-1].name


def _group(lines: Lines, outer: Piece, nodes: list[Node], owners: count[int], rules: Syntax) -> list[_Part]:
    """Gather nodes into runs of whole lines that cover `outer`: a comment goes with the node right below it."""
    groups: list[_Group] = []
    for node in nodes:
        first = lines.first_full[node.start_point[0]]
        end_row, end_column = node.end_point
        if first > end_row or node.start_byte == node.end_byte:
            continue  # white space, or a token that the parser missed
        definition = rules.definition_in(node)
        clause = definition.name if definition and rules.merges_clauses else ""
        if not groups or not groups[-1].takes(node, first, clause):
            groups.append(_Group(first))
        group = groups[-1]
        group.ends_in_attribute = rules.is_attribute(node)
        group.is_leading = group.is_leading and (group.ends_in_attribute or is_comment(node))
        # What stands on one line cannot be opened, and keeping it would make deep nesting quadratic.
        if end_row != first and node.child_count:
            group.nodes.append(node)
        if definition and definition.node.id != outer.node:
            group.found.append(definition)
        # A node that includes its newline ends at the start of the next line, of which it has nothing.
        last = end_row - 1 if end_column == 0 and end_row > first else end_row
        group.last = max(group.last, last)
    starts = [outer.start, *(group.first for group in groups[1:])]
    ends = [*starts[1:], outer.end]
    return [
        (_described(lines, outer, start, end, group.found, owners), group.nodes)
        for start, end, group in zip(starts, ends, groups, strict=False)
    ]


def _described(lines: Lines, outer: Piece, start: int, end: int, found: list[Definition], owners: count[int]) -> Piece:
    """Return the piece of some lines inside `outer`: a definition found there, or more of its content."""
    in_function = outer.kind in ("function", "method")
    if not found or (in_function and lines.size(start, end) < TINY_CHARS):
        loose = outer.kind in ("module", "class")
        return Piece(start, end, outer.symbol, outer.kind, outer.owner, loose, outer.node)
    main = max(found, key=lambda definition: definition.node.end_byte - definition.node.start_byte)
    symbol = f"{outer.symbol}.{main.name}" if outer.symbol else main.name
    if len(symbol) > MAX_SYMBOL_CHARS:  # without the outermost names
        symbol = symbol[-MAX_SYMBOL_CHARS:].partition(".")[2]
    if main.kind == "module":
        return Piece(start, end, symbol, "module", outer.owner, True, main.node.id)
    kind = "method" if main.kind == "function" and outer.kind == "class" else main.kind
    return Piece(start, end, symbol, kind, next(owners), False, main.node.id)
