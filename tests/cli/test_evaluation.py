"""`c2llm eval`."""

import json

import pytest

from c2llm_integrations.training import evaluation
from tests.cli.running import answer, complaint

ROW = {"query": "class Cart", "positive": "class Cart"}


def test_scores_are_printed_and_written(tmp_path, tiny_model, project, capsys):
    pairs, questions = tmp_path / "own.jsonl", tmp_path / "asked.jsonl"
    pairs.write_text(json.dumps(ROW))
    questions.write_text(json.dumps({"repo": project.name, "query": "tax", "relevant": ["shop/prices.py"]}))
    printed = answer(capsys, "eval", pairs, "--model", tiny_model, "--out", tmp_path / "r")
    assert printed == "own\tndcg_at_10 1.0000\tmrr 1.0000\trecall_at_1 1.0000\trecall_at_10 1.0000\n"
    [file] = (tmp_path / "r").rglob("*.json")
    assert file.parent.parent.name == tiny_model.name
    assert json.loads(file.read_text())["task_name"] == "own"
    asked = ("--repositories", project.parent)
    printed = answer(capsys, "eval", questions, *asked, "--model", tiny_model, "--out", tmp_path / "r")
    assert printed.startswith(f"{project.name}\tndcg_at_10 ")


@pytest.mark.parametrize(
    ("arguments", "message"), [(("absent",), "no task 'absent'"), (("empty.jsonl",), "empty.jsonl holds no pair")]
)
def test_what_cannot_be_measured_is_one_line(arguments, message, tmp_path, tiny_model, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.jsonl").write_text("")
    assert message in complaint(capsys, 1, "eval", *arguments, "--model", tiny_model)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("absent",), "no task 'absent'"), (("--out", "own.jsonl"), "own.jsonl is not a folder; name another")],
)
def test_a_mistake_is_found_before_anything_is_measured(arguments, message, tmp_path, tiny_model, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.jsonl").write_text(json.dumps(ROW))
    measured = []
    monkeypatch.setattr(evaluation, "run_local", lambda *task: measured.append(task))
    complained = complaint(capsys, 1, "eval", "own.jsonl", *arguments, "--model", tiny_model)
    assert message in complained
    assert measured == []
