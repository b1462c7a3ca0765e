"""The text backbones computed here, over texts laid end to end: every linear layer sees real tokens only.

They take plain tensors under the checkpoint's short names and agree with transformers' own classes (tested).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from c2llm_integrations.model.attention import Groups, PackedLayout, Padded, attend
from c2llm_integrations.model.checkpoint import ModelConfig
from c2llm_integrations.model.fused_ops import add_norm, rotate, swiglu

Weights = dict[str, Tensor]
Shape = tuple[int, ...]


class Linear(NamedTuple):
    """The weights of a linear layer, or of a layer norm."""

    weight: Tensor
    bias: Tensor


class Qwen2Layer(NamedTuple):
    """A decoder layer's weights; `qkv` and `gate_up` are those of several products, one below the other."""

    input_norm: Tensor
    qkv: Linear
    attention_out: Tensor
    output_norm: Tensor
    gate_up: Tensor
    down: Tensor


class BertLayer(NamedTuple):
    """An encoder layer's weights; `qkv` are those of queries, keys and values, one below the other."""

    qkv: Linear
    attention_out: Linear
    attention_norm: Linear
    wide: Linear
    narrow: Linear
    output_norm: Linear


class Qwen2:
    """Qwen2's decoder layers: RMSNorm, rotary positions, grouped queries, causal attention, SwiGLU."""

    @staticmethod
    def can_compute(config: ModelConfig) -> bool:
        """Whether this configuration asks for nothing beyond what is computed here."""
        return (
            config.model_type == "qwen2"
            and config.hidden_act in ("", "silu")
            and config.rope_type == "default"
            and not config.use_sliding_window
        )

    @staticmethod
    def shapes(config: ModelConfig) -> Iterator[tuple[str, Shape]]:
        """Yield every tensor's short name and the shape it must have."""
        width, inner = config.hidden_size, config.intermediate_size
        keys = width // config.num_attention_heads * config.key_heads
        yield "backbone.embed_tokens.weight", (config.vocab_size, width)
        yield "backbone.norm.weight", (width,)
        for layer in range(config.num_hidden_layers):
            start = f"backbone.layers.{layer}."
            for name, rows in (("q_proj", width), ("k_proj", keys), ("v_proj", keys)):
                yield f"{start}self_attn.{name}.weight", (rows, width)
                yield f"{start}self_attn.{name}.bias", (rows,)
            yield f"{start}self_attn.o_proj.weight", (width, width)
            yield f"{start}mlp.gate_proj.weight", (inner, width)
            yield f"{start}mlp.up_proj.weight", (inner, width)
            yield f"{start}mlp.down_proj.weight", (width, inner)
            yield f"{start}input_layernorm.weight", (width,)
            yield f"{start}post_attention_layernorm.weight", (width,)

    def __init__(self, config: ModelConfig, weights: Weights) -> None:
        self.heads, self.key_heads = config.num_attention_heads, config.key_heads
        self.width = config.hidden_size // self.heads
        self.epsilon = config.rms_norm_eps
        self.embeddings = weights["backbone.embed_tokens.weight"]
        powers = torch.arange(0, self.width, 2, dtype=torch.float32) / self.width
        self.frequencies = (config.rope_theta**-powers).to(self.embeddings.device)
        self.norm = weights["backbone.norm.weight"]
        self.layers = []
        for number in range(config.num_hidden_layers):
            start = f"backbone.layers.{number}."
            layer = {name.removeprefix(start): weights.pop(name) for name in list(weights) if name.startswith(start)}
            qkv = [f"self_attn.{name}_proj" for name in "qkv"]
            self.layers.append(
                Qwen2Layer(
                    input_norm=layer["input_layernorm.weight"],
                    qkv=Linear(*(torch.cat([layer[f"{name}.{part}"] for name in qkv]) for part in ("weight", "bias"))),
                    attention_out=layer["self_attn.o_proj.weight"],
                    output_norm=layer["post_attention_layernorm.weight"],
                    gate_up=torch.cat([layer["mlp.gate_proj.weight"], layer["mlp.up_proj.weight"]]),
                    down=layer["mlp.down_proj.weight"],
                )
            )

    def __call__(self, ids: Tensor, positions: Tensor, groups: Groups | PackedLayout | Padded) -> Tensor:
        """(tokens,) ids and their places in their texts → (tokens, hidden_size) last hidden states."""
        x = F.embedding(ids, self.embeddings)
        angles = positions[:, None] * self.frequencies
        cos, sin = (torch.cat([f, f], -1)[:, None].to(x.dtype) for f in (angles.cos(), angles.sin()))
        norms = [*(layer.input_norm for layer in self.layers), self.norm]
        turned = self.heads + self.key_heads
        normed = F.rms_norm(x, x.shape[-1:], norms[0], self.epsilon)
        for layer, next_norm in zip(self.layers, norms[1:], strict=True):
            rows = F.linear(normed, *layer.qkv).unflatten(1, (-1, self.width))
            query, key = rotate(rows[:, :turned], cos, sin).split([self.heads, self.key_heads], 1)
            mixed = attend(query, key, rows[:, turned:], groups, causal=True)
            x, normed = add_norm(x, F.linear(mixed, layer.attention_out), layer.output_norm, self.epsilon)
            inner = swiglu(F.linear(normed, layer.gate_up))
            x, normed = add_norm(x, F.linear(inner, layer.down), next_norm, self.epsilon)
        return normed


