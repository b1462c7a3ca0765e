"""C2LLM as a transformers model: a causal (or other) text backbone and PMA, for training and for any backbone.

Its configuration has the keys of the released `config.json`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel, Qwen2Config
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.auto import modeling_auto

from c2llm_integrations.errors import CheckpointError
from c2llm_integrations.model.pma import PMA
from c2llm_integrations.model.safetensors_files import some_names

_SUPPORTED = "choose a text encoder or decoder that transformers computes with SDPA attention"


_OWN_KEYS = {
    *("compressed_dim", "pma_num_heads", "pma_ln", "pma_norm", "pma_norm_mode", "embedding_method"),
    *("backbone_config", "model_type", "auto_map", "architectures", "tokenizer_name_or_path", "padding_side"),
}
# Keys by which classes of transformers fetch another model or kernel, run its code, or take one key for another.
_LEADING_OUT = re.compile(
    "_(?!commit_hash).*|(auto|attribute)_map|backbone(_kwargs)?|trust_remote_code|name_or_path|attn_implementation"
)
_TASKS = ("CAUSAL_LM", "MASKED_LM", "TEXT_ENCODING", "SEQUENCE_CLASSIFICATION", "TOKEN_CLASSIFICATION")
# What transformers knows as models of text: some others fetch a part of theirs while they are built.
_TEXT_MODELS = frozenset(kind for task in _TASKS for kind in getattr(modeling_auto, f"MODEL_FOR_{task}_MAPPING_NAMES"))


class C2LLMConfig(Qwen2Config):
    """A backbone and the PMA on top of it.

    The keys of a Qwen2 backbone stand beside the PMA's own, as in the released checkpoints; any other text
    backbone is described by a nested `backbone_config` with a `model_type` of its own.

    `compressed_dim` is the output width; None means the backbone's hidden size.
    """

    model_type = "c2llm"

    def __init__(
        self,
        *,
        compressed_dim: int | None = None,
        pma_num_heads: int = 32,
        pma_ln: bool = True,
        pma_norm: bool = False,
        pma_norm_mode: str = "post_normal",
        embedding_method: str = "pma",
        backbone_config: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Raise CheckpointError for a pooling that is not the published PMA or a width its heads cannot share."""
        kwargs.pop("model_type", None)
        # The released files ask for FlashAttention 2, which is absent on most machines: the kernel is ours to choose.
        super().__init__(**_alone(kwargs))
        self.backbone_config = backbone_config
        self.compressed_dim = compressed_dim or self.backbone().hidden_size
        self.pma_num_heads = pma_num_heads
        self.pma_ln = pma_ln
        self.pma_norm = pma_norm
        self.pma_norm_mode = pma_norm_mode
        self.embedding_method = embedding_method
        if embedding_method != "pma" or pma_norm:
            raise CheckpointError(
                f"embedding_method {embedding_method!r} with pma_norm {pma_norm} is not the published pooling; "
                "only 'pma' with pma_norm false is supported"
            )
        if self.compressed_dim % pma_num_heads:
            raise CheckpointError(
                f"compressed_dim {self.compressed_dim} is not a multiple of pma_num_heads {pma_num_heads}; "
                "choose a head count that divides the width"
            )

    def backbone(self) -> PretrainedConfig:
        """Return the configuration of the backbone alone."""
        if self.backbone_config is not None:
            config = _alone(self.backbone_config)
            try:
                return AutoConfig.for_model(**config)
            except Exception as error:  # each kind of backbone checks its own numbers in its own way
                kind, reason = self.backbone_config.get("model_type"), " ".join(str(error).split())[:300]
                raise CheckpointError(
                    f"backbone {kind!r} cannot be used ({reason}); choose another model, or fetch it again"
                ) from error
        return Qwen2Config(**{key: value for key, value in self.to_dict().items() if key not in _OWN_KEYS})


def _alone(config: Any) -> Any:
    """Return a backbone's configuration without what leads out of its file.

    Raises CheckpointError if it, or a part of it, is not a text model.
    """
    if isinstance(config, list):
        return [_alone(one) for one in config]
    if not isinstance(config, dict):
        return config
    kind = config.get("model_type")
    if kind is not None and str(kind) not in _TEXT_MODELS and not str(kind).endswith("_text"):  # of a larger model
        raise CheckpointError(
            f"backbone {kind!r:.80} is not a text model that transformers knows; "
            "choose another model, or fetch it again"
        )
    return {key: _alone(one) for key, one in config.items() if not _LEADING_OUT.fullmatch(str(key))}


