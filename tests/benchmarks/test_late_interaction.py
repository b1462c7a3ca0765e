"""The second stage of `benchmarks.late_interaction`: its score, and how it changes an order."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.late_interaction import Asked
from benchmarks.nano_recipe.token_head import Texts, train


def texts(*lengths: int, seed: int = 0) -> Texts:
    rng = np.random.default_rng(seed)
    ends = np.cumsum(lengths)
    states = rng.normal(size=(ends[-1], 384)).astype(np.float16)
    return Texts(states, ends - lengths, ends, rng.normal(size=(len(lengths), 256)).astype(np.float32))


def test_a_score_is_the_mean_over_the_questions_tokens_of_their_nearest_one() -> None:
    questions, found = texts(2, 3), texts(4, 1, 5, seed=1)
    asked = Asked(questions, found, np.zeros((2, 2)), np.array([[2, 0], [1, 2]]), [], [])
    weight = torch.randn(8, 384)

    def vectors(side: Texts, row: int) -> np.ndarray:
        mapped: np.ndarray = side.states[side.starts[row] : side.ends[row]].astype("f4") @ weight.numpy().T
        unit: np.ndarray = mapped / np.linalg.norm(mapped, axis=1, keepdims=True)
        return unit

    expected = [
        [(vectors(questions, n) @ vectors(found, row).T).max(1).mean() for row in rows]
        for n, rows in enumerate(asked.rows)
    ]
    assert asked.late(weight) == pytest.approx(np.array(expected), abs=1e-4)


def test_only_the_first_hits_are_put_into_another_order() -> None:
    one = texts(1)
    asked = Asked(one, one, np.zeros((1, 3)), np.zeros((1, 3), int), [["a", "b", "c"]], [frozenset("b")])
    assert asked.ndcg(np.array([[0.1, 0.9]])) == pytest.approx([1.0])
    assert asked.ndcg(np.array([[0.9, 0.1]])) == pytest.approx([1 / np.log2(3)])
    assert asked.ndcg(np.array([[0.1, 0.3, 0.9]])) == pytest.approx([1 / np.log2(3)])


def test_training_brings_a_question_nearer_to_its_own_text() -> None:
    rng = np.random.default_rng(0)
    noise, found = texts(*[3] * 64), texts(*[6] * 64, seed=1)
    own = np.repeat(rng.normal(size=(64, 1, 16)), 3, 1).reshape(-1, 16)  # what tells a pair, among what does not
    noise.states[:, :16] = own
    found.states[:, :16] = np.repeat(own[::3], 6, 0)
    everything = np.tile(np.arange(64), (64, 1))
    asked = Asked(noise, found, np.zeros((64, 64)), everything, [], [])

    def margin(weight: torch.Tensor) -> float:
        scores = asked.late(weight)
        return float(scores.diagonal().mean() - scores.mean())

    assert margin(train(noise, found, 16, 30, 1e-2, 0)) > margin(train(noise, found, 16, 0, 1e-2, 0)) + 0.1
