"""`c2llm train-head`."""

import json

import pytest

from c2llm_integrations.cli import run
from c2llm_integrations.heads import Head
from tests.commands.running import answer, complaint

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
    file = tmp_path / "pairs.jsonl"
    rows = [{"query": f"question {n}", "positive": f"def f{n}(): pass"} for n in range(30)]
    file.write_text("".join(json.dumps(row) + "\n" for row in [*rows, rows[0]]))
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
        ((".", "pairs.jsonl", "--output-dim", 16), 1, "choose one"),
        (("empty.jsonl", "--output-dim", 16), 1, "empty.jsonl holds no pair"),
        (("absent", "--output-dim", 16), 1, "absent"),
    ],
)
def test_what_cannot_be_trained_is_one_line(arguments, code, message, project, tiny_model, monkeypatch, capsys):
    monkeypatch.chdir(project)
    (project / "empty.jsonl").write_text("")
    assert message in complaint(capsys, code, "train-head", tiny_model, *arguments)
    assert not list(project.glob("*.safetensors*"))
