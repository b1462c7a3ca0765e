from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from c2llm_integrations.code import definitions
from c2llm_integrations.code.chunk import CodeChunk, chunk_id
from c2llm_integrations.code.chunking import CHUNK_CHARS, MAX_LINE_CHARS, chunk_source
from c2llm_integrations.code.languages import language_of
from c2llm_integrations.errors import InputError
from tests.code import test_language_definitions

SOURCES = sorted((Path(__file__).parent / "sources").iterdir())


def read(name: str) -> str:
    return (Path(__file__).parent / "sources" / name).read_bytes().decode()


def is_blank(text: str) -> bool:
    return all(line.strip() in ("", "\ufeff") for line in text.split("\n"))


def checked(path: str, text: str, max_chars: int = CHUNK_CHARS) -> list[CodeChunk]:
    """Chunk a file and check what holds for every file."""
    chunks = chunk_source("repo", path, text, max_chars)
    if is_blank(text):
        assert chunks == []
        return chunks
    assert "".join(chunk.text for chunk in chunks) == text.lstrip("\ufeff")
    assert len({chunk.id for chunk in chunks}) == len(chunks)
    assert {(chunk.repository, chunk.path, chunk.language) for chunk in chunks} == {
        ("repo", path, language_of(path, text))
    }
    next_line = 1
    for chunk in chunks:
        lines = chunk.text.split("\n")[: chunk.text.count("\n") + (not chunk.text.endswith("\n"))]
        assert (chunk.start_line, chunk.end_line) == (next_line, next_line + len(lines) - 1)
        next_line = chunk.end_line + chunk.text.endswith("\n")  # a line that is too long has several chunks
        assert len(chunk.text) <= max(max_chars, MAX_LINE_CHARS) or len(chunk.text.strip()) <= max_chars
        full = [index for index, line in enumerate(lines) if not is_blank(line)]
        assert full, "a chunk of blank lines says nothing"
        assert full[0] == 0 or chunk.start_line == 1, "blank lines belong to the chunk above them"
        body = "\n".join(lines[full[0] : full[-1] + 1])
        assert len(body) <= max_chars or len(full) == 1, "only a single line may be longer"
    return chunks


def outline(chunks: list[CodeChunk]) -> list[str]:
    return [f"{chunk.kind} {chunk.symbol}".strip() for chunk in chunks]


@pytest.mark.parametrize("max_chars", [1, 60, 250, 400, CHUNK_CHARS, 100_000])
@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_every_line_of_a_real_source_is_in_exactly_one_chunk(source: Path, newline: str, max_chars: int) -> None:
    text = read(source.name).replace("\n", newline)
    chunks = checked(source.name, text, max_chars)
    assert chunks == chunk_source("repo", source.name, text, max_chars)


EXPECTED = {
    "inventory.py": """class Shelf|class Inventory|method Inventory.__init__|method Inventory.is_empty
        |method Inventory.put|method Inventory.take|function read_counts""",
    "queue.js": "class JobQueue|function whenIdle|method JobQueue.report|function schedule",
    "Board.tsx": "class BoardProps|class Grouped|function groupTasks|function Card|function Board",
    "events.ts": "class Events.Level|class Events.Entry|function Logged|class Trail",
    "cache.go": "class Entry|class Cache|function New|method Cache.Get|method Cache.Len|method Cache.evict",
    "Ledger.java": """class Ledger|class Ledger.Booking|method Ledger.Ledger|method Ledger.book|method Ledger.balance
        |method Ledger.total|class Auditor""",
    "geometry.rs": """class Point|class Shape|function path.walk|function path.length|class Point|function point
        |function tests.adds_both_coordinates""",
    "ring.c": """function ring_mask|class ring|class ring_status|function round_up|function ring_new
        |function ring_copies|function ring_put""",
    "matrix.hpp": """class example.dense.Matrix|method example.dense.Matrix.operator()
        |method example.dense.Matrix.times|class example.Order|function example.is_square""",
    "Mailer.cs": """class Message|class Mailer|method Mailer.Mailer|method Mailer.Enqueue|method Mailer.SendAsync
        |method Mailer.DisposeAsync""",
    "library.rb": "class Library.Overdue|class Library.Book|function Library.shelve",
    "Router.php": "class Router|class Handler|function redirect",
    "guide.md": "section Installing the program|section Using it",
}


