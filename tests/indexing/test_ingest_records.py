"""What `ingest_records` reads, what it keeps in memory, and how it says what is wrong."""

from __future__ import annotations

import datetime
import decimal
import gzip
import json
import tracemalloc
import uuid
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from c2llm_integrations import CodeChunk, InputError, Record, RepositoryError, ingest, ingest_records, open_store
from c2llm_integrations.errors import SpecMismatch
from c2llm_integrations.indexing import write_changes
from c2llm_integrations.indexing.ingest_records import _batch, plan_records
from c2llm_integrations.indexing.options import RecordOptions
from c2llm_integrations.indexing.record_readers import Names, read_items
from c2llm_integrations.indexing.row_diff import Change, KeySet, StoredDigests
from c2llm_integrations.stores.bulk_loader import KEPT_REFUSED
from c2llm_integrations.stores.records import digest_of
from c2llm_integrations.stores.row_fields import stored_of
from tests.conftest import write_project
from tests.indexing.record_models import CountingEmbedder, held, vectors_of

ROWS = [{"id": "a", "text": "one", "votes": 1}, {"id": "b", "text": "two", "votes": 2}]
WANTED = {"a": ("one", {"votes": 1}), "b": ("two", {"votes": 2})}


@pytest.fixture
def store():
    with open_store("qdrant+memory://", "answers") as opened:
        yield opened


def load(store, records, **options):
    return ingest_records(records, CountingEmbedder(), store, **{"source": "answers", **options})


# ---- what is read


@dataclass
class Document:
    """Has what LangChain's has."""

    page_content: str
    metadata: dict[str, Any] = field(default_factory=dict)
    id: str | None = None


def langchain():
    documents = pytest.importorskip("langchain_core.documents")
    return [documents.Document(row["text"], id=row["id"], metadata={"votes": row["votes"]}) for row in ROWS]


def llama_index():
    schema = pytest.importorskip("llama_index.core.schema")
    return [schema.TextNode(text=row["text"], id_=row["id"], metadata={"votes": row["votes"]}) for row in ROWS]


def data_set():
    return pytest.importorskip("datasets").Dataset.from_list(ROWS)


def arrow():
    return pytest.importorskip("pyarrow").Table.from_pylist(ROWS)


@pytest.mark.parametrize(
    "make",
    [
        lambda: ROWS,
        lambda: iter(ROWS),
        lambda: [Record(row["id"], row["text"], {"votes": row["votes"]}) for row in ROWS],
        lambda: [Record(row["id"], row["text"], {"votes": row["votes"]}, "answers") for row in ROWS],
        langchain,
        llama_index,
        data_set,
        arrow,
    ],
    ids=["list", "generator", "records", "records-of-it", "langchain", "llama-index", "datasets", "arrow"],
)
def test_every_shape_of_records_is_read_alike(store, make):
    assert load(store, make()).refused == {}
    assert held(store, "answers") == WANTED
    assert load(store, ROWS).unchanged == 2


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz", "rows.ndjson", "rows.parquet"])
def test_every_kind_of_file_is_read_alike(store, tmp_path, name):
    lines = "".join(json.dumps(row) + "\n\n" for row in ROWS).encode()
    file = tmp_path / name
    if name.endswith(".parquet"):
        pytest.importorskip("pyarrow.parquet").write_table(arrow(), file)
    else:
        file.write_bytes(gzip.compress(lines) if name.endswith(".gz") else b"\xef\xbb\xbf" + lines)
    assert load(store, file).written == load(store, str(file)).unchanged == 2
    assert held(store, "answers") == WANTED


def test_a_bad_line_of_a_file_is_refused_with_its_place(store, tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b'{"id": "a", "text": "one"}\nnonsense\n[1]\n{"text": "\xff"}\n{"id": "b", "text": "two"}\n')
    report = load(store, file)
    assert report.written == 2
    assert list(report.refused) == [f"{file}: line {number}" for number in (2, 3, 4)]


def test_of_many_bad_records_the_first_are_named_and_all_counted(store):
    """Also in a plan, which files none."""
    bad = [{"id": f"r{n}"} for n in range(KEPT_REFUSED + 50)]
    for report in (plan_records(bad, CountingEmbedder(), store, "answers", RecordOptions()), load(store, bad)):
        assert (report.refused_count, list(report.refused)) == (len(bad), [one["id"] for one in bad[:KEPT_REFUSED]])
        assert report.notes[0].startswith(f"nothing is stored of {len(bad):,} records")


