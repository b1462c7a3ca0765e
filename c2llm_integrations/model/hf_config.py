"""The configuration of a C2LLM checkpoint, in the keys of the released `config.json`."""

from __future__ import annotations

import re
from typing import Any

from transformers import AutoConfig, PretrainedConfig, Qwen2Config
from transformers.models.auto import modeling_auto

from c2llm_integrations.errors import CheckpointError

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

    Raises CheckpointError if it, or a part of it, is no model of text.
    """
    if isinstance(config, list):
        return [_alone(one) for one in config]
    if not isinstance(config, dict):
        return config
    kind = config.get("model_type")
    if kind is not None and str(kind) not in _TEXT_MODELS and not str(kind).endswith("_text"):  # of a larger model
        raise CheckpointError(
            f"backbone {kind!r:.80} is no model of text that transformers knows; "
            "choose another model, or fetch it again"
        )
    return {key: _alone(one) for key, one in config.items() if not _LEADING_OUT.fullmatch(str(key))}
