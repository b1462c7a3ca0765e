"""The rows of a collection as a Parquet file, written and read a batch at a time.

A file holds one row per record: the fields of a chunk ("" or 0 where a record lacks one), `record`, which is null for a
chunk and else holds the record's id, source and metadata as JSON, and `vector`, a fixed-size list of float32. Its
metadata holds the layout's name, the collection's spec and its claims as JSON, and a checksum of all that; pages have
their own.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
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
from c2llm_integrations.stores.parquet_footer import Footer, require_small_footer
from c2llm_integrations.stores.parquet_pages import plan_group
from c2llm_integrations.stores.records import AnyRecord, Record, Row, chunk_of
from c2llm_integrations.stores.rows import slices
from c2llm_integrations.stores.spec import CollectionSpec, CompactPlan
from c2llm_integrations.stores.spec_checks import checked_claims

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
# Bytes of rows held at once on the way in, unless one has more, and what each value takes by itself.
PART_BYTES, VALUE_BYTES = MAX_LINE_BYTES, 8
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
        try:
            found = _contents_checksum(metadata[_SPEC_KEY].decode(), metadata[_CLAIMS_KEY].decode())
        except (LookupError, ValueError) as error:
            raise InputError(f"{file} has damaged metadata ({error}); export it again") from error
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


def _record(values: Sequence[Any]) -> AnyRecord:
    *fields, other = values
    if other is not None:
        return Record(text=fields[_FIELDS.index("text")], **parse_json(other))
    return CodeChunk(**dict(zip(_FIELDS, fields, strict=True)))


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
        for batch, _ in _record_batches(file, parquet, (*_COLUMNS, "vector")):
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
    try:
        record = _record(values)
        own = record.row_id if isinstance(record, Record) else row_id("", record.id)
        if str(own) == values[0]:
            return record
        why = f"id {values[0]!r} is not the id of that record, nor a lower-case UUID"
    except (C2LLMError, ValueError, TypeError) as error:
        why = f"a record is not readable ({error})"
    raise InputError(f"{file} is damaged: {why}")


def _record_batches(
    file: Path, parquet: pq.ParquetFile, columns: Sequence[str] | None = None
) -> Iterator[tuple[pa.RecordBatch, int]]:
    """Yield the rows that a file holds in these columns, or all, and about how many bytes they have.

    A batch has at most `BATCH` rows, and at most `PART_BYTES` or one row.
    """
    footer, names = Footer(file), None if columns is None else {*columns}
    with ExitStack() as stack:
        # Which columns are kept as dictionaries is said when a file is opened.
        readers: dict[tuple[str, ...], pq.ParquetFile] = {(): parquet}
        # One row group at a time: iterating over all at once keeps the pages of those that were read.
        for group in range(parquet.num_row_groups):
            plan = plan_group(file, footer, group, names, BATCH)
            if (reader := readers.get(plan.dictionaries)) is None:
                again = _parquet_file(file, metadata=parquet.metadata, read_dictionary=plan.dictionaries)
                readers = {(): parquet, plan.dictionaries: (reader := stack.enter_context(again))}
            for batch in reader.iter_batches(plan.rows, row_groups=[group], columns=columns, use_threads=False):
                for part, size in _parts(batch):
                    yield _plain(part, parquet.schema_arrow) if plan.dictionaries else part, size


def _parts(batch: pa.RecordBatch) -> Iterator[tuple[pa.RecordBatch, int]]:
    """Cut a batch into parts of at most `PART_BYTES`, or of one row, and say how many they have."""
    todo = [batch]
    while todo:
        part = todo.pop()
        size = sum(map(_bytes_of, part.columns))
        if size > PART_BYTES and part.num_rows > 1:
            middle = part.num_rows // 2
            todo += [part.slice(middle), part.slice(0, middle)]
        elif part.num_rows:
            yield part, size


def _bytes_of(array: pa.Array) -> int:
    """Return about how many bytes an array's values have, each in full and with what it takes by itself."""
    kind, size = array.type, VALUE_BYTES * len(array)
    if isinstance(array, pa.ExtensionArray):
        return _bytes_of(array.storage)
    if pa.types.is_dictionary(kind):
        lengths = pc.take(pc.binary_length(array.dictionary), array.indices)
        return size + (pc.sum(lengths.cast(pa.int64())).as_py() or 0)
    if pa.types.is_struct(kind):
        return size + sum(map(_bytes_of, array.flatten()))
    if pa.types.is_map(kind):
        start, end = array.offsets[0].as_py(), array.offsets[-1].as_py()
        return size + sum(_bytes_of(one.slice(start, end - start)) for one in (array.keys, array.items))
    if kind.num_fields:  # a list of any kind
        return size + _bytes_of(array.flatten())
    if "view" in str(kind):  # slices of it share all their bytes
        array = array.cast(pa.large_binary())
    return size + int(array.nbytes)


def _plain(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Return a batch in which text stands in full, as far as the schema has it so."""
    columns = [
        _plain_column(column, schema, name) for column, name in zip(batch.columns, batch.schema.names, strict=True)
    ]
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def _plain_column(column: pa.Array, schema: pa.Schema, name: str) -> pa.Array:
    at = schema.get_field_index(name)  # -1 if two have the name
    with suppress(pa.ArrowNotImplementedError):  # Python reads both alike
        return column if at < 0 else column.cast(schema.field(at).type)
    return column


@contextmanager
def _opened(file: Path) -> Iterator[pq.ParquetFile]:
    if file.exists() and not file.is_file():  # a pipe would be waited for
        raise InputError(f"{file} is {'a folder' if file.is_dir() else 'not a file'}; name a file of Parquet")
    try:
        if file.exists():
            require_small_footer(file)
        with _parquet_file(file) as parquet:
            yield parquet
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # not the file's fault
            raise
        lines = str(error).splitlines() or [type(error).__name__]
        raise InputError(f"{file} is not a readable Parquet file ({lines[0]}); write it again") from error


def _parquet_file(file: Path, **options: Any) -> pq.ParquetFile:
    return pq.ParquetFile(file, page_checksum_verification=True, **options)


def _contents(file: Path, parquet: pq.ParquetFile) -> Contents:
    schema = parquet.schema_arrow
    metadata = schema.metadata or {}
    layout = metadata.get(_FORMAT_KEY, b"").decode(errors="replace")
    if layout not in (FORMAT, CHUNKS_FORMAT):
        raise InputError(f"{file} has layout {layout!r}, expected {FORMAT!r}; export it again")
    try:
        spec = _spec(metadata[_SPEC_KEY].decode())
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
    return Contents(spec, claims, parquet.metadata.num_rows)


def _spec(text: str) -> CollectionSpec:
    spec = CollectionSpec.from_json(text)
    CompactPlan(spec.width, spec.datatype, spec.quantization, spec.rescore)
    # A file holds no terms, so those of an earlier release are made anew.
    return spec if spec.analyzer is None else replace(spec, analyzer=ANALYZER)
