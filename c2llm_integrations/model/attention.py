"""Attention and pooling over texts laid end to end: a token sees its own text only.

A CPU goes over runs of texts of equal length, with no padding and no mask in memory. A GPU waits for Python where every
text is a call of its own, so it takes a few calls however many texts there are: in half precision PyTorch's
variable-length kernel, which needs no padding. What that kernel does not take (float32, an older GPU or PyTorch), and
pooling, is padded in blocks of neighbors, each at least half as long as the longest. Linear layers are never padded.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate, groupby
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

Groups = Sequence[tuple[int, int, int]]  # runs of texts of equal length: start token, texts, tokens in each
# Scores held at once, 1 MB of float32: what a core's own cache holds.
SCORES = 2**18
# Rows of queries at once: what lies right of the diagonal in their block is computed for nothing.
ROWS = 128
# Heads that flash attention takes: a multiple of 8 wide, at most 256.
WIDTH_MULTIPLE, MOST_WIDTH = 8, 256


@dataclass(frozen=True)
class Padded:
    """Texts padded on the right to one length, for graphs; `mask` (texts, length) is True where a token is.

    Each text has a token. A packed matrix has texts · length rows of it, and nothing reads those of padding.
    """

    mask: Tensor


@dataclass(frozen=True)
class Block:
    """Neighboring texts padded to the longest of them, which is the first.

    `rows`: (texts, longest) rows of the packed matrix, the text's first where there is padding; `real`: the same shape,
    False where there is padding, or None where there is none; `places`: (tokens,) where `begin` to `end` of the packed
    rows stand in the flattened block.
    """

    begin: int
    end: int
    rows: Tensor
    real: Tensor | None
    places: Tensor


@dataclass(frozen=True)
class PackedLayout:
    """A batch's texts as the device needs them; `offsets`: (texts + 1,) int32; `longest` and `tokens` are counts."""

    offsets: Tensor
    longest: int
    tokens: int
    blocks: list[Block]


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
        way = attend_varlen if _takes_varlen(query) else attend_padded
        return way(query, key, value, groups, causal=causal).flatten(1)
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
    key, value = repeated(query, key, value)
    q, k, v = (part.unflatten(0, mask.shape).transpose(1, 2) for part in (query, key, value))
    places = torch.arange(mask.shape[1])
    seen = places <= places[:, None] if causal else mask[:, None, None, :]
    scores = (q * query.shape[-1] ** -0.5) @ k.transpose(2, 3)
    mixed: Tensor = scores.masked_fill(~seen, -torch.inf).softmax(-1) @ v
    return mixed.transpose(1, 2).flatten(0, 1).flatten(1)


def _is_fused_slow(query: Tensor) -> bool:
    """Return whether PyTorch's fused attention is slow here for causal texts: in bfloat16 on a CPU without AMX."""
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


# ---- on a GPU


def attend_varlen(query: Tensor, key: Tensor, value: Tensor, texts: PackedLayout, *, causal: bool) -> Tensor:
    """Return (tokens, heads, width) by PyTorch's variable-length flash attention: half precision on CUDA."""
    from torch.nn.attention.varlen import varlen_attn

    lengths = (texts.offsets, texts.offsets, texts.longest, texts.longest)
    options: Any = {"window_size": (-1, 0 if causal else -1)}
    if query.shape[1] != key.shape[1]:
        if "enable_gqa" in _varlen_options():
            options["enable_gqa"] = True
        elif not _takes_grouped(query.device, query.dtype):
            key, value = repeated(query, key, value)
    mixed: Any = varlen_attn(query, key, value, *lengths, **options)
    mixed[texts.tokens :].zero_()  # rows that the kernel leaves as they were
    return mixed  # type: ignore[no-any-return]


@cache
def _takes_grouped(device: torch.device, dtype: torch.dtype) -> bool:
    """Return whether a kernel takes grouped queries, which its documentation does not say; tried on a few tokens."""
    from torch.nn.attention.varlen import varlen_attn

    with torch.inference_mode():
        query, key, value = torch.linspace(0, 99, 3 * 4 * 4 * 8, device=device).sin().to(dtype).view(3, 4, 4, 8)
        key, value, texts = key[:, :2], value[:, :2], packed_layout([4], device)
        try:
            found: Any = varlen_attn(query, key, value, texts.offsets, texts.offsets, 4, 4, window_size=(-1, 0))
            wanted = attend_padded(query, key, value, texts, causal=True)
            return torch.allclose(found.float(), wanted.float(), atol=0.02)
        except torch.OutOfMemoryError:
            raise
        except Exception:
            return False


