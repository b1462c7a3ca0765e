"""Files of JSON lines, gzipped or not → their rows."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from c2llm_integrations.errors import InputError


def read_rows(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield where each row of a .jsonl or .jsonl.gz stands ("FILE: line N"), and the row; blank lines have none.

    Raises InputError for a line that is no JSON object, and for a file that is no UTF-8 or no whole gzip.
    """
    try:
        with gzip.open(file, "rt", encoding="utf-8") if file.suffix == ".gz" else file.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    where = f"{file}: line {number}"
                    yield where, _row(line, where)
    except (UnicodeDecodeError, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"{file} cannot be read as JSON lines: {error}; write it again, in UTF-8") from error


def _row(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where} is no JSON: {error}; write one object a line") from error
    if not isinstance(row, dict):
        raise InputError(f"{where} is a {type(row).__name__}, expected an object")
    return row
