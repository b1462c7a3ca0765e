"""C2LLM as a transformers model: a causal (or other) text backbone and PMA. For training and for any backbone."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from transformers import AutoConfig, AutoModel, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from c2llm_integrations.errors import CheckpointError
from c2llm_integrations.model.hf_config import C2LLMConfig
from c2llm_integrations.model.pma import PMA
from c2llm_integrations.model.safetensors_files import some_names

_SUPPORTED = "choose a text encoder or decoder that transformers computes with SDPA attention"


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
