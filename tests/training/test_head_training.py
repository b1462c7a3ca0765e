"""Heads trained on cached states."""

import math

import numpy as np
import pytest
import torch

from c2llm_integrations.errors import InputError
from c2llm_integrations.model.checkpoint import load_checkpoint
from c2llm_integrations.model.embedder import C2LLMEmbedder
from c2llm_integrations.model.pma import FoldedPMA
from c2llm_integrations.training import head as training
from c2llm_integrations.training.head import (
    contrast,
    distillation,
    encode,
    pma_of,
    ranking_distillation,
    train_head,
)
from c2llm_integrations.training.options import HeadOptions
from c2llm_integrations.training.token_state_cache import TokenStates, cache_states, count_cut, token_ids
from tests.golden import TIED

TEXTS = [f"def f{n}(x):\n    return {'x + ' * (n % 7)}{n}" for n in range(60)]


@pytest.fixture(scope="module")
def checkpoint():
    return load_checkpoint(str(TIED))


@pytest.fixture(scope="module")
def states(checkpoint, tmp_path_factory):
    return cache_states(checkpoint, TEXTS, tmp_path_factory.mktemp("states"), max_length=14)


def alone(count=60):
    return [[row] for row in range(count)]


def test_cached_states_give_the_embedders_vectors(checkpoint, states):
    embedder = C2LLMEmbedder.from_pretrained(str(TIED), max_length=14)
    vectors = encode(pma_of(checkpoint), states, range(60)).detach().numpy()
    assert (vectors * embedder.encode(TEXTS)).sum(1).min() > 0.999
    assert states.cut == embedder.texts_cut > 0


@pytest.mark.parametrize("max_length", [1, 5, 14, 10_000])
def test_texts_that_are_cut_are_counted_once_each(checkpoint, max_length):
    texts = [*TEXTS, *TEXTS[:7], "", "é" * 40, "x = 1"]
    cut = {text: was_cut for text, (_, was_cut) in zip(texts, token_ids(checkpoint, texts, max_length), strict=True)}
    assert count_cut(checkpoint, iter(texts), max_length) == sum(cut.values())


def test_states_are_computed_once(checkpoint, tmp_path, monkeypatch):
    first = cache_states(checkpoint, TEXTS[:9], tmp_path)
    # A second computation would fail.
    monkeypatch.setattr("c2llm_integrations.training.token_state_cache.load_encoder", None)
    again = cache_states(checkpoint, TEXTS[:9], tmp_path)
    np.testing.assert_array_equal(first.states, again.states)
    assert len(list(tmp_path.iterdir())) == 1


def test_an_interrupted_cache_goes_on_where_it_stopped(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr("c2llm_integrations.training.token_state_cache.WINDOW_TEXTS", 4)
    seen = []

    def interrupt(done, total, what):
        seen.append(done)
        if len(seen) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache_states(checkpoint, TEXTS[:15], tmp_path / "", progress=interrupt)
    assert sorted(file.suffix for file in tmp_path.iterdir()) == [".done", ".partial"]
    states = cache_states(checkpoint, TEXTS[:15], tmp_path, progress=interrupt)
    assert seen == [4, 8, 12, 15]
    (tmp_path / "other").mkdir()
    np.testing.assert_array_equal(states.states, cache_states(checkpoint, TEXTS[:15], tmp_path / "other").states)
    assert [file.suffix for file in tmp_path.iterdir() if file.is_file()] == [".npy"]


def test_a_full_disk_is_said_before_anything_is_computed(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 100}))
    with pytest.raises(InputError, match=r"bytes, .* has 100 free"):
        cache_states(checkpoint, TEXTS, tmp_path)
    assert not list(tmp_path.iterdir())


def test_folded_pooling_is_pma(checkpoint, states):
    pma = pma_of(checkpoint)
    batch = states.padded([3, 1, 59, 7])
    torch.testing.assert_close(FoldedPMA(pma)(*batch), pma(*batch), atol=1e-4, rtol=1e-4)


