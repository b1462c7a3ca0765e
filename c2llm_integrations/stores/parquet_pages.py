"""What reading a row group of a Parquet file takes, from the headers of its pages, before one is unpacked.

A page says how many bytes it unpacks to, and readers hold it to that. But a dictionary can stand for any number of long
values, and a list for any number of short ones, in a few bytes.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from c2llm_integrations.errors import InputError
from c2llm_integrations.stores.parquet_footer import NOT_THRIFT, Chunk, Footer, header_at, unreadable

# Bytes that the rows of a batch may take, which decides how many they are.
BATCH_BYTES = 2**27
# Bytes that reading a row group may take whatever the rows at once, and more where the file itself has these bytes:
# what people write unpacks to fewer times its size.
MAX_GROUP_BYTES, MAX_RATIO = 2**28, 16
# A value may repeat any in its dictionary; one of more bytes is searched for its longest.
_SHORT_DICTIONARY_BYTES = 2**14
# What a value takes in its column, a level of nesting for it, and an entry of a dictionary for each of its bytes.
_VALUE_BYTES, _LEVEL_BYTES, _ENTRY_RATIO = 8, 4, 5
# Fields of a page's header, and kinds of pages.
_KIND, _UNPACKED, _PACKED = 1, 2, 3
_DATA, _DICTIONARY, _DATA_2 = 0, 2, 3
_HEADS, _COUNT, _ENCODINGS = {_DATA: 5, _DICTIONARY: 7, _DATA_2: 8}, 1, {_DATA: 2, _DATA_2: 4}
# Encodings by a dictionary, those whose lengths are unpacked as a whole, and the one of these whose values repeat.
_BY_DICTIONARY, _DELTAS, _DELTA_BYTE_ARRAY = (2, 8), (5, 6, 7), 7
# What `pyarrow` calls the codecs that it unpacks by itself.
_CODECS = {1: "snappy", 2: "gzip", 4: "brotli", 6: "zstd", 7: "lz4_raw"}


@dataclass(frozen=True)
class GroupPlan:
    """How to read a row group: so many rows at once, and these columns (by their paths) as dictionaries."""

    rows: int
    dictionaries: tuple[str, ...]


@dataclass
class _Column:
    """What the pages of one column in one row group hold.

    `dictionary`: its unpacked bytes, at `place` behind the header and `packed` bytes of the file; `longest`: bytes of a
    value in it; `of_dictionary`: how many values are; `pages`, `values`: unpacked bytes and values of the others.
    """

    chunk: Chunk
    dictionary: int = 0
    place: int = 0
    packed: int = 0
    longest: int = 0
    of_dictionary: int = 0
    is_delta: bool = False
    repeats_values: bool = False
    pages: list[int] = field(default_factory=list)
    values: list[int] = field(default_factory=list)

    @property
    def is_kept(self) -> bool:
        """Whether it is read as a dictionary, because values in lists might take too much."""
        leaf = self.chunk.leaf
        return leaf.is_text and leaf.is_nested and self.longest * self.of_dictionary > BATCH_BYTES

    @property
    def bytes_held(self) -> int:
        """The bytes that reading it may take however few rows are read at once: of a list, one may have all values."""
        held = self.dictionary * _ENTRY_RATIO + max(self.pages, default=0)
        if self.is_delta:
            held += _VALUE_BYTES * max(self.values, default=0)
        if self.chunk.leaf.is_nested:
            repeated = 0 if self.is_kept else self.longest * self.of_dictionary
            held += sum(self.values) * (self._bytes_of_value + _LEVEL_BYTES) + sum(self.pages) + repeated
        return held

    def bytes_of(self, rows: int) -> int:
        """Return how many bytes so many rows in a row may take beside that."""
        leaf = self.chunk.leaf
        if leaf.is_nested:
            return 0
        repeated = self.longest + (self._window(rows) if leaf.is_binary else 0)
        return rows * (self._bytes_of_value + self.longest) + repeated

    @property
    def _bytes_of_value(self) -> int:
        """The most bytes of a value that are neither in its page nor in a dictionary."""
        if not self.chunk.leaf.is_binary:
            return self.chunk.leaf.width + _VALUE_BYTES
        return _VALUE_BYTES + (max(self.pages, default=0) if self.repeats_values else 0)

    def _window(self, rows: int) -> int:
        """Return the bytes of the largest run of pages that this many rows in a row may lie in."""
        values, pages = (np.cumsum([0, *counts], dtype=np.int64) for counts in (self.values, self.pages))
        last = np.searchsorted(values[1:], values[1:] - 1 + rows)
        return int(np.max(pages[np.minimum(last + 1, len(pages) - 1)] - pages[:-1], initial=0))


def plan_group(file: Path, footer: Footer, group: int, columns: set[str] | None, most_rows: int) -> GroupPlan:
    """Return how to read a row group, at most so many rows at once, so that no batch of it takes all memory.

    `columns`: the top-level columns that are read, None for all. Raises InputError for a row group whose single rows
    may take too much, and for pages that cannot be read.
    """
    chunks = footer.chunks(group)
    if columns is not None:
        chunks = [one for one in chunks if one.leaf.path.partition(".")[0] in columns]
    packed, size = sum(chunk.size for chunk in chunks), os.path.getsize(file)
    if packed > size:
        raise InputError(f"{file} has columns that overlap: {packed:,} bytes of {size:,}; write it again")
    with open(file, "rb") as stream:
        found = [_column(file, stream, chunk) for chunk in chunks]
        _require_group(file, group, packed, sum(one.bytes_held for one in found))
        for one in found:
            one.longest = _longest(stream, one)
    takes = sum(one.bytes_held + one.bytes_of(1) for one in found)
    _require_group(file, group, packed, takes)
    rows = most_rows
    while rows > 1 and sum(one.bytes_of(rows) for one in found) > BATCH_BYTES:
        rows = max(1, rows // 4)
    return GroupPlan(rows, tuple(one.chunk.leaf.path for one in found if one.is_kept))


def _require_group(file: Path, group: int, packed: int, takes: int) -> None:
    if takes > (most := MAX_GROUP_BYTES + MAX_RATIO * packed):
        raise InputError(
            f"{file} has {packed:,} bytes in row group {group} that may unpack to {takes:,}, at most {most:,} are read "
            "at once; write smaller row groups and pages"
        )


def _column(file: Path, stream: BinaryIO, chunk: Chunk) -> _Column:
    """Return what the headers of a column's pages say, as far as a reader reads them."""
    found, place, end, seen = _Column(chunk), chunk.start, chunk.start + chunk.size, 0
    try:
        while place < end and seen < chunk.values:
            header, size = header_at(stream, place, end)
            if min(header[_UNPACKED], header[_PACKED]) < 0:
                raise ValueError("a page of negative size")
            if header[_KIND] in _HEADS:
                seen += _add_page(found, header, place + size)
            place += size + header[_PACKED]
    except NOT_THRIFT as error:
        raise unreadable(file, f"a page of {chunk.leaf.path!r:.80} at byte {place:,}") from error
    return found


