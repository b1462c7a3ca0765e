"""Find definitions in syntax trees: in one way for the grammars of the base install, else as a `Syntax` says."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter

from tree_sitter import Node

# Kind → node types, over all grammars of the base install at once: no two use one name for things that must be told
# apart here.
_TYPES = {
    "function": (
        *("function_definition", "function_declaration", "generator_function_declaration", "function_item"),
        *("function_signature", "local_function_statement", "macro_definition", "preproc_function_def"),
        *("method", "singleton_method"),
    ),
    "method": (
        *("method_definition", "method_declaration", "constructor_declaration", "destructor_declaration"),
        *("compact_constructor_declaration", "operator_declaration", "conversion_operator_declaration"),
    ),
    "class": (
        *("class_definition", "class_declaration", "abstract_class_declaration", "class", "class_specifier"),
        *("struct_specifier", "union_specifier", "enum_specifier", "type_definition", "struct_item"),
        *("enum_item", "union_item", "trait_item", "impl_item", "struct_declaration", "enum_declaration"),
        *("interface_declaration", "record_declaration", "trait_declaration", "annotation_type_declaration"),
        *("delegate_declaration", "type_spec", "type_alias_declaration"),
    ),
    "module": ("namespace_definition", "mod_item", "internal_module", "module"),
}
_KINDS = {node_type: kind for kind, node_types in _TYPES.items() for node_type in node_types}
# These define something only with a body; without one they declare, or use, what stands elsewhere.
_NEED_BODY = {
    *("class_specifier", "struct_specifier", "union_specifier", "enum_specifier"),
    *("namespace_definition", "mod_item"),
}
# Kept with the one definition they wrap, which gives the name.
_WRAPPERS = {
    *("decorated_definition", "export_statement", "template_declaration", "expression_statement"),
    *("ambient_declaration", "type_declaration", "lexical_declaration", "variable_declaration"),
    *("declaration", "field_declaration", "linkage_specification"),
}
# Mere containers: their members are taken one by one, however small the whole is.
_TRANSPARENT = {
    *("namespace_definition", "namespace_declaration", "mod_item", "internal_module", "module"),
    *("linkage_specification", "preproc_if", "preproc_ifdef", "singleton_class"),
}
# Node type → fields of (name, value): a function or class that is bound to a name is defined there.
_BINDERS = {
    "variable_declarator": ("name", "value"),
    "assignment_expression": ("left", "right"),
    "pair": ("key", "value"),
    "public_field_definition": ("name", "value"),
    "field_definition": ("property", "value"),
}
_VALUES = {
    "arrow_function": "function",
    "function_expression": "function",
    "generator_function": "function",
    "class": "class",
}
_ATTRIBUTES = frozenset(("attribute_item", "decorator", "attribute_declaration"))
_PUNCTUATION = frozenset(("{", "}", "(", ")", "[", "]", ";", ",", ":", "end", "then", "do", "begin", "#endif"))
# Longer ones are expressions, not names.
MAX_NAME = 120
# The same with template arguments. Each of many nested nodes may be asked for its name, so reading it must be cheap.
_MAX_NAME_BYTES = 2_000
# Wrappers around one definition, such as `export`, a decorator and `template<…>`: each level asks for all within.
MAX_WRAPPERS = 16


@dataclass(frozen=True, slots=True)
class Definition:
    """A named function, method, class or module; `node` is the syntax node that carries the name."""

    node: Node
    name: str
    kind: str


def is_comment(node: Node) -> bool:
    """Return whether a node is a comment, of any grammar."""
    return "comment" in node.type or node.type == "haddock"


def is_attribute(node: Node) -> bool:
    """Return whether a node decorates the one after it."""
    return node.type in _ATTRIBUTES


def is_punctuation(node: Node) -> bool:
    """Return whether a node only opens or closes a block, and so belongs to what precedes it."""
    return node.type in _PUNCTUATION and not node.is_named


def is_transparent(node: Node) -> bool:
    """Return whether a node is a mere container, such as a namespace or a header's include guard."""
    inner = _inner(node) if node.type in ("expression_statement", "export_statement", "ambient_declaration") else node
    return inner is not None and inner.is_named and inner.type in _TRANSPARENT


def definition_in(node: Node) -> Definition | None:
    """Return what a node defines, looking through exports, decorators, templates and assignments."""
    current: Node | None = node
    for _ in range(MAX_WRAPPERS):
        if current is None or not current.is_named:
            return None
        kind = _KINDS.get(current.type)
        if kind:
            return _defined(current, _name(current), kind)
        if current.type in _BINDERS:
            return _binding(current)
        current = _inner(current) if current.type in _WRAPPERS else None
    return None


def _defined(node: Node, name: str, kind: str | None) -> Definition | None:
    is_method = kind == "function" and "." in name  # defined outside its class: C++, JavaScript prototypes
    return named(node, name, "method" if is_method else kind) if kind else None