def test_a_head_begins_with_the_checkpoints_attention(checkpoint, states):
    full = pma_of(checkpoint)
    pma = training.start(checkpoint, 32, states, range(40), 0)
    [text] = states.padded([0])[0]
    found, wanted = (FoldedPMA(one).scores(text).softmax(0) for one in (pma, full))
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-3)


def test_training_comes_closer_to_the_full_width_and_repeats_by_its_seed(checkpoint, states):
    recipe = HeadOptions(32, steps=40, batch=16, warmup=5)
    head, losses = train_head(checkpoint, states, alone(), recipe)
    again, _ = train_head(checkpoint, states, alone(), recipe)
    other, _ = train_head(checkpoint, states, alone(), HeadOptions(32, steps=40, batch=16, warmup=5, seed=1))
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])
    assert head.digest == again.digest != other.digest
    assert (head.base, head.weights) == (checkpoint.name, checkpoint.digest())
    assert '"steps": 40' in head.training


def test_a_few_texts_are_enough(checkpoint, tmp_path):
    few = cache_states(checkpoint, TEXTS[:2], tmp_path)
    head, losses = train_head(checkpoint, few, alone(2), HeadOptions(32, steps=2))
    assert (head.output_dim, len(losses)) == (32, 2)


def test_pairs_teach_what_belongs_together(checkpoint, states):
    groups = [[row, row + 1, (row + 7) % 60] for row in range(0, 60, 2)]
    head, losses = train_head(checkpoint, states, groups, HeadOptions(32, steps=40, batch=10, warmup=5))
    assert losses[-1] < losses[0]
    own = checkpoint.with_head(head)
    before, after = (encode(pma_of(c), states, range(60)).detach() for c in (checkpoint, own))
    assert contrast(after, groups) < contrast(before, groups)


def test_distillation_is_zero_for_equal_cosines_and_more_for_others():
    torch.manual_seed(0)
    wanted = torch.nn.functional.normalize(torch.randn(9, 6), dim=1)
    rotation = torch.linalg.qr(torch.randn(6, 6))[0]
    assert distillation(wanted @ rotation, wanted).abs() < 1e-4
    assert distillation(wanted[:, :3], wanted) > 0.1


def test_only_cosines_of_questions_with_documents_count_where_there_are_pairs():
    documents = torch.tensor([[0, 0, 1.0], [0, 0, -1]])
    apart = torch.cat([torch.tensor([[0.6, 0, 0.8], [0, 0.8, 0.6]]), documents])
    near = torch.cat([torch.tensor([[0.6, 0, 0.8], [0.8, 0, 0.6]]), documents])
    assert distillation(near, apart) > 0.1
    assert ranking_distillation(near, apart, [0, 1], [2, 3]).abs() < 1e-6
    assert ranking_distillation(near, apart[[1, 0, 2, 3]], [0, 1], [2, 3]) > 1e-3


def test_a_shared_positive_is_no_negative():
    vectors = torch.eye(4)
    assert contrast(vectors[[0, 0, 1]], [[0, 2], [1, 2]]) < 1e-6
    assert contrast(vectors[[0, 1, 2, 2]], [[0, 2], [1, 3]]) == pytest.approx(math.log(2))


@pytest.mark.parametrize("width", [0, 3, 64, 96])
def test_a_width_that_cannot_be_trained_is_said(width, checkpoint, states):
    with pytest.raises(InputError, match=f"head of {width} dimensions.*multiple of its 8 heads, below its width of 64"):
        train_head(checkpoint, states, alone(), HeadOptions(width))


def test_too_few_texts_and_a_loss_that_is_no_number_are_errors(checkpoint, states):
    with pytest.raises(InputError, match="cannot be trained on 1 texts"):
        train_head(checkpoint, TokenStates(states.states[:4], np.array([4]), 0), [[0]], HeadOptions(32))
    with pytest.raises(InputError, match=r"the loss is nan at step 1; lower the learning rate from 1e\+30"):
        train_head(checkpoint, states, alone(), HeadOptions(32, steps=9, lr=1e30))
