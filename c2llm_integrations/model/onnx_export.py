"""A model as one graph, from tokens to vectors of unit length, with what other runtimes need beside it.

The folder has the layout that FastEmbed and transformers.js read: ONNX files, the tokenizer, the prompts and a card.
"""

from __future__ import annotations

import json
import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from c2llm_integrations.errors import CheckpointError, InputError, MissingExtra
from c2llm_integrations.model.attention import Padded
from c2llm_integrations.model.embedder import C2LLMEmbedder
from c2llm_integrations.model.encoder import PackedEncoder, right_padded
from c2llm_integrations.model.options import ModelOptions, is_url
from c2llm_integrations.model.prompts import named_prompts

MODEL, QUANTIZED = "model.onnx", "model_quantized.onnx"  # as transformers.js calls them
OPSET = 18
# A file of protobuf holds 2 GiB. Larger weights become a file of their own, as transformers.js calls it.
LARGEST_FILE_BYTES = 1_900_000_000
WEIGHTS_SUFFIX = "_data"
# How far two right computations of a number of a vector may differ.
TOLERANCE = 1e-4
# What the written files are tried on.
_TEXTS = ("def add(a, b):\n    return a + b\n", "", "retry", "für jeden 中文 🙂\r\n\t" * 9)

_CARD = """# {name} as ONNX

`onnx/model.onnx` takes `input_ids` and `attention_mask`, (batch, length) int64, padded on either side. It gives
`sentence_embedding`, (batch, {width}) float32. The pooling is in the graph and vectors have unit length: pool and
normalize no more.

Put a prompt of `config_sentence_transformers.json` in front of a text and strip the whole at both ends. Add no special
tokens. {length} tokens of a text are read.
"""


def export_onnx(options: ModelOptions, folder: Path, *, int8: bool = False) -> dict[str, float]:
    """Write a model as ONNX, with its tokenizer, prompts and a card.

    Args:
        options: The model and its dimensions; it is exported in float32, and vectors have unit length.
        folder: New or empty. It appears when everything is written and tried.
        int8: Also write `onnx/model_quantized.onnx`, with weights of 8 bits.

    Returns:
        For each file in `onnx/` the least cosine to the embedder's vectors, of some texts.

    Raises:
        CheckpointError: For a model that does not give the embedder's vectors as ONNX.
        InputError: For a server's model, a backbone that cannot be exported, or a folder that is not empty.
        MissingExtra: Where the extra `onnx` is not installed.

    """
    if is_url(options.name):
        raise InputError(f"{options.name} is a server, whose model cannot be exported; name a folder or a hub id")
    folder = folder.absolute()
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise InputError(f"{folder} exists and is not an empty folder; name another")
    try:
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401  # torch.onnx needs it
    except ImportError as error:
        raise MissingExtra(str(error.name), "onnx") from error
    embedder = C2LLMEmbedder.from_options(replace(options, dtype="float32", device="cpu", normalize=True))
    graph = OnnxGraph(embedder).eval()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        made = Path(temporary) / folder.name
        (made / "onnx").mkdir(parents=True)
        write_graph(graph, made / "onnx" / MODEL, int8)
        _write_texts(embedder, graph.blank, made)
        cosines = {file.name: _cosine(embedder, file) for file in sorted((made / "onnx").glob("*.onnx"))}
        if folder.exists():
            folder.rmdir()
        made.rename(folder)
    return cosines


def _write_texts(embedder: C2LLMEmbedder, blank: int, folder: Path) -> None:
    """Write the tokenizer, which adds nothing, cuts at the embedder's length and pads; the prompts; the card."""
    checkpoint, length = embedder.checkpoint, embedder.max_length
    own = checkpoint.tokenizer()
    token = own.id_to_token(blank) or "[PAD]"
    tokenizer = json.loads(own.to_str())
    tokenizer["post_processor"] = None
    tokenizer["truncation"] = {"direction": "Right", "max_length": length, "strategy": "LongestFirst", "stride": 0}
    padding = {"strategy": "BatchLongest", "direction": "Right", "pad_to_multiple_of": None}
    tokenizer["padding"] = {**padding, "pad_id": blank, "pad_type_id": 0, "pad_token": token}
    large = {file.name.removesuffix(WEIGHTS_SUFFIX): 1 for file in folder.glob(f"onnx/*{WEIGHTS_SUFFIX}")}
    documents: dict[str, Any] = {
        "tokenizer.json": tokenizer,
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": length,
            "pad_token": token,
            "padding_side": "right",
            "clean_up_tokenization_spaces": False,
            "model_input_names": ["input_ids", "attention_mask"],
        },
        "config.json": {
            "model_type": "custom",  # transformers.js: the graph as it is
            "hidden_size": embedder.output_dim,
            "pad_token_id": blank,
            "transformers.js_config": {"use_external_data_format": large},
        },
        "config_sentence_transformers.json": {
            "prompts": named_prompts(embedder.prompts),
            "similarity_fn_name": "cosine",
        },
    }
    for name, document in documents.items():
        (folder / name).write_text(json.dumps(document, ensure_ascii=False, indent=1), encoding="utf-8")
    card = _CARD.format(name=Path(checkpoint.name).name, width=embedder.output_dim, length=f"{length:,}")
    (folder / "README.md").write_text(card, encoding="utf-8")


def _cosine(embedder: C2LLMEmbedder, file: Path) -> float:
    """Return the least cosine of what a file gives to the embedder's vectors; see `export_onnx`."""
    import onnxruntime

    tokenizer = embedder.checkpoint.tokenizer()
    tokens = [tokenizer.encode(text, add_special_tokens=False).ids[: embedder.max_length] for text in _TEXTS]
    ids, mask = right_padded(tokens)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    found = session.run(None, {"input_ids": ids.long().numpy(), "attention_mask": mask.long().numpy()})[0]
    wanted = embedder.encode(_TEXTS)
    cosine = float((found * wanted).sum(1).min())
    if file.name == MODEL and not np.abs(found - wanted).max() <= TOLERANCE:
        name = embedder.checkpoint.name
        raise CheckpointError(f"{name} gives other vectors as ONNX: cosine {cosine:.6f}, expected 1; use it here")
    return cosine


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
        self.blank = embedder.checkpoint.blank_token(embedder.checkpoint.tokenizer())
        self.width = embedder.output_dim
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
