"""Collections that somebody else made are read and searched under their own names, and never changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pymilvus import DataType, MilvusClient
from qdrant_client import QdrantClient, models

from c2llm_integrations import C2LLMEmbedder, Layout, search
from c2llm_integrations._utils.files import FileLock
from c2llm_integrations.code.lexical_terms import query_terms, sparse
from c2llm_integrations.errors import InputError, SpecMismatch, StoreError
from c2llm_integrations.retrieval.options import SearchOptions
from c2llm_integrations.retrieval.store_handles import shared_store
from c2llm_integrations.stores import open_store
from c2llm_integrations.stores.filter import Filter
from c2llm_integrations.stores.milvus.foreign_collection import ForeignMilvusStore
from c2llm_integrations.stores.milvus.lite import acquire, release
from c2llm_integrations.stores.qdrant import foreign_collection as qdrant_foreign
from c2llm_integrations.stores.qdrant.foreign_collection import ForeignQdrantStore
from c2llm_integrations.stores.qdrant.store import QdrantStore
from c2llm_integrations.stores.records import Record, Row
from c2llm_integrations.stores.spec import CollectionSpec
from c2llm_integrations.stores.vector_store import VectorStore

pytestmark = pytest.mark.slow

VECTORS = np.array([[3, 0, 0, 0], [0, 2, 0, 0], [1, 1, 0, 0]], np.float32)
ROWS = [
    ("doc-a", "retry with backoff", {"votes": 5, "lang": "go"}),
    ("doc-b", "parse a date", {"votes": 10, "lang": "c"}),
    ("doc-c", "open a socket", {"lang": "go"}),
]
RECORDS = {id: Record(id, text, metadata) for id, text, metadata in ROWS}


def in_qdrant(distance: models.Distance, metadata: str | None) -> tuple[VectorStore, Callable[[], int]]:
    client = QdrantClient(":memory:")
    client.create_collection(
        "docs",
        vectors_config={"dense": models.VectorParams(size=4, distance=distance)},
        sparse_vectors_config={"bm25": models.SparseVectorParams(modifier=models.Modifier.IDF)},
    )
    words = sparse([query_terms(text) for _, text, _ in ROWS])
    points = []
    for number, ((id, text, fields), (indices, values)) in enumerate(zip(ROWS, words, strict=True)):
        vector = {"dense": VECTORS[number].tolist(), "bm25": models.SparseVector(indices=indices, values=values)}
        payload = {"uuid": id, "content": text, **({metadata: fields} if metadata else fields)}
        points.append(models.PointStruct(id=number, vector=vector, payload=payload))
    client.upsert("docs", points)
    layout = Layout(text="content", id="uuid", vector="dense", sparse="bm25", metadata=metadata)
    return ForeignQdrantStore(client, "docs", layout), lambda: client.count("docs").count


def in_milvus(path: Path, metadata: str | None) -> tuple[VectorStore, Callable[[], int]]:
    path.mkdir()
    client = acquire(path)
    schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=metadata is None)
    schema.add_field("uuid", DataType.VARCHAR, is_primary=True, max_length=64)
    schema.add_field("content", DataType.VARCHAR, max_length=1000)
    schema.add_field("dense", DataType.FLOAT_VECTOR, dim=4)
    if metadata:
        schema.add_field(metadata, DataType.JSON)
    indexes = MilvusClient.prepare_index_params()
    indexes.add_index("dense", index_type="FLAT", metric_type="L2")
    client.create_collection("docs", schema=schema, index_params=indexes)
    rows = []
    for number, (id, text, fields) in enumerate(ROWS):
        row = {"uuid": id, "content": text, "dense": VECTORS[number].tolist()}
        rows.append({**row, metadata: fields} if metadata else {**row, **fields})
    client.insert("docs", rows)
    release(path, client)
    layout = Layout(text="content", id="uuid", vector="dense", metadata=metadata)
    store = open_store(f"milvus+lite://{path}", "docs", layout=layout)
    return store, store.total


@pytest.fixture(params=["cosine", "euclid", "dot nested", "milvus", "milvus nested"])
def theirs(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[VectorStore, Callable[[], int]]]:
    kind, _, nested = request.param.partition(" ")
    metadata = "meta" if nested else None
    if kind == "milvus":
        store, total = in_milvus(tmp_path / "theirs.db", metadata)
    else:
        store, total = in_qdrant(models.Distance[kind.upper()], metadata)
    with store:
        yield store, total


def test_rows_are_read_and_searched(theirs: tuple[VectorStore, Callable[[], int]]) -> None:
    store, _ = theirs
    assert {one.id: one for one in store.scroll()} == RECORDS
    assert store.get(["doc-b", "missing"]) == {"doc-b": RECORDS["doc-b"]}
    assert (store.count(), store.total(), store.count(where={"lang": "go"})) == (3, 3, 2)
    hits = store.search([1, 0, 0, 0], 2)  # type: ignore[arg-type]
    assert [hit.record for hit in hits] == [RECORDS["doc-a"], RECORDS["doc-c"]]
    assert [hit.score for hit in hits] == pytest.approx([1, 0.5**0.5], abs=1e-6)
    np.testing.assert_allclose(store.vectors("doc-a")["doc-a"], [1, 0, 0, 0], atol=1e-6)
    assert {row.record.id for row in store.rows(where={"votes": {"gte": 10}})} == {"doc-b"}
    for where, expected in [
        ({"votes": {"gt": 4, "lt": 10}}, ["doc-a"]),
        ({"not": {"lang": "go"}}, ["doc-b"]),
        ({"votes": {"exists": False}}, ["doc-c"]),
        ({"lang": ["c", "rust"]}, ["doc-b"]),
        ({"or": [{"votes": 5}, {"votes": 10}]}, ["doc-a", "doc-b"]),
    ]:
        assert sorted(str(hit.record.id) for hit in store.search(np.ones(4), 9, where)) == expected, where


def test_a_list_without_a_value_finds_nothing(theirs: tuple[VectorStore, Callable[[], int]]) -> None:
    store, _ = theirs
    for where, expected in [
        ({"votes": []}, 0),
        ({"votes": {"not": []}}, 3),
        ({"not": {"lang": []}}, 3),
        ({"lang": "go", "votes": []}, 0),
        ({"or": [{"lang": "go"}, {"votes": []}]}, 2),
        ({"or": []}, 0),
        ({"not": {"or": []}}, 3),
        ({"content": []}, 0),
        ({"not": {"content": []}}, 3),
    ]:
        assert store.count(where=where) == len(store.search(np.ones(4), 9, where)) == expected, where


COLUMNS: dict[str, tuple[DataType, st.SearchStrategy[Any]]] = {
    "word": (DataType.VARCHAR, st.sampled_from(["", "a", "b"])),
    "votes": (DataType.INT64, st.integers(-2, 2)),
    "score": (DataType.DOUBLE, st.sampled_from([-1.0, 0.5, 1.0])),
    "draft": (DataType.BOOL, st.booleans()),
}
SCALARS = st.one_of(*(values for _, values in COLUMNS.values()))
BOUNDS = st.dictionaries(st.sampled_from(["gt", "gte", "lt", "lte"]), st.sampled_from([-1, 0, 0.5, 1]), min_size=1)
ASKED = st.dictionaries(
    st.sampled_from([*COLUMNS, "maybe", "tags"]),
    st.one_of(st.lists(SCALARS, max_size=3), SCALARS, BOUNDS, st.booleans().map(lambda is_there: {"exists": is_there})),
    min_size=1,
    max_size=2,
)


@pytest.mark.parametrize("key", [DataType.INT64, DataType.VARCHAR])
def test_filters_on_their_columns_mean_what_they_mean_on_ours(key: DataType, tmp_path: Path) -> None:
    (tmp_path / "theirs.db").mkdir()
    client = acquire(tmp_path / "theirs.db")
    schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("key", key, is_primary=True, max_length=64)
    schema.add_field("content", DataType.VARCHAR, max_length=1000)
    schema.add_field("dense", DataType.FLOAT_VECTOR, dim=4)
    for name, (kind, _) in COLUMNS.items():
        schema.add_field(name, kind, max_length=100)
    schema.add_field("maybe", DataType.INT64, nullable=True)
    schema.add_field("tags", DataType.ARRAY, element_type=DataType.VARCHAR, max_capacity=4, max_length=100)
    indexes = MilvusClient.prepare_index_params()
    indexes.add_index("dense", index_type="FLAT", metric_type="L2")
    client.create_collection("docs", schema=schema, index_params=indexes)
    row = st.fixed_dictionaries(
        {
            **{name: values for name, (_, values) in COLUMNS.items()},
            "maybe": st.none() | st.integers(-1, 1),
            "tags": st.lists(st.sampled_from(["a", "b"]), max_size=2),
        }
    )
    layout = Layout(text="content", id="key", vector="dense", metadata=None)
    keys: list[Any] = [f"{number or ''}" if key == DataType.VARCHAR else number for number in range(6)]
    with ForeignMilvusStore(client, "docs", layout) as store:

        @settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
        @given(st.lists(row, min_size=6, max_size=6), st.lists(ASKED, min_size=8, max_size=8))
        def check(rows: list[dict[str, Any]], asked: list[dict[str, Any]]) -> None:
            whole = [
                {"key": id, "content": "x", "dense": [1, 0, 0, 0], **one} for id, one in zip(keys, rows, strict=True)
            ]
            client.upsert("docs", whole)
            for where in [*asked, *({"not": one} for one in asked)]:
                expected = sum(Filter(where).matches(one) for one in rows)
                assert store.count(where=where) == expected, where

        check()
    release(tmp_path / "theirs.db", client)


def test_words_are_searched_in_their_sparse_vector() -> None:
    store, _ = in_qdrant(models.Distance.COSINE, None)
    assert [hit.record.id for hit in store.candidates(None, query_terms("backoff"), 3).lexical] == ["doc-a"]


def test_a_row_that_only_words_find_has_its_cosine_too() -> None:
    store, _ = in_qdrant(models.Distance.EUCLID, None)
    found = store.candidates(np.array([1, 2, 0, 0], np.float32), query_terms("backoff"), 1)
    assert [(hit.record.id, round(hit.score, 4)) for hit in found.dense] == [("doc-c", 0.9487), ("doc-a", 0.4472)]
    assert [hit.record.id for hit in found.lexical] == ["doc-a"]


def test_nothing_of_theirs_is_changed(theirs: tuple[VectorStore, Callable[[], int]]) -> None:
    store, total = theirs
    row = Row(Record("new", "x"), VECTORS[0])
    for change in (
        lambda: store.upsert([row]),
        lambda: store.update([RECORDS["doc-a"]]),
        lambda: store.delete("doc-a"),
        lambda: store.delete(where={"lang": "go"}),
        lambda: store.create(CollectionSpec(4, {})),
        lambda: store.claim("a", "b"),
        lambda: store.optimize(),
        lambda: store.bulk(),
        lambda: store.successor(),
        lambda: store.drop(),
    ):
        with pytest.raises(StoreError, match="not made by this package and is only read"):
            change()
    assert total() == 3


def test_a_layout_that_does_not_fit_names_what_there_is(tmp_path: Path) -> None:
    store, _ = in_qdrant(models.Distance.COSINE, None)
    client = store.client
    with pytest.raises(InputError, match=r"vector 'x', only \['dense'\]"):
        ForeignQdrantStore(client, "docs", Layout(vector="x")).count()
    with pytest.raises(InputError, match="'bm25'"):
        ForeignQdrantStore(client, "docs", Layout(vector="dense", sparse="x")).count()
    assert ForeignQdrantStore(client, "other", Layout(vector="dense")).count() == 0
    with pytest.raises(InputError, match="only collections made here"):
        open_store(f"qdrant+edge://{tmp_path}", layout=Layout())
    milvus, _ = in_milvus(tmp_path / "theirs.db", None)
    with milvus, pytest.raises(InputError, match="no field 'x' for vector, only"):
        open_store(f"milvus+lite://{tmp_path}/theirs.db", "docs", layout=Layout(vector="x")).count()


def test_a_layout_whose_fields_no_row_has_is_refused(
    theirs: tuple[VectorStore, Callable[[], int]],
) -> None:
    store, _ = theirs
    given = store.layout  # type: ignore[attr-defined]
    open_with = lambda **changed: type(store)(store.client, "docs", replace(given, **changed))  # type: ignore[call-arg]  # noqa: E731
    with pytest.raises(InputError, match=r"field 'body'( for text|.*name it in the Layout)"):
        open_with(text="body").count()
    with pytest.raises(InputError, match=r"field 'nothing' for metadata, only .*'content'.*metadata=None"):
        open_with(metadata="nothing").count()
    with pytest.raises(InputError, match="field 'uid' for id, only"):
        open_with(id="uid").count()
    assert open_with().count() == 3


def test_a_field_that_a_fixed_schema_lacks_is_named(tmp_path: Path) -> None:
    store, _ = in_milvus(tmp_path / "theirs.db", "meta")
    store.close()
    flat = Layout(text="content", id="uuid", vector="dense", metadata=None)
    with open_store(store.url, "docs", layout=flat) as opened:
        assert opened.count(where={"content": "parse a date"}) == 1
        with pytest.raises(InputError, match=r"no field 'lang' to filter by, only .*'meta'"):
            opened.count(where={"lang": "go"})
        with pytest.raises(InputError, match=r"copy the rows into one that has fields=\{'at': 'datetime'\}"):
            opened.count(where={"at": {"gt": "2026-01-31"}})


def test_a_field_that_is_empty_in_each_row_is_no_mistake() -> None:
    client = QdrantClient(":memory:")
    client.create_collection("docs", models.VectorParams(size=2, distance=models.Distance.COSINE))
    store = ForeignQdrantStore(client, "docs", Layout())
    assert store.count() == 0
    client.upsert("docs", [models.PointStruct(id=1, vector=[1, 0], payload={"page_content": "x", "metadata": {}})])
    assert [one.text for one in store.scroll()] == ["x"]


def test_what_a_collection_of_others_cannot_say_the_layout_can() -> None:
    embedder = C2LLMEmbedder.from_pretrained("nano")
    client = QdrantClient(":memory:")
    client.create_collection("docs", models.VectorParams(size=2, distance=models.Distance.COSINE))
    payload = {"page_content": "x", "metadata": {"at": "2026-01-31T12:00:00Z"}}
    client.upsert("docs", [models.PointStruct(id=1, vector=[1, 0], payload=payload)])
    store = ForeignQdrantStore(client, "docs", Layout())
    with pytest.raises(InputError, match=r"open it with a Layout that has fields=\{'at': 'datetime'\}"):
        store.count(where={"at": {"gt": "2026-01-31"}})
    with pytest.raises(StoreError, match=r"'docs' .* by vectors only; name a sparse vector or field in the Layout"):
        search("x", None, store, mode="lexical")
    with pytest.raises(SpecMismatch, match=r"has width 2, the model 256; .* in the Layout"):
        search("x", embedder, store)
    with pytest.raises(InputError, match=r"'docs', which somebody else made, .* give that model to the retriever"):
        shared_store(store, "code").search("x", SearchOptions())
    with pytest.raises(StoreError, match="or read it with a Layout"):
        QdrantStore.from_client(client, "docs").count()


def test_moments_are_compared_where_the_layout_says_so() -> None:
    client = QdrantClient(":memory:")
    client.create_collection("docs", models.VectorParams(size=2, distance=models.Distance.COSINE))
    payload = {"page_content": "x", "metadata": {"at": "2026-01-31T12:00:00Z"}}
    client.upsert("docs", [models.PointStruct(id=1, vector=[1, 0], payload=payload)])
    store = ForeignQdrantStore(client, "docs", Layout(fields={"at": "datetime"}))
    assert (store.count(where={"at": {"gt": "2026-01-31"}}), store.count(where={"at": {"gt": "2026-02-01"}})) == (1, 0)


def test_rows_with_one_id_hide_none_of_another_and_rows_without_the_vector_are_left_out() -> None:
    client = QdrantClient(":memory:")
    dense = models.VectorParams(size=4, distance=models.Distance.COSINE)
    client.create_collection("docs", vectors_config={"dense": dense, "other": dense})
    pieces = [("x", "dense"), ("x", "dense"), ("x", "dense"), ("y", "other")]
    client.upsert(
        "docs",
        [
            models.PointStruct(id=number, vector={name: [1.0, 0, 0, 0]}, payload={"doc": doc, "text": f"{number}"})
            for number, (doc, name) in enumerate(pieces)
        ],
    )
    layout = Layout(text="text", id="doc", vector="dense", metadata=None)
    store = ForeignQdrantStore(client, "docs", layout)
    assert store.get(["x", "y"]).keys() == {"x", "y"}
    assert [row.record.id for row in store.rows()] == ["x", "x", "x"]
    by_point = ForeignQdrantStore(client, "docs", replace(layout, id=None))
    assert by_point.get(["a name", 3]).keys() == {3}


def test_a_layout_that_is_refused_leaves_nothing_open(tmp_path: Path) -> None:
    url = f"milvus+lite://{tmp_path / 'docs.db'}"
    with open_store(url, "docs") as store:
        store.create(CollectionSpec(4, {}))
    with pytest.raises(InputError, match="moments"):
        open_store(url, "docs", layout=Layout(fields={"day": "datetime"}))
    FileLock(tmp_path / "docs.db" / "LOCK", "the folder").release()


def test_rows_of_others_are_read_a_page_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    client = QdrantClient(":memory:")
    client.create_collection("docs", vectors_config=models.VectorParams(size=2, distance=models.Distance.COSINE))
    client.upsert("docs", [models.PointStruct(id=id, vector=[1.0, 0.0], payload={"text": "x"}) for id in range(20)])
    sizes: list[int] = []

    def retrieve(name: str, ids: list[int], **options: Any) -> Any:
        sizes.append(len(ids))
        return QdrantClient.retrieve(client, name, ids, **options)

    monkeypatch.setattr(client, "retrieve", retrieve)
    monkeypatch.setattr(qdrant_foreign, "PAGE", 6)
    store = ForeignQdrantStore(client, "docs", Layout(text="text", metadata=None))
    assert store.vectors(range(20)).keys() == {one.id for one in store.scroll()} == {*range(20)}
    assert sizes == [6, 6, 6, 2]


def test_vectors_that_cannot_be_compared_are_named(tmp_path: Path) -> None:
    client = QdrantClient(":memory:")
    dense = models.VectorParams(size=2, distance=models.Distance.COSINE)
    many = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
    tokens = dense.model_copy(update={"multivector_config": many})
    client.create_collection("docs", {"tokens": tokens, "dense": dense})
    client.create_collection("words", sparse_vectors_config={"words": models.SparseVectorParams()})
    with pytest.raises(InputError, match=r"'tokens' .* is a multivector.* name another in the Layout, of \['dense'\]"):
        ForeignQdrantStore(client, "docs", Layout(vector="tokens")).count()
    assert ForeignQdrantStore(client, "docs", Layout(vector="dense")).count() == 0
    with pytest.raises(InputError, match=r"'words' has no vector '', only \[\]; name it in the Layout"):
        ForeignQdrantStore(client, "words", Layout()).count()
    folder = tmp_path / "docs.db"
    folder.mkdir()
    milvus = acquire(folder)
    schema = MilvusClient.create_schema(auto_id=True)
    schema.add_field("id", DataType.INT64, is_primary=True)
    schema.add_field("words", DataType.SPARSE_FLOAT_VECTOR)
    indexes = MilvusClient.prepare_index_params()
    indexes.add_index("words", index_type="SPARSE_INVERTED_INDEX", metric_type="IP")
    milvus.create_collection("words", schema=schema, index_params=indexes)
    release(folder, milvus)
    with (
        pytest.raises(InputError, match=r"'words' is a SPARSE_FLOAT_VECTOR, must be FLOAT_VECTOR or FLOAT16_VECTOR"),
        open_store(f"milvus+lite://{folder}", "words", layout=Layout(vector="words")) as store,
    ):
        store.count()


@pytest.mark.parametrize("kind", ["ours", "theirs"])
def test_a_milvus_that_sends_one_page_for_ever_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    open_pages = MilvusClient.query_iterator

    def endless(client: MilvusClient, *arguments: Any, **options: Any) -> Any:
        pages = open_pages(client, *arguments, **options)
        first = pages.next()
        monkeypatch.setattr(pages, "next", lambda: first)
        return pages

    if kind == "theirs":
        store, _ = in_milvus(tmp_path / "theirs.db", None)
    else:
        store = open_store(f"milvus+lite://{tmp_path / 'ours.db'}", "docs")
        store.create(CollectionSpec(4, {}))
        store.upsert([Row(Record(id, text, fields), VECTORS[0]) for id, text, fields in ROWS])
    with store:
        monkeypatch.setattr(MilvusClient, "query_iterator", endless)
        with pytest.raises(StoreError, match=r"sends pages of collection 'docs' without end: two pages lead to '.*'"):
            list(store.scroll())
