"""What every command has in common: one line for each failure, exit codes, help, and no heavy import."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from c2llm_integrations.cli.main import run
from tests.cli.running import answer, command, complaint

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    "arguments",
    [["serach", "x"], ["search"], ["search", " "], ["search", "x", "--limit", "0"], ["index", "--nonsense"]],
)
def test_a_wrong_command_line_is_one_line_and_code_2(arguments, capsys):
    assert "--help" in complaint(capsys, 2, *arguments)


def test_nothing_indexed_says_what_to_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert "c2llm index" in complaint(capsys, 1, "search", "x")
    assert "c2llm index" in complaint(capsys, 1, "status")
    assert "c2llm index" in complaint(capsys, 1, "status", "--store", f"qdrant+edge://{tmp_path / 'none'}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [["no/such/folder"], [".", "--model", "./none"], [".", "--store", "nonsense://"]])
def test_what_cannot_be_used_is_one_line_and_code_1(arguments, project, monkeypatch, capsys):
    monkeypatch.chdir(project)
    complaint(capsys, 1, "index", *arguments)


@pytest.mark.skipif(sys.platform == "win32", reason="closing a stream needs a POSIX shell")
def test_an_answer_that_nobody_wants_is_no_error(project, tiny_model, monkeypatch, capsys):
    monkeypatch.chdir(project)
    answer(capsys, "index", "--model", tiny_model)
    for arguments in (("status",), ("search", "tax"), ("status", "--json")):
        line = " ".join(shlex.quote(part) for part in command(*arguments))
        done = subprocess.run(["sh", "-c", f"{line} >&-"], capture_output=True)
        assert (done.returncode, done.stderr) == (0, b"")


def test_a_current_folder_that_was_deleted_is_told_as_that(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "gone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    assert run(["status"]) == 1
    assert capsys.readouterr().err == "c2llm: the current folder is there no more; go to another one\n"


def test_debug_shows_the_traceback(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("C2LLM_DEBUG", "1")
    assert run(["status"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_help_version_and_a_bare_call(capsys):
    assert "codefuse-ai/C2LLM-7B" in answer(capsys, "--help")
    assert "--dry-run" in answer(capsys, "index", "--help")
    assert re.fullmatch(r"c2llm-integrations \d+\.\d+\S*\n", answer(capsys, "--version"))
    assert run([]) == 2
    assert "index" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["json", "typing", "importlib", "typer", "os", "enum", "numpy", "torch", "site"])
def test_run_as_a_module_it_takes_no_module_from_the_current_folder(name, tmp_path):
    (tmp_path / f"{name}.py").write_text("open('ran', 'w').close()\n")
    (tmp_path / "a.py").write_text("x = 1\n")
    command = [
        sys.executable,
        "-m",
        "c2llm_integrations",
        *(["--version"] if name != "json" else ["index", "--dry-run"]),
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "ran").exists()


def test_what_the_documentation_says_to_type_runs_no_namesake_of_the_package(tmp_path):
    (tmp_path / "c2llm_integrations.py").write_text("open('ran', 'w').close()\n")
    for begin in ([sys.executable, "-I", "-m", "c2llm_integrations"], [Path(sys.executable).with_name("c2llm")]):
        done = subprocess.run([*begin, "--version"], cwd=tmp_path, capture_output=True, text=True)
        assert done.stdout.startswith("c2llm-integrations "), done.stderr
    assert not (tmp_path / "ran").exists()


def test_no_module_of_the_current_folder_is_imported(tmp_path):
    for name in ("json", "typing", "re", "os", "typer", "numpy", "__future__"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('a module of the repository was run')\n")
    for arguments in (["--version"], ["index", "--dry-run"], ["status"]):
        done = subprocess.run(command(*arguments), cwd=tmp_path, capture_output=True, text=True, check=False)
        assert "was run" not in done.stderr + done.stdout
        assert done.returncode == (arguments == ["status"])
