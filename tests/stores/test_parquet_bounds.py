"""A Parquet file takes no more memory than its size explains, whatever it says of itself."""

import struct
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from c2llm_integrations.errors import InputError
from c2llm_integrations.stores import parquet, parquet_footer, parquet_pages

ROWS = 3000
REPEATED = [f"value {n % 7}" for n in range(ROWS)]
KINDS = {
    "text": pa.array(REPEATED),
    "a.b": pa.array(REPEATED, pa.large_string()),
    "bytes": pa.array([one.encode() for one in REPEATED]),
    "encoded": pa.array(REPEATED).dictionary_encode(),
    "lists": pa.array([[one, None, "x"] if n % 3 else None for n, one in enumerate(REPEATED)]),
    "lists of lists": pa.array([[[one], []] if n % 3 else [] for n, one in enumerate(REPEATED)]),
    "pairs": pa.array([[one, "x"] for one in REPEATED], pa.list_(pa.string(), 2)),
    "structs": pa.array([{"k": one, "z.y": {"w": [one]}} if n % 5 else None for n, one in enumerate(REPEATED)]),
    "maps": pa.array([[(one, "v")] for one in REPEATED], pa.map_(pa.string(), pa.string())),
    "vectors": pa.array([[1.0, n] for n in range(ROWS)], pa.list_(pa.float32(), 2)),
    "views": pa.array(REPEATED, pa.string_view()),
    "none": pa.nulls(ROWS),
    "bits": pa.array([True, None] * (ROWS // 2)),
}
WAYS = [
    {},
    {"compression": "zstd", "data_page_version": "2.0"},
    {"compression": "gzip", "store_schema": False},
    {"use_dictionary": False},
    {"dictionary_pagesize_limit": 8, "row_group_size": 700},
]
MIB = 2**20


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("name", KINDS)
def test_every_kind_is_read_as_it_was_written(name, kept, tmp_path, monkeypatch):
    if kept:  # as values in lists are that would take too much
        monkeypatch.setattr(parquet_pages, "BATCH_BYTES", 0)
    monkeypatch.setattr(parquet, "PART_BYTES", 1000)
    file = tmp_path / "rows.parquet"
    for way in WAYS:
        pq.write_table(pa.table({name: KINDS[name]}), file, **way)
        assert [row for row, _ in parquet.read_mappings(file)] == pq.read_table(file).to_pylist(), way


def column(values, *, nested=False):
    """A column `x`: the values themselves, or one list of them all."""
    whole = pa.ListArray.from_arrays(pa.array([0, len(values)], pa.int32()), values) if nested else values
    return pa.table({"x": whole, "text": ["a"] * len(whole)})


def repeated(text, times):
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(times, np.int32)), pa.array([text]))


