"""Fusion, each rule, what a score is made of, and copies."""

import uuid
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from c2llm_integrations.code.chunk import CodeChunk
from c2llm_integrations.errors import InputError
from c2llm_integrations.retrieval.ranking import (
    DEFINITION,
    FURTHER,
    LEFT,
    LEXICAL_WEIGHT,
    PHRASE_WORDS,
    RULES,
    _quoted,
    rank,
)
from c2llm_integrations.stores.records import Candidates, Hit
from tests.work import calls

WORDS = "how are things done"


def chunk(path="lib/some.py", text="", symbol="", line=1, language="python", repository="r"):
    text = text or f"{path} {symbol} {line}"
    id = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{repository}{path}{line}{text}"))
    return CodeChunk(id, repository, path, language, symbol, "function", line, line + 9, text)


def found(dense=(), lexical=()):
    return Candidates([Hit(c, s) for c, s in dense], [Hit(c, s) for c, s in lexical])


def order(hits):
    return [hit.chunk.path for hit in hits]


def ranked(query, dense, rules=RULES, **options):
    return rank(query, found(dense), 10, "dense", rules, **options)


def test_fusion_weighs_the_cosine_and_the_share_of_the_best_lexical_score():
    one, two, three = (chunk(f"{name}.py") for name in "abc")
    hits = rank(WORDS, found([(one, 0.9), (two, 0.5)], [(two, 8.0), (three, 4.0)]), 10, rules=())
    weight = LEXICAL_WEIGHT["words"]
    assert {hit.chunk.path: hit.score for hit in hits} == pytest.approx(
        {"a.py": (1 - weight) * 0.9, "b.py": (1 - weight) * 0.5 + weight, "c.py": weight / 2}
    )
    assert order(hits) == ["b.py", "a.py", "c.py"]


def test_a_name_leans_on_the_lexical_list():
    meant, named = chunk("meant.py"), chunk("named.py")
    both = found([(meant, 0.8)], [(named, 3.0)])
    assert order(rank("handle it well", both, 10, rules=("kind",))) == ["meant.py", "named.py"]
    assert order(rank("handle_it", both, 10, rules=("kind",))) == ["named.py", "meant.py"]
    assert order(rank("handle_it", both, 10, rules=())) == ["meant.py", "named.py"]


def test_one_list_alone():
    both = found([(chunk("dense.py"), 0.8)], [(chunk("lexical.py"), 3.0)])
    assert [(h.chunk.path, h.score) for h in rank(WORDS, both, 10, "dense", ())] == [("dense.py", 0.8)]
    assert order(rank(WORDS, both, 10, "lexical")) == ["lexical.py"]
    assert rank(WORDS, found(), 10) == []


@pytest.mark.parametrize(
    ("rule", "query", "better", "worse"),
    [
        ("definition", "Router", chunk(symbol="Router"), chunk(symbol="Other")),
        ("definition", "maxPool", chunk(symbol="Layer.max_pool"), chunk(symbol="Layer.max_pools")),
        ("definition", "Layer.pool", chunk(symbol="Layer.pool"), chunk(symbol="Other.pool")),
        ("definition", "Router", chunk(text="x = 1\nclass Router:\n    pass"), chunk(text="y = Router()\nz = 2")),
        ("symbol", "read the config file", chunk(symbol="read_config"), chunk(symbol="write_lines")),
        ("path", "how are requests routed", chunk("lib/routing.py"), chunk("lib/other.py")),
        ("path", "openapi schemas", chunk("openapi/utils.py"), chunk("security/utils.py")),
        ("location", 'File "/me/lib/some.py", line 15, in f', chunk(line=10), chunk(line=30)),
        ("location", "at f (src/lib/some.py:15:3)", chunk(line=10), chunk("lib/other.py", line=10)),
        ("tests", WORDS, chunk("lib/some.py"), chunk("tests/some.py")),
        ("tests", WORDS, chunk("pkg/some.go"), chunk("pkg/some_test.go")),
        ("tests", WORDS, chunk("src/some.ts"), chunk("src/some.spec.ts")),
        ("tests", WORDS, chunk("src/Some.java"), chunk("src/SomeTest.java")),
        ("tests", WORDS, chunk("lib/some.py"), chunk("examples/some.py")),
        ("generated", WORDS, chunk("lib/some.go"), chunk("vendor/lib/some.go")),
        ("generated", WORDS, chunk("lib/some.py"), chunk("lib/some_pb2.py")),
        ("generated", WORDS, chunk("lib/some.ts"), chunk("lib/some.d.ts")),
        ("legacy", WORDS, chunk("src/parse.ts"), chunk("src/v1/parse.ts")),
        ("legacy", WORDS, chunk("pkg/some.py"), chunk("pkg/_compat/some.py")),
        ("legacy", WORDS, chunk("lib/some.rb"), chunk("lib/deprecated/some.rb")),
        ("prose", WORDS, chunk("lib/some.py"), chunk("lib/some.md", language="markdown")),
    ],
)
def test_each_rule_decides_and_can_be_switched_off(rule, query, better, worse):
    dense = [(worse, 0.6), (better, 0.59)]
    with_rule = ranked(query, dense, ["kind", rule])
    assert with_rule[0].chunk.id == better.id
    assert rule in {*with_rule[0].explanation, *with_rule[1].explanation}
    without = ranked(query, dense, ["kind"])
    assert without[0].chunk.id == worse.id
    assert set(without[0].explanation) == {"dense"}


