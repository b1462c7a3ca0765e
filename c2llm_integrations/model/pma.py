"""Pooling by multihead attention: one learned query attends over all token states (C2LLM, arXiv 2512.21332).

The residual is the projected seed, the softmax is scaled by the full width, and the activation is relu,
whatever the backbone uses.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class MultiheadAttentionBlock(nn.Module):
    """Attention, then a one-layer feed-forward; after each a residual and a layer norm. Named as in released files."""

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
        """Return (B, d) of (1, 1, d), (B, T, D), and (B, T) true where a token is."""
        query = self.fc_q(seed).expand(states.shape[0], -1, -1)  # (B, 1, d)
        attended = F.scaled_dot_product_attention(
            self._heads(query),
            self._heads(self.fc_k(states)),
            self._heads(self.fc_v(states)),
            attn_mask=None if mask is None else mask[:, None, None, :].bool(),
            scale=query.shape[-1] ** -0.5,  # the full width, not the head's
        )  # (B, h, 1, d/h)
        return self.after_attention(query + attended.transpose(1, 2).flatten(2)).squeeze(1)

    def after_attention(self, attended: Tensor) -> Tensor:
        """Return (…, d) of the sum (…, d) of the query and what it attended to."""
        pooled = self.ln0(attended)
        return self.ln1(pooled + F.relu(self.fc_o(pooled)))  # type: ignore[no-any-return]

    def _heads(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.num_heads, -1).transpose(1, 2)  # (B, T, d) → (B, h, T, d/h)


class PMA(nn.Module):
    """Token states (B, T, hidden_size) → one vector each (B, output_dim), not normalized.

    `output_dim` must be a multiple of `num_heads`; it is free of the backbone's width.
    """

    def __init__(self, hidden_size: int, output_dim: int, num_heads: int = 32, layer_norm: bool = True) -> None:
        super().__init__()
        self.S = nn.Parameter(torch.empty(1, 1, output_dim))
        nn.init.xavier_uniform_(self.S)  # in place: transformers makes nn.init return nothing while it loads
        self.mab = MultiheadAttentionBlock(hidden_size, output_dim, num_heads, layer_norm)

    def forward(self, states: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return (B, output_dim); `mask` (B, T) is true or 1 where a token is, None if all are tokens."""
        return self.mab(self.S, states, mask)  # type: ignore[no-any-return]

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], num_heads: int, layer_norm: bool) -> PMA:
        """Build it in float32 from a checkpoint's tensors `pma.*`, whose shapes decide its sizes."""
        weights = {name.removeprefix("pma."): tensor for name, tensor in tensors.items() if name.startswith("pma.")}
        with torch.device("meta"):
            pma = cls(weights["mab.fc_k.weight"].shape[1], weights["S"].shape[-1], num_heads, layer_norm)
        pma.load_state_dict({name: tensor.float() for name, tensor in weights.items()}, assign=True)
        return pma.requires_grad_(False)


class FoldedPMA:
    """`pma(states, mask)` without ever building keys and values: the query does not depend on the text.

    With q = S·Wq + bq constant, q_i·(H·Wk_i + bk_i) = H·(Wk_iᵀ q_i) + a constant that the softmax removes, and
    A_i·(H·Wv_i + bv_i) = (A_i·H)·Wv_i + bv_i because the weights A_i sum to one. The same numbers for `num_heads`
    columns of work a token instead of two full projections.

    Attributes: `scorer` (h, D), what scores a state; `query` (d,), the projected seed; `values` (h, d / h, D), each
    head's value matrix.
    """

    def __init__(self, pma: PMA) -> None:
        block, width = pma.mab, pma.S.shape[-1]
        shape = (block.num_heads, width // block.num_heads, -1)
        self.block = block
        self.query = block.fc_q(pma.S).flatten()
        keys = block.fc_k.weight.view(shape)
        self.scorer = torch.einsum("hwd,hw->hd", keys, self.query.view(shape[:2])) * width**-0.5
        self.values = block.fc_v.weight.view(shape)

    def scores(self, states: Tensor) -> Tensor:
        """Return (…, h) of (…, D) float32; a softmax over a text's tokens turns these scores into weights."""
        return F.linear(states, self.scorer)

    def mix(self, states: Tensor, mask: Tensor) -> Tensor:
        """Return (n, h, D) of (n, T, D) and (n, T): the states as each head's attention mixes them."""
        scores = self.scores(states).masked_fill(~mask[:, :, None], -torch.inf)
        return scores.softmax(1).transpose(1, 2) @ states

    def head_values(self, mixed: Tensor) -> Tensor:
        """Return (n, h, d / h) of (n, h, D): each head's values of mixed states, without their bias."""
        return torch.einsum("nhd,hwd->nhw", mixed, self.values)

    def finish(self, mixed: Tensor) -> Tensor:
        """Return the vectors (n, d) of (n, h, D)."""
        attended = self.head_values(mixed).flatten(1) + self.block.fc_v.bias
        return self.block.after_attention(self.query + attended)

    def __call__(self, states: Tensor, mask: Tensor) -> Tensor:
        """Return the vectors (n, d) of (n, T, D), and a mask (n, T) of type bool, true where a token is."""
        return self.finish(self.mix(states, mask))
