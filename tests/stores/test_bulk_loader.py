"""Loading loses nothing: what is refused is named and set aside, the rest is stored, and the store is asked."""

import json
import os
import threading
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from c2llm_integrations.code.chunk import CodeChunk, chunk_id
from c2llm_integrations.errors import BatchRefused, InputError, StoreError
from c2llm_integrations.stores.bulk_loader import KEPT_REFUSED, Loader, load
from c2llm_integrations.stores.qdrant.edge import QdrantEdgeStore
from c2llm_integrations.stores.records import Record, Row
from c2llm_integrations.stores.spec import CollectionSpec
from tests.faulty_store import FaultyStore
from tests.waiting import until

WIDTH = 8
SPEC = CollectionSpec(WIDTH, {"model": "m", "weights": "w"})


def make_row(number, text=None, **fields):
    text = f"value = {number}\n" if text is None else text
    known = {"repository": "repo", "language": "python", "symbol": "value", "kind": "window"}
    path = f"src/file_{number // 10}.py"
    chunk = CodeChunk(
        id=chunk_id("repo", path, text, number), path=path, start_line=number, end_line=number, text=text, **known
    )
    vector = np.random.default_rng(number).standard_normal(WIDTH).astype(np.float32)
    return Row(replace(chunk, **fields), vector)


def batches(rows, size=10):
    """A generator, which can be read once only."""
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


class Wary(QdrantEdgeStore):
    """The real engine behind a database that refuses a whole request for one poisoned row in it, as servers do."""

    calls = 0

    def _upsert(self, chunks, vectors, terms):
        self.calls += 1
        if any("poison" in chunk.text for chunk in chunks):
            raise BatchRefused("payload is not to our taste")
        super()._upsert(chunks, vectors, terms)


class Wide(QdrantEdgeStore):
    """The real engine, telling how many uploads run at once, and waiting until so many do."""

    capabilities = replace(QdrantEdgeStore.capabilities, uploads=3)

    def __init__(self, *args):
        super().__init__(*args)
        self.together = threading.Barrier(3, timeout=20)
        self.turn = threading.Lock()

    def _upsert(self, chunks, vectors, terms):
        self.together.wait()
        with self.turn:
            super()._upsert(chunks, vectors, terms)


@pytest.fixture(params=[FaultyStore])
def store(request, tmp_path):
    with request.param(tmp_path / "store") as opened:
        opened.create(SPEC)
        yield opened


wary = pytest.mark.parametrize("store", [Wary], indirect=True)


def stored(store):
    return {row.chunk.text for row in store.rows()}


def test_a_generator_of_batches_is_stored_whole(store):
    # langchain #39628: a generator argument stored 0 points.
    rows = [make_row(n) for n in range(95)]
    report = load(batches(rows), store)
    assert (report.written, report.refused, report.shortened, store.count()) == (95, {}, 0, 95)
    held = store.vectors([row.chunk.id for row in rows])
    for row in rows:
        np.testing.assert_allclose(held[row.chunk.id], row.vector / np.linalg.norm(row.vector), atol=1e-6)


def test_loading_again_changes_nothing(store):
    rows = [make_row(n) for n in range(30)]
    load([rows], store)
    assert load(batches([*rows[10:], make_row(99)]), store).written == 21
    assert store.count() == 31


def test_what_the_store_refuses_is_set_aside_in_a_file(store, tmp_path):
    rows = [make_row(n) for n in range(20)]
    rows[3] = replace(rows[3], vector=np.full(WIDTH, np.nan, np.float32))
    rows[14] = replace(rows[14], vector=np.ones(3, np.float32))
    file = tmp_path / "refused.jsonl"
    file.write_text('{"id": 1, "reason": "of another run"}\n')
    report = load(batches(rows), store, refused=file)
    assert (report.written, store.count(), set(report.refused)) == (18, 18, {rows[3].chunk.id, rows[14].chunk.id})
    assert report.refused[rows[3].chunk.id].startswith("src/file_0.py:3-3: vector holds NaN")
    first, second = map(json.loads, file.read_text().splitlines())
    assert first == {
        "id": rows[3].chunk.id,
        "repository": "repo",
        "path": "src/file_0.py",
        "lines": "3-3",
        "symbol": "value",
        "reason": "vector holds NaN or infinity; embed the text again",
    }
    assert second["reason"] == "vector has shape (3,), the collection holds (8,)"
    assert load([rows[:3]], store, refused=file).refused == {}
    assert not file.exists()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no pipes among its files")
def test_another_file_is_never_deleted_for_refused_rows(store, tmp_path):
    records = tmp_path / "records.jsonl"
    records.write_text('{"id": 1, "text": "x"}\n')
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for file, message in (
        (records, "records.jsonl exists and is not a file of refused rows; name another one"),
        (tmp_path, "is a folder; name a file in it"),
        (pipe, "is a pipe or device, which is not written over; name another file"),
        (tmp_path / "none" / "refused", "no folder .*none to write refused to; make it, or name another file"),
    ):
        with pytest.raises(InputError, match=message):
            load([[make_row(1)]], store, refused=file)
        assert store.count() == 0
    (link := tmp_path / "link").symlink_to(records)
    assert load([[make_row(1)]], store, refused=link).written == 1
    assert (records.read_text(), link.is_symlink()) == ('{"id": 1, "text": "x"}\n', False)


