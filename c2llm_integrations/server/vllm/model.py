"""The model that vLLM runs: vLLM's own sharded Qwen2 backbone, with C2LLM's PMA as the pooler."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from vllm.config import VllmConfig
from vllm.model_executor.layers.pooler import Pooler
from vllm.model_executor.models.interfaces_base import default_pooling_type
from vllm.model_executor.models.qwen2 import Qwen2Model
from vllm.model_executor.models.utils import AutoWeightsLoader, maybe_prefix
from vllm.v1.pool.metadata import PoolingMetadata

from c2llm_integrations.errors import InputError
from c2llm_integrations.model.attention import groups_of, packed_layout
from c2llm_integrations.model.backbones import Qwen2
from c2llm_integrations.model.checkpoint import CAUSAL_HEAD, Checkpoint, load_checkpoint, short_name
from c2llm_integrations.model.encoder import pma_shapes, pool_packed, require_shapes
from c2llm_integrations.model.pma import PMA, FoldedPMA
from c2llm_integrations.server.vllm import ServedConfig

# PMA reads the state of every token, and is declared so: vLLM then neither skips a prefix that it has seen before nor,
# by default, computes a long text in parts.
_LIKE = "MEAN"


@default_pooling_type(seq_pooling_type=_LIKE)
class C2LLMForEmbedding(nn.Module):
    """Token ids → last hidden states (tokens, D), from which `pooler` makes one vector a text."""

    is_pooling_model = True
    allow_patterns_overrides = ("model*.safetensors",)  # never a pickle
    packed_modules_mapping = {  # noqa: RUF012 (vLLM's name for what it computes as one)
        "qkv_proj": ["q_proj", "k_proj", "v_proj"],
        "gate_up_proj": ["gate_proj", "up_proj"],
    }

    def __init__(self, *, vllm_config: VllmConfig, prefix: str = "") -> None:
        """Raises InputError for an option under which the vectors would not be C2LLM's."""
        super().__init__()
        _refuse_other_pooling(vllm_config)
        model, config = vllm_config.model_config, vllm_config.model_config.hf_config
        self.checkpoint = Checkpoint(model.model, Path(model.model), config.to_dict(), {})
        if self.checkpoint.folder.is_dir():
            self.checkpoint.tokenizer()  # raises for one with more tokens than the model has rows
        for head in filter(None, config.widths.values()):
            load_checkpoint(model.model, model.revision).with_head(head)  # raises for a head of other weights
        self.model = Qwen2Model(vllm_config=vllm_config, prefix=maybe_prefix(prefix, "model"))
        self.pooler = PMAPooler(config)

    def embed_input_ids(self, input_ids: Tensor) -> Tensor:
        """Return (tokens, D) of (tokens,) ids: the states before the first layer."""
        return self.model.embed_input_ids(input_ids)  # type: ignore[no-any-return]

    def forward(
        self,
        input_ids: Tensor | None,
        positions: Tensor,
        intermediate_tensors: Any = None,
        inputs_embeds: Tensor | None = None,
    ) -> Any:
        """Run the layers over texts laid end to end, (tokens,) → (tokens, D)."""
        return self.model(input_ids, positions, intermediate_tensors, inputs_embeds)

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> set[str]:
        """Take the released tensors; raises CheckpointError naming what is missing, left over or of another shape."""
        wanted = dict([*Qwen2.shapes(self.checkpoint.sizes), *pma_shapes(self.checkpoint.sizes)])
        found: dict[str, Tensor] = {}

        def fitting() -> Iterator[tuple[str, Tensor]]:
            for name, tensor in weights:
                short = short_name(name)
                if short is None or short in found:
                    short = name
                    if CAUSAL_HEAD.search(name):
                        continue
                found[short] = torch.empty_like(tensor, device="meta")
                if wanted.get(short) == tuple(tensor.shape):
                    room, _, rest = short.partition(".")
                    yield f"{'pooler.pma' if room == 'pma' else 'model'}.{rest}", tensor

        loaded: set[str] = AutoWeightsLoader(self).load_weights(fitting())
        require_shapes(self.checkpoint, found, wanted)
        self.pooler.folded.clear()
        return loaded


