"""C2LLM served by vLLM: `pip install "c2llm-integrations[vllm]"`, then `vllm serve MODEL --runner pooling`.

vLLM calls `register` in each of its processes, for any model; slow imports wait until a C2LLM model is loaded.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from transformers import AutoConfig

from c2llm_integrations.errors import CheckpointError, InputError
from c2llm_integrations.model.heads_and_projections import Head
from c2llm_integrations.model.hf_model import C2LLMConfig

ARCHITECTURE = "C2LLMForEmbedding"


class ServedConfig(C2LLMConfig):
    """A checkpoint's configuration with the fields that vLLM needs: the class that serves it, and its vectors' width.

    `c2llm_dimensions` lists further widths to serve, each a head's file (`c2llm train-head`) or a number of first
    dimensions to keep (lowest quality): `--hf-overrides '{"c2llm_dimensions": ["head-128.safetensors", 64]}'`.
    """

    def __init__(self, **kwargs: Any) -> None:
        """Raise CheckpointError for a backbone that is not the released Qwen2."""
        super().__init__(**kwargs)
        if self.backbone_config is not None:
            kind = self.backbone_config.get("model_type")
            raise CheckpointError(f"the backbone is {kind!r}, vLLM serves C2LLM on 'qwen2' alone; use c2llm serve")
        self.architectures = [ARCHITECTURE]
        self.c2llm_dimensions: list[str | int] = []

    @property
    def embedding_size(self) -> int:
        """The width of the vectors, which is not the backbone's."""
        return int(self.compressed_dim)

    @property
    def widths(self) -> dict[int, Head | None]:
        """Each width to serve and its head; None for the checkpoint's own PMA, whose vectors are cut if wider.

        Raises InputError for an impossible width, CheckpointError for a file that is not a head.
        """
        own = self.embedding_size
        found: dict[int, Head | None] = {own: None}
        for given in self.c2llm_dimensions:
            head = _head(given) if isinstance(given, str) else None
            width = head.output_dim if head else given
            if not isinstance(width, int) or not 1 <= width < own:
                raise InputError(f"c2llm_dimensions has {given!r} for {width} dimensions, must be 1 to {own - 1}")
            found[width] = head
        return found

    @property
    def matryoshka_dimensions(self) -> list[int]:
        """The `dimensions` that a request may ask for; vLLM refuses any other by this name."""
        return sorted(self.widths)


def register() -> None:
    """Make vLLM know C2LLM's folders; what their `auto_map` names is never run."""
    from vllm import ModelRegistry

    AutoConfig.register("c2llm", ServedConfig, exist_ok=True)
    ModelRegistry.register_model(ARCHITECTURE, f"{__name__}.model:{ARCHITECTURE}")


_head = lru_cache(maxsize=8)(Head.load)
