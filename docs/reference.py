"""Write docs/cli.md and docs/api.md from the code: `make reference`."""

from __future__ import annotations

import inspect
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
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
# What a base class asks for, and no user calls: its framework does, or `open_store` and `c2llm collections`.
INHERITED = {"class_name", "model_post_init", "open", "list_collections", "forward", "preprocess"}
# An option that at least so many commands have with the same meaning is explained once.
SHARED_BY = 3
# A longer default is not shown: it says less than the docstring.
DEFAULT_CHARS = 200
NOTE = "<!-- Written by `make reference`; edit the code instead. -->\n"
# The sections of a docstring that become a list or a paragraph with a bold name.
_SECTION = re.compile(r"(Args|Returns|Raises|Yields|Warns|Attributes|Example):\s*$")
# The whole docstring of a method that only awaits another.
_AWAITED = re.compile(r"(?:Await|Run) `(\w+)`(?: without blocking the event loop| in another thread)?\.")
_ITEM = re.compile(r"    (\*{0,2}[\w.]+):\s+(.*)")


def cli() -> str:
    """Return the page of the command line."""
    from c2llm_integrations.cli.main import app

    group: Any = typer.main.get_command(app)
    context = group.make_context("c2llm", [], resilient_parsing=True)
    lines = [NOTE, "# Command line", ""]
    lines += ["Exit codes: 0 done, 1 refused or failed, 2 wrong command line, 130 interrupted, 143 terminated.", ""]
    rows = {}
    for name in group.list_commands(context):
        inner = type(context)(group.commands[name], info_name=name, parent=context)
        records = [parameter.get_help_record(inner) for parameter in group.commands[name].params]
        rows[name] = inner, [(_cell(option), _cell(meaning)) for option, meaning in filter(None, records)]
    counts = Counter(row for _, own in rows.values() for row in own)
    shared = [row for row, count in counts.items() if count >= SHARED_BY]
    for name, (inner, own) in rows.items():
        usage = " ".join(inner.command.collect_usage_pieces(inner))
        lines += [f"## c2llm {name}", "", f"`c2llm {name} {usage}`", ""]
        lines += [" ".join(part.split()) + "\n" for part in inspect.cleandoc(inner.command.help or "").split("\n\n")]
        lines += _options([row for row in own if row not in shared])
        if also := [f"`{option.split()[0]}`" for option, meaning in own if (option, meaning) in shared]:
            lines += [f"[Shared options](#shared-options): {', '.join(also)}.", ""]
    lines += ["## Shared options", "", *_options(shared)]
    return "\n".join(lines).rstrip() + "\n"


def _options(rows: Sequence[tuple[str, str]]) -> list[str]:
    """Return the table of options and their meanings, and a blank line; nothing for no options."""
    head = ["| option | meaning |", "|---|---|"]
    return [*head, *(f"| `{option}` | {meaning} |" for option, meaning in rows), ""] if rows else []


def api() -> str:
    """Return the page of the Python API."""
    lines = [NOTE, "# Python API", ""]
    for name, heading in MODULES.items():
        module = import_module(f"{PACKAGE}.{name}" if name else PACKAGE)
        lines += [f"## {heading}", "", f"`{module.__name__}`", ""]
        things = {public: getattr(module, public) for public in _public(module)}
        errors = {public: one for public, one in things.items() if inspect.isclass(one) and issubclass(one, Exception)}
        for public, thing in things.items():
            if public not in errors:
                lines += _entry(public, thing)
        if errors:
            lines += ["### Errors", "", "| error | is a | meaning |", "|---|---|---|"]
            for public, one in errors.items():
                bases = ", ".join(f"`{base.__name__}`" for base in one.__bases__)
                lines.append(f"| `{public}` | {bases} | {_cell(inspect.cleandoc(one.__doc__))} |")
            lines.append("")
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
    yield from (f"`{_signature(name, thing)}`", "", *_documented(thing.__doc__), "")
    if not inspect.isclass(thing):
        return
    if isinstance(made := vars(thing).get("__init__"), FunctionType) and made.__doc__:
        yield from (*_documented(made.__doc__), "")
    awaited = []
    for member, value in vars(thing).items():
        plain = value.__func__ if isinstance(value, classmethod | staticmethod) else value
        if member.startswith("_") or member in INHERITED or not _is_ours(plain):
            continue
        if found := _AWAITED.fullmatch(plain.__doc__ or ""):
            awaited.append(f"`{member}`" if member == f"a{found[1]}" else f"`{member}` (of `{found[1]}`)")
            continue
        yield from (f"#### {name}.{member}", "")
        if isinstance(plain, FunctionType):
            yield from (f"`{_signature(member, plain)}`", "")
        yield from (*_documented(plain.__doc__), "")
    if awaited:
        yield from (f"Async counterparts, which never block the event loop: {', '.join(awaited)}.", "")


def _is_ours(member: Any) -> bool:
    """Return whether a member has a docstring of this package: a framework may wrap its own methods in a subclass."""
    inner = member.fget if isinstance(member, property) else member
    return isinstance(inner, FunctionType) and inner.__module__.startswith(PACKAGE) and bool(member.__doc__)


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
            text += f" = {'…' if default.startswith('<') or len(default) > DEFAULT_CHARS else default}"
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
