"""Milvus through pymilvus: a server, Zilliz Cloud, or any `MilvusClient` the user already has.

A collection has the primary key `id`, the vector `vector` (cosine), the text `page_content`, and one scalar field
for each other part of a chunk: `repository`, `path`, `language`, `symbol`, `kind`, `start_line`, `end_line`. Its
properties hold the spec and the claims. Other libraries open it with these arguments:

    langchain_milvus.Milvus(embeddings, collection_name="code", connection_args={"uri": ...}, primary_field="id",
        vector_field="vector", text_field="page_content")
    llama_index.vector_stores.milvus.MilvusVectorStore(uri=..., collection_name="code", overwrite=False,
        embedding_field="vector", text_key="page_content", similarity_metric="COSINE",
        output_fields=["path", "symbol", "start_line", "end_line"])

A folder of Milvus Lite has to be loaded first: `store.client.load_collection("code")`, which LangChain does by itself.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from c2llm_integrations.code.chunk import CodeChunk
from c2llm_integrations.errors import InputError, MissingExtra, StoreError
from c2llm_integrations.stores.base import VectorStore
from c2llm_integrations.stores.rows import (
    METADATA_FIELD,
    TEXT_FIELD,
    Filter,
    Hit,
    Stored,
    Vector,
    chunk_of,
    payload_of,
    stored_of,
)
from c2llm_integrations.stores.spec import Capabilities, CollectionSpec

try:
    from pymilvus import DataType, MilvusClient
except ImportError as error:
    raise MissingExtra("pymilvus", "milvus") from error

# By default pymilvus prints every failed call with its traceback, and a warning for every scan of an older server.
# What fails is raised here as one line, so that is silenced unless the program has chosen a level of its own.
if logging.getLogger("pymilvus").level == logging.WARNING:
    logging.getLogger("pymilvus").setLevel(logging.CRITICAL)

# Milvus's own limits: the bytes of a VARCHAR, and the hits of one search.
MAX_VARCHAR_BYTES = 65_535
MAX_HITS = 16_384
# pymilvus retries what fails for a moment until this much time has passed.
TIMEOUT_SECONDS = 120
CONNECT_SECONDS = 10
# Of a client of our own: its connection is not shared, so that closing it ends it; and it pings no more often than the
# 5 minutes that gRPC servers allow, because those of Milvus Lite hang up on pymilvus's default of 10 seconds.
CONNECTION = {"dedicated": True, "grpc_options": {"grpc.keepalive_time_ms": 360_000}}
# Rows a page: large, because a server may take 0.2 s to make sure that a page misses no write (16,384 at most).
SCAN_PAGE = 16_000
# Vectors are read back in pages of about this size; a server sends at most 64 MB at once.
PAGE_BYTES = 8 * 2**20
VECTOR_FIELD = "vector"
# The keys of a collection's properties. Writing merges key by key, so one key a repository keeps two writers
# from overwriting each other's claims.
SPEC_KEY = "c2llm_spec"
CLAIM_KEY = "c2llm_claim:"

STRINGS = ("repository", "path", "language", "symbol", "kind")
NUMBERS = ("start_line", "end_line")
STORED_FIELDS = ("id", "path", "language", "symbol", "kind", *NUMBERS)

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_ESCAPES = str.maketrans({'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"})


class MilvusStore(VectorStore):
    """One collection behind a `MilvusClient`."""

    capabilities = Capabilities(max_text_bytes=MAX_VARCHAR_BYTES)

    def __init__(
        self, client: MilvusClient | None, collection: str = "code", *, url: str = "", owned: bool = True
    ) -> None:
        """`url` is what messages call the database; an `owned` client is closed with the store.

        Raises InputError for a collection name that Milvus does not take.
        """
        super().__init__(url, _usable(collection))
        self._client: Any = client
        self._owned = owned
        self._cached_spec: CollectionSpec | None = None

    @classmethod
    def connect(cls, address: str, collection: str = "code", token: str | None = None) -> MilvusStore:
        """Return a store on the server at `address`, http(s)://HOST:PORT; `token` is an API key or user:password.

        Raises StoreError if the server does not answer within 10 seconds.
        """
        _usable(collection)
        try:
            client = MilvusClient(address, token=token or "", timeout=CONNECT_SECONDS, **CONNECTION)
        except Exception as error:  # pymilvus's own, and gRPC's as they are
            why = _reason(error)
            message = f"milvus+{address} cannot be opened: {why}; is the server up, and the key right?"
            raise StoreError(message) from error
        return cls(client, collection, url=f"milvus+{address}")

    @classmethod
    def from_client(cls, client: MilvusClient, collection: str = "code") -> MilvusStore:
        """Return a store over a client that the caller opened and will close."""
        return cls(client, collection, url="the given Milvus client", owned=False)

    # ---- the collection

    def _read_spec(self) -> CollectionSpec | None:
        if self._cached_spec is None:
            spec = self._stored_spec()
            if spec is not None:
                self._make_searchable()
            self._cached_spec = spec
        return self._cached_spec

    def _stored_spec(self) -> CollectionSpec | None:
        if not self._call("has_collection"):
            return None
        properties = self._properties()
        if SPEC_KEY not in properties:
            raise StoreError(
                f"collection {self.collection!r} of {self.url} was not made by this package; "
                "choose another --collection"
            )
        return CollectionSpec.from_json(properties[SPEC_KEY])

    def _properties(self) -> dict[str, str]:
        return dict(self._call("describe_collection").get("properties") or {})

    def _create(self, spec: CollectionSpec) -> None:
        schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=36)
        schema.add_field(VECTOR_FIELD, DataType.FLOAT_VECTOR, dim=spec.width)
        for name in (TEXT_FIELD, *STRINGS):
            schema.add_field(name, DataType.VARCHAR, max_length=MAX_VARCHAR_BYTES)
        for name in NUMBERS:
            schema.add_field(name, DataType.INT64)
        self._call(
            "create_collection", schema=schema, consistency_level="Strong", properties={SPEC_KEY: spec.to_json()}
        )

    def _make_searchable(self) -> None:
        """Finish what `_create` began: a server reads only a loaded collection, and loads only an indexed one."""
        if not self._call("list_indexes"):
            # Milvus Lite would build a graph anew with every segment it writes; its exact search needs none.
            lite = str(self._client.get_server_version()).startswith("milvus_lite")
            index = MilvusClient.prepare_index_params()
            index.add_index(VECTOR_FIELD, index_type="FLAT" if lite else "AUTOINDEX", metric_type="COSINE")
            self._call("create_index", index_params=index, sync=False)
        self._call("load_collection")

    def _claims(self) -> dict[str, str]:
        return {
            key.removeprefix(CLAIM_KEY): checkout
            for key, checkout in self._properties().items()
            if key.startswith(CLAIM_KEY)
        }

    def _claim(self, repository: str, checkout: str) -> None:
        self._call("alter_collection_properties", properties={CLAIM_KEY + repository: checkout})

    def _optimize(self) -> None:
        self._call("flush")
        while True:
            index = self._call("describe_index", index_name=VECTOR_FIELD)
            if index.get("state") == "Failed":
                raise StoreError(f"{self.url} could not index collection {self.collection!r}; look into its log")
            if index.get("state") == "Finished" and not int(index.get("pending_index_rows", 0)):
                return
            time.sleep(0.2)

    def _drop(self) -> None:
        if self._stored_spec() is not None:
            self._call("drop_collection")
        self._cached_spec = None

    def _close(self) -> None:
        if self._owned and self._client is not None:
            self._client.close()

    # ---- writing

    def _upsert(self, chunks: Sequence[CodeChunk], vectors: Vector) -> None:
        # Never `insert`: it takes an id twice without a word.
        self._call("upsert", data=[_row(chunk, vector) for chunk, vector in zip(chunks, vectors, strict=True)])

    def _update(self, chunks: Sequence[CodeChunk]) -> None:
        # Milvus 2.3 takes no partial rows, so the vectors are read and written back.
        held = self._vectors([chunk.id for chunk in chunks])
        self._upsert(chunks, np.stack([held[chunk.id] for chunk in chunks]))

    def _delete(self, ids: Sequence[str]) -> None:
        self._call("delete", ids=list(ids))

    # ---- reading

    def _known(self, ids: Sequence[str]) -> set[str]:
        return {row["id"] for row in self._query(["id"], ids=list(ids))}

    def _scan(self, repository: str | None) -> Iterator[Stored]:
        pages = self._call(
            "query_iterator",
            batch_size=SCAN_PAGE,
            filter=expression(_of(repository)),
            output_fields=list(STORED_FIELDS),
            consistency_level="Strong",
        )
        try:
            while rows := pages.next():
                for row in rows:
                    yield stored_of(row["id"], {METADATA_FIELD: row})
        finally:
            pages.close()

    def _count(self, repository: str | None) -> int:
        return int(self._query(["count(*)"], filter=expression(_of(repository)))[0]["count(*)"])

    def _vectors(self, ids: Sequence[str]) -> dict[str, Vector]:
        page = max(1, PAGE_BYTES // (4 * self._existing().width))
        found: dict[str, Vector] = {}
        for start in range(0, len(ids), page):
            rows = self._query(["id", VECTOR_FIELD], ids=list(ids[start : start + page]))
            found.update({row["id"]: np.asarray(row[VECTOR_FIELD], dtype=np.float32) for row in rows})
        return found

    def _search(self, vector: Vector, limit: int, where: Filter) -> list[Hit]:
        if limit > MAX_HITS:
            raise InputError(f"limit {limit} is over the {MAX_HITS} hits that Milvus returns at most")
        [found] = self._call(
            "search",
            data=[vector],
            anns_field=VECTOR_FIELD,
            limit=limit,
            filter=expression(where),
            output_fields=[TEXT_FIELD, "repository", *STORED_FIELDS[1:]],
            search_params={"metric_type": "COSINE"},
            consistency_level="Strong",
        )
        hits = ((hit["id"], hit["entity"], hit["distance"]) for hit in found)
        return [
            Hit(chunk_of(id, {TEXT_FIELD: fields[TEXT_FIELD], METADATA_FIELD: fields}), float(score))
            for id, fields, score in hits
        ]

    # ---- the client

    def _translate(self, error: BaseException) -> StoreError:
        return StoreError(f"collection {self.collection!r} of {self.url} failed: {_reason(error)}")

    def _query(self, fields: list[str], **what: Any) -> list[dict[str, Any]]:
        # Strong: everything acknowledged before the question is in the answer.
        return list(self._call("query", output_fields=fields, consistency_level="Strong", **what))

    def _call(self, method: str, **options: Any) -> Any:
        """Call the client's `method` for this collection."""
        return getattr(self._client, method)(self.collection, timeout=TIMEOUT_SECONDS, **options)


