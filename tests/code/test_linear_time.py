"""A small file cannot take long by what it holds: each of these took minutes, or for ever."""

import json
import time
from functools import partial

import pytest

from c2llm_integrations.code.chunking import chunk_source
from c2llm_integrations.code.exclude import DATA, SECRET, why_skip_text
from c2llm_integrations.code.source_file import read_source, redacted

FRAME = "key = '-----BEGIN PRIVATE KEY-----\n"
LONG = 2_000
FILES = {
    "headers on a line.py": FRAME + "a: " * LONG,
    "headers of dashes.py": FRAME + f"{'-' * 40}: x\n" * LONG,
    "backslashes.py": FRAME + "\\" * LONG + "!",
    "numbers.c": "a = b\n" * 2 * LONG + "0x11" * LONG + "z\n",
    "a notice.c": f"// generated\n// {'-' * 8_000}\nint x;",
    "a notice with a file.c": f"// generated from{'(' * 8_000}\nint x;",
    "a notice with a name.c": f"// generated\n// a{'-./' * 2_500}\nint x;",
    "a language.ipynb": json.dumps({"cells": [], "metadata": {"language_info": {"name": "1" * 2**19 + "x"}}}),
}


@pytest.mark.parametrize("path", FILES)
def test_a_file_takes_linear_time(tmp_path, path):
    (tmp_path / path).write_text(FILES[path], "utf-8")
    start = time.thread_time()
    source, _ = read_source(tmp_path, path)
    if not isinstance(source, str):
        chunk_source("repository", path, redacted(source).text)
    assert time.thread_time() - start < 20


KEY = "Xb7dQ0rTn2LmV5sKw9PzYc3BAQEFAASCBKcwggSj"
HEADERS = ("Proc-Type: 4,ENCRYPTED", "DEK-Info: DES-EDE3-CBC,3F17F5316E2BAC89")


@pytest.mark.parametrize(
    "between",
    ["\n", "\\n", "\\\\n", "\\r\\n", '\\n" +\n    "', "\n# ", "\\\n"],
)
@pytest.mark.parametrize("headers", [(), HEADERS])
def test_a_private_key_is_found_under_its_headers(between, headers):
    text = between.join(("x = '-----BEGIN RSA PRIVATE KEY-----", *headers, KEY))
    assert why_skip_text(text, False) == SECRET


def test_a_private_key_is_found_on_one_line_with_its_headers():
    assert why_skip_text(" ".join(("KEY=-----BEGIN RSA PRIVATE KEY-----", *HEADERS, KEY)), False) == SECRET


@pytest.mark.parametrize("row", ["0x1e, 0XaF,\n", "0x10x5 -1.5e+3\n", "[1, (2)]; {3}\n"])
def test_lines_of_numbers_are_data(row):
    judge = partial(why_skip_text, prose=False)
    assert judge(row * 3_000) == DATA
    assert judge((row.rstrip() + "g\n") * 3_000) is None
