"""HTML, Vue and Svelte: the scripts inside a page are read by the grammar of their own language."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable

from tree_sitter import Node, Query, QueryCursor, Range

from c2llm_integrations.code.definitions import Syntax, is_transparent, text_of
from c2llm_integrations.code.languages import grammar

LANGUAGES = frozenset(("html", "vue", "svelte"))
# What `lang` and `type` of a script say → language; other scripts are data or templates.
_SCRIPTS = {
    **dict.fromkeys(("", "js", "jsx", "javascript", "module", "text/javascript"), "javascript"),
    **dict.fromkeys(("application/javascript", "text/babel", "text/jsx"), "javascript"),
    **dict.fromkeys(("ts", "typescript", "text/typescript"), "typescript"),
    "tsx": "tsx",
}


def scripts(language: str, root: Node) -> dict[str, list[Range]]:
    """Return where the scripts of a page stand, by their language."""
    found: dict[str, list[Range]] = {}
    rules = grammar(language)
    assert rules is not None
    elements = QueryCursor(Query(rules, "(script_element) @script")).captures(root).get("script", [])
    for element in sorted(elements, key=lambda node: node.start_byte):
        raw = next((child for child in element.named_children if child.type == "raw_text"), None)
        kind = _SCRIPTS.get(_kind(element.named_children[0]))
        if raw is not None and kind is not None:
            found.setdefault(kind, []).append(Range(raw.start_point, raw.end_point, raw.start_byte, raw.end_byte))
    return found


def _kind(start_tag: Node) -> str:
    """Return what a tag's `lang`, else its `type`, says; "" without either."""
    said = {"lang": "", "type": ""}
    for attribute in start_tag.named_children:
        name, equals, value = text_of(attribute).partition("=")
        if equals:
            said[name.strip().lower()] = value.strip().strip("\"'").lower()
    return said["lang"] or said["type"]


def syntax_of(programs: Iterable[Node]) -> Syntax:
    """Return how to read a page of these scripts' trees: they stand for the text of their elements."""
    nodes = sorted((node for program in programs for node in program.children), key=lambda node: node.start_byte)
    starts = [node.start_byte for node in nodes]

    def inside(node: Node) -> list[Node]:
        return nodes[bisect_left(starts, node.start_byte) : bisect_left(starts, node.end_byte)]

    def children(node: Node) -> list[Node]:
        if node.type != "script_element":
            return node.children
        return [inner for child in node.children for inner in (inside(child) or [child])]

    def contains_script(node: Node) -> bool:
        at = bisect_left(starts, node.start_byte)
        return node.type in ("element", "script_element") and at < len(starts) and starts[at] < node.end_byte

    return Syntax(
        is_transparent=lambda node: contains_script(node) or is_transparent(node),
        # A tag that opens goes with what follows it.
        is_attribute=lambda node: node.type == "start_tag",
        children=children,
    )
