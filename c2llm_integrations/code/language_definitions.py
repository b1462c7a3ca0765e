"""Find definitions in the trees of further grammars, and in the scripts of pages."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterable

from tree_sitter import Node, Query, QueryCursor, Range

from c2llm_integrations.code.definitions import Definition, Syntax, is_transparent, named, text_of
from c2llm_integrations.code.languages import grammar, inverted

_Reader = Callable[[Node], Definition | None]


def _child(node: Node, *types: str) -> Node | None:
    return next((child for child in node.named_children if child.type in types), None)


def _field_name(node: Node) -> str:
    """Return the text of the field `name`, of a generic type without its arguments."""
    name = node.child_by_field_name("name")
    return text_of(name).partition("<")[0] if name is not None and "type" in name.type else text_of(name)


def _reader(types: dict[str, str], name_of: Callable[[Node], str]) -> _Reader:
    """Read definitions whose kind follows from the node's type; `types`: kind → types."""
    kinds = inverted(types)
    return lambda node: named(node, name_of(node), kinds[node.type]) if node.type in kinds else None


def _is_one_of(*types: str) -> Callable[[Node], bool]:
    return lambda node: node.type in types


def _kotlin_name(node: Node) -> str:
    if node.type == "secondary_constructor":
        return "constructor"
    if node.type == "property_declaration":
        # A mere value defines nothing that is searched for by its name alone.
        has_code = _child(node, "getter", "setter", "lambda_literal", "anonymous_function")
        variable = _child(node, "variable_declaration") if has_code else None
        return text_of(variable and _child(variable, "identifier"))
    name = node.child_by_field_name("name")
    receiver = _child(node, "user_type", "nullable_type") if node.type == "function_declaration" else None
    if name is None or receiver is None or receiver.start_byte > name.start_byte:
        return text_of(name)
    return f"{re.split('[<?]', text_of(receiver))[0]}.{text_of(name)}"


_SCALA_KINDS = inverted(
    {
        "class": "class_definition object_definition trait_definition enum_definition given_definition package_object",
        "function": "function_definition function_declaration val_definition",
    }
)


def _scala(node: Node) -> Definition | None:
    body = node.child_by_field_name("body")
    if node.type == "extension_definition" and body is not None:
        node = body  # of one function
    if node.type == "val_definition":
        value = node.child_by_field_name("value")
        is_function = value is not None and value.type == "lambda_expression"
        name = text_of(node.child_by_field_name("pattern")) if is_function else ""
    else:
        name = _field_name(node) or text_of(node.child_by_field_name("return_type")).partition("[")[0]
    return named(node, name, _SCALA_KINDS[node.type]) if node.type in _SCALA_KINDS else None


def _swift_name(node: Node) -> str:
    if node.type == "property_declaration" and node.child_by_field_name("computed_value") is None:
        return ""
    fixed = {"init_declaration": "init", "deinit_declaration": "deinit", "subscript_declaration": "subscript"}
    return fixed.get(node.type) or _field_name(node)


_ELIXIR_CONTAINERS = {"defmodule": "module", "defprotocol": "class", "defimpl": "class"}
_ELIXIR_FUNCTIONS = frozenset(
    "def defp defmacro defmacrop defguard defguardp defdelegate defn defnp".split()  # noqa: SIM905
)
_ELIXIR_ATTRIBUTES = frozenset("doc spec impl typedoc deprecated since dialyzer tag".split())  # noqa: SIM905


def _elixir_target(node: Node | None) -> str:
    return text_of(node.child_by_field_name("target")) if node is not None and node.type == "call" else ""


