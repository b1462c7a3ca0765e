"""Grammars of the extra `languages`: what they define, where it stands, and what happens without them."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from c2llm_integrations.code import languages
from c2llm_integrations.code.chunking import chunk_source
from c2llm_integrations.code.languages import grammar, language_of, missing_grammars_note
from c2llm_integrations.code.repository import open_tree

SOURCES = Path(__file__).parent / "sources"
# Lines, kind and symbol of each chunk of at most 300 characters.
EXPECTED = {
    "Basket.vue": """
        1-9 module
        10-21 class Item
        22-28 function price
        29-35 function remove
        36-42 module
        """,
    "Counter.svelte": """
        1-8 function resetAll
        9-14 module
        15-22 function step
        23-35 module
        """,
    "Ferry.kt": """
        1-8 class Route
        9-11 method Route.parse
        12-21 method Route.parse
        22-29 method Route.toString
        30-40 class Deck
        41-45 method Harbor.now
        46-52 method Harbor.moor
        53-57 function Route.shared
        """,
    "Garden.hs": """
        1-9 module
        10-15 function water
        16-28 class Plant
        29-37 class Thirsty
        38-49 class Thirsty
        50-54 function main
        """,
    "Meter.swift": """
        1-2 module
        3-12 class Reading
        13-18 class Source
        19-29 method Meter.init
        30-33 method Meter.deinit
        34-39 method Meter.average
        40-48 method Meter.readings
        49-58 class MeterError
        59-65 class Array
        66-73 class Log
        74-77 function compare
        """,
    "Orchard.scala": """
        1-7 class Tree
        8-14 method Tree.compare
        15-18 method Tree.best
        19-26 class Tree
        27-36 class Pest
        37-40 class byName
        41-45 function heaviest
        46-49 function report
        """,
    "backup.sh": """
        1-7 module
        8-17 function log
        18-26 function rotate
        27-37 function copy
        """,
    "clock.html": """
        1-11 module
        12-14 module
        15-24 function pad
        25-30 function show
        31-34 module
        """,
    "ledger.ml": """
        1-16 class booking
        17-33 class STORE
        34-36 class File_store.t
        37-41 function File_store.load
        42-46 function File_store.save
        47-54 method account.add
        55-63 method account.describe
        """,
    "ledger.mli": """
        1-7 class booking
        8-11 function File_store.load
        """,
    "library.sql": """
        1-8 class library.reader
        9-18 class loan
        19-26 class overdue
        27-31 function lend
        32-38 function lend
        """,
    "mailbox.ex": """
        1-6 module Post.Mailbox
        7-12 function Post.Mailbox.put
        13-18 function Post.Mailbox.put
        19-27 function Post.Mailbox.oldest
        28-35 function Post.Mailbox.with_box
        36-46 class Post.Stamp
        47-52 class Post.Stamp.BitString
        """,
    "pool.zig": """
        1-11 class Pool
        12-13 method Pool.take
        14-23 method Pool.take
        24-31 method Pool.give
        32-33 class Order
        34-45 function List
        46-52 function main
        53-59 function a slot is taken once
        """,
    "stack.lua": """
        1-14 function Stack.new
        15-22 method Stack.push
        23-33 function Stack.drain
        34-41 function describe
        42-49 function copy
        50-58 module
        """,
    "tides.jl": """
        1-18 class Tides.Station
        19-28 class Tides.Log
        29-33 function Tides.height
        34-36 function Tides.is_high
        37-42 function Tides.scaled
        43-47 function Tides.Base.show
        48-58 function Tides.logged
        """,
}


def outline(path: str, text: str, max_chars: int = 300) -> list[str]:
    chunks = chunk_source("repo", path, text, max_chars)
    return [f"{one.start_line}-{one.end_line} {one.kind} {one.symbol}".strip() for one in chunks]


def names(path: str, text: str) -> list[str]:
    """What is defined, each definition long enough for a chunk of its own: `…` stands for a long line."""
    long = text.replace("…", "x" * 220)
    return [f"{one.kind} {one.symbol}".strip() for one in chunk_source("repo", path, long, 400)]


@pytest.mark.parametrize("name", EXPECTED)
def test_definitions_stand_where_they_are_written(name):
    lines = [line.strip() for line in EXPECTED[name].strip().split("\n")]
    assert outline(name, (SOURCES / name).read_text(encoding="utf-8")) == lines


def test_every_grammar_of_the_extra_has_a_source():
    assert {language_of(name) for name in EXPECTED} == set(languages._EXTRA_GRAMMARS)


@pytest.mark.parametrize(
    ("path", "text", "found"),
    [
        ("a.kt", "fun interface F {\n// …\nfun f()\n}\n", "class F"),
        ("a.kt", "val g = fun(x: Int): Int {\n// …\nreturn x\n}\nval n = listOf(\n// …\n1)\n", "function g|module"),
        ("a.kt", "class A {\nval s = …\n\nconstructor(x: Int) {\n// …\n}\n}\n", "class A|method A.constructor"),
        ("a.kt", "fun <T> List<T>.second(): T {\n// …\nreturn this[1]\n}\n", "function List.second"),
        ("a.kt", "class A {\ncompanion object B {\n// …\nfun f() {\n// …\n}\n}\n}\n", "method A.B.f|method A.B.f"),
        ("a.scala", "package a {\nobject B {\n// …\n}\nclass C {\n// …\n}\n}\n", "class B|class C"),
        ("a.scala", "object A {\nval s = …\n\nval f = (x: Int) => {\n// …\nx\n}\n}\n", "class A|method A.f"),
        ("a.swift", "extension A.B where C == D {\n// …\n}\nenum E {\n// …\n}\n", "class A.B|class E"),
        ("a.ex", "def unquote(name)(x) do\n# …\nend\n", "function unquote(name)"),
        ("a.ex", "def a <~> b do\n# …\nend\ndefguard is_a(x)\n    # …\n    when x > 1\n", "function <~>|function is_a"),
        ("a.lua", "a.b.c = function()\n-- …\nend\nt['x'] = function()\n-- …\nend\n", "function a.b.c|module"),
        ("a.lua", "a, b = function()\n-- …\nend, 1\nfunction m.n:o()\n-- …\nend\n", "module|method m.n.o"),
        ("a.sql", "BEGIN;\nCREATE TABLE [a].`b` (\n-- …\nx INT\n);\nCOMMIT;\n", "class a.b"),
        ("a.zig", "const A = union(enum) {\n// …\na: i32,\n};\ntest B {\n// …\n}\n", "class A|function B"),
        ("a.hs", "f `on` g = x\n  where\n    -- …\n    x = 1\n(g . h) x =\n  -- …\n  1\n", "function on|function ."),
        ("a.hs", "instance (Eq a) => Monad (State a) where\n  -- …\n  x = 1\n", "class Monad.State"),
        ("a.ml", "let f = fun x ->\n(* … *)\nx\nlet v =\n(* … *)\n1\n", "function f|module"),
        ("a.ml", "module F (X : S) = struct\nlet v = …\n\nlet f x =\n(* … *)\nx\nend\n", "module F|function F.f"),
        ("a.jl", "function (p::P)(x)\n# …\nend\nfunction A.f(x)::T where T\n# …\nend\n", "module|function A.f"),
        ("a.jl", "f(x::T) where {T} = begin\n# …\nx\nend\nx::Int = begin\n# …\n1\nend\n", "function f|module"),
        ("a.jl", "@a @b function f()\n# …\nend\nconst g = x -> begin\n# …\nend\n", "function f|function g"),
        ("a.sh", "if x; then\necho …\n\nf() {\n# …\n:\n}\nfi\n", "module|function f"),
    ],
)
def test_names_in_corner_cases(path, text, found):
    assert names(path, text) == found.split("|")


JS, TS = "function f(x) {{\n// {}\nreturn x\n}}\n", "function g(x: A<B>): C {{\n// {}\nreturn x as C\n}}\n"


@pytest.mark.parametrize(
    ("tag", "script", "symbol"),
    [
        ("<script>", JS, "f"),
        ("<script type='module' async>", JS, "f"),
        ('<script lang="ts">', TS, "g"),
        ("<script setup lang=tsx>", TS, "g"),
        ('<script type="text/template">', JS, ""),
        ('<script lang="coffee">', JS, ""),
        ("<style>", JS, ""),
    ],
)
@pytest.mark.parametrize("path", ["a.html", "a.vue", "a.svelte"])
def test_a_script_is_read_by_the_grammar_of_its_own_language(path, tag, script, symbol):
    end = f"</{tag[1:-1].split()[0]}>"
    text = f"<p>é</p>\n{tag}\n{script.format('x' * 300)}{end}\n<p>after</p>\n"
    chunks = chunk_source("repo", path, text, 400)
    assert "".join(chunk.text for chunk in chunks) == text
    assert [chunk.symbol for chunk in chunks if chunk.symbol] == [symbol][: bool(symbol)]
    assert all(chunk.start_line in (1, 2) for chunk in chunks if chunk.symbol)


def test_many_scripts_of_a_page_are_parsed_together(monkeypatch):
    parsed = []
    real = languages.grammar
    monkeypatch.setattr(
        "c2llm_integrations.code.parsing.grammar", lambda language: parsed.append(language) or real(language)
    )
    text = "<script>\nlet a = 1\n</script>\n<script lang='ts'>\nlet b = 1\n</script>\n" * 500
    assert "".join(chunk.text for chunk in chunk_source("repo", "a.html", text)) == text
    assert sorted(parsed) == ["html", "javascript", "typescript"]


@pytest.mark.parametrize(
    "text", ["<script>", "<script></script>", "<script>\n", "</script>\n<script>let a\n", "<script\n"]
)
@pytest.mark.parametrize("path", ["a.html", "a.vue", "a.svelte"])
def test_a_broken_page_comes_back_whole(path, text):
    assert "".join(chunk.text for chunk in chunk_source("repo", path, text)) == text


# Each takes its parser seconds to minutes for the 4 KiB of one probe, or for the whole.
@pytest.mark.parametrize(("path", "unit"), [("a.swift", "/*"), ("a.swift", "& "), ("a.zig", "/*"), ("a.hs", "if x ")])
def test_a_probe_that_never_ends_is_stopped(path, unit):
    text = unit * 5_000
    assert {chunk.kind for chunk in chunk_source("repo", path, text)} == {"text"}


@pytest.mark.parametrize(
    ("path", "unit"),
    [
        ("a.jl", "@a "),
        ("a.jl", "A.f(x)::B where "),
        ("a.ex", "def "),
        ("a.ex", "def a when "),
        ("a.kt", "class A {\n"),
        ("a.scala", "extension (x: A)\n"),
        ("a.ml", "module A = struct\n"),
        ("a.hs", "f x = f where\n "),
        ("a.lua", "a = function() "),
        ("a.html", "<div>\n<script>f(function () {\n</script>\n"),
    ],
)
def test_deep_nesting_comes_back_whole(path, unit):
    text = unit * 3_000
    assert "".join(chunk.text for chunk in chunk_source("repo", path, text)) == text


@pytest.fixture
def without_extra(monkeypatch):
    """As if no package of the extra were installed."""
    monkeypatch.setattr(
        languages, "find_spec", lambda name: None if name.endswith(("kotlin", "bash", "html")) else find_spec(name)
    )
    for cached in (grammar, languages.is_missing):
        cached.cache_clear()
    yield
    for cached in (grammar, languages.is_missing):
        cached.cache_clear()


@pytest.mark.usefixtures("without_extra")
@pytest.mark.parametrize("path", ["Ferry.kt", "backup.sh", "clock.html", "Basket.vue"])
def test_without_its_grammar_a_file_is_cut_by_lines(path):
    chunks = chunk_source("repo", path, (SOURCES / path).read_text(encoding="utf-8"), 300)
    assert {(chunk.kind, chunk.symbol) for chunk in chunks} == {("text", "")}


@pytest.mark.usefixtures("without_extra")
def test_missing_grammars_are_told_where_a_tenth_of_the_files_needs_them(tmp_path):
    for name in ("a.kt", "b.kts", "c.sh", *(f"{n}.py" for n in range(17))):
        (tmp_path / name).write_text("x\n", encoding="utf-8")
    assert [note for note in open_tree(tmp_path).notes if "pip" in note] == [
        '2 files (kotlin) are cut by lines; for whole functions: pip install "c2llm-integrations[languages]"'
    ]


def test_nothing_is_told_where_every_grammar_is_there():
    assert missing_grammars_note(["a.kt", "b.py", "c", ".sh"]) is None
    assert missing_grammars_note([]) is None
