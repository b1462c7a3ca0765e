"""A model's ONNX files with what other runtimes need beside them: the tokenizer, the prompts and a card.

The folder has the layout that FastEmbed and transformers.js read.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from c2llm_integrations.errors import CheckpointError, InputError, MissingExtra
from c2llm_integrations.model.embedder import C2LLMEmbedder
from c2llm_integrations.model.encoder import right_padded
from c2llm_integrations.model.onnx_graph import MODEL, WEIGHTS_SUFFIX, OnnxGraph, blank_of, write_graph
from c2llm_integrations.model.options import ModelOptions, is_url
from c2llm_integrations.model.prompts import named_prompts

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
        _write_texts(embedder, made)
        cosines = {file.name: _cosine(embedder, file) for file in sorted((made / "onnx").glob("*.onnx"))}
        if folder.exists():
            folder.rmdir()
        made.rename(folder)
    return cosines


def _write_texts(embedder: C2LLMEmbedder, folder: Path) -> None:
    """Write the tokenizer, which adds nothing, cuts at the embedder's length and pads; the prompts; the card."""
    checkpoint, length = embedder.checkpoint, embedder.max_length
    blank, token = blank_of(embedder)
    tokenizer = json.loads(checkpoint.tokenizer().to_str())
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
    ids, mask = right_padded(list(map(torch.tensor, tokens)))
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    found = session.run(None, {"input_ids": ids.long().numpy(), "attention_mask": mask.long().numpy()})[0]
    wanted = embedder.encode(_TEXTS)
    cosine = float((found * wanted).sum(1).min())
    if file.name == MODEL and not np.abs(found - wanted).max() <= TOLERANCE:
        name = embedder.checkpoint.name
        raise CheckpointError(f"{name} gives other vectors as ONNX: cosine {cosine:.6f}, expected 1; use it here")
    return cosine