def _elixir(node: Node) -> Definition | None:
    """Read an Elixir definition, which is always the call of a macro."""
    target = _elixir_target(node)
    arguments = _child(node, "arguments") if target in _ELIXIR_CONTAINERS or target in _ELIXIR_FUNCTIONS else None
    head = arguments.named_child(0) if arguments is not None else None
    if arguments is None or head is None:
        return None
    if target in _ELIXIR_CONTAINERS:
        pair = re.search(r"\bfor:\s*([\w.]+)", text_of(arguments)) if target == "defimpl" else None
        return named(node, text_of(head) + (f".{pair[1]}" if pair else ""), _ELIXIR_CONTAINERS[target])
    operator = head.child_by_field_name("operator")
    if operator is not None and operator.type == "when":
        head = head.child_by_field_name("left")
        operator = head and head.child_by_field_name("operator")
    return named(node, text_of(operator) or _elixir_target(head) or text_of(head))


def _is_elixir_attribute(node: Node) -> bool:
    operand = node.child_by_field_name("operand") if node.type == "unary_operator" else None
    return _elixir_target(operand) in _ELIXIR_ATTRIBUTES


def _lua(node: Node) -> Definition | None:
    if node.type == "variable_declaration":
        node = _child(node, "assignment_statement") or node
    name, value = node.child_by_field_name("name"), node.child_by_field_name("value")  # of a table's field
    if node.type == "assignment_statement":
        names, values = (_child(node, kind) for kind in ("variable_list", "expression_list"))
        is_one = names and values and names.named_child_count == values.named_child_count == 1
        name, value = (each.named_child(0) if each and is_one else None for each in (names, values))
    is_function = node.type == "function_declaration" or (value is not None and value.type == "function_definition")
    text = text_of(name) if is_function else ""
    if not re.fullmatch(r"[\w.:]+", text):  # t["any expression"]
        return None
    return named(node, text.replace(":", "."), "method" if ":" in text else "function")


_SQL_KINDS = inverted(
    {
        "function": "create_function create_procedure create_trigger",
        "class": "create_table create_view create_materialized_view create_type",
    }
)


def _sql(node: Node) -> Definition | None:
    inner = _child(node, *_SQL_KINDS) if node.type == "statement" else node
    if inner is None or inner.type not in _SQL_KINDS:
        return None
    return named(inner, re.sub(r'["`\[\]]', "", text_of(_child(inner, "object_reference"))), _SQL_KINDS[inner.type])


_ZIG_TYPES = ("struct_declaration", "enum_declaration", "union_declaration", "opaque_declaration")


def _zig(node: Node) -> Definition | None:
    if node.type == "variable_declaration":
        return named(node, text_of(_child(node, "identifier")), "class") if _child(node, *_ZIG_TYPES) else None
    if node.type == "test_declaration":
        return named(node, text_of(_child(node, "string", "identifier")).strip('"'))
    return named(node, _field_name(node)) if node.type == "function_declaration" else None


def _haskell_name(node: Node) -> str:
    name = text_of(node.child_by_field_name("name"))
    if node.type == "instance":
        types = re.search(r"\b[A-Z][\w.]*", text_of(node.child_by_field_name("patterns")))
        return f"{name}.{types[0]}" if types else name
    infix = _child(node.child_by_field_name("parens") or node, "infix")  # (f . g) x = …
    return name or text_of(infix and infix.child_by_field_name("operator")).strip("`")


def _haskell_children(node: Node) -> list[Node]:
    # The comment on the first function stands among the imports.
    flat = ("imports", "declarations")
    return [inner for child in node.children for inner in (child.children if child.type in flat else [child])]


_OCAML_VALUES = ("fun_expression", "function_expression")
_OCAML_NAMES = {
    "module_binding": ("module_name", "module"),
    "module_type_definition": ("module_type_name", "class"),
    "class_binding": ("class_name", "class"),
    "class_type_binding": ("class_type_name", "class"),
    "method_definition": ("method_name", "method"),
    "external": ("value_name", "function"),
    "value_specification": ("value_name", "function"),
}


