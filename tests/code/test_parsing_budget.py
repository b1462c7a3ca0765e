"""Thousands of files that are slow to parse do not take thousands of times the limit of one."""

import pytest

from c2llm_integrations.code import parsing
from c2llm_integrations.code.chunking import chunk_source
from c2llm_integrations.code.parsing import ParseBudget

TEXT = "def f():\n    return 1\n"


@pytest.fixture
def parsed(monkeypatch):
    """The languages that are parsed; those of .js run out of time."""
    languages = []

    def survives(seconds, language, data, ranges):
        languages.append(language)
        return language != "javascript"

    monkeypatch.setattr(parsing, "survives", survives)
    return languages


def test_a_language_over_its_time_is_cut_by_lines_and_named(parsed, monkeypatch):
    monkeypatch.setattr(parsing, "LANGUAGE_SECONDS", 1.1)
    budget = ParseBudget()
    kinds = {chunk.kind for n in range(50) for chunk in chunk_source("r", f"{n}.js", "f()\n", budget=budget)}
    assert kinds == {"text"}
    assert parsed == ["javascript"] * 5
    assert budget.refused == 45
    [note] = budget.notes
    assert note.startswith("files of javascript took 1 s to parse, so from 5.js on those of this run are cut by lines;")
    assert [chunk.symbol for chunk in chunk_source("r", "a.py", TEXT, budget=budget)] == ["f"]


def test_with_many_languages_over_all_time_each_may_be_slow_once(parsed, monkeypatch):
    monkeypatch.setattr(parsing, "ALL_SECONDS", 1.0)
    budget = ParseBudget()
    budget.charge("go", 2.0, 1.0)
    for number in range(3):
        chunk_source("r", f"{number}.js", "f()\n", budget=budget)
        chunk_source("r", f"{number}.go", "package a\n", budget=budget)
    assert parsed == ["javascript"]
    assert [note.split()[2] for note in budget.notes] == ["go", "javascript"]


def test_files_of_the_usual_speed_never_use_it_up(parsed):
    budget = ParseBudget()
    for _ in range(100_000):
        budget.charge("python", 0.2, 1.0)
    assert budget.allows("python", "a.py")
    assert budget.notes == []


def test_what_one_run_gave_up_the_next_one_parses(parsed, monkeypatch, tmp_path):
    """So a tree with some slow files gets what it would get anyway, a few files later."""
    from c2llm_integrations.indexing.ingest import ingest
    from c2llm_integrations.model.embedder import C2LLMEmbedder
    from c2llm_integrations.stores import open_store
    from tests.golden import TIED

    monkeypatch.setattr(parsing, "LANGUAGE_SECONDS", 0.6)
    (repo := tmp_path / "repo").mkdir()
    for number in range(8):
        (repo / f"{number}.js").write_text(f"function f{number}() {{ }}\n")
    model = C2LLMEmbedder.from_pretrained(str(TIED), dtype="float32")
    with open_store(f"qdrant+edge://{tmp_path}/store") as store:
        for seen in ([3], [3], [2], [0]):
            parsed.clear()
            report = ingest(repo, model, store)
            assert [len(parsed)] == seen
            assert bool(report.notes) is (seen == [3])
