"""`c2llm export` and `import`."""

import json
import subprocess
import sys

import pytest

from c2llm_integrations.cli.main import run
from c2llm_integrations.code.repository import checkout_id
from tests.cli.running import answer, complaint

pytestmark = pytest.mark.slow


@pytest.fixture
def file(indexed, tmp_path, capsys):
    answer(capsys, "export", tmp_path / "rows.parquet")
    return tmp_path / "rows.parquet"


def test_a_collection_moves_to_another_store_and_is_searched_there(indexed, file, tmp_path, monkeypatch, capsys):
    here = answer(capsys, "search", "add tax")
    store = f"milvus+lite://{tmp_path / 'rows.db'}"
    answer(capsys, "import", file, "--store", store)
    assert run(["search", "add tax", "--store", store]) == 0
    assert "or the rows were imported; run: c2llm index" in capsys.readouterr().err
    assert answer(capsys, "search", "add tax", "--store", store).split("\t")[0] == here.split("\t")[0]
    moved, made = (json.loads(answer(capsys, "status", "--json", *to)) for to in (("--store", store), ()))
    assert moved.pop("store") == store
    [repository] = made["repositories"]
    repository["checkout"] = checkout_id(indexed)  # the index beside it says ".", which is right there alone
    assert moved == {name: value for name, value in made.items() if name != "store"}


def test_an_imported_index_is_kept_current_by_index(indexed, file, capsys):
    answer(capsys, "drop", "code", "--yes")
    assert run(["import", str(file)]) == 0
    assert "imported 4 of 4 rows, 0 were there" in capsys.readouterr().err
    assert json.loads(answer(capsys, "index", "--json"))["written"] == 0
    assert run(["import", str(file)]) == 0
    assert "imported 0 of 4 rows, 4 were there" in capsys.readouterr().err


def test_a_new_collection_can_be_stored_otherwise(indexed, file, capsys):
    options = ("--collection", "small", "--quantization", "binary", "--datatype", "float16", "--no-lexical")
    answer(capsys, "import", file, *options)
    made = json.loads(answer(capsys, "status", "--json", "--collection", "small"))
    assert (made["quantization"], made["datatype"], made["analyzer"]) == ("binary", "float16", None)
    answer(capsys, "export", file, "--collection", "small", "--replace")
    answer(capsys, "import", file, "--collection", "whole", "--quantization", "none", "--lexical")
    made = json.loads(answer(capsys, "status", "--json", "--collection", "whole"))
    assert (made["quantization"], made["datatype"], made["analyzer"]) == (None, "float16", "code-2")


def test_a_file_that_exists_is_only_written_over_on_demand(indexed, file, capsys):
    before = file.read_bytes()
    said = complaint(capsys, 1, "export", file, "--store", "qdrant+http://localhost:1")  # nothing is asked for rows
    assert said.strip() == f"c2llm: {file} exists; name another file, or write over it with --replace"
    assert file.read_bytes() == before
    file.write_bytes(b"mine")
    answer(capsys, "export", file, "--replace")
    assert run(["import", str(file)]) == 0


def test_another_model_is_refused(indexed, file, tiny_model, capsys):
    answer(capsys, "index", "--replace", "--model", tiny_model.parent / "c2llm-tiny-compressed")
    assert "--collection" in complaint(capsys, 1, "import", file)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("export", "out.parquet", "--repository", "shop-projekt"), "did you mean shop-project?"),
        (("export", "no/such/folder/out.parquet"), "such/folder to write out.parquet to; make it, or name another"),
        (("export", "shop"), "shop is a folder; name a file in it"),
        (("export", "."), ". is a folder; name a file in it"),
        (("export", "out.parquet", "--collection", "none"), "holds no collection 'none'"),
        (("import", "none.parquet"), "none.parquet does not exist; name a file of Parquet"),
        (("import", "README.md"), "not a readable Parquet file"),
        (("import", "."), ". is a folder; name a file of Parquet"),
    ],
)
def test_what_cannot_be_moved_is_one_line(arguments, message, indexed, capsys):
    assert message in complaint(capsys, 1, *arguments)
    assert not list(indexed.glob("out.parquet*"))


def test_without_pyarrow_the_extra_is_named(indexed):
    code = (
        "import sys; sys.modules['pyarrow'] = None\n"
        "from c2llm_integrations.cli.main import run; sys.exit(run(['export', 'x.parquet']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert 'pip install "c2llm-integrations[parquet]"' in done.stderr
