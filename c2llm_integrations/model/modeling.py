"""C2LLM as a transformers model: a causal (or other) text backbone and PMA. For training and for any backbone."""

from __future__ import annotations

import os
from typing import Any

from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling

from c2llm_integrations.errors import CheckpointError
from c2llm_integrations.model.configuration import C2LLMConfig
from c2llm_integrations.model.pma import PMA


class C2LLMModel(PreTrainedModel):
    """Token ids → last hidden states → one unnormalised vector a text.

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
        try:  # never asks whether to run a checkpoint's code: told no, it raises instead
            inner = AutoModel.from_config(backbone, attn_implementation="sdpa", trust_remote_code=False)
        except ValueError as error:
            reason = " ".join(str(error).split())
            raise CheckpointError(f"backbone {backbone.model_type!r} is no text model: {reason}") from error
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
        wrong = {key: sorted(map(str, info[key])) for key in ("missing_keys", "unexpected_keys", "mismatched_keys")}
        if any(wrong.values()):
            found = "; ".join(f"{key.replace('_', ' ')}: {', '.join(names)}" for key, names in wrong.items() if names)
            raise CheckpointError(f"{name} does not fit C2LLM: {found}; fetch it again, or choose a C2LLM model")
        return (model, info) if wants_info else model

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None, **_: Any) -> BaseModelOutputWithPooling:
        """(B, T) ids and mask, padded on either side → `last_hidden_state` (B, T, D) and `pooler_output` (B, d)."""
        positions = None
        if attention_mask is not None:
            positions = (attention_mask.long().cumsum(1) - 1).clamp(min=0)  # independent of the padding side
        extra = {"use_cache": False} if hasattr(self.backbone.config, "use_cache") else {}
        states = self.backbone(
            input_ids=input_ids, attention_mask=attention_mask, position_ids=positions, **extra
        ).last_hidden_state
        return BaseModelOutputWithPooling(last_hidden_state=states, pooler_output=self.mha_pma(states, attention_mask))
