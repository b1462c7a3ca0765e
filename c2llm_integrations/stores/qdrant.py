"""Qdrant through qdrant-client: in this process's memory, or any client the user already has."""

from __future__ import annotations

import json
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
    stored_of,
)
from c2llm_integrations.stores.spec import CollectionSpec

try:
    from qdrant_client import QdrantClient, models
except ImportError as error:
    raise MissingExtra("qdrant-client", "qdrant") from error

# The keys of a collection's own metadata (Qdrant 1.16 and newer). Writing merges key by key, so one key a
# repository keeps two writers from overwriting each other's claims.
SPEC_KEY = "c2llm_spec"
CLAIM_KEY = "c2llm_claim:"
SCAN_PAGE = 2_000


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
        """Nothing to build: search in memory is exact."""

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
        self._client.upsert(self.collection, points, wait=True)

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
        records = self._client.retrieve(self.collection, list(ids), with_payload=False, with_vectors=True)
        return {str(record.id): np.asarray(record.vector, dtype=np.float32) for record in records}

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