@pytest.mark.parametrize("name", EXPECTED)
def test_functions_methods_and_classes_are_whole_and_named(name: str) -> None:
    assert outline(checked(name, read(name))) == [part.strip() for part in EXPECTED[name].split("|")]


def test_every_source_has_an_expectation() -> None:
    assert sorted([*EXPECTED, *test_language_definitions.EXPECTED]) == [path.name for path in SOURCES]


@pytest.mark.parametrize(
    ("name", "max_chars", "first_line", "symbol"),
    [
        ("inventory.py", 1500, "    # Boxes are opened before they come here.", "Inventory.put"),
        ("inventory.py", 1500, "    @property", "Inventory.is_empty"),
        ("queue.js", 1500, "// Wait until a queue has nothing left to do.", "whenIdle"),
        ("queue.js", 900, "  // Only one drain is ever active.", "JobQueue.drain"),
        ("Board.tsx", 1500, "// A card is drawn again only when its task changes.", "Card"),
        (
            "events.ts",
            400,
            "  public readonly listen = (listener: (entry: T) => void): (() => void) => {",
            "Trail.listen",
        ),
        (
            "cache.go",
            1500,
            "// Cache holds at most Limit entries and forgets the least recently used ones first.",
            "Cache",
        ),
        ("cache.go", 1500, "/* Evict drops entries until the limit holds again.", "Cache.evict"),
        ("Ledger.java", 1500, "    /** One booking: what for, and how much. */", "Ledger.Booking"),
        (
            "Ledger.java",
            1500,
            "    // Sums are never cached: the list is short, and it may be sorted by anybody",
            "Ledger.total",
        ),
        ("geometry.rs", 1500, "    #[inline]", "path.length"),
        ("ring.c", 1500, "/* Sizes are powers of two, so that a mask can stand for a division. */", "round_up"),
        ("matrix.hpp", 1500, "// The inner loop runs along a row of both, which", "example.dense.Matrix.times"),
        ("Mailer.cs", 1500, "        // Messages that fail go to the end of the queue", "Mailer.SendAsync"),
        ("library.rb", 1500, "  # A book that can be lent to one reader at a time.", "Library.Book"),
        ("library.rb", 400, "    # Hand the book to a reader.", "Library.Book.lend"),
        ("Router.php", 600, "    // The first route that fits wins, so the narrow ones", "Router.find"),
    ],
)
def test_what_documents_or_decorates_stays_with_what_follows(
    name: str, max_chars: int, first_line: str, symbol: str
) -> None:
    chunks = [chunk for chunk in checked(name, read(name), max_chars) if chunk.text.startswith(first_line)]
    assert [chunk.symbol for chunk in chunks] == [symbol]


def test_attributes_and_exports_are_inside() -> None:
    def text_of(name: str, symbol: str) -> str:
        return next(chunk.text for chunk in checked(name, read(name), 400) if chunk.symbol == symbol)

    assert "#[derive(Clone, Copy, Debug, PartialEq)]\n#[repr(C)]\npub struct Point" in text_of("geometry.rs", "Point")
    assert "@dataclass(frozen=True)\nclass Shelf" in text_of("inventory.py", "Shelf")
    assert "#[test]\n    fn adds" in text_of("geometry.rs", "tests.adds_both_coordinates")
    assert "template <typename T>\nT& Matrix<T>" in text_of("matrix.hpp", "example.dense.Matrix.operator()")
    assert '[Obsolete("use SendAsync")]\n        public int Enqueue' in text_of("Mailer.cs", "Mailer.Enqueue")
    assert "export default function Board" in text_of("Board.tsx", "Board")


def test_a_large_function_is_cut_between_statements_and_keeps_its_name() -> None:
    body = "".join(
        f"    if flag_{n}:\n        value_{n} = compute_{n}(\n            flag_{n},\n        )\n" for n in range(60)
    )
    text = f'@decorator\ndef outer(a, b):\n    """Do everything."""\n{body}    return a\n\n\nAFTER = 1\n'
    chunks = checked("a.py", text)
    assert {chunk.symbol for chunk in chunks} == {"outer"}
    assert len(chunks) == 4
    assert all(chunk.text.startswith("    if flag_") for chunk in chunks[1:])
    sizes = [len(chunk.text) for chunk in chunks]
    assert max(sizes) - min(sizes) < 200, "parts of about equal size, no crumb at the end"


