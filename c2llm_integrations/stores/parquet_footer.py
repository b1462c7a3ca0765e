"""The footer of a Parquet file, and headers of its pages, read without trusting a byte of them.

pyarrow ends the process when it is asked for a damaged column of a footer, and its readers take what a header says on
faith. So the few numbers that decide how much memory a file takes are read here, in Thrift's compact protocol.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from c2llm_integrations.errors import InputError

# Bytes of a footer, and more in a large file: one of few bytes takes 230 times as much memory.
MAX_FOOTER_BYTES, MAX_FOOTER_SHARE = 2**21, 1 / 8
# Columns, of which each takes kilobytes however few rows there are.
MAX_COLUMNS = 10_000
# Bytes of a page's header, as pyarrow has it.
_MAX_HEADER_BYTES = 2**24
# Kinds of fields.
_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = range(1, 13)
_BITS = {_I16: 16, _I32: 32, _I64: 64}
# What reading something else than Thrift raises.
NOT_THRIFT = (IndexError, KeyError, TypeError, ValueError, AttributeError, RecursionError)
_REPEATED, _UTF8, _STRING = 2, 0, 1
_PHYSICAL_BYTE_ARRAY = 6


@dataclass(frozen=True)
class Leaf:
    """A column of values: its path, the bytes of a value if they are fixed, whether it lies in a list.

    `is_binary`: values have any number of bytes; `is_text`: and are texts, or nothing says what they are.
    """

    path: str
    width: int
    is_binary: bool
    is_text: bool
    is_nested: bool


@dataclass(frozen=True)
class Chunk:
    """Where the pages of a column in one row group lie, by which codec they are packed, how many values they have."""

    leaf: Leaf
    start: int
    size: int
    codec: int
    values: int


class Footer:
    """The columns of a file, and of each row group the chunks."""

    def __init__(self, file: Path) -> None:
        """Raises InputError for a footer that is too large, has too many columns, or cannot be read."""
        self._file = file
        self._data = _footer_of(file)
        try:
            schema, self._groups = _positions(self._data)
            self.leaves = list(_leaves(schema))
        except NOT_THRIFT as error:
            raise unreadable(file, "its footer") from error
        if not self.leaves:
            raise InputError(f"{file} has no columns; name a file of records")
        if len(self.leaves) > MAX_COLUMNS:
            raise InputError(f"{file} has {len(self.leaves):,} columns, at most {MAX_COLUMNS:,} are read; keep fewer")

    def chunks(self, group: int) -> list[Chunk]:
        """Return the columns of a row group, in the order of the leaves."""
        try:
            columns = struct_at(self._data, self._groups[group])[0][1]
            return [_chunk(leaf, column) for leaf, column in zip(self.leaves, columns, strict=True)]
        except NOT_THRIFT as error:
            raise unreadable(self._file, f"row group {group}") from error


def unreadable(file: Path, what: str) -> InputError:
    """Return the error for a part of a file that is damaged."""
    return InputError(f"{file} is not a readable Parquet file ({what} is damaged); write it again")


def require_small_footer(file: Path) -> None:
    """Raise InputError for a file whose footer would take more memory than its size explains."""
    _footer_of(file, read=False)


def _footer_of(file: Path, *, read: bool = True) -> bytes:
    with open(file, "rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, size - 8))
        footer = int.from_bytes(stream.read(4), "little")
        most = int(MAX_FOOTER_BYTES + size * MAX_FOOTER_SHARE)
        if most < footer <= size:  # a larger one is none at all, which the reader says better
            raise InputError(
                f"{file} has a footer of {footer:,} bytes, at most {most:,} are read; "
                "write fewer columns or larger row groups"
            )
        stream.seek(max(0, size - 8 - footer))
        return stream.read(footer) if read else b""


def _positions(data: bytes) -> tuple[list[dict[int, Any]], list[int]]:
    """Return the elements of the schema, and where each row group begins."""
    schema: list[dict[int, Any]] = []
    groups: list[int] = []
    seen: set[int] = set()
    for number, kind, start in _fields(data, 0, seen):
        if number not in (2, 4):
            continue
        count, inner, at = _list_at(data, start)
        if kind != _LIST or inner != _STRUCT:
            raise ValueError("not a list of structs")
        for _ in range(count):
            groups += [at] * (number == 4)
            one, at = struct_at(data, at)
            schema += [one] * (number == 2)
    return schema, groups


def _leaves(schema: list[dict[int, Any]]) -> Iterator[Leaf]:
    """Yield the columns of values of a schema, whose elements stand before their children."""
    above: list[list[Any]] = []  # of each open element: its path, whether it lies in a list, children that are to come
    for number, element in enumerate(schema):
        while above and not above[-1][2]:
            above.pop()
        if number and not above:
            raise ValueError("an element beside the root")
        path, nested = (above[-1][0], above[-1][1]) if above else ((), False)
        if above:
            above[-1][2] -= 1
            path = (*path, element[4].decode())
        nested |= element.get(3) == _REPEATED
        if children := element.get(5, 0):
            above.append([path, nested, children])
        elif number:
            yield _leaf(".".join(path), nested, element)


def _leaf(path: str, is_nested: bool, element: dict[int, Any]) -> Leaf:
    is_binary = element[1] == _PHYSICAL_BYTE_ARRAY
    is_text = is_binary and element.get(6, _UTF8) == _UTF8 and element.get(10, {_STRING: {}}).keys() == {_STRING}
    return Leaf(path, max(0, element.get(2, 0)), is_binary, is_text, is_nested)


def _chunk(leaf: Leaf, column: dict[int, Any]) -> Chunk:
    about = column[3]
    start, dictionary, size = about[9], about.get(11, 0), about[7]
    if 0 < dictionary < start:
        start = dictionary
    if min(start, size) < 0:
        raise ValueError("a negative place")
    return Chunk(leaf, start, size, about[4], about[5])


# ---- Thrift


def header_at(stream: BinaryIO, place: int, end: int) -> tuple[dict[int, Any], int]:
    """Return the header at a place of a file, and how many bytes it has."""
    size = 2**8
    while True:
        stream.seek(place)
        data = stream.read(min(size, end - place))
        try:
            return struct_at(data, 0)
        except IndexError:
            if size >= min(_MAX_HEADER_BYTES, end - place):
                raise
            size *= 8


def struct_at(data: bytes, at: int) -> tuple[dict[int, Any], int]:
    """Return number → value of a struct's fields, and where it ends; raises one of `NOT_THRIFT` for anything else."""
    found: dict[int, Any] = {}
    number = 0
    while kind := data[at]:
        step, kind = kind >> 4, kind & 15
        at += 1
        if step:
            number += step
        else:
            number, at = _integer(data, at, _I16)
        if number in found:  # readers differ in which one counts
            raise ValueError("a field that comes twice")
        found[number], at = (kind == _TRUE, at) if kind in (_TRUE, _FALSE) else _value(data, at, kind)
    return found, at + 1


