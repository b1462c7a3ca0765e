"""Parsing ends in time, in every state of the parser, and keeps nothing of what it has read."""

import subprocess
import sys
import time
import tracemalloc

import pytest

from c2llm_integrations.code.languages import grammar
from c2llm_integrations.code.parsing import READ_BYTES, parse_within


def test_a_parser_that_recovers_from_errors_ends_in_time():
    pytest.importorskip("tree_sitter_svelte")
    start = time.thread_time()
    assert parse_within(0.2, grammar("svelte"), b"{" + b"%" * 20_000) is None
    assert time.thread_time() - start < 1


@pytest.mark.parametrize("size", [0, 1, READ_BYTES - 1, READ_BYTES, READ_BYTES + 1, 2 * READ_BYTES + 7, 100_000])
def test_every_byte_is_read_and_none_is_kept(size):
    names = [f"name_{number}" for number in range(size // 12)]
    data = "".join(f"{name} = 1\n" for name in names).encode().ljust(size, b"#")[:size]
    parse_within(10, grammar("python"), data)
    tracemalloc.start()
    root = parse_within(10, grammar("python"), data)
    assert root is not None
    assert root.end_byte == size
    assert root.text == data
    del root
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 4_000


def test_a_text_that_ends_in_time_ends_between_characters(tmp_path):
    """Where the parser had read half a character, the end of its text ended the process."""
    pytest.importorskip("tree_sitter_scala")
    (tmp_path / "x.py").write_text(
        "from c2llm_integrations.code.languages import grammar\n"
        "from c2llm_integrations.code.parsing import parse_within\n"
        "data = ('\\ufeff' * 100_000).encode()\n"
        "print([parse_within(hundredths / 100, grammar('scala'), data) for hundredths in range(10)])\n"
    )
    done = subprocess.run([sys.executable, tmp_path / "x.py"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0
    assert "None" in done.stdout


@pytest.mark.parametrize("char", ["é", "€", "😀"])
def test_characters_of_several_bytes_are_read_whole(char):
    data = "".join(f"a{'a' * (number % 5)} = '{char * number}'\n" for number in range(150)).encode()
    root = parse_within(10, grammar("python"), data)
    assert root is not None
    assert root.end_byte == len(data)
    assert root.text == data
    assert [child.text for child in root.children] == data.splitlines()
