"""The small steps between a decoder layer's products, each one kernel on a GPU.

Each step reads and writes its rows several times when PyTorch runs it operation by operation, which costs a GPU a
quarter of its time. There each is compiled when it is first used; where that fails, a warning says so and PyTorch runs
it as it is.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cached_property
from typing import Generic, ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

_P = ParamSpec("_P")
_R = TypeVar("_R")


class Fused(Generic[_P, _R]):
    """A function of tensors, compiled for any number of rows where its first argument is on a GPU."""

    enabled = True  # of all of them: False after compiling one failed

    def __init__(self, function: Callable[_P, _R]) -> None:
        self.function = function

    @cached_property
    def compiled(self) -> Callable[_P, _R]:
        """The function's kernel, made when it is first called; another number of rows needs no other one."""
        return torch.compile(self.function, dynamic=True, fullgraph=True)

    def __call__(self, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        """Return what the function returns."""
        rows = args[0]
        if not (Fused.enabled and isinstance(rows, Tensor) and rows.is_cuda):
            return self.function(*args, **kwargs)
        try:
            return self.compiled(*args, **kwargs)
        except Exception as error:
            if not _is_from_compiler(error):
                raise
            Fused.enabled = False
            reason = " ".join(str(error).split())[:300]
            warnings.warn(f"a GPU kernel could not be compiled ({reason}); computing without, slower", stacklevel=2)
            return self.function(*args, **kwargs)


def _is_from_compiler(error: Exception) -> bool:
    from torch._dynamo.exc import TorchDynamoException

    return isinstance(error, TorchDynamoException) and not isinstance(error.__cause__, torch.OutOfMemoryError)


@Fused
def add_norm(x: Tensor, more: Tensor, weight: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """(tokens, D) twice → their sum, and its RMSNorm."""
    total = x + more
    return total, F.rms_norm(total, total.shape[-1:], weight, epsilon)


@Fused
def swiglu(gate_up: Tensor) -> Tensor:
    """(tokens, 2 · inner), the gate's columns first → (tokens, inner)."""
    gate, up = gate_up.chunk(2, -1)
    return F.silu(gate).mul_(up)  # in place: these are the largest rows of all


@Fused
def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """(tokens, heads, width) turned by their places; `cos` and `sin` are (tokens, 1, width)."""
    left, right = x.chunk(2, -1)
    return x * cos + torch.cat([-right, left], -1) * sin
