"""Texts → vectors: golden agreement, order, prompts and bad input."""

import multiprocessing
import os
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from c2llm_integrations.errors import InputError
from c2llm_integrations.model import embedder as module
from c2llm_integrations.model.embedder import C2LLMEmbedder
from c2llm_integrations.model.fingerprint import options_of
from c2llm_integrations.model.prompts import DOCUMENT, QUERIES
from tests.golden import FOLDER, NAMES, TIED, cosines, expected


@pytest.fixture(scope="module")
def tiny() -> C2LLMEmbedder:
    return C2LLMEmbedder.from_pretrained(str(TIED), dtype="float32")


@pytest.mark.parametrize("name", NAMES)
def test_golden_vectors_in_float32(name):
    texts, raw, tokens = expected(FOLDER / name)
    embedder = C2LLMEmbedder.from_pretrained(str(FOLDER / name), dtype="float32", normalize=False)
    vectors = embedder.encode(texts)
    assert vectors.dtype == np.float32
    assert vectors.shape == (len(texts), embedder.output_dim)
    assert np.abs(vectors - raw).max() <= 1e-4
    assert embedder.tokens_seen == sum(tokens)
    assert embedder.texts_cut == 1


@pytest.mark.parametrize("name", NAMES)
def test_golden_vectors_in_bfloat16(name):
    texts, raw, _ = expected(FOLDER / name)
    vectors = C2LLMEmbedder.from_pretrained(str(FOLDER / name), dtype="bfloat16").encode(texts)
    assert cosines(vectors, raw).min() >= 0.999
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=60), max_size=30), st.randoms())
@settings(max_examples=25)
def test_order_batch_and_company_do_not_matter(tiny, texts, random):
    shuffled = list(range(len(texts)))
    random.shuffle(shuffled)
    vectors = tiny.encode(texts)
    assert vectors.shape == (len(texts), tiny.output_dim)
    again = tiny.encode([texts[index] for index in shuffled])
    np.testing.assert_allclose(again, vectors[shuffled], atol=1e-5)


@pytest.mark.parametrize("device", [["cpu", "cpu"], "cpu, cpu"])
def test_several_devices_keep_the_order(tiny, device):
    texts = [f"def f{n}(): return {'x' * (n % 50)}" for n in range(200)]
    several = C2LLMEmbedder.from_pretrained(str(TIED), dtype="float32", device=device, batch_tokens=64)
    assert [str(one) for one in several.devices] == ["cpu", "cpu"]
    np.testing.assert_allclose(several.encode(texts), tiny.encode(texts), atol=1e-5)


def test_small_budgets_and_windows_change_nothing(tiny, monkeypatch):
    texts = [f"def f{n}(): return {'x' * n}" for n in range(40)]
    want = tiny.encode(texts)
    monkeypatch.setattr(module, "token_budget", lambda *_: 16)
    monkeypatch.setattr(module, "FIRST_TEXTS", 2)
    monkeypatch.setattr(module, "WINDOW_TEXTS", 9)
    small = C2LLMEmbedder.from_pretrained(str(TIED), dtype="float32")
    windows, done = [], []
    counted = small._counted
    monkeypatch.setattr(small, "_counted", lambda window: windows.append(len(window)) or counted(window))
    np.testing.assert_allclose(small.encode(texts, progress=lambda done_, *_: done.append(done_)), want, atol=1e-5)
    assert windows == [2, 8, 9, 9, 9, 3]
    assert done == sorted(done)
    assert done[-1] == 40


def test_equal_texts_are_computed_once(tiny):
    before = tiny.tokens_seen
    one = tiny.encode(["def f(): pass"])
    cost = tiny.tokens_seen - before
    many = tiny.encode(["def f(): pass", "x"] + ["def f(): pass"] * 98)
    assert tiny.tokens_seen - before < 3 * cost
    np.testing.assert_allclose(many[[0, 2, 99]], one.repeat(3, 0), atol=1e-5)
    assert not np.allclose(many[1], one[0], atol=1e-3)


