"""Files of JSON lines, whole and broken."""

import gzip
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from c2llm_integrations._utils.json_lines import MAX_LINE_BYTES, MAX_VALUES, parse_json, read_rows
from c2llm_integrations.errors import InputError

# What follows lines that are refused is not read.
GARBAGE = bytes(100)
ROWS = st.lists(st.dictionaries(st.text(), st.text() | st.integers() | st.none(), max_size=3), max_size=5)


def test_what_is_not_a_file_is_named_and_not_waited_for(tmp_path):
    places = {tmp_path: "is a folder", tmp_path / "none": "does not exist"}
    (tmp_path / "loop").symlink_to("loop")
    places[tmp_path / "loop"] = "does not exist"
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
        places[tmp_path / "pipe"] = "is not a file"
    for place, why in places.items():
        with pytest.raises(InputError, match=f"^{place} {why}; name a file of JSON lines$"):
            next(read_rows(place))


@given(rows=ROWS, zipped=st.booleans(), gap=st.sampled_from(["\n", "\n\n", "\n \n"]))
def test_what_was_written_is_read_with_its_place(rows, zipped, gap, tmp_path_factory):
    file = tmp_path_factory.mktemp("rows") / ("rows.jsonl.gz" if zipped else "rows.jsonl")
    data = "".join(json.dumps(row, ensure_ascii=False) + gap for row in rows).encode("utf-8", "replace")
    wanted = [json.loads(line) for line in data.decode().split("\n") if line.strip()]
    file.write_bytes(gzip.compress(data) if zipped else data)
    found = list(read_rows(file))
    assert [row for _, row in found] == wanted
    step = gap.count("\n")
    assert [where for where, _ in found] == [f"{file}: line {1 + step * number}" for number in range(len(rows))]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.jsonl", b"{}\n\n[1]\n", "line 3 is a list, expected an object"),
        ("a.jsonl", b"{}\nnonsense\n", "line 2 is not valid JSON .*; expected one object per line"),
        ("a.jsonl", b"[" * 200_000, "line 1 is not valid JSON"),
        (
            "a.jsonl",
            b'{"a": [' + b"[]," * MAX_VALUES + b"1]}",
            "line 1 has over 2,097,152 commas and brackets; split it",
        ),
        ("a.jsonl", b'{"text": "\xff"}\n', "cannot be read as JSON lines: .*UTF-8"),
        (
            "a.jsonl.gz",
            gzip.compress(b"{}\n" + b" " * (MAX_LINE_BYTES + 1), 1, mtime=0),
            "line 2 has over 16,777,216 bytes",
        ),
        (
            "a.jsonl.gz",
            gzip.compress(b"{}\n" + b" " * 1023 + (b"\n" + b" " * 1023) * 16_384, 1, mtime=0) + GARBAGE,
            "up to line 16,386 there are over 16,777,216 bytes of blank lines in a row; delete them",
        ),
        ("a.jsonl.gz", b"{}\n", "cannot be read as JSON lines"),
        ("a.jsonl.gz", gzip.compress(b"{}\n" * 99, mtime=0)[:-9], "cannot be read as JSON lines"),
        ("a.jsonl.gz", gzip.compress(b"{}\n" * 99, mtime=0)[:12] + b"\xff" * 20, "cannot be read as JSON lines"),
    ],
)
def test_what_cannot_be_read_is_named_in_one_line(name, data, message, tmp_path):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=rf"{name}.*{message}") as caught:
        list(read_rows(tmp_path / name))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("document", ["[" * 200_000, b'{"a":' * 200_000, "{", "\ud800", "1" * 5_000, ""])
def test_json_is_read_or_a_value_error(document):
    with pytest.raises(ValueError, match=r"."):
        parse_json(document)


@pytest.mark.slow
def test_blank_lines_between_rows_have_no_bound_together(tmp_path):
    gap = b"\n" * (MAX_LINE_BYTES // 2)
    (tmp_path / "a.jsonl").write_bytes(gap + b'{"n": 1}\n' + gap + b'{"n": 2}\n' + gap)
    assert [row["n"] for _, row in read_rows(tmp_path / "a.jsonl")] == [1, 2]


@pytest.mark.skipif(not os.path.exists("/dev/fd"), reason="this system gives a process no files by number")
def test_what_this_process_was_given_is_read(tmp_path):
    (file := tmp_path / "rows.jsonl").write_text('{"id": 1}\n')
    read, write = os.pipe()
    os.write(write, file.read_bytes())
    os.close(write)
    try:
        assert [row for _, row in read_rows(Path(f"/dev/fd/{read}"))] == [{"id": 1}]
    finally:
        os.close(read)
