"""`c2llm search`: what a person, a pipe and a program get."""

import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest

from c2llm_integrations import ingest_records
from c2llm_integrations.cli.main import run
from c2llm_integrations.retrieval.search import DENSE_NOTE, GIVEN_NOTE, UNREADABLE_NOTE
from c2llm_integrations.stores import open_store
from tests.cli.running import answer, command, complaint
from tests.repositories import git

pytestmark = pytest.mark.slow

PLACE = re.compile(r"^[^\t:]+:\d+-\d+\t-?\d\.\d{4}\t[^\t]*$")


def test_searches_at_the_same_time_wait_for_each_other(indexed):
    runs = [subprocess.Popen(command("search", "tax"), stdout=subprocess.PIPE, text=True) for _ in range(3)]
    printed = [run.communicate(timeout=120)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0, 0]
    assert printed[0] == printed[1] == printed[2] != ""


def test_a_pipe_gets_one_line_for_each_hit_named_from_the_current_folder(indexed, monkeypatch, capsys):
    monkeypatch.chdir(indexed / "web")
    lines = answer(capsys, "search", "how", "is", "the", "tax", "added?").splitlines()
    assert lines
    assert all(PLACE.match(line) for line in lines)
    files = {line.split(":")[0] for line in lines}
    assert {"retry.js", "../shop/prices.py"} <= files
    assert all(os.path.isfile(file) for file in files)


def test_a_question_that_the_model_cannot_read_is_answered_by_words_with_a_note(project, monkeypatch, capsys):
    monkeypatch.chdir(project)
    (project / "fee.py").write_text("# 计算订单的运费\ndef fee():\n    return 1\n", encoding="utf-8")
    answer(capsys, "index")
    assert run(["search", "订单运费"]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("fee.py:1-3")
    assert UNREADABLE_NOTE in printed.err
    assert run(["search", "--dense", "订单运费"]) == 0
    assert DENSE_NOTE in capsys.readouterr().err
    assert run(["search", "retry delay"]) == 0
    assert UNREADABLE_NOTE not in capsys.readouterr().err


def test_given_vectors_are_compared_with_a_note(tmp_path, capsys):
    url = f"qdrant+edge://{tmp_path / 'store'}"
    with open_store(url, "records") as store:
        ingest_records([{"id": "a", "text": "retry"}], None, store, source="s", vectors=np.ones((1, 256), np.float32))
    for more, noted in (((), True), (("--lexical",), False)):
        assert run(["search", "retry", "--store", url, "--collection", "records", "--model", "nano", *more]) == 0
        assert (GIVEN_NOTE in capsys.readouterr().err) == noted
    assert "name that model with --model" in complaint(
        capsys, 1, "search", "x", "--store", url, "--collection", "records"
    )


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


def test_a_pattern_that_no_path_has_says_what_its_signs_mean(indexed, capsys):
    capsys.readouterr()
    for pattern, said in (
        ("app/[slug]/**", r"write '\[ab\]' for a folder"),
        ("lib/**", "starts at the repository's root"),
    ):
        assert run(["search", "tax", "--path", pattern]) == 0
        assert said in capsys.readouterr().err


def test_an_index_without_rows_says_so(tmp_path, tiny_model, monkeypatch, capsys):
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    answer(capsys, "index", "--model", tiny_model)
    assert run(["search", "tax"]) == 0
    assert capsys.readouterr().err == "no answer: the collection holds no row\n"


def test_words_in_no_row_are_not_blamed_on_filters(indexed, capsys):
    capsys.readouterr()
    assert run(["search", "--lexical", "zzyzx"]) == 0
    assert capsys.readouterr().err == "no answer: no row has these words\n"
    assert run(["search", "--lexical", "zzyzx", "--language", "python"]) == 0
    assert capsys.readouterr().err == "no answer: no row has these words and fits these filters\n"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no arguments of bytes")
def test_a_question_in_another_encoding_is_answered(indexed):
    arguments = [os.fsencode(part) for part in command("search", "--json")]
    done = subprocess.run([*arguments, b"sum of pri\xe7es"], capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads(done.stdout)["query"] == "sum of pri\ufffdes"


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
def test_a_terminal_gets_code_in_color_and_no_escapes_from_files(indexed, tiny_model, capsys):
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


# ---- filters that nothing can pass


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--language", "pyton"), "there is no language 'pyton'; did you mean python?"),
        (("--language", "jvascript"), "there is no language 'jvascript'; did you mean javascript"),
        (("--language", "\x1b[2J"), "there is no language '\\x1b[2J'; there are: "),
        (("--kind", "func"), "there is no kind 'func'; did you mean function?"),
        (("--kind", "zzz"), "there is no kind 'zzz'; there are: class, function, method, module, section, text"),
        (("--repository", "shop-projekt"), "nothing is indexed as 'shop-projekt'; did you mean shop-project?"),
        (("--no-rule", "paths"), "there is no ranking rule 'paths'; did you mean path or phrase?"),
    ],
)
def test_an_unknown_word_names_close_ones(option, message, indexed, capsys):
    assert message in complaint(capsys, 1, "search", "tax", *option)


def test_filters_by_kind_and_repository(indexed, capsys):
    found = json.loads(answer(capsys, "search", "tax", "--kind", "function", "--json"))["hits"]
    assert {hit["kind"] for hit in found} == {"function"}
    assert answer(capsys, "search", "tax", "--repository", "shop-project")
    assert answer(capsys, "search", "tax", "--language", "Python")


def test_both_sides_at_once_are_a_wrong_command_line(indexed, capsys):
    assert "choose one" in complaint(capsys, 2, "search", "tax", "--dense", "--lexical")


# ---- how it was ranked


