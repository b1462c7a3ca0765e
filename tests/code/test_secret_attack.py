"""Secrets and long lines that a later attack had found: passwords with any sign, common calls and commands."""

from __future__ import annotations

import time

import pytest

from c2llm_integrations.code.secrets.tables import find_in_tables


@pytest.mark.parametrize(
    "unit", ["-- ", "--bs-blue:#0d6efd;|", "--|", "|--\n", "\n--|--", "a|b\n--|--x\n", "a|b\n--|--\n", " \t", "\n|-"]
)
@pytest.mark.parametrize("before", ["|", "a|pwd\n"])
def test_a_long_line_of_signs_is_read_once(before: str, unit: str) -> None:
    text = before + unit * (2**20 // len(unit))
    start = time.thread_time()
    assert not list(find_in_tables(text))
    assert time.thread_time() - start < 2  # of the square of the length, minutes