def test_a_function_inside_a_large_one_has_both_names() -> None:
    inner = "    def inner(x):\n" + "        x += 1\n" * 30 + "        return x\n"
    chunks = checked("a.py", "def outer():\n" + "    y = compute(1, 2, 3)\n" * 80 + inner + "    return inner\n")
    assert "function outer.inner" in outline(chunks)


def test_a_first_line_is_never_alone() -> None:
    text = "def f(argument):\n" + '    """' + "Words about it.\n\n    " * 70 + '"""\n' + "    g(argument)\n" * 30
    first = checked("a.py", text)[0]
    assert first.text.startswith("def f")
    assert len(first.text) > 500


def test_tiny_functions_are_merged_and_others_never() -> None:
    tiny = "".join(f"def f{n}():\n    return {n}\n\n\n" for n in range(20))
    chunks = checked("a.py", tiny)
    assert 2 <= len(chunks) <= 4
    large = "".join(f"def g{n}(a, b):\n" + "    a = compute(a, b)\n" * 12 + "\n\n" for n in range(3))
    assert outline(checked("a.py", large)) == ["function g0", "function g1", "function g2"]


def test_a_class_or_namespace_opens_with_what_follows_it() -> None:
    method = "    def {}(self):\n" + "        self.value = compute(self.value)\n" * 6 + "\n"
    large = (
        "def before():\n"
        + "    compute_something_else()\n" * 10
        + "\n\nclass A:\n"
        + "".join(map(method.format, "abcdefg"))
    )
    chunks = checked("a.py", large)
    assert outline(chunks)[:2] == ["function before", "method A.a"]
    assert chunks[1].text.startswith("class A:\n")


def test_module_statements_go_with_their_neighbour_when_tiny() -> None:
    function = "def f(a, b):\n" + "    a = compute(a, b)\n" * 12
    assert outline(checked("a.py", "import os\n\n" + function + "\nf(1, 2)\n")) == ["function f"]
    imports = "".join(f"from package.module_{n} import name_{n}\n" for n in range(10))
    assert outline(checked("a.py", imports + "\n\n" + function)) == ["module", "function f"]


def test_a_moved_chunk_keeps_its_id_and_equal_ones_are_told_apart() -> None:
    function = "def f(a, b):\n" + "    a = compute(a, b)\n" * 12 + "\n"
    before = chunk_source("r", "a.py", function + function)
    after = chunk_source("r", "a.py", function.replace("f(", "g(") + function + function)
    assert [chunk.id for chunk in before] == [chunk_id("r", "a.py", function, 0), chunk_id("r", "a.py", function, 1)]
    assert [chunk.id for chunk in after[1:]] == [chunk.id for chunk in before]
    assert [chunk.start_line for chunk in after] == [1, 15, 29]


def test_editing_one_function_changes_one_chunk() -> None:
    text = read("inventory.py")
    edited = text.replace("return {article: int(amount)", "return {article.lower(): int(amount)")
    old, new = ({chunk.id: chunk.symbol for chunk in checked("a.py", each)} for each in (text, edited))
    assert [old[key] for key in old.keys() - new.keys()] == ["read_counts"]
    assert [new[key] for key in new.keys() - old.keys()] == ["read_counts"]


def test_blank_files_have_no_chunk() -> None:
    for text in ("", "\n", " \t\r\n\n", "\ufeff", "\ufeff\n", "\f\u2028\n"):
        assert checked("a.py", text) == []
        assert checked("a.txt", text) == []


def test_blank_lines_stay_with_the_chunk_above_them_however_many() -> None:
    for path in ("a.py", "a.txt", "a.md"):
        chunks = checked(path, "\n" * 3_000 + "x = 1\n" + "\n" * 3_000 + "y = 2\n" + "\n" * 3_000)
        assert chunks[0].text.startswith("\n" * 3_000 + "x = 1")


@pytest.mark.parametrize("path", ["a.py", "a.js", "a.unknown"])
def test_a_line_is_never_cut(path: str) -> None:
    line = "x = [" + "1, " * 2_000 + "]\n"
    chunks = checked(path, "a = 1\n" * 300 + line + "b = 2\n" * 300)
    assert max(len(chunk.text) for chunk in chunks) == len(line)


