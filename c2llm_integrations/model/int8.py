"""BERT's layers with products of 8-bit numbers: half of bfloat16's time on a core with VNNI.

A weight is rounded by a scale of its output; what goes into a product by a scale of its column, measured beforehand
on code, so that a text's vector does not depend on the texts computed with it. Sums, norms and the residual stream
are float32, attention is what the CPU is good at.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from c2llm_integrations.errors import CheckpointError
from c2llm_integrations.model.attention import Groups, PackedLayout, attend
from c2llm_integrations.model.backbones import Bert, BertLayer, Linear, Shape
from c2llm_integrations.model.checkpoint import RANGES, Checkpoint
from c2llm_integrations.model.safetensors_files import read_tensors

LOWEST_GELU = 0.17  # its minimum is -0.16997, at -0.7518
ZERO = 128  # the unsigned byte that stands for 0


@cache
def weight_steps() -> int | None:
    """Return the largest weight whose products this CPU sums rightly; None where this PyTorch multiplies no bytes.

    127 with VNNI. AVX2 without it sums pairs of products in 16 bits, which hold 2 · 255 · 63, but not 2 · 255 · 127.
    """
    for steps in (127, 63):
        # Bytes of 255 with zero at 0, and of a shape that takes the same way as a layer's.
        weight = torch.full((64, 128), steps, dtype=torch.int8)
        ones, zeros = torch.ones(64), torch.zeros(64, dtype=torch.int64)
        try:
            packed = torch.ops.onednn.qlinear_prepack(weight, None)
            x = torch.full((64, 128), 255, dtype=torch.uint8)
            found = torch.ops.onednn.qlinear_pointwise(
                x, 1.0, 0, packed, ones, zeros, None, 1.0, 0, torch.float32, "none", [], ""
            )
        except (AttributeError, RuntimeError):
            return None
        if bool((found == 128 * 255 * steps).all()):
            return steps
    return None


def range_shapes(layers: int, width: int) -> Iterator[tuple[str, Shape]]:
    """Return the names and shapes of the tensors in a range file.

    Of each layer the largest magnitude in every column that goes into queries, keys and values, into the attention's
    output and into the wide product, and the largest value that goes into the narrow one.
    """
    for layer in range(layers):
        yield from ((f"layers.{layer}.{part}", (width,)) for part in ("qkv", "out", "wide"))
        yield f"layers.{layer}.narrow", (1,)


class Int8Layer(NamedTuple):
    """`BertLayer` with products of bytes."""

    qkv: Product
    attention_out: Product
    attention_norm: Linear
    wide: Product
    narrow: Product
    output_norm: Linear


class Int8Bert:
    """`Bert` in 8 bits. `inner` is the data type of attention and of the last states."""

    def __init__(self, bert: Bert, checkpoint: Checkpoint, inner: torch.dtype) -> None:
        """Round the weights of `bert`, float32, by the checkpoint's ranges; CheckpointError where they do not fit."""
        self.embed, self.heads, self.inner = bert.embed, bert.heads, inner
        highest = read_ranges(checkpoint, dict(range_shapes(len(bert.layers), bert.embed.words.shape[1])))
        if not all(tensor.isfinite().all() for layer in bert.layers for part in layer for tensor in part):
            raise CheckpointError(
                f"{checkpoint.folder} has a weight that is NaN or infinite, which 8 bits would hide; fetch it again"
            )
        self.layers = [_rounded(layer, highest, f"layers.{number}") for number, layer in enumerate(bert.layers)]

    def __call__(self, ids: Tensor, positions: Tensor, groups: Groups | PackedLayout) -> Tensor:
        """(tokens,) ids and their places in their texts → (tokens, hidden_size) last hidden states."""
        x, normed = self.embed(ids, positions), self.embed.normed
        for layer in self.layers:
            into = layer.qkv.rounded(x)
            query, key, value = layer.qkv(into, self.inner).view(len(x), 3, self.heads, -1).unbind(1)
            mixed = attend(query, key, value, groups, causal=False)
            out = layer.attention_out
            x = normed(out.added_to(x, out.rounded(mixed)), layer.attention_norm)
            inner = layer.wide.gelu(layer.wide.rounded(x), layer.narrow)
            x = normed(layer.narrow.added_to(x, inner), layer.output_norm)
        return x.to(self.inner)


def _rounded(layer: BertLayer, highest: Mapping[str, Tensor], name: str) -> Int8Layer:
    step = (float(highest[f"{name}.narrow"]) + LOWEST_GELU) / 255
    return Int8Layer(
        qkv=Product(*layer.qkv, highest[f"{name}.qkv"]),
        attention_out=Product(*layer.attention_out, highest[f"{name}.out"]),
        attention_norm=layer.attention_norm,
        wide=Product(*layer.wide, highest[f"{name}.wide"]),
        narrow=Product(*layer.narrow, None, step, round(LOWEST_GELU / step)),
        output_norm=layer.output_norm,
    )


class Product:
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
        self.scales = weight.abs().amax(1).clamp_min(1e-12) / (weight_steps() or 127)
        self.zeros = torch.zeros(len(weight), dtype=torch.int64)
        self.bias = bias
        rounded = (weight / self.scales[:, None]).round().to(torch.int8)
        self.weight = torch.ops.onednn.qlinear_prepack(rounded, None)

    def rounded(self, x: Tensor) -> Tensor:
        """Return (tokens, columns) as unsigned bytes; values beyond the columns' ranges are clipped."""
        x = torch.addcmul(self.half, x.float(), self.inverse).clamp_(0, 255)
        return x.to(torch.int32).to(torch.uint8)  # in two steps: the direct way is twice as slow

    def __call__(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """Return (tokens, outputs) of (tokens, columns) bytes."""
        return self._product(x, 1.0, 0, dtype, "none", [], "")

    def gelu(self, x: Tensor, into: Product) -> Tensor:
        """Return the product's gelu, as the bytes that another product takes."""
        return self._product(x, into.step, into.zero, torch.uint8, "gelu", [], "none")

    def _product(self, x: Tensor, *result: object) -> Tensor:
        own = self.step, self.zero, self.weight, self.scales, self.zeros, self.bias
        return torch.ops.onednn.qlinear_pointwise(x, *own, *result)  # type: ignore[no-any-return]

    def added_to(self, rows: Tensor, x: Tensor) -> Tensor:
        """Return the product plus `rows`, float32, which it overwrites."""
        own = self.step, self.zero, self.weight, self.scales, self.zeros
        binary = torch.ops.onednn.qlinear_pointwise.binary
        return binary(x, *own, rows, self.bias, 1.0, 0, torch.float32, 1.0, 0, "sum", 1.0, "none", [], "")  # type: ignore[no-any-return]


def read_ranges(checkpoint: Checkpoint, shapes: dict[str, Shape]) -> dict[str, Tensor]:
    """Return the tensors of the checkpoint's range file; CheckpointError where they were measured on another model."""
    file = checkpoint.folder / RANGES
    found, about = read_tensors(file)
    measured = about.get("weights")
    if measured != (digest := checkpoint.digest()):
        raise CheckpointError(
            f"{file} was measured on weights {measured}, beside it are {digest}; measure again "
            "(python -I -m c2llm_integrations.training.int8_ranges), or delete it"
        )
    fits = {name: tuple(tensor.shape) for name, tensor in found.items()} == shapes
    if not fits or not all(
        one.dtype == torch.float32 and one.isfinite().all() and (one >= 0).all() for one in found.values()
    ):
        raise CheckpointError(f"{file} does not hold the ranges of the model beside it; measure again, or delete it")
    return found
