"""Every example runs, offline, on a small project with a small model."""

import json
import re
import runpy
import sys
from pathlib import Path

import pytest

from tests.conftest import PROJECT, write_project
from tests.golden import TIED

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parents[1] / "examples"
PLACE = r"[\w./]+:\d+-\d+"


@pytest.fixture
def run(monkeypatch, capsys):
    """Run an example as from the command line; return the lines it prints."""

    def run_one(name, *arguments):
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments), "--model", str(TIED)])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out.splitlines()

    return run_one


def test_a_folder_is_searched(project, run):
    first, *hits = run("search_a_folder.py", project, "how long to wait?")
    assert first.startswith("4 files, 4 chunks")
    assert len(hits) == 4
    assert all(re.match(rf"-?\d\.\d{{3}}  {PLACE}  ", hit) for hit in hits)


def test_the_langchain_chain_is_shown_three_places(project, run):
    (answer,) = run("langchain_rag.py", project, "how long to wait?")
    places = re.findall(PLACE, answer)
    assert len(places) == 3
    assert {place.partition(":")[0] for place in places} <= set(PROJECT)


def test_the_llama_index_pipeline_names_three_places(project, run):
    first, *places, last = run("llama_index_pipeline.py", project, "how long to wait?")
    assert first.startswith("4 files")
    assert len(places) == 3
    assert all(re.match(rf"-?\d\.\d{{3}}  {PLACE}  ", place) for place in places)
    assert int(re.search(r"\d+", last)[0]) > 100


def test_records_are_loaded_into_qdrant_and_kept_current(tmp_path, run):
    file = tmp_path / "snippets.jsonl"
    records = [
        {"id": f"f{n}", "text": f"def f{n}():\n    return {n}\n", "language": "python", "votes": n} for n in range(600)
    ]
    file.write_text("\n".join(map(json.dumps, [*records, {"id": "bad", "votes": "many"}])))
    arguments = (
        "records_into_qdrant.py",
        file,
        "f7",
        "--language",
        "python",
        "--url",
        f"qdrant+edge://{tmp_path / 'rows'}",
    )
    first, refused, *hits = run(*arguments)
    assert first == "600 written, 0 updated, 0 unchanged, 0 deleted, 1 refused"
    assert refused.startswith("refused: snippets: bad: it has no text")
    assert len(hits) == 3
    assert run(*arguments)[2:] == hits
    file.write_text("\n".join(map(json.dumps, [{**records[0], "votes": 9}, *records[2:]])))
    assert run(*arguments)[0] == "0 written, 1 updated, 598 unchanged, 1 deleted, 0 refused"


def test_records_of_one_customer_are_found_in_milvus(tmp_path, run):
    file = tmp_path / "tickets.parquet"
    rows = [{"id": n, "text": f"ticket {n}", "customer": "ab"[n % 2]} for n in range(200)]
    pytest.importorskip("pyarrow.parquet").write_table(pytest.importorskip("pyarrow").Table.from_pylist(rows), file)
    arguments = ("records_into_milvus.py", file, "a", "ticket 7", "--url", f"milvus+lite://{tmp_path / 'rows.db'}")
    first, *hits = run(*arguments)
    assert first == "200 written, 0 unchanged, 0 refused"
    assert [int(hit.split()[1]) % 2 for hit in hits] == [0, 0, 0]
    assert run(*arguments) == ["0 written, 200 unchanged, 0 refused", *hits]


def test_many_repositories_share_a_milvus_collection(tmp_path, run):
    for name in ("one", "two"):
        write_project(tmp_path / "all" / name)
    (tmp_path / "all" / "two" / "only.py").write_text("def only_here():\n    return 2\n")
    arguments = ("bulk_milvus.py", tmp_path / "all", "sum up", "--url", f"milvus+lite://{tmp_path / 'rows.db'}")
    one, two, *hits = run(*arguments)
    assert one.startswith("one: 4 written, 0 unchanged")
    assert two.startswith("two: 5 written, 0 unchanged")
    assert len(hits) == 5  # of nine chunks, four are copies
    assert run(*arguments)[0].startswith("one: 0 written, 4 unchanged")


@pytest.mark.parametrize("there", ["qdrant+edge", "milvus+lite"])
def test_a_collection_moves_and_answers_alike(tmp_path, run, there):
    urls = {"qdrant+edge": f"qdrant+edge://{tmp_path / 'edge'}", "milvus+lite": f"milvus+lite://{tmp_path / 'm.db'}"}
    target = urls.pop(there)
    (source,) = urls.values()
    write_project(tmp_path / "all" / "shop")
    run("bulk_milvus.py", tmp_path / "all", "sum up", "--url", source)
    moved, before, after = run("move_collection.py", source, target, "sum up")
    assert moved.startswith("4 of 4 rows moved")
    assert before.split()[:2] == after.split()[:2]
    assert run("bulk_milvus.py", tmp_path / "all", "sum up", "--url", target)[0].startswith("shop: 0 written")


@pytest.mark.parametrize("url", ["qdrant+memory://", "milvus+lite://{}/rows.db"])
def test_hybrid_search_in_our_store_and_in_langchains(project, tmp_path, run, url):
    lines = run("langchain_hybrid.py", project, "retryDelay", "--url", url.format(tmp_path))
    assert [line.split()[0] for line in lines] == ["ours"] * 3 + ["theirs"] * 3
    files = [line.split()[1].partition(":")[0] for line in lines]
    assert files[0] == "web/retry.js"
    assert "web/retry.js" in files[3:]


@pytest.mark.parametrize("url", ["qdrant+memory://", "qdrant+edge://{}/rows", "milvus+lite://{}/rows.db"])
def test_an_async_handler_answers_many_at_once(project, tmp_path, run, url):
    lines = run("async_handler.py", project, "retryDelay", "class Cart", "--url", url.format(tmp_path))
    files = [re.match(rf"(.*): ({PLACE})", line)[2].partition(":")[0] for line in lines]
    assert files == ["web/retry.js", "shop/prices.py"]


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.py")), ids=lambda file: file.stem)
def test_an_example_fits_a_screen_and_takes_another_model(file):
    text = file.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 60
    assert "[--model codefuse-ai/C2LLM-0.5B]" in text.replace("\n", " ").replace("        ", "")
