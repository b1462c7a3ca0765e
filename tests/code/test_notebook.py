from __future__ import annotations

import json

import pytest

from c2llm_integrations._utils.json_lines import MAX_VALUES
from c2llm_integrations.code.chunking import chunk_source
from c2llm_integrations.code.exclude import TOO_LARGE
from c2llm_integrations.code.languages import LANGUAGES, _lexers
from c2llm_integrations.code.notebook import language_of_script
from c2llm_integrations.code.source_file import read_source

SOURCE = "def mean(xs):\n    return sum(xs) / len(xs)\n"


def notebook(cells: list[dict[str, object]], language: str = "python") -> str:
    return json.dumps({"cells": cells, "metadata": {"kernelspec": {"language": language}}, "nbformat": 4})


def cell(source: str, kind: str = "code") -> dict[str, object]:
    return {"cell_type": kind, "source": source.splitlines(True), "outputs": [{"data": {"image/png": "A" * 9_000}}]}


def test_cells_are_code_without_outputs() -> None:
    [chunk] = chunk_source("r", "a.ipynb", notebook([cell("%matplotlib inline"), cell(SOURCE)]))
    assert (chunk.language, chunk.symbol) == ("python", "mean")
    assert "%% cell 2\n" + SOURCE in chunk.text
    assert "AAAA" not in chunk.text


@pytest.mark.parametrize(("kernel", "language"), [("R", "r"), ("julia", "julia"), ("C#", "csharp"), ("c++17", "cpp")])
def test_the_kernel_says_the_language(kernel: str, language: str) -> None:
    [chunk] = chunk_source("r", "a.ipynb", notebook([cell("x"), cell("y")], kernel))
    assert (chunk.language, chunk.symbol) == (language, "cell 1")


@pytest.mark.parametrize(
    ("metadata", "language"),
    [
        ({"kernelspec": {"name": "ir"}}, "r"),
        ({"kernelspec": {"name": "julia-1.9", "display_name": "Julia 1.9"}}, "julia"),
        ({"kernelspec": {"name": "xcpp17"}}, "cpp"),
        ({"kernelspec": {"name": "iruby"}}, "ruby"),
        ({"kernelspec": {"name": "ihaskell"}}, "haskell"),
        ({"language_info": {"name": "polyglot-notebook"}, "kernelspec": {"name": ".net-csharp"}}, "csharp"),
        ({"kernelspec": {"name": "conda-env-x-py"}}, "python"),
        ({"language_info": {"file_extension": ".rs", "name": "evcxr"}}, "rust"),
        ({"language_info": None, "kernelspec": None}, "python"),
        (None, "python"),
    ],
)
def test_what_else_says_the_language(metadata, language):
    [chunk] = chunk_source("r", "a.ipynb", json.dumps({"cells": [cell("x"), cell("y")], "metadata": metadata}))
    assert chunk.language == language


@pytest.mark.parametrize("damaged", [None, "text", {}, {"cell_type": "code", "source": None}, {"source": [None, 3]}])
def test_a_damaged_cell_does_not_spoil_the_others(damaged):
    [chunk] = chunk_source("r", "a.ipynb", notebook([damaged, cell(SOURCE)]))
    assert (chunk.language, chunk.symbol) == ("python", "mean")


@pytest.mark.parametrize("first", ["%%time", "\n%%timeit -n 3", "%%capture out", "%%writefile src/mean.py", "?mean"])
def test_what_stands_below_a_magic_may_be_code(first):
    [chunk] = chunk_source("r", "a.ipynb", notebook([cell(f"{first}\n{SOURCE}")]))
    assert chunk.symbol == "mean"
    assert f"# {first.strip()}\n" in chunk.text


@pytest.mark.parametrize("first", ["%%bash", "%%html", "%%writefile mean.sh", "%%sql -q"])
def test_what_stands_below_another_magic_is_a_comment(first):
    [chunk] = chunk_source("r", "a.ipynb", notebook([cell(f"{first}\n{SOURCE}")]))
    assert "# def mean" in chunk.text


@pytest.mark.parametrize(
    ("kernel", "line"),
    [("javascript", "  !ready &&"), ("typescript", "  ? one"), ("python", "  % (1, 2)"), ("python", "  != 2")],
)
def test_an_operator_is_not_a_magic(kernel, line):
    [chunk] = chunk_source("r", "a.ipynb", notebook([cell(f"x = (1\n{line}\n)")], kernel))
    assert f"\n{line}\n" in chunk.text


def test_a_suffix_in_capitals(tmp_path):
    (tmp_path / "A.IPYNB").write_text(notebook([cell(SOURCE)]))
    assert read_source(tmp_path, "A.IPYNB")[0].text.endswith(SOURCE)


def test_what_is_no_notebook_is_json() -> None:
    for text in ("{}", "[]", '{"cells": 1}', "x"):
        assert {chunk.language for chunk in chunk_source("r", "a.ipynb", text)} == {"json"}


@pytest.mark.parametrize("name", ["z" * 41, "z" * 50_000, "py`thon", "a\x1b[2J", "z\u00fc"])
def test_a_text_that_looks_like_a_script_names_no_language_of_its_own(name: str) -> None:
    chunks = chunk_source("r", "a.ipynb", f"# %% notebook ({name})\n" + SOURCE * 9)
    assert {chunk.language for chunk in chunks} == {"json"}


def test_every_language_can_stand_in_a_script() -> None:
    names = {*LANGUAGES, *_lexers().names.values(), *_lexers().suffixes.values()}
    assert {name for name in names if language_of_script(f"# %% notebook ({name})\n") != name} == set()


@pytest.mark.parametrize("source", ["\ud83d = 1", "x = '\udfff'", "a\ud800\ud800b"])
def test_half_a_character_spoils_neither_the_notebook_nor_the_run(source: str) -> None:
    [chunk] = chunk_source("r", "a.ipynb", notebook([cell(source), cell(SOURCE)]))
    assert "\ufffd" in chunk.text
    assert SOURCE in chunk.text
    assert chunk.text.encode()


def test_a_cell_of_another_type_is_raw() -> None:
    [chunk] = chunk_source("r", "a.ipynb", notebook([cell("x", "evil\n\x1b[2J"), cell(SOURCE)]))
    assert "%% cell 1 (raw)" in chunk.text


@pytest.mark.parametrize("value", ["[]", '{"a": 1}', '{"a": [1]}', "1"])
def test_a_notebook_of_millions_of_values_is_too_large_before_it_is_parsed(tmp_path, monkeypatch, value):
    values = ",".join([value] * MAX_VALUES)
    (tmp_path / "a.ipynb").write_text(f'{{"cells": [], "metadata": {{"x": [{values}]}}}}')
    monkeypatch.setattr("c2llm_integrations.code.notebook.parse_json", lambda text: pytest.fail("parsed"))
    assert read_source(tmp_path, "a.ipynb")[0] == TOO_LARGE


def test_a_notebook_of_large_pictures_is_read(tmp_path):
    picture = "iVBORw0KGgo" * 2**20
    with_picture = {**cell("x = 1"), "outputs": [{"data": {"image/png": picture}}]}
    (tmp_path / "a.ipynb").write_text(notebook([with_picture]))
    assert "x = 1" in read_source(tmp_path, "a.ipynb")[0].text
