"""Qdrant through qdrant-client: a server, this process's memory, or any client the user already has."""

from __future__ import annotations

import json
import re
import time
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from c2llm_integrations.code.chunk import CodeChunk
from c2llm_integrations.errors import MissingExtra, StoreError
from c2llm_integrations.stores.base import VectorStore
from c2llm_integrations.stores.rows import (
    FILTER_FIELDS,
    METADATA_FIELD,
    Filter,
    Hit,
    Stored,
    Vector,
    chunk_of,
    payload_of,
    slices,
    stored_of,
)
from c2llm_integrations.stores.spec import Capabilities, CollectionSpec

try:
    from qdrant_client import QdrantClient, models
except ImportError as error:
    raise MissingExtra("qdrant-client", "qdrant") from error

# The keys of a collection's own metadata (Qdrant 1.16 and newer). Writing merges key by key, so one key a
# repository keeps two writers from overwriting each other's claims.
SPEC_KEY = "c2llm_spec"
CLAIM_KEY = "c2llm_claim:"
SCAN_PAGE = 2_000
# The first release that keeps a collection's metadata; an older one drops it without a word.
OLDEST_SERVER = (1, 16)
TIMEOUT_SECONDS = 60
# A server refuses bodies over 32 MiB; as JSON a text may grow sixfold.
MAX_TEXT_BYTES = 4 * 2**20
# What a float32 takes as JSON, at most, in units of its 4 bytes.
JSON_GROWTH = 6
# Vectors are read back in pages of about this many bytes of JSON.
PAGE_BYTES = 16 * 2**20


