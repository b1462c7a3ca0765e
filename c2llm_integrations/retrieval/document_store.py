"""The common part of both frameworks' vector stores: documents as records of a source in one of our stores."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from c2llm_integrations.code.chunk import CodeChunk, piece_id
from c2llm_integrations.code.lexical_terms import query_terms
from c2llm_integrations.errors import InputError, RowsRefused, did_you_mean
from c2llm_integrations.model.fingerprint import Fingerprint
from c2llm_integrations.retrieval.clashing_fields import given_metadata, stored_key, stored_name, stored_where
from c2llm_integrations.retrieval.lexical_index import LexicalIndex
from c2llm_integrations.retrieval.options import RULES, Mode
from c2llm_integrations.retrieval.ranking import rank
from c2llm_integrations.retrieval.search import (
    CANDIDATES,
    require_comparable,
    supported_mode,
    warn_if_given,
    warned_mode_for,
)
from c2llm_integrations.retrieval.store_handles import SharedStore
from c2llm_integrations.stores.filter import Filter
from c2llm_integrations.stores.ids import MAX_INTEGER_ID, RecordId, listed_ids, why_id_refused
from c2llm_integrations.stores.records import AnyRecord, Candidates, Hit, Record, Row, Vector, chunk_of
from c2llm_integrations.stores.row_checks import require, require_count
from c2llm_integrations.stores.row_fields import path_of, plain_record, unit
from c2llm_integrations.stores.spec import GIVEN_VECTORS, CollectionSpec, CompactPlan
from c2llm_integrations.stores.vector_store import VectorStore, Where

if TYPE_CHECKING:
    from c2llm_integrations.model.embedder import C2LLMEmbedder

# A store gives back every document that it was given: two that say the same are both found.
DOCUMENT_RULES = tuple(rule for rule in RULES if rule != "copies")
_INTEGER = re.compile(r"0|[1-9][0-9]{0,19}")
# Texts embedded and written together.
BATCH_TEXTS = 512


class Documents:
    """The documents of one source in a collection, which the first one written creates.

    Metadata and filters name fields as they were given; see `fields`.
    """

    def __init__(
        self,
        shared: SharedStore,
        source: str,
        compact: CompactPlan | None = None,
        fields: Mapping[str, str] | None = None,
        own: Collection[str] = (),
    ) -> None:
        """Name a source in a collection; `compact` and `fields` are those of a new one's spec, and an old one has them.

        `own`: more fields that the framework's adapter writes, which filters and `fields` name as they are.
        """
        self.shared = shared
        self.source = source
        self._compact = compact
        self._own = frozenset(own)
        self._fields = {stored_key(name, self._own): kind for name, kind in (fields or {}).items()}
        self._among: Sequence[RecordId] | None = None

    def among(self, ids: Sequence[RecordId]) -> Documents:
        """Return the documents of these ids alone, to be searched."""
        some = copy(self)
        some._among = ids
        return some

    # ---- names and ids

    def record(self, id: RecordId | None, text: str, metadata: Mapping[str, Any], ordinal: int = 0) -> Record:
        """Return a document as it is stored; without an id it gets one from its text, metadata and ordinal."""
        if id is None:
            # Two sources share no such id. Those of the default source are older than this, and stay.
            scope = "" if self.source == "documents" else f"{self.source}\0"
            id = piece_id(f"{scope}{ordinal or ''}", text, metadata)
        stored = {stored_name(name, self._own): value for name, value in metadata.items()}
        record = Record(id, text, stored, self.source)
        # The store refuses an id that cannot be one, and what is not JSON, and says why.
        if why_id_refused(id) is not None:
            return record
        plain = plain_record(id, text, stored, self.source, record.row_id)
        return record if isinstance(plain, str) else plain

    def records(
        self, ids: Sequence[RecordId | None], texts: Sequence[str], metadatas: Sequence[Mapping[str, Any]]
    ) -> list[Record]:
        """Return documents as they are stored; of equal ones without an id, each gets an id of its own."""
        made: list[Record] = []
        seen: Counter[RecordId] = Counter()
        for id, text, metadata in zip(ids, texts, metadatas, strict=True):
            first = self.record(id, text, metadata)
            before = seen[first.id]
            seen[first.id] += 1
            made.append(self.record(None, text, metadata, before) if id is None and before else first)
        return made

    def metadata(self, record: AnyRecord) -> dict[str, Any]:
        """Return the metadata of a row as they were given."""
        return given_metadata(record, self._own)

    def where(self, chosen: Where | None) -> Filter:
        """Return a filter on the fields as they were given as one on those that are stored."""
        return stored_where(chosen, self._own)

    # ---- writing

    def add(
        self,
        records: Sequence[Record],
        embed: Callable[[list[str]], Sequence[Sequence[float]]],
        fingerprint: Callable[[], Fingerprint],
    ) -> None:
        """Write documents; a text that the collection holds under the same id, or at the same path, is not embedded.

        `embed` returns the vectors of texts, `fingerprint` what these mean. Raises RowsRefused for a document that
        could not be found again, before anything of its batch is written; SpecMismatch if the collection's vectors
        mean something else.
        """
        for start in range(0, len(records), BATCH_TEXTS):
            batch = records[start : start + BATCH_TEXTS]
            with self.shared.opened() as store:
                self._require_planned(store)
                with _counted(range(start, start + len(batch))):
                    held = self._held(store, batch)
                found, vectors = self._existing(store, batch, held)
            new = [record for record in batch if record.row_id not in found and record.text not in vectors]
            texts = list(dict.fromkeys(record.text for record in new))
            made = dict(zip(texts, embed(texts), strict=True)) if texts else {}
            vectors |= {text: np.asarray(vector, np.float32) for text, vector in made.items()}
            with self.shared.opened() as store:
                if made:
                    self._create(store, len(next(iter(made.values()))), fingerprint())
                old = {start + place: one for place, one in enumerate(batch) if one.row_id in found}
                fresh = {start + place: one for place, one in enumerate(batch) if one.row_id not in found}
                with _counted(old):
                    store.update(list(old.values()))
                with _counted(fresh):
                    store.upsert([Row(one, vectors[one.text]) for one in fresh.values()])

    def put(self, rows: Sequence[Row], fingerprint: Fingerprint | None) -> None:
        """Write documents whose vectors are made; without a fingerprint they are taken for the collection's own."""
        if rows:
            with self.shared.opened() as store:
                self._require_planned(store)
                if fingerprint is not None or store.spec is None:
                    self._create(store, len(rows[0].vector), fingerprint or GIVEN_VECTORS)
                self._held(store, [row.record for row in rows])
                store.upsert(rows)

    def _existing(
        self, store: VectorStore, batch: Sequence[Record], held: Iterable[AnyRecord]
    ) -> tuple[set[RecordId], dict[str, Vector]]:
        """Return the ids whose rows hold the same text, and the vectors of texts that other rows of a file hold."""
        kept = {record.row_id: record.text for record in held}
        same = {record.row_id for record in batch if kept.get(record.row_id) == record.text}
        # A piece that only moved in its file has another id.
        paths = {path_of(one) for one in batch if one.row_id not in same} - {""}
        if not paths:
            return same, {}
        wanted = {one.text for one in batch}
        there = store.scroll(Filter({"path": sorted(paths)}), source=self.source)
        moved = {record.text: record.row_id for record in there if record.text in wanted}
        vectors = store.vectors(list(moved.values()))
        return same, {text: vectors[id] for text, id in moved.items() if id in vectors}

    def own(self, store: VectorStore, ids: Iterable[RecordId] | RecordId) -> dict[RecordId, AnyRecord]:
        """Return id → document, for those that no other source wrote: a UUID is that of a row, whatever its source."""
        found = store.get(self.named(store, ids), source=self.source)
        return {id: record for id, record in found.items() if self._is_own(record)}

    def _is_own(self, record: AnyRecord) -> bool:
        return record.source in ("", self.source)

    def _held(self, store: VectorStore, records: Sequence[AnyRecord]) -> Iterable[AnyRecord]:
        """Return the rows of documents that are there; raises RowsRefused if one is another source's."""
        ids = [record.id for record in records if why_id_refused(record.id) is None]  # writing says of others why
        held = store.get(ids, source=self.source)
        why = "the id is that of a row of source {!r}; UUIDs and integers are unique in a collection, use others"
        taken = {
            place: (record.id, why.format(held[record.id].source))
            for place, record in enumerate(records)
            if record.id in held and not self._is_own(held[record.id])
        }
        if taken:
            raise RowsRefused(taken)
        return held.values()

    def _require_planned(self, store: VectorStore) -> None:
        """Raise SpecMismatch for a collection that was made without these `fields`, or otherwise than `compact`.

        A service that names its tenants would otherwise believe that no row is without one.
        """
        if (spec := store.spec) is None:
            return
        fields = {name: kind for name, kind in self._fields.items() if name not in self._own}
        asked, plan = replace(spec, fields=fields), self._compact
        if plan is not None:
            plan.require_width(spec.width)
            rescore = plan.rescore or 0.0
            asked = replace(asked, datatype=plan.datatype, quantization=plan.quantization, rescore=rescore)
        spec.require_same(asked)

    def _create(self, store: VectorStore, width: int, fingerprint: Fingerprint) -> None:
        if store.spec is not None:
            store.spec.require_model(width, fingerprint)
            return
        lexical = store.capabilities.lexical
        store.create(CollectionSpec.planned(width, fingerprint, self._compact, lexical=lexical, fields=self._fields))

    # ---- reading

    def get(self, ids: Sequence[RecordId]) -> list[AnyRecord]:
        """Return the documents of these ids, in their order; those that are not there are left out."""
        with self.shared.opened() as store:
            named = self.named(store, ids)
            found = store.get(named, source=self.source)
        return [found[id] for id in named if id in found]

    def named(self, store: VectorStore, ids: Iterable[RecordId] | RecordId) -> list[RecordId]:
        """Return the ids of the documents that frameworks call by these ids, in their order.

        Frameworks give out every id as a string. One of digits that no document has as its name stands for the integer,
        if that is a document of this source.
        """
        given = listed_ids(ids)
        numbers = {id: int(id) for id in given if isinstance(id, str) and _INTEGER.fullmatch(id)}
        numbers = {id: number for id, number in numbers.items() if number <= MAX_INTEGER_ID}
        if numbers:
            names = store.known(list(numbers), source=self.source)
            there = store.get([number for id, number in numbers.items() if id not in names]).values()
            own = {record.id for record in there if record.source == self.source}
            numbers = {id: number for id, number in numbers.items() if number in own}
        return [numbers.get(id, id) if isinstance(id, str) else id for id in given]

    def mode(self, query: str, asked: Mode, embedder: C2LLMEmbedder | None) -> Mode:
        """Return how a question is answered here, with `embedder`: see `supported_mode` and `warned_mode_for`."""
        with self.shared.opened() as store:
            mode = asked if store.spec is None else supported_mode(asked, store.spec, store)
        return warned_mode_for(query, mode, embedder)

    def require_comparable(self, vector: Sequence[float], fingerprint: Fingerprint) -> None:
        """Raise SpecMismatch for the vector of a question whose model did not make the collection's vectors.

        Where nothing tells what made these, a warning says so, and only the width is compared.
        """
        with self.shared.opened() as store:
            warn_if_given(store)
            if store.spec is not None:
                require_comparable(store.spec, len(vector), fingerprint)

    def ranked(
        self,
        query: str,
        vector: Sequence[float] | None,
        limit: int,
        where: Filter,
        mode: Mode = "hybrid",
        *,
        weight: float | None = None,
    ) -> list[Hit]:
        """Return the best documents for a question, ranked as `search` ranks; none while there is no collection.

        With a `weight` of words against vectors (0…1), the ranking is their sum, without rules.
        """
        require(query, str, "a question in words")
        require_count(limit, "the number of documents to return")
        with self.shared.opened() as store:
            spec = store.spec
            if spec is None:
                return []
            mode = supported_mode(mode, spec, store)
            terms = query_terms(query) if mode != "dense" else []
            asked = None if vector is None or mode == "lexical" else _numbers(vector)
            found = self._candidates(store, asked, terms, max(limit, CANDIDATES), where)
        return rank(query, found, limit, mode, DOCUMENT_RULES if weight is None else (), weight)

    def nearest(self, vector: Sequence[float], limit: int, where: Filter) -> list[Hit]:
        """Return the documents nearest to a vector, with their cosines."""
        with self.shared.opened() as store:
            if store.spec is None:
                return []
            return self._candidates(store, _numbers(vector), (), limit, where).dense[:limit]

    def _candidates(
        self, store: VectorStore, vector: Vector | None, terms: Sequence[str], limit: int, where: Filter
    ) -> Candidates:
        """Return what `candidates` of the store does, or of `among` some ids all, since no filter can name ids."""
        if self._among is None:
            return store.candidates(vector, terms, limit, where)
        held = store.get(self.named(store, self._among), source=self.source).values()
        records = [record for record in held if where.matches(record.metadata)]
        vectors = {} if vector is None else store.vectors([record.row_id for record in records])
        near = [(record, vectors[record.row_id]) for record in records if record.row_id in vectors]
        dense = [Hit(record, float(unit(vector) @ own)) for record, own in near if vector is not None]
        lexical = [Hit(records[place], score) for place, score in _by_words(terms, map(chunk_of, records))]
        return Candidates(sorted(dense, key=lambda hit: -hit.score), lexical)

    def with_vectors(self, hits: Sequence[Hit]) -> tuple[list[Hit], list[Any]]:
        """Return documents that were found, and their vectors, without those that have been deleted since."""
        with self.shared.opened() as store:
            found = store.vectors([hit.record.row_id for hit in hits])
        hits = [hit for hit in hits if hit.record.row_id in found]
        return hits, [found[hit.record.row_id] for hit in hits]


