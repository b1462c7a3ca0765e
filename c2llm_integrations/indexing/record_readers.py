"""Read records of any kind into one shape: mappings, `Record`s, rows, frameworks' documents and nodes, files."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import count
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from c2llm_integrations._utils.json_lines import is_json_lines, parse_row, read_lines
from c2llm_integrations._utils.printable import one_line
from c2llm_integrations.code.chunk import CodeChunk
from c2llm_integrations.errors import InputError
from c2llm_integrations.stores.records import Record, Row, utf8_bytes

if TYPE_CHECKING:
    from c2llm_integrations.indexing.options import Transform


@dataclass(slots=True)
class Item:
    """One record, unchecked; `problem`: why it could not be read; `size`: the bytes of its line."""

    where: str
    id: Any = None
    text: Any = None
    metadata: Any = None
    vector: Any = None
    problem: str | None = None
    size: int = 0


@dataclass(frozen=True, slots=True)
class Names:
    """The fields of a mapping that hold the text, the id and the vector; None for a missing one."""

    text: str | None
    id: str | None
    vector: str | None


def read_items(records: Any, names: Names, source: str, transform: Transform | None) -> Iterator[Item]:
    """Yield the items of `records` one at a time, without those for which `transform` returns None.

    Raises InputError for an object without records, at once, and for a file that cannot be read on.
    """
    return _items(_numbered(records), names, source, transform)


def _items(
    numbered: Iterator[tuple[str, Any, int]], names: Names, source: str, transform: Transform | None
) -> Iterator[Item]:
    for where, raw, size in numbered:
        if isinstance(raw, Exception):
            yield Item(where, problem=str(raw))
            continue
        if transform is not None and (raw := transform(raw)) is None:
            continue
        item = _item(where, raw, names, source)
        item.size = size
        yield item


def how_many(records: Any) -> int | None:
    """Return the number of records, None if it is not known in advance."""
    return len(records) if hasattr(records, "__len__") and not isinstance(records, str) else None


def _numbered(records: Any) -> Iterator[tuple[str, Any, int]]:
    """Return where each record is, the record, or why it cannot be read, and the bytes of its line, 0 for none."""
    if isinstance(records, (str, os.PathLike)):
        return _of_file(Path(records))
    if hasattr(records, "to_batches"):  # an Arrow table or data set
        records = (row for batch in records.to_batches() for row in batch.to_pylist())
    if hasattr(records, "iter_rows"):  # a data frame of polars, which iterates over its columns
        records = records.iter_rows(named=True)
    if hasattr(records, "itertuples"):
        raise InputError(
            "a DataFrame iterates over its columns, and its missing values are NaN; "
            "give records=frame.astype(object).where(frame.notna(), None).to_dict('records')"
        )
    if isinstance(records, Mapping) or not isinstance(records, Iterable):
        raise InputError(
            f"records is a {type(records).__name__}, expected a list, a generator, a data set or the path of a file"
        )
    return ((f"record {number}", record, 0) for number, record in zip(count(1), records, strict=False))


def _of_file(file: Path) -> Iterator[tuple[str, Any, int]]:
    is_parquet = file.suffix == ".parquet"
    if not is_parquet and not is_json_lines(file):
        raise InputError(f"{file} is not a file of records; expected .jsonl, .jsonl.gz or .parquet")
    if not file.is_file():
        what = "is not a file" if file.exists() else "does not exist"
        raise InputError(f"{file} {what}; give the path of a .jsonl, .jsonl.gz or .parquet file")
    if not is_parquet:
        return _of_lines(file)
    from c2llm_integrations.stores.parquet import read_mappings

    return ((f"{file}: row {number}", *row) for number, row in zip(count(1), read_mappings(file), strict=False))


def _of_lines(file: Path) -> Iterator[tuple[str, Any, int]]:
    for where, line in read_lines(file):
        try:
            yield where, parse_row(line, where), len(line)
        except InputError as error:
            yield where, InputError(str(error).removeprefix(f"{where} ")), len(line)


def _item(where: str, raw: Any, names: Names, source: str) -> Item:
    if isinstance(raw, Mapping):
        return _of_mapping(where, raw.get(names.text), raw, names)
    vector = None
    if isinstance(raw, Row):
        raw, vector = raw.record, raw.vector
    if isinstance(raw, Record):
        if raw.source not in ("", source):
            return Item(where, problem=f"its source is {raw.source!r}, this run fills {source!r}; make it one of these")
        return Item(where, raw.id, raw.text, raw.metadata, vector)
    if isinstance(raw, CodeChunk):
        return Item(where, problem=f"it is a chunk of repository {raw.repository!r}; use ingest, or load")
    if hasattr(raw, "page_content"):  # a Document of LangChain
        return _of_object(where, raw.page_content, raw.id, raw.metadata, names)
    if hasattr(raw, "get_content") and hasattr(raw, "node_id"):  # a node of LlamaIndex
        return _of_object(where, raw.get_content(), raw.node_id, raw.metadata, names)
    return Item(
        where, problem=f"it is {one_line(repr(raw)):.60} ({type(raw).__name__}), expected a mapping, Record or document"
    )


def _of_object(where: str, text: Any, id: Any, metadata: Mapping[str, Any], names: Names) -> Item:
    item = _of_mapping(where, text, metadata, replace(names, text=None))
    # A field that the caller named wins: a node always has an id, often a random one.
    if (names.id == "id" and id is not None) or (names.id is not None and item.id is None):
        item.id = id
    return item


def _of_mapping(where: str, text: Any, found: Mapping[str, Any], names: Names) -> Item:
    metadata: dict[Any, Any] = dict(found)
    for taken in (names.text, names.id, names.vector):
        metadata.pop(taken, None)
    if names.id not in (None, "id") and names.id not in found and "id" in found:
        return Item(where, problem=f"it has no field {names.id!r}, but one named 'id'; name the field of the ids")
    id = None if names.id is None else _plain_id(found.get(names.id))
    vector = None if names.vector is None else found.get(names.vector)
    return Item(where, id, text, metadata, vector)


def _plain_id(id: Any) -> Any:
    """Return an id of NumPy, or a UUID, as one that a row takes."""
    if isinstance(id, str):
        return id
    if isinstance(id, uuid.UUID):
        return str(id)
    return int(id) if isinstance(id, Integral) and not isinstance(id, bool | int) else id


# ---- what a record must be


def why_unusable(text: object, metadata: object, field: str) -> str | None:
    """Return why a record has no text that could be embedded, or no metadata, or None; `field` is that of the text."""
    if not isinstance(text, str):
        what = "it has no text" if text is None else f"its text is {text!r:.60} ({type(text).__name__})"
        return f"{what}; name the field of the text, which is {field!r} now"
    if not text or text.isspace():
        return "its text is empty"
    try:
        utf8_bytes(text)
    except UnicodeEncodeError:
        return "its text holds a lone surrogate; decode it again"
    if isinstance(metadata, Mapping):
        return None
    return f"its metadata is {type(metadata).__name__}, must be a mapping of names to JSON values"


def vector_of(vector: Any) -> Any:
    """Return a vector as an array if possible; the store refuses anything else."""
    try:
        return np.asarray(vector, np.float32)
    except (TypeError, ValueError):
        return vector
