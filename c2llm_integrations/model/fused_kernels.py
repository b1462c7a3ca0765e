"""The steps of `fused_ops` as Triton kernels, which Triton compiles for the GPU at hand when they are first called.

All are bound by memory: each number is read and written once, 16 bytes a thread and instruction. For that, the kernels
must know how wide rows are while they are compiled (the names in capitals); the number of rows is free. Sums and
functions are computed in float32 and rounded where PyTorch's own operations round.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK, WARPS = 1024, 4  # columns of one program of `swiglu`: 8 numbers of 2 bytes in each of 128 threads
PAIRS_A_WARP = 256  # of `rotate`, for the same reason


@triton.jit
def _swiglu(gate_up: tl.tensor, out: tl.tensor, INNER: tl.constexpr, BLOCK: tl.constexpr) -> None:
    blocks: tl.constexpr = (INNER + BLOCK - 1) // BLOCK
    place = tl.program_id(0)
    row = (place // blocks).to(tl.int64)
    columns = place % blocks * BLOCK + tl.arange(0, BLOCK)
    inside = columns < INNER
    gates = gate_up + row * (2 * INNER) + columns
    gate = tl.load(gates, inside, 0).to(tl.float32)
    up = tl.load(gates + INNER, inside, 0).to(tl.float32)
    dtype = out.dtype.element_ty
    silu = (gate / (1 + tl.exp(-gate))).to(dtype).to(tl.float32)
    tl.store(out + row * INNER + columns, (silu * up).to(dtype), inside)


def swiglu(gate_up: Tensor, block: int = BLOCK, warps: int = WARPS) -> Tensor:
    """See `fused_ops.swiglu`."""
    rows, inner = gate_up.shape[0], gate_up.shape[1] // 2
    out = gate_up.new_empty(rows, inner)
    _swiglu[(rows * triton.cdiv(inner, block),)](gate_up.contiguous(), out, inner, block, num_warps=warps)
    return out


@triton.jit
def _add_norm(
    x: tl.tensor,
    more: tl.tensor,
    weight: tl.tensor,
    total: tl.tensor,
    normed: tl.tensor,
    epsilon: tl.tensor,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    columns = tl.arange(0, BLOCK)
    inside = columns < WIDTH
    places = tl.program_id(0).to(tl.int64) * WIDTH + columns
    dtype = total.dtype.element_ty
    exact = tl.load(x + places, inside, 0).to(tl.float32) + tl.load(more + places, inside, 0).to(tl.float32)
    rounded = exact.to(dtype)
    tl.store(total + places, rounded, inside)
    exact = rounded.to(tl.float32)
    scale = tl.rsqrt(tl.sum(exact * exact, 0) / WIDTH + epsilon)
    tl.store(normed + places, (exact * scale * tl.load(weight + columns, inside, 0)).to(dtype), inside)


def add_norm(
    x: Tensor, more: Tensor, weight: Tensor, epsilon: float, warps: int | None = None
) -> tuple[Tensor, Tensor]:
    """See `fused_ops.add_norm`."""
    rows, width = x.shape
    total, normed = torch.empty_like(x, memory_format=torch.contiguous_format), x.new_empty(rows, width)
    block = triton.next_power_of_2(width)
    given = (x.contiguous(), more.contiguous(), weight, total, normed)
    _add_norm[(rows,)](*given, epsilon, width, block, num_warps=warps or min(8, max(1, block // 256)))
    return total, normed


@triton.jit
def _rotate(
    x: tl.tensor,
    cos: tl.tensor,
    sin: tl.tensor,
    ROW_STRIDE: tl.constexpr,
    HEADS: tl.constexpr,
    HALF: tl.constexpr,
    HEADS_BLOCK: tl.constexpr,
    HALF_BLOCK: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64)
    heads, columns = tl.arange(0, HEADS_BLOCK)[:, None], tl.arange(0, HALF_BLOCK)[None, :]
    inside, real = (heads < HEADS) & (columns < HALF), columns < HALF
    lefts = x + row * ROW_STRIDE + heads * (2 * HALF) + columns
    left, right = tl.load(lefts, inside, 0).to(tl.float32), tl.load(lefts + HALF, inside, 0).to(tl.float32)
    cosines, sines = cos + row * (2 * HALF) + columns, sin + row * (2 * HALF) + columns
    dtype = x.dtype.element_ty
    plus = (left * tl.load(cosines, real, 0)).to(dtype).to(tl.float32)
    minus = (right * tl.load(sines, real, 0)).to(dtype).to(tl.float32)
    tl.store(lefts, (plus - minus).to(dtype), inside)
    plus = (right * tl.load(cosines + HALF, real, 0)).to(dtype).to(tl.float32)
    more = (left * tl.load(sines + HALF, real, 0)).to(dtype).to(tl.float32)
    tl.store(lefts + HALF, (plus + more).to(dtype), inside)


def rotate(x: Tensor, cos: Tensor, sin: Tensor, warps: int | None = None) -> Tensor:
    """See `fused_ops.rotate`; in place, so that the rows of a larger product are turned where they lie."""
    tokens, heads, width = x.shape
    if x.stride()[1:] != (width, 1):
        return x.copy_(rotate(x.contiguous(), cos, sin, warps))
    half = width // 2
    blocks = triton.next_power_of_2(heads), triton.next_power_of_2(half)
    warps = warps or min(8, max(1, blocks[0] * blocks[1] // PAIRS_A_WARP))
    _rotate[(tokens,)](x, cos.contiguous(), sin.contiguous(), x.stride(0), heads, half, *blocks, num_warps=warps)
    return x
