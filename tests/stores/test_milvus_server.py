"""What a real Milvus server adds to the contract: PyPI's milvus 2.3.5, which needs no container."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from c2llm_integrations.stores import open_store
from c2llm_integrations.stores.base import Row, VectorStore
from tests.stores.conftest import empty_milvus


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
