"""An experiment: the product of gate and up, and `swiglu` of it, in one kernel: the widest rows stay on the chip.

`benchmarks.gpu_kernels` times it beside what the package does: PyTorch's product, then a kernel for `swiglu`. It would
save the memory's time for two thirds of those rows, if its product were as fast as that of NVIDIA's library.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

# Sizes of a program's block (rows, columns of each half, depth), warps and stages to try.
SHAPES = {
    "128x128x64": (128, 128, 64, 8, 3),
    "128x128x64 deep": (128, 128, 64, 8, 4),
    "128x64x64": (128, 64, 64, 4, 4),
    "256x64x64": (256, 64, 64, 8, 3),
}
GROUP = 8  # blocks of rows whose programs run beside each other and share the columns they read


@triton.jit
def _gate_up_swiglu(
    x, weight, out, rows,
    DEPTH: tl.constexpr, INNER: tl.constexpr, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    place = tl.program_id(0)
    across: tl.constexpr = (INNER + N - 1) // N
    down = tl.cdiv(rows, M)
    first = place // (GROUP * across) * GROUP
    high = min(down - first, GROUP)
    row = (first + place % (GROUP * across) % high) * M
    column = place % (GROUP * across) // high * N
    gate, up = tl.zeros((M, N), tl.float32), tl.zeros((M, N), tl.float32)
    for depth in range(0, DEPTH, K):
        left = x.load([row, depth])
        gate = tl.dot(left, weight.load([column, depth]).T, gate)
        up = tl.dot(left, weight.load([INNER + column, depth]).T, up)
    dtype = out.dtype
    gate, up = gate.to(dtype).to(tl.float32), up.to(dtype).to(tl.float32)
    silu = (gate / (1 + tl.exp(-gate))).to(dtype).to(tl.float32)
    out.store([row, column], (silu * up).to(dtype))


def gate_up_swiglu(x: Tensor, weight: Tensor, shape: str) -> Tensor:
    """(rows, depth), (2 · inner, depth) → (rows, inner); `inner` is a multiple of the block's columns."""
    m, n, k, warps, stages = SHAPES[shape]
    rows, depth = x.shape
    inner = len(weight) // 2
    if inner % n:
        raise ValueError(f"{inner} columns, expected a multiple of {n}")
    out = x.new_empty(rows, inner)
    given = [
        TensorDescriptor.from_tensor(part, block) for part, block in ((x, [m, k]), (weight, [n, k]), (out, [m, n]))
    ]
    grid = (triton.cdiv(rows, m) * (inner // n),)
    _gate_up_swiglu[grid](*given, rows, depth, inner, m, n, k, GROUP, num_warps=warps, num_stages=stages)
    return out
