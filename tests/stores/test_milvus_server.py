"""The core of the contract on a real Milvus server: PyPI's milvus 2.3.5, which needs no container.

The whole contract runs over Milvus Lite; here a collection takes two seconds to make and a read a third of one.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator

import pytest

from c2llm_integrations.stores import open_store
from c2llm_integrations.stores.base import Filter, Row, VectorStore
from tests.stores.conftest import empty_milvus
from tests.stores.test_contract import (  # noqa: F401 (collected here, to run with this file's `open_`)
    NASTY,
    test_a_filter_may_name_very_many_paths,
    test_claims_survive_reopening_and_can_move,
    test_missing_collection_reads_as_empty_and_refuses_writes,
    test_rows_come_back_as_written,
    test_search_ranks_by_cosine,
    test_update_replaces_every_field_and_keeps_the_vector,
)


@pytest.fixture(scope="session")
def milvus_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The http:// address of a Milvus server on a free port."""
    milvus = pytest.importorskip("milvus", reason="PyPI has no Milvus server for this platform")
    folder = tmp_path_factory.mktemp("milvus")
    server = milvus.MilvusServer(data_dir=str(folder), wait_for_started=False)
    server.listen_port = 0
    try:
        server.start()
        server.wait_started(timeout=60_000)
    except (OSError, RuntimeError, TimeoutError) as error:
        server.stop()
        pytest.skip(f"the Milvus server of PyPI does not run here: {error}")
    yield f"http://127.0.0.1:{server.listen_port}"
    server.stop()
    shutil.rmtree(folder, ignore_errors=True)  # half a gigabyte


@pytest.fixture
def open_(milvus_address: str) -> Iterator[Callable[..., VectorStore]]:
    opened: list[VectorStore] = []

    def open_one(collection: str = "code") -> VectorStore:
        opened.append(open_store(f"milvus+{milvus_address}", collection))
        return opened[-1]

    yield open_one
    for store in opened:
        store.close()
    empty_milvus(milvus_address)


def test_repeated_and_deleted_rows_are_counted_exactly(store: VectorStore, make_rows: Callable[..., list[Row]]) -> None:
    rows = make_rows(300)
    store.upsert(rows)
    store.upsert(rows)
    assert (store.count(), store.count("repo"), store.count("none")) == (300, 300, 0)
    store.delete([row.chunk.id for row in rows[:100]])
    assert (store.count(), store.count("repo")) == (200, 200)
    store.optimize()
    assert {row.id for row in store.scan("repo")} == {row.chunk.id for row in rows[100:]}


def test_any_string_finds_exactly_itself(store: VectorStore, make_row: Callable[..., Row]) -> None:
    strings = ["".join(NASTY), '" or 1==1', "a\\", "\\u0041", "\x00\x01\x7f\u2028", "中文\r\n"]
    rows = [make_row(string, repository=string) for string in strings]
    store.upsert(rows)
    for row in rows:
        where = Filter(repositories=[row.chunk.repository], paths=[row.chunk.path])
        assert [hit.chunk for hit in store.search(row.vector, 10, where)] == [row.chunk]
