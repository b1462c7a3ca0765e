"""Token ids → pooled vectors, without transformers and without padding.

The texts of a batch lie end to end in one (tokens, width) matrix, so every linear layer works on real tokens only;
attention runs within each text. Qwen2 and BERT backbones are computed here (importing transformers alone would
take longer than a search); any other backbone goes through `C2LLMModel`, padded. Tests hold the two against
each other and against the golden vectors.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from c2llm_integrations.checkpoint import RANGES, Checkpoint, long_name
from c2llm_integrations.encoding.allocator import keep_freed_memory
from c2llm_integrations.encoding.backbones import Bert, Qwen2, Shape, Weights
from c2llm_integrations.encoding.int8 import Int8Bert, multiplies_bytes
from c2llm_integrations.encoding.packed_gpu import Groups, moved, pool
from c2llm_integrations.errors import CheckpointError, InputError

Texts = Sequence[Sequence[int]]
# The CPU library keeps a compiled kernel for every matrix height it meets: free heights cost 500 MB in 70 batches.
ROW_MULTIPLE = 32


class Encoder(Protocol):
    """Computes vectors for token ids. `padded` says whether a batch costs its longest text for each of its texts."""

    padded: bool

    def __call__(self, texts: Texts) -> Tensor:
        """At least one token in each text → (len(texts), output_dim) float32 on the CPU, not normalised."""

    def attention(self, text: Sequence[int]) -> Tensor:
        """At least one token → (len(text), heads) float32 on the CPU: what each head of PMA takes of each token."""

    def states(self, texts: Texts) -> Tensor:
        """At least one token in each text → (tokens, D) on the CPU: the backbone's last states, text after text."""


def load_encoder(checkpoint: Checkpoint, dtype: torch.dtype, device: torch.device) -> Encoder:
    """Choose the way to compute this checkpoint and load its weights.

    Raises CheckpointError listing tensors that are missing or left over, InputError where 8 bits cannot be had.
    """
    if dtype == torch.int8 and (reason := why_not_int8(checkpoint, device)):
        raise InputError(f"dtype 'int8' cannot be had: {reason}; use 'auto'")
    if device.type == "cpu":
        keep_freed_memory()
    backbone = checkpoint.backbone
    tensors = checkpoint.tensors()
    try:
        for kind in (Qwen2, Bert):
            if kind.can_compute(backbone):
                _require(checkpoint, tensors, dict([*kind.shapes(backbone), *_pma_shapes(checkpoint)]))
                for name in tensors:  # one by one, so that no second copy of a large model is ever held
                    tensors[name] = tensors[name].to(device, torch.float32 if dtype == torch.int8 else dtype)
                computed: Qwen2 | Bert | Int8Bert = kind(backbone, tensors)
                if dtype == torch.int8 and isinstance(computed, Bert):
                    computed = Int8Bert(computed, checkpoint, cpu_dtype())
                return PackedEncoder(computed, Pooling(checkpoint.config, tensors), device)
        return PaddedEncoder(checkpoint, tensors, dtype, device)
    except (KeyError, TypeError, ValueError, RuntimeError, ZeroDivisionError) as error:
        if isinstance(error, CheckpointError):
            raise
        reason = " ".join(str(error).split())
        raise CheckpointError(
            f"{checkpoint.folder} does not fit its config.json ({type(error).__name__}: {reason}); "
            "fetch the checkpoint again"
        ) from error


class PackedEncoder:
    """A backbone and PMA over texts laid end to end."""

    padded = False

    def __init__(self, backbone: Qwen2 | Bert | Int8Bert, pooling: Pooling, device: torch.device) -> None:
        self.backbone = backbone
        self.pooling = pooling
        self.device = device

    @torch.inference_mode()
    def __call__(self, texts: Texts) -> Tensor:
        """See `Encoder`."""
        states, groups = self._states(texts)
        return self.pooling(states, groups).float().cpu()

    @torch.inference_mode()
    def attention(self, text: Sequence[int]) -> Tensor:
        """See `Encoder`."""
        states, _ = self._states([text])
        return self.pooling.attention(states[: len(text)]).cpu()

    @torch.inference_mode()
    def states(self, texts: Texts) -> Tensor:
        """See `Encoder`."""
        states, _ = self._states(texts)
        return states[: sum(map(len, texts))].cpu()

    def _states(self, texts: Texts) -> tuple[Tensor, Groups]:
        """Return the backbone's last states, (tokens, D), and which of them belong together."""
        lengths = [len(text) for text in texts]
        spare = -sum(lengths) % ROW_MULTIPLE  # rows that belong to no group: computed along, read by nobody
        ids = torch.tensor([*(token for text in texts for token in text), *[0] * spare])
        positions = torch.cat([torch.arange(length) for length in [*lengths, spare]])
        groups = list(_groups(lengths))
        return self.backbone(moved(ids, self.device), moved(positions, self.device), groups), groups


