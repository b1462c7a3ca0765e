"""Pages of an honest server are all read, whatever others write and delete meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from c2llm_integrations.errors import StoreError
from c2llm_integrations.stores.bounded_pages import bounded_pages


class Rows:
    """A store whose rows are deleted while they are read."""

    url, collection = "x://", "code"

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def _total(self) -> int:
        return self.rows


def pages(number: int) -> Iterator[tuple[list[int], int]]:
    """Each leads to another, also the last, as Milvus's do."""
    return (([page] * 100, page) for page in range(number))


def test_rows_that_are_deleted_as_they_are_read_are_all_read() -> None:
    store: Any = Rows(300)
    read = 0
    for _ in bounded_pages(store, pages(3)):
        read += 1
        store.rows -= 1
    assert (read, store.rows) == (300, 0)


def test_a_collection_that_grows_is_read_on_and_one_that_does_not_is_bounded() -> None:
    store: Any = Rows(100)
    found = bounded_pages(store, pages(4))
    assert len([next(found) for _ in range(200)]) == 200
    store.rows = 200
    assert len(list(found)) == 200
    with pytest.raises(StoreError, match="300 rows came, at most 200 were expected"):
        list(bounded_pages(Rows(100), pages(3)))  # type: ignore[arg-type]
