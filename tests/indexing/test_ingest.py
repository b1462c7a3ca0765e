"""Ingest keeps the collection equal to the tree: nothing lost, nothing twice, nothing stale."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from c2llm_integrations.code.lexical_terms import ANALYZER
from c2llm_integrations.errors import InputError, RepositoryError, RowsRefused, SpecMismatch, StoreError
from c2llm_integrations.indexing.ingest import ingest, plan
from c2llm_integrations.indexing.options import IngestOptions
from c2llm_integrations.indexing.report import Estimate
from c2llm_integrations.model.embedder import C2LLMEmbedder
from c2llm_integrations.stores import open_store
from c2llm_integrations.stores.records import Record, Row
from c2llm_integrations.stores.spec import CollectionSpec, CompactPlan
from tests.golden import COMPRESSED, TIED

pytestmark = pytest.mark.slow

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
    monkeypatch.setattr("c2llm_integrations.code.repository.read_file", lambda *_: ("unreadable", None))
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
    assert store.count(source="project") == 5


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
        plan(repo, store, options=IngestOptions(repository="other"))
    assert store.count() == 5


def test_a_tree_that_vanishes_during_the_run_loses_no_row(repo, embedder, store):
    ingest(repo, embedder, store)
    with pytest.raises(RepositoryError, match=r"vanished during the run.*no row was deleted"):
        ingest(repo, embedder, store, progress=lambda done, total, path: shutil.rmtree(repo, ignore_errors=True))
    assert store.count() == 5


def test_a_tree_that_another_folder_replaces_during_the_run_loses_no_row(repo, embedder, store):
    ingest(repo, embedder, store)
    is_new: list[Path] = []

    def replace_it(done: int, total: int | None, path: str) -> None:
        if not is_new:
            is_new.append(repo.rename(repo.with_name("lost")))
            repo.mkdir()

    with pytest.raises(RepositoryError, match=r"vanished during the run.*another folder.*no row was deleted"):
        ingest(repo, embedder, store, progress=replace_it)
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
        bad = {place: (row.chunk.id, "too big") for place, row in enumerate(rows) if "gamma" in row.chunk.text}
        if bad:
            raise RowsRefused(bad)
        return real(self, rows)

    monkeypatch.setattr(type(store), "upsert", upsert)
    report = ingest(repo, embedder, store, refused=str(repo.parent / "refused.jsonl"))
    assert report.written == 4
    assert [reason.split(":")[0] for reason in report.refused.values()] == ["pkg/b.py"]
    [line] = (repo.parent / "refused.jsonl").read_text().splitlines()
    assert (json.loads(line)["symbol"], json.loads(line)["reason"]) == ("gamma", "too big")


def test_a_store_that_loses_rows_is_found_out(repo, embedder, store, monkeypatch):
    monkeypatch.setattr(type(store), "_upsert", lambda self, *rows: None)
    with pytest.raises(StoreError, match=r"holds 0 rows, expected 5; of 5 that it acknowledged it lacks 5"):
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


def test_a_new_collection_is_lexical_where_the_store_is_and_plain_unless_asked(repo, embedder, store):
    ingest(repo, embedder, store)
    assert store.spec == CollectionSpec(
        embedder.output_dim, embedder.fingerprint, analyzer=ANALYZER if store.capabilities.lexical else None
    )


def test_what_is_not_asked_for_stays_as_the_collection_has_it(repo, embedder, tmp_path):
    spec = CollectionSpec(embedder.output_dim, embedder.fingerprint, "float16", "int8", 3.0, None, "cut")
    with open_store(f"qdrant+edge://{tmp_path / 'kept'}") as store:
        store.create(spec)
        assert ingest(repo, embedder, store).stored == 5
        assert store.spec == spec
        with pytest.raises(SpecMismatch, match=r"quantization 'int8'.*asked for None"):
            ingest(repo, embedder, store, compact=CompactPlan(embedder.output_dim, "float16"))
        with pytest.raises(SpecMismatch, match=r"rescore 3.0.*asked for 2.0"):
            plan(repo, store, embedder, IngestOptions(compact=CompactPlan(embedder.output_dim, "float16", "int8")))
        wanted = CompactPlan(embedder.output_dim, "float16", "int8", 3.0)
        assert ingest(repo, embedder, store, compact=wanted).unchanged == 5


def test_a_plan_decides_how_vectors_are_stored(repo, embedder, tmp_path):
    with open_store(f"qdrant+edge://{tmp_path / 'compact'}") as store:
        ingest(repo, embedder, store, compact=CompactPlan(embedder.output_dim, "float16", "binary"), long_text="cut")
        assert (store.spec.datatype, store.spec.quantization, store.spec.rescore) == ("float16", "binary", 10.0)
        assert store.spec.long_text == "cut"
        with pytest.raises(InputError, match=r"the plan stores 7 dimensions, the embedder gives \d+"):
            ingest(repo, embedder, store, compact=CompactPlan(7))


def test_only_a_load_of_mostly_new_rows_puts_the_index_off(repo, embedder, store, monkeypatch):
    put_off = []
    real = type(store)._defer
    monkeypatch.setattr(type(store), "_defer", lambda self: put_off.append(self) or real(self))
    ingest(repo, embedder, store)
    assert len(put_off) == 1
    (repo / "pkg" / "a.py").write_text(function("new"))
    assert ingest(repo, embedder, store).written == 1
    assert len(put_off) == 1


def test_an_index_that_a_killed_run_left_unbuilt_is_built_though_nothing_is_written(repo, embedder, store, monkeypatch):
    ingest(repo, embedder, store)
    built = []
    monkeypatch.setattr(type(store), "_optimize", lambda self: built.append(self))
    assert ingest(repo, embedder, store).written == 0
    assert len(built) == 1


# ---- replacing


@pytest.fixture
def other_model() -> C2LLMEmbedder:
    return C2LLMEmbedder.from_pretrained(str(COMPRESSED), dtype="float32")


def test_a_replaced_collection_keeps_how_its_index_is_built(repo, embedder, other_model, tmp_path):
    with open_store(f"qdrant+edge://{tmp_path / 'index'}") as store:
        store.create(CollectionSpec.for_embedder(embedder, index={"m": 24}))
        ingest(repo, embedder, store)
        assert ingest(repo, other_model, store, replace=True).replaced
        assert store.spec.index == {"m": 24}


def test_a_replaced_collection_serves_the_new_model_under_its_name(repo, embedder, other_model, store):
    ingest(repo, embedder, store)
    (repo / "pkg" / "b.py").unlink()
    report = ingest(repo, other_model, store, replace=True)
    assert (report.replaced, report.written, report.stored, store.count()) == (True, 3, 3, 3)
    assert store.spec.fingerprint["weights"] == other_model.fingerprint["weights"]
    assert ingest(repo, other_model, store).unchanged == 3
    with pytest.raises(SpecMismatch):
        ingest(repo, embedder, store)


def test_replacing_nothing_is_a_first_run(repo, embedder, store):
    report = ingest(repo, embedder, store, replace=True)
    assert (report.replaced, report.stored) == (False, 5)


def test_a_replacement_that_fails_leaves_the_old_rows_and_the_next_goes_on(
    repo, embedder, other_model, store, monkeypatch
):
    ingest(repo, embedder, store)
    old = rows(store)
    monkeypatch.setattr("c2llm_integrations.indexing.write_changes.BATCH_RECORDS", 2)

    class Failing(Counting):
        def encode_documents(self, texts, progress=None):
            if len(self.texts) >= 4:
                raise KeyboardInterrupt
            return super().encode_documents(texts, progress=progress)

    with pytest.raises(KeyboardInterrupt):
        ingest(repo, Failing(other_model), store, replace=True)
    assert rows(store) == old
    assert store.spec.width == embedder.output_dim
    report = ingest(repo, other_model, store, replace=True)
    assert (report.replaced, report.unchanged, report.written, report.stored) == (True, 4, 1, 5)


def test_what_a_killed_replacement_for_another_model_left_is_not_taken_up(repo, embedder, other_model, store):
    ingest(repo, embedder, store)
    with store.successor() as begun:
        begun.create(CollectionSpec(3, {"model": "third"}))
    report = ingest(repo, other_model, store, replace=True)
    assert (report.replaced, store.count(), store.spec.width) == (True, 5, other_model.output_dim)


def test_a_replacement_that_lacks_a_row_does_not_take_over(repo, embedder, other_model, store):
    class Choosy(Counting):
        def encode_documents(self, texts, progress=None):
            if any("beta" in text for text in texts):
                raise InputError("text 1 gives a vector with NaN or infinity")
            return super().encode_documents(texts, progress=progress)

    ingest(repo, embedder, store)
    report = ingest(repo, Choosy(other_model), store, replace=True)
    assert (report.replaced, len(report.refused), store.spec.width) == (False, 1, embedder.output_dim)
    assert store.count() == 5


def test_replacing_never_drops_what_other_checkouts_filled_unless_forced(repo, tmp_path, embedder, store):
    other = tmp_path / "second"
    other.mkdir()
    (other / "a.py").write_text(function("alpha"))
    ingest(other, embedder, store)
    ingest(repo, embedder, store)
    with pytest.raises(RepositoryError, match=r"would drop what others filled: second;.*--force"):
        ingest(repo, embedder, store, replace=True)
    assert store.count() == 6
    assert ingest(repo, embedder, store, replace=True, force=True).replaced
    assert (store.count(), list(store.claims())) == (5, ["project"])


def test_replacing_never_drops_rows_that_nobody_claims_unless_forced(repo, embedder, store):
    ingest(repo, embedder, store)
    vector = embedder.encode_documents(["own"])[0]
    store.upsert([Row(Record("own", "own", {}, "unclaimed"), vector)])
    with pytest.raises(RepositoryError, match=r"1 rows that no source claims; .*--force"):
        ingest(repo, embedder, store, replace=True)
    with pytest.raises(RepositoryError, match="1 rows that no source claims"):
        plan(repo, store, options=IngestOptions(replace=True))
    assert store.count() == 6
    assert ingest(repo, embedder, store, replace=True, force=True).replaced
    assert store.count() == 5


def test_a_replacement_under_another_name_is_how_a_checkout_is_renamed(repo, embedder, store):
    ingest(repo, embedder, store)
    assert ingest(repo, embedder, store, repository="renamed", replace=True).replaced
    assert (store.count(source="renamed"), store.count()) == (5, 5)


def test_a_lost_row_is_missed_where_another_repository_has_as_many(repo, embedder, store, tmp_path, monkeypatch):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.py").write_text(function("alpha"))
    ingest(tmp_path / "other", embedder, store)
    upsert = store.upsert

    def losing(rows):
        cut = upsert(rows)
        store.delete([rows[0].record.id])
        return cut

    monkeypatch.setattr(store, "upsert", losing)
    with pytest.raises(StoreError, match="holds 4 rows, expected 5; of 5 that it acknowledged it lacks 1"):
        ingest(repo, embedder, store)


# ---- estimating


def test_a_plan_with_an_embedder_estimates_what_the_run_then_takes(repo, embedder, store):
    for number in range(30):
        (repo / f"more_{number}.py").write_text(function(f"task_{number}", number))
    estimate = plan(repo, store, embedder).estimate
    assert store.spec is None
    report = ingest(repo, embedder, store)
    assert estimate.tokens == pytest.approx(report.tokens, rel=0.1)
    assert 0 < estimate.minutes < 1
    assert estimate.minutes == pytest.approx(estimate.tokens / estimate.tokens_per_second / 60)
    assert plan(repo, store, embedder).estimate == Estimate()


def test_a_server_that_counts_no_tokens_gives_an_estimate_without_them(repo, embedder, store, monkeypatch):
    monkeypatch.setattr(type(embedder), "tokens_seen", property(lambda _: 0, lambda *_: None), raising=False)
    estimate = plan(repo, store, embedder).estimate
    assert (estimate.tokens, estimate.tokens_per_second) == (0, 0)
    assert 0 < estimate.minutes < 1


def test_an_estimate_counts_codes_and_terms(repo, embedder, tmp_path):
    def size(**options):
        asked = IngestOptions(compact=CompactPlan(embedder.output_dim, **options))
        return plan(repo, None, embedder, asked).estimate.store_bytes

    width = embedder.output_dim
    assert size() - size(datatype="float16") == 5 * 2 * width
    assert size(quantization="int8") - size() == 5 * width