@pytest.mark.parametrize("kind", ["timestamp", "duration"])
def test_a_date_beyond_pythons_is_told_with_its_file(store, tmp_path, kind):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    value = pa.array([2**58], getattr(pa, kind)("ms"))
    pq.write_table(pa.table({"id": ["a"], "text": ["one"], "when": value}), tmp_path / "rows.parquet")
    with pytest.raises(InputError, match=r"rows\.parquet has a value that cannot be read \(.*; write it as text"):
        load(store, tmp_path / "rows.parquet")


def test_fields_have_the_names_that_are_asked_for(store):
    rows = [{"url": "http://a", "body": "one", "id": 5}, {"url": None, "body": "two"}]
    report = load(store, rows, text="body", id="url", transform=lambda row: {**row, "id": None})
    assert (report.written, len(report.refused)) == (0, 2)
    without_id = [{name: value for name, value in row.items() if name != "id"} for row in rows]
    assert load(store, without_id, text="body", id="url").written == 2
    assert held(store, "answers").pop("http://a") == ("one", {})


def test_a_document_keeps_its_fields_and_takes_its_id_from_the_one_named(store):
    documents = [Document("one", {"text": "kept", "url": "http://a"}, id="x"), Document("two", {"url": "http://b"})]
    load(store, documents)
    assert held(store, "answers")["x"] == ("one", {"text": "kept", "url": "http://a"})
    load(store, documents, id="url", source="by url")
    assert set(held(store, "by url")) == {"http://a", "http://b"}


def test_a_run_that_stores_no_record_says_so_first(store):
    bad = [{"id": id, "body": "x"} for id in "ab"]
    report = load(store, bad, fields={"votes": "integer"})
    assert report.notes[0].startswith("nothing is stored of 2 records: each was refused, such as answers: a: it has no")
    assert len(report.notes) == 2
    planned = plan_records(bad, CountingEmbedder(), store, "answers", RecordOptions())
    assert planned.notes[0].startswith("nothing is stored of 2 records")
    assert load(store, [*bad, ROWS[0]]).notes == load(store, [*bad, ROWS[0]]).notes == load(store, []).notes == []


def test_what_transform_returns_is_stored(store):
    report = load(store, range(5), transform=lambda n: {"text": str(n), "n": n} if n % 2 else None)
    assert (report.records, report.written) == (2, 2)
    assert sorted(held(store, "answers").values()) == [("1", {"n": 1}), ("3", {"n": 3})]


def test_values_of_numpy_and_dates_are_stored_as_json(store):
    when = datetime.datetime(2026, 1, 31, 12, tzinfo=datetime.timezone.utc)
    row = {"id": np.int64(7), "text": "x", "n": np.float32(0.5), "day": when.date(), "at": [when], "list": np.arange(2)}
    for _ in range(2):
        report = load(store, [row, {"id": uuid.UUID(int=2**127), "text": "y"}])
        assert report.refused == {}
    assert report.unchanged == 2
    assert load(store, [{"id": 8, "text": np.str_("z"), "tag": np.str_("t")}]).written == 1
    expected = {"n": 0.5, "day": "2026-01-31", "at": ["2026-01-31T12:00:00+00:00"], "list": [0, 1]}
    assert held(store, "answers")[7] == ("x", expected)


def test_equal_texts_without_ids_are_rows_of_their_own(store):
    rows = [{"text": "same", "n": n} for n in range(5)]
    assert load(store, rows).written == 5
    assert load(store, rows, id=None, delete_missing=True).unchanged == 5
    assert load(store, rows[:3], delete_missing=True).deleted == 2


# ---- what is refused as a whole


