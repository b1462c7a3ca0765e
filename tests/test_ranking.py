"""Fusion, each rule, what a score is made of, and copies."""

import time
import uuid
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from c2llm_integrations.code.chunk import CodeChunk
from c2llm_integrations.errors import InputError
from c2llm_integrations.ranking import DEFINITION, LEFT, LEXICAL_WEIGHT, RULES, rank
from c2llm_integrations.stores.rows import Candidates, Hit

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
    assert set(hits[2].explanation) == {"dense"}
    other = chunk("many.py", line=20, repository="other")
    assert order(ranked(WORDS, [(alone, 0.6), (first, 0.58), (other, 0.5)], ["file"]))[0] == "alone.py"


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


def test_two_hundred_candidates_take_milliseconds():
    texts = ["\n".join(f"    value_{n} = compute({m}, value_{n - 1})" for n in range(25)) for m in range(200)]
    many = [chunk(f"lib/module_{n}/file_{n}.py", text, f"Class.method_{n}") for n, text in enumerate(texts)]
    lists = found([(c, 0.5) for c in many[:100]], [(c, 3.0) for c in many[100:]])
    rank("how are values computed", lists, 10)
    start = time.perf_counter()
    assert len(rank("how are values computed", lists, 10)) == 10
    assert time.perf_counter() - start < 0.5
