"""Copies of files with holes are equal and cost what their data takes; what cannot be written is told before."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from c2llm_integrations._utils.files import (
    BLOCK_BYTES,
    allocated_bytes,
    blocks_of_data,
    copy_sparse,
    naming,
    real_path,
    require_output,
    require_output_folder,
)
from c2llm_integrations.errors import InputError

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


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has neither pipes nor such rights")
def test_what_cannot_be_written_is_told_before(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_text("")
    require_output(tmp_path / "new")
    require_output(tmp_path / "file")
    for file, why in (
        (tmp_path, "is a folder; name a file in it"),
        (tmp_path / "pipe", "is a pipe or device, which is not written over; name another file"),
        (tmp_path / "none" / "new", f"no folder {tmp_path}/none to write new to; make it, or name another file"),
    ):
        with pytest.raises(InputError, match=why):
            require_output(file)
    monkeypatch.setattr(os, "access", lambda place, what: False)  # root may write anywhere
    with pytest.raises(InputError, match=f"no right to write new into {tmp_path}; name another file"):
        require_output(tmp_path / "new")
    require_output_folder(tmp_path / "new")
    with pytest.raises(InputError, match="file is not a folder; name another"):
        require_output_folder(tmp_path / "file")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is full")
def test_the_file_is_named_where_the_disk_is_full():
    full = Path("/dev/full")
    with pytest.raises(OSError, match="No space left on device: 'rows'"), naming(Path("rows")), full.open("w") as file:
        file.write("x")


def test_links_in_a_circle_have_a_path(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "link").symlink_to(tmp_path)
    assert real_path(tmp_path / "link").samefile(tmp_path)
    assert real_path(tmp_path / "loop").parent == tmp_path.resolve()
