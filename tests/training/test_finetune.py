"""`c2llm train`, at the scale of a golden checkpoint."""

import json
import shutil
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

pytest.importorskip("accelerate")
pytest.importorskip("datasets")
pytest.importorskip("peft")

from c2llm_integrations.errors import InputError, StoreBusy
from c2llm_integrations.model.checkpoint import load_checkpoint
from c2llm_integrations.model.embedder import C2LLMEmbedder
from c2llm_integrations.training import finetune, pair_files
from c2llm_integrations.training.finetune import WEIGHTS, checkpoints, grouped, train
from c2llm_integrations.training.options import FinetuneOptions
from c2llm_integrations.training.pair_files import Example
from tests.golden import TIED

EXAMPLES = [Example(f"question {n}", f"def answer_{n}(): return {n}", (f"wrong {n}",)) for n in range(24)]
FAST = FinetuneOptions(epochs=2, batch=6, lr=1e-3, max_length=16, save_every=3)


def weights(folder):
    return load_checkpoint(str(folder)).tensors()


@pytest.mark.parametrize("lora", [True, False])
def test_training_finds_more_and_writes_a_whole_checkpoint(lora, tmp_path):
    losses = train(str(TIED), EXAMPLES, tmp_path / "out", FinetuneOptions(**{**vars(FAST), "epochs": 6, "lora": lora}))
    assert sum(losses[-4:]) < sum(losses[:4])
    before, after = weights(TIED), weights(tmp_path / "out")
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert "pma.S" in changed
    assert ("backbone.embed_tokens.weight" in changed) is not lora
    assert any("self_attn.q_proj.weight" in name for name in changed)
    assert C2LLMEmbedder.from_pretrained(str(tmp_path / "out")).encode(["x"]).shape == (1, 64)
    about = json.loads((tmp_path / "out" / "training.json").read_text())
    assert len(about["history"]) == len(losses) == 24
    assert ET.parse(tmp_path / "out" / "training.svg").getroot().tag.endswith("svg")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_killed_run_goes_on_to_the_same_result(tmp_path, monkeypatch):
    train(str(TIED), EXAMPLES, tmp_path / "whole", FAST)
    step = finetune._Trainer.training_step

    def killed(self, *args, **kwargs):
        if self.state.global_step == 5:
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(finetune._Trainer, "training_step", killed)
        with pytest.raises(KeyboardInterrupt):
            train(str(TIED), EXAMPLES, tmp_path / "cut", FAST)
    work = tmp_path / "cut.training"
    assert not (tmp_path / "cut").exists()
    assert checkpoints(work) == [str(work / "checkpoint-3")]
    shutil.copytree(work / "checkpoint-3", work / "checkpoint-4")  # a checkpoint whose writing was cut short
    (work / "checkpoint-4" / "trainer_state.json").write_text("{")
    train(str(TIED), EXAMPLES, tmp_path / "cut", FAST)
    whole, cut = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    for name, tensor in whole.items():
        torch.testing.assert_close(cut[name], tensor, atol=0, rtol=0)
    histories = [json.loads((tmp_path / name / "training.json").read_text())["history"] for name in ("whole", "cut")]
    assert [row["loss"] for row in histories[0]] == [row["loss"] for row in histories[1]]


