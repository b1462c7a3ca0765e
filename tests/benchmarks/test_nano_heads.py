"""The recipe of nano's heads of fewer dimensions, in small."""

import json
import sys

import torch

from benchmarks.nano_recipe import heads
from c2llm_integrations.model.checkpoint import load_checkpoint
from c2llm_integrations.model.heads_and_projections import Head
from c2llm_integrations.model.pma import FoldedPMA
from c2llm_integrations.training.head import pma_of
from c2llm_integrations.training.token_state_cache import cache_states

TEXTS = [f"def add_{n}(a, b):\n    return a + b + {n}\n" for n in range(12)]


def test_a_text_is_the_mean_of_its_states(tmp_path):
    checkpoint = load_checkpoint("nano")
    means = heads.mean_states(checkpoint, TEXTS, tmp_path / "means.npy")
    assert means.lengths.tolist() == [1] * len(TEXTS)
    states = cache_states(checkpoint, TEXTS, tmp_path)
    for row in range(len(TEXTS)):
        wanted = states.padded([row])[0][0].mean(0)
        assert torch.cosine_similarity(means.padded([row])[0][0, 0], wanted, dim=0) > 0.99  # 8 bits against floats


def test_heads_attend_to_all_tokens_alike(tmp_path, monkeypatch):
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("".join(json.dumps({"doc": f"add {n}", "bare": text}) + "\n" for n, text in enumerate(TEXTS)))
    options = ["--pairs", pairs, "--number", 10, "--steps", 2, "--widths", 64, "--work", tmp_path, "--out", tmp_path]
    monkeypatch.setattr(sys, "argv", ["heads", *map(str, options)])
    heads.main()
    checkpoint = load_checkpoint("nano").with_head(Head.load(tmp_path / "head-64.safetensors"))
    assert (checkpoint.output_dim, json.loads(checkpoint.head.training)["groups"]) == (64, 10)
    weights = FoldedPMA(pma_of(checkpoint)).scores(torch.randn(5, 384)).softmax(0)
    torch.testing.assert_close(weights, torch.full_like(weights, 0.2))
