"""A miniature in the released layout with heads of 64, the narrowest that vLLM computes on a CPU."""

import json
import os
import random
import shutil
from pathlib import Path

import pytest
import torch

from c2llm_integrations.model.backbones import Qwen2
from c2llm_integrations.model.checkpoint import load_checkpoint, long_name
from c2llm_integrations.model.encoder import pma_shapes
from c2llm_integrations.model.heads_and_projections import Head
from c2llm_integrations.model.pma import PMA
from c2llm_integrations.model.safetensors_files import write_tensors
from tests.golden import COMPRESSED

os.environ["VLLM_CPU_KVCACHE_SPACE"] = "1"
os.environ["VLLM_NO_USAGE_STATS"] = "1"


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a checkpoint of two layers with random weights; what its `auto_map` names would fail if run."""
    return miniature(tmp_path_factory.mktemp("c2llm-miniature"), hidden_size=256, compressed_dim=96, pma_num_heads=8)


@pytest.fixture(scope="session")
def head(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A head of 48 dimensions and 4 attention heads for the model, with random weights."""
    torch.manual_seed(1)
    pma = PMA(256, 48, 4, True)
    tensors = {f"pma.{name}": tensor for name, tensor in pma.state_dict().items()}
    file = tmp_path_factory.mktemp("heads") / "head-48.safetensors"
    Head(tensors, 4, True, str(model), None, load_checkpoint(str(model)).digest()).save(file)
    return file


@pytest.fixture(scope="session")
def texts() -> list[str]:
    """500 texts of 1 to 400 tokens: code, prose, other scripts and spaces, a few of them twice."""
    choice = random.Random(0)
    source = Path(__file__).read_text(encoding="utf-8")
    parts = [*source.splitlines(keepends=True), "für jeden 中文 🙂 текст\n", "\t\t", " ", "a", "<|endoftext|>", "\r\n"]
    found = ["".join(choice.choices(parts, k=choice.choice([1, 2, 5, 20]))) for _ in range(490)]
    return found + found[:10]


def miniature(folder: Path, **sizes: int) -> Path:
    """Write a checkpoint of such sizes, with the causal head that the 7B carries and code that must never run."""
    for file in COMPRESSED.iterdir():
        if not file.name.startswith(("model", "expected")):
            shutil.copy(file, folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"intermediate_size": 512, "num_attention_heads": 4, "num_key_value_heads": 2, **sizes}
    (folder / "config.json").write_text(json.dumps(config))
    for name in ("configuration_c2llm.py", "modeling_c2llm.py"):
        (folder / name).write_text("raise SystemExit('code of a checkpoint was run')\n")
    seed = torch.Generator().manual_seed(0)
    checkpoint = load_checkpoint(str(folder))
    shapes = dict([*Qwen2.shapes(checkpoint.sizes), *pma_shapes(checkpoint.sizes)])
    tensors = {long_name(name): _weight(name, shape, seed) for name, shape in shapes.items()}
    tensors["plm_model.lm_head.weight"] = torch.zeros(config["vocab_size"], config["hidden_size"])
    write_tensors(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


def _weight(name: str, shape: tuple[int, ...], seed: torch.Generator) -> torch.Tensor:
    spread = torch.randn(shape, generator=seed)
    if "norm" in name or ".ln" in name:
        return (1 + spread / 10) if name.endswith("weight") else spread / 10
    return spread if "embed" in name else spread * shape[-1] ** -0.5