class PMAPooler(Pooler):  # type: ignore[misc]
    """Hidden states → the vector of each text whose last token was among them.

    A text that comes in parts is kept with its request until its last part. `folded` holds the PMAs as they are
    computed, the checkpoint's own and the heads', by the width that they were trained for.
    """

    def __init__(self, config: ServedConfig) -> None:
        super().__init__()
        self.width = config.embedding_size
        self.widths = config.widths
        # float32, even if the backbone is in half precision: it is less than a hundredth of the work.
        self.pma = PMA(config.hidden_size, self.width, config.pma_num_heads, config.pma_ln).float()
        self.folded: dict[int, FoldedPMA] = {}

    def get_supported_tasks(self) -> set[str]:
        """Return the only task: one vector a text."""
        return {"embed"}

    @torch.inference_mode()
    def forward(self, hidden_states: Tensor, pooling_metadata: PoolingMetadata) -> list[Tensor | None]:
        """Return a float32 vector for each text that is complete, None for each other, of states (tokens, D)."""
        texts = list(_complete_texts(hidden_states, pooling_metadata))
        vectors: list[Tensor | None] = [None] * len(texts)
        wanted = [(each.dimensions or self.width, each.use_activation) for each in pooling_metadata.pooling_params]
        for width, normalized in dict.fromkeys(wanted):
            places = [
                place for place, text in enumerate(texts) if text is not None and wanted[place] == (width, normalized)
            ]
            # Longest first, so that texts of like lengths are pooled together.
            places.sort(key=lambda place: -len(texts[place]))  # type: ignore[arg-type]
            if places:
                found = self._pooled([texts[place] for place in places], width)  # type: ignore[misc]
                for place, vector in zip(places, F.normalize(found) if normalized else found, strict=True):
                    vectors[place] = vector
        return vectors

    def _pooled(self, texts: Sequence[Tensor], width: int) -> Tensor:
        """Return (texts, width) of each text's (T, D), by the head of that width or by truncation."""
        head = self.widths[width]
        trained = width if head else self.width
        if trained not in self.folded:
            own = PMA.from_tensors(head.tensors, head.num_heads, head.layer_norm) if head else self.pma
            self.folded[trained] = FoldedPMA(own.to(texts[0].device))
        states, lengths = torch.cat(list(texts)), [len(text) for text in texts]
        groups = packed_layout(lengths, states.device) if states.is_cuda else list(groups_of(lengths))
        return pool_packed(self.folded[trained], states, groups)[:, :width]


def _complete_texts(hidden_states: Tensor, metadata: PoolingMetadata) -> Iterator[Tensor | None]:
    """Yield all states of each text that ends in this step, and None for a text that goes on."""
    cursor = metadata.get_pooling_cursor()
    counts = cursor.num_scheduled_tokens_cpu
    begins = (cursor.seq_lens_cpu - counts).tolist()
    parts = zip(hidden_states.split(counts.tolist()), begins, cursor.get_finished_mask(), strict=True)
    for (states, begin, finished), request in zip(parts, metadata.pooling_states, strict=True):
        kept = request.hidden_states_cache
        if begin == 0:
            kept.clear()  # of a text that vLLM had begun, stopped and begins again
        if finished:
            yield torch.cat([*kept, states]) if kept else states
            kept.clear()
        else:
            kept.append(states.clone())  # the next step writes over them
            yield None


def _refuse_other_pooling(vllm_config: VllmConfig) -> None:
    pooling = vllm_config.model_config.pooler_config
    if vllm_config.cache_config.enable_prefix_caching:
        raise InputError("C2LLM pools all tokens' states, prefix caching leaves some out; drop --enable-prefix-caching")
    if pooling.seq_pooling_type != _LIKE:
        raise InputError(f"C2LLM pools with PMA, not {pooling.seq_pooling_type}; drop pooling_type in --pooler-config")
    if pooling.enable_chunked_processing:
        raise InputError(
            "C2LLM has no vector for the mean of a long text's pieces; drop enable_chunked_processing in "
            "--pooler-config, and send truncate_prompt_tokens to cut long texts"
        )
