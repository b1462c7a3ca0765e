from __future__ import annotations

import subprocess
import sys

import pytest
from tree_sitter import Parser

from c2llm_integrations.code.languages import grammar, language_of


@pytest.mark.parametrize(
    ("path", "language"),
    [
        ("a/b.py", "python"),
        ("a.pyi", "python"),
        ("A.PY", "python"),
        ("a.jsx", "javascript"),
        ("a.mts", "typescript"),
        ("a.tsx", "tsx"),
        ("a.go", "go"),
        ("go.mod", "go.mod"),
        ("A.java", "java"),
        ("a.rs", "rust"),
        ("a.c", "c"),
        ("a.h", "c"),
        ("a.cc", "cpp"),
        ("a.cs", "csharp"),
        ("a.rb", "ruby"),
        ("Rakefile", "ruby"),
        ("a.php", "php"),
        ("Makefile", "makefile"),
        ("docker/Dockerfile", "dockerfile"),
        ("Dockerfile.dev", "dockerfile"),
        ("CMakeLists.txt", "cmake"),
        ("README.md", "markdown"),
        ("a.sql", "sql"),
        ("a.sh", "shell"),
        ("notes.txt", "text"),
        ("LICENSE", "text"),
        ("py", "text"),
        (".py", "python"),
        ("a.unknown", "text"),
    ],
)
def test_the_name_decides(path: str, language: str) -> None:
    assert language_of(path) == language


@pytest.mark.parametrize(
    ("first_line", "language"),
    [
        ("#!/usr/bin/env python3", "python"),
        ("#!/usr/bin/python3.11 -u", "python"),
        ("#!/bin/sh", "shell"),
        ("#! /bin/bash -e", "shell"),
        ("#!/usr/bin/env -S node --test", "javascript"),
        ("#!/usr/bin/env LANG=C ruby", "ruby"),
        ("#!/usr/bin/awk -f", "text"),
        ("#!", "text"),
        ("echo", "text"),
    ],
)
def test_a_script_without_suffix_is_known_by_its_first_line(first_line: str, language: str) -> None:
    assert language_of("bin/tool", first_line + "\nbody\n") == language


def test_the_text_tells_look_alikes_apart() -> None:
    assert language_of("a.h", "namespace x {\n}\n") == "cpp"
    assert language_of("a.h", "template <class T> struct S;\n") == "cpp"
    assert language_of("a.h", "struct namespace_of { int using_it; };\n") == "c"
    assert language_of("a.ts", "<?xml version='1.0'?>\n<TS>") == "xml"


@pytest.mark.parametrize(
    "language",
    "python javascript typescript tsx go java rust c cpp cuda csharp ruby php".split(),  # noqa: SIM905
)
def test_every_grammar_loads_and_parses(language: str) -> None:
    rules = grammar(language)
    assert rules is not None
    assert Parser(rules).parse(b"x").root_node.end_byte == 1


def test_other_languages_have_no_grammar() -> None:
    assert grammar("sql") is None


def test_a_grammar_is_imported_only_when_asked_for() -> None:
    code = (
        "import sys\nfrom c2llm_integrations.code.chunking import chunk_source\n"
        "chunk_source('r', 'a.go', 'package a')\n"
        "print(sorted(name for name in sys.modules if name.startswith('tree_sitter_') and '.' not in name))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "['tree_sitter_go']\n"
