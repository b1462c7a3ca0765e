"""Rows may say anything in the fields that we write ourselves: reading takes what fits, and never fails."""

import uuid

import numpy as np
import pytest
import qdrant_edge as edge
from qdrant_client import models

from c2llm_integrations.code.chunk import CHUNK_FIELDS
from c2llm_integrations.stores import open_store
from c2llm_integrations.stores.ids import why_id_refused
from c2llm_integrations.stores.parquet import Contents, write_rows
from c2llm_integrations.stores.records import CodeChunk, Record, Row
from c2llm_integrations.stores.row_fields import OwnField
from c2llm_integrations.stores.spec import ANALYZER, CollectionSpec

WIDTH = 8
CHUNK = dict(zip(CHUNK_FIELDS, ("lies", "a.py", "python", "f", "function", 1, 2), strict=True))
DEEP: dict = {}
for _ in range(90):
    DEEP = {"a": DEEP}
VALUES = [None, 5, 1.5, True, [], ["x"], [{}], {}, {"a": 1}, "", "\0", "../../etc/passwd", -1, 2**62, DEEP]
NODES = ["", "{", "[]", "null", '{"text": 5}', "[" * 100_000, 5, [], {"text": "x"}]


def payloads():
    for name in CHUNK_FIELDS:
        for value in VALUES:
            yield {"page_content": "def f(): pass", "metadata": {**CHUNK, name: value}}
    for name in (OwnField.SOURCE, OwnField.ID, OwnField.FIELDS, OwnField.DIGEST, "page_content", "metadata"):
        for value in VALUES:
            yield {"page_content": "def f(): pass", "metadata": CHUNK, OwnField.SOURCE: "lies", name: value}
    for digest in ('"', '""', '"""', 'x"a""b"', 'x""\0', 'x"a"""'):
        yield {"page_content": "def f(): pass", "metadata": CHUNK, OwnField.SOURCE: "lies", OwnField.DIGEST: digest}
    for node in NODES:
        yield {"metadata": CHUNK, "_node_content": node}
    yield {}


@pytest.fixture(params=["edge", "memory"])
def store(request, tmp_path):
    """A collection with a row for each lie, all of one vector."""
    with open_store("qdrant+memory://" if request.param == "memory" else f"qdrant+edge://{tmp_path}") as store:
        store.create(CollectionSpec(WIDTH, {"model": "any"}, analyzer=ANALYZER))
        rows = [(str(uuid.uuid4()), [1.0] * WIDTH, payload) for payload in payloads()]
        if request.param == "edge":
            points = [edge.Point(*row) for row in rows]
            store.client.update(edge.UpdateOperation.upsert_points(points))
        else:
            points = [models.PointStruct(id=id, vector=vector, payload=payload) for id, vector, payload in rows]
            store.client.upsert(store.collection, points)
        store.ids = [id for id, _, _ in rows]
        yield store


def test_a_listing_has_the_types_that_a_run_compares(store):
    rows = list(store.scan())
    assert len(rows) > 150
    for row in rows:
        texts, lines = (row.path, row.language, row.symbol, row.kind, row.digest), (row.start_line, row.end_line)
        assert {type(text) for text in texts} == {str}
        assert {type(line) for line in lines} == {int}
        assert all(0 <= line < 2**31 for line in lines)


def test_every_row_is_read_and_found(store, tmp_path):
    found = store.candidates(np.ones(WIDTH, np.float32), ("f",), 500)
    assert len(found.dense) == len(store.ids)
    records = [*(hit.record for hit in found.dense), *store.scroll(), *(row.record for row in store.rows())]
    assert store.get(store.ids).keys() == set(store.ids)
    for record in records:
        assert (type(record.text), type(record.source)) == (str, str)
        assert why_id_refused(record.id) is None
        if isinstance(record, CodeChunk):
            assert all(type(getattr(record, name)) is kind for name, kind in CHUNK_FIELDS.items())


def test_a_run_writes_over_any_row_and_an_export_takes_it(store, tmp_path):
    with open(tmp_path / "rows.parquet", "wb") as stream:
        assert write_rows(stream, Contents(store.spec, {}, 0), store.rows()) == len(list(store.scan()))
    assert store._written_fields(store.ids).keys() == set(store.ids)
    store.delete([row.id for row in store.scan()])
    assert store.count() == 0


@pytest.mark.slow
def test_rows_of_milvus_are_read_whatever_they_say(tmp_path):
    with open_store(f"milvus+lite://{tmp_path}/store.db") as store:
        store.create(CollectionSpec(WIDTH, {"model": "any"}, analyzer=ANALYZER))
        store.upsert([Row(Record("honest", "def f", {"votes": 1, "none": None}, "lies"), np.ones(WIDTH, np.float32))])
        row = {"vector": [1.0] * WIDTH, "page_content": "def f", "terms": "f", **CHUNK, OwnField.SOURCE: "=lies"}
        names = (OwnField.ID, OwnField.FIELDS, OwnField.EMPTY, OwnField.DIGEST)
        rows = [{"id": str(uuid.uuid4()), **row, name: value} for name in names for value in VALUES]
        for one in rows:
            store.client.insert(store._physical, [one])
        ids = [one["id"] for one in rows]
        assert store.get(ids).keys() == store._written_fields(ids).keys() == set(ids)
        found = store.candidates(np.ones(WIDTH, np.float32), ("f",), 500)
        assert len(found.dense) == len(list(store.rows())) == len(list(store.scan())) == len(ids) + 1
        [(_, honest)] = store.get("honest", source="lies").items()
        assert honest == Record("honest", "def f", {"votes": 1, "none": None}, "lies")
