"""The rows of a collection as a Parquet file, written and read a batch at a time.

A file holds one row per record: the fields of a chunk ("" or 0 where a record lacks one), `record`, which is null for a
chunk and else holds the record's id, source and metadata as JSON, and `vector`, a fixed-size list of float32. Its
metadata holds the layout's name, the collection's spec and its claims as JSON, and a checksum of all that; pages have
their own.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from c2llm_integrations._utils.json_lines import MAX_LINE_BYTES, parse_json
from c2llm_integrations.code.chunk import CodeChunk
from c2llm_integrations.code.lexical_terms import ANALYZER
from c2llm_integrations.errors import C2LLMError, InputError, MissingExtra
from c2llm_integrations.stores.ids import row_id
from c2llm_integrations.stores.records import AnyRecord, Record, Row, chunk_of
from c2llm_integrations.stores.row_fields import slices
from c2llm_integrations.stores.spec import CollectionSpec, checked_claims

try:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq
except ImportError as error:
    raise MissingExtra("pyarrow", "parquet") from error

FORMAT = "c2llm-rows-2"
# Earlier releases wrote chunks only, and no column `record`.
CHUNKS_FORMAT = "c2llm-rows-1"
# Rows held at once, on the way out and on the way in.
BATCH = 1024
# Bytes of rows held in full at once on the way in, unless one has more.
PART_BYTES = MAX_LINE_BYTES
# Bytes of a footer, which takes 230 times as much memory, and of an unpacked row group; and more in a large file.
MAX_FOOTER_BYTES, MAX_FOOTER_SHARE = 2**20, 1 / 8
MAX_GROUP_BYTES, MAX_GROUP_RATIO = 2**28, 16
# Row groups of fewer bytes are read with each different text held once: few bytes may stand for a thousand long texts.
SMALL_GROUP_BYTES = 2**24
# Repositories without a row that a file may claim: each claim is written to the store by itself.
EMPTY_REPOSITORIES = 1000
_FORMAT_KEY, _SPEC_KEY, _CLAIMS_KEY = b"c2llm.format", b"c2llm.spec", b"c2llm.claims"
_CHECKSUM_KEY = b"c2llm.checksum"
_LINES = ("start_line", "end_line")
_FIELDS = ("id", "repository", "path", "language", "symbol", "kind", *_LINES, "text")
_RECORD = "record"
_COLUMNS = (*_FIELDS, _RECORD)


@dataclass(frozen=True)
class Contents:
    """What a file says of itself: the spec and claims (repository → what fills it) of its collection, its rows."""

    spec: CollectionSpec
    claims: dict[str, str]
    rows: int


def write_rows(stream: BinaryIO, contents: Contents, rows: Iterator[Row]) -> int:
    """Write a whole file, rows as they come, and return how many there were."""
    spec, claims = contents.spec.to_json(), json.dumps(contents.claims)
    metadata = {_FORMAT_KEY: FORMAT, _SPEC_KEY: spec, _CLAIMS_KEY: claims}
    schema = _schema(contents.spec.width).with_metadata(metadata)
    # Vectors do not compress, and a dictionary pays only for what repeats.
    options = {
        "compression": {**dict.fromkeys(_COLUMNS, "zstd"), "vector.list.element": "none"},
        "use_dictionary": ["repository", "path", "language", "kind"],
        "write_page_checksum": True,
    }
    written, checksum = 0, _contents_checksum(spec, claims)
    with pq.ParquetWriter(stream, schema, **options) as writer:
        for batch in _batches(rows, contents.spec.width):
            writer.write_batch(_record_batch(batch, schema))
            written += len(batch)
            checksum += _rows_checksum(batch)
        writer.add_key_value_metadata({_CHECKSUM_KEY: str(checksum)})
    return written


def require_whole(file: Path) -> None:
    """Read a whole file; raises InputError if it does not hold what was written. Earlier releases wrote no checksum."""
    with _opened(file) as parquet:
        claims = _contents(file, parquet).claims
        metadata = parquet.metadata.metadata or {}
        said = metadata.get(_CHECKSUM_KEY)
        found = _contents_checksum(metadata[_SPEC_KEY].decode(), metadata[_CLAIMS_KEY].decode())
    rows = 0
    for batch in read_rows(file):
        found += _rows_checksum(batch)
        rows += len(batch)
    if len(claims) > rows + EMPTY_REPOSITORIES:
        raise InputError(f"{file} claims {len(claims):,} repositories, but has {rows:,} rows; export it again")
    if said not in (None, str(found).encode()):
        raise InputError(f"{file} is damaged: its checksum is {said!r}, its content gives {found}; export it again")


def _contents_checksum(spec: str, claims: str) -> int:
    return zlib.crc32(f"{spec} {json.dumps(json.loads(claims), sort_keys=True)}".encode())


def _rows_checksum(rows: Sequence[Row]) -> int:
    """Return a sum over rows, which does not depend on how they are cut into batches."""
    return sum(
        zlib.crc32(
            row.vector.astype("<f4").tobytes(),
            zlib.crc32("\0".join(str(value) for value in _values(row.record) if value is not None).encode()),
        )
        for row in rows
    )


def _values(record: AnyRecord) -> tuple[str | int | None, ...]:
    """Return what the columns but the vector hold of a record."""
    chunk, other = chunk_of(record), None
    if not isinstance(record, CodeChunk):
        other = json.dumps({"id": record.id, "source": record.source, "metadata": record.metadata})
    return (str(record.row_id), *(getattr(chunk, name) for name in _FIELDS[1:]), other)


def _batches(rows: Iterator[Row], width: int) -> Iterator[list[Row]]:
    """Cut rows into batches of at most `BATCH` and a few megabytes."""
    while batch := list(islice(rows, BATCH)):
        for part in slices([row.record for row in batch], width):
            yield batch[part]


def _record_batch(rows: Sequence[Row], schema: pa.Schema) -> pa.RecordBatch:
    values = zip(*(_values(row.record) for row in rows), strict=True)
    columns = [pa.array(column, schema.field(name).type) for name, column in zip(_COLUMNS, values, strict=True)]
    vectors = np.stack([row.vector for row in rows]).astype(np.float32, copy=False)
    columns.append(pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), type=schema.field("vector").type))
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _schema(width: int) -> pa.Schema:
    fields = [pa.field(name, pa.int32() if name in _LINES else pa.string()) for name in _COLUMNS]
    return pa.schema([*fields, pa.field("vector", pa.list_(pa.float32(), width))])


def contents_of(file: Path) -> Contents:
    """Return what a file says of itself; raises InputError for a file that `export` did not write."""
    with _opened(file) as parquet:
        return _contents(file, parquet)


def read_rows(file: Path) -> Iterator[list[Row]]:
    """Yield the rows of a file in batches; raises InputError where it is damaged."""
    with _opened(file) as parquet:
        contents = _contents(file, parquet)
        for batch, _ in _record_batches(file, parquet):
            columns, vectors = [batch.column(name) for name in _FIELDS], batch.column("vector")
            flat = vectors.flatten()
            if any(column.null_count for column in (*columns, vectors, flat)):
                raise InputError(f"{file} has rows without a value in some column; export it again")
            others = batch.column(_RECORD).to_pylist() if _RECORD in batch.schema.names else [None] * batch.num_rows
            values = zip(*(column.to_pylist() for column in columns), others, strict=True)
            records = [_checked(file, one) for one in values]
            pairs = zip(records, flat.to_numpy().reshape(-1, contents.spec.width), strict=True)
            yield [Row(record, vector) for record, vector in pairs]


def read_mappings(file: Path) -> Iterator[tuple[dict[str, Any], int]]:
    """Yield the rows of any Parquet file as mappings of its columns, and about how many bytes each has.

    Raises InputError where the file is damaged, and for a row over `MAX_LINE_BYTES`.
    """
    number = 0
    with _opened(file) as parquet:
        for batch, size in _record_batches(file, parquet):
            if size > MAX_LINE_BYTES and batch.num_rows == 1:
                raise InputError(f"{file}: row {number + 1:,} has {size:,} bytes, at most {MAX_LINE_BYTES:,}; split it")
            try:
                rows = batch.to_pylist()
            except OverflowError as error:  # a date or a duration beyond Python's
                raise InputError(f"{file} has a value that cannot be read ({error}); write it as text") from error
            number += len(rows)
            yield from ((row, size // len(rows)) for row in rows)


def _checked(file: Path, values: Sequence[Any]) -> AnyRecord:
    """Return the record of one row; raises InputError for what `_values` cannot have given."""
    *fields, other = values
    record: AnyRecord
    try:
        if other is None:
            record = CodeChunk(**dict(zip(_FIELDS, fields, strict=True)))
            own = row_id("", record.id)
        else:
            record = Record(text=fields[_FIELDS.index("text")], **parse_json(other))
            own = record.row_id
        if str(own) == values[0]:
            return record
        why = f"id {values[0]!r} is not the id of that record, nor a lower-case UUID"
    except (C2LLMError, ValueError, TypeError) as error:
        why = f"a record is not readable ({error})"
    raise InputError(f"{file} is damaged: {why}")


def _record_batches(file: Path, parquet: pq.ParquetFile) -> Iterator[tuple[pa.RecordBatch, int]]:
    """Yield the rows that a file holds, and about how many bytes they have.

    A batch has at most `BATCH` rows, and at most `PART_BYTES` or one row.
    """
    most = MAX_GROUP_BYTES + MAX_GROUP_RATIO * os.path.getsize(file)
    # One row group at a time: iterating over all at once keeps the pages of those that were read.
    for group in range(parquet.num_row_groups):
        if (takes := parquet.metadata.row_group(group).total_byte_size) > most:
            raise InputError(
                f"{file} unpacks to {takes:,} bytes in row group {group}, at most {most:,} are read at once; "
                "write smaller row groups"
            )
        for batch in parquet.iter_batches(BATCH, row_groups=[group], use_threads=False):
            yield from _parts(batch)


def _parts(batch: pa.RecordBatch) -> Iterator[tuple[pa.RecordBatch, int]]:
    """Cut a batch into parts of at most `PART_BYTES`, or of one row, in full, and say how many they have."""
    todo = [batch]
    while todo:
        part = todo.pop()
        size = sum(map(_bytes_of, part.columns))
        if size > PART_BYTES and part.num_rows > 1:
            middle = part.num_rows // 2
            todo += [part.slice(middle), part.slice(0, middle)]
        elif part.num_rows:
            columns = [one.dictionary_decode() if pa.types.is_dictionary(one.type) else one for one in part.columns]
            yield pa.RecordBatch.from_arrays(columns, names=part.schema.names), size


def _bytes_of(array: pa.Array) -> int:
    """Return about how many bytes an array has in full."""
    if not pa.types.is_dictionary(array.type) or pa.types.is_primitive(array.dictionary.type):
        return int(array.nbytes)
    lengths = pc.binary_length(array.dictionary).take(array.indices)
    return pc.sum(lengths.cast(pa.int64())).as_py() or 0


@contextmanager
def _opened(file: Path) -> Iterator[pq.ParquetFile]:
    if file.exists() and not file.is_file():  # a pipe would be waited for
        raise InputError(f"{file} is {'a folder' if file.is_dir() else 'not a file'}; name a file of Parquet")
    if not file.exists():
        raise InputError(f"{file} does not exist; name a file of Parquet")
    try:
        _require_small_footer(file)
        metadata = pq.read_metadata(file)
        groups = map(metadata.row_group, range(metadata.num_row_groups))
        texts = _texts(metadata) if all(one.total_byte_size < SMALL_GROUP_BYTES for one in groups) else None
        with pq.ParquetFile(file, metadata=metadata, read_dictionary=texts, page_checksum_verification=True) as parquet:
            yield parquet
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # not the file's fault
            raise
        lines = str(error).splitlines() or [type(error).__name__]
        raise InputError(f"{file} is not a readable Parquet file ({lines[0]}); write it again") from error


def _texts(metadata: pq.FileMetaData) -> list[str]:
    """Return the columns of text or bytes that are neither in lists nor in structs."""
    leaves = map(metadata.schema.column, range(metadata.num_columns))
    return [
        one.path
        for one in leaves
        if one.path == one.name and one.physical_type == "BYTE_ARRAY" and one.logical_type.type in ("STRING", "NONE")
    ]


def _require_small_footer(file: Path) -> None:
    size = file.stat().st_size
    with open(file, "rb") as stream:
        stream.seek(max(0, size - 8))
        footer = int.from_bytes(stream.read(4), "little")
    most = int(MAX_FOOTER_BYTES + size * MAX_FOOTER_SHARE)
    if most < footer <= size:  # a larger one is none at all, which the reader says better
        raise InputError(
            f"{file} has a footer of {footer:,} bytes, at most {most:,} are read; write fewer columns or row groups"
        )


def _contents(file: Path, parquet: pq.ParquetFile) -> Contents:
    schema = parquet.schema.to_arrow_schema()
    metadata = parquet.metadata.metadata or {}
    layout = metadata.get(_FORMAT_KEY, b"").decode(errors="replace")
    if layout not in (FORMAT, CHUNKS_FORMAT):
        raise InputError(f"{file} has layout {layout!r}, expected {FORMAT!r}; export it again")
    try:
        spec = CollectionSpec.from_json(metadata[_SPEC_KEY].decode())
        spec.plan  # noqa: B018 (raises for what no store knows)
        claims = checked_claims(parse_json(metadata[_CLAIMS_KEY]))
    except (C2LLMError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{file} has damaged metadata ({error}); export it again") from error
    for column in _schema(spec.width):
        if layout == CHUNKS_FORMAT and column.name == _RECORD:
            continue
        at = schema.get_field_index(column.name)
        found = schema.field(at).type if at >= 0 else "missing"
        if found != column.type:
            raise InputError(f"{file} has column {column.name!r} {found}, expected {column.type}; export it again")
    # A file holds no terms, so those of an earlier release are made anew.
    spec = spec if spec.analyzer is None else replace(spec, analyzer=ANALYZER)
    return Contents(spec, claims, parquet.metadata.num_rows)
