"""Milvus through pymilvus: a server, Zilliz Cloud, or any `MilvusClient` the user already has.

`schema` says what a collection is made of; its properties hold the spec and the claims. Other libraries may open it
(docs/stores-and-interoperability.md says how) and add rows of their own.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from time import monotonic
from typing import Any, NamedTuple

import numpy as np
from pymilvus import MilvusClient

from c2llm_integrations._utils.retry import retrying
from c2llm_integrations.errors import BatchRefused, InputError, StoreError
from c2llm_integrations.stores import Location
from c2llm_integrations.stores.backend import Gone, Terms
from c2llm_integrations.stores.bounded_pages import bounded_pages
from c2llm_integrations.stores.filter import Filter
from c2llm_integrations.stores.ids import RecordId
from c2llm_integrations.stores.milvus import collections, errors, schema
from c2llm_integrations.stores.milvus.collections import CLAIM_KEY, SPEC_KEY, STRONG, call
from c2llm_integrations.stores.milvus.filter import expression, ids_in, ours
from c2llm_integrations.stores.milvus.schema import VECTOR_FIELD, Server, id_from, vector_from
from c2llm_integrations.stores.records import AnyRecord, Candidates, Hit, RecordIterator, Vector, is_chunk
from c2llm_integrations.stores.row_checks import require
from c2llm_integrations.stores.row_fields import OwnField, Stored, field_names, stored_of
from c2llm_integrations.stores.spec import CollectionSpec
from c2llm_integrations.stores.vector_store import VectorStore

# Milvus's own limit on the hits of one search.
MAX_HITS = 16_384
# Rows a page: large, because a server waits until a page can miss no write (16,384 at most).
SCAN_PAGE = 16_000
# A page of so few rows is late for another reason: Milvus Lite goes over the whole collection for each.
LATE_PAGE = 100
# Vectors and texts are read back in pages of about this size; a server sends at most 64 MB at once.
PAGE_BYTES = 8 * 2**20
USUAL_TEXT_BYTES = 2_048
# A claim is written again so often when another writer of the properties wiped it out.
CLAIM_TRIES = 5
SETTLING_SECONDS = 0.05

Found = list[tuple[str, float, dict[str, Any]]]  # id, score and fields of each hit


class Serving(NamedTuple):
    """What a collection's name stands for, and until when nobody drops it even if it is replaced.

    `has_records`: it may hold records that are not chunks; `tenant`: the column of the tenant. A collection of an
    earlier release may have neither.
    """

    physical: str
    spec: CollectionSpec
    until: float
    has_records: bool
    tenant: str | None


class MilvusStore(VectorStore):
    """One collection behind a `MilvusClient`."""

    def __init__(
        self,
        client: MilvusClient | None,
        server: Server,
        collection: str = "code",
        *,
        url: str = "",
        owned: bool = True,
        physical: bool = False,
    ) -> None:
        """Use `connect` or `from_client`, which find out what kind of Milvus the `server` is.

        `url` is what messages call the database; an `owned` client is closed with the store. `physical`: `collection`
        is a successor's, which an alias will stand for. Raises InputError for a name that Milvus does not take.
        """
        super().__init__(url, collection if physical else collections.usable(collection))
        self.capabilities = server.capabilities
        self._client: Any = client
        self._server = server
        self._owned = owned
        self._is_physical = physical
        self._serving: Serving | None = None
        self._loaded = ""
        # Whether this store made the collection and has written nothing, and whether `_defer` has taken its indexes.
        self._is_new = self._is_deferred = False
        # Whether this store wrote what Milvus Lite may not have put into a segment yet.
        self._is_unflushed = False

    @classmethod
    def open(cls, at: Location) -> MilvusStore:
        """Return a store on the server at a location."""
        return cls.connect(at.place, at.collection, at.key)

    @classmethod
    def list_collections(cls, at: Location) -> list[str]:
        """See `VectorStore.list_collections`."""
        client, _ = collections.connect(at.place, at.key)
        try:
            return collections.names(client)
        finally:
            client.close()

    @classmethod
    def connect(cls, address: str, collection: str = "code", token: str | None = None) -> MilvusStore:
        """Return a store on the server at `address`, http(s)://HOST:PORT; `token` is an API key or user:password.

        Raises StoreError if the server does not answer within 10 seconds.
        """
        collections.usable(collection)
        return cls(*collections.connect(address, token), collection, url=f"milvus+{address}")

    @classmethod
    def from_client(cls, client: MilvusClient, collection: str = "code") -> MilvusStore:
        """Return a store over a client that the caller opened and will close."""
        require(client, MilvusClient, "a MilvusClient")
        server = Server.of(client.get_server_version(timeout=collections.CONNECT_SECONDS))
        return cls(client, server, collection, url="the given Milvus client", owned=False)

    # ---- the collection

    def _read_spec(self) -> CollectionSpec | None:
        serving = self._serving
        if serving is None or monotonic() > serving.until:
            serving = self._serving = self._find()
        return None if serving is None else serving.spec

    def _find(self) -> Serving | None:
        """Return what has the name now."""
        described = collections.described(self._client, self.collection)
        if described is None:
            return None
        properties = described.get("properties") or {}
        if SPEC_KEY not in properties:
            raise StoreError(
                f"collection {self.collection!r} of {self.url} was not made by this package; "
                "choose another --collection, or read it with a Layout"
            )
        until = monotonic() + collections.FRESH_SECONDS
        columns, spec = collections.columns_of(described), collections.spec_of(properties)
        tenant = schema.tenant_column(spec)
        physical = str(described["collection_name"])
        return Serving(physical, spec, until, OwnField.SOURCE in columns, tenant if tenant in columns else None)

    @property
    def _now(self) -> Serving:
        """What the name stood for when the spec was read: nothing goes to a collection whose spec was not looked at."""
        while (serving := self._serving) is None:
            self._existing()
        return serving

    @property
    def _physical(self) -> str:
        return self._now.physical

    @property
    def _fields(self) -> list[str]:
        """The fields that a record is made of."""
        own = OwnField.SOURCE if self._now.has_records else None
        return [*schema.RECORD_FIELDS, *filter(None, (own, self._now.tenant))]

    def _create(self, spec: CollectionSpec) -> None:
        begin = collections.make if self._is_physical else collections.begin
        begin(self._client, self.collection, spec, self._server)
        self._is_new = True

    def _claims(self) -> dict[str, str]:
        properties = collections.properties_of(self._client, self._physical)
        return {key.removeprefix(CLAIM_KEY): value for key, value in properties.items() if key.startswith(CLAIM_KEY)}

    def _claim(self, repository: str, checkout: str) -> None:
        for _ in range(CLAIM_TRIES):
            self._call("alter_collection_properties", properties={CLAIM_KEY + repository: checkout})
            if self._server.kind != "lite":
                return
            time.sleep(SETTLING_SECONDS)  # Milvus Lite may forget one of two changes made at the same moment
            if self._claims().get(repository) == checkout:
                return
        raise StoreError(f"{self.url} lost ownership of {repository!r} to a concurrent writer; run again")

    def _defer(self) -> None:
        """Take the indexes of an empty collection away until all rows are there, or one is read.

        Otherwise a server indexes the same rows two or three times while it merges what arrives. A collection with
        rows keeps its indexes, because it may be searched meanwhile. Milvus Lite has nothing to build.
        """
        if self._server.kind == "lite" or not (self._is_new or self._counted("") == 0):
            return
        self._loaded, self._is_deferred, self._is_new = "", True, True
        collections.drop_indexes(self._client, self._physical)

    def _restore(self) -> None:
        self._is_deferred = False
        if self._server.kind == "lite":
            return  # nothing was put off; to list indexes, the engine counts all rows
        # A server builds one index after another; those that filters use come last.
        collections.make_indexes(self._client, self._physical, self._existing(), self._server, filtered=False)

    def _optimize(self) -> None:
        self._call("flush", timeout=collections.LOAD_SECONDS)
        if self._server.kind != "lite" and self._loaded != self._physical:
            # It loads while it indexes, three seconds sooner.
            collections.load(self._client, self._physical, self._existing(), self._server, waits=False)
        collections.await_indexes(self._client, self._physical)
        self._load()

    def _successor(self) -> VectorStore:
        name = collections.successor_of(self._client, self._physical, self.collection)
        return MilvusStore(self._client, self._server, name, url=self.url, owned=False, physical=True)

    def _replace(self) -> None:
        collections.replace(self._client, self._physical, self.collection, self._server)
        self._serving = None

    def _drop(self) -> None:
        if self._read_spec() is not None:
            collections.drop(self._client, self._physical, self.collection)
        self._serving = None

    def _close(self) -> None:
        if self._owned and self._client is not None:
            self._client.close()

    # ---- writing

    def _upsert(self, records: Sequence[AnyRecord], vectors: Vector, terms: Terms) -> None:
        self._require_room(records)
        self._write(schema.entities_of(records, vectors, terms, self._existing(), has_records=self._now.has_records))

    def _update(self, records: Sequence[AnyRecord], vectors: Vector | None, terms: Terms, gone: Gone) -> None:
        self._require_room(records)
        entities = schema.entities_of(records, vectors, terms, self._existing(), has_records=self._now.has_records)
        gone = [[*names, *entity.get(OwnField.EMPTY, ())] for names, entity in zip(gone, entities, strict=True)]
        if self._server.updates_partly:
            changed = [{**dict.fromkeys(names), **entity} for names, entity in zip(gone, entities, strict=True)]
            for chunks in (False, True):  # all of one call have the same columns
                if some := [one for one, record in zip(changed, records, strict=True) if is_chunk(record) == chunks]:
                    self._write(some, partial_update=True)
            return
        lexical = [schema.TERMS_FIELD] if self._existing().analyzer is not None else []
        held = self._fetch([record.row_id for record in records], [VECTOR_FIELD, *lexical, *self._fields])
        whole = []
        for record, names, entity in zip(records, gone, entities, strict=True):
            kept = {name: value for name, value in held[record.row_id].items() if name not in names}
            whole.append({**kept, **entity})
        self._write(whole)

    def _require_room(self, records: Sequence[AnyRecord]) -> None:
        if not self._now.has_records and not all(map(is_chunk, records)):
            raise StoreError(
                f"collection {self.collection!r} of {self.url} was made by an earlier release and takes only chunks of "
                "files; write records into another collection"
            )

    def _write(self, entities: list[dict[str, Any]], **options: Any) -> None:
        self._is_new, self._is_unflushed = False, True
        # Never `insert`: it takes an id twice without a word.
        try:
            self._call("upsert", data=entities, **options)
        except Exception as error:
            if errors.is_refusal(error):
                raise BatchRefused(f"{self.url} refused {len(entities)} rows: {errors.reason(error)}") from error
            raise

    def _delete(self, ids: Sequence[RecordId]) -> None:
        self._call("delete", ids=list(map(str, ids)))

    # ---- reading

    def _known(self, ids: Sequence[RecordId]) -> Iterable[RecordId]:
        return {id_from(row["id"]) for row in self._query(["id"], ids=list(map(str, ids)))}

    def _written_fields(self, ids: Sequence[RecordId]) -> Mapping[RecordId, Sequence[str]]:
        found = self._query(["id", OwnField.FIELDS], ids=list(map(str, ids)))
        return {id_from(row["id"]): field_names(row.get(OwnField.FIELDS)) for row in found}

    def _count(self, where: Filter, source: str | None) -> int:
        return self._counted(self._chosen(where, source))

    def _total(self) -> int:
        return self._counted("")

    def _counted(self, where: str) -> int:
        if self._is_deferred and self._is_new:
            return 0  # asked for real, the indexes would be made now
        return int(self._query(["count(*)"], filter=where)[0]["count(*)"])

    def _get(self, ids: Sequence[RecordId]) -> Iterable[AnyRecord]:
        return [self._record(row["id"], row) for row in self._fetch(ids, self._fields).values()]

    def _scan(self, where: Filter, source: str | None) -> Iterator[Stored]:
        for row in self._scroll(where, source, schema.STORED_FIELDS, SCAN_PAGE):
            yield stored_of(id_from(row["id"]), row, row.get(OwnField.DIGEST))

    def _rows(self, where: Filter, source: str | None, *, vectors: bool = False) -> RecordIterator:
        page = self._page(USUAL_TEXT_BYTES + (4 * self._existing().width if vectors else 0))
        for row in self._scroll(where, source, ["id", *([VECTOR_FIELD] if vectors else []), *self._fields], page):
            yield self._record(row["id"], row), vector_from(row[VECTOR_FIELD]) if vectors else None

    def _page(self, row_bytes: int) -> int:
        # Milvus Lite sorts the whole collection anew for every page.
        return SCAN_PAGE if self._server.kind == "lite" else max(1, min(PAGE_BYTES // row_bytes, SCAN_PAGE))

    def _chosen(self, where: Filter, source: str | None, after: str = "") -> str:
        """Return what our rows match that a filter chooses."""
        mine = ours(source, has_records=self._now.has_records, after=after)
        return f"{mine} and ({self._expression(where)})" if where else mine

    def _expression(self, where: Filter) -> str:
        return expression(where, has_records=self._now.has_records, tenant=self._now.tenant)

    def _record(self, id: str, row: Mapping[str, Any]) -> AnyRecord:
        return schema.record_from(id, row, self._now.tenant)

    def _scroll(self, where: Filter, source: str | None, fields: list[str], page: int) -> Iterator[dict[str, Any]]:
        """Yield our rows by ascending id."""
        self._existing()
        return bounded_pages(self, self._pages(where, source, fields, page))

    def _pages(
        self, where: Filter, source: str | None, fields: list[str], page: int
    ) -> Iterator[tuple[list[dict[str, Any]], str]]:
        """Yield pages of rows and their last id; one that is too large or takes too long is read again in halves."""
        last, physical = "", self._physical
        while True:
            chosen = self._chosen(where, source, after=last)
            pages = self._read("query_iterator", batch_size=page, filter=chosen, output_fields=fields, **STRONG)
            try:
                while rows := retrying(pages.next, partial(_pause_after, page)):
                    last = rows[-1]["id"]
                    yield rows, last
                break
            except Exception as error:
                if not _is_halved(page, error):
                    raise
                page //= 2
            finally:
                pages.close()
        if (now := self._find()) is None or now.physical != physical:
            raise StoreError(f"{self.collection!r} of {self.url} was replaced while it was read; read it again")

    def _vectors(self, ids: Sequence[RecordId]) -> dict[RecordId, Vector]:
        return {id: vector_from(row[VECTOR_FIELD]) for id, row in self._fetch(ids, [VECTOR_FIELD]).items()}

    def _fetch(self, ids: Sequence[RecordId], fields: list[str]) -> dict[RecordId, dict[str, Any]]:
        """Return id → those fields of it."""
        page = max(1, PAGE_BYTES // (4 * self._existing().width))
        found: dict[RecordId, dict[str, Any]] = {}
        for start in range(0, len(ids), page):
            for row in self._query(["id", *fields], ids=list(map(str, ids[start : start + page]))):
                found[id_from(row["id"])] = row
        return found

    def _candidates(self, vector: Vector | None, terms: Sequence[str], limit: int, where: Filter) -> Candidates:
        if limit > MAX_HITS:
            raise InputError(f"limit {limit} is over the {MAX_HITS} hits that Milvus returns at most")
        rows = self._expression(where)
        dense = [] if vector is None else self._nearest(vector, limit, rows)
        lexical = self._lexical(terms, limit, rows, self._fields) if terms else []
        return Candidates(dense, [Hit(self._record(id, fields), score) for id, score, fields in lexical])

    def _nearest(self, vector: Vector, limit: int, rows: str) -> list[Hit]:
        spec = self._existing()
        asked = vector.astype(np.float16) if spec.datatype == "float16" else vector
        many = min(int(limit * spec.rescore), MAX_HITS) if spec.rescore else limit
        fields = [*self._fields, VECTOR_FIELD] if spec.rescore else self._fields
        found = self._search(VECTOR_FIELD, asked, many, rows, schema.search_params_of(spec, self._server, many), fields)
        if spec.rescore:  # which a server could do itself, but it would keep every full vector in memory
            found = [(id, float(vector @ vector_from(row[VECTOR_FIELD])), row) for id, _, row in found]
        hits = [Hit(self._record(id, row), score) for id, score, row in found]
        return sorted(hits, key=lambda hit: -hit.score)[:limit]

    def _lexical_scores(self, terms: Sequence[str], ids: Sequence[RecordId]) -> Mapping[RecordId, float]:
        found = self._lexical(terms, len(ids), ids_in(ids), [])
        return {id_from(id): score for id, score, _ in found if score > 0}

    def _lexical(self, terms: Sequence[str], limit: int, rows: str, fields: list[str]) -> Found:
        if self._server.kind == "lite" and self._is_unflushed:
            # How rare a term is, Milvus Lite takes from the rows of a segment, but of unflushed ones from those that
            # pass the filter: a row would score otherwise when it is asked for by its id.
            self._call("flush")
            self._is_unflushed = False
        found = self._search(schema.LEXICAL_FIELD, " ".join(terms), limit, rows, {"metric_type": "BM25"}, fields)
        # Milvus Lite returns BM25 as a distance.
        sign = -1 if self._server.kind == "lite" else 1
        return [(id, sign * score, row) for id, score, row in found]

    def _search(
        self, field: str, query: Any, limit: int, rows: str, params: dict[str, Any], fields: list[str]
    ) -> Found:
        """Search among the rows of an expression, best first."""
        what = {"anns_field": field, "limit": limit, "filter": rows, "output_fields": fields, "search_params": params}
        # All that this process wrote is found; waiting for what others wrote takes a server 0.2 s.
        [found] = self._read("search", data=[query], consistency_level="Session", **what)
        return [(str(hit["id"]), float(hit["distance"]), hit["entity"]) for hit in found]

    # ---- the client

    def _call(self, method: str, **options: Any) -> Any:
        """Call the client's `method` for this collection."""
        return call(self._client, method, self._physical, **options)

    def _load(self) -> None:
        spec, physical = self._existing(), self._physical
        if self._loaded != physical:
            if self._is_deferred:
                self._restore()
                self._optimize()
            else:
                collections.load(self._client, physical, spec, self._server)
            self._loaded = physical

    def _read(self, method: str, **options: Any) -> Any:
        """Call a reading method; once more if the collection has been replaced or released meanwhile."""
        self._load()
        before = self._now
        try:
            return self._call(method, **options)
        except Exception as error:
            self._serving = None
            spec = self._read_spec()
            if spec is None or not (self._physical != before.physical or errors.is_unloaded(error)):
                raise
            spec.require_same(before.spec)
        self._loaded = ""
        self._load()
        return self._call(method, **options)

    def _query(self, fields: list[str], **what: Any) -> list[dict[str, Any]]:
        return list(self._read("query", output_fields=fields, **what, **STRONG))

    _reason = staticmethod(errors.reason)


def _is_halved(page: int, error: Exception) -> bool:
    return errors.is_too_much(error) and page > (1 if errors.is_too_large(error) else LATE_PAGE)


def _pause_after(page: int, error: Exception) -> float | None:
    """Return what `pause_after` does, but None for a page that is halved instead."""
    return None if _is_halved(page, error) else errors.pause_after(error)