class PaddedEncoder:
    """`C2LLMModel` over right-padded batches: the way for any backbone transformers knows."""

    padded = True

    def __init__(self, checkpoint: Checkpoint, tensors: Weights, dtype: torch.dtype, device: torch.device) -> None:
        from c2llm_integrations.model import C2LLMConfig, C2LLMModel

        self.device = device
        model = C2LLMModel(C2LLMConfig(**checkpoint.config))
        names = {long_name(name): tensor.to(dtype) for name, tensor in tensors.items()}
        _require(checkpoint, names, {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()})
        model.load_state_dict(names, assign=True)
        self.model: torch.nn.Module = model.eval()  # type: ignore[no-untyped-call]
        self.model.to(device)

    @torch.inference_mode()
    def __call__(self, texts: Texts) -> Tensor:
        """See `Encoder`."""
        found, _ = self._computed(texts)
        return found.pooler_output.float().cpu()  # type: ignore[no-any-return]

    @torch.inference_mode()
    def states(self, texts: Texts) -> Tensor:
        """See `Encoder`."""
        found, mask = self._computed(texts)
        return found.last_hidden_state[mask.bool()].cpu()  # type: ignore[no-any-return]

    def _computed(self, texts: Texts) -> tuple[Any, Tensor]:
        """Return what the model says of right-padded texts, and the mask of their tokens."""
        longest = max(map(len, texts))
        ids = torch.tensor([[*text, *[0] * (longest - len(text))] for text in texts])
        mask = torch.tensor([[1] * len(text) + [0] * (longest - len(text)) for text in texts])
        ids, mask = moved(ids, self.device), moved(mask, self.device)
        return self.model(input_ids=ids, attention_mask=mask), mask

    @torch.inference_mode()
    def attention(self, text: Sequence[int]) -> Tensor:
        """See `Encoder`."""
        ids = torch.tensor([text], device=self.device)
        states = self.model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
        return self.model.mha_pma.attention(states[0]).float().cpu()  # type: ignore[operator, union-attr, no-any-return]


