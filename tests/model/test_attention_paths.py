"""Every way to attend over texts laid end to end gives what each text gives alone."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from c2llm_integrations.model import attention
from c2llm_integrations.model.attention import attend, packed_layout
from c2llm_integrations.model.checkpoint import load_checkpoint
from c2llm_integrations.model.encoder import groups_of, pool_packed
from c2llm_integrations.model.fused_ops import rotate
from c2llm_integrations.model.pma import PMA, FoldedPMA
from tests.golden import TIED

pytestmark = pytest.mark.slow

HEADS = {"equal heads": (4, 4, 8), "grouped queries": (6, 2, 16)}


def alone(query, key, value, lengths, causal):
    """Each text by PyTorch's own attention, written out, in float32."""
    parts, start = [], 0
    for length in lengths:
        q, k, v = (part[start : start + length].float().transpose(0, 1) for part in (query, key, value))
        k, v = (part.repeat_interleave(len(q) // len(part), 0) for part in (k, v))
        parts.append(F.scaled_dot_product_attention(q, k, v, is_causal=causal).transpose(0, 1).flatten(1))
        start += length
    return torch.cat(parts)


@pytest.fixture(params=[True, False], ids=["blocks", "fused"])
def way(request, monkeypatch):
    monkeypatch.setattr(attention, "_is_fused_slow", lambda _: request.param)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("heads", HEADS.values(), ids=HEADS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_each_text_alone(causal, heads, dtype):
    @given(st.lists(st.sampled_from([1, 2, 15, 16, 17, 127, 128, 129, 300]), min_size=1, max_size=6))
    @settings(max_examples=15)
    def check(lengths):
        torch.manual_seed(len(lengths))
        many, few, width = heads
        query, key, value = (torch.randn(sum(lengths), count, width).to(dtype) for count in (many, few, few))
        found = attend(query, key, value, list(groups_of(lengths)), causal=causal)
        allowed = 1e-5 if dtype == torch.float32 else 0.04  # of values up to 4: a rounding of the result and of weights
        torch.testing.assert_close(found.float(), alone(query, key, value, lengths, causal), atol=allowed, rtol=allowed)

    check()


@pytest.mark.usefixtures("way")
def test_many_short_and_one_long():
    """Blocks of several texts, and of part of one."""
    lengths = [1500, *[7] * 60]
    query, key, value = (torch.randn(sum(lengths), heads, 64) for heads in (14, 2, 2))
    found = attend(query, key, value, list(groups_of(lengths)), causal=True)
    torch.testing.assert_close(found, alone(query, key, value, lengths, True), atol=1e-5, rtol=1e-4)


@pytest.mark.usefixtures("way")
def test_rows_of_no_group_are_zero():
    rows = torch.randn(10, 2, 4)
    assert not attend(rows, rows, rows, [(0, 2, 3)], causal=True)[6:].any()


def large_keys(kind, lengths, heads, key_heads, width):
    """Keys as large as those of real Qwen2.5, ±175: the same for all tokens, turned by their places, or any."""
    torch.manual_seed(3)
    tokens = sum(lengths)
    query, value = torch.randn(tokens, heads, width), torch.randn(tokens, key_heads, width)
    key = torch.randn(tokens, key_heads, width)
    bias = 175.0 * torch.randn(key_heads, width).sign() * (torch.rand(key_heads, width) < 0.15)
    if kind == "bias":
        key += bias
    elif kind == "turned bias":
        angles = torch.cat([torch.arange(length) for length in lengths])[:, None] * 1e6 ** -torch.linspace(
            0, 1, width // 2
        )
        cos, sin = (torch.cat([part, part], -1)[:, None] for part in (angles.cos(), angles.sin()))
        query, key = (rotate(part, cos, sin) for part in (query, key + bias))
    else:
        key *= 60
    return [part.bfloat16() for part in (query, key, value)]


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("kind", ["bias", "turned bias", "any"])
@pytest.mark.parametrize(("causal", "heads"), [(True, (4, 2, 64)), (False, (4, 4, 64)), (False, (4, 4, 32))])
@pytest.mark.parametrize("padded", [True, False])
def test_large_keys_cost_no_precision(kind, causal, heads, padded):
    """Scores of some hundreds are off by whole units in bfloat16: they are to be float32 before the softmax."""
    lengths = [200, 130, 64, 64, 9]
    rows = large_keys(kind, lengths, *heads)
    found = attend(*rows, packed_layout(lengths, rows[0].device) if padded else list(groups_of(lengths)), causal=causal)
    wanted = alone(*rows, lengths, causal)
    assert (found.float() - wanted).norm() / wanted.norm() < 0.006


def test_pooling_by_large_scores_costs_no_precision():
    torch.manual_seed(0)
    checkpoint = load_checkpoint(str(TIED))
    sizes = checkpoint.sizes
    pooling = FoldedPMA(PMA.from_tensors(checkpoint.tensors(), sizes.pma_num_heads, sizes.pma_layer_norm))
    pooling.scorer *= 100 / pooling.scorer.norm(dim=1, keepdim=True)
    states, lengths = torch.randn(60, pooling.scorer.shape[1]).bfloat16(), [40, 20]
    for groups in (list(groups_of(lengths)), packed_layout(lengths, states.device)):
        torch.testing.assert_close(pool_packed(pooling, states, groups), pool_packed(pooling, states.double(), groups))
    exact = (states.double() @ pooling.scorer.double().T)[:40].softmax(0)
    torch.testing.assert_close(pooling.scores(states[:40].float()).softmax(0).double(), exact, atol=1e-4, rtol=0)