@pytest.mark.parametrize(
    ("records", "options", "message"),
    [
        ({"a": 1}, {}, "records is a dict, expected"),
        (5, {}, "records is a int"),
        ("rows.csv", {}, "not a file of records"),
        ("missing.jsonl", {}, "missing.jsonl does not exist"),
        (ROWS, {"source": ""}, "name the set"),
        (ROWS, {"source": 5}, "name the set"),
        (ROWS, {"source": "\ud800"}, "lone surrogate"),
        (ROWS, {"batch_size": 0}, "batch_size is 0"),
        (ROWS, {"fields": {"votes": "number"}}, "kind 'number'"),
    ],
)
def test_what_cannot_be_loaded_at_all_is_said_in_one_line(store, records, options, message):
    with pytest.raises(InputError, match=message) as caught:
        load(store, records, **options)
    assert "\n" not in str(caught.value)
    assert store.spec is None or store.count() == 0


def test_a_folder_in_place_of_a_file_is_told(store, tmp_path):
    (tmp_path / "rows.jsonl").mkdir()
    with pytest.raises(InputError, match=r"rows\.jsonl is not a file; give"):
        load(store, tmp_path / "rows.jsonl")


def test_a_data_frame_is_told_how_to_be_given(store):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame([*ROWS, {"text": "last"}])  # what a row lacks is NaN in a frame
    with pytest.raises(InputError) as told:
        load(store, frame)
    advised = str(told.value).partition("records=")[2]
    assert load(store, eval(advised, {"frame": frame})).refused == {}
    [why] = load(store, [{"id": "c", "text": "three", "when": pandas.NaT}]).refused.values()
    assert "field 'when': NaTType is not JSON" in why
    [why] = load(store, [frame.T]).refused.values()
    assert "\n" not in why


def test_a_frame_of_polars_is_its_rows(store):
    polars = pytest.importorskip("polars")
    rows = [{"id": "a", "text": "one", "votes": 1}, {"id": "b", "text": "two", "votes": None}]
    report = load(store, polars.DataFrame(rows))
    assert (report.written, report.refused) == (2, {})
    assert dict(store.get("b", source="answers")["b"].metadata) == {"votes": None}
    assert load(store, rows).unchanged == 2


def test_what_names_an_embedder_or_a_store_is_told_from_it(store):
    with pytest.raises(InputError, match=r"expected a C2LLMEmbedder .*\.embedder"):
        ingest_records(ROWS, "nano", store, source="answers")
    with pytest.raises(InputError, match=r"expected an open store, such as open_store.*'qdrant\+memory://'"):
        ingest_records(ROWS, CountingEmbedder(), "qdrant+memory://", source="answers")


def test_a_used_up_generator_deletes_nothing(store):
    rows = iter(ROWS)
    load(store, rows, delete_missing=True)
    with pytest.raises(InputError, match="delete all 2 rows of 'answers'"):
        load(store, rows, delete_missing=True)
    assert store.count(source="answers") == 2


def test_a_generator_that_fails_keeps_what_was_stored_and_deletes_nothing(store):
    load(store, [{"id": "old", "text": "old"}])

    def failing():
        yield from ROWS
        raise OSError("the export was cut off")

    with pytest.raises(OSError, match="cut off"):
        load(store, failing(), delete_missing=True, batch_size=1)
    assert set(held(store, "answers")) >= {"old", "a"}


def test_decimals_and_times_become_json(store):
    metadata = {"price": decimal.Decimal("12.50"), "at": datetime.time(1, 2), "deep": {"n": [decimal.Decimal(3)]}}
    assert load(store, [{"id": "a", "text": "one", **metadata}], fields={"price": "float"}).written == 1
    assert held(store, "answers") == {"a": ("one", {"price": 12.5, "at": "01:02:00", "deep": {"n": [3]}})}
    assert load(store, [{"id": "a", "text": "one", **metadata}]).unchanged == 1
    assert store.count(where={"price": {"gte": 12.5}}) == 1


def test_a_named_field_that_no_record_has_is_noted(store):
    fields = {"vots": "integer", "author.name": "keyword"}
    rows = [{**ROWS[0], "author": {"name": "Ada"}}, ROWS[1]]
    for report in (
        plan_records(rows, CountingEmbedder(), None, "answers", RecordOptions(fields=fields)),
        load(store, rows, fields=fields),
    ):
        assert report.notes == ["no record has the field 'vots'; check the name"]
    assert load(store, rows).notes == []
    with pytest.raises(SpecMismatch, match="does not index the field 'votes', asked for integer; leave that out"):
        load(store, rows, fields={"votes": "integer"})
    assert load(store, [{"text": "three", "key": "k"}], id="kye").notes[0].startswith("no record has the field 'kye'")


