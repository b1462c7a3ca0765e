"""A claim names a commit only while every row is as that commit has it."""

import pytest

from c2llm_integrations.indexing.claims import Claim
from c2llm_integrations.indexing.ingest import ingest
from c2llm_integrations.model.embedder import C2LLMEmbedder
from c2llm_integrations.stores import open_store
from tests.conftest import write_project
from tests.repositories import git


@pytest.fixture
def repo(tmp_path):
    folder = write_project(tmp_path / "repo")
    git(folder, "init", "-q")
    commit(folder)
    return folder


def commit(folder):
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "--allow-empty", "-m", "again")
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture(scope="module")
def embedder(tiny_model):
    return C2LLMEmbedder.from_pretrained(str(tiny_model))


@pytest.fixture
def store(tmp_path):
    with open_store(f"qdrant+edge://{tmp_path / 'store'}") as opened:
        yield opened


def claimed(store):
    """The commit that the collection's only claim names."""
    (claim,) = store.claims().values()
    return Claim.parse(claim).commit


def test_a_clean_tree_is_claimed_with_its_commit_and_an_edited_one_without(repo, embedder, store):
    ingest(repo, embedder, store)
    first = claimed(store)
    assert first == git(repo, "rev-parse", "HEAD")
    (repo / "shop" / "prices.py").write_text("x = 1\n")
    ingest(repo, embedder, store)
    assert claimed(store) is None
    second = commit(repo)
    assert second != first
    ingest(repo, embedder, store)
    assert claimed(store) == second


def test_a_replacement_is_claimed_too(repo, embedder, store):
    ingest(repo, embedder, store)
    ingest(repo, embedder, store, replace=True)
    assert claimed(store) == git(repo, "rev-parse", "HEAD")


def test_a_part_of_a_tree_is_of_the_whole_one_s_commit_or_of_none(repo, embedder, store):
    ingest(repo / "shop", embedder, store)
    assert claimed(store) is None  # nothing is known of the rest
    ingest(repo, embedder, store)
    first = claimed(store)
    ingest(repo / "shop", embedder, store)
    assert claimed(store) == first is not None
    commit(repo)
    ingest(repo / "shop", embedder, store)
    assert claimed(store) is None


def test_a_run_that_fails_after_its_first_write_leaves_no_commit(repo, embedder, store, monkeypatch):
    ingest(repo, embedder, store)
    (repo / "new.py").write_text("y = 2\n")

    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("c2llm_integrations.indexing.ingest.embed_rows", fail)
    with pytest.raises(KeyboardInterrupt):
        ingest(repo, embedder, store)
    assert claimed(store) is None


def test_a_repeated_run_writes_no_claim(repo, embedder, store, monkeypatch):
    ingest(repo, embedder, store)
    monkeypatch.setattr(store, "claim", None)
    ingest(repo, embedder, store)
    assert claimed(store) == git(repo, "rev-parse", "HEAD")


def test_outside_git_no_commit_is_claimed(project, embedder, store):
    ingest(project, embedder, store)
    assert claimed(store) is None


def test_a_commit_that_git_cannot_list_is_noted(repo, embedder, store):
    tree = git(repo, "rev-parse", "HEAD:shop")
    (repo / ".git" / "objects" / tree[:2] / tree[2:]).unlink()
    (note,) = ingest(repo, embedder, store).notes
    assert "cannot list the files of the current commit" in note
    assert claimed(store) is None
    assert ingest(write_project(repo.parent / "other"), embedder, store).notes == []
