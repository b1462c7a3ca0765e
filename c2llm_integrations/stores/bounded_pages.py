"""Read page after page from a database, with a limit on their number."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import TypeVar

from c2llm_integrations.errors import StoreError
from c2llm_integrations.stores.vector_store import VectorStore

_T = TypeVar("_T")


def bounded_pages(store: VectorStore, pages: Iterable[tuple[Sequence[_T], Hashable]]) -> Iterator[_T]:
    """Yield the rows of pages, each given with what names the next one, None after the last.

    Raises StoreError for a page that leads nowhere, and for more than twice the rows that the store counts: others may
    write and delete meanwhile.
    """
    named: set[Hashable] = set()
    came = most = 0
    for rows, following in pages:
        came += len(rows)
        if following is not None:
            if came > most:
                most = max(most, 2 * store._total())
                if came > most:
                    raise _endless(store, f"{came:,} rows came, at most {most:,} were expected")
            if following in named:
                raise _endless(store, f"two pages lead to {following!r:.60}")
            if not rows:
                raise _endless(store, f"a page without rows leads to {following!r:.60}")
            named.add(following)
        yield from rows


def _endless(store: VectorStore, why: str) -> StoreError:
    return StoreError(
        f"{store.url} sends pages of collection {store.collection!r} without end: {why}; "
        "read it again, and look into the server if it does so every time"
    )