def attend_padded(query: Tensor, key: Tensor, value: Tensor, texts: PackedLayout, *, causal: bool) -> Tensor:
    """Return (tokens, heads, width) in any precision on any device, padded in blocks."""
    mixed = torch.zeros_like(query)
    key, value = repeated(query, key, value)  # the fused kernels take grouped queries in half precision only
    for block in texts.blocks:
        q, k, v = (part[block.rows].transpose(1, 2) for part in (query, key, value))
        # Padding is on the right, where no real token looks anyway if later tokens are hidden.
        mask = None if causal or block.real is None else block.real[:, None, None]
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal).transpose(1, 2)
        mixed[block.begin : block.end] = out.flatten(0, 1)[block.places]
    return mixed


def repeated(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Return keys and values once for each head of the queries."""
    shared = query.shape[1] // key.shape[1]
    return (key, value) if shared == 1 else (key.repeat_interleave(shared, 1), value.repeat_interleave(shared, 1))


def _takes_varlen(query: Tensor) -> bool:
    width = query.shape[-1]
    return (
        query.is_cuda
        and query.dtype in (torch.bfloat16, torch.float16)
        and width % WIDTH_MULTIPLE == 0
        and width <= MOST_WIDTH
        and "window_size" in _varlen_options()
        and torch.backends.cuda.is_flash_attention_available()
        and torch.cuda.get_device_capability(query.device) >= (8, 0)
    )


@cache
def _varlen_options() -> frozenset[str]:
    """Return the arguments that this PyTorch's kernel takes; before 2.13 it takes no grouped queries."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return frozenset()
    return frozenset(inspect.signature(varlen_attn).parameters)


# ---- pooling, and which tokens are a text


def pool(scores: Tensor, states: Tensor, groups: Groups | PackedLayout) -> Tensor:
    """Return (texts, heads, D), each text's states weighted by its scores' softmax, of (tokens, heads), (tokens, D)."""
    if not isinstance(groups, PackedLayout):
        return _pool_runs(scores, states, groups)
    pooled = []
    for block in groups.blocks:
        weights = scores[block.rows]
        if block.real is not None:
            weights = weights.masked_fill(~block.real[:, :, None], -torch.inf)
        pooled.append(torch.bmm(weights.softmax(1).transpose(1, 2), states[block.rows]))
    return torch.cat(pooled)


def _pool_runs(scores: Tensor, states: Tensor, groups: Groups) -> Tensor:
    pooled = []
    for start, count, length in groups:
        rows = slice(start, start + count * length)
        attention = scores[rows].view(count, length, -1).softmax(1)
        pooled.append(torch.matmul(attention.transpose(1, 2), states[rows].view(count, length, -1)))
    return torch.cat(pooled)


def groups_of(lengths: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """Yield runs of neighbors of equal length: each is one attention call without a mask."""
    start = 0
    for length, run in groupby(lengths):
        count = len(list(run))
        yield start, count, length
        start += count * length


def packed_layout(lengths: Sequence[int], device: torch.device, offsets: Tensor | None = None) -> PackedLayout:
    """Describe texts that follow each other from token 0 on; made once a batch, on the device, without waiting for it.

    `offsets`: (texts + 1,) int32, where each text begins, if they are on the device already.
    """
    begins = [0, *accumulate(lengths)]
    if offsets is None:
        offsets = to_device(torch.tensor(begins, dtype=torch.int32), device)
    blocks = [
        _block(offsets[first : last + 1].long(), lengths[first], begins[first], begins[last])
        for first, last in _alike(lengths)
    ]
    return PackedLayout(offsets, max(lengths), begins[-1], blocks)


def _alike(lengths: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield runs of texts at least half as long as their first: the first text, and the one after the last."""
    first = 0
    for index in range(1, len(lengths) + 1):
        if index == len(lengths) or not lengths[first] <= 2 * lengths[index] <= 2 * lengths[first]:
            yield first, index
            first = index


def _block(offsets: Tensor, longest: int, begin: int, end: int) -> Block:
    starts, sizes = offsets[:-1], offsets.diff()
    columns = torch.arange(longest, device=offsets.device)
    real = columns < sizes[:, None]
    rows = torch.where(real, starts[:, None] + columns, starts[:, None])
    texts = torch.arange(len(sizes), device=offsets.device)
    owners = torch.repeat_interleave(texts, sizes, output_size=end - begin)
    places = torch.arange(begin, end, device=offsets.device) - starts[owners] + owners * longest
    return Block(begin, end, rows, real if end - begin < real.numel() else None, places)


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a CPU tensor to the device; to a GPU from pinned memory, so that nobody waits for the copy."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
