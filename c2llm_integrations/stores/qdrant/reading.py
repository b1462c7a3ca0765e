"""What both Qdrant stores read alike: a row is a point with a payload, whichever client brings it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from c2llm_integrations.stores.filter import Filter
from c2llm_integrations.stores.ids import RecordId
from c2llm_integrations.stores.qdrant import payload as payloads
from c2llm_integrations.stores.qdrant.payload import DENSE, LEXICAL, Types, lexical_query, point_id, record_of
from c2llm_integrations.stores.records import AnyRecord, Candidates, Hit, RecordIterator, Vector
from c2llm_integrations.stores.row_fields import Stored
from c2llm_integrations.stores.vector_store import VectorStore

Fields = bool | list[str]  # True for the whole payload, or the names of its fields to read


class PointReader(VectorStore):
    """A store that reads points."""

    _types: ClassVar[Types]

    @abstractmethod
    def _retrieve(self, ids: Sequence[RecordId], payload: Fields, vectors: bool = False) -> Iterable[Any]:
        """Return the points of those of `ids` that are there."""

    @abstractmethod
    def _scroll(self, where: Filter, source: str | None, payload: Fields, vectors: bool = False) -> Iterator[Any]:
        """Yield the points of our rows, as `Backend._rows` does."""

    @abstractmethod
    def _found(self, requests: list[Any]) -> list[Any]:
        """Return the points that each of these searches finds."""

    def _known(self, ids: Sequence[RecordId]) -> Iterable[RecordId]:
        return {point_id(one.id) for one in self._retrieve(ids, False)}

    def _written_fields(self, ids: Sequence[RecordId]) -> Mapping[RecordId, Sequence[str]]:
        return {point_id(one.id): payloads.written_fields(one.payload) for one in self._retrieve(ids, payloads.NAMED)}

    def _get(self, ids: Sequence[RecordId]) -> Iterable[AnyRecord]:
        return (record_of(one.id, one.payload) for one in self._retrieve(ids, True))

    def _vectors(self, ids: Sequence[RecordId]) -> dict[RecordId, Vector]:
        found = self._retrieve(ids, False, vectors=True)
        return {point_id(one.id): _dense(one.vector) for one in found if one.vector}  # others may write none

    def _scan(self, where: Filter, source: str | None) -> Iterator[Stored]:
        return (payloads.listed_of(one.id, one.payload) for one in self._scroll(where, source, payloads.LISTED))

    def _rows(self, where: Filter, source: str | None, *, vectors: bool = False) -> RecordIterator:
        for one in self._scroll(where, source, True, vectors):
            yield record_of(one.id, one.payload), _dense(one.vector) if vectors else None

    def _candidates(self, vector: Vector | None, terms: Sequence[str], limit: int, where: Filter) -> Candidates:
        types, requests = self._types, []
        rows = payloads.filter_of(types, where)
        if vector is not None:
            params = payloads.search_params(types.client, self._existing())
            requests.append(types.request(vector.tolist(), DENSE, limit, rows, params, with_payload=True))
        if terms:
            query = lexical_query(types.client, terms)
            requests.append(types.request(query, LEXICAL, limit, rows, with_payload=True))
        lists = [[Hit(record_of(one.id, one.payload), one.score) for one in found] for found in self._found(requests)]
        dense = lists.pop(0) if vector is not None else []
        return Candidates(dense, lists[0] if lists else [])

    def _lexical_scores(self, terms: Sequence[str], ids: Sequence[RecordId]) -> Mapping[RecordId, float]:
        types = self._types
        rows = types.client.Filter(must=[types.has_ids(ids)])
        [found] = self._found([types.request(lexical_query(types.client, terms), LEXICAL, len(ids), rows)])
        return {point_id(one.id): one.score for one in found}


def pages(read: Callable[[Any], tuple[Iterable[Any], Any]]) -> Iterator[Any]:
    """Yield the points of one page after another; `read` returns those at an offset, and the next offset or None."""
    points, offset = read(None)
    yield from points
    while offset is not None:
        points, offset = read(offset)
        yield from points


def _dense(vector: Any) -> Vector:
    """Return the dense vector of a point, however its client spells it."""
    return np.asarray(vector[DENSE] if isinstance(vector, dict) else vector, np.float32)