def _ocaml(node: Node) -> Definition | None:
    """Name OCaml bindings joined by `and` after the first one."""
    if node.type in ("value_definition", "module_definition", "type_definition", "class_definition"):
        node = _child(node, "let_binding", "module_binding", "type_binding", "class_binding") or node
    if node.type == "let_binding":
        body = node.child_by_field_name("body")
        is_function = _child(node, "parameter") or (body is not None and body.type in _OCAML_VALUES)
        pattern = node.child_by_field_name("pattern")
        return named(node, text_of(pattern).strip("( )")) if is_function else None
    if node.type == "type_binding":
        return named(node, _field_name(node), "class")
    name_type, kind = _OCAML_NAMES.get(node.type, ("", ""))
    return named(node, text_of(_child(node, name_type)).strip("( )"), kind) if kind else None


_JULIA_KINDS = inverted(
    {
        "function": "function_definition macro_definition assignment",
        "class": "struct_definition abstract_definition primitive_definition",
        "module": "module_definition",
    }
)
_JULIA_HEADS = ("signature", "typed_expression", "where_expression", "type_head", "parametrized_type_expression")
_JULIA_VALUES = ("arrow_function_expression", "function_definition")
# That are looked through; more in a row are not code.
_JULIA_MACROS = 4


def _julia(node: Node) -> Definition | None:
    for _ in range(_JULIA_MACROS):  # @inline function …
        arguments = _child(node, "macro_argument_list") if node.type == "macrocall_expression" else None
        inner = arguments.named_child(arguments.named_child_count - 1) if arguments else None
        node = inner or (_child(node, "assignment") if node.type == "const_statement" else None) or node
    kind = _JULIA_KINDS.get(node.type)
    if kind is None:
        return None
    head: Node | None = node.child_by_field_name("name") or node.named_child(0)
    while head is not None and (head.type in _JULIA_HEADS or (kind == "class" and head.type == "binary_expression")):
        head = head.named_child(0)
    if head is not None and head.type == "call_expression":
        head = head.named_child(0)
    elif node.type == "assignment":
        head = head if node.named_children[-1].type in _JULIA_VALUES else None
    is_name = head is not None and head.type in ("identifier", "field_expression", "operator")
    return named(node, text_of(head) if is_name else "", kind)


# ---- the scripts inside a page, which are read by the grammar of their own language

PAGES = frozenset(("html", "vue", "svelte"))
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


# The languages whose trees are read differently from those of the base install. A shell's are not.
SYNTAX: dict[str, Syntax] = {
    "kotlin": Syntax(
        _reader(
            {
                "class": "class_declaration object_declaration companion_object",
                "function": "function_declaration secondary_constructor property_declaration",
            },
            _kotlin_name,
        ),
        lambda node: node.type == "companion_object" and node.child_by_field_name("name") is None,
    ),
    "scala": Syntax(_scala, _is_one_of("package_clause", "extension_definition")),
    "swift": Syntax(
        _reader(
            {
                "class": "class_declaration protocol_declaration",
                "function": "function_declaration init_declaration deinit_declaration subscript_declaration"
                " property_declaration protocol_function_declaration",
            },
            _swift_name,
        ),
        _is_one_of(),
    ),
    "elixir": Syntax(
        _elixir, lambda node: _elixir_target(node) == "defmodule", _is_elixir_attribute, merges_clauses=True
    ),
    "lua": Syntax(_lua, _is_one_of()),
    "sql": Syntax(_sql, _is_one_of("transaction")),
    "zig": Syntax(_zig, _is_one_of()),
    "haskell": Syntax(
        _reader(
            {"function": "function bind", "class": "data_type newtype type_synonym class instance type_family"},
            _haskell_name,
        ),
        _is_one_of(),
        _is_one_of("signature"),
        _haskell_children,
        merges_clauses=True,
    ),
    "ocaml": Syntax(_ocaml, _is_one_of("module_definition")),
    "julia": Syntax(_julia, _is_one_of("module_definition"), _is_one_of("string_literal", "prefixed_string_literal")),
}