def literal(value: str) -> str:
    """Return a string as Milvus's filter language writes it.

    Every other character, control characters and non-ASCII ones included, stands for itself: Milvus Lite knows no
    further escapes.
    """
    return f'"{value.translate(_ESCAPES)}"'


def expression(where: Filter) -> str:
    """Return a Filter in Milvus's filter language; "" if it restricts nothing."""
    return " and ".join(f"{name} in [{', '.join(map(literal, values))}]" for name, values in where.conditions().items())


def _reason(error: BaseException) -> str:
    """Return the first line of what went wrong, without the code that pymilvus and gRPC wrap around it."""
    said = getattr(error, "message", None) or getattr(error, "details", lambda: error)()
    lines = str(said).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _of(repository: str | None) -> Filter:
    return Filter(repositories=() if repository is None else (repository,))


def _row(chunk: CodeChunk, vector: Vector) -> dict[str, Any]:
    payload = payload_of(chunk)
    return {"id": chunk.id, VECTOR_FIELD: vector, TEXT_FIELD: payload[TEXT_FIELD], **payload[METADATA_FIELD]}


def _usable(collection: str) -> str:
    if not _NAME.fullmatch(collection):
        raise InputError(
            f"collection {collection!r} is no usable name for Milvus; use 1 to 128 letters, digits and '_', "
            "not starting with a digit"
        )
    return collection
