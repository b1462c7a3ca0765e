"""A Qdrant collection that somebody else made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from c2llm_integrations._utils.retry import retrying
from c2llm_integrations.errors import InputError
from c2llm_integrations.stores import Location
from c2llm_integrations.stores.bounded_pages import bounded_pages
from c2llm_integrations.stores.filter import All, Filter, In
from c2llm_integrations.stores.foreign_collection import ForeignStore, Layout, foreign_record
from c2llm_integrations.stores.ids import RecordId, is_uuid
from c2llm_integrations.stores.qdrant.client import (
    TYPES,
    QdrantClient,
    is_gone,
    is_too_large,
    pause_after,
    reason,
    retrieved,
)
from c2llm_integrations.stores.qdrant.payload import filter_of, lexical_query, pages, point_id
from c2llm_integrations.stores.qdrant.store import QdrantStore
from c2llm_integrations.stores.records import AnyRecord, Hit, RecordIterator, Vector
from c2llm_integrations.stores.row_checks import require

PAGE = 500


class ForeignQdrantStore(ForeignStore):
    """A collection behind a `QdrantClient`, read under the names of its layout."""

    def __init__(
        self,
        client: QdrantClient,
        collection: str,
        layout: Layout,
        *,
        url: str = "the given Qdrant client",
        owned: bool = False,
    ) -> None:
        """`url` is what messages call the database; an `owned` client is closed with the store."""
        require(client, QdrantClient, "a QdrantClient")
        super().__init__(url, collection)
        self.layout = layout
        self._client = client
        self._owned = owned
        self._checked_width: int | None = None
        self._types = TYPES._replace(prefix=(layout.metadata,) if layout.metadata else ())

    @classmethod
    def open(cls, at: Location, layout: Layout | None = None) -> ForeignQdrantStore:
        """Return a store on the server at a location."""
        opened = QdrantStore.connect(at.place, at.collection, at.key)
        return cls(opened._client, at.collection, layout or Layout(), url=opened.url, owned=True)

    def _width(self) -> int | None:
        if self._checked_width is None:
            try:
                made = self._ask("get_collection").config.params
            except Exception as error:
                if is_gone(error):
                    return None
                raise
            vectors = made.vectors or {}  # a collection may have sparse ones only
            dense = vectors if isinstance(vectors, dict) else {"": vectors}
            single = {name: one for name, one in dense.items() if one.multivector_config is None}
            if self.layout.vector in dense.keys() - single:
                raise InputError(
                    f"vector {self.layout.vector!r} of collection {self.collection!r} is a multivector, and rows are "
                    f"compared by one vector each; name another in the Layout, of {sorted(single)}, or load the texts "
                    "into a collection made here"
                )
            _require_vector(self.layout.vector, single, "vector", self.collection)
            if self.layout.sparse is not None:
                _require_vector(self.layout.sparse, made.sparse_vectors or {}, "sparse vector", self.collection)
            self._checked_width = int(dense[self.layout.vector].size)
        return self._checked_width

    def _read(self, where: Filter, vectors: bool) -> RecordIterator:
        return self._scroll(filter_of(self._types, where), vectors)

    def _scroll(self, chosen: Any, vectors: bool) -> RecordIterator:
        what = self._parts(vectors)
        found = pages(
            lambda offset, rows: self._ask("scroll", chosen, offset=offset, limit=rows, **what), PAGE, is_too_large
        )
        return map(self._pair, bounded_pages(self, found))

    def _with_ids(self, ids: Sequence[RecordId], vectors: bool) -> RecordIterator:
        if self.layout.id is None:
            points = [id for id in ids if isinstance(id, int) or is_uuid(id)]  # a server refuses others
            what = self._parts(vectors)
            return map(self._pair, retrieved(lambda some: self._ask("retrieve", some, **what), points, PAGE))
        # Any number of rows may have one id.
        chosen = filter_of(self._types._replace(prefix=()), Filter._of(All((In(self.layout.id, ids),))))
        return self._scroll(chosen, vectors)

    def _row(self, where: Filter) -> Mapping[str, Any] | None:
        chosen = filter_of(self._types._replace(prefix=()), where)
        found, _ = self._ask("scroll", chosen, limit=1, **self._parts(False))
        return found[0].payload or {} if found else None

    def _counted(self, where: Filter) -> int:
        return int(self._ask("count", filter_of(self._types, where), exact=True).count)

    def _nearest(self, vector: Vector, limit: int, where: Filter) -> Iterable[tuple[AnyRecord, Vector]]:
        points = self._query(vector.tolist(), self.layout.vector, limit, where, vectors=True)
        return [(record, vector) for record, vector in map(self._pair, points) if vector is not None]

    def _lexical(self, terms: Sequence[str], limit: int, where: Filter) -> list[Hit]:
        points = self._query(
            lexical_query(self._types.client, terms), self.layout.sparse or "", limit, where, vectors=False
        )
        return [Hit(self._pair(point)[0], point.score) for point in points]

    def _query(self, query: Any, using: str, limit: int, where: Filter, *, vectors: bool) -> Any:
        options = {"using": using or None, "limit": limit, "query_filter": filter_of(self._types, where)}
        return self._ask("query_points", query, **options, **self._parts(vectors)).points

    def _parts(self, vectors: bool) -> dict[str, Any]:
        return {"with_payload": True, "with_vectors": [self.layout.vector] if vectors else False}

    def _pair(self, point: Any) -> tuple[AnyRecord, Vector | None]:
        vector = point.vector.get(self.layout.vector) if isinstance(point.vector, dict) else point.vector
        record = foreign_record(self.layout, point_id(point.id), point.payload or {})
        return record, None if vector is None else np.asarray(vector, np.float32)

    def _ask(self, method: str, *args: Any, **options: Any) -> Any:
        """Call the client's `method` for this collection."""
        return retrying(lambda: getattr(self._client, method)(self.collection, *args, **options), pause_after)

    def _close(self) -> None:
        if self._owned:
            self._client.close()

    _reason = staticmethod(reason)


def _require_vector(name: str, known: dict[str, Any], what: str, collection: str) -> None:
    if name not in known:
        raise InputError(
            f"collection {collection!r} has no {what} {name!r}, only {sorted(known)}; name it in the Layout"
        )