class C2LLMModel(PreTrainedModel):
    """Token ids → last hidden states → one unnormalized vector a text.

    The causal-LM head that a checkpoint may carry is never built: it is 38 % of the work of the 0.5B and its
    logits are never read.
    """

    config_class = C2LLMConfig
    base_model_prefix = "c2llm"
    main_input_name = "input_ids"
    _supports_sdpa = True
    _keys_to_ignore_on_load_unexpected = [r"^plm_model\.lm_head\."]  # noqa: RUF012

    def __init__(self, config: C2LLMConfig) -> None:
        super().__init__(config)
        backbone = config.backbone()
        if getattr(backbone, "is_encoder_decoder", False):
            raise CheckpointError(f"backbone {backbone.model_type!r} is an encoder with a decoder; {_SUPPORTED}")
        try:  # never asks whether to run a checkpoint's code: told no, it raises instead
            inner = AutoModel.from_config(backbone, attn_implementation="sdpa", trust_remote_code=False)
        except ValueError as error:
            reason = " ".join(str(error).split())
            raise CheckpointError(
                f"backbone {backbone.model_type!r} cannot be used ({reason}); {_SUPPORTED}"
            ) from error
        # Named plm_model.model in the released tensors, after the causal-LM wrapper that held it.
        self.plm_model = nn.ModuleDict({"model": inner})
        if getattr(self.backbone, "pooler", None) is not None:
            self.backbone.pooler = None  # type: ignore[assignment]  # BERT's own pooling, which PMA replaces
        self.mha_pma = PMA(backbone.hidden_size, config.compressed_dim, config.pma_num_heads, config.pma_ln)
        self.post_init()  # type: ignore[no-untyped-call]

    @property
    def backbone(self) -> nn.Module:
        """The text backbone under the PMA."""
        return self.plm_model["model"]

    @classmethod
    def from_pretrained(cls, name: str | os.PathLike[str] | None, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        """Load safetensors weights; raises CheckpointError listing tensors that are missing or left over."""
        wants_info = kwargs.pop("output_loading_info", False)
        kwargs |= {"use_safetensors": True, "output_loading_info": True, "attn_implementation": "sdpa"}
        loaded: Any = super().from_pretrained(name, *args, **kwargs)
        model, info = loaded
        wrong = {key: list(map(str, info[key])) for key in ("missing_keys", "unexpected_keys", "mismatched_keys")}
        if any(wrong.values()):
            found = "; ".join(f"{key.replace('_', ' ')}: {some_names(names)}" for key, names in wrong.items() if names)
            raise CheckpointError(f"{name} does not fit C2LLM: {found}; fetch it again, or choose a C2LLM model")
        return (model, info) if wants_info else model

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, **_: Any) -> BaseModelOutputWithPooling:
        """Return `last_hidden_state` (B, T, D) and `pooler_output` (B, d); either side may be padded."""
        states = hidden_states(self.backbone, input_ids, attention_mask)
        return BaseModelOutputWithPooling(last_hidden_state=states, pooler_output=self.mha_pma(states, attention_mask))


def hidden_states(backbone: nn.Module, input_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
    """Return (B, T, D) for (B, T) ids and mask, padded on either side.

    The backbone counts positions itself, because backbones count differently (RoBERTa begins behind its padding
    token, OPT at 2). Most count right only where padding is on the right, so tokens move to the left for it.
    """
    extra = {"use_cache": False} if hasattr(backbone.config, "use_cache") else {}
    if attention_mask is None:
        return backbone(input_ids=input_ids, **extra).last_hidden_state  # type: ignore[no-any-return]
    order = (attention_mask == 0).int().argsort(dim=1, stable=True)
    ids, mask = input_ids.gather(1, order), attention_mask.gather(1, order)
    states = backbone(input_ids=ids, attention_mask=mask, **extra).last_hidden_state
    return states.gather(1, order.argsort(dim=1)[:, :, None].expand_as(states))  # type: ignore[no-any-return]


def positions_of(backbone: nn.Module) -> int | None:
    """Return how many tokens of a text the backbone has positions for; None for no limit."""
    limit = getattr(backbone.config, "max_position_embeddings", None)
    for name, module in backbone.named_modules():
        # Positions begin behind the padding token's row there (RoBERTa, CamemBERT, XLM-R, ESM).
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
            limit = int(module.num_embeddings) - int(module.padding_idx) - 1
    return limit if limit and limit > 0 else None


class _WithoutMemory(TorchFunctionMode):
    """Make parameters on the meta device, without values; buffers, which are computed, as usual."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.empty:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)


def empty_model(config: Mapping[str, Any]) -> C2LLMModel:
    """Build the model of a config.json without memory for weights; `load_state_dict(..., assign=True)` brings them."""
    with _WithoutMemory():
        return C2LLMModel(C2LLMConfig(**config))


AutoConfig.register("c2llm", C2LLMConfig, exist_ok=True)
AutoModel.register(C2LLMConfig, C2LLMModel, exist_ok=True)
