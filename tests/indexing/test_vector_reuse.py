"""What is equal in another worktree's index, or in an index that a team shares, is copied and not embedded."""

from itertools import islice

import numpy as np
import pytest
import qdrant_edge as edge

from c2llm_integrations.errors import SpecMismatch, StoreBusy, StoreError
from c2llm_integrations.indexing import vector_reuse
from c2llm_integrations.indexing.ingest import ingest
from c2llm_integrations.indexing.vector_reuse import SharedIndex, Worktrees, other_worktrees
from c2llm_integrations.model.embedder import C2LLMEmbedder
from c2llm_integrations.stores import open_store
from c2llm_integrations.stores.records import Row
from c2llm_integrations.stores.spec import CompactPlan
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


def test_an_index_that_is_not_copied_is_closed(trees, model, monkeypatch):
    first, second = trees
    opened = []
    monkeypatch.setattr(vector_reuse, "open_store", lambda *a, **o: opened.append(open_store(*a, **o)) or opened[-1])
    monkeypatch.setattr(Worktrees, "_texts", lambda *_: (_ for _ in ()).throw(StoreError("spoiled")))
    _, others = index(second, model)
    assert (others.notes, [one._closed for one in opened]) == ([f"nothing was copied from {first}: spoiled"], [True])


def test_an_index_that_can_be_read_no_more_ends_no_run(trees, model, monkeypatch):
    def busy(ids):
        raise StoreBusy("it is in use")

    def open_one_that_is_busy_later(*args, **options):
        store = open_store(*args, **options)
        monkeypatch.setattr(store, "vectors", busy)
        return store

    monkeypatch.setattr(vector_reuse, "open_store", open_one_that_is_busy_later)
    report, others = index(trees[1], model)
    assert (report.written, others.copied, len(others.notes)) == (20, 0, 1)
    assert "nothing more was copied from" in others.notes[0]


def test_an_index_in_use_is_waited_for_only_shortly(trees, model, monkeypatch):
    first, second = trees
    monkeypatch.setattr(vector_reuse, "WORKTREE_WAIT_SECONDS", 0.2)
    with open_store(url(first)):
        report, others = index(second, model)
    assert (report.written, others.copied) == (20, 0)
    assert "is still in use after 0.2 s" in others.notes[0]


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
    with open_store(url(first)) as store:
        ingest(first, model, store, compact=CompactPlan(model.output_dim, "float16"), replace=True)
    assert "float16" in index(second, model)[1].notes[0]


def test_halves_are_copied_into_halves(trees, model):
    first, second = trees
    plan = CompactPlan(model.output_dim, "float16")
    with open_store(url(first)) as store:
        ingest(first, model, store, compact=plan, replace=True)
    with open_store(url(second)) as store, Worktrees(second, "code", model, "float16") as others:
        assert ingest(second, model, store, compact=plan, vectors_from=others.vectors).written == 20
        assert others.copied == 19


@pytest.fixture
def team(tmp_path, model):
    """A team's collection, filled from one clone, and another clone in which a file was changed and one added."""
    first, second = tmp_path / "first", tmp_path / "second"
    commit_modules(first, 20)
    git(first, "remote", "add", "origin", "https://example.org/acme/billing.git")
    git(tmp_path, "clone", "-q", str(first), str(second))
    git(second, "remote", "set-url", "origin", "https://example.org/acme/billing.git")
    with open_store(f"qdrant+edge://{tmp_path / 'team'}") as store:
        ingest(first, model, store)
        (second / "module_0.py").write_text("def changed():\n    return 'quite another text'\n")
        (second / "new.py").write_text("def added():\n    return 'never seen before'\n")
        yield store, second


def test_what_a_team_has_embedded_is_not_embedded_again(team, model):
    theirs, clone = team
    before = {row.chunk.id for row in theirs.rows()}
    with open_store(url(clone)) as mine:
        report = ingest(clone, model, mine, vectors_from=theirs)
        assert (report.written, report.stored) == (21, 21)
        texts = ["def changed():\n    return 'quite another text'", "def added():\n    return 'never seen before'"]
        tokens = model.tokens_seen
        model.encode_documents([*texts, *[row.chunk.text for row in islice(theirs.rows(), vector_reuse.CHECKED)]])
        assert report.tokens == pytest.approx(model.tokens_seen - tokens, abs=8)
        for row in mine.rows():
            assert model.encode_documents([row.chunk.text])[0] @ row.vector >= 0.999
        again = ingest(clone, model, mine, vectors_from=theirs)
        assert (again.unchanged, again.tokens) == (21, 0)
    assert {row.chunk.id for row in theirs.rows()} == before


def test_a_replacement_is_filled_from_the_team_too(team, model):
    theirs, clone = team
    with open_store(url(clone)) as mine:
        whole = ingest(clone, model, mine).tokens
        report = ingest(clone, model, mine, replace=True, vectors_from=theirs)
        assert report.replaced
        assert 0 < report.tokens < whole / 2


@pytest.mark.parametrize("spoiled", ["model", "vectors", "datatype", "missing"])
def test_a_collection_that_cannot_give_vectors_is_refused_before_anything_is_written(team, model, spoiled):
    theirs, clone = team
    other = model
    if spoiled == "model":
        other, error, says = C2LLMEmbedder.from_pretrained(str(COMPRESSED)), SpecMismatch, "fingerprint|width|model"
    elif spoiled == "vectors":
        theirs.upsert([Row(row.chunk, np.roll(row.vector, 7)) for row in list(theirs.rows())])
        error, says = StoreError, "has cosine"
    elif spoiled == "datatype":
        other_plan = CompactPlan(model.output_dim, "float16")
        ingest(clone.parent / "first", model, theirs, compact=other_plan, replace=True)
        error, says = StoreError, "float16, expected float32"
    else:
        theirs.drop()
        error, says = StoreError, "holds no collection"
    with open_store(url(clone)) as mine:
        with pytest.raises(error, match=says):
            ingest(clone, other, mine, vectors_from=theirs)
        assert mine.count() == 0


@pytest.mark.filterwarnings("ignore:invalid value")
def test_a_row_without_a_direction_gives_no_vector(team, model):
    theirs, clone = team
    zeros = [edge.Point(row.chunk.id, [0.0] * len(row.vector), {}) for row in islice(theirs.rows(), 20)]
    kept = zeros.pop()
    theirs.client.update(edge.UpdateOperation.upsert_points(zeros))
    with open_store(url(clone)) as mine:
        report = ingest(clone, model, mine, vectors_from=theirs)
        assert (report.written, report.refused) == (21, {})
        assert np.isfinite([row.vector for row in mine.rows()]).all()
        assert mine.known(str(kept.id)) == {str(kept.id)}


def test_only_as_many_texts_are_checked_as_said(team, model):
    theirs, _ = team
    chunks = [row.chunk for row in theirs.rows()]
    tokens = model.tokens_seen
    shared = SharedIndex(theirs, model)
    assert all(vector is not None for vector in shared.vectors(chunks[:3]) + shared.vectors(chunks[3:]))
    once = model.tokens_seen - tokens
    model.encode_documents([chunk.text for chunk in chunks[: vector_reuse.CHECKED]])
    assert model.tokens_seen - tokens == 2 * once
    assert shared.copied == 20
