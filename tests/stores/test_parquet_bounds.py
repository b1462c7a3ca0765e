"""A Parquet file takes no more memory than its size explains, whatever it says of itself."""

import struct
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from c2llm_integrations.errors import InputError
from c2llm_integrations.stores import parquet

pytestmark = pytest.mark.slow

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


@pytest.mark.parametrize("small", [0, 2**24])
@pytest.mark.parametrize("name", KINDS)
def test_every_kind_is_read_as_it_was_written(name, small, tmp_path, monkeypatch):
    monkeypatch.setattr(parquet, "SMALL_GROUP_BYTES", small)
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


REFUSED = {
    "a list": column(pa.array(np.zeros(70_000_000, np.int32)), nested=True),
    "pages": column(pa.array(["x" * MIB] * 300)),
}
MEASURE = """
import resource, sys
from pathlib import Path
from c2llm_integrations.stores.parquet import read_mappings
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(sum(1 for _ in read_mappings(Path(sys.argv[1]))))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


@pytest.mark.parametrize("what", REFUSED)
def test_a_small_file_that_unpacks_to_much_is_refused(what, tmp_path):
    pq.write_table(REFUSED[what], tmp_path / "bomb.parquet", compression="zstd", use_dictionary=False)
    before = pa.total_allocated_bytes()
    with pytest.raises(InputError, match=r"bomb.parquet unpacks to [\d,]+ bytes in row group 0, at most [\d,]+"):
        list(parquet.read_mappings(tmp_path / "bomb.parquet"))
    assert pa.total_allocated_bytes() - before < 16 * MIB


@pytest.mark.skipif(sys.platform != "linux", reason="measured as Linux does")
@pytest.mark.parametrize("text", ["x" * MIB, b"x" * MIB], ids=["text", "bytes"])
def test_a_small_file_of_long_values_is_read_in_little_memory(text, tmp_path):
    """1,000 values of 1 MiB each in a few hundred bytes."""
    file = tmp_path / "bomb.parquet"
    pq.write_table(column(repeated(text, 1000)), file, compression="zstd", store_schema=False)
    assert file.stat().st_size < 10_000
    done = subprocess.run([sys.executable, "-c", MEASURE, file], capture_output=True, text=True, check=True)
    rows, peak = map(int, done.stdout.split())
    assert rows == 1000
    assert peak < 300 * MIB


def test_a_row_over_what_a_line_of_json_may_have_is_refused(tmp_path):
    pq.write_table(pa.table({"text": ["a", "x" * (2**24 + 1)]}), tmp_path / "long.parquet")
    with pytest.raises(InputError, match=r"long.parquet: row 2 has 16,777,\d+ bytes, at most 16,777,216; split it"):
        list(parquet.read_mappings(tmp_path / "long.parquet"))


def test_rows_tell_their_sizes(tmp_path):
    """So that a batch of records ends early whichever field is long."""
    pq.write_table(pa.table({"text": ["a"] * 4, "more": ["x" * 10**6] * 4}), tmp_path / "rows.parquet")
    assert sum(size for _, size in parquet.read_mappings(tmp_path / "rows.parquet")) > 4 * 10**6


def with_footer(file, footer):
    file.write_bytes(b"PAR1" + footer + struct.pack("<I", len(footer)) + b"PAR1")


def test_a_footer_that_takes_hundreds_of_times_its_size_is_refused(tmp_path):
    with_footer(tmp_path / "f.parquet", bytes(3_000_000))
    with pytest.raises(InputError, match=r"has a footer of 3,000,000 bytes, at most 1,423,577 are read; write fewer"):
        list(parquet.read_mappings(tmp_path / "f.parquet"))