def test_a_run_that_ends_while_its_result_is_written_leaves_none_and_writes_it_when_repeated(tmp_path, monkeypatch):
    def interrupt(source, tensors, folder):
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(finetune, "save_checkpoint", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train(str(TIED), EXAMPLES, tmp_path / "out", FAST)
    assert not (tmp_path / "out").exists()
    assert len(train(str(TIED), EXAMPLES, tmp_path / "out", FAST)) == 8
    assert weights(tmp_path / "out").keys() == weights(TIED).keys()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_last_checkpoints_are_merged_the_later_with_more_weight(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.rmtree", lambda folder, **_: None)  # keeps the checkpoints
    train(str(TIED), EXAMPLES, tmp_path / "out", replace(FAST, lora=False, averaged=2))  # of 3, 6 and 8 steps
    folders = checkpoints(tmp_path / "out.training")[-2:]
    assert [Path(folder).name for folder in folders] == ["checkpoint-6", "checkpoint-8"]
    last = [load_file(Path(folder) / WEIGHTS) for folder in folders]
    merged = weights(tmp_path / "out")["pma.S"]
    torch.testing.assert_close(merged, ((last[0]["1.pma.S"] + 2 * last[1]["1.pma.S"]) / 3).to(merged.dtype))
    assert not torch.equal(last[0]["1.pma.S"], last[1]["1.pma.S"])


def test_the_base_finds_hard_negatives_once(tmp_path, monkeypatch):
    seen = []
    inner = finetune.grouped
    monkeypatch.setattr(finetune, "grouped", lambda *args: seen.append(inner(*args)) or seen[-1])
    monkeypatch.setattr("shutil.rmtree", lambda folder, **_: None)
    monkeypatch.setattr(pair_files, "MARGIN", -100)  # weights by chance rank the positives anywhere
    train(str(TIED), EXAMPLES, tmp_path / "out", replace(FAST, epochs=1, mined=2))
    before, after = seen
    assert [group.column_names for group in before.values()] == [["query", "positive", "negative_1"]]
    positives = {example.query: example.positive for example in EXAMPLES}
    mined = [
        (row["query"], row[column])
        for group in after.values()
        for row in group
        for column in group.column_names
        if column not in ("query", "positive", "negative_1")
    ]
    assert mined
    assert all(negative in positives.values() and negative != positives[query] for query, negative in mined)
    monkeypatch.setattr("sentence_transformers.util.mine_hard_negatives", None)  # would fail if it were asked
    kept = tmp_path / "out.training" / "negatives.json"
    again = pair_files.with_mined(None, EXAMPLES, 2, kept)
    assert sum(len(example.negatives) for example in again) == len(EXAMPLES) + len(mined)
    assert all(example.negatives[0].startswith("wrong") for example in again)


def test_cached_gradients_are_those_of_the_whole_batch(tmp_path):
    settings = {**vars(FAST), "epochs": 1, "lora": False}
    losses = [
        train(str(TIED), EXAMPLES, tmp_path / str(part), FinetuneOptions(**{**settings, "part": part}))
        for part in (None, 2)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_only_pairs_of_one_kind_share_a_batch():
    mixed = [Example("a", "b", (), "d", "go"), Example("c", "d", (), "d", "go"), Example("e", "f", (), "d", "c")]
    mixed += [Example("g", "h", ("i", "j"), "d", "go"), Example("k", "l", ("m", "n"), "d", "go")]
    groups = grouped(mixed, FinetuneOptions(negatives=1))
    assert {name: (len(group), group.column_names) for name, group in groups.items()} == {
        "d go 0": (2, ["query", "positive"]),
        "d go 1": (2, ["query", "positive", "negative_1"]),
    }
    with pytest.raises(InputError, match="1 pairs fill no batch"):
        grouped(mixed[:1], FinetuneOptions())


def test_what_stands_there_is_left_and_named(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "model.safetensors").write_text("good")
    with pytest.raises(InputError, match="out exists and is not empty"):
        train(str(TIED), EXAMPLES, tmp_path / "out", FAST)
    with pytest.raises(InputError, match=r"model\.safetensors is not a folder; name another"):
        train(str(TIED), EXAMPLES, tmp_path / "out" / "model.safetensors", FAST)
    (tmp_path / "new.training").mkdir()
    (tmp_path / "new.training" / "run.json").write_text("{}")
    (tmp_path / "new.training" / "checkpoint-3").mkdir()
    with pytest.raises(InputError, match="run of other pairs or options"):
        train(str(TIED), EXAMPLES, tmp_path / "new", FAST)
    assert (tmp_path / "out" / "model.safetensors").read_text() == "good"


def test_a_loss_that_is_no_number_ends_the_run_without_a_checkpoint(tmp_path):
    with pytest.raises(InputError, match=r"the loss is nan at step \d+; lower the learning rate"):
        train(str(TIED), EXAMPLES, tmp_path / "out", FinetuneOptions(**{**vars(FAST), "lr": 1e30, "lora": False}))
    assert not (tmp_path / "out").exists()
    assert len(train(str(TIED), EXAMPLES, tmp_path / "out", FAST)) == 8  # nothing was kept that it would undo


def test_no_epochs_are_refused_before_anything_is_written(tmp_path):
    with pytest.raises(InputError, match="0 epochs train nothing; choose more"):
        train(str(TIED), EXAMPLES, tmp_path / "out", replace(FAST, epochs=0))
    assert not list(tmp_path.iterdir())


def test_two_runs_never_train_into_one_folder_at_once(tmp_path, monkeypatch):
    out, step = tmp_path / "out", finetune._Trainer.training_step
    told = []

    def twice(*args):
        if not told:
            with pytest.raises(StoreBusy, match=r"out.training is open .*; let that training end") as caught:
                train(str(TIED), EXAMPLES, out, FAST)
            told.append(caught.value)
        return step(*args)

    monkeypatch.setattr(finetune._Trainer, "training_step", twice)
    assert len(train(str(TIED), EXAMPLES, out, FAST)) == 8
    assert len(told) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
