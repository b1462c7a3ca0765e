"""`c2llm status`, `collections` and `drop`."""

import json
import os
import subprocess
import sys

import pytest

from c2llm_integrations.cli.main import run
from c2llm_integrations.stores import open_store
from c2llm_integrations.stores.spec import CollectionSpec
from tests.cli.running import answer, command, complaint
from tests.qdrant_facade import serve

pytestmark = pytest.mark.slow


def test_status_tells_how_vectors_are_kept(indexed, tiny_model, capsys):
    found = json.loads(answer(capsys, "status", "--json"))
    assert list(found) == [
        *("store", "collection", "rows", "model", "width", "datatype", "quantization", "analyzer"),
        *("bytes_per_vector", "fields", "tenant", "repositories"),
    ]
    assert (found["model"], found["width"], found["datatype"]) == (str(tiny_model), 64, "float32")
    assert (found["quantization"], found["analyzer"], found["bytes_per_vector"]) == (None, "code-2", 256.0)
    (held,) = found["repositories"]
    assert (held["repository"], held["rows"], held["folder"]) == ("shop-project", found["rows"], str(indexed))
    assert held["commit"] is None
    shown = answer(capsys, "status").splitlines()
    assert "bytes per vector  256" in shown
    assert "quantization      none" in shown
    assert (found["fields"], found["tenant"]) == ({}, None)
    assert [line for line in shown if line.startswith(("fields", "tenant"))] == [
        "fields            none",
        "tenant            none",
    ]


@pytest.mark.parametrize("scheme", ["qdrant+edge", "milvus+lite"])
def test_status_tells_the_fields_that_filters_use(scheme, tmp_path, capsys):
    url, fields = f"{scheme}://{tmp_path / 'rows.db'}", {"votes": "integer", "customer": "tenant", "at": "datetime"}
    with open_store(url, "answers") as store:
        store.create(CollectionSpec(4, {"model": "given"}, fields=fields))
    place = ("--store", url, "--collection", "answers")
    found = json.loads(answer(capsys, "status", "--json", *place))
    assert (found["fields"], found["tenant"]) == (fields, "customer")
    shown = answer(capsys, "status", *place).splitlines()
    assert "fields            at (datetime), customer (tenant), votes (integer)" in shown
    assert "tenant            customer" in shown


def test_status_loads_no_torch(indexed, tiny_model):
    code = (
        "import sys; from c2llm_integrations.cli import main; sys.exit(main.run(['status']) or 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert str(tiny_model) in done.stdout


def test_collections_are_listed_with_what_they_are(indexed, tiny_model, capsys):
    answer(
        capsys,
        "index",
        "--model",
        tiny_model,
        "--collection",
        "small",
        "--truncate-dim",
        "16",
        "--quantization",
        "int8",
    )
    found = json.loads(answer(capsys, "collections", "--json"))["collections"]
    assert [(one["name"], one["width"], one["quantization"], one["bytes_per_vector"]) for one in found] == [
        ("code", 64, None, 256.0),
        ("small", 16, "int8", 80.0),
    ]
    heading, *lines = answer(capsys, "collections").splitlines()
    assert heading.split()[:3] == ["name", "rows", "model"]
    assert [line.split()[0] for line in lines] == ["code", "small"]
    assert {len(line[: line.index(str(tiny_model))]) for line in lines} == {heading.index("model")}


def test_a_store_without_collections_says_so(tmp_path, capsys):
    assert run(["collections", "--store", f"qdrant+edge://{tmp_path / 'none'}"]) == 0
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "c2llm index" in printed.err


def test_a_collection_in_use_is_named_and_the_others_are_listed(indexed, tiny_model, capsys, monkeypatch):
    monkeypatch.setattr("c2llm_integrations.cli.context.BUSY_SECONDS", 0.1)
    answer(capsys, "index", "--model", tiny_model, "--collection", "other")
    with open_store(f"qdrant+edge://{indexed / '.c2llm'}", "other"):
        assert run(["collections"]) == 1
    printed = capsys.readouterr()
    assert [line.split()[0] for line in printed.out.splitlines()] == ["name", "code"]
    assert printed.err.startswith("other: ")


# ---- drop


def test_drop_without_a_terminal_needs_yes(indexed, capsys):
    assert "--yes" in complaint(capsys, 2, "drop", "code")
    assert run(["drop", "code", "--yes"]) == 0
    assert "dropped 'code'" in capsys.readouterr().err
    complaint(capsys, 1, "status")


def test_an_unknown_collection_names_close_ones(indexed, capsys):
    assert "did you mean code?" in complaint(capsys, 1, "drop", "cod", "--yes")
    assert "there are: code" in complaint(capsys, 1, "drop", "zzz", "--yes")
    assert json.loads(answer(capsys, "status", "--json"))["rows"] > 3


@pytest.mark.skipif(sys.platform == "win32", reason="a pseudo-terminal needs POSIX")
@pytest.mark.parametrize(("said", "code", "left"), [("n\n", 1, True), ("\n", 1, True), ("y\n", 0, False)])
def test_a_terminal_is_asked_and_the_default_is_no(said, code, left, indexed, capsys):
    import pty

    ours, theirs = pty.openpty()
    os.write(ours, said.encode())
    done = subprocess.run(command("drop", "code"), stdin=theirs, capture_output=True, text=True)
    os.close(ours)
    os.close(theirs)
    assert (done.returncode, done.stdout) == (code, "")
    assert "drop 'code' of" in done.stderr
    assert ("kept 'code'" in done.stderr) == left
    assert run(["status"]) == (0 if left else 1)


# ---- the same on every kind of store


@pytest.fixture(params=["edge", "http", "milvus-lite"])
def url(request, tmp_path):
    if request.param == "http":
        with serve(tmp_path / "served") as address:
            yield f"qdrant+{address}"
    else:
        yield {"edge": f"qdrant+edge://{tmp_path / 'e'}", "milvus-lite": f"milvus+lite://{tmp_path / 'm.db'}"}[
            request.param
        ]


def test_collections_come_and_go(url, project, tiny_model, capsys):
    for name in ("one", "two"):
        answer(capsys, "index", project, "--store", url, "--collection", name, "--model", tiny_model)
    answer(capsys, "index", project, "--store", url, "--collection", "two", "--model", tiny_model, "--replace")
    listed = json.loads(answer(capsys, "collections", "--store", url, "--json"))["collections"]
    assert [(one["name"], one["rows"], one["analyzer"]) for one in listed] == [
        ("one", 4, "code-2"),
        ("two", 4, "code-2"),
    ]
    answer(capsys, "drop", "one", "--store", url, "--yes")
    assert "there are: two" in complaint(capsys, 1, "drop", "one", "--store", url, "--yes")
    (left,) = json.loads(answer(capsys, "collections", "--store", url, "--json"))["collections"]
    assert left["name"] == "two"
    assert json.loads(answer(capsys, "status", "--store", url, "--collection", "two", "--json"))["rows"] == 4