class QdrantStore(VectorStore):
    """One collection behind a `QdrantClient`."""

    def __init__(self, client: QdrantClient, collection: str = "code", *, url: str = "", owned: bool = True) -> None:
        """`url` is what messages call the database; an `owned` client is closed with the store."""
        super().__init__(url, collection)
        self._client = client
        self._owned = owned
        self._cached_spec: CollectionSpec | None = None

    @classmethod
    def in_memory(cls, collection: str = "code") -> QdrantStore:
        """Return an empty store of its own in this process's memory, gone when it is closed."""
        return cls(QdrantClient(":memory:"), collection, url="qdrant+memory://")

    @classmethod
    def connect(cls, address: str, collection: str = "code", api_key: str | None = None) -> QdrantStore:
        """Return a store on the server at `address`, http(s)://HOST:PORT.

        Raises StoreError if it does not answer, refuses the key, or is older than 1.16.
        """
        url = f"qdrant+{address}"
        client = QdrantClient(url=address, api_key=api_key, timeout=TIMEOUT_SECONDS, check_compatibility=False)
        try:
            version = client.info().version
        except Exception as error:
            client.close()
            why = str(error).strip().splitlines()[0]
            message = f"{url} cannot be opened: {why}; is the server up, and the key right?"
            raise StoreError(message) from error
        found = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
        if found < OLDEST_SERVER:
            client.close()
            raise StoreError(f"{url} runs Qdrant {version}, which keeps no collection metadata; update it to 1.16")
        store = cls(client, collection, url=url)
        store.capabilities = Capabilities(max_text_bytes=MAX_TEXT_BYTES)
        return store

    @classmethod
    def from_client(cls, client: QdrantClient, collection: str = "code") -> QdrantStore:
        """Return a store over a client that the caller opened and will close."""
        return cls(client, collection, url="the given Qdrant client", owned=False)

    # ---- the collection

    def _read_spec(self) -> CollectionSpec | None:
        if self._cached_spec is None and self._client.collection_exists(self.collection):
            metadata = self._metadata()
            if SPEC_KEY not in metadata:
                raise StoreError(
                    f"collection {self.collection!r} of {self.url} was not made by this package; "
                    "choose another --collection"
                )
            self._cached_spec = CollectionSpec.from_json(json.dumps(metadata[SPEC_KEY]))
        return self._cached_spec

    def _metadata(self) -> dict[str, Any]:
        return self._client.get_collection(self.collection).config.metadata or {}

    def _create(self, spec: CollectionSpec) -> None:
        self._client.create_collection(
            self.collection,
            vectors_config=models.VectorParams(size=spec.width, distance=models.Distance.COSINE),
            metadata={SPEC_KEY: json.loads(spec.to_json())},
        )
        with warnings.catch_warnings():
            # In memory there are no indexes; the client warns of every one asked for.
            warnings.filterwarnings("ignore", message="Payload indexes have no effect")
            for name in FILTER_FIELDS:
                self._client.create_payload_index(
                    self.collection, _key(name), models.PayloadSchemaType.KEYWORD, wait=True
                )

    def _claims(self) -> dict[str, str]:
        return {
            key.removeprefix(CLAIM_KEY): str(checkout)
            for key, checkout in self._metadata().items()
            if key.startswith(CLAIM_KEY)
        }

    def _claim(self, repository: str, checkout: str) -> None:
        self._client.update_collection(self.collection, metadata={CLAIM_KEY + repository: checkout})

    def _optimize(self) -> None:
        # A server builds on its own accord; in memory there is nothing to build.
        while (status := self._client.get_collection(self.collection).status) == models.CollectionStatus.YELLOW:
            time.sleep(0.2)
        if status == models.CollectionStatus.RED:
            raise StoreError(f"{self.url} could not index collection {self.collection!r}; look into its log")

    def _drop(self) -> None:
        if self._read_spec() is not None:
            self._client.delete_collection(self.collection)
            self._cached_spec = None

    def _close(self) -> None:
        if self._owned:
            self._client.close()

    # ---- writing

    def _upsert(self, chunks: Sequence[CodeChunk], vectors: Vector) -> None:
        points = [
            models.PointStruct(id=chunk.id, vector=vector, payload=payload_of(chunk))
            for chunk, vector in zip(chunks, vectors.tolist(), strict=True)
        ]
        for part in slices(chunks, JSON_GROWTH * vectors.shape[1]):
            self._client.upsert(self.collection, points[part], wait=True)

    def _update(self, chunks: Sequence[CodeChunk]) -> None:
        operations = [
            models.OverwritePayloadOperation(
                overwrite_payload=models.SetPayload(payload=payload_of(chunk), points=[chunk.id])
            )
            for chunk in chunks
        ]
        self._client.batch_update_points(self.collection, operations, wait=True)

    def _delete(self, ids: Sequence[str]) -> None:
        self._client.delete(self.collection, models.PointIdsList(points=list(ids)), wait=True)

    # ---- reading

    def _known(self, ids: Sequence[str]) -> set[str]:
        records = self._client.retrieve(self.collection, list(ids), with_payload=False)
        return {str(record.id) for record in records}

    def _scan(self, repository: str | None) -> Iterator[Stored]:
        offset: Any = None
        where = _ours(Filter(repositories=() if repository is None else (repository,)))
        while True:
            records, offset = self._client.scroll(
                self.collection, where, limit=SCAN_PAGE, offset=offset, with_payload=[METADATA_FIELD]
            )
            for record in records:
                yield stored_of(str(record.id), record.payload or {})
            if offset is None:
                return

    def _count(self, repository: str | None) -> int:
        where = _ours(Filter(repositories=() if repository is None else (repository,)))
        return self._client.count(self.collection, where, exact=True).count

    def _vectors(self, ids: Sequence[str]) -> dict[str, Vector]:
        page = max(1, PAGE_BYTES // (4 * JSON_GROWTH * self._existing().width))
        found: dict[str, Vector] = {}
        for start in range(0, len(ids), page):
            some = list(ids[start : start + page])
            records = self._client.retrieve(self.collection, some, with_payload=False, with_vectors=True)
            found.update({str(record.id): np.asarray(record.vector, dtype=np.float32) for record in records})
        return found

    def _search(self, vector: Vector, limit: int, where: Filter) -> list[Hit]:
        response = self._client.query_points(
            self.collection, vector.tolist(), query_filter=_ours(where), limit=limit, with_payload=True
        )
        return [Hit(chunk_of(str(point.id), point.payload or {}), point.score) for point in response.points]


def _key(name: str) -> str:
    return f"{METADATA_FIELD}.{name}"


def _ours(where: Filter) -> models.Filter:
    """Return Qdrant's filter: the asked conditions, and never a row that somebody else wrote."""
    must: list[Any] = [
        models.FieldCondition(key=_key(name), match=models.MatchAny(any=values))
        for name, values in where.conditions().items()
    ]
    must_not: list[Any] = [
        models.IsEmptyCondition(is_empty=models.PayloadField(key=_key(name))) for name in ("repository", "path")
    ]
    return models.Filter(must=must, must_not=must_not)