@pytest.mark.parametrize("text", ["x = 1\n" * 40_000, "a" * 200_000, " " * 300_000 + "x = 1", "日本" * 50_000])
def test_of_a_huge_text_only_the_head_is_tokenised(text):
    tiny = C2LLMEmbedder.from_pretrained(str(TIED), dtype="float32", max_length=64)
    whole = tiny._tokenizer.encode(text, add_special_tokens=False).ids
    assert tiny._counted([text, "y"])[0] == whole[:64]
    assert tiny.texts_cut == (len(whole) > 64)
    assert tiny.count_tokens([text, "", "y"])[:2] == [min(64, len(whole)), 0]


def test_empty_and_blank_texts_have_a_defined_vector(tiny):
    assert tiny.encode([]).shape == (0, 64)
    empty, blank, spaced = tiny.encode(["", "   \n\t", "a"])
    np.testing.assert_allclose(np.linalg.norm([empty, blank, spaced], axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(empty, tiny.encode(["b", ""])[1], atol=1e-6)
    assert not np.allclose(blank, spaced)


def test_prompts_stand_in_front_and_the_whole_is_stripped(tiny):
    document, query = "  def f():\n    pass\n\n", " sort a list \n"
    np.testing.assert_array_equal(tiny.encode_documents([document]), tiny.encode([f"{DOCUMENT}  def f():\n    pass"]))
    task = QUERIES["CodeSearchNetRetrieval"]
    np.testing.assert_array_equal(tiny.encode_queries([query]), tiny.encode([f"{task} sort a list"]))
    np.testing.assert_array_equal(
        tiny.encode_queries([query], task="CosQA"), tiny.encode([QUERIES["CosQA"] + " sort a list"])
    )
    np.testing.assert_array_equal(tiny.encode(["x"], prompt="p: "), tiny.encode(["p: x"]))
    with pytest.raises(InputError, match=r"'Nope'.*CosQA"):
        tiny.encode_queries(["x"], task="Nope")


def test_whitespace_inside_reaches_the_tokenizer(tiny):
    one, two, three = tiny.encode(["if x:\n    y", "if x: y", "if x:\n\ty"])
    assert cosines(one, two) < 0.9999
    assert cosines(one, three) < 0.9999


def test_one_string_is_one_text(tiny):
    np.testing.assert_array_equal(tiny.encode("abc"), tiny.encode(["abc"]))
    np.testing.assert_array_equal(tiny.encode_documents("abc"), tiny.encode_documents(["abc"]))
    np.testing.assert_array_equal(tiny.encode_and_count("abc", "text")[0], tiny.encode(["abc"]))
    assert tiny.count_tokens("abc") == tiny.count_tokens(["abc"])
    np.testing.assert_array_equal(tiny.encode_documents("abc"), tiny.encode_documents(["abc"]))


@pytest.mark.parametrize("method", ["encode", "encode_queries", "encode_documents"])
def test_bad_items_are_named(tiny, method):
    with pytest.raises(InputError, match="text 1 is a bytes, expected str"):
        getattr(tiny, method)(["fine", b"bytes"])
    for wrong in (None, 5):
        with pytest.raises(InputError, match=f"expected a list of texts, got {wrong}"):
            getattr(tiny, method)(wrong)
    with pytest.raises(InputError, match="text 2 is a NoneType"):
        getattr(tiny, method)(["fine", "fine", None])
    with pytest.raises(InputError, match="text 1 holds a lone surrogate"):
        getattr(tiny, method)(["fine", "bad \ud800 text"])


def test_a_generator_of_texts_is_read(tiny):
    np.testing.assert_array_equal(tiny.encode(text for text in ["a", "b"]), tiny.encode(["a", "b"]))


def test_a_nan_is_an_error_that_names_the_text():
    embedder = C2LLMEmbedder.from_pretrained(str(TIED), dtype="float32")
    inner = embedder.scheduler.workers[0].encoder

    class Broken:
        padded = False

        def __call__(self, texts):
            out = inner(texts).clone()
            out[[row for row, text in enumerate(texts) if len(text) == 1]] = torch.nan
            return out

    embedder.scheduler.workers[0].encoder = Broken()
    with pytest.raises(InputError, match="text 1 gives a vector with NaN"):
        embedder.encode(["def f(): pass", "a"])


def test_long_texts_are_cut_at_the_end_and_counted():
    embedder = C2LLMEmbedder.from_pretrained(str(TIED), dtype="float32", max_length=5)
    long, head = embedder.encode(["a b c d e f g h", "a b c d e"])
    ids = embedder._tokenizer.encode("a b c d e f g h", add_special_tokens=False).ids
    assert embedder.texts_cut >= 1
    assert embedder.tokens_seen == 5 + min(5, len(embedder._tokenizer.encode("a b c d e").ids))
    assert len(ids) > 5
    assert cosines(long, head) > 0.99 or ids[:5] != embedder._tokenizer.encode("a b c d e").ids[:5]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "int4"}, "unknown dtype 'int4'"),
        ({"device": "tpu!"}, "unknown device"),
        ({"device": ["cpu", "meta"]}, "several of one kind"),
        ({"device": []}, "expected one device"),
        ({"max_length": 0}, "max_length is 0"),
        ({"truncate_dim": 64}, "truncate_dim is 64, must be less than the trained 64"),
        ({"truncate_dim": 0}, "truncate_dim is 0, must be at least 1"),
        ({"batch_tokens": -1}, "batch_tokens is -1, must be at least 1"),
        (
            {"output_dim": 8},
            "gives 64 dimensions, asked for 8.*train-head .*-dim 8.*fit-projection .*-dim 8.*truncate_dim=8",
        ),
    ],
)
def test_bad_options_say_both_values(options, message):
    with pytest.raises(InputError, match=message):
        C2LLMEmbedder.from_pretrained(str(TIED), **options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU, so CUDA is no error here")
def test_cuda_without_a_gpu_says_so():
    with pytest.raises(InputError, match="sees no such GPU"):
        C2LLMEmbedder.from_pretrained(str(TIED), device="cuda")


def test_the_fingerprint_names_what_decides_a_vector(tiny):
    other = C2LLMEmbedder.from_pretrained(str(TIED), max_length=100, normalize=False, dtype="bfloat16")
    mine, theirs = dict(tiny.fingerprint), dict(other.fingerprint)
    assert {key for key in mine if mine[key] != theirs[key]} == {"max_length", "normalize"}
    assert mine["output_dim"] == 64
    assert mine["document_prompt"] == DOCUMENT


def test_a_fingerprint_gives_the_options_it_was_made_with(tiny):
    small = C2LLMEmbedder.from_pretrained(str(TIED), dtype="float32", max_length=9, normalize=False, truncate_dim=8)
    again = C2LLMEmbedder.from_options(replace(options_of(small.fingerprint), dtype="float32"))
    assert again.fingerprint == small.fingerprint
    for damage in ({"max_length": "x"}, {"projection": "first x"}):
        with pytest.raises(InputError, match="damaged"):
            options_of({**tiny.fingerprint, **damage})
    with pytest.raises(InputError, match=r"damaged.*model"):
        options_of({key: value for key, value in tiny.fingerprint.items() if key != "model"})


def test_progress_reaches_the_total(tiny):
    seen = []
    tiny.encode(["x"] * 10, progress=lambda done, total, _: seen.append((done, total)))
    assert seen[-1] == (10, 10)


def test_many_threads_get_their_own_vectors(tiny):
    texts = [f"text {n}" for n in range(16)]
    want = tiny.encode(texts)
    got = [None] * 16

    def work(n):
        got[n] = tiny.encode([texts[n]])[0]

    threads = [threading.Thread(target=work, args=(n,)) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_allclose(np.array(got), want, atol=1e-5)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_after_a_fork_the_child_gets_an_error_instead_of_waiting_for_ever(tiny, monkeypatch):
    # A forked child has its parent's objects: what is left here needs no pickling.
    monkeypatch.setitem(globals(), "_before_the_fork", tiny)
    with multiprocessing.get_context("fork").Pool(1) as pool:
        answer = pool.apply_async(_encode_in_child).get(timeout=60)
    assert "forked" in answer


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_process_loads_its_own_model_after_its_parent_has_one():
    vectors = _load_and_encode()  # on several cores, this thread now has OpenMP's threads, which no fork takes along
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert np.array_equal(pool.apply_async(_load_and_encode).get(timeout=60), vectors)


def _load_and_encode():
    return C2LLMEmbedder.from_pretrained("nano", dtype="float32").encode(["x"])


def _encode_in_child():
    try:
        globals()["_before_the_fork"].encode(["x"])
    except InputError as error:
        return str(error)
    return "no error"
