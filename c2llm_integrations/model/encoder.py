"""Compute pooled vectors of token ids, without transformers and without padding.

The texts of a batch lie end to end in one (tokens, width) matrix, so every linear layer works on real tokens only;
attention runs within each text. Qwen2 and BERT backbones are computed here (importing transformers alone would
take longer than a search); any other backbone goes through `C2LLMModel`, padded.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from c2llm_integrations.errors import CheckpointError, InputError
from c2llm_integrations.model.attention import Groups, PackedLayout, groups_of, packed_layout, pool, to_device
from c2llm_integrations.model.backbones import Bert, Qwen2, Shape, Weights
from c2llm_integrations.model.checkpoint import Checkpoint, ModelConfig, long_name
from c2llm_integrations.model.dtype_choice import float_dtype, why_not_int8
from c2llm_integrations.model.int8 import Int8Bert
from c2llm_integrations.model.parallel_batches import GPU_LANES, keep_freed_memory, settle_functions
from c2llm_integrations.model.pma import PMA, FoldedPMA
from c2llm_integrations.model.safetensors_files import some_names

if TYPE_CHECKING:
    from c2llm_integrations.model.hf_model import C2LLMModel

Texts = Sequence[Sequence[int]]
# PyTorch's words for each kind of device, the machine's allocator and a file that is mapped.
_NO_MEMORY = re.compile(r"out of memory|(?:can't|cannot) allocate memory", re.IGNORECASE)
# The CPU library keeps a compiled kernel for every matrix height it meets: free heights cost 500 MB in 70 batches.
ROW_MULTIPLE = 32
# Tokens in one forward pass.
CPU_BUDGET, GPU_BUDGET = 2048, 32768


def load_encoder(checkpoint: Checkpoint, dtype: torch.dtype, device: torch.device) -> Encoder:
    """Choose the way to compute this checkpoint and load its weights.

    Args:
        checkpoint: Where the weights are.
        dtype: What they are computed in; int8 only where `why_not_int8` returns None.
        device: Where they are computed.

    Raises:
        CheckpointError: For weights that do not fit its configuration, naming tensors missing or left over.
        InputError: Where 8 bits are not available, memory runs out, or the device fails.

    """
    if dtype == torch.int8 and (reason := why_not_int8(checkpoint, device)):
        raise InputError(f"dtype 'int8' is not available: {reason}; use 'auto'")
    if device.type == "cpu":
        keep_freed_memory()
        settle_functions()
    config = checkpoint.sizes
    try:
        tensors = checkpoint.tensors()
        for kind in (Qwen2, Bert):
            if kind.can_compute(config):
                require_shapes(checkpoint, tensors, dict([*kind.shapes(config), *pma_shapes(config)]))
                for name in tensors:  # one by one, so that no second copy of a large model is ever held
                    tensors[name] = tensors[name].to(device, torch.float32 if dtype == torch.int8 else dtype)
                computed: Qwen2 | Bert | Int8Bert = kind(config, tensors)
                if dtype == torch.int8 and isinstance(computed, Bert):
                    computed = Int8Bert(computed, checkpoint, float_dtype(checkpoint, device))
                pooling = PMA.from_tensors(tensors, config.pma_num_heads, config.pma_layer_norm)
                return PackedEncoder(computed, FoldedPMA(pooling), device)
        if config.model_type == "qwen2":
            warnings.warn(
                f"{checkpoint.name} has rope scaling or a sliding window, which is computed padded: slower",
                stacklevel=2,
            )
        return PaddedEncoder(checkpoint, tensors, dtype, device)
    except (KeyError, TypeError, ValueError, RuntimeError, ZeroDivisionError, MemoryError, OSError) as error:
        if isinstance(error, CheckpointError) or (isinstance(error, OSError) and not is_out_of_memory(error)):
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        if is_out_of_memory(error):
            raise InputError(
                f"{checkpoint.name} does not fit the memory of {device} as {str(dtype).removeprefix('torch.')}: "
                f"{reason}; free some, or choose another device, dtype or model"
            ) from error
        if _is_device_fault(error):
            raise InputError(
                f"{device} failed while {checkpoint.name} was loaded: {reason}; try device='cpu'"
            ) from error
        raise CheckpointError(
            f"{checkpoint.folder} does not fit its config.json ({type(error).__name__}: {reason}); "
            "fetch the checkpoint again"
        ) from error


def longest_text(checkpoint: Checkpoint) -> int | None:
    """Return how many tokens of a text the backbone has positions for; None for no limit."""
    config = checkpoint.sizes
    if any(kind.can_compute(config) for kind in (Qwen2, Bert)):
        return config.max_position_embeddings or None
    from c2llm_integrations.model.hf_model import empty_model, positions_of

    return positions_of(empty_model(checkpoint.config).backbone)


def token_budget(config: ModelConfig, dtype: torch.dtype, device: torch.device) -> int:
    """Return how many tokens to compute at once there, for a model that is loaded.

    On a CPU the activations of a batch should stay in cache (`c2llm bench` tries); a GPU wants enough rows to fill it,
    as far as its free memory goes.
    """
    if device.type != "cuda":
        return CPU_BUDGET
    free, _ = torch.cuda.mem_get_info(device)
    return gpu_budget(config, dtype.itemsize, free)


def gpu_budget(config: ModelConfig, item: int, free: int) -> int:
    """Return the tokens whose activations, of `item` bytes a number, fit `free` bytes of a GPU's memory."""
    # Of each token at the widest place: gate, up and their product, and some rows of the hidden width; in every lane.
    hidden = config.hidden_size or 1024
    bytes_a_token = GPU_LANES * item * (3 * (config.intermediate_size or 4 * hidden) + 12 * hidden)
    fits = free // 2 // bytes_a_token  # the other half: pooling in float32, and what the allocator cannot join
    return max(CPU_BUDGET, min(GPU_BUDGET, fits // CPU_BUDGET * CPU_BUDGET))


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether a device or the machine ran out of memory; PyTorch has no type for all of them."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or bool(_NO_MEMORY.search(str(error)))


def _is_device_fault(error: BaseException) -> bool:
    accelerator = getattr(torch, "AcceleratorError", ())  # a type of its own since PyTorch 2.8
    begins = ("CUDA", "HIP", "PyTorch is not linked", "Found no NVIDIA driver")
    return isinstance(error, accelerator) or str(error).startswith(begins)


class PackedEncoder:
    """A backbone and PMA over texts laid end to end.

    `padded`, of any encoder: whether a batch costs its longest text for each of its texts.
    """

    padded = False

    def __init__(self, backbone: Qwen2 | Bert | Int8Bert, pooling: FoldedPMA, device: torch.device) -> None:
        self.backbone = backbone
        self.pooling = pooling
        self.device = device
        self.as_gpu = device.type == "cuda"  # how attention and pooling go over texts; any device can do either

    @torch.inference_mode()
    def __call__(self, texts: Texts) -> Tensor:
        """Return (len(texts), output_dim) float32 on the CPU, not normalized; each text has at least one token."""
        states, groups = self._states(texts)
        return pool_packed(self.pooling, states, groups).cpu()

    @torch.inference_mode()
    def attention(self, text: Sequence[int]) -> Tensor:
        """Return (len(text), heads) float32 on the CPU: the weight that each head of PMA gives to each token."""
        states, _ = self._states([text])
        return self.pooling.scores(states[: len(text)].float()).softmax(0).cpu()

    @torch.inference_mode()
    def states(self, texts: Texts) -> Tensor:
        """Return (tokens, D) on the CPU: the backbone's last states, text after text."""
        states, _ = self._states(texts)
        return states[: sum(map(len, texts))].cpu()

    def _states(self, texts: Texts) -> tuple[Tensor, Groups | PackedLayout]:
        """Return the backbone's last states, (tokens, D), and which of them belong together."""
        lengths = [len(text) for text in texts]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        tokens = int(offsets[-1])
        rows = -(-tokens // ROW_MULTIPLE) * ROW_MULTIPLE  # those to spare belong to no text: computed, read by nobody
        numbers = np.zeros(2 * rows + len(offsets), np.int32)  # one buffer, so that one copy brings it to the device
        numbers[:tokens] = np.fromiter(chain.from_iterable(texts), np.int32, tokens)
        numbers[rows : rows + tokens] = np.arange(tokens) - np.repeat(offsets[:-1], lengths)
        numbers[2 * rows :] = offsets
        parts = to_device(torch.from_numpy(numbers), self.device).split([rows, rows, len(offsets)])
        groups = packed_layout(lengths, self.device, parts[2]) if self.as_gpu else list(groups_of(lengths))
        return self.backbone(parts[0], parts[1], groups), groups


class PaddedEncoder:
    """`C2LLMModel` over right-padded batches: the way for any backbone transformers knows."""

    padded = True

    def __init__(self, checkpoint: Checkpoint, tensors: Weights, dtype: torch.dtype, device: torch.device) -> None:
        self.device = device
        self.model: C2LLMModel = filled_model(checkpoint, tensors, dtype, device).eval().to(device)  # type: ignore[no-untyped-call]
        self._try(checkpoint.sizes.model_type)

    @torch.inference_mode()
    def _try(self, name: str) -> None:
        """Raise CheckpointError if a text's states depend on the padding beside it, or cannot be computed."""
        try:
            rows = self.model.backbone.get_input_embeddings().weight.shape[0]  # type: ignore[operator]
            ids = [token % rows for token in range(rows // 2, rows // 2 + 9)]
            alone, beside = self.states([ids[:4]]).float(), self.states([ids[:4], ids]).float()[:4]
        except (TypeError, ValueError, RuntimeError, AttributeError, NotImplementedError, IndexError) as error:
            if is_out_of_memory(error) or _is_device_fault(error):
                raise
            reason = " ".join(str(error).split())
            raise CheckpointError(f"backbone {name!r} cannot be used ({type(error).__name__}: {reason})") from error
        if torch.cosine_similarity(alone, beside).min() < 0.99:
            raise CheckpointError(f"backbone {name!r} cannot be used: padding changes a text's states")

    @torch.inference_mode()
    def __call__(self, texts: Texts) -> Tensor:
        """See `PackedEncoder`."""
        found, _ = self._computed(texts)
        return found.pooler_output.float().cpu()  # type: ignore[no-any-return]

    @torch.inference_mode()
    def states(self, texts: Texts) -> Tensor:
        """See `PackedEncoder`."""
        found, mask = self._computed(texts)
        return found.last_hidden_state[mask].cpu()  # type: ignore[no-any-return]

    def _computed(self, texts: Texts) -> tuple[Any, Tensor]:
        """Return the model's output for right-padded texts, and the mask of their tokens."""
        ids, mask = (to_device(part, self.device) for part in right_padded(texts))
        return self.model(input_ids=ids, attention_mask=mask.long()), mask

    @torch.inference_mode()
    def attention(self, text: Sequence[int]) -> Tensor:
        """See `PackedEncoder`."""
        found, _ = self._computed([text])
        folded = FoldedPMA(self.model.mha_pma)
        return folded.scores(found.last_hidden_state[0]).float().softmax(0).cpu()


Encoder: TypeAlias = PackedEncoder | PaddedEncoder


def filled_model(checkpoint: Checkpoint, tensors: Weights, dtype: torch.dtype, device: torch.device) -> C2LLMModel:
    """Return the checkpoint as a model of transformers with these weights, which are taken out of `tensors`."""
    from c2llm_integrations.model.hf_model import empty_model

    model = empty_model(checkpoint.config)
    weights = {long_name(name): tensors.pop(name) for name in list(tensors)}
    require_shapes(checkpoint, weights, {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()})
    for name in weights:  # one by one, so that no second copy of a large model is ever held
        weights[name] = weights[name].to(device, dtype)
    model.load_state_dict(weights, assign=True)
    return model


def right_padded(rows: Sequence[Any]) -> tuple[Tensor, Tensor]:
    """Return rows of unlike lengths as one tensor, zeros behind the shorter ones, and a mask, True where a row is."""
    lengths = torch.tensor([len(row) for row in rows], dtype=torch.long)
    padded = torch.nn.utils.rnn.pad_sequence([torch.as_tensor(row) for row in rows], batch_first=True)
    return padded, torch.arange(padded.shape[1]) < lengths[:, None]


def pool_packed(pooling: FoldedPMA, states: Tensor, groups: Groups | PackedLayout) -> Tensor:
    """Return (texts, d) float32 of states (tokens, D), computed in float32."""
    states = states.float()
    return pooling.finish(pool(pooling.scores(states), states, groups))


def pma_shapes(config: ModelConfig) -> Iterator[tuple[str, Shape]]:
    """Yield the short name of each tensor of the checkpoint's PMA and the shape it must have."""
    with torch.device("meta"):
        pma = PMA(config.hidden_size, config.output_dim, config.pma_num_heads, config.pma_layer_norm)
    for name, tensor in pma.state_dict().items():
        yield f"pma.{name}", tuple(tensor.shape)


def require_shapes(checkpoint: Checkpoint, found: Weights, wanted: dict[str, Shape]) -> None:
    """Raise CheckpointError naming the tensors that are missing, left over or of another shape."""
    missing, extra = wanted.keys() - found.keys(), found.keys() - wanted.keys()
    odd = [
        f"{name} is {tuple(found[name].shape)}, config.json says {shape}"
        for name, shape in wanted.items()
        if name in found and tuple(found[name].shape) != tuple(shape)
    ]
    if missing or extra or odd:
        raise CheckpointError(
            f"{checkpoint.folder} does not fit its config.json: missing tensors: {some_names(missing)}; "
            f"left over: {some_names(extra)}; of another shape: {some_names(odd)}"
        )
