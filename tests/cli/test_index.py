"""`c2llm index`: a small checkpoint, a small project, real stores."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from c2llm_integrations.cli.main import run
from c2llm_integrations.model.embedder import C2LLMEmbedder
from c2llm_integrations.model.heads_and_projections import fit_projection
from c2llm_integrations.model.options import remember_model
from tests.cli.running import answer, command, complaint
from tests.repositories import git
from tests.waiting import until

pytestmark = pytest.mark.slow


def test_a_first_run_reports_and_says_what_to_do_next(project, tiny_model, monkeypatch, capsys):
    monkeypatch.chdir(project)
    assert run(["index", "--model", str(tiny_model)]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("shop-project: 4 files, ")
    assert "skipped 1 (secret): .env" in printed.out
    assert "codefuse-ai/C2LLM-0.5B" in printed.err
    assert "c2llm search" in printed.err
    assert (project / ".c2llm" / ".gitignore").read_text().strip() == "*"


def test_what_to_do_next_names_the_store_again(project, tiny_model, monkeypatch, capsys):
    monkeypatch.chdir(project)
    where = ["--store", "qdrant+edge://my rows", "--collection", "mine"]
    assert run(["index", "--model", str(tiny_model), *where]) == 0
    place = "--store 'qdrant+edge://my rows' --collection mine"
    assert f'now ask: c2llm search {place} "..."\n' in capsys.readouterr().err
    (project / "new.py").write_text("x = 1\n")
    assert run(["search", "tax", *where]) == 0
    assert capsys.readouterr().err.endswith(f"; run: c2llm index {place}\n")


def test_a_second_run_writes_nothing_and_keeps_the_model(indexed, capsys):
    report = json.loads(answer(capsys, "index", "--json"))
    assert (report["written"], report["tokens"], report["deleted"]) == (0, 0, 0)
    assert report["unchanged"] == report["chunks"] > 3
    assert report["refused"] == {}
    assert report["skipped"]["secret"] == [".env"]


def test_a_changed_file_and_a_deleted_one(indexed, capsys):
    (indexed / "web" / "retry.js").unlink()
    prices = indexed / "shop" / "prices.py"
    prices.write_text(prices.read_text().replace("whole cents", "full cents"))
    report = json.loads(answer(capsys, "index", "--json"))
    assert report["written"] == 1
    assert report["deleted"] == 2
    assert "retry" not in answer(capsys, "search", "retry delay")


def test_another_model_is_refused_until_the_collection_is_replaced(indexed, tiny_model, capsys):
    other = tiny_model.parent / "c2llm-tiny-compressed"
    assert "--collection" in complaint(capsys, 1, "index", "--model", other)
    out = answer(capsys, "index", "--model", other, "--replace")
    assert "unchanged 0" in out
    assert json.loads(answer(capsys, "status", "--json"))["model"] == str(other)


@pytest.mark.parametrize("option", [("--truncate-dim", 999), ("--output-dim", 3), ("--projection", "README.md")])
def test_a_mistaken_option_is_not_blamed_on_the_models_place(option, indexed, capsys):
    line = complaint(capsys, 1, "index", *option)
    assert line.startswith("c2llm: the collection's model cannot be loaded as asked: ")
    assert "names its new place" not in line


def test_a_bad_model_does_not_cost_the_collection(indexed, capsys):
    complaint(capsys, 1, "index", "--replace", "--model", "no-such-folder")
    assert json.loads(answer(capsys, "status", "--json"))["rows"] > 3


def test_a_relative_model_folder_works_from_another_folder(project, tiny_model, monkeypatch, capsys):
    monkeypatch.chdir(tiny_model.parent)
    answer(capsys, "index", project, "--model", tiny_model.name)
    monkeypatch.chdir(project / "shop")
    assert answer(capsys, "search", "tax")


def test_a_subfolder_is_indexed_into_the_root_of_its_git_repository(project, tiny_model, monkeypatch, capsys):
    (project / ".git").mkdir()
    (project / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
    monkeypatch.chdir(project / "shop")
    answer(capsys, "index", "--model", tiny_model)
    assert (project / ".c2llm").is_dir()
    lines = answer(capsys, "search", "tax").splitlines()
    assert lines
    assert all(line.startswith("prices.py:") for line in lines)


@pytest.mark.parametrize("mistake", [["--repository", " "], ["nosuch/sub"]])
def test_a_mistake_beside_replace_does_not_cost_the_collection(mistake, indexed, capsys):
    complaint(capsys, 1, "index", *mistake, "--replace")
    assert answer(capsys, "search", "tax")


def test_a_moved_repository_is_still_its_own(indexed, capsys, monkeypatch):
    moved = indexed.parent / "elsewhere" / indexed.name
    moved.parent.mkdir()
    monkeypatch.chdir(indexed.parent)
    indexed.rename(moved)
    monkeypatch.chdir(moved)
    report = json.loads(answer(capsys, "index", "--json"))
    assert (report["written"], report["deleted"]) == (0, 0)
    assert all(os.path.isfile(line.split(":")[0]) for line in answer(capsys, "search", "tax").splitlines())


def test_another_name_is_refused_and_the_old_one_kept(indexed, capsys, monkeypatch):
    assert "--repository shop-project" in complaint(capsys, 1, "index", "--repository", "other")
    renamed = indexed.with_name("renamed")
    monkeypatch.chdir(indexed.parent)
    indexed.rename(renamed)
    monkeypatch.chdir(renamed)
    assert "shop-project" in (said := answer(capsys, "index"))
    assert "written 0" in said
    assert "written" in answer(capsys, "index", "--replace", "--repository", "other")
    assert "other: " in answer(capsys, "index")


def test_a_moved_model_is_named_again(project, tiny_model, tmp_path, monkeypatch, capsys):
    here, there = tmp_path / "here", tmp_path / "there"
    shutil.copytree(tiny_model, here)
    monkeypatch.chdir(project)
    answer(capsys, "index", "--model", here)
    here.rename(there)
    assert "--model names its new place" in complaint(capsys, 1, "search", "tax")
    assert "prices.py" in answer(capsys, "search", "tax", "--model", there)


@pytest.mark.skipif(sys.platform == "win32", reason="an interrupt is sent differently there")
@pytest.mark.parametrize(("number", "what"), [(2, "interrupted"), (15, "ended by SIGTERM"), (1, "ended by SIGHUP")])
def test_an_interrupted_run_says_so_and_the_next_one_completes_it(
    number, what, project, tiny_model, monkeypatch, capsys
):
    body = "".join(f"def f{n}(a, b):\n    '''Add {n} to both.'''\n    return a + b + {n}\n\n\n" for n in range(100))
    for name in range(8):
        (project / f"many{name}.py").write_text(f"NAME = {name}\n\n\n{body}")
    process = subprocess.Popen(
        command("index", project, "--model", tiny_model),
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # tests under nohup hand on that it is ignored
    )
    while not (project / ".c2llm" / "code").exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(number)
    error = process.stderr.read().decode()
    assert process.wait() == 128 + number
    assert error == f"c2llm: {what}; run it again to go on where it stopped\n"
    monkeypatch.chdir(project)
    report = json.loads(answer(capsys, "index", "--model", tiny_model, "--json"))
    assert report["stored"] == report["chunks"] > 100


@pytest.mark.skipif(sys.platform == "win32", reason="an interrupt is sent differently there")
def test_a_run_that_is_terminated_leaves_no_temporary_folder(project, tmp_path, monkeypatch):
    git(project, "init")
    git(project, "add", "-A")
    programs, temporary = tmp_path / "programs", tmp_path / "temporary"
    programs.mkdir(), temporary.mkdir()
    (programs / "git").write_text(f"#!/bin/sh\n/bin/touch {tmp_path / 'asked'}\nexec /bin/sleep 60\n")
    (programs / "git").chmod(0o755)
    monkeypatch.setenv("PATH", str(programs))
    monkeypatch.setenv("TMPDIR", str(temporary))
    process = subprocess.Popen(command("index", project), stderr=subprocess.PIPE)
    until((tmp_path / "asked").exists)
    assert {folder.name[:6] for folder in temporary.iterdir()} == {"c2llm-"}
    for _ in range(2):  # as `timeout` does
        process.send_signal(signal.SIGTERM)
    assert process.communicate()[1].count(b"\n") == 1
    assert process.returncode == 143
    assert list(temporary.iterdir()) == []


# ---- smaller vectors


def status(capsys, *options):
    return json.loads(answer(capsys, "status", "--json", *options))


def test_options_are_given_once(project, tiny_model, monkeypatch, capsys):
    monkeypatch.chdir(project)
    options = ("--truncate-dim", 16, "--output-dim", 16, "--datatype", "float16", "--quantization", "binary")
    answer(capsys, "index", "--model", tiny_model, *options)
    made = status(capsys)
    assert (made["width"], made["datatype"], made["quantization"], made["bytes_per_vector"]) == (
        16,
        "float16",
        "binary",
        34,
    )
    again = json.loads(answer(capsys, "index", "--json"))
    assert (again["written"], again["unchanged"]) == (0, again["chunks"])
    assert json.loads(answer(capsys, "index", "--json", *options))["written"] == 0
    assert "prices.py" in answer(capsys, "search", "add tax")
    assert status(capsys) == made


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--quantization", "int8"), "quantization None"),
        (("--datatype", "float16"), "datatype 'float32'"),
        (("--long-text", "cut"), "long_text 'refuse'"),
        (("--truncate-dim", 8), "width 64"),
        (("--output-dim", 8), "asked for 8"),
        (("--quantization", "int3"), "quantization 'int3' is not known, only int8"),
        (("--datatype", "uint8"), "datatype 'uint8' is not known"),
        (("--rescore", 3), "rescore is 3.0 without a quantization"),
        (("--long-text", "maybe"), "long_text is 'maybe'"),
        (("--projection", "none.safetensors"), "none.safetensors cannot be read"),
    ],
)
def test_what_the_collection_is_not_is_named(option, message, indexed, capsys):
    line = complaint(capsys, 1, "index", *option)
    assert message in line
    assert json.loads(answer(capsys, "index", "--json"))["written"] == 0


def test_a_projection_is_named_once_on_each_machine(project, tiny_model, tmp_path, monkeypatch, capsys, cache):
    weights = str(C2LLMEmbedder.from_pretrained(str(tiny_model)).fingerprint["weights"])
    file, other = tmp_path / "p.safetensors", tmp_path / "q.safetensors"
    fit_projection(np.random.default_rng(0).standard_normal((50, 64)), 16, weights).save(file)
    fit_projection(np.random.default_rng(1).standard_normal((50, 64)), 16, weights).save(other)
    monkeypatch.chdir(project)
    answer(capsys, "index", "--model", tiny_model, "--projection", file, "--output-dim", 16)
    file.rename(moved := tmp_path / "moved.safetensors")
    assert json.loads(answer(capsys, "index", "--json"))["written"] == 0
    assert "prices.py" in answer(capsys, "search", "add tax")
    shutil.rmtree(cache)  # another machine
    assert "--model" in complaint(capsys, 1, "search", "add tax")  # an index that came along chooses no model
    assert "--projection FILE" in complaint(capsys, 1, "search", "add tax", "--model", tiny_model)
    remember_model(str(tiny_model))
    assert "--projection FILE" in complaint(capsys, 1, "index")
    assert "fingerprint.projection" in complaint(capsys, 1, "search", "add tax", "--projection", other)
    assert "prices.py" in answer(capsys, "search", "add tax", "--projection", moved)
    assert "prices.py" in answer(capsys, "search", "add tax")


def test_fewer_dimensions_without_saying_how_names_the_ways(project, tiny_model, capsys):
    line = complaint(capsys, 1, "index", project, "--model", tiny_model, "--output-dim", 16)
    assert "projection" in line
    assert "truncate" in line
    assert not (project / ".c2llm").exists()


# ---- costs and refusals


@pytest.mark.parametrize("replace", [(), ("--replace",)])
@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
def test_a_dry_run_refuses_what_the_store_cannot_keep(dry, replace, project, tiny_model, monkeypatch, capsys):
    monkeypatch.chdir(project)
    options = ("--model", tiny_model, "--store", "milvus+lite://rows.db", "--quantization", "product", *dry, *replace)
    assert "quantization 'product' is not supported here" in complaint(capsys, 1, "index", *options)


def test_a_dry_run_of_a_replacement_keeps_others_rows_in_mind(project, tiny_model, tmp_path, capsys):
    store = ("--store", f"qdrant+edge://{tmp_path / 'rows'}")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.py").write_text("x = 1\n")
    for folder in (project, tmp_path / "other"):
        answer(capsys, "index", folder, "--model", tiny_model, *store)
    said = complaint(capsys, 1, "index", project, "--replace", *store)
    assert complaint(capsys, 1, "index", project, "--replace", "--dry-run", *store) == said


def test_a_dry_run_says_what_it_would_cost_and_leaves_nothing_behind(project, tiny_model, capsys):
    out = answer(capsys, "index", project, "--dry-run", "--model", tiny_model)
    assert "would be written" in out
    assert " tokens, " in out
    assert "kB in the store" in out
    assert "minutes at" in out
    cost = json.loads(answer(capsys, "index", project, "--dry-run", "--model", tiny_model, "--json"))["estimate"]
    assert cost.keys() == {"tokens", "store_bytes", "tokens_per_second", "minutes"}
    assert not (project / ".c2llm").exists()


def test_a_store_that_would_be_gone_is_refused_before_anything_is_embedded(project, capsys):
    said = complaint(capsys, 1, "index", project, "--store", "qdrant+memory://")
    assert "gone when this command ends" in said


def test_refused_rows_are_filed_where_asked_and_fail_the_run(project, tiny_model, tmp_path, monkeypatch, capsys):
    long = "".join(f"x{number} = {number}\n" for number in range(200)) + "y = '" + "z" * 70_000 + "'\n"
    (project / "long.py").write_text(long)
    monkeypatch.setattr("c2llm_integrations.code.exclude.MAX_AVERAGE_LINE", 10_000)
    monkeypatch.setattr("c2llm_integrations.code.chunking.MAX_LINE_CHARS", 100_000)  # or the line would be cut in time
    monkeypatch.chdir(project)
    store = ("--store", f"milvus+lite://{tmp_path / 'rows.db'}", "--model", tiny_model)
    assert run(list(map(str, ("index", *store)))) == 1
    assert "c2llm-refused.jsonl has each with its reason" in capsys.readouterr().err
    (line,) = Path("c2llm-refused.jsonl").read_text().splitlines()
    assert json.loads(line)["path"] == "long.py"
    assert "c2llm-refused" not in answer(capsys, "search", "long.py", "--store", store[1])
    assert "shortened 1 texts" in answer(
        capsys, "index", *store, "--collection", "short", "--long-text", "cut", "--refused", tmp_path / "none.jsonl"
    )
    assert not (tmp_path / "none.jsonl").exists()


@pytest.mark.parametrize("store", ["milvus+lite://code.db", "qdrant+edge://rows"])
@pytest.mark.parametrize("by_git", [False, True])
def test_a_store_inside_the_tree_is_no_part_of_it(store, by_git, project, tiny_model, monkeypatch, capsys):
    monkeypatch.chdir(project)
    if by_git:
        git(project, "init")
    options = ("--store", store, "--json")
    made = json.loads(answer(capsys, "index", "--model", tiny_model, *options))
    again = json.loads(answer(capsys, "index", *options))
    assert (again["written"], again["chunks"], again["skipped"]) == (0, made["chunks"], made["skipped"])
    assert json.loads(answer(capsys, "search", "tax", *options))["notes"] == []


def test_a_replacement_serves_only_when_it_is_complete(indexed, tiny_model, capsys):
    before = answer(capsys, "search", "tax")
    other = tiny_model.parent / "c2llm-tiny-compressed"
    closed = indexed / "closed"
    closed.mkdir()
    closed.chmod(0)
    try:
        assert run(["index", "--model", str(other), "--replace"]) == (1 if os.geteuid() else 0)
    finally:
        closed.chmod(0o700)
    if os.geteuid():
        assert answer(capsys, "search", "tax") == before
    out = answer(capsys, "index", "--model", other, "--replace")
    assert "taken the old one's place" in out
    assert status(capsys)["model"] == str(other)
