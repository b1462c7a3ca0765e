"""Any backbone of transformers: its own vectors whatever stands beside a text, or a refusal that names it."""

import dataclasses
import errno

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModel

from c2llm_integrations.errors import CheckpointError, InputError
from c2llm_integrations.model import checkpoint
from c2llm_integrations.model.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from c2llm_integrations.model.embedder import C2LLMEmbedder, _device
from c2llm_integrations.model.encoder import PaddedEncoder, load_encoder, longest_text
from c2llm_integrations.model.hf_model import C2LLMConfig, C2LLMModel
from tests.golden import TIED

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
SMALL = {
    "vocab_size": 90,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 40,
    "pad_token_id": 1,
}
KINDS = {
    "roberta": {},
    "camembert": {},
    "xlm-roberta": {},
    "esm": {"position_embedding_type": "absolute", "mask_token_id": 3},
    "electra": {"embedding_size": 32},
    "albert": {"embedding_size": 16},
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 32},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 40},
    "llama": {"num_key_value_heads": 2},
    "modernbert": {"cls_token_id": 0, "sep_token_id": 2, "eos_token_id": 2, "bos_token_id": 0},
}
TEXTS = [list(range(4, 30)), [7, 1, 9, 20], [5], list(range(60, 72))]


def saved(kind, folder, **more) -> Checkpoint:
    """A random backbone of a kind under a PMA, in the released layout."""
    torch.manual_seed(1)
    nested = {"model_type": kind, **SMALL, **KINDS.get(kind, {}), **more}
    config = {"compressed_dim": 16, "pma_num_heads": 4, "backbone_config": nested}
    model = C2LLMModel(C2LLMConfig(**config))
    names = {
        name.replace("plm_model.model.", "backbone.").replace("mha_pma.", "pma."): tensor
        for name, tensor in model.state_dict().items()
    }
    source = Checkpoint(kind, folder, {"model_type": "c2llm", **config}, {})
    save_checkpoint(source, names, folder)
    return source


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_has_the_states_that_its_backbone_gives_it_alone(kind, tmp_path):
    checkpoint = saved(kind, tmp_path)
    encoder = load_encoder(checkpoint, torch.float32, CPU)
    assert isinstance(encoder, PaddedEncoder)
    alone = AutoModel.from_config(
        AutoConfig.for_model(**checkpoint.config["backbone_config"]), attn_implementation="sdpa"
    ).eval()
    own = {name[9:]: tensor for name, tensor in checkpoint.tensors().items() if name.startswith("backbone.")}
    alone.load_state_dict(own, strict=False)
    with torch.inference_mode():
        wanted = torch.cat([alone(input_ids=torch.tensor([ids])).last_hidden_state[0] for ids in TEXTS])
    np.testing.assert_allclose(encoder.states(TEXTS), wanted, atol=2e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_the_side_of_the_padding_changes_nothing(kind, tmp_path):
    model = load_encoder(saved(kind, tmp_path), torch.float32, CPU).model
    longest = max(map(len, TEXTS))
    vectors = []
    for side in (1, -1):
        rows = [[ids, [1] * (longest - len(ids))][::side] for ids in TEXTS]
        mask = [[[1] * len(ids), [0] * (longest - len(ids))][::side] for ids in TEXTS]
        joined = [torch.tensor([first + second for first, second in part]) for part in (rows, mask)]
        with torch.inference_mode():
            vectors.append(model(*joined).pooler_output)
    np.testing.assert_allclose(*vectors, atol=2e-5)


@pytest.mark.parametrize(("kind", "longest"), [("roberta", 38), ("electra", 40), ("opt", 40), ("gpt2", 40)])
def test_the_longest_text_that_has_positions_is_computed(kind, longest, tmp_path):
    checkpoint = saved(kind, tmp_path)
    assert longest_text(checkpoint) == longest
    assert load_encoder(checkpoint, torch.float32, CPU)([[5] * longest]).isfinite().all()


@pytest.mark.parametrize("kind", ["t5", "bart", "pegasus", "deberta-v2", "mpnet", "fnet", "bloom", "vit"])
def test_what_cannot_be_a_backbone_is_refused_by_name(kind, tmp_path):
    source = load_checkpoint(str(TIED))
    odd = dataclasses.replace(source, config={**source.config, "backbone_config": {"model_type": kind, **SMALL}})
    with pytest.raises(CheckpointError, match=f"'{kind}'") as refused:
        load_encoder(odd, torch.float32, CPU)
    assert "\n" not in str(refused.value)


def test_a_padded_model_is_built_without_memory_for_random_weights(tmp_path, monkeypatch):
    checkpoint = saved("electra", tmp_path)
    drawn = []
    monkeypatch.setattr(torch.nn.init, "_no_grad_normal_", lambda tensor, *_, **__: drawn.append(tensor) or tensor)
    load_encoder(checkpoint, torch.float32, CPU)
    assert all(tensor.is_meta for tensor in drawn)


class Refusing(Checkpoint):
    """A checkpoint whose weights a device does not take."""

    error: Exception

    def tensors(self):
        raise self.error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.0 GiB\nGPU 0 has 1 GiB"),
            "does not fit the memory",
        ),
        (MemoryError(), "does not fit the memory of cpu as float32: MemoryError"),
        (RuntimeError("MPS backend out of memory (MPS allocated: 5 GB)"), "does not fit the memory"),
        (RuntimeError("XPU out of memory. Tried to allocate 2 GiB"), "does not fit the memory"),
        (RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be"), "does not fit the memory"),
        (RuntimeError("unable to mmap 9 bytes from file <x>: Cannot allocate memory (12)"), "does not fit the memory"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "does not fit the memory"),
        (RuntimeError("CUDA error: no kernel image is available"), "cpu failed while"),
        (RuntimeError("shape mismatch"), "does not fit its config.json"),
    ],
)
def test_a_device_is_not_told_as_a_damaged_checkpoint(error, said):
    source = load_checkpoint(str(TIED))
    odd = Refusing(source.name, source.folder, source.config, {})
    object.__setattr__(odd, "error", error)
    with pytest.raises((InputError, CheckpointError), match=said) as raised:
        load_encoder(odd, torch.float32, CPU)
    assert ("fetch" in str(raised.value)) == ("config.json" in said)
    assert "\n" not in str(raised.value)


def test_a_model_larger_than_the_memory_is_told_as_that(monkeypatch):
    """The machine's own allocator refuses; PyTorch has no type of error for it."""
    source = load_checkpoint(str(TIED))
    rows = 10**11
    monkeypatch.setattr(checkpoint, "_MAX_NUMBER", rows)  # one number stands for what many layers take together

    class Huge(Checkpoint):
        def tensors(self):
            found = super().tensors()
            width = found["backbone.embed_tokens.weight"].shape[1]
            return {**found, "backbone.embed_tokens.weight": torch.zeros(1, 1).bfloat16().expand(rows, width)}

    huge = Huge(source.name, source.folder, {**source.config, "vocab_size": rows}, {})
    with pytest.raises(InputError, match="does not fit the memory of cpu as float32"):
        load_encoder(huge, torch.float32, CPU)


@pytest.mark.parametrize("name", ["xpu", "meta", "hpu:0", "vulkan", "cuda:99", "nonsense"])
def test_a_device_that_cannot_be_had_is_refused_in_one_line(name):
    with pytest.raises(InputError, match="device") as refused:
        _device(name)
    assert "\n" not in str(refused.value)
    with pytest.raises(InputError, match="device"):
        C2LLMEmbedder.from_pretrained("nano", device=name)
