"""Chunking stays bounded, in time and in what it makes, whatever a file holds."""

from __future__ import annotations

import pytest

from c2llm_integrations.code.chunking import MAX_SYMBOL_CHARS, chunk_source

NESTED = {
    "a.js": ("function name(){\n", "}\n"),
    "a.rs": ("mod name {\n", "}\n"),
    "a.cpp": ("namespace name {\n", "}\n"),
    "a.ts": ("class name { m() {\n", "}}\n"),
    "a.go": ("func name() {\n", "}\n"),
}


@pytest.mark.parametrize("path", NESTED)
def test_deep_nesting_never_makes_symbols_longer_than_a_bound(path):
    opened, closed = NESTED[path]
    text = opened * 2_000 + closed * 2_000
    chunks = chunk_source("r", path, text)
    assert "".join(chunk.text for chunk in chunks) == text
    assert max(len(chunk.symbol) for chunk in chunks) <= MAX_SYMBOL_CHARS


def test_a_long_heading_is_cut_as_a_symbol():
    [chunk, *_] = chunk_source("r", "a.md", "# " + "word " * 1_000 + "\nText.\n")
    assert 100 < len(chunk.symbol) <= MAX_SYMBOL_CHARS


@pytest.mark.parametrize(
    ("name", "symbol"),
    [
        ("A<B<C>>::f", "A.f"),
        ("A<" * 300 + "B" + ">" * 300 + "::f", "A.f"),
        ("A<" * 1_200 + "B" + ">" * 1_200 + "::f", ""),
    ],
)
def test_template_arguments_are_left_out_of_a_name_however_deep(name, symbol):
    chunk, *_ = chunk_source("r", "a.cpp", f"void {name}() {{\n  return;\n}}\n")
    assert chunk.symbol == symbol


SLOW_TO_PARSE = {"a.c": "a=>\n", "a.java": "A<\n", "a.cs": "A<\n", "a.tsx": "case 1:\n"}


@pytest.mark.slow
@pytest.mark.parametrize("path", SLOW_TO_PARSE)
def test_what_parses_in_the_square_of_its_length_is_cut_by_lines(path):
    text = SLOW_TO_PARSE[path] * (200_000 // len(SLOW_TO_PARSE[path]))
    chunks = chunk_source("r", path, text)
    assert "".join(chunk.text for chunk in chunks) == text
    assert {chunk.kind for chunk in chunks} == {"text"}


@pytest.mark.parametrize("path", ["a.py", "a.js", "a.go"])
def test_a_file_whose_parsing_takes_too_long_is_cut_by_lines(path, monkeypatch):
    text = "x = f(1)\n" * 1_000
    monkeypatch.setattr("c2llm_integrations.code.parsing.PARSE_SECONDS", 60)  # memory may be tidied up meanwhile
    assert {chunk.kind for chunk in chunk_source("r", path, text)} == {"module"}
    monkeypatch.setattr("c2llm_integrations.code.parsing.PARSE_SECONDS", -1e9)
    chunks = chunk_source("r", path, text)
    assert {chunk.kind for chunk in chunks} == {"text"}
    assert "".join(chunk.text for chunk in chunks) == text
