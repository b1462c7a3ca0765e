"""`c2llm fit-projection`."""

import json

import numpy as np
import pytest

from c2llm_integrations.cli.main import run
from c2llm_integrations.cli.plan import recall_kept
from c2llm_integrations.model.heads_and_projections import Projection, fit_projection
from tests.cli.running import answer, complaint

pytestmark = pytest.mark.slow


@pytest.fixture
def larger(project):
    """The project with some hundred chunks more."""
    for name in range(8):
        body = "".join(f"def f{n}(a, b):\n    '''Add {n * name} to both.'''\n    return a + b\n\n\n" for n in range(60))
        (project / f"many{name}.py").write_text(f"NAME = {name}\n\n\n{body}")
    return project


def test_a_folder_is_fitted_and_the_file_used(larger, tiny_model, monkeypatch, capsys):
    monkeypatch.chdir(larger)
    assert run(["fit-projection", "--output-dim", "16", "--model", str(tiny_model)]) == 0
    printed = capsys.readouterr()
    assert printed.out == "c2llm-projection-16.safetensors\n"
    assert "fitted 64 → 16 dimensions on " in printed.err
    assert "% stay the same" in printed.err
    answer(capsys, "index", "--model", tiny_model, "--projection", printed.out.strip())
    assert "nano is not the collection's model" in complaint(capsys, 1, "search", "--model", "nano", "apples")
    assert json.loads(answer(capsys, "status", "--json"))["width"] == 16
    assert "many" in answer(capsys, "search", "add to both")


def test_a_collection_is_fitted_without_embedding_again(larger, tiny_model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(larger)
    answer(capsys, "index", "--model", tiny_model)
    store, file = f"qdrant+edge://{larger / '.c2llm'}", tmp_path / "p.safetensors"
    answer(capsys, "fit-projection", "--output-dim", 24, "--store", store, "--out", file)
    assert Projection.load(file).matrix.shape == (64, 24)
    answer(capsys, "index", "--replace", "--model", tiny_model, "--projection", file)
    line = complaint(capsys, 1, "fit-projection", "--output-dim", 8, "--store", store, "--out", tmp_path / "q")
    assert "was made with projection" in line


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ((), 2, "--output-dim"),
        (("--output-dim", 0), 2, "--output-dim"),
        (("--output-dim", 60), 1, "give at least as many vectors"),
        (("--output-dim", 64), 1, "on vectors of 64; ask for fewer"),
        (("--output-dim", 8, "--out", "README.md"), 1, "README.md exists"),
        (("--output-dim", 8, "--out", "no/folder"), 1, "no folder"),
        (("--output-dim", 8, "--store", "qdrant+edge://x", "."), 1, "choose one"),
        (("--output-dim", 8, "--store", "qdrant+edge://x", "--model", "nano"), 1, "--model says"),
        (("--output-dim", 8, "--store", "qdrant+edge://x"), 1, "nothing is indexed"),
    ],
)
def test_what_cannot_be_fitted_is_one_line(arguments, code, message, project, tiny_model, monkeypatch, capsys):
    monkeypatch.chdir(project)
    if "--store" not in arguments:
        arguments = (*arguments, "--model", tiny_model)
    assert message in complaint(capsys, code, "fit-projection", *arguments)
    assert not list(project.glob("*.safetensors"))


def test_recall_is_what_is_left_of_the_nearest():
    vectors = np.random.default_rng(0).standard_normal((500, 32)).astype(np.float32)
    assert recall_kept(vectors, vectors * 3, 50) == 1.0
    assert recall_kept(vectors, np.random.default_rng(1).standard_normal((500, 32)).astype(np.float32), 50) < 0.1
    fitted = fit_projection(vectors[50:], 24, "w").matrix
    assert 0.3 < recall_kept(vectors, vectors @ fitted, 50) < 0.95
