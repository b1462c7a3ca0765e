"""Find the values of Kubernetes' Secrets, whatever their keys: in YAML, Helm's templates, JSON and Terraform."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

_Span = tuple[int, int]

_KIND = re.compile(r"\bkind\\?[\"']?[ \t]{0,3}:[ \t]{0,3}\\?[\"']?Secret(?![\w-])")
# The same in Terraform, which begins a block.
_DECLARED = re.compile(r"(?:resource|data)[ \t]+\"(kubernetes_secret(?:_v\d)?\")?")
# A line of text, and one with a key: what stands before it, the key, and where its value begins.
_LINE = re.compile(r"[^\r\n]+")
_KEY = re.compile(
    r"([ \t]*(?:[-{\[][ \t]+)*)(\"[^\"]{1,253}\"|'[^']{1,253}'|[\w./-]{1,253})[ \t]*[:=](?=[ \t]|$)[ \t]*"
)
# The data between braces on one line, and a value in them.
_BRACES = re.compile(r"\b(?:stringData|data)\\?[\"']?[ \t]{0,3}:[ \t]{0,3}\{([^{}\n]*)\}")
_VALUE = re.compile(r":[ \t]{0,8}(?:\"((?:[^\"\\\n]|\\.)*)\"|'([^'\n]*)'|\\\"([^\"\\\n]*)\\\"|([^\s,{}\"'\\]+))")
# Variables of templates and shells, and YAML's signs.
_VARIABLE = re.compile(r"\{\{|\$[({]|^[<*&]|^\$\w+$|^\{.*\}$")


@dataclass(slots=True)
class _Object:
    """A mapping that is being read: the column of its keys, and the values below its data."""

    column: int
    is_secret: bool = False
    in_data: bool = False
    found: list[_Span] = field(default_factory=list)


def find_manifest_secrets(text: str) -> Iterator[_Span]:
    """Yield where each value of a Secret begins and ends."""
    if not ("Secret" in text and _KIND.search(text)) and '"kubernetes_secret' not in text:
        return
    objects: list[_Object] = []
    is_declared = False
    for line in _LINE.finditer(text):
        content = line[0].lstrip(" \t")
        if not content or content.startswith(("#", "{{", "//")):
            continue
        if _KIND.search(line[0]):
            for data in _BRACES.finditer(text, line.start(), line.end()):
                yield from _values(text, *data.span(1))
        indent = len(line[0]) - len(content)
        if declared := _DECLARED.match(content):
            is_declared = declared[1] is not None
        while objects and (objects[-1].column > indent or content.startswith(("---", "..."))):
            ended = objects.pop()
            yield from ended.found if ended.is_secret else ()
        if objects and objects[-1].column < indent and objects[-1].in_data:
            objects[-1].found += _below(text, line.start() + indent, line.end())
        elif key := _KEY.match(line[0]):
            if not objects or objects[-1].column < key.end(1):
                objects.append(_Object(key.end(1), is_declared))
            _read(objects[-1], key[2].strip("\"'"), text, line.start() + key.end(), line.end())
    for ended in objects:
        yield from ended.found if ended.is_secret else ()


def _read(mapping: _Object, key: str, text: str, start: int, end: int) -> None:
    """Take a key of a mapping and its value, which stands at `start` and ends before `end`."""
    mapping.in_data = key in ("data", "stringData")
    if key == "kind":
        mapping.is_secret = text[start:end].partition("#")[0].strip(" \t\"',") == "Secret"
    elif mapping.in_data and text.startswith("{", start):
        mapping.found += _values(text, start, end)


def _values(text: str, start: int, end: int) -> Iterator[_Span]:
    """Yield the values of a mapping in braces."""
    for value in _VALUE.finditer(text, start, end):
        yield from _kept(text, *value.span(value.lastindex or 0))


def _below(text: str, start: int, end: int) -> Iterator[_Span]:
    """Yield the value of a line below the data: what follows its key, or all of a line that continues one."""
    if key := _KEY.match(text, start, end):
        start = key.end()
    if text.startswith("!", start):  # a tag
        start = text.find(" ", start, end) % (end + 1) + 1
    quote = text[start : start + 1]
    if quote and quote in "\"'" and (stop := text.find(quote, start + 1, end)) > 0:
        yield from _kept(text, start + 1, stop)
    elif quote not in ("|", ">"):
        value = text[start:end].partition(" #")[0].rstrip(" \t,")
        yield from _kept(text, start, start + len(value))


def _kept(text: str, start: int, end: int) -> Iterator[_Span]:
    """Yield a value unless it is empty, a variable or the name of one."""
    if start < end and not _VARIABLE.search(text[start:end]) and text[start:end] not in "{}[]":
        yield start, end