def _fields(data: bytes, at: int, seen: set[int]) -> Iterator[tuple[int, int, int]]:
    """Yield number, kind and place of each field of a struct."""
    number = 0
    while kind := data[at]:
        step, kind = kind >> 4, kind & 15
        at += 1
        if step:
            number += step
        else:
            number, at = _integer(data, at, _I16)
        if number in seen:
            raise ValueError("a field that comes twice")
        seen.add(number)
        yield number, kind, at
        if kind not in (_TRUE, _FALSE):
            _, at = _value(data, at, kind)


def _value(data: bytes, at: int, kind: int) -> tuple[Any, int]:
    """Return a value and where it ends."""
    if kind in _BITS:
        return _integer(data, at, kind)
    if kind == _STRUCT:
        return struct_at(data, at)
    if kind in (_BYTE, _DOUBLE, _BINARY):
        size, at = _unsigned(data, at) if kind == _BINARY else (1 if kind == _BYTE else 8, at)
        if at + size > len(data):
            raise IndexError
        return data[at : at + size], at + size
    if kind not in (_LIST, _SET):
        raise ValueError(f"a field of kind {kind}")  # nothing in Parquet is a map
    count, inner, at = _list_at(data, at)
    values = []
    for _ in range(count):
        value, at = _value(data, at, _BYTE if inner in (_TRUE, _FALSE) else inner)
        values.append(value)
    return values, at


def _list_at(data: bytes, at: int) -> tuple[int, int, int]:
    """Return how many values a list has, of which kind, and where they begin."""
    count, inner = data[at] >> 4, data[at] & 15
    at += 1
    if count == 15:
        count, at = _unsigned(data, at)
    return count, inner, at


def _unsigned(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while shift < 70:
        byte = data[at]
        at += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, at
        shift += 7
    raise ValueError("a number of over 64 bits")


def _integer(data: bytes, at: int, kind: int) -> tuple[int, int]:
    number, at = _unsigned(data, at)
    if number >> _BITS[kind]:
        raise ValueError("a number that is too large for its kind")
    return (number >> 1) ^ -(number & 1), at
