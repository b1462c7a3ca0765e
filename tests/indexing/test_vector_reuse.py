"""Worktrees: each has an index of its own, and a new one copies the vectors of what is equal."""

import numpy as np
import pytest

from c2llm_integrations.indexing import vector_reuse
from c2llm_integrations.indexing.ingest import ingest
from c2llm_integrations.indexing.vector_reuse import Worktrees, other_worktrees
from c2llm_integrations.model.embedder import C2LLMEmbedder
from c2llm_integrations.stores import open_store
from c2llm_integrations.stores.base import Row
from tests.golden import COMPRESSED, TIED
from tests.repositories import commit_modules, git

pytestmark = pytest.mark.slow


def url(folder):
    return f"qdrant+edge://{folder / '.c2llm'}"


@pytest.fixture(scope="module")
def model():
    return C2LLMEmbedder.from_pretrained(str(TIED))


@pytest.fixture
def trees(tmp_path, model, monkeypatch):
    """A repository of 20 files, indexed, and a second worktree of it with one file changed and one moved."""
    monkeypatch.setattr(vector_reuse, "WORTHWHILE", 5)
    first, second = tmp_path / "first", tmp_path / "second"
    commit_modules(first, 20)
    with open_store(url(first)) as store:
        ingest(first, model, store)
    git(first, "worktree", "add", "-b", "other", str(second))
    (second / "module_0.py").write_text("def changed():\n    return 'quite another text'\n")
    (second / "module_1.py").rename(second / "moved.py")
    return first, second


def index(folder, model, **options):
    """Index a worktree with what the others know; return the report and what was copied."""
    with open_store(url(folder)) as store, Worktrees(folder, "code", model, **options) as others:
        report = ingest(folder, model, store, vectors_from=others.vectors)
    return report, others


def test_equal_chunks_are_copied_and_only_others_embedded(trees, model):
    first, second = trees
    report, others = index(second, model)
    assert (report.written, others.copied, others.notes) == (20, 19, [])
    assert report.tokens < 200
    plain = ingest(second, model, open_store("qdrant+memory://"))
    assert plain.stored == report.stored
    with open_store(url(second)) as seeded:
        for row in seeded.rows():
            whole = model.encode_documents([row.chunk.text])[0]
            assert whole @ row.vector >= 0.999
    with open_store(url(first)) as untouched:
        assert untouched.count() == 20


def test_each_worktree_names_the_others(trees, tmp_path):
    first, second = trees
    assert other_worktrees(first) == [second]
    assert other_worktrees(second) == [first]
    assert other_worktrees(tmp_path) == []


def test_an_index_of_another_model_is_not_copied(trees):
    _, second = trees
    report, others = index(second, C2LLMEmbedder.from_pretrained(str(COMPRESSED)))
    assert (report.written, others.copied) == (20, 0)
    assert "nothing was copied from" in others.notes[0]


def test_an_index_that_holds_other_vectors_is_not_copied(trees, model):
    first, second = trees
    with open_store(url(first)) as store:
        store.upsert([Row(row.chunk, np.roll(row.vector, 7)) for row in list(store.rows())])
    report, others = index(second, model)
    assert (report.written, others.copied) == (20, 0)
    assert "cosine" in others.notes[0]


def test_an_index_in_use_is_waited_for_only_shortly(trees, model, monkeypatch):
    first, second = trees
    monkeypatch.setattr(vector_reuse, "WAIT_SECONDS", 0.2)
    with open_store(url(first)):
        report, others = index(second, model)
    assert (report.written, others.copied) == (20, 0)
    assert "is in use and 0.2 s were not enough" in others.notes[0]


def test_a_damaged_index_is_not_copied(trees, model):
    first, second = trees
    (first / ".c2llm" / "code" / "c2llm.json").write_text("{")
    report, others = index(second, model)
    assert (report.written, others.copied) == (20, 0)
    assert len(others.notes) == 1


def test_a_few_new_chunks_are_not_worth_it(trees, model, monkeypatch):
    _, second = trees
    monkeypatch.setattr(vector_reuse, "WORTHWHILE", 21)
    report, others = index(second, model)
    assert (report.written, others.copied, others.notes) == (20, 0, [])


def test_halves_are_not_copied_into_a_collection_of_whole_floats(trees, model):
    first, second = trees
    from c2llm_integrations.stores.spec import CompactPlan

    with open_store(url(first)) as store:
        ingest(first, model, store, compact=CompactPlan(model.output_dim, "float16"), replace=True)
    assert "float16" in index(second, model)[1].notes[0]


def test_halves_are_copied_into_halves(trees, model):
    first, second = trees
    from c2llm_integrations.stores.spec import CompactPlan

    plan = CompactPlan(model.output_dim, "float16")
    with open_store(url(first)) as store:
        ingest(first, model, store, compact=plan, replace=True)
    with open_store(url(second)) as store, Worktrees(second, "code", model, "float16") as others:
        assert ingest(second, model, store, compact=plan, vectors_from=others.vectors).written == 20
        assert others.copied == 19
