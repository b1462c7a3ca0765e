"""Reading and writing the released layout, safely."""

import json
import pickle
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from c2llm_integrations.errors import CheckpointError, InputError
from c2llm_integrations.model.checkpoint import NANO, ModelConfig, lasting_name, load_checkpoint, save_checkpoint
from c2llm_integrations.model.embedder import C2LLMEmbedder
from tests.golden import COMPRESSED, FOLDER, NAMES, TIED


@pytest.fixture
def copy(tmp_path):
    shutil.copytree(TIED, tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("name", NAMES)
def test_saving_writes_the_released_layout_back(name, tmp_path, monkeypatch):
    source = load_checkpoint(str(FOLDER / name))
    monkeypatch.setattr("c2llm_integrations.model.checkpoint._SHARD_BYTES", 200_000)
    save_checkpoint(source, source.tensors(), tmp_path)
    again = load_checkpoint(str(tmp_path))
    assert again.config == source.config
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    before, after = source.tensors(), again.tensors()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) and before[key].dtype == after[key].dtype for key in before)
    original = {key for file in (FOLDER / name).glob("*.safetensors") for key in load_file(file)}
    saved = {key for file in tmp_path.glob("*.safetensors") for key in load_file(file)}
    assert saved == {key for key in original if "lm_head" not in key}


def test_one_shard_again_removes_the_old_index(tmp_path):
    source = load_checkpoint(str(COMPRESSED))
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"x": "gone.safetensors"}}')
    save_checkpoint(source, source.tensors(), tmp_path)
    assert load_checkpoint(str(tmp_path)).tensors().keys() == source.tensors().keys()


def test_any_prefix_of_the_pooling_is_understood(copy):
    weights = load_file(copy / "model.safetensors")
    renamed = {key.replace("mha_pma.", "pooler.pma."): tensor for key, tensor in weights.items()}
    save_file(renamed, copy / "model.safetensors")
    assert load_checkpoint(str(copy)).tensors().keys() == load_checkpoint(str(TIED)).tensors().keys()


def test_a_strange_tensor_is_named(copy):
    weights = load_file(copy / "model.safetensors")
    save_file({**weights, "classifier.weight": torch.zeros(2)}, copy / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"classifier\.weight"):
        load_checkpoint(str(copy)).tensors()


@pytest.mark.parametrize("name", ["classifier.{}", "plm_model.model.left.{}", "N" * 1_000_000 + ".{}"])
def test_a_file_of_countless_names_is_one_short_line(copy, name):
    weights = load_file(copy / "model.safetensors")
    more = {name.format(number): torch.zeros(1) for number in range(3 if len(name) > 100 else 3_000)}
    save_file({**weights, **more}, copy / "model.safetensors")
    with pytest.raises(CheckpointError) as raised:
        C2LLMEmbedder.from_pretrained(str(copy))
    assert len(str(raised.value)) < 5_000
    assert name[:20].removeprefix("plm_model.model.").partition(".")[0] in str(raised.value)


def test_pickles_and_code_are_never_touched(copy, tmp_path):
    trap = tmp_path / "trapped"

    class Bomb:
        def __reduce__(self):
            return trap.touch, ()

    (copy / "model.safetensors").unlink()
    (copy / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb()))
    (copy / "modeling_c2llm.py").write_text(f"open({str(trap)!r}, 'w')")
    with pytest.raises(CheckpointError, match=r"no model\.safetensors"):
        load_checkpoint(str(copy)).tensors()
    assert not trap.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "qwen2"}, "'qwen2' checkpoint, not 'c2llm'"),
        ({"embedding_method": "mean"}, "pools with 'mean'"),
        ({"pma_norm": True}, "pma_norm True"),
    ],
)
def test_other_checkpoints_are_refused_by_name(copy, change, message):
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(str(copy))


@pytest.mark.parametrize("content", ["{", "[]", "\x00", "[" + "[]," * 2**20 + "[]]"])
def test_broken_json_is_one_line(copy, content):
    (copy / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"config\.json") as caught:
        load_checkpoint(str(copy))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["config.json", "config_sentence_transformers.json", "tokenizer.json"])
def test_a_hole_of_gigabytes_is_refused_unread(copy, name):
    with open(copy / name, "wb") as file:
        file.truncate(2**34)
    with pytest.raises(CheckpointError, match=rf"^\S+{name} has 17,179,869,184 bytes, at most"):
        load_checkpoint(str(copy)).tokenizer()


