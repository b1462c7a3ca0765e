"""`c2llm train-head` and `c2llm mine-pairs`."""

import gzip
import json

import pytest

from c2llm_integrations.cli.main import run
from c2llm_integrations.model.heads_and_projections import Head
from tests.cli.running import answer, complaint

pytestmark = pytest.mark.slow

COUNT = "def add{n}(a, b):\n    '''Adds {n} apples to both baskets.'''\n    c = a + b + {n}\n    return c\n\n\n"
FEW = ("--steps", 5, "--max-length", 32)


@pytest.fixture
def larger(project):
    """The project with some hundred documented functions more."""
    for name in range(4):
        body = "".join(
            f"def f{n}(a, b):\n    '''Adds {n * name} apples to both baskets.'''\n    c = a + b\n    return c\n\n"
            for n in range(40)
        )
        (project / f"many{name}.py").write_text(f"NAME = {name}\n\n\n{body}")
    return project


def test_a_head_of_own_code_is_used_by_every_later_command(larger, tiny_model, monkeypatch, capsys):
    monkeypatch.chdir(larger)
    assert run(["train-head", str(tiny_model), ".", "--output-dim", "16", *map(str, FEW)]) == 0
    printed = capsys.readouterr()
    assert printed.out == "c2llm-head-16.safetensors\n"
    assert "trained 64 → 16 dimensions" in printed.err
    assert "were cut at 32 tokens" in printed.err
    assert "loss " in printed.err
    answer(capsys, "index", "--model", tiny_model, "--head", printed.out.strip())
    assert json.loads(answer(capsys, "status", "--json"))["width"] == 16
    assert answer(capsys, "search", "add apples to both baskets")
    assert "many" in answer(capsys, "search", "--dense", "--head", printed.out.strip(), "add apples")
    assert not list(larger.glob("*.partial"))


def test_a_head_of_pairs_and_kept_states(tmp_path, tiny_model, capsys):
    file = tmp_path / "pairs.jsonl.gz"
    rows = [{"query": f"question {n}", "positive": f"def f{n}(): pass"} for n in range(30)]
    file.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in [*rows, rows[0]]).encode()))
    for width in (32, 16):
        out = tmp_path / f"{width}.safetensors"
        answer(capsys, "train-head", tiny_model, file, "--output-dim", width, "--out", out, *FEW, "--states", tmp_path)
        assert Head.load(out).output_dim == width
    assert len(list(tmp_path.glob("states-*.npy"))) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ((".",), 2, "--output-dim"),
        ((".", "--output-dim", 17), 1, "multiple of its 8 heads"),
        ((".", "--output-dim", 16, "--out", "README.md"), 1, "README.md exists"),
        ((".", "--output-dim", 16, "--out", "no/folder"), 1, "no folder"),
        ((".", "--output-dim", 16, "--states", "README.md"), 1, "README.md is not a folder; name another"),
        ((".", "pairs.jsonl", "--output-dim", 16), 1, "choose one"),
        (("empty.jsonl", "--output-dim", 16), 1, "empty.jsonl holds no pair"),
        (("absent", "--output-dim", 16), 1, "absent"),
        (("blank", "--output-dim", 16), 1, "no code was found in blank"),
    ],
)
def test_what_cannot_be_trained_is_one_line(arguments, code, message, project, tiny_model, monkeypatch, capsys):
    monkeypatch.chdir(project)
    (project / "empty.jsonl").write_text("")
    (project / "blank").mkdir()
    assert message in complaint(capsys, code, "train-head", tiny_model, *arguments)
    assert not list(project.glob("*.safetensors*"))


def test_mined_pairs_train_a_head(larger, tmp_path, tiny_model, capsys):
    other = tmp_path / "other"
    other.mkdir()
    (other / "a.py").write_text("".join(COUNT.format(n=n + 1000) for n in range(20)))
    out = tmp_path / "pairs.jsonl"
    printed = answer(capsys, "mine-pairs", larger, other, "--out", out, "--held-out", 0.5)
    apart = tmp_path / "pairs-held-out.jsonl"
    assert printed == f"{out}\n{apart}\n"
    sides = [{json.loads(line)["dataset"] for line in file.read_text().splitlines()} for file in (out, apart)]
    assert sorted(map(len, sides)) == [1, 1]
    assert sides[0] != sides[1]
    head = tmp_path / "head.safetensors"
    answer(capsys, "train-head", tiny_model, out, apart, "--output-dim", 8, "--out", head, *FEW)
    assert Head.load(head).output_dim == 8


def test_what_cannot_be_mined_is_one_line_and_leaves_a_good_file(project, tmp_path, capsys):
    out = tmp_path / "pairs.jsonl"
    out.write_text("good")
    (tmp_path / "empty").mkdir()
    assert "no documented" in complaint(capsys, 1, "mine-pairs", tmp_path / "empty", "--out", out)
    line = complaint(capsys, 1, "mine-pairs", project, "--out", tmp_path / "empty")
    assert line.endswith("empty is a folder; name a file in it\n")
    assert not list(tmp_path.glob("*.partial"))
    assert "leaves none" in complaint(capsys, 1, "mine-pairs", project, "--out", out, "--held-out", 1)
    assert "no folder" in complaint(capsys, 1, "mine-pairs", project, "--out", tmp_path / "absent" / "pairs.jsonl")
    for name in ("pairs.parquet", "pairs.jsonl.gz"):
        assert "does not end in .jsonl" in complaint(capsys, 1, "mine-pairs", project, "--out", tmp_path / name)
        assert not (tmp_path / name).exists()
    assert out.read_text() == "good"


def test_a_trained_checkpoint_is_measured_and_used(tmp_path, tiny_model, capsys):
    pytest.importorskip("accelerate")
    pairs, out = tmp_path / "pairs.jsonl", tmp_path / "better"
    rows = [{"query": f"question {n}", "positive": f"def f{n}(): pass"} for n in range(12)]
    rows[3]["positive"] += " " * 4 + "return 3" * 20
    pairs.write_text("".join(json.dumps(row) + "\n" for row in [*rows, rows[0]]))
    few = ("--epochs", 1, "--batch", 6, "--max-length", 16)
    (tmp_path / "bad.jsonl").write_text("{}")
    bad = ("--out", out, "--held-out", tmp_path / "bad.jsonl")
    assert "line 1 needs query and positive" in complaint(capsys, 1, "train", tiny_model, pairs, *bad, *few)
    assert not out.exists()
    assert run(list(map(str, ["train", tiny_model, pairs, "--out", out, "--held-out", pairs, *few]))) == 0
    printed = capsys.readouterr()
    assert printed.out == f"{out}\n"
    assert "left out: 1 repeated" in printed.err
    assert "trained on 12 pairs, 2 steps" in printed.err
    assert "texts were cut at 16 tokens" in printed.err
    assert "nDCG@10 of 13 held-out pairs: " in printed.err
    assert "widget" not in printed.err  # no bar of a library's own
    answer(capsys, "eval", pairs, "--model", out, "--out", tmp_path / "results")
    pairs.write_text(json.dumps(rows[0]))
    assert "better exists" in complaint(capsys, 1, "train", tiny_model, pairs, "--out", out, *few)
    assert "fill no batch" in complaint(capsys, 1, "train", tiny_model, pairs, "--out", tmp_path / "new", *few)
