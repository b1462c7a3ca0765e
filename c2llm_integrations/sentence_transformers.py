"""sentence-transformers: a C2LLM checkpoint as that library's model, for its trainers, evaluators and benchmarks.

`SentenceTransformer(folder)` refuses modules of other packages unless it may run remote code. `load` builds the same
model from its parts and runs no remote code. Saving the model writes a C2LLM folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from c2llm_integrations.errors import MissingExtra
from c2llm_integrations.model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from c2llm_integrations.model.embedder import checked
from c2llm_integrations.model.encoder import filled_model, right_padded
from c2llm_integrations.model.hf_model import hidden_states, positions_of
from c2llm_integrations.model.pma import PMA
from c2llm_integrations.model.prompts import named_prompts

try:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import InputModule, Module, Normalize
except ImportError as error:
    raise MissingExtra("sentence-transformers", "sentence-transformers") from error


class C2LLMPooling(Module):
    """PMA: token states (B, T, hidden_size) → one vector a text (B, output_dim), not normalized."""

    config_keys = ["hidden_size", "output_dim", "num_heads", "layer_norm"]  # noqa: RUF012

    def __init__(self, hidden_size: int, output_dim: int, num_heads: int = 32, layer_norm: bool = True) -> None:
        """Build a PMA with random weights.

        Args:
            hidden_size: Width of the backbone's token states.
            output_dim: Width of the vectors, a multiple of `num_heads`.
            num_heads: Attention heads.
            layer_norm: Whether the pooling has its LayerNorms, as in the released checkpoints.

        """
        super().__init__()  # type: ignore[no-untyped-call]
        self.hidden_size = hidden_size
        self.output_dim = output_dim
        self.num_heads = num_heads
        self.layer_norm = layer_norm
        self.pma = PMA(hidden_size, output_dim, num_heads, layer_norm)

    def forward(self, features: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Add `sentence_embedding`, from `token_embeddings` and `attention_mask`."""
        features["sentence_embedding"] = self.pma(features["token_embeddings"], features["attention_mask"])
        return features

    def get_embedding_dimension(self) -> int:
        """Return the number of dimensions of the vectors."""
        return self.output_dim

    def save(self, output_path: str, *_: Any, safe_serialization: bool = True, **__: Any) -> None:
        """Write the configuration and the weights, always as safetensors."""
        self.save_config(output_path)
        self.save_torch_weights(output_path)

    @classmethod
    def load(cls, model_name_or_path: str, subfolder: str = "", *_: Any, **options: Any) -> C2LLMPooling:
        """Read what `save` wrote."""
        known = ("token", "cache_folder", "revision", "local_files_only")
        place = {"subfolder": subfolder, **{key: options[key] for key in known if key in options}}
        pooling = cls(**cls.load_config(model_name_or_path, **place))
        cls.load_torch_weights(model_name_or_path, model=pooling, **place)
        return pooling


class C2LLMBackbone(InputModule):
    """The backbone: texts → token ids → last hidden states. `load` builds it."""

    def __init__(self, checkpoint: Checkpoint, backbone: nn.Module, pooling: C2LLMPooling, max_seq_length: int) -> None:
        """Wrap a backbone; `pooling` is needed only for saving, because the model has it as a module of its own."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.checkpoint = checkpoint
        self.tokenizer = checkpoint.tokenizer()
        self._blank_token = checkpoint.blank_token(self.tokenizer)
        self.backbone = backbone
        self.max_seq_length = max_seq_length
        self._pooling = [pooling]  # in a list, so that its weights are not registered twice

    def preprocess(self, inputs: Sequence[Any], prompt: str | None = None, **_: Any) -> dict[str, Any]:
        """Tokenize texts. With a prompt, the whole is stripped at both ends, as in the published evaluation."""
        texts = checked(list(inputs), prompt or "")
        texts = [text.strip() for text in texts] if prompt else texts
        encodings = self.tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        tokens = [encoding.ids[: self.max_seq_length] or [self._blank_token] for encoding in encodings]
        ids, mask = right_padded(tokens)
        return {"input_ids": ids, "attention_mask": mask.long()}

    def forward(self, features: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Add `token_embeddings` (B, T, hidden_size)."""
        ids, mask = features["input_ids"], features["attention_mask"]
        features["token_embeddings"] = hidden_states(self.backbone, ids, mask)
        return features

    def save(self, output_path: str, *_: Any, safe_serialization: bool = True, **__: Any) -> None:
        """Write a C2LLM folder in the released layout, with the pooling, always as safetensors."""
        folder = Path(output_path)
        own_prompts = folder / "config_sentence_transformers.json"  # the library has just written them
        kept = own_prompts.read_bytes() if own_prompts.is_file() else None
        tensors: dict[str, Tensor] = {f"backbone.{name}": value for name, value in self.backbone.state_dict().items()}
        tensors |= {f"pma.{name}": value for name, value in self._pooling[0].pma.state_dict().items()}
        save_checkpoint(self.checkpoint, _in_stored_types(tensors, self.checkpoint), folder)
        if kept is not None:
            own_prompts.write_bytes(kept)


def _in_stored_types(tensors: dict[str, Tensor], source: Checkpoint) -> dict[str, Tensor]:
    """Return the tensors in the checkpoint's own types if that loses nothing: then they have its digest, too."""
    types = {name: tensor.dtype for name, tensor in source.tensors().items()}
    stored = {name: tensor.to(types.get(name, tensor.dtype)) for name, tensor in tensors.items()}
    return stored if all(torch.equal(stored[name].to(one.dtype), one) for name, one in tensors.items()) else tensors


def load(
    name: str,
    *,
    revision: str | None = None,
    device: str | None = None,
    dtype: torch.dtype = torch.float32,
    max_length: int = 2048,
    normalize: bool = True,
) -> SentenceTransformer:
    """Build a `SentenceTransformer` without running remote code.

    Its vectors are those of `C2LLMEmbedder` in the same `dtype`. `prompt_name` is "query", "document" or a published
    task.

    Args:
        name: "nano", a folder in the released layout, or a hub id.
        revision: The revision of a hub id.
        device: A device of PyTorch; None lets sentence-transformers choose.
        dtype: The data type of the weights; training needs float32.
        max_length: The maximum number of tokens of a text; the backbone may allow fewer.
        normalize: Whether vectors get unit length.

    Raises:
        CheckpointError: If the checkpoint is damaged or not a C2LLM checkpoint.
        InputError: If there is no such model.

    """
    checkpoint = load_checkpoint(str(name), revision)
    return from_checkpoint(checkpoint, device=device, dtype=dtype, max_length=max_length, normalize=normalize)


def from_checkpoint(
    checkpoint: Checkpoint, *, device: str | None, dtype: torch.dtype, max_length: int, normalize: bool
) -> SentenceTransformer:
    """Build the model that `load` explains, from a checkpoint."""
    model = filled_model(checkpoint, checkpoint.tensors(), dtype, torch.device("cpu"))
    config = model.config
    pooling = C2LLMPooling(
        config.backbone().hidden_size, config.compressed_dim, config.pma_num_heads, layer_norm=config.pma_ln
    )
    pooling.pma = model.mha_pma
    longest = min(max_length, positions_of(model.backbone) or max_length)
    backbone = C2LLMBackbone(checkpoint, model.backbone, pooling, longest)
    modules: list[nn.Module] = [backbone, pooling, *([Normalize()] if normalize else [])]
    return SentenceTransformer(modules=modules, device=device, prompts=named_prompts(checkpoint.prompts))