class Pooling:
    """PMA over packed states, folded: the query does not depend on the text, so `K` and `V` are never built.

    With q = S·Wq + bq constant, q_i·(H·Wk_i + bk_i) = H·(Wk_iᵀ q_i) + a constant that the softmax removes, and
    A_i·(H·Wv_i + bv_i) = (A_i·H)·Wv_i + bv_i because the weights A_i sum to one. The same numbers for
    `num_heads` columns of work instead of two full projections.
    """

    def __init__(self, config: dict[str, Any], weights: Weights) -> None:
        pma = {name.removeprefix("pma."): tensor for name, tensor in weights.items() if name.startswith("pma.")}
        self.heads = int(config.get("pma_num_heads", 32))
        seed = pma["S"].float().flatten()
        self.query = F.linear(seed, pma["mab.fc_q.weight"].float(), pma["mab.fc_q.bias"].float())
        width = self.query.shape[0]
        keys = pma["mab.fc_k.weight"].float().view(self.heads, width // self.heads, -1)
        self.scorer = torch.einsum("hwd,hw->hd", keys, self.query.view(self.heads, -1)) * width**-0.5
        self.values = pma["mab.fc_v.weight"].float().view(self.heads, width // self.heads, -1)
        self.value_bias = pma["mab.fc_v.bias"].float()
        self.output = (pma["mab.fc_o.weight"].float(), pma["mab.fc_o.bias"].float())
        self.norms = [
            (pma[f"mab.{norm}.weight"].float(), pma[f"mab.{norm}.bias"].float())
            for norm in ("ln0", "ln1")
            if config.get("pma_ln", True)
        ]

    def __call__(self, states: Tensor, groups: Groups) -> Tensor:
        """(tokens, D) → (texts, d) float32."""
        pooled = (pool if states.is_cuda else _pool)(self._scores(states), states, groups)
        mixed = torch.einsum("bhd,hwd->bhw", pooled.float(), self.values).flatten(1)
        first = self._norm(0, self.query + mixed + self.value_bias)
        return self._norm(1, first + F.relu(F.linear(first, *self.output)))

    def attention(self, states: Tensor) -> Tensor:
        """The states of one text, (tokens, D) → (tokens, h) float32."""
        return self._scores(states).softmax(0)

    def _scores(self, states: Tensor) -> Tensor:
        return F.linear(states, self.scorer.to(states.dtype)).float()  # (tokens, h)

    def _norm(self, number: int, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], *self.norms[number]) if self.norms else x


def _pool(scores: Tensor, states: Tensor, groups: Groups) -> Tensor:
    """(tokens, heads) float32, (tokens, D) → (texts, heads, D): each text's states, weighted by its scores' softmax."""
    pooled = []
    for start, count, length in groups:
        rows = slice(start, start + count * length)
        attention = scores[rows].view(count, length, -1).softmax(1).to(states.dtype)
        pooled.append(torch.matmul(attention.transpose(1, 2), states[rows].view(count, length, -1)))
    return torch.cat(pooled)


def _groups(lengths: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """Runs of neighbours of equal length: each is one attention call without a mask."""
    start = index = 0
    while index < len(lengths):
        count = 1
        while index + count < len(lengths) and lengths[index + count] == lengths[index]:
            count += 1
        yield start, count, lengths[index]
        start += count * lengths[index]
        index += count


def _pma_shapes(checkpoint: Checkpoint) -> Iterator[tuple[str, Shape]]:
    hidden, width = checkpoint.backbone["hidden_size"], checkpoint.output_dim
    yield "pma.S", (1, 1, width)
    for name, columns in (("fc_q", width), ("fc_k", hidden), ("fc_v", hidden), ("fc_o", width)):
        yield f"pma.mab.{name}.weight", (width, columns)
        yield f"pma.mab.{name}.bias", (width,)
    for name in ("ln0", "ln1") if checkpoint.config.get("pma_ln", True) else ():
        yield from ((f"pma.mab.{name}.{part}", (width,)) for part in ("weight", "bias"))


def _require(checkpoint: Checkpoint, found: Weights, wanted: dict[str, Shape]) -> None:
    missing, extra = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
    odd = [
        f"{name} is {tuple(found[name].shape)}, config.json says {shape}"
        for name, shape in wanted.items()
        if name in found and tuple(found[name].shape) != tuple(shape)
    ]
    if missing or extra or odd:
        raise CheckpointError(
            f"{checkpoint.folder} does not fit its config.json: missing tensors: {', '.join(missing) or 'none'}; "
            f"left over: {', '.join(extra) or 'none'}; of another shape: {', '.join(odd) or 'none'}"
        )


def best_dtype(checkpoint: Checkpoint, device: torch.device) -> torch.dtype:
    """What is fastest here and keeps the quality: 8 bits on a CPU for a checkpoint whose ranges were measured."""
    if device.type == "cuda":
        return torch.bfloat16
    return torch.int8 if why_not_int8(checkpoint, device) is None else cpu_dtype()


def why_not_int8(checkpoint: Checkpoint, device: torch.device) -> str | None:
    """What stands against computing this checkpoint in 8 bits there, if anything does."""
    if device.type != "cpu":
        return f"it is for CPUs, the device is {device}"
    if not multiplies_bytes():
        return "this CPU or this PyTorch has no products of bytes (AVX512-VNNI)"
    if not Bert.can_compute(checkpoint.backbone) or not (checkpoint.folder / RANGES).is_file():
        return f"{checkpoint.name} has no {RANGES}, the measured ranges of what its layers take"
    return None


def cpu_dtype() -> torch.dtype:
    """bfloat16 where this CPU has instructions for it (AMX, AVX512-BF16), else float32: emulated it is far slower."""
    has = (getattr(torch.cpu, f"_is_{name}_supported", lambda: False)() for name in ("amx_tile", "avx512_bf16"))
    return torch.bfloat16 if any(has) else torch.float32
