"""A database in one file: rows in a dictionary of this process, compared one by one."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import Any

from c2llm_integrations.code.chunk import CodeChunk
from c2llm_integrations.code.lexical_terms import sparse, sparse_query
from c2llm_integrations.stores import Location
from c2llm_integrations.stores.backend import Terms
from c2llm_integrations.stores.filter import Filter
from c2llm_integrations.stores.ids import RecordId
from c2llm_integrations.stores.records import (
    AnyRecord,
    Candidates,
    Hit,
    Record,
    RecordIterator,
    Vector,
    digest_of,
    is_chunk,
)
from c2llm_integrations.stores.row_fields import Stored, stored_of
from c2llm_integrations.stores.spec import Capabilities, CollectionSpec
from c2llm_integrations.stores.vector_store import VectorStore


@dataclass
class Kept:
    record: AnyRecord
    vector: Vector
    words: Mapping[int, float]
    is_ours: bool = True
    added: dict[str, Any] = field(default_factory=dict)

    def whole(self) -> AnyRecord:
        """The record with the fields that others have added to it."""
        one = self.record
        if isinstance(one, CodeChunk) and not self.added:
            return one
        return Record(one.id, one.text, deepcopy({**one.metadata, **self.added}), one.source)


@dataclass
class Collection:
    spec: CollectionSpec
    claims: dict[str, str] = field(default_factory=dict)
    rows: dict[RecordId, Kept] = field(default_factory=dict)


# Place and name → collection; a successor's name ends in "+".
COLLECTIONS: dict[tuple[str, str], Collection] = {}


class ToyStore(VectorStore):
    """What a new database takes, and the two methods below by which tests write as another program does."""

    capabilities = Capabilities(lexical=True)

    def __init__(self, place: str, collection: str) -> None:
        super().__init__(f"toy://{place}", collection)
        self._key = (place, collection)
        self._client = COLLECTIONS

    @classmethod
    def open(cls, at: Location) -> ToyStore:
        return cls(at.place, at.collection)

    @classmethod
    def list_collections(cls, at: Location) -> list[str]:
        return [name for place, name in COLLECTIONS if place == at.place and not name.endswith("+")]

    def _read_spec(self) -> CollectionSpec | None:
        kept = COLLECTIONS.get(self._key)
        return None if kept is None else kept.spec

    @property
    def _mine(self) -> Collection:
        self._existing()
        return COLLECTIONS[self._key]

    def _create(self, spec: CollectionSpec) -> None:
        COLLECTIONS[self._key] = Collection(spec)

    def _claims(self) -> dict[str, str]:
        return dict(self._mine.claims)

    def _claim(self, repository: str, checkout: str) -> None:
        self._mine.claims[repository] = checkout

    def _optimize(self) -> None: ...

    def _drop(self) -> None:
        COLLECTIONS.pop(self._key, None)
        COLLECTIONS.pop((self._key[0], f"{self._key[1]}+"), None)

    def _close(self) -> None: ...

    def _successor(self) -> ToyStore:
        return ToyStore(self._key[0], f"{self.collection}+")

    def _replace(self) -> None:
        COLLECTIONS[self._key] = COLLECTIONS.pop((self._key[0], f"{self.collection}+"))

    def _upsert(self, records: Sequence[AnyRecord], vectors: Vector, terms: Terms) -> None:
        for record, vector, words in zip(records, vectors, _words(terms, len(records)), strict=True):
            self._mine.rows[record.row_id] = Kept(_copied(record), vector, words)

    def _update(
        self, records: Sequence[AnyRecord], vectors: Vector | None, terms: Terms, gone: Sequence[Sequence[str]]
    ) -> None:
        for place, (record, words) in enumerate(zip(records, _words(terms, len(records)), strict=True)):
            kept = self._mine.rows[record.row_id]
            if not kept.is_ours:
                kept.added = dict(kept.record.metadata)
            kept.record, kept.words, kept.is_ours = _copied(record), words, True  # what others have `added` stays
            if vectors is not None:
                kept.vector = vectors[place]

    def _delete(self, ids: Sequence[RecordId]) -> None:
        for id in ids:
            self._mine.rows.pop(id, None)

    def _written_fields(self, ids: Sequence[RecordId]) -> Mapping[RecordId, Sequence[str]]:
        found = {id: self._mine.rows[id] for id in ids if id in self._mine.rows}
        return {id: list(one.record.metadata) if one.is_ours else [] for id, one in found.items()}

    def _get(self, ids: Sequence[RecordId]) -> Iterable[AnyRecord]:
        return [self._mine.rows[id].whole() for id in ids if id in self._mine.rows]

    def _vectors(self, ids: Sequence[RecordId]) -> dict[RecordId, Vector]:
        return {id: self._mine.rows[id].vector for id in ids if id in self._mine.rows}

    def _total(self) -> int:
        return len(self._mine.rows)

    def _chosen(self, where: Filter, source: str | None) -> Iterator[Kept]:
        """Yield the rows of ours that match; those of other programs are only found by `_candidates`."""
        for one in list(self._mine.rows.values()):
            record = one.whole()
            if one.is_ours and source in (None, record.source) and where.matches(record.metadata):
                yield one

    def _count(self, where: Filter, source: str | None) -> int:
        return sum(1 for _ in self._chosen(where, source))

    def _scan(self, where: Filter, source: str | None) -> Iterator[Stored]:
        for one in self._chosen(where, source):
            # The digest of what was written, without what others have added since.
            digest = "" if is_chunk(one.record) else digest_of(one.record)
            yield stored_of(one.record.row_id, one.whole().metadata, digest)

    def _rows(self, where: Filter, source: str | None, *, vectors: bool = False) -> RecordIterator:
        return ((one.whole(), one.vector if vectors else None) for one in self._chosen(where, source))

    def _candidates(self, vector: Vector | None, terms: Sequence[str], limit: int, where: Filter) -> Candidates:
        rows = {id: one for id, one in self._mine.rows.items() if where.matches(one.whole().metadata)}
        cosines = {} if vector is None else {id: float(one.vector @ vector) for id, one in rows.items()}
        dense, lexical = (
            sorted((Hit(rows[id].whole(), score) for id, score in scores.items()), key=lambda hit: -hit.score)
            for scores in (cosines, self._lexical_scores(terms, list(rows)))
        )
        return Candidates(dense[:limit], lexical[:limit])

    def _lexical_scores(self, terms: Sequence[str], ids: Sequence[RecordId]) -> Mapping[RecordId, float]:
        """BM25: the weights of `sparse` hold all of it but how rare a term is among all rows."""
        rows, asked = self._mine.rows, sparse_query(terms)[0]
        holders = Counter(term for one in rows.values() for term in asked if term in one.words)
        rarity = {term: math.log(1 + (len(rows) - n + 0.5) / (n + 0.5)) for term, n in holders.items()}
        scores = {
            id: sum(rarity[term] * rows[id].words[term] for term in asked if term in rows[id].words) for id in ids
        }
        return {id: score for id, score in scores.items() if score > 0}

    # ---- what another program does, for the contract's tests

    def write_foreign(self, id: str, vector: Vector, text: str, metadata: dict[str, Any]) -> None:
        self._mine.rows[id] = Kept(Record(id, text, metadata), vector / sum(vector**2) ** 0.5, {}, is_ours=False)

    def add_fields(self, id: RecordId, fields: dict[str, Any]) -> None:
        self._mine.rows[id].added |= fields


def _copied(record: AnyRecord) -> AnyRecord:
    """Return a record that the caller's later changes of its metadata do not reach."""
    return record if isinstance(record, CodeChunk) else replace(record, metadata=deepcopy(dict(record.metadata)))


def _words(terms: Terms, rows: int) -> list[dict[int, float]]:
    """Return the terms of each row with their weights, none where the spec has no analyzer."""
    return [{} for _ in range(rows)] if terms is None else [dict(zip(*one, strict=True)) for one in sparse(terms)]
