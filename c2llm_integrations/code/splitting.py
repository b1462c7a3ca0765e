"""A syntax tree → pieces of whole lines: definitions that fit, and the statements of those that do not."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count

from tree_sitter import Node

from c2llm_integrations.code import syntax
from c2llm_integrations.code.lines import TINY_CHARS, Lines, Piece, cut

# A piece, and the syntax nodes in it that have several lines and so can be opened.
_Part = tuple[Piece, list[Node]]


def split(lines: Lines, root: Node, max_chars: int) -> list[Piece]:
    """Cut a file along its syntax tree; the pieces cover every line, in order, and may still be joined.

    A node that is too large gives way to its children; text without any is cut by lines.
    """
    # A stack instead of recursion, because source may nest deeper than Python's own stack.
    owners = count(1)
    whole = Piece(0, len(lines))
    todo = _group(lines, whole, root.children, owners)[::-1] or [(whole, [])]
    pieces: list[Piece] = []
    while todo:
        piece, nodes = todo.pop()
        fits = lines.size(piece.start, piece.end) <= max_chars and not _cuts_off_head(lines, pieces, piece, max_chars)
        if fits and not any(map(syntax.is_transparent, nodes)):
            pieces.append(piece)
        elif parts := _expand(lines, piece, nodes, owners):
            todo.extend(reversed(parts))
        elif fits:
            pieces.append(piece)
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


def _expand(lines: Lines, piece: Piece, nodes: list[Node], owners: count[int]) -> list[_Part]:
    """Replace nodes by their children until the lines fall apart; [] if they never do."""
    while nodes:
        parts = _group(lines, piece, [inner for node in nodes for inner in _opened(node)], owners)
        if len(parts) != 1:
            return parts
        piece, nodes = parts[0]
    return []


def _opened(node: Node) -> list[Node]:
    """Return a node's children, with those of its body in the body's place."""
    body = node.child_by_field_name("body")
    if body is None:
        return node.children
    return [inner for child in node.children for inner in (child.children or [child] if child == body else [child])]


@dataclass(slots=True)
class _Group:
    """Nodes that share lines, or belong together: where they start, which can be opened, what they define."""

    start: int
    nodes: list[Node] = field(default_factory=list)
    found: list[syntax.Definition] = field(default_factory=list)


def _group(lines: Lines, outer: Piece, nodes: list[Node], owners: count[int]) -> list[_Part]:
    """Gather nodes into runs of whole lines that cover `outer`: a comment goes with the node right below it."""
    groups: list[_Group] = []
    last, leading, attribute = -1, False, False
    for node in nodes:
        row, column = node.end_point
        first = lines.next_full(node.start_point[0])
        if first > row or node.start_byte == node.end_byte:
            continue  # white space, or a token that the parser missed
        attached = attribute or (leading and first <= last + 1) or syntax.is_punctuation(node)
        if not groups or not (first <= last or attached):
            groups.append(_Group(first))
            leading = True
        attribute = syntax.is_attribute(node)
        leading = leading and (attribute or syntax.is_comment(node))
        # What stands on one line cannot be opened, and keeping it would make deep nesting quadratic.
        if row != first and node.child_count:
            groups[-1].nodes.append(node)
        if (definition := syntax.definition_in(node)) and definition.node.id != outer.node:
            groups[-1].found.append(definition)
        last = max(last, row - (column == 0 and row > first))
    starts = [outer.start, *(group.start for group in groups[1:])]
    ends = [*starts[1:], outer.end]
    return [
        (_described(lines, outer, start, end, group.found, owners), group.nodes)
        for start, end, group in zip(starts, ends, groups, strict=False)
    ]


def _described(
    lines: Lines, outer: Piece, start: int, end: int, found: list[syntax.Definition], owners: count[int]
) -> Piece:
    """Return the piece of some lines inside `outer`: a definition found there, or more of its content."""
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