def _add_page(found: _Column, header: dict[int, Any], place: int) -> int:
    """Add a page to what is known of its column, and return how many values it has."""
    kind, unpacked = header[_KIND], header[_UNPACKED]
    head = header[_HEADS[kind]]
    values: int = head[_COUNT]
    if values < 0:
        raise ValueError("a negative number of values")
    if kind == _DICTIONARY:
        # A second one is an error of its own to readers.
        found.dictionary, found.place, found.packed = max(found.dictionary, unpacked), place, header[_PACKED]
        return 0
    encoding = head[_ENCODINGS[kind]]
    found.pages.append(unpacked)
    found.values.append(values)
    found.of_dictionary += values * (encoding in _BY_DICTIONARY)
    found.is_delta |= encoding in _DELTAS
    found.repeats_values |= encoding == _DELTA_BYTE_ARRAY
    return values


def _longest(stream: BinaryIO, column: _Column) -> int:
    """Return the most bytes that a value in a column's dictionary has."""
    size = column.dictionary
    if not column.chunk.leaf.is_binary or size <= _SHORT_DICTIONARY_BYTES:
        return size if column.chunk.leaf.is_binary else 0
    import pyarrow as pa

    stream.seek(column.place)
    data, codec = stream.read(column.packed), column.chunk.codec
    try:
        if codec:
            data = pa.decompress(data, size, _CODECS[codec], asbytes=True)
    except (KeyError, pa.ArrowException, OSError, ValueError):  # unpacked otherwise, or damaged, which the reader says
        return size
    at, longest = 0, 0
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "little")
        if length > longest:
            longest = length
        at += 4 + length
    return min(longest, size)
