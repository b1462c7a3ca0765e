"""The contract every store keeps: how a collection is made, written, compared and searched.

Public methods check their input and the store's state once, here; the underscored ones, which a database
implements, may trust what they get.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from itertools import islice
from typing import Any, ClassVar, TypeVar

import numpy as np
from typing_extensions import Self

from c2llm_integrations.code.chunk import CodeChunk
from c2llm_integrations.code.lexical_terms import document_terms
from c2llm_integrations.errors import InputError, RowsRefused, StoreError
from c2llm_integrations.stores import row_checks
from c2llm_integrations.stores.backend import Backend, Terms
from c2llm_integrations.stores.filter import Filter
from c2llm_integrations.stores.ids import RecordId, listed_ids, row_id
from c2llm_integrations.stores.records import AnyRecord, Candidates, Hit, Record, Row, Vector
from c2llm_integrations.stores.row_checks import hashable, listed, require
from c2llm_integrations.stores.row_fields import Stored, parts, path_of, prepared_for, slices, unit
from c2llm_integrations.stores.spec import CollectionSpec

Where = Filter | Mapping[str, Any]
# Rows that are read before the caller gets the first of them, and other threads and processes their turn: few, for each
# may have megabytes of text.
READ_ROWS = 100

_T = TypeVar("_T")


class VectorStore(Backend):
    """One collection of one database.

    Every write outlives this process once the call returns, however the process ends. While the collection
    does not exist, reading finds nothing and writes nothing, deleting does nothing, and searching or writing
    is an error.
    After `close` every method but `close` raises StoreError.
    """

    # The advice where a filter compares a field with moments that is not declared: this, then the `fields`.
    _declaring: ClassVar[str] = "create the collection with"

    # ---- the collection

    @property
    def spec(self) -> CollectionSpec | None:
        """The collection's spec, or None while it does not exist."""
        with self._open():
            return self._read_spec()

    def create(self, spec: CollectionSpec) -> bool:
        """Create the collection with its spec; if it exists, check that the specs agree.

        Return whether it was created. Raises SpecMismatch if the specs differ, StoreError if this store cannot honor
        the spec.
        """
        require(spec, CollectionSpec, "a CollectionSpec")
        with self._open(), self._making:
            self.capabilities.require(spec)
            if is_new := self._read_spec() is None:
                self._create(spec)
            self._existing().require_same(spec)
            return is_new

    def claims(self) -> dict[str, str]:
        """Return repository or source → who fills it, as `claim` recorded it; the dict is a copy.

        Indexing writes CHECKOUT@COMMIT:FOLDER for a repository, and "records:" and a run's name for other sources.
        """
        with self._open():
            return {} if self._read_spec() is None else dict(self._claims())

    def claim(self, repository: str, checkout: str) -> None:
        """Record who fills a repository or another source from now on: a checkout's claim, or the name of a run."""
        for name in (repository, checkout):
            require(name, str, "a repository's name and a checkout's id")
        with self._open(), self._making:
            self._existing()
            self._claim(repository, checkout)

    def optimize(self) -> None:
        """Build the index, also one that a killed run deferred, and wait until it is ready."""
        with self._open():
            self._existing()
            self._restore()
            self._optimize()

    @contextmanager
    def bulk(self) -> Iterator[None]:
        """Defer building the index while many rows are written, in a `with` block.

        At the end of the block the index is built; after an error or a kill, the next `optimize` builds it.
        """
        with self._open():
            self._existing()
            self._defer()
            had_only_our_fields = self._has_only_our_fields
            self._has_only_our_fields = had_only_our_fields or not self._total()
        try:
            yield
        except BaseException:
            with suppress(StoreError), self._open():  # what cannot be restored now must not hide what went wrong
                self._restore()
            raise
        finally:
            self._has_only_our_fields = self._has_only_our_fields and had_only_our_fields
        self.optimize()

    def successor(self) -> VectorStore:
        """Return a store on the collection that will replace this one; a former run may have begun to fill it.

        Raises StoreError if this store has no collection to replace, or is a successor itself.
        """
        with self._open():
            self._existing()
            if self._is_successor:
                raise StoreError(f"collection {self.collection!r} of {self.url} is a successor itself; fill it first")
            one = self._successor()
            one._is_successor = True
            return one

    def replace_by(self, successor: VectorStore) -> None:
        """Give this collection's name to its filled successor in one step, then drop the old collection.

        Readers find either the old rows or the new ones. This store then serves the new ones; `successor` is closed.
        """
        require(successor, VectorStore, "what `successor` returned")
        with self._open(), self._making:
            successor._existing()
            successor.close()
            self.changes += 1
            self._replace()

    def drop(self) -> None:
        """Delete the collection and all its rows; no error if there is none."""
        with self._open(), self._making:
            self.changes += 1
            self._drop()

    @property
    def client(self) -> Any:
        """The database's own client, for what this class has no method for; None while nothing is open.

        A QdrantClient, a MilvusClient or Qdrant Edge's EdgeShard. It belongs to the store, which closes it.
        """
        with self._open():
            self._read_spec()
            self._has_only_our_fields = False
            return self._client

    def close(self) -> None:
        """Release the database; calling it twice is allowed."""
        if self._closed:
            return
        self._closed = True
        if self._executor is not None:
            self._executor.shutdown()  # whoever waits in it is told that the store is closed
        with self._errors():
            self._close()

    # ---- writing

    def upsert(self, rows: Sequence[Row]) -> int:
        """Insert rows, or overwrite those of the same id; vectors are stored at unit length.

        Fields that others have added to a row are kept. Return how many texts were cut.

        Raises RowsRefused, before anything is sent, for rows that cannot be stored:

        - a vector of another width, with NaN or infinity, or of length zero
        - an id that is not a UUID, an unsigned integer or a string, or that occurs twice in one call
        - metadata that is not JSON, or named like the store's own fields
        - text that is not valid Unicode, or over the store's byte limit (unless the spec says to cut it)

        Raises BatchRefused if the database refuses rows that pass these checks.
        """
        rows = listed(rows, Row, "rows")
        with self._open():
            spec = self._existing()
            given = listed([row.record for row in rows], (Record, CodeChunk), "rows with a Record or CodeChunk")
            records = self._checked(given, spec, row_checks.refused_vectors(rows, spec.width))
            self.changes += 1
            for part in slices(records, spec.width, self._batch_bytes):
                vectors = unit(np.stack([row.vector for row in rows[part]]))
                self._send(records[part], vectors, _terms(spec, given[part]))
        return sum(len(whole.text) > len(stored.text) for whole, stored in zip(given, records, strict=True))

    def update(self, records: Sequence[AnyRecord]) -> None:
        """Overwrite the text and metadata of existing rows; their vectors, and fields that others added, are kept.

        Raises RowsRefused, before anything is sent, for what `upsert` refuses and for ids not in the collection.
        """
        given = listed(records, (Record, CodeChunk), "records or chunks")
        with self._open():
            spec = self._existing()
            records = self._checked(given, spec, {})
            keys = [record.row_id for record in records]
            fields = {id: names for part in parts(keys) for id, names in self._written_fields(part).items()}
            unknown = [place for place, key in enumerate(keys) if key not in fields]
            if unknown:
                why = "there is no such row; upsert it with its vector"
                raise RowsRefused({place: (records[place].id, why) for place in unknown})
            self.changes += 1
            for part in slices(records, spec.width, self._batch_bytes):
                gone = _gone(records[part], fields)
                self._update(records[part], None, _terms(spec, given[part]), gone)

    def delete(
        self, ids: Iterable[RecordId] | RecordId | None = None, *, source: str | None = None, where: Where | None = None
    ) -> int:
        """Delete rows by the ids of their records, or those that match a filter, and return how many there were.

        Args:
            ids: One id or several; ids that are not there are no error. A UUID or an integer is the id of the row
                itself, whatever its source.
            source: The source that all other ids belong to, as for `get`; with `where`, the source whose rows are
                deleted, None for all.
            where: A filter, instead of ids. Only rows that this package wrote are deleted.

        Raises:
            InputError: For what cannot be an id, for ids and a filter together or neither, and without a source for a
                filter that every row matches.

        """
        if ids is not None and where is None:
            found = list(self._by_key(ids, source, lambda keys: ((key, key) for key in self._known(keys))).values())
        elif ids is None and where is not None:
            if source is None and not _filter(where):
                raise InputError("where=… matches every row, so all would be deleted; name a source, or use `drop`")
            found = [row.id for row in self.scan(where, source=source)]
        else:
            raise InputError("delete takes either ids or where=…; `drop` deletes the whole collection")
        with self._open():
            if found:
                self.changes += 1
            for part in parts(found):
                self._delete(part)
        return len(found)

    # ---- reading

    def get(self, ids: Iterable[RecordId] | RecordId, *, source: str | None = None) -> dict[RecordId, AnyRecord]:
        """Return id → record, without vectors; ids that are not in the collection are left out.

        Args:
            ids: One id or several, as they were given to `Record`.
            source: The source that ids other than UUIDs and integers belong to, as given to `ingest_records`; None for
                records without a source. A warning says so if that finds none.

        Raises:
            InputError: For what cannot be an id.

        """
        return self._by_key(ids, source, lambda keys: ((one.row_id, one) for one in self._get(keys)))

    def scroll(self, where: Where | None = None, *, source: str | None = None) -> Iterator[AnyRecord]:
        """Yield the records this package wrote that match a filter (of one source), in no particular order."""
        return (record for record, _ in self._each(self._rows, where, source))

    def rows(self, where: Where | None = None, *, source: str | None = None) -> Iterator[Row]:
        """Yield the records of `scroll` with their vectors, at unit length."""
        found = self._each(partial(self._rows, vectors=True), where, source)
        return (Row(record, unit(vector)) for record, vector in found if vector is not None)

    def scan(self, where: Where | None = None, *, source: str | None = None) -> Iterator[Stored]:
        """Yield what an incremental run compares of the rows of `scroll`: ids, lines and digests."""
        return self._each(self._scan, where, source)

    def count(self, where: Where | None = None, *, source: str | None = None) -> int:
        """Count exactly the rows this package wrote (of one source) that match a filter."""
        chosen, source = _filter(where), _source(source)
        with self._open():
            if self._read_spec() is None:
                return 0
            self._require_moments(chosen)
            return self._count(chosen, source)

    def total(self) -> int:
        """Count exactly all rows, including those of other programs; most stores do this faster than `count`."""
        with self._open():
            return 0 if self._read_spec() is None else self._total()

    def known(self, ids: Iterable[RecordId] | RecordId, *, source: str | None = None) -> set[RecordId]:
        """Return those of `ids` (see `get`) that are in the collection, whoever wrote them."""
        return set(self._by_key(ids, source, lambda keys: ((key, None) for key in self._known(keys))))

    def vectors(self, ids: Iterable[RecordId] | RecordId, *, source: str | None = None) -> dict[RecordId, Vector]:
        """Read back vectors, unit length, by id (see `get`); ids that are not there are left out."""
        return self._by_key(ids, source, lambda keys: _at_unit_length(self._vectors(keys)))

    def search(self, vector: Vector, limit: int, where: Where | None = None) -> list[Hit]:
        """Return the `limit` nearest rows, best first; arguments and errors are those of `candidates`."""
        return self.candidates(vector, (), limit, where).dense

    def candidates(
        self, vector: Vector | None, terms: Sequence[str], limit: int, where: Where | None = None
    ) -> Candidates:
        """Return the `limit` nearest rows by vector, and the `limit` best by BM25 of `terms`.

        Each list begins with its `limit` best; after them come rows of the other list, with their score in this one.
        Rows that others wrote are found too.

        Args:
            vector: (width,), of any length above 0; None leaves the dense list empty.
            terms: As `query_terms` gives them; without terms or an analyzer, the lexical list is empty.
            limit: At least 1.
            where: A filter on the metadata; see `Filter`.

        Raises:
            InputError: For a vector, limit or filter that cannot be used.

        """
        chosen = Filter(where)
        terms = listed(terms, str, "terms")
        with self._open():
            spec = self._existing()
            row_checks.require_count(limit, "limit")
            if vector is not None:
                why = row_checks.why_vector_refused(vector, spec.width)
                if why is not None:
                    raise InputError(f"the query's {why}")
                vector = unit(vector)
            terms = terms if spec.analyzer is not None else ()
            if vector is None and not terms:
                return Candidates([], [])
            self._require_moments(chosen)
            found = self._candidates(vector, terms, int(limit), chosen)
            return found if vector is None or not terms else self._completed(found, vector, terms)

    def _completed(self, found: Candidates, vector: Vector, terms: Sequence[str]) -> Candidates:
        """Append to each list the rows that only the other found, if they have a score here."""
        dense_records = {hit.record.row_id: hit.record for hit in found.dense}
        lexical_records = {hit.record.row_id: hit.record for hit in found.lexical}
        lexical_only = [id for id in lexical_records if id not in dense_records]
        dense_only = [id for id in dense_records if id not in lexical_records]
        # Others may have written a vector of zeros, which is at no angle to anything.
        vectors = {id: one for id, one in self._vectors(lexical_only).items() if np.any(one)} if lexical_only else {}
        scores = self._lexical_scores(terms, dense_only) if dense_only else {}
        cosines = (unit([*vectors.values()]) @ vector).tolist() if vectors else []
        dense = [Hit(lexical_records[id], cosine) for id, cosine in zip(vectors, cosines, strict=True)]
        lexical = [Hit(dense_records[id], score) for id, score in scores.items()]
        return Candidates(
            [*found.dense, *sorted(dense, key=lambda hit: -hit.score)],
            [*found.lexical, *sorted(lexical, key=lambda hit: -hit.score)],
        )

    # ---- awaited: a thread of the store's own does the work, so that the event loop is never blocked

    async def aget(self, ids: Iterable[RecordId] | RecordId, *, source: str | None = None) -> dict[RecordId, AnyRecord]:
        """Await `get`."""
        return await self._in_thread(self.get, ids, source=source)

    async def asearch(self, vector: Vector, limit: int, where: Where | None = None) -> list[Hit]:
        """Await `search`."""
        return await self._in_thread(self.search, vector, limit, where)

    async def acandidates(
        self, vector: Vector | None, terms: Sequence[str], limit: int, where: Where | None = None
    ) -> Candidates:
        """Await `candidates`."""
        return await self._in_thread(self.candidates, vector, terms, limit, where)

    async def acount(self, where: Where | None = None, *, source: str | None = None) -> int:
        """Await `count`."""
        return await self._in_thread(self.count, where, source=source)

    async def aupsert(self, rows: Sequence[Row]) -> int:
        """Await `upsert`."""
        return await self._in_thread(self.upsert, rows)

    async def adelete(
        self, ids: Iterable[RecordId] | RecordId | None = None, *, source: str | None = None, where: Where | None = None
    ) -> int:
        """Await `delete`."""
        return await self._in_thread(self.delete, ids, source=source, where=where)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- shared by all

    def _checked(self, given: Sequence[AnyRecord], spec: CollectionSpec, refused: dict[int, str]) -> list[AnyRecord]:
        """Return records as they are stored; raises RowsRefused for `refused` and for those that cannot be."""
        limit = self.capabilities.max_text_bytes
        records = [prepared_for(record, limit if spec.long_text == "cut" else None) for record in given]
        refused = row_checks.refused_records(records, limit, spec.fields) | refused
        if refused:
            raise RowsRefused({place: (hashable(given[place].id), refused[place]) for place in sorted(refused)})
        return records

    def _send(self, records: Sequence[AnyRecord], vectors: Vector, terms: Terms) -> None:
        """Write one batch: rows that exist are updated, for writing them anew would wipe what others added."""
        fields = {} if self._has_only_our_fields else self._written_fields([record.row_id for record in records])
        for exists in (False, True):
            places = [place for place, record in enumerate(records) if (record.row_id in fields) == exists]
            some, words = [records[place] for place in places], terms and [terms[place] for place in places]
            if some and exists:
                self._update(some, vectors[places], words, _gone(some, fields))
            elif some:
                self._upsert(some, vectors[places], words)

    def _by_key(
        self,
        ids: Iterable[RecordId] | RecordId,
        source: str | None,
        read: Callable[[Sequence[RecordId]], Iterable[tuple[RecordId, _T]]],
    ) -> dict[RecordId, _T]:
        """Return id → what `read` gives for the key of its row; ids without a row are left out."""
        namespace = _source(source) or ""
        keys = {row_id(namespace, id): id for id in listed_ids(ids)}
        with self._open():
            if self._read_spec() is None:
                return {}
            found = {keys[key]: one for part in parts(list(keys)) for key, one in read(part)}
            names = [id for key, id in keys.items() if str(key) != str(id).lower()] if source is None else []
            if names and found.keys().isdisjoint(names) and (sources := sorted(self._claims())):
                warnings.warn(
                    f"no row without a source has the id {names[0]!r:.60}; ids are names within their source, "
                    f"so say source=…, here one of {sources[:3]}",
                    stacklevel=3,
                )
        return found

    def _each(
        self, read: Callable[[Filter, str | None], Iterator[_T]], where: Where | None, source: str | None
    ) -> Iterator[_T]:
        """Yield what `read` gives for the rows that match a filter (of one source)."""
        chosen, source = _filter(where), _source(source)
        with self._open():
            if self._read_spec() is None:
                return iter(())
            self._require_moments(chosen)
            return self._guarded(read(chosen, source))

    def _require_moments(self, where: Filter) -> None:
        fields = self._existing().fields
        others = sorted(name for name in where.periods() if fields.get(name) != "datetime")
        if others:
            raise InputError(
                f"filter {others[0]!r} is compared with a moment, but {self.collection!r} does not know it as one; "
                f"{self._declaring} fields={{{others[0]!r}: 'datetime'}}"
            )

    def _guarded(self, found: Iterator[_T]) -> Iterator[_T]:
        """Yield rows, with the store only held while some are read: the caller may do anything between two of them."""
        while True:
            with self._open():
                rows = list(islice(found, READ_ROWS))
            if not rows:
                return
            yield from rows


def _at_unit_length(found: Mapping[RecordId, Vector]) -> Iterable[tuple[RecordId, Vector]]:
    return zip(found, unit([*found.values()]), strict=True) if found else ()


def _filter(where: Where | None) -> Filter:
    if isinstance(where, str):
        raise InputError(f"a filter is a mapping, got {where!r:.60}; to name a source write source={where!r:.60}")
    return Filter(where)


def _source(source: str | None) -> str | None:
    require(source, (str, type(None)), "a source's name or None")
    return source


def _terms(spec: CollectionSpec, records: Sequence[AnyRecord]) -> Terms:
    if spec.analyzer is None:
        return None
    return [document_terms(path_of(record), record.text) for record in records]


def _gone(records: Sequence[AnyRecord], fields: Mapping[RecordId, Sequence[str]]) -> list[list[str]]:
    return [[name for name in fields[record.row_id] if name not in record.metadata] for record in records]
