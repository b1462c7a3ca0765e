import string
from collections import Counter

import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from benchmarks.nano_recipe.tokenizer import (
    choose_vocabulary,
    code_tokenizer,
    count_words,
    inherited_embeddings,
    pieces,
)

KNOWN = {
    p: i
    for i, p in enumerate(
        ["get", "http", "server", "name", "##s", "in", "##it", *string.ascii_lowercase, "(", ")", ":"]
    )
}


def tokenizer(*words: str, new: int = 5) -> Tokenizer:
    chosen = choose_vocabulary(Counter(count_words(words)), KNOWN, 200, new)
    return code_tokenizer({piece: row for row, piece in enumerate(chosen)})


def test_identifiers_are_read_as_words() -> None:
    made = tokenizer("get http server name")
    assert made.encode("getHTTPServerName2").tokens == ["get", "http", "server", "name", "2"]
    assert made.encode("get_http_server").tokens == ["get", "http", "server"]
    assert made.encode("GET").tokens == ["get"]


def test_layout_costs_nothing_and_nothing_is_added() -> None:
    made = tokenizer("get name")
    assert made.encode("get\n\n\t    name").ids == made.encode("get name").ids
    assert made.encode("").ids == []


def test_frequent_words_and_punctuation_become_one_token() -> None:
    made = tokenizer("init init ): ):", new=2)
    assert made.encode("init):").tokens == ["init", "):"]


@given(st.text(alphabet=string.printable, max_size=300))
def test_ascii_is_never_unknown(text: str) -> None:
    assume("[UNK]" not in text)
    assert 1 not in tokenizer("get").encode(text).ids


def test_accents_are_dropped_and_other_scripts_are_unknown() -> None:
    made = tokenizer("name")
    assert made.encode("näme").tokens == ["name"]
    assert made.encode("名").ids == [1]


def test_vocabulary_has_the_size_asked_for_or_all_there_is() -> None:
    counts = Counter({"get": 5, "http": 3, "init": 2})
    assert len(choose_vocabulary(counts, KNOWN, 140, 1)) == 140
    assert choose_vocabulary(counts, KNOWN, 1000, 1)[:2] == ["[PAD]", "[UNK]"]


def test_pieces_are_the_longest_known() -> None:
    assert pieces("init", KNOWN) == ["in", "##it"]
    assert pieces("((", KNOWN) == ["(", "("]
    assert pieces("é", KNOWN) == []


def test_embeddings_are_inherited_or_the_mean_of_the_parts() -> None:
    weight = torch.randn(len(KNOWN), 3)
    rows = inherited_embeddings(["get", "init", "##get", "[PAD]"], KNOWN, weight)
    torch.testing.assert_close(rows[0], weight[0])
    torch.testing.assert_close(rows[1], (weight[KNOWN["in"]] + weight[KNOWN["##it"]]) / 2)
    torch.testing.assert_close(rows[2], weight[0])
    torch.testing.assert_close(rows[3], weight.mean(0))
