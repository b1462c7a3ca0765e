"""Milvus through pymilvus: a server, Zilliz Cloud, or any `MilvusClient` the user already has.

`milvus_schema` says what a collection is made of; its properties hold the spec and the claims. Other libraries open
it with these arguments, and may add rows of their own:

    langchain_milvus.Milvus(embeddings, collection_name="code", connection_args={"uri": ...}, primary_field="id",
        vector_field="vector", text_field="page_content", enable_dynamic_field=True,
        search_params={"metric_type": "COSINE"})
    llama_index.vector_stores.milvus.MilvusVectorStore(uri=..., collection_name="code__1", overwrite=False,
        embedding_field="vector", text_key="page_content", similarity_metric="COSINE",
        output_fields=["path", "symbol", "start_line", "end_line"])

LlamaIndex's store takes no alias: `client.describe_collection("code")["collection_name"]` tells what is behind it. A
folder of Milvus Lite has to be loaded for it first, `client.load_collection("code")`; LangChain does it by itself.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from time import monotonic
from typing import Any, NamedTuple

import numpy as np

from c2llm_integrations.code.chunk import CodeChunk
from c2llm_integrations.errors import BatchRefused, InputError, MissingExtra, StoreError
from c2llm_integrations.stores import milvus_collections as collections
from c2llm_integrations.stores.base import VectorStore
from c2llm_integrations.stores.milvus_collections import CLAIM_KEY, SPEC_KEY, call
from c2llm_integrations.stores.milvus_errors import is_refusal, is_too_large, is_unloaded, pause_after, reason
from c2llm_integrations.stores.milvus_filter import expression
from c2llm_integrations.stores.milvus_schema import (
    HIT_FIELDS,
    LEXICAL_FIELD,
    STORED_FIELDS,
    TERMS_FIELD,
    VECTOR_FIELD,
    Server,
    entities_of,
    search_params_of,
    vector_from,
)
from c2llm_integrations.stores.retrying import retrying
from c2llm_integrations.stores.rows import (
    METADATA_FIELD,
    TEXT_FIELD,
    Candidates,
    Filter,
    Hit,
    Row,
    Stored,
    Vector,
    chunk_of,
    stored_of,
)
from c2llm_integrations.stores.spec import CollectionSpec

try:
    from pymilvus import MilvusClient
except ImportError as error:
    raise MissingExtra("pymilvus", "milvus") from error

# Milvus's own limit on the hits of one search.
MAX_HITS = 16_384
# Rows a page: large, because a server may take 0.2 s to make sure that a page misses no write (16,384 at most).
SCAN_PAGE = 16_000
# Vectors and texts are read back in pages of about this size; a server sends at most 64 MB at once.
PAGE_BYTES = 8 * 2**20
USUAL_TEXT_BYTES = 2_048
# Everything that anybody was told is written is in the answer.
STRONG = {"consistency_level": "Strong"}
# A claim is written again so often when another writer of the properties wiped it out.
CLAIM_TRIES = 5
SETTLING_SECONDS = 0.05


class Held(NamedTuple):
    """What a collection's name stands for, and until when nobody drops it even if it is replaced."""

    physical: str
    spec: CollectionSpec
    until: float


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
        """`url` is what messages call the database; an `owned` client is closed with the store.

        `physical`: `collection` is what an alias will stand for, a successor's. Raises InputError for a name that
        Milvus does not take.
        """
        super().__init__(url, collection if physical else collections.usable(collection))
        self.capabilities = server.capabilities
        self._client: Any = client
        self._server = server
        self._owned = owned
        self._is_physical = physical
        self._held: Held | None = None
        self._loaded = ""
        # Whether this store made the collection and has written nothing, and whether `_defer` has taken its indexes.
        self._is_new = self._is_deferred = False

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
        server = Server.of(client.get_server_version())
        return cls(client, server, collection, url="the given Milvus client", owned=False)

    # ---- the collection

    def _read_spec(self) -> CollectionSpec | None:
        held = self._held
        if held is None or monotonic() > held.until:
            held = self._held = self._find()
        return None if held is None else held.spec

    def _find(self) -> Held | None:
        """Return what has the name now."""
        described = collections.described(self._client, self.collection)
        if described is None:
            return None
        properties = described.get("properties") or {}
        if SPEC_KEY not in properties:
            raise StoreError(
                f"collection {self.collection!r} of {self.url} was not made by this package; "
                "choose another --collection"
            )
        until = monotonic() + collections.FRESH_SECONDS
        return Held(str(described["collection_name"]), collections.spec_of(properties), until)

    @property
    def _physical(self) -> str:
        """What the name stood for when the spec was read: nothing goes to a collection whose spec was not looked at."""
        held = self._held
        if held is None:
            self._existing()
            return self._physical
        return held.physical

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
        raise StoreError(f"{self.url} does not keep that {checkout} fills {repository!r}; run again when no other does")

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
        collections.make_indexes(self._client, self._physical, self._existing(), self._server)

    def _optimize(self) -> None:
        collections.finish_indexes(self._client, self._physical)
        self._load()

    def _successor(self) -> VectorStore:
        name = collections.successor_of(self._client, self._physical, self.collection)
        return MilvusStore(self._client, self._server, name, url=self.url, owned=False, physical=True)

    def _replace(self) -> None:
        collections.replace(self._client, self._physical, self.collection, self._server)
        self._held = None

    def _drop(self) -> None:
        if self._read_spec() is not None:
            collections.drop(self._client, self._physical, self.collection)
        self._held = None

    def _close(self) -> None:
        if self._owned and self._client is not None:
            self._client.close()

    # ---- writing

    def _upsert(self, chunks: Sequence[CodeChunk], vectors: Vector, terms: Sequence[Sequence[str]] | None) -> None:
        self._write(entities_of(chunks, vectors, terms, self._existing()))

    def _update(self, chunks: Sequence[CodeChunk]) -> None:
        entities = entities_of(chunks, None, None, self._existing())
        if self._server.updates_partly:
            self._write(entities, partial_update=True)
            return
        lexical = self._existing().analyser is not None
        kept = [VECTOR_FIELD, TERMS_FIELD] if lexical else [VECTOR_FIELD]
        held = self._fetch([chunk.id for chunk in chunks], kept)
        self._write([{**entity, **held[entity["id"]]} for entity in entities])

    def _write(self, entities: list[dict[str, Any]], **options: Any) -> None:
        self._is_new = False
        # Never `insert`: it takes an id twice without a word.
        try:
            self._call("upsert", data=entities, **options)
        except Exception as error:
            if is_refusal(error):
                raise BatchRefused(f"{self.url} refused {len(entities)} rows: {reason(error)}") from error
            raise

    def _delete(self, ids: Sequence[str]) -> None:
        self._call("delete", ids=list(ids))

    # ---- reading

    def _known(self, ids: Sequence[str]) -> set[str]:
        return {row["id"] for row in self._query(["id"], ids=list(ids))}

    def _count(self, repository: str | None) -> int:
        return self._counted(expression(Filter.of(repository), ours=True))

    def _total(self) -> int:
        return self._counted("")

    def _counted(self, where: str) -> int:
        if self._is_deferred and self._is_new:
            return 0  # asked for real, the indexes would be made now
        return int(self._query(["count(*)"], filter=where)[0]["count(*)"])

    def _scan(self, repository: str | None) -> Iterator[Stored]:
        for rows in self._pages(repository, STORED_FIELDS, SCAN_PAGE):
            for row in rows:
                yield stored_of(row["id"], {METADATA_FIELD: row})

    def _rows(self, repository: str | None) -> Iterator[Row]:
        # Milvus Lite sorts the whole collection anew for every page.
        small = PAGE_BYTES // (4 * self._existing().width + USUAL_TEXT_BYTES)
        page = SCAN_PAGE if self._server.kind == "lite" else max(1, min(small, SCAN_PAGE))
        for rows in self._pages(repository, ["id", VECTOR_FIELD, *HIT_FIELDS], page):
            for row in rows:
                yield Row(_chunk(row["id"], row), vector_from(row[VECTOR_FIELD]))

    def _pages(self, repository: str | None, fields: list[str], page: int) -> Iterator[list[dict[str, Any]]]:
        """Yield our rows in pages, by ascending id; a page that turns out too large for a message is cut."""
        self._existing()
        last, physical = "", self._physical
        while True:
            where = expression(Filter.of(repository), ours=True, after=last)
            pages = self._read("query_iterator", batch_size=page, filter=where, output_fields=fields, **STRONG)
            try:
                while rows := retrying(pages.next, pause_after):
                    yield rows
                    last = rows[-1]["id"]
                break
            except Exception as error:
                if not is_too_large(error) or page == 1:
                    raise
                page = max(1, page // 8)
            finally:
                pages.close()
        if (now := self._find()) is None or now.physical != physical:
            raise StoreError(f"{self.collection!r} of {self.url} was replaced while it was read; read it again")

    def _vectors(self, ids: Sequence[str]) -> dict[str, Vector]:
        return {id: vector_from(row[VECTOR_FIELD]) for id, row in self._fetch(ids, [VECTOR_FIELD]).items()}

    def _fetch(self, ids: Sequence[str], fields: list[str]) -> dict[str, dict[str, Any]]:
        """Return id → those fields of it."""
        page = max(1, PAGE_BYTES // (4 * self._existing().width))
        found: dict[str, dict[str, Any]] = {}
        for start in range(0, len(ids), page):
            for row in self._query(["id", *fields], ids=list(ids[start : start + page])):
                found[row["id"]] = {name: row[name] for name in fields}
        return found

    def _candidates(self, vector: Vector | None, terms: Sequence[str], limit: int, where: Filter) -> Candidates:
        if limit > MAX_HITS:
            raise InputError(f"limit {limit} is over the {MAX_HITS} hits that Milvus returns at most")
        dense = [] if vector is None else self._nearest(vector, limit, where)
        lexical = self._search(LEXICAL_FIELD, " ".join(terms), limit, where, {"metric_type": "BM25"}) if terms else []
        # Milvus Lite returns BM25 as a distance.
        sign = -1 if self._server.kind == "lite" else 1
        return Candidates(dense, [Hit(_chunk(id, fields), sign * score) for id, score, fields in lexical])

    def _nearest(self, vector: Vector, limit: int, where: Filter) -> list[Hit]:
        spec = self._existing()
        asked = vector.astype(np.float16) if spec.datatype == "float16" else vector
        if not spec.rescore:
            found = self._search(VECTOR_FIELD, asked, limit, where, search_params_of(spec, limit))
            return [Hit(_chunk(id, fields), score) for id, score, fields in found]
        # A server could compare by full vectors itself, but would keep every one of them in memory.
        many = min(int(limit * spec.rescore), MAX_HITS)
        found = self._search(VECTOR_FIELD, asked, many, where, search_params_of(spec, many), VECTOR_FIELD)
        hits = [Hit(_chunk(id, row), float(vector @ vector_from(row[VECTOR_FIELD]))) for id, _, row in found]
        return sorted(hits, key=lambda hit: -hit.score)[:limit]

    def _search(
        self, field: str, query: Any, limit: int, where: Filter, params: dict[str, Any], *more: str
    ) -> list[tuple[str, float, dict[str, Any]]]:
        """Return id, score and fields of what is found, best first."""
        [found] = self._read(
            "search",
            data=[query],
            anns_field=field,
            limit=limit,
            filter=expression(where),
            output_fields=[*HIT_FIELDS, *more],
            search_params=params,
            # All that this process wrote is found; waiting for what others wrote takes a server 0.2 s.
            consistency_level="Session",
        )
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
                collections.finish_indexes(self._client, physical)
            collections.load(self._client, physical, spec, self._server)
            self._loaded = physical

    def _read(self, method: str, **options: Any) -> Any:
        """Call a reading method; once more if the collection has been replaced or released meanwhile."""
        self._load()
        try:
            return self._call(method, **options)
        except Exception as error:
            before, self._held = self._held, None
            spec = self._read_spec()
            if before is None or spec is None or not (self._physical != before.physical or is_unloaded(error)):
                raise
            spec.require_same(before.spec)
        self._loaded = ""
        self._load()
        return self._call(method, **options)

    def _query(self, fields: list[str], **what: Any) -> list[dict[str, Any]]:
        return list(self._read("query", output_fields=fields, **what, **STRONG))

    def _translate(self, error: BaseException) -> StoreError:
        return StoreError(f"collection {self.collection!r} of {self.url} failed: {reason(error)}")


def list_collections(address: str, token: str | None) -> list[str]:
    """Return the names of the collections that this package made on a server, sorted; errors are `connect`'s."""
    client, _ = collections.connect(address, token)
    try:
        return collections.names(client)
    finally:
        client.close()


def _chunk(id: str, fields: dict[str, Any]) -> CodeChunk:
    return chunk_of(id, {TEXT_FIELD: fields.get(TEXT_FIELD), METADATA_FIELD: fields})
