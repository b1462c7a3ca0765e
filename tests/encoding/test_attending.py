"""Every way to attend over texts laid end to end gives what each text gives alone."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from c2llm_integrations.encoding import attention
from c2llm_integrations.encoding.attention import attend
from c2llm_integrations.encoding.encoder import _groups

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
    @settings(max_examples=15, deadline=None)
    def check(lengths):
        torch.manual_seed(len(lengths))
        many, few, width = heads
        query, key, value = (torch.randn(sum(lengths), count, width).to(dtype) for count in (many, few, few))
        found = attend(query, key, value, list(_groups(lengths)), causal=causal)
        allowed = 1e-5 if dtype == torch.float32 else 0.04  # of values up to 4: a rounding of the result and of weights
        torch.testing.assert_close(found.float(), alone(query, key, value, lengths, causal), atol=allowed, rtol=allowed)

    check()


@pytest.mark.usefixtures("way")
def test_many_short_and_one_long():
    """Blocks of several texts, and of part of one."""
    lengths = [1500, *[7] * 60]
    query, key, value = (torch.randn(sum(lengths), heads, 64) for heads in (14, 2, 2))
    found = attend(query, key, value, list(_groups(lengths)), causal=True)
    torch.testing.assert_close(found, alone(query, key, value, lengths, True), atol=1e-5, rtol=1e-4)


@pytest.mark.usefixtures("way")
def test_rows_of_no_group_are_zero():
    rows = torch.randn(10, 2, 4)
    assert not attend(rows, rows, rows, [(0, 2, 3)], causal=True)[6:].any()