def test_only_newlines_end_a_line() -> None:
    text = "a = 'x\u2028y\x85z'\f\n\x0b\x1cb = 2\r\rc = 3\r\n"
    (chunk,) = checked("a.py", text)
    assert chunk.end_line == 2
    (chunk,) = checked("a.txt", text)
    assert chunk.end_line == 2


def test_a_byte_order_mark_does_not_hide_the_first_definition() -> None:
    (chunk,) = checked("a.py", "\ufeffdef f():\n    return 1\n")
    assert chunk.symbol == "f"


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("a.py", "def f():\n    return 1\n"),
        ("a.py", "\n\n# One.\ndef f():\n    return '\ufeff'\n"),
        ("a.md", "# Title\nText.\n\n# More\nText.\n"),
        ("a.txt", "words\n"),
        ("run", "#!/usr/bin/env python\nx = 1\n"),
        ("a.ipynb", '{"cells": [{"cell_type": "code", "source": "x = 1"}]}'),
    ],
)
@pytest.mark.parametrize("mark", ["\ufeff", "\ufeff\ufeff"])
def test_a_byte_order_mark_changes_no_chunk(path: str, text: str, mark: str) -> None:
    assert chunk_source("repo", path, mark + text) == chunk_source("repo", path, text) != []


@pytest.mark.parametrize(
    ("path", "open_", "close"),
    [
        ("a.py", "(", ")"),
        ("a.js", "[", "]"),
        ("a.c", "{", "}"),
        ("a.rs", "(", ")"),
        ("a.rb", "[", "]"),
        ("a.go", "{", "}"),
    ],
)
@pytest.mark.parametrize("separator", ["", "\n"])
def test_deep_nesting_does_not_exhaust_the_stack(path: str, open_: str, close: str, separator: str) -> None:
    text = "x = " + (open_ + separator) * 10_000 + "1" + (separator + close) * 10_000 + "\n"
    assert checked(path, text)


def test_a_long_chain_of_operators_is_cut_in_reasonable_time() -> None:
    assert len(checked("a.js", "const a = b\n" + "".join(f"  + term_{n}\n" for n in range(10_000)) + ";\n")) > 90