MESSAGE = "the port 8080 is already in use by another server"


@pytest.mark.parametrize(
    ("query", "source"),
    [
        (MESSAGE, 'raise Busy(f"the port {port} is already in use by another server")'),
        ("OSError: " + MESSAGE, 'raise OSError("the port %d is already in use by another server" % port)'),
        (MESSAGE, '"The port " + port + " is already in use\\n"'),
    ],
)
def test_the_source_of_a_message_comes_before_texts_with_the_same_words(query, source):
    quoting, other = chunk("a.py", text=source), chunk("b.py", text="server port in use, already used by another")
    lists = found([(other, 0.45), (quoting, 0.4)], [(other, 9.0), (quoting, 8.8)])
    hits = rank(query, lists, 10)
    assert (order(hits)[0], hits[0].explanation["phrase"] > 0) == ("a.py", True)
    assert order(rank(query, lists, 10, rules=["kind"]))[0] == "b.py"


@given(st.lists(st.sampled_from("abc"), max_size=9), st.text("abc -", max_size=40))
def test_the_longest_run_of_words_counts(words, text):
    there = f" {' '.join(text.replace('-', ' ').split())} "
    spans = [words[start:end] for start in range(len(words)) for end in range(start + PHRASE_WORDS, len(words) + 1)]
    longest = max([len(span) for span in spans if f" {' '.join(span)} " in there], default=0)
    assert _quoted(words, text) == (longest / len(words) if longest else 0.0)


def test_a_message_in_a_test_stays_behind_its_source():
    source, test = (chunk(path, text=f'x("{MESSAGE}")') for path in ("lib/a.py", "tests/a_test.py"))
    assert order(rank(MESSAGE, found([], [(test, 9.0), (source, 8.0)]), 10))[0] == "lib/a.py"


@pytest.mark.parametrize("query", ["the port is used", "in use by " * 40])
def test_few_words_and_long_texts_are_no_phrase(query):
    hits = rank(query, found([], [(chunk("a.py", text="the port is not used; in use by"), 1.0)]), 10)
    assert "phrase" not in hits[0].explanation


@pytest.mark.parametrize(
    "path", ["src/contest.py", "lib/latest/a.py", "testament.py", "src/attest.ts", "spectrum/a.py"]
)
def test_what_only_looks_like_a_test_is_none(path):
    assert ranked(WORDS, [(chunk(path), 0.5)], ["tests"])[0].score == 0.5


def test_a_question_for_tests_or_documentation_gets_them():
    test, guide = chunk("tests/some.py"), chunk("docs/some.md", language="markdown")
    assert ranked("tests of the router", [(test, 0.5)], ["tests"])[0].score == 0.5
    assert ranked("documentation of the router", [(guide, 0.5)], ["prose"])[0].score == 0.5
    assert ranked("all about the router", [(test, 0.5)], ["tests"])[0].score == 0.5 * LEFT["tests"]
    assert ranked("the legacy router", [(chunk("legacy/some.py"), 0.5)], ["legacy"])[0].score == 0.5


def test_several_hits_raise_the_best_of_their_file():
    alone, first, second = chunk("alone.py"), chunk("many.py"), chunk("many.py", line=20)
    dense = [(alone, 0.6), (first, 0.58), (second, 0.5)]
    hits = ranked(WORDS, dense, ["file"])
    assert [(hit.chunk.path, hit.chunk.start_line) for hit in hits] == [
        ("many.py", 1),
        ("alone.py", 1),
        ("many.py", 20),
    ]
    assert set(hits[0].explanation) == {"dense", "file"}
    assert hits[2].score == 0.5 * FURTHER
    other = chunk("many.py", line=20, repository="other")
    assert order(ranked(WORDS, [(alone, 0.6), (first, 0.58), (other, 0.5)], ["file"]))[0] == "alone.py"


def test_a_file_of_many_hits_leaves_room_for_others():
    many = [(chunk("many.py", text=f"x = {line}", line=10 * line), 0.6 - line / 1000) for line in range(1, 6)]
    hits = ranked(WORDS, [*many, (chunk("alone.py"), 0.5)], ["file"])
    assert order(hits)[:2] == ["many.py", "alone.py"]
    assert [hit.chunk.start_line for hit in hits if hit.chunk.path == "many.py"] == [10, 20, 30, 40, 50]


def test_every_text_that_is_the_question_scores_1_in_one_file_too():
    copies = [(chunk("many.py", text=WORDS, line=line), 0.5) for line in (1, 20)]
    assert [hit.score for hit in ranked(WORDS, copies, ["exact", "file"])] == [1, 1]


