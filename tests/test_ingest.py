"""Ingest keeps the collection equal to the tree: nothing lost, nothing twice, nothing stale."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from c2llm_integrations.embedder import C2LLMEmbedder
from c2llm_integrations.errors import InputError, RepositoryError, RowsRefused, SpecMismatch, StoreError
from c2llm_integrations.ingest import ingest, plan
from c2llm_integrations.stores import open_store
from tests.golden import COMPRESSED, TIED

BODY = """\
    total = 0
    for item in items:
        total += item * {n}
    print('summing up', total)
    return total
"""


def function(name: str, n: int = 1) -> str:
    # Long enough to be a chunk of its own.
    return (
        f'def {name}(items):\n    """Add up the items of {name}, each {n} times."""\n' + BODY.format(n=n) * 2 + "\n\n"
    )


class Counting:
    """The real embedder, remembering what it was asked to embed."""

    def __init__(self, inner: C2LLMEmbedder) -> None:
        self.inner = inner
        self.texts: list[str] = []

    def encode_documents(self, texts, progress=None):
        self.texts += texts
        return self.inner.encode_documents(texts, progress=progress)

    def __getattr__(self, name):
        return getattr(self.inner, name)


@pytest.fixture(scope="module")
def model() -> C2LLMEmbedder:
    return C2LLMEmbedder.from_pretrained(str(TIED), dtype="float32")


@pytest.fixture
def embedder(model) -> Counting:
    return Counting(model)


@pytest.fixture(params=["qdrant+memory://", "qdrant+edge://store", "milvus+lite://store.db"])
def store(request, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    url = request.param
    with open_store(url) as opened:
        yield opened


@pytest.fixture
def repo(tmp_path) -> Path:
    root = tmp_path / "project"
    (root / "pkg").mkdir(parents=True)
    (root / "pkg" / "a.py").write_text(function("alpha") + function("beta"))
    (root / "pkg" / "b.py").write_text(function("gamma") + function("delta"))
    (root / "readme.md").write_text("# Title\n\nWords.\n")
    return root


def rows(store):
    return {(row.path, row.symbol): row for row in store.scan()}


def test_a_first_run_writes_all_and_a_second_nothing(repo, embedder, store):
    first = ingest(repo, embedder, store)
    assert (first.files, first.chunks, first.written, first.stored) == (3, 5, 5, 5)
    assert (first.refused, first.deleted, first.moved, first.unchanged) == ({}, 0, 0, 0)
    assert first.tokens > 100
    embedder.texts.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(store), "claim", lambda *_: pytest.fail("a repeated run wrote its claim again"))
        second = ingest(repo, embedder, store)
    assert (second.written, second.unchanged, second.moved, second.deleted, second.tokens) == (0, 5, 0, 0, 0)
    assert embedder.texts == []


def test_an_edited_function_embeds_only_its_chunk(repo, embedder, store):
    ingest(repo, embedder, store)
    before = rows(store)
    embedder.texts.clear()
    (repo / "pkg" / "a.py").write_text(function("alpha") + function("beta", 2))
    report = ingest(repo, embedder, store)
    assert len(embedder.texts) == 1
    assert "def beta" in embedder.texts[0]
    assert (report.written, report.deleted, report.unchanged) == (1, 1, 4)
    after = rows(store)
    assert after["pkg/a.py", "alpha"] == before["pkg/a.py", "alpha"]
    assert after["pkg/a.py", "beta"].id != before["pkg/a.py", "beta"].id


def test_moved_chunks_only_change_their_lines(repo, embedder, store):
    ingest(repo, embedder, store)
    before = rows(store)
    embedder.texts.clear()
    (repo / "pkg" / "a.py").write_text(function("new") + function("alpha") + function("beta"))
    report = ingest(repo, embedder, store)
    assert [text.split("(")[0] for text in embedder.texts] == ["def new"]
    assert (report.written, report.moved, report.deleted) == (1, 2, 0)
    height = function("new").count("\n")
    for symbol in ("alpha", "beta"):
        old, new = before["pkg/a.py", symbol], rows(store)["pkg/a.py", symbol]
        assert (new.id, new.start_line) == (old.id, old.start_line + height)


def test_a_deleted_file_loses_its_rows_and_a_renamed_one_keeps_the_count(repo, embedder, store):
    ingest(repo, embedder, store)
    (repo / "pkg" / "b.py").unlink()
    assert ingest(repo, embedder, store).deleted == 2
    assert {row.path for row in store.scan()} == {"pkg/a.py", "readme.md"}
    (repo / "pkg" / "a.py").rename(repo / "pkg" / "c.py")
    report = ingest(repo, embedder, store)
    assert (report.written, report.deleted, report.stored) == (2, 2, 3)


def test_equal_functions_in_one_file_are_two_rows(repo, embedder, store):
    (repo / "pkg" / "a.py").write_text(function("alpha") + function("alpha"))
    assert ingest(repo, embedder, store).stored == 5
    assert len({row.id for row in store.scan()}) == 5
    (repo / "pkg" / "a.py").write_text(function("alpha"))
    assert ingest(repo, embedder, store).deleted == 1


def test_only_the_indexed_folder_is_cleaned(repo, embedder, store):
    subprocess.run(["git", "init", "-q", str(repo)], check=True)
    (repo / "other").mkdir()
    (repo / "other" / "z.py").write_text(function("zeta"))
    ingest(repo, embedder, store)
    (repo / "pkg" / "b.py").unlink()
    (repo / "other" / "z.py").unlink()
    report = ingest(repo / "pkg", embedder, store)
    assert report.deleted == 2
    assert "other/z.py" in {row.path for row in store.scan()}


def test_a_file_that_cannot_be_read_keeps_its_rows(repo, embedder, store, monkeypatch):
    ingest(repo, embedder, store)
    # Root reads what permissions forbid, so the failure is put where the file is opened.
    monkeypatch.setattr("c2llm_integrations.code.repository._read", lambda root, path: "unreadable")
    report = ingest(repo, embedder, store)
    assert report.deleted == 0
    assert "pkg/b.py" in report.skipped["unreadable"]
    assert store.count() == 5


def test_two_repositories_share_a_collection_and_never_touch_each_other(repo, tmp_path, embedder, store):
    other = tmp_path / "second"
    other.mkdir()
    (other / "a.py").write_text(function("alpha"))
    ingest(repo, embedder, store)
    ingest(other, embedder, store)
    assert store.count() == 6
    (other / "a.py").unlink()
    assert ingest(other, embedder, store).deleted == 1
    assert store.count("project") == 5


def test_another_checkout_of_the_same_name_is_refused_unless_forced(repo, tmp_path, embedder, store):
    ingest(repo, embedder, store)
    clone = tmp_path / "elsewhere" / "project"
    clone.mkdir(parents=True)
    (clone / "a.py").write_text(function("alpha"))
    with pytest.raises(RepositoryError, match=r"another checkout.*--force"):
        ingest(clone, embedder, store)
    assert store.count() == 5
    assert ingest(clone, embedder, store, force=True).stored == 1


def test_a_new_name_for_the_same_checkout_is_refused(repo, embedder, store):
    ingest(repo, embedder, store)
    with pytest.raises(RepositoryError, match=r"indexed as 'project' and would now be 'other'.*--repository project"):
        ingest(repo, embedder, store, repository="other", force=True)
    with pytest.raises(RepositoryError, match="indexed as 'project'"):
        plan(repo, store, repository="other")
    assert store.count() == 5


def test_a_tree_that_vanishes_during_the_run_loses_no_row(repo, embedder, store):
    ingest(repo, embedder, store)
    with pytest.raises(RepositoryError, match=r"vanished during the run.*no row was deleted"):
        ingest(repo, embedder, store, progress=lambda done, total, path: shutil.rmtree(repo, ignore_errors=True))
    assert store.count() == 5


def test_another_model_is_refused_before_anything_is_compared(repo, embedder, store):
    ingest(repo, embedder, store)
    with pytest.raises(SpecMismatch, match="32"):
        ingest(repo, C2LLMEmbedder.from_pretrained(str(COMPRESSED), dtype="float32"), store)
    assert store.count() == 5


def test_a_text_that_cannot_be_embedded_costs_only_itself(repo, embedder, store):
    class Choosy(Counting):
        def encode_documents(self, texts, progress=None):
            if any("beta" in text for text in texts):
                raise InputError("text 1 gives a vector with NaN or infinity")
            return super().encode_documents(texts, progress=progress)

    report = ingest(repo, Choosy(embedder), store)
    assert (report.written, report.stored) == (4, 4)
    lines = function("alpha").count("\n")
    assert [reason.split(": ")[0] for reason in report.refused.values()] == [f"pkg/a.py:{lines + 1}-{2 * lines}"]
    assert ingest(repo, embedder, store).written == 1


def test_rows_the_store_refuses_are_named_and_the_rest_is_stored(repo, embedder, store, monkeypatch):
    real = type(store).upsert

    def upsert(self, rows):
        bad = {row.chunk.id: "too big" for row in rows if "gamma" in row.chunk.text}
        if bad:
            raise RowsRefused(bad)
        real(self, rows)

    monkeypatch.setattr(type(store), "upsert", upsert)
    report = ingest(repo, embedder, store)
    assert report.written == 4
    assert [reason.split(":")[0] for reason in report.refused.values()] == ["pkg/b.py"]


def test_a_store_that_loses_rows_is_found_out(repo, embedder, store, monkeypatch):
    monkeypatch.setattr(type(store), "_upsert", lambda self, *rows: None)
    with pytest.raises(StoreError, match=r"holds 0 rows .* where 5 were acknowledged"):
        ingest(repo, embedder, store)


def test_a_store_that_changes_vectors_is_found_out(repo, embedder, store, monkeypatch):
    real = type(store).vectors
    monkeypatch.setattr(
        type(store), "vectors", lambda self, ids: {key: np.roll(v, 1) for key, v in real(self, ids).items()}
    )
    with pytest.raises(StoreError, match="reads back with cosine"):
        ingest(repo, embedder, store)


def test_plan_changes_nothing_and_tells_what_would_happen(repo, embedder, store):
    assert plan(repo, store).written == 5
    assert store.spec is None
    ingest(repo, embedder, store)
    (repo / "pkg" / "a.py").write_text(function("new") + function("alpha"))
    found = plan(repo, store)
    assert (found.written, found.moved, found.deleted, found.stored) == (1, 1, 1, 5)
    assert store.count() == 5
    assert plan(repo).written == 5


def test_an_empty_folder_is_no_error(tmp_path, embedder, store):
    (tmp_path / "empty").mkdir()
    report = ingest(tmp_path / "empty", embedder, store)
    assert (report.files, report.chunks, report.stored) == (0, 0, 0)


def test_progress_is_called_for_each_file(repo, embedder, store):
    seen = []
    ingest(repo, embedder, store, progress=lambda done, total, path: seen.append((done, total, path)))
    assert seen == [(0, 3, "pkg/a.py"), (1, 3, "pkg/b.py"), (2, 3, "readme.md")]
