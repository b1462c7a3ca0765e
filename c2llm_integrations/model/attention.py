"""Attention over texts laid end to end: a token sees its own text only, with no padding and no mask in memory."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from c2llm_integrations.model import attention_gpu
from c2llm_integrations.model.attention_gpu import Groups, PackedLayout

# Scores held at once, 1 MB of float32: what a core's own cache holds.
SCORES = 2**18
# Rows of queries at once: what lies right of the diagonal in their block is computed for nothing.
ROWS = 128


@dataclass(frozen=True)
class Padded:
    """Texts padded on the right to one length, for graphs; `mask` (texts, length) is True where a token is.

    Each text has a token. A packed matrix has texts · length rows of it, and nothing reads those of padding.
    """

    mask: Tensor


def attend(
    query: Tensor, key: Tensor, value: Tensor, groups: Groups | PackedLayout | Padded, *, causal: bool
) -> Tensor:
    """Return each token's attention over its own text.

    Args:
        query: (tokens, heads, width).
        key: The same, or fewer heads (grouped queries).
        value: As `key`.
        groups: Which tokens are a text; a `PackedLayout` is attended as a GPU does it, a `Padded` by plain operations.
        causal: Whether later tokens are hidden.

    Returns:
        (tokens, heads · width); zeros for tokens of no group.

    """
    if isinstance(groups, PackedLayout):
        return attention_gpu.attend(query, key, value, groups, causal=causal)
    if isinstance(groups, Padded):
        return _in_one(query, key, value, groups.mask, causal)
    mixed = torch.zeros_like(query)
    if causal and _is_fused_slow(query):
        _in_blocks(query, key, value, groups, mixed)
    else:
        _fused(query, key, value, groups, mixed, causal)
    return mixed.flatten(1)


def _in_one(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, causal: bool) -> Tensor:
    """Attend in a padded batch by two products and a softmax, which every runtime has; padding is masked."""
    key, value = attention_gpu.repeated(query, key, value)
    q, k, v = (part.unflatten(0, mask.shape).transpose(1, 2) for part in (query, key, value))
    places = torch.arange(mask.shape[1])
    seen = places <= places[:, None] if causal else mask[:, None, None, :]
    scores = (q * query.shape[-1] ** -0.5) @ k.transpose(2, 3)
    mixed: Tensor = scores.masked_fill(~seen, -torch.inf).softmax(-1) @ v
    return mixed.transpose(1, 2).flatten(0, 1).flatten(1)


def _is_fused_slow(query: Tensor) -> bool:
    """Return whether PyTorch's fused attention is slow here for causal texts: in bfloat16 on a CPU without AMX.

    Measured on one core with AVX512-BF16, 14 heads of 64 over 2 of keys, microseconds a token: 14.5 fused and 10.9 in
    blocks at 256 tokens, 26.0 and 15.9 at 512.
    """
    amx = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    return query.device.type == "cpu" and query.dtype == torch.bfloat16 and not amx()


def _fused(query: Tensor, key: Tensor, value: Tensor, groups: Groups, mixed: Tensor, causal: bool) -> None:
    repeated = query.shape[1] != key.shape[1]
    for start, count, length in groups:
        rows = slice(start, start + count * length)
        q, k, v = (part[rows].view(count, length, *part.shape[1:]).transpose(1, 2) for part in (query, key, value))
        out = F.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=repeated)
        mixed[rows].view(count, length, *query.shape[1:]).copy_(out.transpose(1, 2))


def _in_blocks(query: Tensor, key: Tensor, value: Tensor, groups: Groups, mixed: Tensor) -> None:
    """Attend causally by two products and a softmax for blocks that stay in a core's cache; writes to `mixed`."""
    heads, width = query.shape[1:]
    shape = key.shape[1], heads // key.shape[1], width  # heads of keys, of queries for each, width
    # In float32, as fused kernels hold scores: keys of Qwen2.5 reach 175, and a score of that size rounded to bfloat16
    # is off by whole units before the softmax.
    query, key = query.float() * float(width**-0.5), key.float()
    for start, count, length in groups:
        texts = max(1, SCORES // (heads * length * length))
        for first in range(0, count, texts):
            size = min(texts, count - first)
            rows = slice(start + first * length, start + (first + size) * length)
            q, out = (part[rows].view(size, length, *shape).permute(0, 2, 3, 1, 4) for part in (query, mixed))
            k, v = (
                part[rows].view(size, length, shape[0], width).transpose(1, 2).reshape(-1, length, width)
                for part in (key, value)
            )
            _mix(q, k, v, out)


def _mix(query: Tensor, key: Tensor, value: Tensor, out: Tensor) -> None:
    """Attend with queries (texts, key heads, shared, length, width), twice (texts · key heads, length, width)."""
    length, width = query.shape[-2:]
    step = min(ROWS, max(16, SCORES // (query.shape[1] * query.shape[2] * length)))
    for begin in range(0, length, step):
        end = min(begin + step, length)
        block = query[..., begin:end, :]
        scores = torch.bmm(block.reshape(len(key), -1, width), key[:, :end].transpose(1, 2))
        later = torch.full((end - begin, end - begin), -torch.inf, dtype=scores.dtype).triu_(1)
        scores.view(len(key), -1, end - begin, end)[..., begin:].add_(later)
        out[..., begin:end, :] = torch.bmm(scores.softmax(-1).to(value.dtype), value[:, :end]).view(block.shape)
