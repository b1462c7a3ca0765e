"""Parsing ends in time, in every state of the parser, and keeps nothing of what it has read."""

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
