"""The rows of a collection as a Parquet file, written and read a batch at a time.

A file holds one row a chunk: the chunk's fields and `vector`, a fixed-size list of float32. Its metadata holds the
layout's name, the collection's spec and its claims as JSON; every page has a checksum.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import numpy as np

from c2llm_integrations.code.chunk import CodeChunk
from c2llm_integrations.code.terms import ANALYSER
from c2llm_integrations.compression import CompactPlan
from c2llm_integrations.errors import C2LLMError, InputError, MissingExtra
from c2llm_integrations.stores.rows import Row, row_ids, slices
from c2llm_integrations.stores.spec import CollectionSpec

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError as error:
    raise MissingExtra("pyarrow", "parquet") from error

FORMAT = "c2llm-rows-1"
# Rows held at once, on the way out and on the way in.
BATCH = 1024
_FORMAT_KEY, _SPEC_KEY, _CLAIMS_KEY = b"c2llm.format", b"c2llm.spec", b"c2llm.claims"
_LINES = ("start_line", "end_line")
_FIELDS = ("id", "repository", "path", "language", "symbol", "kind", *_LINES, "text")


@dataclass(frozen=True)
class Contents:
    """What a file says of itself: the spec and claims (repository → what fills it) of its collection, its rows."""

    spec: CollectionSpec
    claims: dict[str, str]
    rows: int


def write_rows(stream: BinaryIO, contents: Contents, rows: Iterator[Row]) -> int:
    """Write a whole file, rows as they come, and return how many there were."""
    metadata = {_FORMAT_KEY: FORMAT, _SPEC_KEY: contents.spec.to_json(), _CLAIMS_KEY: json.dumps(contents.claims)}
    schema = _schema(contents.spec.width).with_metadata(metadata)
    # Vectors do not compress, and a dictionary pays only for what repeats.
    options = {
        "compression": {**dict.fromkeys(_FIELDS, "zstd"), "vector.list.element": "none"},
        "use_dictionary": ["repository", "path", "language", "kind"],
        "write_page_checksum": True,
    }
    written = 0
    with pq.ParquetWriter(stream, schema, **options) as writer:
        for batch in _batches(rows, contents.spec.width):
            writer.write_batch(_record_batch(batch, schema))
            written += len(batch)
    return written


def _batches(rows: Iterator[Row], width: int) -> Iterator[list[Row]]:
    """Cut rows into batches of at most `BATCH` and a few megabytes."""
    while batch := list(islice(rows, BATCH)):
        for part in slices([row.chunk for row in batch], width):
            yield batch[part]


def _record_batch(rows: Sequence[Row], schema: pa.Schema) -> pa.RecordBatch:
    columns = [pa.array([getattr(row.chunk, name) for row in rows], schema.field(name).type) for name in _FIELDS]
    vectors = np.stack([row.vector for row in rows]).astype(np.float32, copy=False)
    columns.append(pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), type=schema.field("vector").type))
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _schema(width: int) -> pa.Schema:
    fields = [pa.field(name, pa.int32() if name in _LINES else pa.string()) for name in _FIELDS]
    return pa.schema([*fields, pa.field("vector", pa.list_(pa.float32(), width))])


def contents_of(file: Path) -> Contents:
    """Return what a file says of itself; raises InputError for a file that `export` did not write."""
    with _opened(file) as parquet:
        return _contents(file, parquet)


def read_rows(file: Path) -> Iterator[list[Row]]:
    """Yield the rows of a file in batches; raises InputError where it is damaged."""
    with _opened(file) as parquet:
        contents = _contents(file, parquet)
        for batch in _record_batches(parquet):
            columns = [batch.column(name) for name in (*_FIELDS, "vector")]
            flat = columns[-1].flatten()
            if flat.null_count or any(column.null_count for column in columns):
                raise InputError(f"{file} has rows without a value in some column; export it again")
            vectors = flat.to_numpy().reshape(-1, contents.spec.width)
            _require_ids(file, columns[0].to_pylist())
            fields = zip(*(column.to_pylist() for column in columns[:-1]), strict=True)
            chunks = (CodeChunk(**dict(zip(_FIELDS, values, strict=True))) for values in fields)
            yield [Row(chunk, vector) for chunk, vector in zip(chunks, vectors, strict=True)]


def _require_ids(file: Path, ids: Sequence[str]) -> None:
    try:
        row_ids(ids)
    except InputError as error:
        raise InputError(f"{file} is damaged: {error}") from error


def _record_batches(parquet: pq.ParquetFile) -> Iterator[pa.RecordBatch]:
    # One row group at a time: iterating over all at once keeps the pages of those that were read.
    for group in range(parquet.num_row_groups):
        yield from parquet.iter_batches(BATCH, row_groups=[group], use_threads=False)


@contextmanager
def _opened(file: Path) -> Iterator[pq.ParquetFile]:
    try:
        with pq.ParquetFile(file, page_checksum_verification=True) as parquet:
            yield parquet
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # not the file's fault
            raise
        lines = str(error).splitlines() or [type(error).__name__]
        raise InputError(f"{file} is no readable Parquet file ({lines[0]}); export it again") from error


def _contents(file: Path, parquet: pq.ParquetFile) -> Contents:
    schema = parquet.schema_arrow
    metadata = schema.metadata or {}
    if metadata.get(_FORMAT_KEY) != FORMAT.encode():
        raise InputError(f"{file} has layout {metadata.get(_FORMAT_KEY)!r}, expected {FORMAT!r}; export it again")
    try:
        spec = _spec(metadata[_SPEC_KEY].decode())
        claims = json.loads(metadata[_CLAIMS_KEY])
        if not all(isinstance(text, str) for pair in claims.items() for text in pair):
            raise TypeError("claims are no texts")
    except (C2LLMError, LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise InputError(f"{file} has damaged metadata ({error}); export it again") from error
    for column in _schema(spec.width):
        at = schema.get_field_index(column.name)
        found = schema.field(at).type if at >= 0 else "missing"
        if found != column.type:
            raise InputError(f"{file} has column {column.name!r} {found}, expected {column.type}; export it again")
    return Contents(spec, claims, parquet.metadata.num_rows)


def _spec(text: str) -> CollectionSpec:
    spec = CollectionSpec.from_json(text)
    CompactPlan(spec.width, spec.datatype, spec.quantization, spec.rescore)
    if spec.analyser not in (None, ANALYSER):
        raise InputError(f"the terms are made by analyser {spec.analyser!r}, this release has {ANALYSER!r}")
    return spec