def named(node: Node | None, name: str, kind: str = "function") -> Definition | None:
    """Return a definition of this name; None if the name is empty, too long or has several lines."""
    is_name = bool(name) and len(name) <= MAX_NAME and "\n" not in name
    return Definition(node, name, kind) if node is not None and is_name else None


def _inner(wrapper: Node) -> Node | None:
    """Return the only child that may define something, None if there are several."""
    known = [
        child
        for child in wrapper.named_children
        if child.type in _KINDS or child.type in _BINDERS or child.type in _WRAPPERS or child.type in _TRANSPARENT
    ]
    return known[0] if len(known) == 1 else None


def _binding(node: Node) -> Definition | None:
    name_field, value_field = _BINDERS[node.type]
    target, value = node.child_by_field_name(name_field), node.child_by_field_name(value_field)
    if target is None or value is None:
        return None
    kind = _VALUES.get(value.type) or _wrapped_kind(value)
    name = re.sub(r"^(?:module\.)?exports\.|^this\.", "", text_of(target).strip("\"'`")).replace(".prototype.", ".")
    return _defined(node, name, kind)


def _wrapped_kind(value: Node) -> str | None:
    """Return the kind of a function passed to a plain call: in `const Row = memo(() => …)` the name stands for it."""
    callee, arguments = value.child_by_field_name("function"), value.child_by_field_name("arguments")
    if value.type != "call_expression" or callee is None or callee.type != "identifier" or arguments is None:
        return None
    return next((_VALUES[child.type] for child in arguments.named_children if child.type in _VALUES), None)


def _name(node: Node) -> str:
    """Return the name a definition carries, parts joined by ".", or "" if it is not worth finding."""
    if node.type in _NEED_BODY and node.child_by_field_name("body") is None:
        return ""
    named = node.child_by_field_name("name")
    if node.type == "impl_item":
        name = _type_name(node.child_by_field_name("type"))
    elif node.type == "method_declaration" and (receiver := node.child_by_field_name("receiver")):
        types = [child.child_by_field_name("type") for child in receiver.named_children]
        name = f"{_type_name(types[0] if types else None)}.{text_of(named)}".lstrip(".")
    elif node.type == "type_definition":
        defined = node.child_by_field_name("type")
        has_body = defined is not None and defined.child_by_field_name("body") is not None
        name = text_of(node.child_by_field_name("declarator")) if has_body else ""
    elif node.type == "operator_declaration":
        name = "operator" + text_of(node.child_by_field_name("operator"))
    elif node.type == "conversion_operator_declaration":
        name = "operator " + text_of(node.child_by_field_name("type"))
    elif named is None:
        name = _declared_name(node.child_by_field_name("declarator"))
    elif named.type == "namespace_name":  # PHP: a package, as in Java and C#, is not part of the symbol
        name = ""
    else:
        name = "~" * (node.type == "destructor_declaration") + text_of(named).strip("\"'")
    return name.replace("::", ".").strip()


def _declared_name(declarator: Node | None) -> str:
    """Return the name inside a C or C++ declarator, without template arguments."""
    while declarator is not None and declarator.type.endswith("_declarator"):
        inner = declarator.child_by_field_name("declarator")
        if inner is None and declarator.type == "reference_declarator":
            inner = declarator.named_children[-1]
        declarator = inner
    before, operator, after = text_of(declarator).partition("operator")
    before = _without_arguments(before)
    if operator:
        call = after.lstrip().startswith("(")
        after = "()" if call else after.partition("(")[0]
    return before + operator + after


def _without_arguments(name: str) -> str:
    """Drop what stands between "<" and its ">", however deep."""
    kept: list[str] = []
    opened: list[int] = []
    for char in name:
        kept.append(char)
        if char == "<":
            opened.append(len(kept) - 1)
        elif char == ">" and opened:
            del kept[opened.pop() :]
    return "".join(kept)


def _type_name(node: Node | None) -> str:
    """Return the bare name of a Go receiver's or Rust impl's type: no pointer, path or arguments."""
    words = re.findall(r"\w+", re.split(r"[<\[]", text_of(node).lstrip("*&[ "))[0])
    return words[-1] if words else ""


def text_of(node: Node | None) -> str:
    """Return the source of a node that may be a name; "" for one that is too long."""
    if node is None or node.end_byte - node.start_byte > _MAX_NAME_BYTES:
        return ""
    return (node.text or b"").decode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class Syntax:
    """The rules to read one grammar's trees; by default those of the base install.

    `children`: the nodes that take a node's place where it is opened; `merges_clauses`: definitions of one name in a
    row are one, as the equations of a Haskell function.
    """

    definition_in: Callable[[Node], Definition | None] = definition_in
    is_transparent: Callable[[Node], bool] = is_transparent
    is_attribute: Callable[[Node], bool] = is_attribute
    children: Callable[[Node], list[Node]] = attrgetter("children")
    merges_clauses: bool = False