class BertEmbedding:
    """The input of BERT's first layer: the rows of tokens and of their places, normed."""

    def __init__(self, config: ModelConfig, weights: Weights) -> None:
        table = "backbone.embeddings."
        self.words = weights[f"{table}word_embeddings.weight"]
        # Every token is of type 0, so its row is added to the positions once and for all.
        positions, types = (weights[f"{table}{name}_embeddings.weight"] for name in ("position", "token_type"))
        self.positions = (positions.float() + types[0].float()).to(positions.dtype)
        self.norm = Linear(weights[f"{table}LayerNorm.weight"], weights[f"{table}LayerNorm.bias"])
        self.epsilon = config.layer_norm_eps

    def __call__(self, ids: Tensor, positions: Tensor) -> Tensor:
        """Return (tokens, hidden_size) for (tokens,) ids and places."""
        return self.normed(F.embedding(ids, self.words) + F.embedding(positions, self.positions), self.norm)

    def normed(self, x: Tensor, norm: Linear) -> Tensor:
        """Return rows after a layer norm of this model."""
        return F.layer_norm(x, x.shape[-1:], *norm, self.epsilon)


class Bert:
    """BERT's encoder layers: learned positions, attention both ways, layer norm after each residual, gelu.

    `product` computes every linear layer: of each layer first queries, keys and values, then out, wide and narrow.
    """

    _LAYER = (
        *("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"),
        *("attention.output.LayerNorm", "intermediate.dense", "output.dense", "output.LayerNorm"),
    )

    @staticmethod
    def can_compute(config: ModelConfig) -> bool:
        """Whether this configuration asks for nothing beyond what is computed here."""
        return (
            config.model_type == "bert"
            and config.hidden_act in ("", "gelu")
            and config.position_embedding_type == "absolute"
            and not config.is_decoder
        )

    @staticmethod
    def shapes(config: ModelConfig) -> Iterator[tuple[str, Shape]]:
        """Yield every tensor's short name and the shape it must have."""
        width, inner = config.hidden_size, config.intermediate_size
        tables = {"word": config.vocab_size, "position": config.max_position_embeddings}
        for table, rows in {**tables, "token_type": config.type_vocab_size}.items():
            yield f"backbone.embeddings.{table}_embeddings.weight", (rows, width)
        yield from (("backbone.embeddings.LayerNorm." + part, (width,)) for part in ("weight", "bias"))
        for layer in range(config.num_hidden_layers):
            for name in Bert._LAYER:
                start = f"backbone.encoder.layer.{layer}.{name}."
                rows = inner if name == "intermediate.dense" else width
                columns = inner if name == "output.dense" else width
                yield f"{start}weight", (rows,) if name.endswith("LayerNorm") else (rows, columns)
                yield f"{start}bias", (rows,)

    def __init__(self, config: ModelConfig, weights: Weights) -> None:
        self.heads = config.num_attention_heads
        self.embed = BertEmbedding(config, weights)
        self.product: Callable[[Tensor, Linear], Tensor] = linear
        self.layers: list[BertLayer] = []
        for number in range(config.num_hidden_layers):
            start = f"backbone.encoder.layer.{number}."
            pair = {n: Linear(weights[f"{start}{n}.weight"], weights[f"{start}{n}.bias"]) for n in self._LAYER}
            qkv = [pair[f"attention.self.{name}"] for name in ("query", "key", "value")]
            fused = Linear(torch.cat([part.weight for part in qkv]), torch.cat([part.bias for part in qkv]))
            self.layers.append(BertLayer(fused, *(pair[name] for name in self._LAYER[3:])))

    def __call__(self, ids: Tensor, positions: Tensor, groups: Groups | PackedLayout | Padded) -> Tensor:
        """(tokens,) ids and their places in their texts → (tokens, hidden_size) last hidden states."""
        x, normed = self.embed(ids, positions), self.embed.normed
        for layer in self.layers:
            query, key, value = self.product(x, layer.qkv).unflatten(1, (3, self.heads, -1)).unbind(1)
            mixed = attend(query, key, value, groups, causal=False)
            x = normed(x + self.product(mixed, layer.attention_out), layer.attention_norm)
            inner = F.gelu(self.product(x, layer.wide))
            x = normed(x + self.product(inner, layer.narrow), layer.output_norm)
        return x


def linear(x: Tensor, layer: Linear) -> Tensor:
    """Return a linear layer's rows."""
    return F.linear(x, *layer)
