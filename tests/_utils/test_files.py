"""Copies of files with holes are equal, and cost what their data takes."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from c2llm_integrations._utils.files import BLOCK_BYTES, allocated_bytes, blocks_of_data, copy_sparse

PLACES = st.integers(0, 6 * BLOCK_BYTES)


@given(st.lists(st.tuples(PLACES, st.binary(max_size=9)), max_size=4), PLACES)
def test_a_copy_is_equal_wherever_the_holes_are(tmp_path_factory, pieces, size):
    folder = tmp_path_factory.mktemp("sparse")
    (folder / "from" / "in").mkdir(parents=True)
    file = folder / "from" / "in" / "x"
    with file.open("wb") as written:
        written.truncate(size)
        for at, data in pieces:
            written.seek(at)
            written.write(data)
    copy_sparse(folder / "from", folder / "to")
    assert (folder / "to" / "in" / "x").read_bytes() == file.read_bytes()


@pytest.mark.skipif(not hasattr(os, "SEEK_DATA"), reason="this system does not tell where holes are")
def test_a_hole_of_a_terabyte_is_not_read(tmp_path):
    (tmp_path / "from").mkdir()
    file = tmp_path / "from" / "x"
    with file.open("wb") as written:
        written.write(b"begin")
        written.seek(2**40)
        written.write(b"end")
    with file.open("rb", buffering=0) as read:
        assert [at for at, _ in blocks_of_data(read, BLOCK_BYTES)] == [0, 2**40]
    copy_sparse(tmp_path / "from", tmp_path / "to")
    assert (tmp_path / "to" / "x").stat().st_size == 2**40 + 3
    assert allocated_bytes(tmp_path / "to") < 2**20
