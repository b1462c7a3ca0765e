"""What Milvus Lite finds by its index: as much as by comparing all rows, whatever was filtered, added or deleted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from c2llm_integrations.stores import open_store
from c2llm_integrations.stores.records import Row
from c2llm_integrations.stores.spec import CollectionSpec, CompactPlan
from c2llm_integrations.stores.vector_store import VectorStore

pytestmark = pytest.mark.slow

MakeRows = Callable[..., list[Row]]


@pytest.mark.parametrize("quantization", [None, "int8"])
def test_lite_finds_by_its_index_what_comparing_all_rows_finds(
    tmp_path: Path, spec: CollectionSpec, make_rows: MakeRows, quantization: str | None
) -> None:
    url = f"milvus+lite://{tmp_path / 'store.db'}"
    rows = [
        Row(replace(row.chunk, path=f"p{number % 50}.py"), row.vector) for number, row in enumerate(make_rows(1_000))
    ]
    with open_store(url) as store:
        store.create(CollectionSpec.for_embedder(Given(spec), plan=CompactPlan(quantization=quantization)))
        store.upsert(rows[:900])
        store.optimize()
        assert_nearest(store, rows[:900])
        store.upsert(rows[900:])  # not indexed yet
        assert_nearest(store, rows)
        store.delete([row.chunk.id for row in rows[:300]])
        store.upsert([Row(row.chunk, -row.vector) for row in rows[300:400]])
        left = [*(Row(row.chunk, -row.vector) for row in rows[300:400]), *rows[400:]]
        assert_nearest(store, left)
    with open_store(url) as store:
        assert_nearest(store, left)
        store.optimize()
        assert_nearest(store, left)


class Given:
    """What a spec takes from an embedder."""

    def __init__(self, spec: CollectionSpec) -> None:
        self.output_dim, self.fingerprint = spec.width, spec.fingerprint


def assert_nearest(store: VectorStore, rows: list[Row]) -> None:
    """Fail unless the ten nearest rows are found, of all and of a fiftieth of them."""
    for question in rows[::97]:
        for where in (None, {"path": question.chunk.path}):
            chosen = [row for row in rows if where is None or row.chunk.path == question.chunk.path]
            matrix = np.stack([row.vector for row in chosen])
            near = matrix @ question.vector / np.linalg.norm(matrix, axis=1)
            expected = [chosen[number].chunk.id for number in np.argsort(-near)[:10]]
            assert [hit.chunk.id for hit in store.search(question.vector, 10, where)] == expected
