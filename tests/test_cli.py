"""The command line, run for real: a small checkpoint, a small project, the embedded store."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from c2llm_integrations.cli import run
from c2llm_integrations.compression import fit_projection
from c2llm_integrations.embedder import C2LLMEmbedder
from c2llm_integrations.ingest import ingest
from c2llm_integrations.stores import open_store

PLACE = re.compile(r"^[^\t:]+:\d+-\d+\t-?\d\.\d{4}\t[^\t]*$")


def command(*arguments):
    """Return the argument list that runs `c2llm` in a process of its own."""
    return [sys.executable, "-m", "c2llm_integrations", *map(str, arguments)]


@pytest.fixture
def indexed(project, tiny_model, monkeypatch, capsys):
    """The project, indexed with the tiny model, as the current folder."""
    monkeypatch.chdir(project)
    assert run(["index", "--model", str(tiny_model)]) == 0
    capsys.readouterr()
    return project


def answer(capsys, *arguments):
    """Run a command that must succeed and return what it printed."""
    assert run(list(map(str, arguments))) == 0
    return capsys.readouterr().out


def complaint(capsys, code, *arguments):
    """Run a command that must fail with `code` and return its one line."""
    assert run(list(map(str, arguments))) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert len(printed.err.splitlines()) == 1
    assert "Traceback" not in printed.err
    return printed.err


# ---- index


@pytest.mark.parametrize(("way", "code"), [("truncate", 0), ("projection", 1)])
def test_a_collection_of_fewer_dimensions_is_searched_as_it_was_made(way, code, project, tiny_model, tmp_path, capsys):
    whole = C2LLMEmbedder.from_pretrained(str(tiny_model))
    file = tmp_path / "p.safetensors"
    fit_projection(np.random.default_rng(0).standard_normal((50, 64)), 16, str(whole.fingerprint["weights"])).save(file)
    options = {"truncate": 16} if way == "truncate" else {"projection": file}
    store = f"qdrant+edge://{tmp_path / 'store'}"
    with open_store(store) as opened:
        ingest(project, C2LLMEmbedder.from_pretrained(str(tiny_model), max_length=100, **options), opened)
    if code == 0:
        assert "prices.py" in answer(capsys, "search", "add tax", "--store", store)
    else:
        assert "projection=FILE" in complaint(capsys, 1, "search", "add tax", "--store", store)


def test_a_first_run_reports_and_says_what_to_do_next(project, tiny_model, monkeypatch, capsys):
    monkeypatch.chdir(project)
    assert run(["index", "--model", str(tiny_model)]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("shop-project: 4 files, ")
    assert "skipped 1 (secret): .env" in printed.out
    assert "codefuse-ai/C2LLM-0.5B" in printed.err
    assert "c2llm search" in printed.err
    assert (project / ".c2llm" / ".gitignore").read_text().strip() == "*"


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


def test_a_dry_run_needs_no_model_and_leaves_nothing_behind(project, capsys):
    out = answer(capsys, "index", project, "--dry-run", "--model", "no/such-model")
    assert "would be written" in out
    assert not (project / ".c2llm").exists()


def test_another_model_is_refused_until_the_collection_is_replaced(indexed, tiny_model, capsys):
    other = tiny_model.parent / "c2llm-tiny-compressed"
    assert "--collection" in complaint(capsys, 1, "index", "--model", other)
    out = answer(capsys, "index", "--model", other, "--replace")
    assert "unchanged 0" in out
    assert json.loads(answer(capsys, "status", "--json"))["model"] == str(other)


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


def test_a_changed_name_is_not_indexed_beside_the_old_one(indexed, capsys, monkeypatch):
    assert "--repository shop-project" in complaint(capsys, 1, "index", "--repository", "other")
    renamed = indexed.with_name("renamed")
    monkeypatch.chdir(indexed.parent)
    indexed.rename(renamed)
    monkeypatch.chdir(renamed)
    assert "--replace" in complaint(capsys, 1, "index")
    assert "unchanged" in answer(capsys, "index", "--repository", "shop-project")
    assert "written" in answer(capsys, "index", "--replace")


def test_a_moved_model_is_named_again(project, tiny_model, tmp_path, monkeypatch, capsys):
    here, there = tmp_path / "here", tmp_path / "there"
    shutil.copytree(tiny_model, here)
    monkeypatch.chdir(project)
    answer(capsys, "index", "--model", here)
    here.rename(there)
    assert "--model names its new place" in complaint(capsys, 1, "search", "tax")
    assert "prices.py" in answer(capsys, "search", "tax", "--model", there)


def test_searches_at_the_same_time_wait_for_each_other(indexed):
    runs = [subprocess.Popen(command("search", "tax"), stdout=subprocess.PIPE, text=True) for _ in range(3)]
    printed = [run.communicate(timeout=120)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0, 0]
    assert printed[0] == printed[1] == printed[2] != ""


# ---- search


def test_a_pipe_gets_one_line_for_each_hit_named_from_the_current_folder(indexed, monkeypatch, capsys):
    monkeypatch.chdir(indexed / "web")
    lines = answer(capsys, "search", "how", "is", "the", "tax", "added?").splitlines()
    assert lines
    assert all(PLACE.match(line) for line in lines)
    files = {line.split(":")[0] for line in lines}
    assert {"retry.js", "../shop/prices.py"} <= files
    assert all(os.path.isfile(file) for file in files)


def test_filters_and_limit(indexed, capsys):
    assert len(answer(capsys, "search", "tax", "--limit", "2").splitlines()) == 2
    for part, options in ((".js:", ["--language", "javascript"]), ("shop/", ["--path", "shop/**"])):
        lines = answer(capsys, "search", "tax", *options).splitlines()
        assert lines
        assert all(part in line for line in lines)


def test_filters_that_leave_nothing_print_nothing(indexed, capsys):
    assert run(["search", "tax", "--path", "*.rs"]) == 0
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "no answer" in printed.err


def test_json_has_both_paths_and_the_text(indexed, tiny_model, monkeypatch, capsys):
    monkeypatch.chdir(indexed / "shop")
    found = json.loads(answer(capsys, "search", "sum", "of", "items", "--json", "--language", "python"))
    assert found["query"] == "sum of items"
    assert found["model"] == str(tiny_model)
    for rank, hit in enumerate(found["hits"], 1):
        assert hit["rank"] == rank
        assert hit["repository"] == "shop-project"
        lines = (indexed / hit["path"]).read_text().splitlines(keepends=True)
        assert hit["text"] == "".join(lines[hit["start_line"] - 1 : hit["end_line"]])
        assert os.path.samefile(hit["file"], indexed / hit["path"])


def test_another_store_is_searched_by_its_url(project, tiny_model, tmp_path, monkeypatch, capsys):
    url = f"qdrant+edge://{tmp_path / 'rows'}"
    answer(capsys, "index", project, "--model", tiny_model, "--store", url, "--collection", "mine")
    assert not (project / ".c2llm").exists()
    monkeypatch.chdir(tmp_path)
    out = answer(capsys, "search", "tax", "--store", url, "--collection", "mine", "--path", "*.js")
    assert out.startswith("web/retry.js:")


@pytest.mark.skipif(sys.platform == "win32", reason="a pseudo-terminal needs POSIX")
def test_a_terminal_gets_code_in_colour_and_no_escapes_from_files(indexed, tiny_model, capsys):
    import pty

    (indexed / "evil.py").write_text("def steal():\n    return '\x1b]0;owned\x07 \u202e'\n")
    answer(capsys, "index")
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100"}
    environment.pop("NO_COLOR", None)
    arguments = command("search", "steal", "--path", "evil.py")
    done = subprocess.run(arguments, stdout=theirs, stderr=subprocess.PIPE, env=environment)
    shown = os.read(ours, 100_000).decode()
    os.close(theirs)
    os.close(ours)
    assert (done.returncode, done.stderr) == (0, b"")
    assert "evil.py:1-2" in shown
    assert "\x1b[" in shown
    assert "\x1b]0;" not in shown
    assert "\x07" not in shown
    assert "\u202e" not in shown


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no broken pipes")
def test_a_reader_that_goes_away_is_no_error(indexed):
    process = subprocess.Popen(command("search", "tax"), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 0


# ---- status and everything that goes wrong


def test_status_says_what_is_held_without_loading_torch(indexed, tiny_model):
    code = (
        "import sys; from c2llm_integrations.cli import run; c = run(['status']); sys.exit(c or 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert str(tiny_model) in done.stdout
    assert f"shop-project: {done.stdout.split('rows')[1].split()[0]} rows from {indexed}" in done.stdout


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


@pytest.mark.skipif(sys.platform == "win32", reason="an interrupt is sent differently there")
def test_an_interrupted_run_says_so_and_the_next_one_completes_it(project, tiny_model, monkeypatch, capsys):
    body = "".join(f"def f{n}(a, b):\n    '''Add {n} to both.'''\n    return a + b + {n}\n\n\n" for n in range(100))
    for name in range(8):
        (project / f"many{name}.py").write_text(f"NAME = {name}\n\n\n{body}")
    process = subprocess.Popen(command("index", project, "--model", tiny_model), stderr=subprocess.PIPE)
    while not (project / ".c2llm" / "code").exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    error = process.stderr.read().decode()
    assert process.wait() == 130
    assert error == "c2llm: interrupted; run it again to go on where it stopped\n"
    monkeypatch.chdir(project)
    report = json.loads(answer(capsys, "index", "--model", tiny_model, "--json"))
    assert report["stored"] == report["chunks"] > 100
