"""Identifiers whole and in parts, scripts, limits, and the weights of the sparse vectors."""

import time
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from c2llm_integrations.code.lexical_terms import (
    AVERAGE_TERMS,
    DEFINITION_WEIGHT,
    K1,
    MAX_QUERY_TERMS,
    MAX_TERM_CHARS,
    PATH_WEIGHT,
    document_terms,
    query_terms,
    sparse,
    sparse_query,
    stem,
    stems,
)

words = st.text(st.sampled_from("aBéÜ9_-. ßİ找り\u0301\n{}"), max_size=60) | st.text(max_size=60)


@pytest.mark.parametrize(
    "spelling", ["maxPoolSize", "MaxPoolSize", "max_pool_size", "MAX_POOL_SIZE", "__max_pool_size"]
)
def test_one_identifier_in_any_style_gives_the_same_terms(spelling):
    assert document_terms("", spelling) == ["maxpoolsize", "max", "pool", "size"]
    assert query_terms(f"the {spelling}") == ["maxpoolsize", "max", "pool", "size"]


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("HTTPServer", ["httpserver", "http", "server", "serv"]),
        ("OAuth2Token", ["oauth2token", "oauth2", "auth2", "auth", "token"]),
        ("utf8", ["utf8", "utf"]),
        ("v4", ["v4"]),
        ("IFoo", ["ifoo", "foo"]),
        ("a.b->c", ["a", "b", "c"]),
        ("routes", ["routes", "rout"]),
        ("größteZahl", ["größtezahl", "größte", "zahl"]),
        ("ПриветМир", ["приветмир", "привет", "мир"]),
        ("\uff46\uff55\uff4c\uff4c", ["full"]),
        ("排序函数 API接口", ["排序函数", "排序", "序函", "函数", "api接口", "接口", "api"]),
        ("\x00\x1b[31m", ["31m", "31"]),
        ("?! … {}", []),
    ],
)
def test_terms_of_a_document(text, terms):
    assert document_terms("", text) == terms


def test_path_words_and_definitions_count_more():
    terms = document_terms("src/routing.py", "def register():\n    register\n")
    assert terms.count("routing") == PATH_WEIGHT
    assert terms.count("register") == 1 + DEFINITION_WEIGHT
    assert terms.count("def") == 1


@pytest.mark.parametrize(
    ("query", "terms"),
    [
        ("how are the routes registered?", ["rout", "regist"]),
        ("where is StaticModel encoding texts", ["staticmodel", "static", "model", "encod", "text"]),
        ("Depends", ["depends", "depend"]),
        ("read_lines", ["readlines", "read", "lines", "line"]),
        ("how", ["how"]),
        ("what is it", ["what", "is", "it"]),
        ("", []),
        ("\t?!\x00", []),
    ],
)
def test_terms_of_a_question(query, terms):
    assert query_terms(query) == terms


def test_a_question_finds_other_forms_of_its_words():
    document = set(document_terms("", "def serialize_routes(validator): ..."))
    assert set(query_terms("serialization of a route by validators")) - {"by", "of"} <= document


def test_a_name_in_a_question_is_not_stemmed():
    assert not set(query_terms("the maxPools")) & {"maxpool", "pool"}


@pytest.mark.parametrize(
    "family",
    [
        "route routes routing router routed",
        "parse parser parsing parses parsed",
        "validate validation validators",
        "serialize serializer serialization",
        "query queries",
        "error errors",
        "filter filtering filtered",
        "handler handling",
    ],
)
def test_a_family_of_words_has_one_stem(family):
    assert len({stem(word) for word in family.split()}) == 1


@pytest.mark.parametrize(("word", "other"), [("class", "clash"), ("string", "strict"), ("context", "content")])
def test_other_words_have_other_stems(word, other):
    assert stem(word) != stem(other)


def test_stems_are_distinct_and_in_order():
    assert stems("lib/maxPools.js pool") == ("lib", "maxpool", "max", "pool", "js")


@given(words, words)
def test_every_term_is_one_token_to_any_engine(path, text):
    for term in (*document_terms(path, text), *query_terms(text)):
        assert term.isalnum()
        assert 0 < len(term) <= MAX_TERM_CHARS
        assert term == term.lower()


@given(words)
def test_a_text_is_found_by_each_of_its_own_terms(text):
    document = set(document_terms("", text))
    assert set(query_terms(text)) <= document


def test_long_runs_are_left_out_and_questions_are_bounded():
    assert document_terms("", "x" * (MAX_TERM_CHARS + 1)) == []
    assert len(query_terms(" ".join(f"word{n}x" for n in range(1000)))) == MAX_QUERY_TERMS


@pytest.mark.parametrize(
    "unit", ["x ", "é ", "(", "aB", "class ", "a\u0301\u0327", " ", "f()", "{\n", "const a = (", "_", "1a"]
)
def test_a_million_characters_take_linear_time(unit):
    text = unit * (1_000_000 // len(unit))
    start = time.thread_time()
    assert len(query_terms(text)) <= MAX_QUERY_TERMS
    assert len(document_terms("a/b.py", text)) <= 6 * len(text)
    # What is quadratic in a million takes hours.
    assert time.thread_time() - start < 60


def test_weights_saturate_and_length_counts():
    [(indices, weights)] = sparse([["a", "b", "a", *["c"] * 100]])
    assert indices == sorted(indices)
    once, twice, often = sorted(weights)
    assert 0 < once < twice < often < K1 + 1
    assert weight_of("a", ["a"]) > weight_of("a", ["a", *["b"] * 2 * AVERAGE_TERMS])
    # At the average length the length cancels out: f·(k1 + 1) / (f + k1).
    assert weight_of("a", ["a"] * 2 + ["b"] * (AVERAGE_TERMS - 2)) == pytest.approx(2 * (K1 + 1) / (2 + K1))


def weight_of(term, terms):
    return dict(zip(*sparse([terms])[0], strict=True))[sparse_query([term])[0][0]]


@given(st.lists(st.sampled_from(["max", "pool", "größte", "找到"])))
def test_both_sides_use_the_same_indices(terms):
    indices, weights = sparse_query(terms)
    assert indices == sparse([terms])[0][0]
    assert weights == [1.0] * len(set(terms))
    assert all(0 <= index < 2**32 for index in indices)


def test_terms_of_one_hash_are_one():
    first, second = sparse([["plumless", "buckeroo", "buckeroo", "x"], ["plumless", "plumless", "plumless", "x"]])
    assert len(first[0]) == len(set(first[0])) == 2
    assert first == second


@given(st.lists(st.lists(st.sampled_from(["max", "pool", "größte", "找到", "plumless", "buckeroo"]))))
def test_weights_of_many_chunks_are_those_of_each(documents):
    assert sparse(documents) == [sparse([terms])[0] for terms in documents]


@pytest.mark.parametrize(
    ("noun", "inflected"), [("배송비", "배송비를"), ("주문", "주문의"), ("ผู้ใช้", "รายชื่อผู้ใช้"), ("用户", "返回用户列表")]
)
def test_a_noun_shares_terms_with_what_is_glued_to_it(noun: str, inflected: str) -> None:
    assert set(query_terms(noun)) & set(document_terms("", inflected))


def test_long_words_are_not_kept_in_memory() -> None:
    parts = [f"Part{at}" for at in range(1_000)]
    words = ["".join(parts[at:] + parts[:at]) for at in range(50)]
    document_terms("a.txt", words[0])  # the parts are kept from here on, and few
    tracemalloc.start()
    try:
        for word in words[1:]:
            document_terms("a.txt", word)
            query_terms(word)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 2**20
