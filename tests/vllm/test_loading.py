"""What vLLM loads of a folder, and what it is told of a folder or an option that it must not take."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from vllm import EngineArgs
from vllm.config import set_current_vllm_config
from vllm.distributed import init_distributed_environment, initialize_model_parallel
from vllm.model_executor.model_loader import get_model_loader
from vllm.model_executor.model_loader.utils import initialize_model
from vllm.utils.torch_utils import set_default_torch_dtype

from c2llm_integrations.errors import CheckpointError, InputError

SAMPLE = "plm_model.model.layers.1.mlp.up_proj.weight"


def load(folder, **options):
    """Let vLLM configure and load a model, as each of its workers does, without an engine around it."""
    given = {"runner": "pooling", "dtype": "float32", "enforce_eager": True, "max_model_len": 512, **options}
    config = EngineArgs(model=str(folder), **given).create_engine_config()
    with set_current_vllm_config(config), set_default_torch_dtype(config.model_config.dtype):
        if not torch.distributed.is_initialized():
            init_distributed_environment(1, 0, "tcp://127.0.0.1:0", 0, "gloo")
            initialize_model_parallel()
        loaded = initialize_model(config)
        get_model_loader(config.load_config).load_weights(loaded, config.model_config)
        return loaded


@pytest.fixture
def copy(model, tmp_path):
    """A copy of the model to be damaged."""
    return Path(shutil.copytree(model, tmp_path / "copy"))


def change_tensors(folder, change):
    file = folder / "model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)


def test_the_causal_head_is_neither_built_nor_missed(model):
    loaded = load(model)
    assert not any("lm_head" in name for name, _ in loaded.named_parameters())
    torch.testing.assert_close(
        loaded.pooler.pma.S.data, load_file(model / "model.safetensors")["mha_pma.S"], rtol=0, atol=0
    )


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_pma_is_kept_in_float32(model, dtype):
    assert {weight.dtype for weight in load(model, dtype=dtype).pooler.parameters()} == {torch.float32}


def test_a_checkpoints_code_is_not_run_even_where_it_is_trusted(model):
    assert type(load(model, trust_remote_code=True)).__module__ == "c2llm_integrations.server.vllm.model"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda tensors: tensors.pop(SAMPLE), "missing tensors: backbone.layers.1.mlp.up_proj.weight"),
        (lambda tensors: tensors.pop("mha_pma.mab.fc_o.bias"), "missing tensors: pma.mab.fc_o.bias"),
        (lambda tensors: tensors.update({"plm_model.model.layers.2.x": torch.zeros(1)}), "backbone.layers.2.x"),
        (lambda tensors: tensors.update(stray=torch.zeros(1)), "left over: stray"),
        (lambda tensors: tensors.update({"old.mab.fc_q.bias": torch.zeros(96)}), "left over: "),
        (lambda tensors: tensors.update({SAMPLE: torch.zeros(511, 256)}), "(511, 256), config.json says (512, 256)"),
        (lambda tensors: tensors.update({"mha_pma.S": torch.zeros(1, 1, 95)}), "(1, 1, 95), config.json says"),
    ],
)
def test_tensors_that_do_not_fit_are_named(copy, change, told):
    change_tensors(copy, change)
    with pytest.raises(CheckpointError) as error:
        load(copy)
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_a_tokenizer_with_more_tokens_than_rows_is_refused(copy):
    file = copy / "tokenizer.json"
    tokenizer = json.loads(file.read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary[max(vocabulary, key=vocabulary.get)] = 5000
    file.write_text(json.dumps(tokenizer))
    with pytest.raises(CheckpointError, match="has token 5000"):
        load(copy)


def test_a_cut_file_is_refused(copy):
    file = copy / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(Exception, match=r"incomplete|InvalidHeader|not fully covered"):
        load(copy)


def test_pickles_are_never_read(copy):
    torch.save(load_file(copy / "model.safetensors"), copy / "pytorch_model.bin")
    (copy / "model.safetensors").unlink()
    with pytest.raises(RuntimeError, match="Cannot find any model weights"):
        load(copy)


def change_config(folder, **values):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"embedding_method": "mean"}, "only 'pma'"),
        ({"pma_norm": True}, "only 'pma'"),
        ({"pma_num_heads": 7}, "not a multiple of pma_num_heads 7"),
        ({"backbone_config": {"model_type": "bert"}}, "'bert'"),
    ],
)
def test_another_pooling_or_backbone_is_refused(copy, values, told):
    change_config(copy, **values)
    with pytest.raises(ValueError, match=told):
        load(copy)


def test_a_head_of_other_weights_is_refused(model, head, copy):
    assert load(model, hf_overrides={"c2llm_dimensions": [str(head)]}).pooler.widths.keys() == {96, 48}
    change_tensors(copy, lambda tensors: tensors.update({SAMPLE: -tensors[SAMPLE]}))
    with pytest.raises(CheckpointError, match="the head was trained on"):
        load(copy, hf_overrides={"c2llm_dimensions": [str(head)]})


@pytest.mark.parametrize(
    "options",
    [
        {"enable_prefix_caching": True},
        {"pooler_config": {"pooling_type": "CLS"}},
        {"pooler_config": {"pooling_type": "LAST"}},
        {"pooler_config": {"enable_chunked_processing": True}},
        {"hf_overrides": {"c2llm_dimensions": [96]}},
        {"hf_overrides": {"c2llm_dimensions": [0]}},
        {"hf_overrides": {"c2llm_dimensions": [1.5]}},
    ],
)
def test_an_option_that_would_give_other_vectors_is_refused(model, options):
    with pytest.raises(InputError, match=r"drop|c2llm_dimensions"):
        load(model, **options)
