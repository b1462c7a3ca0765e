"""A store over the real engine whose steps a test may slow down, spoil or watch."""

from collections.abc import Callable
from typing import Any

from c2llm_integrations.stores.qdrant.edge import QdrantEdgeStore


class FaultyStore(QdrantEdgeStore):
    """Qdrant Edge, where `upload(write, records, vectors, terms)` decides what becomes of each batch.

    `read` holds the ids whose vectors were asked for; `restoring` is called when a bulk load ends.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.upload: Callable[..., None] = lambda write, *batch: write(*batch)
        self.restoring: Callable[[], None] = lambda: None
        self.read: list[Any] = []

    def _upsert(self, *batch: Any) -> None:
        self.upload(super()._upsert, *batch)

    def _vectors(self, ids: Any) -> Any:
        self.read += ids
        return super()._vectors(ids)

    def _restore(self) -> None:
        self.restoring()
        super()._restore()
