"""What is exported to ONNX computes an embedder's vectors, and what cannot be exported is told; without ONNX."""

import json
import shutil
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from c2llm_integrations.errors import InputError, MissingExtra
from c2llm_integrations.model.embedder import C2LLMEmbedder
from c2llm_integrations.model.heads_and_projections import fit_projection
from c2llm_integrations.model.hf_model import C2LLMConfig, C2LLMModel
from c2llm_integrations.model.onnx_export import TOLERANCE, OnnxGraph, export_onnx
from c2llm_integrations.model.options import ModelOptions
from tests.cli.running import complaint
from tests.golden import COMPRESSED, TIED

WORDS = [
    "def add(a, b):\n    return a + b\n",
    "für jeden 中文 🙂",
    "\r\n\t\t",
    "x",
    "[PAD] <|endoftext|> [UNK]",
    "\x00\ufeff",
]
# 40 of them: none, a token, many lengths, and more tokens than are read.
TEXTS = ["", " ", "x", "retry " * 3000, *("".join(WORDS[: n % 6 + 1]) * (n // 6 + 1) for n in range(36))]


def padded(embedder, texts, side="right"):
    """The graph's two inputs for a batch of texts."""
    tokenizer = embedder.checkpoint.tokenizer()
    blank = embedder.checkpoint.blank_token(tokenizer)
    rows = [tokenizer.encode(text, add_special_tokens=False).ids[: embedder.max_length] for text in texts]
    longest = max(map(len, rows))
    ids, mask = np.full((len(rows), longest), blank), np.zeros((len(rows), longest), np.int64)
    for row, tokens in enumerate(rows):
        place = slice(0, len(tokens)) if side == "right" else slice(longest - len(tokens), longest)
        ids[row, place], mask[row, place] = tokens, 1
    return ids, mask


def computed(graph, inputs):
    with torch.inference_mode():
        return graph(*map(torch.from_numpy, inputs)).numpy()


def loaded(name, **options):
    return C2LLMEmbedder.from_pretrained(str(name), dtype="float32", device="cpu", max_length=96, **options)


@pytest.mark.slow
@pytest.mark.parametrize("name", [TIED, COMPRESSED, "nano"])
def test_the_graph_gives_the_embedders_vectors(name):
    embedder = loaded(name)
    graph, wanted = OnnxGraph(embedder), embedder.encode(TEXTS)
    for side in ("right", "left"):
        assert np.abs(computed(graph, padded(embedder, TEXTS, side)) - wanted).max() <= TOLERANCE
    for text, vector in zip(TEXTS, wanted, strict=True):
        assert np.abs(computed(graph, padded(embedder, [text]))[0] - vector).max() <= TOLERANCE


def test_the_graph_has_the_dimensions_that_are_asked_for(tmp_path):
    file, own = tmp_path / "projection.safetensors", loaded(TIED)
    fit_projection(own.encode(TEXTS), 16, str(own.fingerprint["weights"])).save(file)
    for name, options in (("nano", {"output_dim": 64}), (TIED, {"truncate_dim": 24}), (TIED, {"projection": file})):
        embedder = loaded(name, **options)
        found = computed(OnnxGraph(embedder), padded(embedder, TEXTS[:9]))
        assert found.shape == (9, embedder.output_dim)
        assert np.abs(found - embedder.encode(TEXTS[:9])).max() <= TOLERANCE


def test_a_backbone_that_is_not_computed_here_is_refused(tmp_path):
    small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64}
    config = C2LLMConfig(
        compressed_dim=16, pma_num_heads=4, backbone_config={"model_type": "llama", "vocab_size": 1040, **small}
    )
    model = C2LLMModel(config)
    shutil.copy(TIED / "tokenizer.json", tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**config.to_dict(), "model_type": "c2llm"}))
    tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"backbone 'llama'.*qwen2 and bert can"):
        OnnxGraph(loaded(tmp_path))


@pytest.mark.parametrize("package", ["onnxruntime", "onnxscript"])
def test_a_missing_package_is_named_before_anything_is_written(package, monkeypatch, tmp_path):
    for name in ("onnxruntime", "onnxscript"):
        monkeypatch.setitem(sys.modules, name, None if name == package else sys)
    with pytest.raises(MissingExtra, match=rf"{package} is not installed.*\[onnx\]"):
        export_onnx(ModelOptions(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_not_empty_a_file_and_a_server_are_refused(capsys, tmp_path):
    (tmp_path / "kept.txt").write_text("mine")
    for out in (tmp_path, tmp_path / "kept.txt"):
        assert f"{out} exists and is not an empty folder" in complaint(capsys, 1, "export-onnx", "nano", out)
    assert "is a server" in complaint(capsys, 1, "export-onnx", "http://localhost:8000/v1", tmp_path / "new")
    assert [file.name for file in tmp_path.iterdir()] == ["kept.txt"]
    assert "Missing argument" in complaint(capsys, 2, "export-onnx", "nano")
