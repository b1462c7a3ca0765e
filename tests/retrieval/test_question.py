"""What a question looks like, and what it names."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from c2llm_integrations.retrieval.question import MAX_QUESTION_CHARS, kind_of, read
from c2llm_integrations.retrieval.search import for_model

TRACE = """Traceback (most recent call last):
  File "/home/me/shop/prices.py", line 12, in total
    return sum(self.items)
TypeError: unsupported operand type(s) for +: 'int' and 'str'
"""


@pytest.mark.parametrize(
    ("query", "kind"),
    [
        ("StaticModel", "symbol"),
        ("response", "symbol"),
        ("app.use()", "symbol"),
        ("std::vector::push_back", "symbol"),
        ("valid?", "symbol"),
        ("找到", "symbol"),
        ("how does dependency injection work", "words"),
        ("request validation and error handling", "words"),
        ("how sub-applications are mounted with use() and path prefix stripping", "words"),
        ("JSON Schema to Zod schema conversion", "words"),
        ("what is the error: handler", "words"),
        ("?!...", "words"),
        ("", "words"),
        (TRACE, "error"),
        ("ValueError: level must be 'head', 'row' or 'foot'", "error"),
        ("InvalidURL: invalid port", "error"),
        ("TypeError: x is not a function\n    at Layer.handle (lib/router.js:95:5)", "error"),
        ("thread 'main' panicked at src/main.rs:4:5", "error"),
        ("error[E0382]: borrow of moved value", "error"),
        ("def one():\n    return 1\n", "code"),
        ("for (let i = 0; i < n; i++) { total += items[i]; }", "code"),
        ("x = sorted(rows, key=len)", "code"),
        ("from a import b\nfrom c import d", "code"),
    ],
)
def test_kinds(query, kind):
    assert kind_of(query) == kind


def test_a_name_is_cut_at_its_separators():
    assert list(read("express.Router()").name) == ["express", "Router"]
    assert list(read("A::b->c").name) == ["A", "b", "c"]
    assert list(read("how does the router work").name) == []


@pytest.mark.parametrize("separator", [".", "::", "#", "->"])
def test_what_is_read_of_a_question_is_bounded(separator):
    assert kind_of(separator.join(["a"] * 300)) == "symbol"
    read_of = read(separator.join(["a"] * 400_000))
    assert read_of.kind != "symbol"
    assert read_of.name == []
    assert max(map(len, (read_of.terms, read_of.stems, read_of.words, read_of.locations))) < 1_000


def test_what_a_model_gets_of_a_question_is_bounded():
    for word in ("word ", "字a"):
        assert len(for_model(word * MAX_QUESTION_CHARS)) <= 2 * MAX_QUESTION_CHARS


def test_places_in_stack_traces():
    assert read(TRACE).locations == [("/home/me/shop/prices.py", 12)]
    assert read("at f (lib/router.js:95:5)").locations == [("lib/router.js", 95)]
    assert read(r"C:\shop\a.cs(7): error").locations == [("/shop/a.cs", 7)]
    assert read("at 10:30 in 3.5 hours").locations == []
    assert read("a.py moved at 10:30 (see 2)").locations == []


@pytest.mark.parametrize(
    ("trace", "place"),
    [
        ("   at A.B() in C:\\my app\\Foo.vb:line 7", ("/my app/Foo.vb", 7)),
        ("#0 /var/www/my app/src/Foo.php(42): Bar->baz()", ("/var/www/my app/src/Foo.php", 42)),
        ("    at x (/p/app/[...all]/(shop)/+server.ts:3:1)", ("/p/app/[...all]/(shop)/+server.ts", 3)),
        ("Dockerfile:3", ("Dockerfile", 3)),
        ("   bei A.B() in C:\\p\\Foo.cs:Zeile 42.", ("/p/Foo.cs", 42)),
        ("   à A.B() dans C:\\p\\Foo.cs:ligne 42", ("/p/Foo.cs", 42)),
        ("make: *** [Makefile:12: all] Error 2", ("Makefile", 12)),
        ("bin/deploy: line 12: foo: command not found", ("bin/deploy", 12)),
        ("[ERROR] /p/K.java:[12,5] cannot find symbol", ("/p/K.java", 12)),
        ("e: /p/K.kt: (12, 5): Unresolved reference", ("/p/K.kt", 12)),
        ("Died at lib/a.pl line 12.", ("lib/a.pl", 12)),
        ("#0      f (package:app/src/a.dart:12:5)", ("src/a.dart", 12)),
        ("f@http://localhost:8080/src/a.js:12:5", ("src/a.js", 12)),
        ("psql:a.sql:12: ERROR:  syntax error", ("a.sql", 12)),
        ("At line 12 of file src/a.f90 (unit = 5)", ("src/a.f90", 12)),
        ("          at: f (res://player/a.gd:12)", ("player/a.gd", 12)),
        ("https://github.com/o/r/blob/main/src/a.py#L12-L20", ("o/r/blob/main/src/a.py", 12)),
        ("see src/a.py, lines 12-20", ("src/a.py", 12)),
        ("PHP Fatal error: x in /app/bin/run on line 7", ("/app/bin/run", 7)),
        (" \u2a2f app/page.tsx (12:5) @ f", ("app/page.tsx", 12)),
        ("package:app/src/a.dart 12:5  main", ("src/a.dart", 12)),
        ("is not valid. .github/ci.yml (Line: 12, Col: 5): x", (".github/ci.yml", 12)),
        ("\x1b[36msrc/a.py\x1b[0m:\x1b[1;33m12\x1b[0m:5: E501", ("src/a.py", 12)),
        ("    at f (\x1b]8;;file:///p/a.js\x1b\\/p/a.js\x1b]8;;\x07\x1b[24m:12:5)", ("/p/a.js", 12)),
    ],
)
def test_places_of_other_runtimes(trace: str, place: tuple[str, int]) -> None:
    assert place in read(trace).locations


def test_stems_are_those_of_the_terms():
    question = read("where are routes registered")
    assert list(question.terms) == ["rout", "regist"]
    assert question.stems == {"rout", "regist"}


@given(st.text(max_size=200))
def test_any_text_can_be_read(query):
    assert read(query).kind in ("words", "symbol", "code", "error")


@pytest.mark.parametrize("unit", ["\n", " ", "aB", "a.", "a/", "(", "at ", "a\n ", "é", "Error", '  File "'])
def test_a_million_characters_take_linear_time(unit):
    query = "a" + unit * (1_000_000 // len(unit)) + "b"
    start = time.thread_time()
    assert read(query).kind in ("words", "symbol", "code", "error")
    # What is quadratic in a million takes hours.
    assert time.thread_time() - start < 60
