import json
import math
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from tokenizers import Tokenizer, models
from transformers import BertConfig, BertModel

from benchmarks.nano_recipe import nano
from benchmarks.nano_recipe.data import BODY_SHARE, NAME_SHARE, head_of, tokenize_pairs
from benchmarks.nano_recipe.tokenizer import code_tokenizer
from benchmarks.nano_recipe.train import Recipe, batches, contrast, encode, info_nce, plan, train
from c2llm_integrations.model.checkpoint import RANGES
from c2llm_integrations.model.hf_model import C2LLMModel

WORDS = [w * 2 for w in "abcdefghijklmnop"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A six-layer BERT encoder of sixteen numbers, with a vocabulary of its own."""
    folder = tmp_path_factory.mktemp("base")
    vocabulary = {piece: row for row, piece in enumerate(["[UNK]", *WORDS, *"abcdefghijklmnop"])}
    Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]")).save(str(folder / "tokenizer.json"))
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=16, num_attention_heads=2, intermediate_size=32, num_hidden_layers=6
    )
    torch.manual_seed(0)
    save_file(BertModel(config, add_pooling_layer=False).state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    return folder


@pytest.fixture
def tokenizer() -> Tokenizer:
    return code_tokenizer({piece: row for row, piece in enumerate(["[PAD]", "[UNK]", *WORDS])})


@pytest.fixture
def model(base: Path, tokenizer: Tokenizer) -> C2LLMModel:
    torch.manual_seed(0)
    return nano.build_model(tokenizer, base)


def test_info_nce_of_equal_sides_is_least() -> None:
    torch.manual_seed(0)
    a = torch.eye(8)
    assert info_nce(a, a).item() < 1e-6
    assert info_nce(a, a.roll(1, 0)).item() > 10
    assert info_nce(torch.ones(8, 4), torch.ones(8, 4)).item() == pytest.approx(math.log(8))


@given(st.lists(st.integers(0, 600), max_size=60), st.integers(1, 2000))
def test_a_plan_takes_each_row_once_within_its_budget(lengths: list[int], budget: int) -> None:
    parts = plan(lengths, budget)
    assert sorted(row for part in parts for row in part.tolist()) == list(range(len(lengths)))
    assert all(len(part) == 1 or len(part) * max(lengths[r] for r in part) <= max(budget, len(part)) for part in parts)


def test_a_vector_does_not_depend_on_its_batch(model: C2LLMModel) -> None:
    texts = [np.array(ids, np.uint16) for ids in ([3, 4, 5], [6], [], [7, 8, 9, 10])]
    together = encode(model, texts)
    apart = torch.cat([encode(model, [text]) for text in texts])
    torch.testing.assert_close(together, apart, atol=1e-5, rtol=1e-4)


def test_piecewise_gradients_are_those_of_the_whole_batch(model: C2LLMModel) -> None:
    rng = np.random.default_rng(0)
    queries, documents = ([rng.integers(2, 18, n).astype(np.uint16) for n in (3, 5, 2, 4)] for _ in range(2))
    info_nce(encode(model, queries), encode(model, documents)).backward()
    whole = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    contrast(model, queries, documents, budget=6, pool=ThreadPoolExecutor(2))
    for one, other in zip((p.grad for p in model.parameters() if p.grad is not None), whole, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)


def test_batches_hold_each_row_once_an_epoch_and_some_hold_one_package() -> None:
    packages = np.repeat(np.arange(10), 64)
    draws = batches(packages, Recipe(batch=16, grouped=0.5), np.random.default_rng(0))
    epoch = [next(draws) for _ in range(36)]
    rows = np.concatenate(epoch)
    assert len(rows) == len(set(rows.tolist()))
    assert sum(len(set(packages[rows].tolist())) <= 2 for rows in epoch) >= 8


def test_training_learns_and_the_saved_folder_loads(model: C2LLMModel, tokenizer: Tokenizer, tmp_path: Path) -> None:
    pairs = [
        {"package": "p", "name": "", "doc": doc, "source": code, "bare": code, "language": "python"}
        for doc, code in zip(WORDS[:8], WORDS[8:], strict=True)
    ]
    rows = [{"doc": pair["doc"], "bare": pair["bare"]} for pair in pairs]
    before = nano.reciprocal_rank(model, tokenizer, rows)
    recipe = Recipe(steps=60, batch=8, lr=3e-3, pma_lr=3e-3, warmup=5, grouped=0.0, lengths=(16,))
    train(model, tokenize_pairs(tokenizer, pairs), recipe, lambda *_: None, threads=1)
    after = nano.reciprocal_rank(model, tokenizer, rows)
    assert after > 0.8 > before
    (tmp_path / RANGES).write_bytes(b"of the weights that were here")
    nano.save(model, tokenizer, tmp_path)
    assert not (tmp_path / RANGES).exists()
    loaded = C2LLMModel.from_pretrained(tmp_path).float()
    assert nano.reciprocal_rank(loaded, tokenizer, rows) == pytest.approx(after, abs=0.05)


def test_time_ends_a_run_early(model: C2LLMModel, tokenizer: Tokenizer) -> None:
    pairs = [{"package": "p", "name": "", "doc": w, "source": w, "bare": w, "language": "c"} for w in WORDS]
    before = [p.clone() for p in model.parameters()]
    train(model, tokenize_pairs(tokenizer, pairs), Recipe(steps=10, minutes=1e-9, batch=4), lambda *_: None, threads=1)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_each_pair_is_asked_for_in_three_ways(tokenizer: Tokenizer) -> None:
    doc, name, first, body = WORDS[0], f"{WORDS[1]} {WORDS[2]}", f"{WORDS[3]} {WORDS[4]}:\n", " ".join(WORDS[5:15])
    pair = {"package": "p", "name": name, "doc": doc, "source": first + body, "bare": first + body, "language": "c"}
    data = tokenize_pairs(tokenizer, [pair])
    rng = np.random.default_rng(0)
    drawn = Counter(
        tuple(tokenizer.decode(side[0]) for side in data.draw([0], query_length=4, code_length=9, rng=rng))
        for _ in range(2000)
    )
    assert drawn.keys() == {
        ("aa", "dd ee ff gg hh ii jj kk"),  # and a colon, which this vocabulary does not know
        ("bb cc", "dd ee ff gg hh ii jj kk"),
        ("dd ee aa", "ff gg hh ii jj kk ll mm nn"),
    }
    assert drawn["bb cc", "dd ee ff gg hh ii jj kk"] / 2000 == pytest.approx(NAME_SHARE, abs=0.05)
    assert drawn["dd ee aa", "ff gg hh ii jj kk ll mm nn"] / 2000 == pytest.approx(BODY_SHARE, abs=0.05)


@pytest.mark.parametrize(
    ("code", "head"),
    [
        ("def add(a, b):\n    return a + b\n", "def add(a, b):\n"),
        (
            "@cached\ndef add(\n    a,\n    b,\n) -> int:\n    return a + b\n",
            "@cached\ndef add(\n    a,\n    b,\n) -> int:\n",
        ),
        ("int add(int a, int b)\n{\n    return a + b;\n}\n", "int add(int a, int b)\n{\n"),
        ("def add(a, b): return a + b", ""),
        ("", ""),
    ],
)
def test_the_head_of_a_definition_ends_where_its_body_begins(code: str, head: str) -> None:
    assert head_of(code) == head


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("boltons-26.2.0-py3-none-any.whl", True),
        ("zod-4.3.6.tgz", True),
        ("apr_1.7.2.orig.tar.bz2", True),
        ("zlib_1.3.orig.tar.gz", True),
        ("librust-cc-dev_1.0_amd64.deb", True),
        ("apr_1.7.2.orig.tar.bz2.asc", False),
        ("apr_1.7.2-3.debian.tar.xz", False),
        ("apr_1.7.2-3.dsc", False),
    ],
)
def test_signatures_and_packaging_are_not_archives_of_code(name: str, is_one: bool) -> None:
    assert nano.is_archive(Path(name)) is is_one