def test_an_explanation_adds_up_to_the_score(indexed, capsys):
    document = json.loads(answer(capsys, "search", "with_tax", "--json"))
    assert list(document) == ["schema", "query", "model", "mode", "notes", "hits"]
    assert (document["schema"], document["mode"], document["notes"]) == (1, "hybrid", [])
    for hit in document["hits"]:
        assert sum(hit["explanation"].values()) == pytest.approx(hit["score"], abs=1e-4)
    best = answer(capsys, "search", "with_tax", "--explain").splitlines()[0].split("\t")
    assert best[2] == "with_tax"
    assert {part.split()[0] for part in best[3].split(", ")} >= {"dense", "lexical", "definition"}


def test_a_rule_can_be_switched_off(indexed, capsys):
    with_it = answer(capsys, "search", "with_tax", "--explain", "--limit", "1")
    without = answer(capsys, "search", "with_tax", "--explain", "--limit", "1", "--no-rule", "definition")
    assert "definition" in with_it
    assert "definition" not in without


def test_one_side_alone(indexed, capsys):
    by_words = json.loads(answer(capsys, "search", "with_tax", "--lexical", "--json"))
    by_meaning = json.loads(answer(capsys, "search", "with_tax", "--dense", "--json"))
    assert (by_words["mode"], by_meaning["mode"]) == ("lexical", "dense")
    assert all("dense" not in hit["explanation"] for hit in by_words["hits"])
    assert all("lexical" not in hit["explanation"] for hit in by_meaning["hits"])
    assert by_words["hits"][0]["symbol"] == "with_tax"


def test_words_are_searched_without_a_model(indexed):
    code = (
        "import sys; from c2llm_integrations.cli.main import run\n"
        "sys.exit(run(['search', 'with_tax', '--lexical']) or 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("shop/prices.py:")


def test_a_collection_without_words_says_that_it_has_none(indexed, tmp_path, capsys):
    answer(capsys, "export", tmp_path / "rows.parquet")
    answer(capsys, "import", tmp_path / "rows.parquet", "--collection", "dense", "--no-lexical")
    assert run(["search", "with_tax", "--collection", "dense"]) == 0
    assert "by vectors alone" in capsys.readouterr().err
    assert json.loads(answer(capsys, "search", "with_tax", "--collection", "dense", "--json"))["mode"] == "dense"
    assert "without --lexical" in complaint(capsys, 1, "search", "with_tax", "--collection", "dense", "--lexical")


# ---- around a hit, and where it is on the web


def test_lines_around_a_hit_until_its_file_changes(indexed, capsys):
    shown = answer(capsys, "search", "with_tax", "--limit", "1", "--context", "2", "--kind", "function")
    assert "shop/prices.py:" in shown.splitlines()[0]
    assert '     1  """Prices in cents."""' in shown.splitlines()
    document = json.loads(answer(capsys, "search", "with_tax", "--json", "--context", "1", "--kind", "function"))
    hit = next(hit for hit in document["hits"] if hit["symbol"] == "with_tax")
    lines = (indexed / "shop" / "prices.py").read_text().splitlines(keepends=True)
    assert hit["before"] == lines[hit["start_line"] - 2 : hit["start_line"] - 1]
    assert hit["after"] == lines[hit["end_line"] : hit["end_line"] + 1]
    (indexed / "shop" / "prices.py").write_text("x = 1\n" + "".join(lines))
    shown = answer(capsys, "search", "with_tax", "--limit", "1", "--context", "2", "--kind", "function")
    assert "has changed since it was indexed" in shown


def test_an_index_behind_its_tree_says_so(indexed, capsys):
    (indexed / "shop" / "prices.py").write_text("def other():\n    return 1\n")
    assert run(["search", "tax"]) == 0
    assert "answers may be stale: 1 file differs from the index (1 changed)" in capsys.readouterr().err
    assert "stale" in json.loads(answer(capsys, "search", "tax", "--json"))["notes"][0]


def test_links_lead_to_the_commit_of_a_clean_tree(project, tiny_model, monkeypatch, capsys):
    git(project, "init", "-q")
    git(project, "remote", "add", "origin", "git@github.com:shop/shop.git")
    git(project, "add", "shop", "web", "README.md")
    git(project, "commit", "-q", "-m", "one")
    (project / ".gitignore").write_text(".env\n.gitignore\n")
    monkeypatch.chdir(project)
    answer(capsys, "index", "--model", tiny_model)
    commit = git(project, "rev-parse", "HEAD")
    (hit,) = json.loads(answer(capsys, "search", "tax", "--json", "--limit", "1", "--path", "shop/"))["hits"]
    lines = f"#L{hit['start_line']}-L{hit['end_line']}"
    assert hit["url"] == f"https://github.com/shop/shop/blob/{commit}/shop/prices.py{lines}"
    (held,) = json.loads(answer(capsys, "status", "--json"))["repositories"]
    assert held["commit"] == commit
    (project / "web" / "new.js").write_text("let x = 1;\n")
    answer(capsys, "index")
    (hit,) = json.loads(answer(capsys, "search", "tax", "--json", "--limit", "1"))["hits"]
    assert hit["url"] is None


def test_one_command_indexes_and_answers(project, monkeypatch, capsys):
    monkeypatch.chdir(project)
    assert "shop/prices.py" in answer(capsys, "search", "--index", "how", "is", "the", "tax", "added?")
    (project / "shop" / "late.py").write_text("def late_fee(days):\n    return days * 2\n")
    monkeypatch.chdir(project / "web")
    assert "late_fee" not in answer(capsys, "search", "late_fee")
    brought = answer(capsys, "search", "--index", "late_fee")
    assert "../shop/late.py:1-2" in brought
    assert answer(capsys, "search", "late_fee") == brought
    assert not (project / "web" / ".c2llm").exists()