@pytest.mark.parametrize("left", ["", '{"id": "a", "rea', '{"id": "a", "reason": "too long"}\n'])
def test_what_an_earlier_run_left_makes_room(left, store, tmp_path):
    (file := tmp_path / "refused").write_text(left)
    assert load([[make_row(1)]], store, refused=file).written == 1
    assert not file.exists()


def test_a_file_that_no_refused_row_needs_may_lie_where_nothing_can_be_written(store, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert load([[make_row(1)]], store, refused=tmp_path / "refused").written == 1


def test_a_refused_row_that_cannot_be_written_down_plainly_is_escaped(store, tmp_path):
    row = make_row(1, symbol="lone \ud800", path="a\nb.py")
    assert load([[row, make_row(2)]], store, refused=str(tmp_path / "refused")).written == 1
    [line] = (tmp_path / "refused").read_text("ascii").splitlines()
    assert json.loads(line)["path"] == "a\nb.py"


@wary
def test_a_refused_batch_is_halved_until_the_poison_is_alone(store):
    rows = [make_row(n, "poison" if n == 70 else None) for n in range(128)]
    report = load([rows], store)
    assert (report.written, store.count(), list(report.refused)) == (127, 127, [rows[70].chunk.id])
    assert report.refused[rows[70].chunk.id] == "src/file_7.py:70-70: payload is not to our taste"
    assert store.calls == 1 + 2 * 7


@wary
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(poisoned=st.sets(st.integers(0, 39)), size=st.integers(1, 40))
def test_exactly_the_poisoned_rows_are_refused(store, poisoned, size):
    store.delete([row.id for row in store.scan()])
    rows = [make_row(n, f"poison {n}" if n in poisoned else None) for n in range(40)]
    report = load(batches(rows, size), store)
    assert set(report.refused) == {rows[n].chunk.id for n in poisoned}
    assert stored(store) == {row.chunk.text for n, row in enumerate(rows) if n not in poisoned}


def test_texts_cut_at_the_stores_limit_are_counted(store, tmp_path):
    with QdrantEdgeStore(tmp_path / "cutting") as cutting:
        cutting.capabilities = replace(cutting.capabilities, max_text_bytes=100)
        cutting.create(replace(SPEC, long_text="cut"))
        report = load([[make_row(1, "é" * 99), make_row(2), make_row(3, "x" * 101)]], cutting)
        assert (report.written, report.shortened) == (3, 2)
        assert stored(cutting) == {"é" * 50, "value = 2\n", "x" * 100}


@pytest.mark.parametrize("store", [Wide], indirect=True)
def test_as_many_uploads_run_at_once_as_the_store_takes(store):
    # Fewer than three would wait for each other until the barrier breaks.
    rows = [make_row(n) for n in range(60)]
    assert load(batches(rows), store).written == 60
    assert stored(store) == {row.chunk.text for row in rows}


def test_the_producer_works_ahead_of_a_slow_store_by_so_much_and_no_more(store):
    made, written, ahead = [], [], []

    def upload(write, *batch):
        # Goes on only once the producer has gone as far as it may: one is written, one waits, one has no place yet.
        until(lambda: len(made) >= min(len(written) + 3, 20))
        write(*batch)
        written.append(batch)

    def produce():
        for n in range(20):
            made.append(n)
            ahead.append(len(made) - len(written))
            yield [make_row(n)]

    store.upload = upload
    assert load(produce(), store).written == 20
    assert max(ahead) == 3


def test_an_error_of_the_store_stops_the_producer_and_loses_nothing_acknowledged(store):
    made = []

    def upload(write, chunks, *rest):
        if chunks[0].start_line == 50:
            raise OSError(28, "No space left on device")
        write(chunks, *rest)

    store.upload = upload

    def produce():
        for n in range(0, 1000, 10):
            made.append(n)
            yield [make_row(n + i) for i in range(10)]

    with pytest.raises(StoreError, match="No space left"):
        load(produce(), store)
    assert len(made) <= 5 + 4
    assert store.count() == 50


def test_an_interrupted_load_writes_what_it_was_given_and_leaves_no_thread(store):
    before = threading.active_count()

    def produce():
        yield from batches([make_row(n) for n in range(40)])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load(produce(), store)
    assert store.count() == 40
    assert threading.active_count() == before


def test_a_store_that_acknowledges_and_forgets_is_found_out(store):
    store.upload = lambda write, chunks, vectors, terms: write(chunks[1:], vectors[1:], terms and terms[1:])
    with pytest.raises(StoreError, match=r"holds 27 rows, expected 30; of 30 .* it lacks 3, such as"):
        load(batches([make_row(n) for n in range(30)]), store)


def test_a_store_that_changes_vectors_is_found_out(store):
    store.upload = lambda write, chunks, vectors, terms: write(chunks, np.roll(vectors, 1, 1), terms)
    with pytest.raises(StoreError, match="reads back with cosine"):
        load(batches([make_row(n) for n in range(30)]), store)


def test_rows_that_others_write_meanwhile_are_no_error(store):
    other = make_row(2)
    store.upload = lambda write, *batch: (write(*batch), write([other.chunk], other.vector[None], None))
    assert load([[make_row(1)], [make_row(3)]], store).written == 2
    assert store.count() == 3


@pytest.mark.parametrize("quantization", [None, "int8", "binary"])
def test_half_precision_and_codes_read_back_as_sent(tmp_path, quantization):
    with QdrantEdgeStore(tmp_path / "compact") as compact:
        compact.create(replace(SPEC, datatype="float16", quantization=quantization))
        report = load(batches([make_row(n) for n in range(300)], 100), compact)
        assert (report.written, compact.count()) == (300, 300)


def test_updates_of_rows_that_are_gone_are_set_aside(store):
    rows = [make_row(n) for n in range(3)]
    load([rows], store)
    store.delete([rows[1].chunk.id])
    with Loader(store) as loader:
        loader.update([replace(row.chunk, symbol="renamed") for row in rows])
    assert list(loader.report.refused) == [rows[1].chunk.id]
    assert [row.symbol for row in store.scan()] == ["renamed", "renamed"]


def test_a_loader_that_waits_has_stored_what_it_was_given(store):
    rows = [make_row(n) for n in range(30)]
    with Loader(store, waits=True) as loader:
        for batch in batches(rows):
            loader.add(batch)
            assert len(loader.keys()) == store.count()
    assert store.count() == 30


def test_a_loader_that_waits_fails_at_once_and_for_good(store):
    rows, told = [make_row(n) for n in range(30)], []

    def fail_on_the_second(write, records, *rest):
        if len(told) == 1 or records[0].id == rows[10].chunk.id:
            raise OSError("disk full")
        write(records, *rest)

    store.upload = fail_on_the_second

    def load_all():
        with Loader(store, waits=True) as loader:
            for batch in batches(rows):
                try:
                    loader.add(batch)
                except StoreError as error:
                    told.append((batch[0].chunk.id, str(error)))

    with pytest.raises(StoreError, match="disk full"):
        load_all()
    assert [id for id, _ in told] == [rows[10].chunk.id, rows[20].chunk.id]
    assert store.count() == 10


def test_the_vectors_read_back_are_a_fair_sample(store):
    rows = [make_row(n) for n in range(1000)]
    load(batches(rows), store)
    places = {row.chunk.id: n for n, row in enumerate(rows)}
    chosen = sorted(places[id] for id in store.read)
    assert len(set(chosen)) == 32
    assert chosen[0] < 200 < 800 < chosen[-1]
    assert 350 < np.mean(chosen) < 650


def test_what_fails_within_a_bulk_load_is_what_is_told(store):
    def fail():
        raise OSError("gone too")

    store.restoring = fail
    with pytest.raises(KeyboardInterrupt), store.bulk():
        raise KeyboardInterrupt
    with pytest.raises(StoreError, match="gone too"), store.bulk():
        pass


def test_of_many_refused_rows_the_first_are_named_all_counted_and_filed(store, tmp_path):
    rows = [replace(make_row(n), vector=np.ones(3, np.float32)) for n in range(KEPT_REFUSED + 50)]
    report = load(batches([make_row(10**6), *rows], 500), store, refused=tmp_path / "refused.jsonl")
    assert (report.written, report.refused_count) == (1, len(rows))
    assert list(report.refused) == [row.chunk.id for row in rows[:KEPT_REFUSED]]
    filed = [json.loads(line)["id"] for line in (tmp_path / "refused.jsonl").read_text().splitlines()]
    assert filed == [row.chunk.id for row in rows]


def test_of_two_sources_with_one_name_only_the_refused_one_is_left_out(tmp_path):
    with QdrantEdgeStore(tmp_path / "store") as store:
        store.create(SPEC)
        good, bad, odd = (
            Record("a", "one", {}, "x"),
            Record("a", "two", {"id": 1}, "y"),
            Record(["a"], "three", {}, "z"),
        )
        vector = np.ones(WIDTH, np.float32)
        report = load([[Row(one, vector) for one in (good, bad, odd)]], store, refused=tmp_path / "refused.jsonl")
        assert (report.written, report.refused_count, list(report.refused)) == (1, 2, ["a", "['a']"])
        assert [(one.source, one.text) for one in store.scroll()] == [("x", "one")]
    lines = map(json.loads, (tmp_path / "refused.jsonl").read_text().splitlines())
    assert [(line["id"], line["source"]) for line in lines] == [("a", "y"), (["a"], "z")]


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_vectors_whose_squares_leave_float32_are_read_back(tmp_path, size):
    with QdrantEdgeStore(tmp_path / "store") as store:
        store.create(SPEC)
        assert load([[Row(Record("a", "one"), np.full(WIDTH, size, np.float32))]], store).written == 1
