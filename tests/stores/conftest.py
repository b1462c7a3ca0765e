from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from c2llm_integrations.code.chunk import CodeChunk, chunk_id
from c2llm_integrations.stores.base import CollectionSpec, Row

WIDTH = 16


@pytest.fixture
def spec() -> CollectionSpec:
    return CollectionSpec(WIDTH, {"model": "somewhere/nano", "weights": "abc", "normalize": True, "projection": None})


@pytest.fixture
def make_row() -> Callable[..., Row]:
    """Return a row whose id and vector follow from its path, text and ordinal."""

    def make(path: str = "src/a.py", text: str = "x = 1\n", ordinal: int = 0, **fields: object) -> Row:
        repository = str(fields.get("repository", "repo"))
        known: dict[str, object] = {
            "language": "python",
            "symbol": f"f{ordinal}",
            "kind": "function",
            "start_line": 1 + ordinal,
            "end_line": 2 + ordinal,
        }
        row_id = chunk_id(repository, path, text, ordinal)
        vector = np.random.default_rng(int(row_id[:8], 16)).standard_normal(WIDTH).astype(np.float32)
        chunk = CodeChunk(id=row_id, path=path, text=text, **{**known, "repository": repository, **fields})  # type: ignore[arg-type]
        return Row(chunk, vector)

    return make


@pytest.fixture
def make_rows(make_row: Callable[..., Row]) -> Callable[..., list[Row]]:
    """Return `n` rows, ten to a file."""

    def make(n: int, **fields: object) -> list[Row]:
        return [make_row(f"src/file{i // 10}.py", f"def f{i}():\n    return {i}\n", i, **fields) for i in range(n)]

    return make
