"""A model as one graph, from tokens to vectors of unit length, and its ONNX files."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from c2llm_integrations.errors import CheckpointError, InputError
from c2llm_integrations.model.attention import Padded
from c2llm_integrations.model.embedder import C2LLMEmbedder
from c2llm_integrations.model.encoder import PackedEncoder

MODEL, QUANTIZED = "model.onnx", "model_quantized.onnx"  # as transformers.js calls them
OPSET = 18
# A file of protobuf holds 2 GiB. Larger weights become a file of their own, as transformers.js calls it.
LARGEST_FILE_BYTES = 1_900_000_000
WEIGHTS_SUFFIX = "_data"


class OnnxGraph(nn.Module):
    """The exported module: an embedder's backbone, pooling and choice of dimensions, for a padded batch."""

    def __init__(self, embedder: C2LLMEmbedder) -> None:
        """Take the parts of an embedder in float32 on a CPU; InputError for a backbone that cannot be exported."""
        super().__init__()
        encoder = embedder.scheduler.workers[0].encoder
        if not isinstance(encoder, PackedEncoder):
            kind = embedder.checkpoint.sizes.model_type
            raise InputError(f"backbone {kind!r} of {embedder.checkpoint.name} cannot be exported; qwen2 and bert can")
        self.backbone: Any = encoder.backbone  # in float32, so never `Int8Bert`
        self.pooling = encoder.pooling
        self.blank, self.width = blank_of(embedder)[0], embedder.output_dim
        projection = embedder.projection
        self.matrix = None if projection is None else torch.from_numpy(projection.matrix)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return (B, output_dim) of unit length for (B, T) ids and mask, padded on either side; T may be 0."""
        counts = torch.cat([attention_mask.sum(1), torch.ones(1, dtype=torch.int64)])
        length: int = counts.max().item()  # type: ignore[assignment]  # int() would fix it while exporting
        torch._check(length >= 1)
        # Tokens move to the left. A text without tokens gets one of padding.
        places = torch.arange(length)[None]
        mask = F.pad(attention_mask, (0, length))
        order = places + mask.argmax(1, keepdim=True)
        ids = F.pad(input_ids, (0, length), value=self.blank).gather(1, order)
        mask = (mask.gather(1, order) > 0) | (places == 0)
        rows = self.backbone(ids.flatten(), places.expand(ids.shape).flatten(), Padded(mask))
        vectors = self.pooling(rows.unflatten(0, ids.shape), mask)
        if self.matrix is not None:
            vectors = vectors @ self.matrix
        return F.normalize(vectors[:, : self.width], eps=1e-30)


def write_graph(graph: OnnxGraph, file: Path, int8: bool) -> None:
    """Write the graph in float32 and, beside it, with weights of 8 bits."""
    import onnx_ir

    size = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length", min=0)}
    # Two tensors, because one given twice becomes one input; a size of 1 would be taken for one that never changes.
    ids, mask = torch.ones(2, 3, dtype=torch.int64), torch.ones(2, 3, dtype=torch.int64)
    with _quiet(), torch.inference_mode():
        try:
            program: Any = torch.onnx.export(
                graph,
                (ids, mask),
                dynamo=True,
                verbose=False,
                opset_version=OPSET,
                input_names=["input_ids", "attention_mask"],
                output_names=["sentence_embedding"],
                dynamic_shapes={"input_ids": size, "attention_mask": size},
            )
        except (torch.onnx.OnnxExporterError, TypeError) as error:
            reason = " ".join(str(error.__cause__ or error).split())[:300]
            raise CheckpointError(
                f"PyTorch {torch.__version__} cannot export the graph ({reason}); try PyTorch 2.13"
            ) from error
    _save(program.model, file)
    if int8:
        from onnxruntime.quantization import QuantType, quantize_dynamic

        how = {"per_channel": True, "weight_type": QuantType.QInt8, "use_external_data_format": True}
        with _quiet(), tempfile.TemporaryDirectory(dir=file.parent) as temporary:
            rounded = Path(temporary) / QUANTIZED
            quantize_dynamic(file, rounded, **how)
            _save(onnx_ir.external_data.load_to_model(onnx_ir.load(rounded)), file.with_name(QUANTIZED))


def _save(model: Any, file: Path) -> None:
    """Write a graph, its weights beside it where they are too large for one file."""
    import onnx_ir

    weights = sum(one.const_value.nbytes for one in model.graph.initializers.values() if one.const_value is not None)
    onnx_ir.save(model, file, external_data=f"{file.name}{WEIGHTS_SUFFIX}" if weights > LARGEST_FILE_BYTES else None)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporters' messages; their errors are raised."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def blank_of(embedder: C2LLMEmbedder) -> tuple[int, str]:
    """Return the token of a text without tokens, and its name."""
    tokenizer = embedder.checkpoint.tokenizer()
    blank = embedder.checkpoint.blank_token(tokenizer)
    return blank, tokenizer.id_to_token(blank) or "[PAD]"