ZEROS = pa.array(np.zeros(30_000_000, np.int32))
LONG = pa.array(["x" * MIB] * 1000)
REFUSED = {
    "a list": (column(ZEROS, nested=True), {}),
    "a list of deltas": (column(ZEROS, nested=True), {"column_encoding": {"x.list.element": "DELTA_BINARY_PACKED"}}),
    "a list of nothing": (column(pa.nulls(len(ZEROS), pa.int32()), nested=True), {}),
    "a list of texts": (column(repeated("x" * MIB, 1000), nested=True), {}),
    "a page": (column(LONG), {"use_dictionary": False}),
}
READ = {
    "texts": (column(repeated("x" * MIB, 1000)), {}),
    "fixed": (column(pa.array([b"x" * MIB] * 1000, pa.binary(MIB))), {}),
    "prefixes": (column(LONG), {"column_encoding": {"x": "DELTA_BYTE_ARRAY"}}),
}
MEASURE = """
import resource, sys
from pathlib import Path
from c2llm_integrations.stores.parquet import read_mappings
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(sum(1 for _ in read_mappings(Path(sys.argv[1]))))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


def write(file, table, how):
    delta = {"use_dictionary": False} if "column_encoding" in how else {}
    pq.write_table(table, file, compression="zstd", **delta, **how)
    assert file.stat().st_size < 100_000


@pytest.mark.parametrize("what", REFUSED)
def test_a_small_file_that_unpacks_to_much_is_refused(what, tmp_path):
    write(tmp_path / "bomb.parquet", *REFUSED[what])
    before = pa.total_allocated_bytes()
    with pytest.raises(InputError, match=r"bomb.parquet.*[\d,]+ bytes.* at most [\d,]+.*(write|split)") as caught:
        list(parquet.read_mappings(tmp_path / "bomb.parquet"))
    assert "\n" not in str(caught.value)
    assert pa.total_allocated_bytes() - before < 16 * MIB


@pytest.mark.skipif(sys.platform != "linux", reason="measured as Linux does")
@pytest.mark.parametrize("what", READ)
def test_a_small_file_of_long_values_is_read_in_little_memory(what, tmp_path):
    """1,000 values of 1 MiB each in a few hundred bytes."""
    write(tmp_path / "bomb.parquet", *READ[what])
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, tmp_path / "bomb.parquet"], capture_output=True, text=True, check=True
    )
    rows, peak = map(int, done.stdout.split())
    assert rows == 1000
    assert peak < 500 * MIB


def test_a_row_over_what_a_line_of_json_may_have_is_refused(tmp_path):
    pq.write_table(pa.table({"text": ["a", "x" * (2**24 + 1)]}), tmp_path / "long.parquet")
    with pytest.raises(InputError, match=r"long.parquet: row 2 has 16,777,\d+ bytes, at most 16,777,216; split it"):
        list(parquet.read_mappings(tmp_path / "long.parquet"))


def test_rows_tell_their_sizes(tmp_path):
    """So that a batch of records ends early whichever field is long."""
    pq.write_table(pa.table({"text": ["a"] * 4, "more": ["x" * 10**6] * 4}), tmp_path / "rows.parquet")
    assert sum(size for _, size in parquet.read_mappings(tmp_path / "rows.parquet")) > 4 * 10**6


@pytest.mark.parametrize(
    ("columns", "what"),
    [(10_001, r"has 10,001 columns, at most 10,000 are read; keep fewer"), (0, "has no columns")],
)
def test_too_many_columns_or_none_are_refused(columns, what, tmp_path):
    table = pa.table({f"{n:x}": [1] for n in range(columns)})
    pq.write_table(table, tmp_path / "wide.parquet", store_schema=False, write_statistics=False)
    with pytest.raises(InputError, match=what):
        list(parquet.read_mappings(tmp_path / "wide.parquet"))


def with_footer(file, footer):
    file.write_bytes(b"PAR1" + footer + struct.pack("<I", len(footer)) + b"PAR1")


def test_a_footer_that_takes_hundreds_of_times_its_size_is_refused(tmp_path):
    with_footer(tmp_path / "f.parquet", bytes(3_000_000))
    with pytest.raises(InputError, match=r"has a footer of 3,000,000 bytes, at most 2,472,153 are read; write fewer"):
        list(parquet.read_mappings(tmp_path / "f.parquet"))


def test_columns_that_share_their_bytes_are_refused(tmp_path):
    """Else each would hold a copy of these."""
    file = tmp_path / "shared.parquet"
    table = pa.table({name: np.random.default_rng(0).bytes(9000).hex().split("0") for name in "abcdefgh"})
    pq.write_table(table, file, use_dictionary=False)
    with pytest.raises(InputError, match="overlap"):
        parquet_pages.plan_group(file, twice(parquet_footer.Footer(file)), 0, None, 1024)


def twice(footer):
    """A footer whose columns all have the bytes of the first, and those of the next ones."""
    chunks = footer.chunks(0)
    end = max(one.start + one.size for one in chunks)
    footer.chunks = lambda _: [parquet_footer.Chunk(one.leaf, 4, end - 4, one.codec, one.values) for one in chunks]
    return footer


# A struct of Thrift: field 1 comes again, a number over 32 bits, a map, a string and a list without an end.
@pytest.mark.parametrize(
    "data", [b"\x15\x02\x05\x02\x04\0", b"\x15\xff\xff\xff\xff\xff\x01\0", b"\x1b\0", b"\x18\x7f", b"\x19\xf5\xff"]
)
def test_what_readers_would_take_differently_is_no_header(data):
    with pytest.raises(parquet_footer.NOT_THRIFT):
        parquet_footer.struct_at(data, 0)


def test_pages_are_counted_as_the_file_has_them(tmp_path):
    """What the footer says of sizes and values is not asked."""
    file = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"x": ["a" * 100] * 5000}), file, use_dictionary=False, compression="zstd")
    unpacked = pq.ParquetFile(file).metadata.row_group(0).column(0).total_uncompressed_size
    assert unpacked > 500_000
    footer = parquet_footer.Footer(file)
    with file.open("rb") as stream:
        [found] = [parquet_pages._column(file, stream, chunk) for chunk in footer.chunks(0)]
    assert sum(found.values) == 5000
    assert abs(sum(found.pages) - unpacked) < 1000
