"""Attention over texts laid end to end: a token sees its own text only, with no padding and no mask in memory."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from c2llm_integrations.encoding import packed_gpu
from c2llm_integrations.encoding.packed_gpu import Groups

# Scores held at once, 1 MB of bfloat16: what a core's own cache holds.
SCORES = 2**19
# Rows of queries at once: what lies right of the diagonal in their block is computed for nothing.
ROWS = 128
# Where nothing is hidden, a text's window is a multiple of this, because the CPU library builds and keeps a kernel for
# every size; shorter texts than the other gain nothing.
WINDOW, SHORT = 32, 64


def attend(query: Tensor, key: Tensor, value: Tensor, groups: Groups, *, causal: bool) -> Tensor:
    """(tokens, heads, width) each → (tokens, heads · width); `key` and `value` may have fewer heads (grouped queries).

    `causal` hides later tokens. Tokens of no group come out as zeros.
    """
    if query.is_cuda:
        return packed_gpu.attend(query, key, value, groups, causal=causal)
    mixed = torch.zeros_like(query)
    if not _is_fused_slow(query):
        _fused(query, key, value, groups, mixed, causal)
    elif causal:
        _in_blocks(query, key, value, groups, mixed)
    else:
        _in_windows(query, key, value, groups, mixed)
    return mixed.flatten(1)


def _is_fused_slow(query: Tensor) -> bool:
    """PyTorch's fused attention on a CPU computes bfloat16 with slow products unless there is AMX.

    Measured on one core with AVX512-BF16 at 256 tokens: 14 heads of 64 over 2 of keys, causal, 11.5 microseconds a
    token fused, 4.4 in blocks; 12 heads of 32, nothing hidden, 5.8 fused, 3.2 in windows.
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


def _in_windows(query: Tensor, key: Tensor, value: Tensor, groups: Groups, mixed: Tensor) -> None:
    """Nothing hidden, as two products and a softmax a text; writes to `mixed`.

    A window may reach into the neighbours' rows: as keys they get no weight, as queries they are not read.
    """
    scaled = query * query.shape[-1] ** -0.5
    for start, count, length in groups:
        if length < SHORT or query.shape[1] != key.shape[1]:
            _fused(query, key, value, [(start, count, length)], mixed, causal=False)
            continue
        size = min(-(-length // WINDOW) * WINDOW, len(query))
        for begin in range(start, start + count * length, length):
            first = min(begin, len(query) - size)
            rows, own = slice(first, first + size), slice(begin - first, begin - first + length)
            q, k, v = (part[rows].transpose(0, 1) for part in (scaled, key, value))
            scores = torch.bmm(q, k.transpose(1, 2))
            scores[..., : own.start].fill_(-torch.inf)
            scores[..., own.stop :].fill_(-torch.inf)
            mixed[begin : begin + length] = torch.bmm(scores.softmax(-1), v)[:, own].transpose(0, 1)


def _in_blocks(query: Tensor, key: Tensor, value: Tensor, groups: Groups, mixed: Tensor) -> None:
    """Causal, as two products and a softmax of blocks that stay in a core's cache; writes to `mixed`."""
    heads, width = query.shape[1:]
    shape = key.shape[1], heads // key.shape[1], width  # heads of keys, of queries for each, width
    query = query * width**-0.5
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
    """(texts, key heads, shared, length, width), twice (texts · key heads, length, width); `out` is as `query`."""
    length, width = query.shape[-2:]
    step = min(ROWS, max(16, SCORES // (query.shape[1] * query.shape[2] * length)))
    for begin in range(0, length, step):
        end = min(begin + step, length)
        block = query[..., begin:end, :]
        scores = torch.bmm(block.reshape(len(key), -1, width), key[:, :end].transpose(1, 2))
        later = torch.full((end - begin, end - begin), -torch.inf, dtype=scores.dtype).triu_(1)
        scores.view(len(key), -1, end - begin, end)[..., begin:].add_(later)
        out[..., begin:end, :] = torch.bmm(scores.softmax(-1), value[:, :end]).view(block.shape)
