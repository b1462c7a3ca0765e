"""What is exported gives the embedder's vectors in every runtime that reads it."""

import json
import subprocess
from pathlib import Path

import numpy as np
import onnxruntime
import openvino
import pytest

from c2llm_integrations.errors import CheckpointError
from c2llm_integrations.model import onnx_export
from c2llm_integrations.model.onnx_export import TOLERANCE, export_onnx
from c2llm_integrations.model.options import ModelOptions
from c2llm_integrations.model.prompts import named_prompts
from tests.cli.running import answer
from tests.golden import TIED, cosines
from tests.model.test_onnx_export import TEXTS, loaded, padded


def onnx_runtime(file: Path):
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return lambda ids, mask: session.run(["sentence_embedding"], {"input_ids": ids, "attention_mask": mask})[0]


def open_vino(file: Path):
    model = openvino.Core().compile_model(file, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda ids, mask: model({"input_ids": ids, "attention_mask": mask})["sentence_embedding"]


@pytest.mark.parametrize("name", [TIED, "nano"])
@pytest.mark.parametrize("runtime", [onnx_runtime, open_vino])
def test_a_runtime_gives_the_embedders_vectors(runtime, name, exported):
    embedder = loaded(name)
    run, wanted = runtime(exported(name) / "onnx" / "model.onnx"), embedder.encode(TEXTS)
    for side in ("right", "left"):
        assert np.abs(run(*padded(embedder, TEXTS, side)) - wanted).max() <= TOLERANCE
    for text, vector in zip(TEXTS, wanted, strict=True):
        assert np.abs(run(*padded(embedder, [text]))[0] - vector).max() <= TOLERANCE


@pytest.mark.parametrize("runtime", [onnx_runtime, open_vino])
def test_eight_bits_stay_close(runtime, exported):
    embedder, folder = loaded("nano"), exported("nano") / "onnx"
    found = runtime(folder / "model_quantized.onnx")(*padded(embedder, TEXTS))
    assert cosines(found, embedder.encode(TEXTS)).min() >= 0.97
    assert (folder / "model_quantized.onnx").stat().st_size < (folder / "model.onnx").stat().st_size / 3


def by_reader(command, folder, width):
    """What another program gives for all texts at once and for each alone."""
    request = {"folder": str(folder), "batches": [TEXTS, *([text] for text in TEXTS)], "width": width}
    done = subprocess.run(
        list(map(str, command)),
        input=json.dumps(request),
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    together, *alone = json.loads(done.stdout)
    return np.array(together), np.array([vector for [vector] in alone])


@pytest.mark.parametrize("name", [TIED, "nano"])
def test_fastembed_gives_the_embedders_vectors(name, exported, fastembed_python):
    embedder = loaded(name)
    reader = Path(__file__).with_name("fastembed_reader.py")
    for found in by_reader([fastembed_python, reader], exported(name), embedder.output_dim):
        assert np.abs(found - embedder.encode(TEXTS)).max() <= TOLERANCE


@pytest.mark.parametrize("name", [TIED, "nano"])
def test_transformers_js_gives_the_embedders_vectors(name, exported, transformers_js):
    embedder = loaded(name)
    reader = Path(__file__).with_name("transformers_reader.mjs")
    for found in by_reader(["node", reader, transformers_js], exported(name), embedder.output_dim):
        assert np.abs(found - embedder.encode(TEXTS)).max() <= TOLERANCE


def test_large_weights_are_a_file_of_their_own(exported):
    sizes = {file.name: file.stat().st_size for file in (exported(TIED) / "onnx").iterdir()}
    assert sorted(sizes) == ["model.onnx", "model.onnx_data", "model_quantized.onnx", "model_quantized.onnx_data"]
    assert sizes["model.onnx"] < sizes["model.onnx_data"]


def test_a_graph_with_other_vectors_is_not_kept(monkeypatch, tmp_path):
    monkeypatch.setattr(onnx_export, "TOLERANCE", -1.0)
    with pytest.raises(CheckpointError, match=r"gives other vectors as ONNX: cosine .*, expected 1"):
        export_onnx(ModelOptions(name=str(TIED)), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_the_command_says_what_it_wrote(capsys, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    assert answer(capsys, "export-onnx", TIED, out, "--int8", "--truncate-dim", 24).strip() == str(out)
    own = json.loads((out / "config_sentence_transformers.json").read_text())["prompts"]
    assert own == named_prompts({})
    assert "(batch, 24) float32" in (out / "README.md").read_text()
    assert sorted(file.name for file in (out / "onnx").iterdir()) == ["model.onnx", "model_quantized.onnx"]
