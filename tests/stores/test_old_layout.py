"""Collections and files that were written before rows could be records of any metadata still open."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import qdrant_edge as edge
from qdrant_client import QdrantClient

from c2llm_integrations import ingest_records
from c2llm_integrations.code.chunk import CodeChunk, chunk_id
from c2llm_integrations.code.lexical_terms import ANALYZER
from c2llm_integrations.errors import StoreError
from c2llm_integrations.indexing.export_import import import_rows
from c2llm_integrations.stores import open_store
from c2llm_integrations.stores.qdrant.store import QdrantStore
from c2llm_integrations.stores.records import Record, Row, digest_of
from c2llm_integrations.stores.vector_store import VectorStore

PACKED = Path(__file__).parents[1] / "data" / "old_layout" / "collections.tar.xz"


def a_chunk(number: int) -> CodeChunk:
    text, path = f"def f{number}():\n    return {number}\n", f"src/file{number}.py"
    place = {"path": path, "language": "python", "symbol": f"f{number}", "kind": "function"}
    return CodeChunk(
        id=chunk_id("repo", path, text, 0), repository="repo", **place, start_line=1, end_line=2, text=text
    )


CHUNKS = [a_chunk(number) for number in range(4)]


@pytest.fixture
def folder(quick_path: Path) -> Path:
    with tarfile.open(PACKED) as packed:
        packed.extractall(quick_path, filter="data")
    return quick_path


@pytest.fixture(params=["edge", "milvus", "qdrant"])
def old(request: pytest.FixtureRequest, folder: Path) -> Iterator[VectorStore]:
    client = QdrantClient(path=str(folder / "qdrant")) if request.param == "qdrant" else None
    if client is not None:
        store: VectorStore = QdrantStore.from_client(client)
    else:
        urls = {"edge": f"qdrant+edge://{folder}/edge", "milvus": f"milvus+lite://{folder}/milvus.db"}
        store = open_store(urls[request.param])
    with store:
        yield store
    if client is not None:
        client.close()


def test_an_old_collection_is_read_and_searched(old: VectorStore) -> None:
    assert old.spec is not None
    assert (old.spec.width, old.spec.analyzer, dict(old.spec.fields)) == (8, "code-1", {})
    assert (old.claims(), old.count(), old.count(source="repo")) == ({"repo": "checkout"}, 4, 4)
    assert sorted(old.scroll(), key=lambda one: one.id) == sorted(CHUNKS, key=lambda one: one.id)
    assert old.get(CHUNKS[2].id) == {CHUNKS[2].id: CHUNKS[2]}
    [hit] = old.search(np.eye(8, dtype=np.float32)[1], 1, {"language": "python"})
    assert hit.record == CHUNKS[1]
    assert [hit.record for hit in old.candidates(None, ["f3"], 1).lexical] == [CHUNKS[3]]


def test_an_old_collection_is_written_to(old: VectorStore) -> None:
    new = a_chunk(5)
    old.upsert([Row(new, np.ones(8, np.float32))])
    old.update([CHUNKS[0]])
    old.delete(CHUNKS[1].id)
    assert {one.text for one in old.scroll()} == {new.text, *(one.text for one in CHUNKS if one != CHUNKS[1])}
    record = Row(Record("doc", "text", {"votes": 1}, "answers"), np.ones(8, np.float32))
    if old.url.startswith("milvus"):  # whose columns were fixed when it was made
        with pytest.raises(StoreError, match="earlier release"):
            old.upsert([record])
    else:
        old.upsert([record])
        assert old.get("doc", source="answers") == {"doc": record.record}


@pytest.mark.parametrize("kind", ["edge", "memory"])
@pytest.mark.parametrize("fields", [{"c2llm_fields": 'old"votes'}, {}], ids=["apart", "behind the digest"])
def test_records_that_kept_their_fields_or_ids_apart_are_known_and_updated(
    kind: str, fields: dict[str, str], quick_path: Path
) -> None:
    records = [{"id": f"doc-{number}", "text": f"text {number}", "votes": number, "old": 1} for number in range(3)]
    vectors = np.eye(3, 4, dtype=np.float32)
    with open_store(f"qdrant+edge://{quick_path}" if kind == "edge" else "qdrant+memory://", "answers") as store:
        ingest_records(records, None, store, source="answers", vectors=vectors)
        for record in list(store.scroll()):
            digest = digest_of(record) + ("" if fields else '"old"votes')
            before = {**fields, "c2llm_digest": digest, "c2llm_id": record.id}
            if kind == "edge":
                change = edge.UpdateOperation.set_payload([record.row_id], before)
                store.client.update(change)
                store.client.update(edge.UpdateOperation.set_payload([record.row_id], {"theirs": 5}, "metadata"))
            else:
                store.client.set_payload("answers", before, [record.row_id])
                store.client.set_payload("answers", {"theirs": 5}, [record.row_id], key="metadata")
        assert {record.id for record in store.scroll()} == {"doc-0", "doc-1", "doc-2"}
        again = ingest_records(records, None, store, source="answers", vectors=vectors)
        assert (again.unchanged, again.written, again.updated) == (3, 0, 0)
        for record in records:
            del record["old"]
        records[0]["none"] = None
        del records[1]["votes"]
        again = ingest_records(records, None, store, source="answers", vectors=vectors)
        assert (again.unchanged, again.written, again.updated) == (0, 0, 3)
        assert {record.id: record.metadata for record in store.scroll()} == {
            "doc-0": {"votes": 0, "none": None, "theirs": 5},
            "doc-1": {"theirs": 5},
            "doc-2": {"votes": 2, "theirs": 5},
        }


def test_an_old_file_is_imported(folder: Path, tmp_path: Path) -> None:
    with open_store(f"qdrant+edge://{tmp_path}/new") as store:
        report = import_rows(folder / "rows.parquet", store)
        assert (report.written, report.refused, store.claims()) == (4, {}, {"repo": "checkout"})
        assert store.spec is not None
        assert store.spec.analyzer == ANALYZER
        assert sorted(store.scroll(), key=lambda one: one.id) == sorted(CHUNKS, key=lambda one: one.id)
