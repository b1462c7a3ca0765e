"""Write docs/cli.md and docs/api.md from the code: `make reference`."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import FunctionType
from typing import Any

import typer

HERE = Path(__file__).parent
PACKAGE = "c2llm_integrations"
# Module → the heading of its part, in the order of the page.
MODULES = {
    "": "The package",
    "qdrant": "Qdrant",
    "milvus": "Milvus",
    "langchain": "LangChain",
    "llama_index": "LlamaIndex",
    "sentence_transformers": "sentence-transformers",
    "indexing.ray": "Ray",
}
# What a framework's base class asks for, and no user calls.
INHERITED = {"class_name", "model_post_init"}
NOTE = "<!-- Written by `make reference`; edit the code instead. -->\n"
# The sections of a docstring that become a list or a paragraph with a bold name.
_SECTION = re.compile(r"(Args|Returns|Raises|Yields|Attributes|Example):\s*$")
_ITEM = re.compile(r"    (\*{0,2}[\w.]+):\s+(.*)")


def cli() -> str:
    """Return the page of the command line."""
    from c2llm_integrations.cli.main import app

    group: Any = typer.main.get_command(app)
    context = group.make_context("c2llm", [], resilient_parsing=True)
    lines = [NOTE, "# Command line", ""]
    lines += ["Exit codes: 0 done, 1 refused or failed, 2 wrong command line, 130 interrupted, 143 terminated.", ""]
    for name in group.list_commands(context):
        command = group.commands[name]
        inner = type(context)(command, info_name=name, parent=context)
        usage = " ".join(command.collect_usage_pieces(inner))
        lines += [f"## c2llm {name}", "", f"`c2llm {name} {usage}`", ""]
        lines += [" ".join(part.split()) + "\n" for part in inspect.cleandoc(command.help or "").split("\n\n")]
        records = [parameter.get_help_record(inner) for parameter in command.params]
        rows = [record for record in records if record]
        lines += ["| option | meaning |", "|---|---|"]
        lines += [f"| `{_cell(option)}` | {_cell(meaning)} |" for option, meaning in rows]
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def api() -> str:
    """Return the page of the Python API."""
    lines = [NOTE, "# Python API", ""]
    for name, heading in MODULES.items():
        module = import_module(f"{PACKAGE}.{name}" if name else PACKAGE)
        lines += [f"## {heading}", "", f"`{module.__name__}`", ""]
        for public in _public(module):
            lines += _entry(public, getattr(module, public))
    return "\n".join(lines).rstrip() + "\n"


def _public(module: Any) -> list[str]:
    """Return a module's public names: its `__all__`, else what it defines, in the order of the source."""
    names = getattr(module, "__all__", None)
    if names is not None:
        return list(names)
    own = [(value.__module__, name) for name, value in vars(module).items() if isinstance(value, type | FunctionType)]
    return [name for home, name in own if home == module.__name__ and not name.startswith("_")]


def _entry(name: str, thing: Any) -> Iterator[str]:
    yield from (f"### {name}", "")
    is_class = inspect.isclass(thing)
    if not is_class or not issubclass(thing, BaseException):
        yield from (f"`{_signature(name, thing)}`", "")
    yield from (*_documented(thing.__doc__), "")
    if not is_class:
        return
    if isinstance(made := vars(thing).get("__init__"), FunctionType) and made.__doc__:
        yield from (*_documented(made.__doc__), "")
    for member, value in vars(thing).items():
        plain = value.__func__ if isinstance(value, classmethod | staticmethod) else value
        if (
            member.startswith("_")
            or member in INHERITED
            or not isinstance(plain, FunctionType | property)
            or not plain.__doc__
        ):
            continue
        yield from (f"#### {name}.{member}", "")
        if isinstance(plain, FunctionType):
            yield from (f"`{_signature(member, plain)}`", "")
        yield from (*_documented(plain.__doc__), "")


def _signature(name: str, thing: Any) -> str:
    """Return name(parameters) -> result as the source has them; of a model of pydantic only the fields of its own."""
    parts, kind = [], None
    signature = inspect.signature(thing)
    fields = _own_fields(thing)
    for one in signature.parameters.values():
        if one.name in ("self", "cls") or (fields is not None and one.name not in fields):
            continue
        if one.kind is one.KEYWORD_ONLY and kind not in (one.KEYWORD_ONLY, one.VAR_POSITIONAL):
            parts.append("*")
        kind = one.kind
        stars = {one.VAR_POSITIONAL: "*", one.VAR_KEYWORD: "**"}.get(kind, "")
        text = stars + one.name + (f": {_annotation(one.annotation)}" if one.annotation is not one.empty else "")
        if one.default is not one.empty:
            default = repr(one.default)
            text += f" = {'…' if default.startswith('<') else default}"
        parts.append(text)
    result = signature.return_annotation
    arrow = "" if inspect.isclass(thing) or result is signature.empty else f" -> {_annotation(result)}"
    return f"{name}({', '.join(parts)}){arrow}"


def _own_fields(thing: Any) -> set[str] | None:
    """Return what a model of pydantic calls the fields that it adds to its base classes; None for anything else."""
    if not hasattr(thing, "model_fields"):
        return None
    ours = [one for one in thing.__mro__ if one.__module__.startswith(PACKAGE)]
    own = {name for one in ours for name in inspect.get_annotations(one)}
    return {field.alias or name for name, field in thing.model_fields.items() if name in own}


def _annotation(annotation: Any) -> str:
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    return re.sub(
        r"\b(?:c2llm_integrations|langchain_core|llama_index|typing|collections|pathlib)(?:\.\w+)*\.(?=\w)", "", text
    )


def _documented(text: str | None) -> Iterator[str]:
    """Yield a docstring as Markdown: sections get bold names, their items become a list."""
    section = ""
    for line in inspect.cleandoc(text or "").splitlines():
        if found := _SECTION.match(line):
            section = found[1]
            yield from (f"**{section}**", "")
        elif section and (item := _ITEM.match(line)):
            yield f"- `{item[1]}`: {item[2]}"
        elif section and line.startswith("    "):
            yield line if section == "Example" else "  " + line.strip() if section != "Returns" else line.strip()
        else:
            section = section if not line else ""
            yield line


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


PAGES = {"cli.md": cli, "api.md": api}

if __name__ == "__main__":
    for page, make in PAGES.items():
        (HERE / page).write_text(make(), encoding="utf-8", newline="\n")
        sys.stdout.write(f"docs/{page}\n")
