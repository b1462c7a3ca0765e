"""BERT's layers with products of 8-bit numbers: half of bfloat16's time on a core that multiplies bytes (VNNI).

A weight is rounded by a scale of its output; what goes into a product by a scale of its column, measured beforehand
on code, so that a text's vector does not depend on the texts computed with it. Sums, norms and the residual stream
are float32, attention is what the CPU is good at.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from c2llm_integrations.checkpoint import RANGES, Checkpoint
from c2llm_integrations.encoding.attention import attend
from c2llm_integrations.encoding.backbones import Bert, Shape
from c2llm_integrations.encoding.packed_gpu import Groups
from c2llm_integrations.errors import CheckpointError

Pair = tuple[Tensor, Tensor]
LOWEST_GELU = 0.17  # its minimum is -0.16997, at -0.7518
ZERO = 128  # the unsigned byte that stands for 0


def multiplies_bytes() -> bool:
    """Whether this CPU has the instructions and this PyTorch the operators."""
    has = getattr(torch.cpu, "_is_vnni_supported", lambda: False)()
    return has and hasattr(torch.ops.onednn, "qlinear_pointwise")


def range_shapes(layers: int, width: int) -> Iterator[tuple[str, Shape]]:
    """Names and shapes of what a range file holds.

    Of each layer the largest magnitude in every column that goes into queries, keys and values, into the attention's
    output and into the wide product, and the largest value that goes into the narrow one.
    """
    for layer in range(layers):
        yield from ((f"layers.{layer}.{part}", (width,)) for part in ("qkv", "out", "wide"))
        yield f"layers.{layer}.narrow", (1,)


class Int8Bert:
    """`Bert` in 8 bits. `inner` is the data type of attention and of the last states."""

    def __init__(self, bert: Bert, checkpoint: Checkpoint, inner: torch.dtype) -> None:
        """Round the weights of `bert`, float32, by the checkpoint's ranges; CheckpointError where they do not fit."""
        self.bert, self.inner = bert, inner
        highest = read_ranges(checkpoint, dict(range_shapes(len(bert.layers), bert.words.shape[1])))
        if not all(tensor.isfinite().all() for layer in bert.layers for pair in layer for tensor in pair):
            raise CheckpointError(
                f"{checkpoint.folder} has a weight that is NaN or infinite, which 8 bits would hide; fetch it again"
            )
        self.layers: list[tuple[_Product, _Product, _Product, _Product, Pair, Pair]] = []
        for number, (qkv, out, out_norm, wide, narrow, norm) in enumerate(bert.layers):
            into_qkv, into_out, into_wide = (highest[f"layers.{number}.{part}"] for part in ("qkv", "out", "wide"))
            step = (float(highest[f"layers.{number}.narrow"]) + LOWEST_GELU) / 255
            self.layers.append(
                (
                    _Product(*qkv, into_qkv),
                    _Product(*out, into_out),
                    _Product(*wide, into_wide),
                    _Product(*narrow, None, step, round(LOWEST_GELU / step)),
                    out_norm,
                    norm,
                )
            )
        bert.layers.clear()  # 20 MB of nano's that nothing reads again

    def __call__(self, ids: Tensor, positions: Tensor, groups: Groups) -> Tensor:
        """(tokens,) ids and their places in their texts → (tokens, hidden_size) last hidden states."""
        bert = self.bert
        x = bert.embed(ids, positions)
        for qkv, out, wide, narrow, out_norm, norm in self.layers:
            query, key, value = qkv(qkv.rounded(x), self.inner).view(len(x), 3, bert.heads, -1).unbind(1)
            mixed = attend(query, key, value, groups, causal=False)
            x = bert.normed(out.added_to(x, out.rounded(mixed)), out_norm)
            x = bert.normed(narrow.added_to(x, wide.gelu(wide.rounded(x), narrow)), norm)
        return x.to(self.inner)


class _Product:
    """A linear layer for rows of unsigned bytes; `columns` are the largest magnitudes of what goes in, where known."""

    def __init__(
        self, weight: Tensor, bias: Tensor, columns: Tensor | None, step: float = 1.0, zero: int = ZERO
    ) -> None:
        if columns is not None:
            columns = columns.clamp_min(1e-6) / 127
            self.inverse = 1 / columns
            weight = weight * columns
        self.half = torch.full(weight.shape[1:], zero + 0.5)  # bytes are cut, so this rounds
        self.step, self.zero = step, zero
        self.scales = weight.abs().amax(1).clamp_min(1e-12) / 127
        self.zeros = torch.zeros(len(weight), dtype=torch.int64)
        self.bias = bias
        rounded = (weight / self.scales[:, None]).round().to(torch.int8)
        self.weight = torch.ops.onednn.qlinear_prepack(rounded, None)

    def rounded(self, x: Tensor) -> Tensor:
        """(tokens, columns) → the same as unsigned bytes; what lies beyond the columns' ranges is cut."""
        x = torch.addcmul(self.half, x.float(), self.inverse).clamp_(0, 255)
        return x.to(torch.int32).to(torch.uint8)  # in two steps: the direct way is twice as slow

    def __call__(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        return self._product(x, 1.0, 0, dtype, "none", [], "")

    def gelu(self, x: Tensor, into: _Product) -> Tensor:
        """The product's gelu, as the bytes that another product takes."""
        return self._product(x, into.step, into.zero, torch.uint8, "gelu", [], "none")

    def _product(self, x: Tensor, *result: object) -> Tensor:
        own = self.step, self.zero, self.weight, self.scales, self.zeros, self.bias
        return torch.ops.onednn.qlinear_pointwise(x, *own, *result)  # type: ignore[no-any-return]

    def added_to(self, rows: Tensor, x: Tensor) -> Tensor:
        """The product and `rows`, float32, which it overwrites."""
        own = self.step, self.zero, self.weight, self.scales, self.zeros
        binary = torch.ops.onednn.qlinear_pointwise.binary
        return binary(x, *own, rows, self.bias, 1.0, 0, torch.float32, 1.0, 0, "sum", 1.0, "none", [], "")  # type: ignore[no-any-return]


def read_ranges(checkpoint: Checkpoint, shapes: dict[str, Shape]) -> dict[str, Tensor]:
    """Return the tensors of the checkpoint's range file; CheckpointError where they were measured on another model."""
    file = checkpoint.folder / RANGES
    try:
        with safe_open(file, framework="pt") as opened:
            measured = (opened.metadata() or {}).get("weights")
            found = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file} is no whole safetensors file: {error}; fetch it again") from error
    if measured != (digest := checkpoint.digest()):
        raise CheckpointError(
            f"{file} was measured on weights {measured}, beside it are {digest}; measure again "
            "(python -m c2llm_integrations.training.ranges), or delete it"
        )
    fits = {name: tuple(tensor.shape) for name, tensor in found.items()} == shapes
    if not fits or not all(map(_is_sound, found.values())):
        raise CheckpointError(f"{file} does not hold the ranges of the model beside it; measure again, or delete it")
    return found


def _is_sound(highest: Tensor) -> bool:
    return highest.dtype == torch.float32 and bool(highest.isfinite().all() and (highest >= 0).all())