def test_a_chain_of_wrappers_is_looked_through_in_linear_time(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = []
    inner = definitions._inner
    monkeypatch.setattr(definitions, "_inner", lambda node: looks.append(node.type) or inner(node))

    def looked(lines: int) -> int:
        looks.clear()
        chunk_source("r", "x.cpp", "template<class T>\n" * lines + "class X {};\n")
        return len(looks)

    assert 0 < looked(800) < 2.5 * looked(400)
    one = chunk_source("r", "x.cpp", "template<class T>\n" * 3 + "class X {};\n")
    assert [chunk.symbol for chunk in one] == ["X"]


@pytest.mark.parametrize("path", ["a.py", "a.ts", "a.go", "a.java", "a.rs", "a.c", "a.cpp", "a.cs", "a.rb", "a.php"])
def test_what_the_parser_rejects_is_cut_by_lines(path: str) -> None:
    paragraphs = "\n".join(
        f"%% this is }}}} no ((( program <<<{n}>>> \u00e9 ===\nnor is $$ ` this ]]\n" for n in range(100)
    )
    chunks = checked(path, paragraphs)
    assert len(chunks) >= len(paragraphs) // CHUNK_CHARS


def test_one_error_does_not_lose_the_other_functions() -> None:
    function = "def f{}(a, b):\n" + "    a = compute(a, b)\n" * 12 + "\n\n"
    text = function.format(1) + "def broken(:\n    return ((\n\n\n" + function.format(2)
    symbols = {chunk.symbol for chunk in checked("a.py", text)}
    assert {"f1", "f2"} & symbols


def test_text_is_cut_at_blank_lines_and_unindented_ones_first() -> None:
    block = "fun name{}() {{\n    val a = 1\n\n    val b = a + compute(a, a, a, a)\n    return b\n}}\n\n"
    chunks = checked("a.dart", "".join(block.format(n) for n in range(60)))
    assert all(chunk.text.startswith("fun name") for chunk in chunks)
    assert {(chunk.kind, chunk.symbol) for chunk in chunks} == {("text", "")}


def test_headings_in_fences_are_no_headings() -> None:
    long = "Words that fill the section so that it stands alone. " * 5
    text = f"# One ##\n\n{long}\n\n~~~~\n# not\n~~~\n# not either\n~~~~\n\n## Two\n\n{long}\n"
    assert outline(checked("a.md", text)) == ["section One", "section Two"]


def test_unusable_input_is_refused_in_one_line() -> None:
    with pytest.raises(InputError, match="lone surrogate at 1"):
        chunk_source("r", "a.py", "x\ud800")
    with pytest.raises(InputError, match="lone surrogate"):
        chunk_source("r", "a\udce9.py", "x")
    with pytest.raises(InputError, match="max_chars is 0"):
        chunk_source("r", "a.py", "x", 0)


def test_names_in_corner_cases() -> None:
    cases = {
        "a.cpp": (
            "int* a::B<T, C<D>>::get(int x) {{ {}; }}\nB::~B() {{ {}; }}\nB::operator bool() const {{ {}; }}\n"
            "std::ostream& operator<<(std::ostream& out, const B& b) {{ {}; }}\n"
        ),
        "a.go": "func (b *pkg[K, V]) Put() {{ {} }}\nfunc (T) Get() {{ {} }}\n",
        "a.rs": "impl<'a> Trait for &'a mut a::B<T> {{ /* {} */ }}\nimpl Other for [u8] {{ /* {} */ }}\n",
        "a.cs": "class C {{ /* {} */ }}\n",
        "a.js": "exports.run = async () => {{ {} }};\nthis.stop = class {{ /* {} */ }};\nlet {{a}} = {{ {} }};\n",
        "a.py": "async def f():\n    {}\n",
    }
    found = {
        path: [
            chunk.symbol for chunk in checked(path, text.replace("{}", "x" * 220).replace("{{", "{").replace("}}", "}"))
        ]
        for path, text in cases.items()
    }
    assert found == {
        "a.cpp": ["a.B.get", "B.~B", "B.operator bool", "operator<<"],
        "a.go": ["pkg.Put", "T.Get"],
        "a.rs": ["B", "u8"],
        "a.cs": ["C"],
        "a.js": ["run", "stop", ""],
        "a.py": ["f"],
    }


ODD_LINES = [
    *(
        "",
        "",
        " ",
        "\t",
        "\f",
        "\u2028",
        "\ufeff",
        "{",
        "}",
        "(",
        ")",
        "};",
        "end",
        '"""',
        "'''",
        "/*",
        "*/",
        "`",
        "<<~EOS",
    ),
    *(
        "#",
        "//",
        "///",
        "@x",
        "#[x]",
        "#if X",
        "#endif",
        "<?php",
        "?>",
        "\\",
        "é" * 30,
        "x" * 300,
        "\x0b",
        "```",
        "# h",
        "EOS",
    ),
]


@st.composite
def code(draw: st.DrawFn) -> tuple[str, str]:
    """A path, and lines of that language's own source in any order among lines that mislead a parser."""
    source = draw(st.sampled_from(SOURCES))
    lines = read(source.name).split("\n")
    runs = st.integers(0, len(lines) - 1).flatmap(
        lambda start: st.integers(start, min(start + 12, len(lines))).map(lambda end: lines[start:end])
    )
    parts = draw(st.lists(runs | st.sampled_from(ODD_LINES).map(lambda line: [line]), max_size=12))
    newline = draw(st.sampled_from(["\n", "\n", "\r\n"]))
    return source.name, newline.join(line for part in parts for line in part) + draw(st.sampled_from(["", newline]))


@pytest.mark.slow
@settings(max_examples=300)
@given(code(), st.sampled_from([1, 30, 200, 600, CHUNK_CHARS]))
@example(("a.py", "x = '''\n\n\n'''\n\n"), 1)
def test_any_text_comes_back_whole(path_and_text: tuple[str, str], max_chars: int) -> None:
    path, text = path_and_text
    checked(path, text, max_chars)


@settings(max_examples=150)
@given(
    st.sampled_from([path.name for path in SOURCES]),
    st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=300)
    | st.text("(){}[]\n\t \"'#/*:;=abdefclsni<>", max_size=300),
    st.integers(1, 100),
)
def test_any_characters_come_back_whole(path: str, text: str, max_chars: int) -> None:
    checked(path, text, max_chars)
