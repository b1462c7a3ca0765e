"""The small steps between a decoder layer's products, each one kernel on a GPU.

Each step reads and writes its rows several times when PyTorch runs it operation by operation, which costs a GPU a
quarter of its time. There a kernel of Triton takes its place (`fused_kernels`); where that fails, a warning says so and
PyTorch's operations do it. Nothing is traced: `torch.compile` would set a switch of the whole process for seconds, in
which no other thread can call what it has compiled.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import update_wrapper
from threading import Lock
from typing import Any, Generic, ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

_P = ParamSpec("_P")
_R = TypeVar("_R")
_CALLS = Lock()  # Triton compiles a kernel in its first call, and does not promise that two threads may do so at once
_CLOSE = 0.03  # of the largest number: far more than what rounding in half precision moves


class Fused(Generic[_P, _R]):
    """A function of tensors, for which the kernel of the same name is called where its first argument is on a GPU.

    On every GPU, for every dtype and width, the first result of a kernel is compared with the function's own.
    """

    enabled = True  # of all of them: False after one failed

    def __init__(self, function: Callable[_P, _R]) -> None:
        self.function = function
        self.proven: set[tuple[Any, ...]] = set()
        update_wrapper(self, function)

    def __call__(self, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        """Return what the function returns."""
        rows = args[0]
        if not (Fused.enabled and isinstance(rows, Tensor) and rows.is_cuda):
            return self.function(*args, **kwargs)
        sort = (rows.device, rows.dtype, rows.shape[1:])
        # Before the kernel, which may write over its argument.
        wanted = None if sort in self.proven else self.function(*args, **kwargs)
        try:
            with _CALLS, torch.cuda.device_of(rows):
                from c2llm_integrations.model import fused_kernels

                found: _R = getattr(fused_kernels, self.function.__name__)(*args, **kwargs)
            if wanted is not None and not _agree(found, wanted):
                raise ArithmeticError(f"{self.function.__name__} differs from PyTorch's result")
            self.proven.add(sort)
            return found
        except Exception as error:
            if isinstance(error, torch.OutOfMemoryError) or str(error).startswith("CUDA"):
                raise
            if "out of memory" in str(error):
                raise torch.OutOfMemoryError(str(error)) from error  # a kernel that found no room for itself
            Fused.enabled = False
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            warnings.warn(f"a GPU kernel could not be used ({reason}); computing without, slower", stacklevel=2)
            return self.function(*args, **kwargs) if wanted is None else wanted


def _agree(found: Any, wanted: Any) -> bool:
    """Return whether tensors are equal but for rounding, with NaN and infinity in the same places."""
    if isinstance(wanted, tuple):
        return all(map(_agree, found, wanted))
    near = _CLOSE * wanted.abs().nan_to_num(0, 0, 0).max()
    return bool(
        ((found - wanted).abs() <= near).logical_or(found == wanted).logical_or(wanted.isnan() & found.isnan()).all()
    )


@Fused
def add_norm(x: Tensor, more: Tensor, weight: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """Return the sum of two (tokens, D), and its RMSNorm."""
    total = x + more
    return total, F.rms_norm(total, total.shape[-1:], weight, epsilon)


@Fused
def swiglu(gate_up: Tensor) -> Tensor:
    """Return (tokens, inner) of (tokens, 2 · inner), the gate's columns first."""
    gate, up = gate_up.chunk(2, -1)
    return F.silu(gate).mul_(up)  # in place: these are the largest rows of all


@Fused
def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Return (tokens, heads, width) turned by their places, maybe in place; `cos` and `sin` are (tokens, 1, width)."""
    left, right = x.chunk(2, -1)
    return x * cos + torch.cat([-right, left], -1) * sin