def test_another_field_of_ids_is_named(store):
    report = load(store, ROWS, id="key")
    assert all("it has no field 'key', but one named 'id'; name the" in why for why in report.refused.values())
    assert report.written == 0


def test_declared_fields_take_one_kind_and_the_tenant_must_be_there(store):
    fields = {"votes": "integer", "customer": "tenant"}
    rows = [
        {"id": "ok", "text": "x", "votes": 1, "customer": "a"},
        {"id": "kind", "text": "x", "votes": "1", "customer": "a"},
        {"id": "nobody", "text": "x", "votes": 1},
    ]
    report = load(store, rows, fields=fields)
    assert (report.written, set(report.refused)) == (1, {"kind", "nobody"})
    assert set(load(store, rows).refused) == {"kind", "nobody"}
    assert dict(store.spec.fields) == fields


def test_metadata_of_a_chunk_of_the_same_name_is_refused(store):
    chunk = CodeChunk(str(uuid.UUID(int=5)), "answers", "a.py", "python", "f", "function", 1, 2, "x")
    report = load(store, [{"id": "a", "text": "x", **chunk.metadata}, {"id": "b", "text": "y"}])
    assert (report.written, list(report.refused)) == (1, ["a"])


# ---- beside a repository


def test_records_and_a_repository_share_a_store(tmp_path, project):
    embedder = CountingEmbedder()
    url = f"qdrant+edge://{project / '.c2llm'}"
    with open_store(url) as store:
        ingest(project, embedder, store, repository="shop")
        load(store, ROWS, delete_missing=True)
        with pytest.raises(RepositoryError, match="'shop' is a repository"):
            load(store, ROWS, source="shop")
        with pytest.raises(RepositoryError, match="'answers' in this collection was indexed"):
            ingest(write_project(tmp_path / "other"), embedder, store, repository="answers")
        assert ingest(project, embedder, store).unchanged == store.count(source="shop")
        assert load(store, ROWS, delete_missing=True).unchanged == 2


# ---- a plan, memory, ids


def test_a_plan_says_what_a_run_would_do_and_does_nothing(store):
    options = RecordOptions(delete_missing=True)
    assert plan_records(ROWS, CountingEmbedder(), store, "answers", options).written == 2
    assert store.spec is None
    load(store, [*ROWS, {"id": "c", "text": "gone"}])
    changed = [{**ROWS[0], "votes": 9}, {**ROWS[1], "text": "new"}, {"id": "d"}]
    planned = plan_records(changed, CountingEmbedder(), store, "answers", options)
    assert (planned.written, planned.updated, planned.deleted, list(planned.refused)) == (1, 1, 1, ["d"])
    assert set(held(store, "answers")) == {"a", "b", "c"}
    assert load(store, changed, delete_missing=True).written == planned.written


def test_memory_does_not_grow_with_the_records_of_a_generator(tmp_path):
    """The rows go to disk; what is kept of each is its id, and less than its text."""

    def peak(count):
        text = "x" * 10_000
        records = ({"id": f"doc-{n}", "text": f"{n} {text}"} for n in range(count))
        vectors = (vector for n in range(0, count, 100) for vector in vectors_of([str(n + at) for at in range(100)]))
        with open_store(f"qdrant+edge://{tmp_path / str(count)}", "answers") as store:
            tracemalloc.start()
            ingest_records(records, None, store, source="answers", vectors=vectors, batch_size=50)
            most = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        return most

    few, many = peak(500), peak(2_000)
    assert many - few < 1_500 * 10_000 / 10


@given(st.lists(st.integers(0, 2**64 - 1) | st.text(min_size=1, max_size=3) | st.integers(0, 20), max_size=200))
def test_a_key_set_is_a_set(ids):
    keys, known = KeySet(), set()
    for id in ids:
        assert (id in keys) == (id in known)
        assert keys.add(id) == (id not in known)
        known.add(id)


def test_a_key_set_grows():
    keys = KeySet()
    assert all(keys.add(number) for number in range(5_000))
    assert not any(keys.add(number) for number in range(5_000))


