from __future__ import annotations

import re
import subprocess
import sys

import pytest
from pygments.lexers import get_all_lexers
from tree_sitter import Parser

from c2llm_integrations.code.languages import PROSE, grammar, is_prose, language_of, languages_called


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
        *(("a.gs", "javascript"), ("a.gsx", "gosu"), ("a.vark", "gosu"), ("a.gd", "gdscript"), ("a.gap", "gap")),
        *(("a.gi", "gap"), ("Singularity", "singularity")),
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
    assert language_of("a.v", "module top(input clk);\nendmodule\n") == "verilog"
    assert language_of("a.v", "From Coq Require Import List.\nLemma a : True.\n") == "coq"
    assert language_of("a.v", "module main\n\nfn main() {\n}\n") == "vlang"
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
    assert grammar("dart") is None


def test_a_grammar_is_imported_only_when_asked_for() -> None:
    code = (
        "import sys\nfrom c2llm_integrations.code.chunking import chunk_source\n"
        "chunk_source('r', 'a.go', 'package a')\n"
        "print(sorted(name for name in sys.modules if name.startswith('tree_sitter_') and '.' not in name))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "['tree_sitter_go']\n"


@pytest.mark.parametrize(
    ("name", "languages"),
    [
        ("TypeScript", ("typescript", "tsx")),
        ("ts", ("typescript", "tsx")),
        ("tsx", ("tsx",)),
        ("jsx", ("javascript",)),
        ("c#", ("csharp",)),
        ("C++", ("cpp",)),
        ("golang", ("go",)),
        ("Objective-C", ("objectivec",)),
        ("node.js", ("javascript",)),
        ("python3", ("python",)),
        ("shell script", ("shell",)),
        (".kt", ("kotlin",)),
        ("VB.NET", ("vb",)),
        ("Emacs Lisp", ("lisp",)),
        ("solidity", ("solidity",)),
        (".NET", ("csharp",)),
        ("React", ("javascript", "tsx")),
        ("*.tsx", ("tsx",)),
        ("MySQL", ("sql",)),
        ("Rocq", ("coq",)),
        ("V lang", ("vlang",)),
        ("GDScript", ("gdscript",)),
        ("Lean 4", ("lean",)),
        ("OCaml", ("ocaml",)),
        ("PostgreSQL", ("sql",)),
        ("PL/SQL", ("sql",)),
        ("klingon", ()),
        ("", ()),
    ],
)
def test_what_people_call_a_language(name: str, languages: tuple[str, ...]) -> None:
    assert languages_called(name) == languages


def test_whatever_a_language_is_called_its_files_have_that_language() -> None:
    told_by_text = {"matlab", "coq", "vlang"}
    for title, aliases, patterns, _ in get_all_lexers(plugins=False):
        suffixes = [one[2:] for one in patterns if re.fullmatch(r"\*\.\w+", one)]
        for name in (*aliases[:1], title) if suffixes else ():
            found = {*languages_called(name)}
            files = {language_of(pattern.replace("*", "x")) for pattern in patterns if "[" not in pattern}
            assert found & (files | told_by_text), name


@pytest.mark.parametrize(
    "suffix",
    "sol pas v sv vhd gd pyx astro cshtml erb jsp hx d cob abap bzl star hbs cls nf bicep cairo ex mojo".split(),  # noqa: SIM905
)
def test_code_without_a_grammar_is_no_prose(suffix: str) -> None:
    assert language_of(f"a.{suffix}") not in PROSE
    assert languages_called(language_of(f"a.{suffix}"))


def test_only_running_text_is_prose() -> None:
    assert all(is_prose(path, language_of(path)) for path in ("README", "a.txt", "b.md", "docs/c.rst", "LICENSE"))
    assert not any(is_prose(path, language_of(path)) for path in ("a.unknown", "b.sol", "v1.2/c.xyz", "BUILD"))


@pytest.mark.parametrize("suffix", "mkd mdown rmd qmd typ textile mediawiki wiki creole rdoc pod texi".split())  # noqa: SIM905
def test_markup_of_any_kind_is_prose(suffix: str) -> None:
    path = f"docs/guide.{suffix}"
    assert is_prose(path, language_of(path))


@pytest.mark.parametrize(
    "name",
    "Brewfile Fastfile Dangerfile Capfile Modelfile Procfile wscript dune-project PKGBUILD APKBUILD Kbuild".split(),  # noqa: SIM905
)
def test_a_name_without_a_suffix_may_be_that_of_code(name: str) -> None:
    assert not is_prose(name, language_of(name))


def test_classes_of_three_languages_share_a_suffix() -> None:
    assert language_of("a.cls", "public class A {\n}\n") == "apex"
    assert language_of("a.cls", "% thesis\n\\NeedsTeXFormat{LaTeX2e}\n") == "tex"
    assert language_of("a.cls", "VERSION 1.0 CLASS\nBEGIN\n") == "vb"
    assert language_of("a.cls", "' A cart\nOption Explicit\nPrivate sum As Long\n") == "vb"


def test_matlab_and_objective_c_share_a_suffix() -> None:
    for text in ("#import <A/A.h>\n", "@interface A\n@end\n", "// A\nint main() {}\n", "- (void)run {\n}\n"):
        assert language_of("a.m", text) == "objectivec"
    for text in ("function y = f(x)\n  y = x';\nend\n", "% A script.\nx = 1;\n", "classdef A\nend\n"):
        assert language_of("a.m", text) == "matlab"
    assert languages_called("MATLAB") == languages_called("octave") == ("matlab",)
    assert language_of("a.m") == "objectivec"