def test_rows_of_other_programs_are_ranked_without_a_place():
    rows = [(chunk("", text=str(n), line=0, language="", repository=""), 0.5) for n in range(3)]
    assert [hit.score for hit in ranked("some words here", rows)] == [0.5, 0.5, 0.5]


def test_coverage_lowers_all_alike_where_little_of_the_question_is_found():
    one, two = chunk(text="red green"), chunk("b.py", text="red")
    scores = {}
    for query in ("red green", "red green blue yellow"):
        lists = found([(one, 0.5), (two, 0.4)], [(one, 2.0), (two, 1.0)])
        plain, lowered = rank(query, lists, 10, rules=()), rank(query, lists, 10, rules=("coverage",))
        assert order(plain) == order(lowered)
        scores[query] = [low.score / high.score for low, high in zip(lowered, plain, strict=True)]
    assert scores["red green"] == [1.0, 1.0]
    weight = LEXICAL_WEIGHT["words"]
    assert scores["red green blue yellow"] == pytest.approx([1 - weight / 2] * 2)


def test_copies_are_folded_into_the_best():
    body = [f"line {n}" for n in range(20)]
    one = chunk("one.py", text="\n".join(body))
    copy = chunk("copy.py", text="    " + "\n    ".join(["changed", *body[1:]]))
    other = chunk("other.py", text="\n".join(body[:10]))
    dense = [(one, 0.6), (copy, 0.5), (other, 0.4)]
    assert order(ranked(WORDS, dense, ["copies"])) == ["one.py", "other.py"]
    assert order(ranked(WORDS, dense, [])) == ["one.py", "copy.py", "other.py"]


def test_equal_scores_are_ordered_by_place():
    rows = [(chunk("b.py"), 0.5), (chunk("a.py", line=20), 0.5), (chunk("a.py"), 0.5)]
    hits = rank(WORDS, found(rows), 10, rules=())
    assert [(hit.chunk.path, hit.chunk.start_line) for hit in hits] == [("a.py", 1), ("a.py", 20), ("b.py", 1)]


paths = st.sampled_from(["lib/router.py", "tests/test_router.py", "docs/a.md", "v/vendor/x.go", "", "b.d.ts"])
rows = st.lists(st.tuples(paths, st.integers(0, 9), st.floats(-1, 1)), max_size=12, unique_by=lambda row: row[:2])
queries = st.sampled_from(["Router", "how are routes found", "x = f(y); z = [1]", "ValueError: bad router", "?"])


@given(queries, rows, rows, st.sets(st.sampled_from(RULES)), st.sampled_from(["hybrid", "dense", "lexical"]))
def test_scores_lie_in_0_to_1_fall_and_are_the_sums_of_their_parts(query, dense, lexical, rules, mode):
    lists = [
        sorted(((chunk(path, symbol="Router", line=line), score) for path, line, score in side), key=lambda r: -r[1])
        for side in (dense, lexical)
    ]
    hits = rank(query, found(*lists), 5, mode, rules)
    assert len(hits) <= 5
    for hit in hits:
        assert 0 <= hit.score <= 1
        assert sum(hit.explanation.values()) == pytest.approx(hit.score)
    assert all(one.score >= two.score for one, two in pairwise(hits))
    assert len({hit.chunk.id for hit in hits}) == len(hits)


def test_the_definition_wins_over_a_chunk_that_only_names_it():
    definition, use = chunk("a.py", symbol="Router"), chunk("b.py", text="Router Router")
    hits = rank("Router", found([(use, 0.9)], [(use, 9.0), (definition, 3.0)]), 10)
    assert order(hits) == ["a.py", "b.py"]
    assert hits[0].explanation["definition"] > 0.5 * DEFINITION


@pytest.mark.parametrize(
    ("options", "message"),
    [({"mode": "both"}, "mode is 'both'"), ({"rules": ["files"]}, "no ranking rule 'files'; did you mean file")],
)
def test_unknown_options_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        rank(WORDS, found(), 10, **options)


def test_work_grows_with_the_candidates_and_not_with_their_pairs():
    def work(count):
        texts = ["\n".join(f"    value_{n} = compute({m}, value_{n - 1})" for n in range(25)) for m in range(count)]
        many = [chunk(f"lib/module_{n}/file_{n}.py", text, f"Class.method_{n}") for n, text in enumerate(texts)]
        half = count // 2
        lists = found([(c, 0.5) for c in many[:half]], [(c, 3.0) for c in many[half:]])
        return calls(rank, "how are values computed", lists, 10)

    few, many = work(200), work(400)
    assert many < 2.5 * few
    assert few < 300 * 200


def test_a_name_of_many_parts_is_ranked_in_as_many_steps_as_one_of_two():
    hits, parts = 50, 400
    candidates = found([(chunk(f"{number}.py", symbol="a.b"), 0.5) for number in range(hits)])
    few, many = (calls(rank, "a." * count + "b", candidates, 10) for count in (2, parts))
    assert many < few + hits * parts / 2  # the question itself takes some steps for each part, once