def test_a_key_set_grows_where_all_want_the_last_place(monkeypatch):
    monkeypatch.setattr("c2llm_integrations.indexing.row_diff._hash", lambda id: id)
    ids = [(number << 20) - 1 for number in range(1, 1_500)] + [(number << 20) for number in range(1, 1_500)]
    keys = KeySet()
    assert all(keys.add(id) for id in ids)
    assert not any(keys.add(id) for id in ids)
    assert ids[0] - 1 not in keys


def test_long_texts_make_batches_smaller(store, monkeypatch):
    monkeypatch.setattr("c2llm_integrations.indexing.ingest_records.BATCH_CHARS", 100)
    monkeypatch.setattr(write_changes, "BATCH_CHARS", 100)
    sizes = []
    upsert = store.upsert
    monkeypatch.setattr(store, "upsert", lambda rows: sizes.append(len(rows)) or upsert(rows))
    given = [{"id": f"{at}", "text": "x" * (60 if at < 6 else 2)} for at in range(40)]
    assert ingest_records(given, CountingEmbedder(), store, source="s").stored == 40
    assert sorted(sizes) == [2, 2, 2, 34]


def test_long_metadata_makes_batches_smaller(store, monkeypatch):
    monkeypatch.setattr(write_changes, "BATCH_CHARS", 100)
    sizes = []
    upsert = store.upsert
    monkeypatch.setattr(store, "upsert", lambda rows: sizes.append(len(rows)) or upsert(rows))
    given = [{"id": f"{at}", "text": "x", "note": "x" * (40 if at < 6 else 0)} for at in range(10)]
    assert ingest_records(given, CountingEmbedder(), store, source="s").stored == 10
    assert sorted(sizes) == [2, 2, 2, 4]


def test_long_lines_make_batches_smaller(tmp_path, monkeypatch):
    """A line may hold lists in lists, which take 24 times its bytes, and no text."""
    monkeypatch.setattr("c2llm_integrations.indexing.ingest_records.BATCH_CHARS", 100)
    (tmp_path / "x.jsonl").write_text('{"note": [[],[],[],[],[],[],[],[],[],[]]}\n' * 5 + '{"text": "x"}\n' * 9)
    items = read_items(tmp_path / "x.jsonl", Names("text", "id", None), "s", None)
    assert [len(_batch(items, 8)) for _ in range(4)] == [3, 4, 7, 0]


@pytest.mark.parametrize(
    "written", ["z" * 32, "-" + "1" * 31, "0x" + "1" * 30, "1_" * 16, "é" * 32, "", "1" * 31, " " * 32]
)
def test_a_digest_that_others_wrote_is_that_of_no_record(written):
    digest = digest_of(Record("a", "x", {"votes": 1}))
    rows = StoredDigests([stored_of(1, {}, written), stored_of(2, {}, digest)])
    assert rows.take([1, 2, 3], [digest] * 3) == [Change.NEW, Change.NONE, None]


@pytest.mark.parametrize("records", ["missing.jsonl", {"id": "a", "text": "one"}, 5])
def test_what_holds_no_records_is_refused_before_anything_is_made(tmp_path, records):
    with open_store(f"qdrant+edge://{tmp_path / 'new'}", "snippets") as store:
        with pytest.raises(InputError):
            load(store, records)
        assert store.spec is None


@pytest.mark.parametrize("vector", [12, "0.5", None])
def test_what_is_not_a_list_of_numbers_makes_no_collection(tmp_path, vector):
    with open_store(f"qdrant+edge://{tmp_path / 'new'}", "snippets") as store:
        with pytest.raises(InputError, match="lists of numbers"):
            ingest_records([{"id": "a", "text": "one", "v": vector}], None, store, source="answers", vectors="v")
        assert store.spec is None


def test_a_plan_refuses_what_the_run_will(store):
    fields = {"votes": "integer"}
    load(store, [{"id": "a", "text": "one", "votes": 1}], fields=fields, replace=True)
    bad = [
        {"id": "a", "text": "one", "votes": "many"},
        {"id": "b", "text": "two", "vector": 1},
        {"id": "c", "text": "x"},
    ]
    planned = plan_records(bad, CountingEmbedder(), store, "answers", RecordOptions(fields=fields))
    report = load(store, bad, fields=fields)
    for one in (planned, report):
        assert (one.written, one.updated, one.refused_count, list(one.refused)) == (1, 0, 2, ["a", "b"])