def test_an_index_cannot_point_outside_its_folder(copy):
    (copy / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../secret.safetensors"}}')
    with pytest.raises(CheckpointError, match="outside its folder"):
        load_checkpoint(str(copy)).tensors()


@pytest.mark.parametrize("name", ["no such folder", "a/b/c", ""])
def test_a_name_that_is_nothing_says_what_would_be(name):
    with pytest.raises(InputError, match="codefuse-ai"):
        load_checkpoint(name) if name else load_checkpoint(" ")


def test_a_hub_id_is_read_from_the_local_cache(tmp_path, monkeypatch):
    """The real download path, offline, over a cache laid out as the hub's client lays it out."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    repo = tmp_path / "models--somebody--c2llm"
    shutil.copytree(TIED, repo / "snapshots" / commit)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    found = load_checkpoint("somebody/c2llm")
    assert found.folder.name == commit
    assert found.digest() == load_checkpoint(str(TIED)).digest()
    with pytest.raises(CheckpointError, match="somebody/absent"):
        load_checkpoint("somebody/absent")


def test_the_digest_follows_content_not_place(copy):
    before = load_checkpoint(str(copy)).digest()
    assert before == load_checkpoint(str(TIED)).digest()
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "pma_num_heads": 4}))
    assert load_checkpoint(str(copy)).digest() != before
    (copy / "config.json").write_text(json.dumps({**config, "auto_map": {}}))
    assert load_checkpoint(str(copy)).digest() == before
    weights = load_file(copy / "model.safetensors")
    weights["mha_pma.S"] = weights["mha_pma.S"] + 1
    save_file(weights, copy / "model.safetensors")
    assert load_checkpoint(str(copy)).digest() != before


def test_a_tokenizer_with_more_tokens_than_embeddings_is_refused(copy):
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "vocab_size": 100}))
    with pytest.raises(CheckpointError, match=r"token \d+, config\.json only 100 rows"):
        load_checkpoint(str(copy)).tokenizer()


def test_a_broken_tokenizer_is_one_line(copy):
    (copy / "tokenizer.json").write_text("")
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is not readable JSON"):
        load_checkpoint(str(copy)).tokenizer()
    (copy / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is not a tokenizer"):
        load_checkpoint(str(copy)).tokenizer()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
def test_a_template_that_repeats_a_token_of_thousands_is_never_filled_in(copy):
    file, many = copy / "tokenizer.json", 5_000
    template = {"type": "TemplateProcessing", "pair": [{"Sequence": {"id": "A", "type_id": 0}}]}
    template["single"] = template["pair"] + [{"SpecialToken": {"id": "s", "type_id": 0}}] * many
    template["special_tokens"] = {"s": {"id": "s", "ids": [1] * many, "tokens": ["a"] * many}}
    file.write_text(json.dumps({**json.loads(file.read_text()), "post_processor": template}))
    command = "import resource, sys; from c2llm_integrations.model.checkpoint import load_checkpoint as load; "
    command += "resource.setrlimit(resource.RLIMIT_DATA, (2**31,) * 2); "  # filled in, it takes 3.8 GB
    command += "print(len(load(sys.argv[1]).tokenizer().encode('x', add_special_tokens=False).ids))"
    done = subprocess.run([sys.executable, "-c", command, str(copy)], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("1\n", "")


@pytest.mark.parametrize("kind", ["added tokens", "pieces", "values"])
def test_a_tokenizer_that_takes_gigabytes_is_refused_before_it_is_loaded(copy, kind):
    file, long = copy / "tokenizer.json", "x" * 10_000
    said = json.loads(file.read_text())
    if kind == "added tokens":
        flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
        said["added_tokens"] = [{"id": n, "content": f"{n}{long}", **flags} for n in range(500)]
    elif kind == "pieces":
        said["model"] = {"type": "Unigram", "unk_id": 0, "vocab": [[f"{n}{long}", -1.0] for n in range(500)]}
    else:
        said["post_processor"] = {"type": "Sequence", "processors": [[]] * 2_200_000}
    file.write_text(json.dumps(said, separators=(",", ":")))
    message = "has millions of values" if kind == "values" else r"pieces and added tokens of 5,\d+,\d+ bytes, at most"
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(str(copy)).tokenizer()


NO_PATTERN = {"type": "Replace", "pattern": {"Regex": "(["}, "content": ""}  # at which the library panics
NO_UNKNOWN = {
    "type": "WordPiece",
    "unk_token": "[UNK]",
    "continuing_subword_prefix": "##",
    "max_input_chars_per_word": 100,
    "vocab": {"a": 0},
}


@pytest.mark.parametrize("changes", [{"normalizer": NO_PATTERN}, {"normalizer": None, "model": NO_UNKNOWN}])
def test_a_tokenizer_that_would_fail_later_is_refused(copy, changes):
    file = copy / "tokenizer.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "pre_tokenizer": None, "added_tokens": [], **changes}))
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is not a tokenizer"):
        load_checkpoint(str(copy)).tokenizer()


def test_padding_of_terabytes_is_never_made(copy):
    file = copy / "tokenizer.json"
    padding = {"strategy": {"Fixed": 10**12}, "direction": "Right", "pad_to_multiple_of": None}
    padding |= {"pad_id": 0, "pad_type_id": 0, "pad_token": "x"}
    file.write_text(json.dumps({**json.loads(file.read_text()), "padding": padding}))
    command = "import sys; from c2llm_integrations.model.checkpoint import load_checkpoint as load; "
    command += "print(len(load(sys.argv[1]).tokenizer().encode('x').ids))"
    # In a process of its own, which the library would abort.
    done = subprocess.run([sys.executable, "-c", command, str(copy)], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("1\n", "")


@pytest.mark.parametrize(
    "honest",
    [
        {"backbone_config": {"model_type": "qwen2_moe", "shared_expert_intermediate_size": 5632, "num_experts": 128}},
        {"backbone_config": {"vocab_size_per_layer_input": 262_144}},
        {"id2label": {"0": "a"}, "label2id": {"label_9": 9_000}, "num_labels": 10_000},
        {"rope_theta": 10**9, "rope_parameters": {"rope_theta": 10**9}, "max_position_embeddings": 10**7},
        {"seed": 3_735_928_559},
    ],
)
def test_numbers_that_models_have_are_read(copy, honest):
    file = copy / "config.json"
    config = json.loads(file.read_text())
    nested = {**config.get("backbone_config", {}), **honest.pop("backbone_config", {})}
    assert ModelConfig.read({**config, **honest, "backbone_config": nested or None}, file)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_hidden_layers": "two"}, "num_hidden_layers 'two'"),
        ({"max_position_embeddings": -5}, "max_position_embeddings -5"),
        ({"num_attention_heads": 0}, "num_attention_heads 0"),
        ({"num_attention_heads": 3}, "hidden_size by num_attention_heads: 64 by 3"),
        ({"pma_num_heads": 5}, "compressed_dim by pma_num_heads: 64 by 5"),
        ({"backbone_config": "qwen2"}, "backbone_config 'qwen2'"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers 1000000000, at most"),
        ({"backbone_config": {"model_type": "gpt2", "n_layer": 10**9}}, "n_layer 1000000000, at most"),
        ({"backbone_config": {"text_config": {"encoder_layers": 10**9}}}, "encoder_layers 1000000000, at most"),
        ({"backbone_config": {"model_type": "roberta", "num_labels": 10**8}}, "num_labels 100000000, at most"),
        ({"num_labels": 10**8}, "num_labels 100000000, at most"),
        ({"backbone_config": {"model_type": "qwen2_moe", "num_experts": 10**6}}, "num_experts 1000000, at most"),
        ({"backbone_config": {"attention_types": [[["global"], 10**9]]}}, "attention_types 1000000000, at most"),
        ({"backbone_config": {"max_position_embeddings": 10**9}}, "max_position_embeddings 1000000000, at most"),
        ({"rms_norm_eps": "small"}, "rms_norm_eps 'small'"),
        ({"hidden_act": {"name": "silu"}}, "hidden_act {'name': 'silu'}"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps nan"),
        ({"rope_theta": [10000.0]}, r"rope_theta \[10000.0\]"),
    ],
)
def test_impossible_sizes_are_named(copy, change, message):
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(str(copy))


def test_a_configuration_that_was_never_json_is_read(copy):
    """What transformers makes of one names its labels by numbers."""
    config = {**json.loads((copy / "config.json").read_text()), "id2label": {0: "LABEL_0"}}
    assert ModelConfig.read(config, copy / "config.json") == load_checkpoint(str(copy)).sizes


def test_a_padding_token_that_is_no_number_is_named(copy):
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "pad_token_id": "x"}))
    checkpoint = load_checkpoint(str(copy))
    with pytest.raises(CheckpointError, match="pads with token 'x'"):
        checkpoint.blank_token(checkpoint.tokenizer())


@pytest.mark.parametrize("content", [b"", b"short", pickle.dumps({"a": 1})])
def test_a_damaged_weight_file_is_named(copy, content):
    (copy / "model.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"model\.safetensors is not a valid safetensors file"):
        load_checkpoint(str(copy)).tensors()


def test_a_tensor_that_stands_twice_is_refused(copy):
    weights = load_file(copy / "model.safetensors")
    save_file({**weights, "other.S": weights["mha_pma.S"] + 1}, copy / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"are stored twice: (other|mha_pma)\.S"):
        load_checkpoint(str(copy)).tensors()


def test_quantized_weights_are_refused(copy):
    weights = load_file(copy / "model.safetensors")
    weights["mha_pma.mab.fc_o.weight"] = weights["mha_pma.mab.fc_o.weight"].to(torch.int8)
    save_file(weights, copy / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"fc_o\.weight as torch\.int8"):
        load_checkpoint(str(copy)).tensors()


@pytest.mark.parametrize("content", ['{"weight_map": []}', '{"weight_map": {"a": 3}}', "{}"])
def test_a_broken_index_is_named(copy, content):
    (copy / "model.safetensors.index.json").write_text(content)
    with pytest.raises(CheckpointError, match="no weight_map"):
        load_checkpoint(str(copy)).tensors()


def test_a_released_id_never_means_a_folder_here(tmp_path, monkeypatch):
    """The commands that this package advises are typed in checkouts of others."""
    name = "codefuse-ai/C2LLM-0.5B"
    shutil.copytree(NANO, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=f"could not fetch {name} from the hub"):
        load_checkpoint(name)
    assert lasting_name(name) == name
    assert load_checkpoint(f"./{name}").sizes.output_dim == 256
    assert lasting_name(f"./{name}") == str(tmp_path.resolve() / name)