@contextmanager
def _counted(places: Collection[int]) -> Iterator[None]:
    """Name refused rows by their places in the caller's call."""
    try:
        yield
    except RowsRefused as error:
        raise error.at(list(places)) from None


def _by_words(terms: Sequence[str], pieces: Iterable[CodeChunk]) -> list[tuple[int, float]]:
    """Return the places of the pieces that share terms, and their BM25 among these pieces, best first."""
    index = LexicalIndex()
    index.add([replace(piece, id=str(place)) for place, piece in enumerate(pieces)])
    return [(int(hit.chunk.id), hit.score) for hit in index.candidates(None, terms, index.count()).lexical]


def rerank(
    query: str,
    found: Sequence[tuple[str, Mapping[str, Any]]],
    query_vector: Sequence[float] | None,
    vectors: Sequence[Sequence[float]],
    limit: int,
) -> list[tuple[int, float]]:
    """Return the places in `found` of the best, ranked by the rules of `search`, and their scores in 0…1.

    `found`: the text and the metadata of each; `query_vector`: (width,), of any length, None to compare words alone;
    `vectors`: (len(found), width), not used without `query_vector`.
    """
    if not found:
        return []
    pieces = [chunk_of(Record(place, text, metadata)) for place, (text, metadata) in enumerate(found)]
    cosines = np.zeros(len(pieces)) if query_vector is None else unit(vectors) @ unit(query_vector)
    dense = [Hit(piece, float(cosine)) for piece, cosine in zip(pieces, cosines, strict=True)]
    lexical = [Hit(pieces[place], score) for place, score in _by_words(query_terms(query), pieces)]
    hits = rank(query, Candidates(dense, lexical), limit, rules=DOCUMENT_RULES)
    return [(int(hit.record.id), hit.score) for hit in hits]


def refuse_unknown(given: Collection[str], known: Collection[str]) -> None:
    """Raise InputError for an argument that would otherwise be left out silently."""
    for name in given:
        if name not in known:
            raise InputError(f"there is no argument {name!r}{did_you_mean(name, known)}")


def _numbers(vector: Sequence[float]) -> Vector:
    try:
        return np.asarray(vector, np.float32)
    except (TypeError, ValueError) as error:
        raise InputError(f"expected a vector of numbers, got {vector!r:.60} ({type(vector).__name__})") from error
