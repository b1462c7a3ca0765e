"""Texts laid end to end: BERT and PMA with gradients over one matrix of tokens, without padding on a GPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from c2llm_integrations.model.pma import PMA


@dataclass(frozen=True)
class Packed:
    """Texts end to end. `ids`, `positions`, `owner`: (tokens,), the last the number of a token's text; `offsets`:
    (texts + 1,) int32, where each text begins; `longest`: tokens of the longest.
    """

    ids: Tensor
    positions: Tensor
    owner: Tensor
    offsets: Tensor
    longest: int

    @property
    def texts(self) -> int:
        """How many there are."""
        return len(self.offsets) - 1


def pack(flat: Tensor, parts: np.ndarray, around: tuple[int, int] | None = None) -> Packed:
    """Lay texts end to end on the device of `flat`.

    Args:
        flat: (ids,) all token ids that there are.
        parts: (texts, 4) two pieces of `flat` that a text consists of: start and length, start and length.
        around: A token before and one behind each text.

    """
    extra = 0 if around is None else 2
    lengths = parts[:, 1] + parts[:, 3] + extra
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    where = torch.from_numpy(np.concatenate([parts.T, offsets[None, :-1]])).to(flat.device)
    sizes = torch.from_numpy(lengths).to(flat.device)
    texts = torch.arange(len(lengths), device=flat.device)
    owner = torch.repeat_interleave(texts, sizes, output_size=int(offsets[-1]))
    start, length, more, _, begin = (row[owner] for row in where)
    positions = torch.arange(len(owner), device=flat.device) - begin
    inner = positions - extra // 2
    index = torch.where(inner < length, start + inner, more + inner - length)
    if around is None:
        ids = flat[index]
    else:
        last = positions == sizes[owner] - 1
        ids = flat[torch.where((inner < 0) | last, 0, index)]
        ids = torch.where(inner < 0, around[0], torch.where(last, around[1], ids))
    bounds = torch.from_numpy(offsets.astype(np.int32)).to(flat.device)
    return Packed(ids, positions, owner, bounds, int(lengths.max()))


def bert(model: Any, texts: Packed) -> Tensor:
    """(tokens, width): the last states of transformers' BertModel."""
    table = model.embeddings
    x = table.word_embeddings(texts.ids) + table.position_embeddings(texts.positions)
    x = table.LayerNorm(x + table.token_type_embeddings.weight[0])
    for layer in model.encoder.layer:
        own, out = layer.attention.self, layer.attention.output
        rows = (linear(x).unflatten(-1, (own.num_attention_heads, -1)) for linear in (own.query, own.key, own.value))
        x = out.LayerNorm(out.dense(attend(*rows, texts).flatten(1)) + x)
        x = layer.output.LayerNorm(layer.output.dense(F.gelu(layer.intermediate.dense(x))) + x)
    return x


def attend(query: Tensor, key: Tensor, value: Tensor, texts: Packed) -> Tensor:
    """(tokens, heads, width) three times → the same: attention within each text."""
    if query.is_cuda and query.dtype != torch.float32:
        from torch.nn.attention.varlen import varlen_attn

        return varlen_attn(query, key, value, texts.offsets, texts.offsets, texts.longest, texts.longest)  # type: ignore[return-value]
    places = texts.owner * texts.longest + texts.positions
    padded = []
    for rows in (query, key, value):
        room = rows.new_zeros(texts.texts * texts.longest, *rows.shape[1:]).index_copy(0, places, rows)
        padded.append(room.unflatten(0, (texts.texts, texts.longest)).transpose(1, 2))
    mask = torch.arange(texts.longest, device=query.device) < texts.offsets.diff()[:, None]
    mixed = F.scaled_dot_product_attention(*padded, attn_mask=mask[:, None, None])
    return mixed.transpose(1, 2).flatten(0, 1)[places]


def sums(rows: Tensor, texts: Packed) -> Tensor:
    """(tokens, …) → (texts, …): each text's sum, float32."""
    return rows.new_zeros(texts.texts, *rows.shape[1:], dtype=torch.float32).index_add(0, texts.owner, rows.float())


def cosines(vectors: Tensor) -> Tensor:
    """(2n, d) unit vectors, questions first → (n, n)."""
    questions, texts = vectors.chunk(2)
    return questions @ texts.T


def mean(states: Tensor, texts: Packed) -> Tensor:
    """(tokens, width) → (texts, width): each text's mean, of unit length."""
    return F.normalize(sums(states, texts))


def pool(pma: PMA, states: Tensor, texts: Packed) -> Tensor:
    """(tokens, width) → (texts, d) float32 of unit length: `pma` over each text."""
    block = pma.mab
    query = block.fc_q(pma.S).flatten()
    heads = (block.num_heads, -1)
    scores = (block.fc_k(states).unflatten(1, heads).float() * query.view(heads).float()).sum(-1) * len(query) ** -0.5
    owner = texts.owner[:, None].expand_as(scores)
    highest = torch.full((texts.texts, heads[0]), -torch.inf, device=scores.device)
    highest = highest.scatter_reduce(0, owner, scores.detach(), "amax")
    weights = (scores - highest[texts.owner]).exp()
    values = sums(block.fc_v(states).unflatten(1, heads) * weights[:, :, None], texts)
    mixed = (values / sums(weights, texts)[:, :, None]).flatten(1).to(query.dtype)
    first = block.ln0(query + mixed)
    return F.normalize(block.ln1(first + F.relu(block.fc_o(first))).float())


@torch.no_grad()
def entropy(pma: PMA, states: Tensor, texts: Packed) -> float:
    """How evenly the heads attend, 0 to 1: the mean entropy of their weights over the logarithm of the tokens."""
    block = pma.mab
    heads = (block.num_heads, -1)
    query = block.fc_q(pma.S).view(heads)
    scores = (block.fc_k(states).unflatten(1, heads) * query).sum(-1).float() * query.numel() ** -0.5
    weights = (scores - scores.max()).exp()
    weights = weights / sums(weights, texts)[texts.owner]
    found = sums(-weights * weights.clamp_min(1e-20).log(), texts)
    lengths = texts.offsets.diff()[:, None].float()
    return float((found / lengths.log().clamp_min(1e-6))[lengths[:, 0] > 3].mean())
