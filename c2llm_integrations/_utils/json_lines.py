"""Untrusted JSON, and files of JSON lines, gzipped or not."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from c2llm_integrations.errors import InputError

# Of one line, and of blank ones in a row: a small file can unpack to any number, and lists in lists take 24 times as
# much memory.
MAX_LINE_BYTES = 2**24
# What a document may hold, by its commas and brackets: parsing takes up to some hundred bytes a value. In a notebook
# with its outputs pictures are one value each, and the figures of hundreds of interactive charts fit.
MAX_VALUES = 2**21


def parse_json(document: str | bytes) -> Any:
    """Return what a JSON document holds; raises ValueError for anything else, also if it is nested too deep."""
    try:
        return json.loads(document)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def has_too_many_values(text: str | bytes, most: int = MAX_VALUES) -> bool:
    """Return whether a document may hold over `most` values, of which each takes memory when it is parsed."""
    marks: Iterable[Any] = ",[{" if isinstance(text, str) else b",[{"
    return len(text) > most and sum(map(text.count, marks)) > most


def is_json_lines(file: Path) -> bool:
    """Return whether a file is one of JSON lines, by its name."""
    return file.name.removesuffix(".gz").endswith((".jsonl", ".ndjson"))


def read_rows(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield where each row of a .jsonl or .jsonl.gz is ("FILE: line N"), and the row; blank lines are skipped.

    Raises InputError for a line that is not a JSON object in UTF-8, and for a file that is not valid gzip.
    """
    return ((where, parse_row(line, where)) for where, line in read_lines(file))


def read_lines(file: Path) -> Iterator[tuple[str, bytes]]:
    """Yield where each line is, and the line; blank lines are skipped.

    Raises InputError for a file that is missing or not valid gzip, for what is not a file, and for a line, or blank
    lines in a row, over `MAX_LINE_BYTES`.
    """
    # A pipe would be waited for, unless this process was given it.
    if not file.is_file() and not str(file).startswith(("/dev/stdin", "/dev/fd/")):
        what = "is a folder" if file.is_dir() else "is not a file" if file.exists() else "does not exist"
        raise InputError(f"{file} {what}; name a file of JSON lines")
    blank = 0
    try:
        with gzip.open(file, "rb") if file.suffix == ".gz" else file.open("rb") as lines:
            for number, line in enumerate(iter(lambda: lines.readline(MAX_LINE_BYTES + 1), b""), 1):
                if len(line) > MAX_LINE_BYTES:
                    raise InputError(f"{file}: line {number} has over {MAX_LINE_BYTES:,} bytes; split it")
                if not line.strip():
                    if (blank := blank + len(line)) > MAX_LINE_BYTES:
                        raise InputError(
                            f"{file}: up to line {number:,} there are over {MAX_LINE_BYTES:,} bytes of blank lines "
                            "in a row; delete them"
                        )
                else:
                    blank = 0
                    yield f"{file}: line {number}", line
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"{file} cannot be read as JSON lines: {error}; write it again") from error


def parse_row(line: bytes, where: str) -> dict[str, Any]:
    """Return the object in a line; raises InputError for anything else."""
    try:
        text = line.decode("utf-8-sig")
        is_too_large = has_too_many_values(text)
        row = None if is_too_large else parse_json(text)
    except UnicodeDecodeError as error:
        raise InputError(f"{where} cannot be read as JSON lines: {error}; write it again, in UTF-8") from error
    except ValueError as error:
        raise InputError(f"{where} is not valid JSON ({error}); expected one object per line") from error
    if is_too_large:
        raise InputError(f"{where} has over {MAX_VALUES:,} commas and brackets; split it")
    if not isinstance(row, dict):
        raise InputError(f"{where} is a {type(row).__name__}, expected an object")
    return row
