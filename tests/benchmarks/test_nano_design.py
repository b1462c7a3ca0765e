"""The poolings that the benchmark compares with PMA."""

import json

import pytest
import torch

from benchmarks.nano_design import Pooled
from benchmarks.nano_recipe.data import read_pairs


@pytest.mark.parametrize("last", [False, True])
def test_padding_is_not_pooled(last):
    pooled = Pooled(6, 4, last)
    states, mask = torch.randn(2, 5, 6), torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    expected = torch.stack([(text[-1] if last else text.mean(0)) for text in (states[0, :3], states[1])])
    torch.testing.assert_close(pooled(states, mask), pooled.linear(expected))


def test_some_pairs_of_a_file_are_drawn_once_each(tmp_path):
    rows = [{"doc": str(number)} for number in range(30)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read_pairs(tmp_path / "pairs.jsonl") == rows
    drawn = [row["doc"] for row in read_pairs(tmp_path / "pairs.jsonl", 10)]
    assert len(set(drawn)) == 10
    assert drawn == [row["doc"] for row in read_pairs(tmp_path / "pairs.jsonl", 10)]
