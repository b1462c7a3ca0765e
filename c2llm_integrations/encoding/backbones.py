"""The text backbones computed here, over texts laid end to end: every linear layer sees real tokens only.

They take plain tensors under the checkpoint's short names and agree with transformers' own classes (tested).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from c2llm_integrations.encoding.attention import attend
from c2llm_integrations.encoding.packed_gpu import Groups

Weights = dict[str, Tensor]
Shape = tuple[int, ...]


class Qwen2:
    """Qwen2's decoder layers: RMSNorm, rotary positions, grouped queries, causal attention, SwiGLU."""

    @staticmethod
    def can_compute(config: dict[str, Any]) -> bool:
        """Whether this configuration asks for nothing beyond what stands here."""
        return (
            config["model_type"] == "qwen2"
            and config.get("hidden_act", "silu") == "silu"
            and not config.get("use_sliding_window")
            and not config.get("rope_scaling")
            and (config.get("rope_parameters") or {}).get("rope_type", "default") == "default"
        )

    @staticmethod
    def shapes(config: dict[str, Any]) -> Iterator[tuple[str, Shape]]:
        """Every tensor's short name and the shape it must have."""
        width, inner = config["hidden_size"], config["intermediate_size"]
        heads = config["num_attention_heads"]
        keys = width // heads * (config.get("num_key_value_heads") or heads)
        yield "backbone.embed_tokens.weight", (config["vocab_size"], width)
        yield "backbone.norm.weight", (width,)
        for layer in range(config["num_hidden_layers"]):
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

    def __init__(self, config: dict[str, Any], weights: Weights) -> None:
        self.heads = int(config["num_attention_heads"])
        self.key_heads = int(config.get("num_key_value_heads") or self.heads)
        self.width = int(config["hidden_size"]) // self.heads
        self.epsilon = float(config.get("rms_norm_eps", 1e-6))
        theta = (config.get("rope_parameters") or {}).get("rope_theta", config.get("rope_theta", 10000.0))
        self.frequencies = theta ** -(torch.arange(0, self.width, 2, dtype=torch.float32) / self.width)
        self.embeddings = weights["backbone.embed_tokens.weight"]
        self.norm = weights["backbone.norm.weight"]
        self.layers = []
        for number in range(config["num_hidden_layers"]):
            start = f"backbone.layers.{number}."
            layer = {name.removeprefix(start): weights.pop(name) for name in list(weights) if name.startswith(start)}
            qkv = [f"self_attn.{name}_proj" for name in "qkv"]
            self.layers.append(
                (
                    layer["input_layernorm.weight"],
                    torch.cat([layer[f"{name}.weight"] for name in qkv]),
                    torch.cat([layer[f"{name}.bias"] for name in qkv]),
                    layer["self_attn.o_proj.weight"],
                    layer["post_attention_layernorm.weight"],
                    torch.cat([layer["mlp.gate_proj.weight"], layer["mlp.up_proj.weight"]]),
                    layer["mlp.down_proj.weight"],
                )
            )

    def __call__(self, ids: Tensor, positions: Tensor, groups: Groups) -> Tensor:
        """(tokens,) ids and their places in their texts → (tokens, hidden_size) last hidden states."""
        x = F.embedding(ids, self.embeddings)
        angles = positions[:, None] * self.frequencies.to(positions.device)
        cos, sin = (torch.cat([f, f], -1)[:, None].to(x.dtype) for f in (angles.cos(), angles.sin()))
        sizes = [self.heads, self.key_heads, self.key_heads]
        for before, qkv, bias, out, after, gate_up, down in self.layers:
            rows = F.linear(self._norm(x, before), qkv, bias).view(len(x), -1, self.width)
            query, key, value = torch.split(rows, sizes, 1)
            mixed = attend(_rotate(query, cos, sin), _rotate(key, cos, sin), value, groups, causal=True)
            x = x + F.linear(mixed, out)
            gate, up = F.linear(self._norm(x, after), gate_up).chunk(2, -1)
            x = x + F.linear(F.silu(gate).mul_(up), down)  # in place: these are the largest rows of all
        return self._norm(x, self.norm)

    def _norm(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.rms_norm(x, x.shape[-1:], weight, self.epsilon)


class Bert:
    """BERT's encoder layers: learned positions, attention both ways, layer norm after each residual, gelu."""

    _LAYER = (
        "attention.self.query",
        "attention.self.key",
        "attention.self.value",
        "attention.output.dense",
        "attention.output.LayerNorm",
        "intermediate.dense",
        "output.dense",
        "output.LayerNorm",
    )

    @staticmethod
    def can_compute(config: dict[str, Any]) -> bool:
        """Whether this configuration asks for nothing beyond what stands here."""
        return (
            config["model_type"] == "bert"
            and config.get("hidden_act", "gelu") == "gelu"
            and config.get("position_embedding_type", "absolute") == "absolute"
            and not config.get("is_decoder")
        )

    @staticmethod
    def shapes(config: dict[str, Any]) -> Iterator[tuple[str, Shape]]:
        """Every tensor's short name and the shape it must have."""
        width, inner = config["hidden_size"], config["intermediate_size"]
        tables = {"word": config["vocab_size"], "position": config["max_position_embeddings"]}
        for table, rows in {**tables, "token_type": config.get("type_vocab_size", 2)}.items():
            yield f"backbone.embeddings.{table}_embeddings.weight", (rows, width)
        yield from (("backbone.embeddings.LayerNorm." + part, (width,)) for part in ("weight", "bias"))
        for layer in range(config["num_hidden_layers"]):
            for name in Bert._LAYER:
                start, rows = (
                    f"backbone.encoder.layer.{layer}.{name}.",
                    inner if name == "intermediate.dense" else width,
                )
                columns = (inner,) if name == "output.dense" else (width,)
                yield f"{start}weight", (rows,) if name.endswith("LayerNorm") else (rows, *columns)
                yield f"{start}bias", (rows,)

    def __init__(self, config: dict[str, Any], weights: Weights) -> None:
        self.heads = int(config["num_attention_heads"])
        self.epsilon = float(config.get("layer_norm_eps", 1e-12))
        table = "backbone.embeddings."
        self.words = weights[f"{table}word_embeddings.weight"]
        # Every token is of type 0, so its row is added to the positions once and for all.
        positions, types = (weights[f"{table}{name}_embeddings.weight"] for name in ("position", "token_type"))
        self.positions = (positions.float() + types[0].float()).to(positions.dtype)
        self.norm = (weights[f"{table}LayerNorm.weight"], weights[f"{table}LayerNorm.bias"])
        self.layers: list[list[tuple[Tensor, Tensor]]] = []
        for number in range(config["num_hidden_layers"]):
            start = f"backbone.encoder.layer.{number}."
            pair = {name: (weights[f"{start}{name}.weight"], weights[f"{start}{name}.bias"]) for name in self._LAYER}
            qkv = [pair[f"attention.self.{name}"] for name in ("query", "key", "value")]
            fused = (torch.cat([weight for weight, _ in qkv]), torch.cat([bias for _, bias in qkv]))
            self.layers.append([fused, *(pair[name] for name in self._LAYER[3:])])

    def __call__(self, ids: Tensor, positions: Tensor, groups: Groups) -> Tensor:
        """(tokens,) ids and their places in their texts → (tokens, hidden_size) last hidden states."""
        x = self.embed(ids, positions)
        for qkv, out, out_norm, wide, narrow, norm in self.layers:
            query, key, value = self.product(x, qkv).view(len(x), 3, self.heads, -1).unbind(1)
            mixed = attend(query, key, value, groups, causal=False)
            x = self.normed(x + self.product(mixed, out), out_norm)
            x = self.normed(x + self.product(F.gelu(self.product(x, wide)), narrow), norm)
        return x

    def embed(self, ids: Tensor, positions: Tensor) -> Tensor:
        """(tokens,) ids and places → (tokens, hidden_size), what the first layer gets."""
        return self.normed(F.embedding(ids, self.words) + F.embedding(positions, self.positions), self.norm)

    def normed(self, x: Tensor, weights: tuple[Tensor, Tensor]) -> Tensor:
        """Layer norm of rows."""
        return F.layer_norm(x, x.shape[-1:], *weights, self.epsilon)

    def product(self, x: Tensor, weights: tuple[Tensor, Tensor]) -> Tensor:
        """A linear layer's rows: of each layer first queries, keys and values, then out, wide and narrow."""
        return F.linear(x, *weights)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    left, right = x.chunk(2, -1)
    return x * cos + torch.cat([-right, left], -1) * sin
