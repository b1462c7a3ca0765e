"""Texts laid end to end on a GPU: attention and pooling in a few calls, however many texts there are.

A GPU waits for Python where every text is a call of its own. Attention in half precision goes through PyTorch's
variable-length kernel, which needs no padding. What that kernel does not take (float32, an older GPU or PyTorch), and
pooling, is padded in blocks of neighbours of which none is shorter than half the longest: as batches come longest text
first, that is at most a dozen blocks for texts of 1 to 2,048 tokens, and less than twice the memory. The linear layers
are never padded.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

Groups = Sequence[tuple[int, int, int]]  # runs of texts of equal length: start token, texts, tokens in each
# Heads that flash attention takes: a multiple of 8 wide, at most 256.
WIDTH_MULTIPLE, MOST_WIDTH = 8, 256


@dataclass(frozen=True)
class Block:
    """Neighbouring texts padded to the longest of them, which is the first.

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
class Layout:
    """A batch's texts as the device needs them; `offsets`: (texts + 1,) int32; `longest` and `tokens` are counts."""

    offsets: Tensor
    longest: int
    tokens: int
    blocks: list[Block]


def attend(query: Tensor, key: Tensor, value: Tensor, groups: Groups, *, causal: bool) -> Tensor:
    """(tokens, heads, width) each → (tokens, heads · width); `key` and `value` may have fewer heads (grouped queries).

    `groups` follow each other from token 0 on. `causal` hides later tokens. Tokens of no group come out as zeros.
    """
    way = attend_varlen if _takes_varlen(query) else attend_padded
    return way(query, key, value, layout(tuple(groups), query.device), causal=causal).flatten(1)


def attend_varlen(query: Tensor, key: Tensor, value: Tensor, texts: Layout, *, causal: bool) -> Tensor:
    """PyTorch's variable-length flash attention: half precision on CUDA. → (tokens, heads, width)."""
    from torch.nn.attention.varlen import varlen_attn

    lengths = (texts.offsets, texts.offsets, texts.longest, texts.longest)
    options: Any = {"window_size": (-1, 0 if causal else -1), "enable_gqa": query.shape[1] != key.shape[1]}
    mixed: Any = varlen_attn(query, key, value, *lengths, **options)
    mixed[texts.tokens :].zero_()  # rows that the kernel leaves as they were
    return mixed  # type: ignore[no-any-return]


def attend_padded(query: Tensor, key: Tensor, value: Tensor, texts: Layout, *, causal: bool) -> Tensor:
    """Any precision on any device, padded in blocks. → (tokens, heads, width)."""
    mixed = torch.zeros_like(query)
    # The fused kernels take grouped queries in half precision only.
    shared = query.shape[1] // key.shape[1]
    key, value = (part.repeat_interleave(shared, 1) if shared > 1 else part for part in (key, value))
    for block in texts.blocks:
        q, k, v = (part[block.rows].transpose(1, 2) for part in (query, key, value))
        # Padding is on the right, where no real token looks anyway if later tokens are hidden.
        mask = None if causal or block.real is None else block.real[:, None, None]
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal).transpose(1, 2)
        mixed[block.begin : block.end] = out.flatten(0, 1)[block.places]
    return mixed


def pool(scores: Tensor, states: Tensor, groups: Groups) -> Tensor:
    """(tokens, heads) float32, (tokens, D) → (texts, heads, D): each text's states, weighted by its scores' softmax."""
    pooled = []
    for block in layout(tuple(groups), states.device).blocks:
        weights = scores[block.rows]
        if block.real is not None:
            weights = weights.masked_fill(~block.real[:, :, None], -torch.inf)
        pooled.append(torch.bmm(weights.softmax(1).to(states.dtype).transpose(1, 2), states[block.rows]))
    return torch.cat(pooled)


@lru_cache(maxsize=4)  # every layer of a batch asks for the same one
def layout(groups: tuple[tuple[int, int, int], ...], device: torch.device) -> Layout:
    """Put the groups on the device, in as few copies as their blocks need."""
    lengths = [length for _, count, length in groups for _ in range(count)]
    offsets = [0, *accumulate(lengths)]
    blocks = [_block(offsets, lengths[first:last], first, device) for first, last in _alike(lengths)]
    on_device = moved(torch.tensor(offsets, dtype=torch.int32), device)
    return Layout(on_device, max(lengths), offsets[-1], blocks)


def _alike(lengths: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Runs of neighbours between the length of the first and half of that: the first text, and the one after."""
    first = 0
    for index in range(1, len(lengths) + 1):
        if index == len(lengths) or not lengths[first] <= 2 * lengths[index] <= 2 * lengths[first]:
            yield first, index
            first = index


def _block(offsets: Sequence[int], lengths: Sequence[int], first: int, device: torch.device) -> Block:
    begin, end = offsets[first], offsets[first + len(lengths)]
    starts, sizes = torch.tensor(offsets[first : first + len(lengths)])[:, None], torch.tensor(lengths)[:, None]
    columns = torch.arange(lengths[0])
    real = columns < sizes
    rows = torch.where(real, starts + columns, starts)
    padded = bool(end - begin < real.numel())
    places = real.flatten().nonzero()[:, 0]
    return Block(begin, end, moved(rows, device), moved(real, device) if padded else None, moved(places, device))


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a CPU tensor to the device; to a GPU from pinned memory, so that nobody waits for the copy."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def _takes_varlen(query: Tensor) -> bool:
    width = query.shape[-1]
    return (
        query.is_cuda
        and query.dtype in (torch.bfloat16, torch.float16)
        and width % WIDTH_MULTIPLE == 0
        and width <= MOST_WIDTH
        and _has_varlen()
        and torch.cuda.get_device_capability(query.device) >= (8, 0)
    )


@cache
def _has_varlen() -> bool:
    """Whether this PyTorch has the kernel, with grouped queries."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return False
    known = inspect.signature(varlen_attn).parameters.keys()
    return {"window_size", "enable_gqa"} <= known and torch.backends.cuda.is_flash_attention_available()
