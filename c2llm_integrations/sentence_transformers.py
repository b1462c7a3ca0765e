"""sentence-transformers: a C2LLM checkpoint as that library's model, for its trainers, evaluators and benchmarks.

`SentenceTransformer(folder)` itself refuses modules of any other package unless it may run remote code; `load` builds
the same model from its parts and runs none. Saving the model writes a C2LLM folder again.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from c2llm_integrations import prompts
from c2llm_integrations.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from c2llm_integrations.errors import CheckpointError, InputError, MissingExtra
from c2llm_integrations.model import PMA, C2LLMConfig, C2LLMModel

try:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import InputModule, Module, Normalize
except ImportError as error:
    raise MissingExtra("sentence-transformers", "sentence-transformers") from error


class C2LLMPooling(Module):
    """PMA: token states (B, T, hidden_size) → one vector each (B, output_dim), not normalised."""

    config_keys = ["hidden_size", "output_dim", "num_heads", "layer_norm"]  # noqa: RUF012

    def __init__(self, hidden_size: int, output_dim: int, num_heads: int = 32, layer_norm: bool = True) -> None:
        """`output_dim` must be a multiple of `num_heads`."""
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
        """Return the width of the vectors."""
        return self.output_dim

    def save(self, output_path: str, *_: Any, safe_serialization: bool = True, **__: Any) -> None:
        """Write configuration and weights, always as safetensors."""
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
    """Texts → token ids → the backbone's last hidden states. Made by `load`."""

    def __init__(self, checkpoint: Checkpoint, backbone: nn.Module, pooling: C2LLMPooling, max_seq_length: int) -> None:
        """`pooling` is only for saving; it stands in the model as a module of its own."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.checkpoint = checkpoint
        tokenizer = checkpoint.tokenizer()
        self._blank_token = checkpoint.blank_token(tokenizer)
        self.tokenizer = tokenizer
        self.backbone = backbone
        self.max_seq_length = max_seq_length
        self._pooling = [pooling]  # in a list, so that its weights are not this module's too

    def preprocess(self, inputs: Sequence[Any], prompt: str | None = None, **_: Any) -> dict[str, Any]:
        """Tokenise; with a prompt in front, the whole is stripped at both ends, as in the published evaluation."""
        for index, text in enumerate(inputs):
            if not isinstance(text, str):
                raise InputError(f"text {index} is a {type(text).__name__}, expected str")
        texts = [(prompt + text).strip() for text in inputs] if prompt else list(inputs)
        encodings = self.tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        tokens = [encoding.ids[: self.max_seq_length] or [self._blank_token] for encoding in encodings]
        longest = max(map(len, tokens), default=0)
        return {
            "input_ids": torch.tensor([[*ids, *[0] * (longest - len(ids))] for ids in tokens]),
            "attention_mask": torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for ids in tokens]),
        }

    def forward(self, features: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Add `token_embeddings` (B, T, hidden_size); padding is on the right, where no causal token sees it."""
        extra = {"use_cache": False} if hasattr(self.backbone.config, "use_cache") else {}
        states = self.backbone(input_ids=features["input_ids"], attention_mask=features["attention_mask"], **extra)
        features["token_embeddings"] = states.last_hidden_state
        return features

    def save(self, output_path: str, *_: Any, safe_serialization: bool = True, **__: Any) -> None:
        """Write a whole C2LLM folder in the released layout, the pooling included, always as safetensors."""
        folder = Path(output_path)
        own_prompts = folder / "config_sentence_transformers.json"  # the model's, written just before this
        kept = own_prompts.read_bytes() if own_prompts.is_file() else None
        tensors: dict[str, Tensor] = {f"backbone.{name}": value for name, value in self.backbone.state_dict().items()}
        tensors |= {f"pma.{name}": value for name, value in self._pooling[0].pma.state_dict().items()}
        save_checkpoint(self.checkpoint, tensors, folder)
        if kept is not None:
            own_prompts.write_bytes(kept)


def load(
    name: str,
    *,
    revision: str | None = None,
    device: str | None = None,
    dtype: torch.dtype = torch.float32,
    max_length: int = 2048,
    normalize: bool = True,
) -> SentenceTransformer:
    """Build a `SentenceTransformer` from "nano", a folder in the released layout, or a hub id; runs no remote code.

    Its vectors are those of `C2LLMEmbedder` in the same `dtype`; float32 is the default because training needs it.
    `prompt_name` is "query", "document" or a published task. Raises CheckpointError for a bad checkpoint, InputError
    for a bad name.
    """
    checkpoint = load_checkpoint(str(name), revision)
    config = C2LLMConfig(**checkpoint.config)
    model = C2LLMModel(config)
    tensors = {key: tensor.to(dtype) for key, tensor in checkpoint.tensors().items()}
    for prefix, part in (("backbone.", model.backbone), ("pma.", model.mha_pma)):
        _fill(checkpoint, part, {key.removeprefix(prefix): t for key, t in tensors.items() if key.startswith(prefix)})
    pooling = C2LLMPooling(
        config.backbone().hidden_size, config.compressed_dim, config.pma_num_heads, layer_norm=config.pma_ln
    )
    pooling.pma = model.mha_pma
    longest = int(checkpoint.backbone.get("max_position_embeddings") or max_length)
    backbone = C2LLMBackbone(checkpoint, model.backbone, pooling, min(max_length, longest))
    own = checkpoint.prompts
    tasks = {task: prompts.query_prompt(own, task) for task in prompts.QUERIES}
    named = {**tasks, **own, "query": prompts.query_prompt(own), "document": prompts.document_prompt(own)}
    return SentenceTransformer(
        modules=[backbone, pooling, *([Normalize()] if normalize else [])], device=device, prompts=named
    )


def _fill(checkpoint: Checkpoint, module: nn.Module, tensors: dict[str, Tensor]) -> None:
    wrong = module.load_state_dict(tensors, strict=False, assign=True)
    if wrong.missing_keys or wrong.unexpected_keys:
        raise CheckpointError(
            f"{checkpoint.folder} does not fit its config.json: missing tensors: "
            f"{', '.join(wrong.missing_keys) or 'none'}; left over: {', '.join(wrong.unexpected_keys) or 'none'}"
        )
