"""Pooling by multihead attention: one learned query attends over all token states (C2LLM, arXiv 2512.21332).

The residual is the projected seed, the softmax is scaled by the full width, and the activation is relu,
whatever the backbone uses.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class MultiheadAttentionBlock(nn.Module):
    """Attention of a query over keys, each followed by a residual and a layer norm; names as in the released files."""

    def __init__(self, hidden_size: int, output_dim: int, num_heads: int, layer_norm: bool) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.fc_q = nn.Linear(output_dim, output_dim)
        self.fc_k = nn.Linear(hidden_size, output_dim)
        self.fc_v = nn.Linear(hidden_size, output_dim)
        self.fc_o = nn.Linear(output_dim, output_dim)
        self.ln0 = nn.LayerNorm(output_dim) if layer_norm else nn.Identity()
        self.ln1 = nn.LayerNorm(output_dim) if layer_norm else nn.Identity()

    def forward(self, seed: Tensor, states: Tensor, mask: Tensor | None) -> Tensor:
        """(1, 1, d), (B, T, D), (B, T) true where a token is → (B, d)."""
        query = self.fc_q(seed).expand(states.shape[0], -1, -1)  # (B, 1, d)
        attended = F.scaled_dot_product_attention(
            self._heads(query),
            self._heads(self.fc_k(states)),
            self._heads(self.fc_v(states)),
            attn_mask=None if mask is None else mask[:, None, None, :].bool(),
            scale=query.shape[-1] ** -0.5,  # the full width, not the head's
        )  # (B, h, 1, d/h)
        pooled = self.ln0(query + attended.transpose(1, 2).flatten(2))
        return self.ln1(pooled + F.relu(self.fc_o(pooled))).squeeze(1)  # type: ignore[no-any-return]

    def attention(self, seed: Tensor, states: Tensor) -> Tensor:
        """(1, 1, d) and one text's (T, D) → (T, h), the weights that `forward` gives its tokens; columns sum to 1."""
        query = self.fc_q(seed).view(self.num_heads, -1)
        keys = self.fc_k(states).view(states.shape[0], self.num_heads, -1)
        scores = torch.einsum("thw,hw->th", keys, query).float() * seed.shape[-1] ** -0.5
        weights: Tensor = scores.softmax(0)
        return weights

    def _heads(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.num_heads, -1).transpose(1, 2)  # (B, T, d) → (B, h, T, d/h)


class PMA(nn.Module):
    """Token states (B, T, hidden_size) → one vector each (B, output_dim), not normalised.

    `output_dim` must be a multiple of `num_heads`; it is free of the backbone's width.
    """

    def __init__(self, hidden_size: int, output_dim: int, num_heads: int = 32, layer_norm: bool = True) -> None:
        super().__init__()
        self.S = nn.Parameter(torch.empty(1, 1, output_dim))
        nn.init.xavier_uniform_(self.S)  # in place: transformers makes nn.init return nothing while it loads
        self.mab = MultiheadAttentionBlock(hidden_size, output_dim, num_heads, layer_norm)

    def forward(self, states: Tensor, mask: Tensor | None = None) -> Tensor:
        """`mask` (B, T) is true or 1 where a token is; None where all are."""
        return self.mab(self.S, states, mask)  # type: ignore[no-any-return]

    def attention(self, states: Tensor) -> Tensor:
        """One text's states (T, hidden_size) → (T, num_heads): how much of each token every head takes."""
        return self.mab.attention(self.S, states)
