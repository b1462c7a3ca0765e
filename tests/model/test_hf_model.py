"""C2LLMModel and PMA against the golden vectors and the published arithmetic."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModel

from c2llm_integrations.errors import CheckpointError
from c2llm_integrations.model.hf_model import C2LLMConfig, C2LLMModel
from c2llm_integrations.model.pma import PMA
from tests.golden import COMPRESSED, FOLDER, NAMES, TIED, expected

pytestmark = pytest.mark.slow


def pooled(model, texts, tokenizer, side):
    """Pool a padded batch; `side` is where the padding goes."""
    rows = [tokenizer.encode(text, add_special_tokens=False).ids[:2048] for text in texts]
    longest = max(map(len, rows))
    pad = [[0] * (longest - len(row)) for row in rows]
    join = (lambda fill, row: fill + row) if side == "left" else (lambda fill, row: row + fill)
    ids = torch.tensor([join(fill, row) for fill, row in zip(pad, rows, strict=True)])
    mask = torch.tensor([join(fill, [1] * len(row)) for fill, row in zip(pad, rows, strict=True)])
    with torch.inference_mode():
        return model(input_ids=ids, attention_mask=mask).pooler_output.numpy()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("side", ["left", "right"])
def test_golden_vectors_whatever_the_padding_side(name, side):
    model = AutoModel.from_pretrained(FOLDER / name, dtype=torch.float32).eval()
    assert type(model) is C2LLMModel
    texts, raw, _ = expected(FOLDER / name)
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))[:-1]  # the 2,048-token text would pad all others
    tokenizer = Tokenizer.from_file(str(FOLDER / name / "tokenizer.json"))
    got = pooled(model, [texts[i] for i in order], tokenizer, side)
    assert np.abs(got - raw[order]).max() <= 1e-4


def test_auto_model_never_reads_standard_input():
    code = (
        "import c2llm_integrations.model.hf_model; from transformers import AutoConfig, AutoModel; "
        f"AutoModel.from_pretrained({str(TIED)!r}); print(AutoConfig.from_pretrained({str(TIED)!r}).model_type)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("c2llm")
    assert "flash" in json.loads((TIED / "config.json").read_text())["attn_implementation"]


def test_pma_is_the_published_arithmetic():
    torch.manual_seed(0)
    pma = PMA(hidden_size=24, output_dim=16, num_heads=4)
    states, mask = torch.randn(3, 7, 24), torch.ones(3, 7)
    mask[1, 4:] = 0
    block = pma.mab
    query = block.fc_q(pma.S)[0, 0]  # (16,)
    for row in range(3):
        tokens = states[row, mask[row].bool()]
        heads = []
        for head in range(4):
            part = slice(4 * head, 4 * head + 4)
            weights = torch.softmax(block.fc_k(tokens)[:, part] @ query[part] / 16**0.5, 0)
            heads.append(weights @ block.fc_v(tokens)[:, part])
        first = block.ln0(query + torch.cat(heads))
        want = block.ln1(first + torch.relu(block.fc_o(first)))
        torch.testing.assert_close(pma(states, mask)[row], want, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(("width", "heads", "norm"), [(16, 4, True), (8, 1, False), (48, 16, True)])
def test_width_heads_and_norm_are_free(width, heads, norm):
    pma = PMA(hidden_size=24, output_dim=width, num_heads=heads, layer_norm=norm)
    assert pma(torch.randn(2, 5, 24)).shape == (2, width)
    assert any("ln0" in name for name in pma.state_dict()) == norm


def test_save_pretrained_round_trip(tmp_path):
    model = C2LLMModel.from_pretrained(COMPRESSED).eval()
    model.save_pretrained(tmp_path)
    again = C2LLMModel.from_pretrained(tmp_path).eval()
    ids = torch.arange(9)[None]
    with torch.inference_mode():
        torch.testing.assert_close(again(ids).pooler_output, model(ids).pooler_output, atol=1e-6, rtol=1e-5)
    assert again.config.compressed_dim == 32
    assert all("lm_head" not in name for name in load_file(tmp_path / "model.safetensors"))


@pytest.mark.parametrize("backbone", ["bert", "qwen3", "llama"])
def test_any_text_backbone_causal_or_not(backbone):
    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    nested = {"model_type": backbone, "vocab_size": 50, **small}
    if backbone == "qwen3":
        nested |= {"head_dim": 8, "num_key_value_heads": 2}
    model = C2LLMModel(C2LLMConfig(compressed_dim=16, pma_num_heads=4, backbone_config=nested)).eval()
    ids = torch.arange(12).view(2, 6)
    mask = torch.tensor([[1] * 6, [0, 0, 1, 1, 1, 1]])
    with torch.inference_mode():
        both = model(ids, mask).pooler_output
        alone = model(ids[1:, 2:]).pooler_output
    assert both.shape == (2, 16)
    torch.testing.assert_close(both[1:], alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("change", ["missing", "left over"])
def test_missing_or_left_over_tensors_are_an_error_that_lists_them(tmp_path, change):
    shutil.copytree(TIED, tmp_path / "m")
    weights = load_file(tmp_path / "m" / "model.safetensors")
    if change == "missing":
        del weights["mha_pma.S"]
    else:
        weights["mha_pma.extra"] = torch.zeros(1)
    save_file(weights, tmp_path / "m" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"mha_pma\.(S|extra)"):
        AutoModel.from_pretrained(tmp_path / "m")


def test_another_pooling_is_refused():
    with pytest.raises(CheckpointError, match="mean"):
        C2LLMConfig(embedding_method="mean")
    with pytest.raises(CheckpointError, match=r"30.*pma_num_heads 4"):
        C2LLMConfig(compressed_dim=30, pma_num_heads=4)


def test_config_reads_the_released_keys():
    config = AutoConfig.from_pretrained(COMPRESSED)
    assert isinstance(config, C2LLMConfig)
    assert (config.compressed_dim, config.pma_num_heads, config.backbone().model_type) == (32, 4, "qwen2")


@pytest.mark.parametrize(
    "backbone",
    [
        # Each is built from a part that it names: another folder or id of the hub, whose code it may be told to run.
        {"model_type": "detr", "backbone": "evil/part", "use_timm_backbone": False},
        {"model_type": "lightglue", "trust_remote_code": True, "keypoint_detector_config": {"_name_or_path": "evil"}},
        {"model_type": "llama", "parts": [{"vision_config": {"model_type": "dpt", "backbone": "evil/part"}}]},
        {"model_type": ["llama"]},
    ],
)
def test_a_backbone_that_is_made_of_other_models_is_refused_unbuilt(backbone, monkeypatch):
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("asked another machine"))
    with pytest.raises(CheckpointError, match="is not a text model"):
        C2LLMConfig(pma_num_heads=4, backbone_config=backbone)


def test_what_a_configuration_says_of_other_files_and_kernels_is_dropped():
    hostile = {
        "backbone": "evil/part",
        "trust_remote_code": True,
        "_name_or_path": "evil",
        "auto_map": {"AutoModel": "m.M"},
    }
    hostile |= {"attribute_map": {"_attn_implementation_internal": "evil"}, "evil": "kernels-community/attention"}
    hostile |= {"_attn_implementation_internal": "kernels-community/attention"}
    sizes = {"hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 4, "num_hidden_layers": 1}
    sizes |= {"vocab_size": 50, "intermediate_size": 32}
    for config in (
        C2LLMConfig(pma_num_heads=4, **sizes, **hostile),
        C2LLMConfig(pma_num_heads=4, backbone_config={"model_type": "llama", **sizes, **hostile}),
    ):
        model = C2LLMModel(config)
        assert model.config._attn_implementation != "kernels-community/attention"
        assert model.backbone.config._attn_implementation == "sdpa"
        assert model.backbone.config.name_or_path == ""
    assert not hasattr(config.backbone(), "backbone")
