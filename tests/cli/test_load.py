"""`c2llm load`: a file of records into a store, from the command line."""

import json

from c2llm_integrations.cli.main import run
from tests.cli.running import answer, complaint


def test_a_file_is_loaded_planned_and_kept_current(tmp_path, tiny_model, capsys):
    file = tmp_path / "answers.jsonl"
    rows = [{"key": "a", "body": "add two numbers", "votes": 1}, {"key": "b", "body": "close a pool", "votes": 2}]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    store = f"qdrant+edge://{tmp_path / 'store'}"
    common = (file, "--source", "answers", "--text", "body", "--id", "key", "--store", store, "--model", tiny_model)
    assert "would be written 2" in answer(capsys, "load", *common, "--dry-run")
    assert "written 2, unchanged 0, updated 0" in answer(capsys, "load", *common, "--field", "votes=integer")
    file.write_text(json.dumps({**rows[0], "votes": 5}) + "\n")
    report = json.loads(answer(capsys, "load", *common, "--delete-missing", "--json"))
    assert (report["written"], report["updated"], report["deleted"], report["stored"]) == (0, 1, 1, 1)


def test_another_kind_of_field_is_refused_until_the_collection_is_replaced(tmp_path, tiny_model, capsys):
    file = tmp_path / "answers.jsonl"
    file.write_text('{"id": "a", "text": "x", "votes": 1}\n')
    common = (file, "--source", "s", "--store", f"qdrant+edge://{tmp_path / 'store'}", "--model", tiny_model)
    answer(capsys, "load", *common, "--field", "votes=integer")
    file.write_text('{"id": "a", "text": "x", "votes": "many"}\n')
    as_words = (*common, "--field", "votes=keyword")
    assert "indexes as integer the field 'votes', asked for keyword" in complaint(capsys, 1, "load", *as_words)
    assert "would be written 1" in answer(capsys, "load", *as_words, "--replace", "--dry-run")
    assert "has taken the old one's place" in answer(capsys, "load", *as_words, "--replace")
    assert "written 0, unchanged 1" in answer(capsys, "load", *as_words)


def test_a_bad_record_fails_the_run_and_is_kept_in_a_file(tmp_path, tiny_model, capsys):
    file, refused = tmp_path / "answers.jsonl", tmp_path / "refused.jsonl"
    file.write_text('{"id": "a", "text": "x"}\nnonsense\n')
    store = f"qdrant+edge://{tmp_path / 'store'}"
    arguments = ["load", file, "--source", "s", "--store", store, "--model", tiny_model, "--refused", refused]
    assert run(list(map(str, arguments))) == 1
    assert "line 2" in json.loads(refused.read_text())["id"]
    file.write_text("nonsense\n")
    assert run(list(map(str, arguments))) == 1
    assert f"nothing is stored of 1 records: each was refused, such as s: {file}: line 1" in capsys.readouterr().out


def test_a_wrong_command_line_is_one_line(tmp_path, capsys):
    file = tmp_path / "a.jsonl"
    assert "NAME=KIND" in complaint(capsys, 2, "load", file, "--source", "s", "--field", "votes")
    assert "--source" in complaint(capsys, 2, "load", file)
