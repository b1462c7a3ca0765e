"""Qdrant through qdrant-client: a server, this process's memory, or any client the user already has."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version as distribution_version
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from c2llm_integrations._utils.retry import retrying
from c2llm_integrations.errors import BatchRefused, InputError, MissingExtra, StoreError
from c2llm_integrations.stores import Location
from c2llm_integrations.stores.backend import Terms
from c2llm_integrations.stores.filter import Filter
from c2llm_integrations.stores.ids import RecordId
from c2llm_integrations.stores.qdrant.aliases import NAME_KEY, SPEC_KEY, Parts, Serving, is_local
from c2llm_integrations.stores.qdrant.client_conversions import (
    BINARY,
    DECIMALS,
    GRAPH,
    NUMBER_BYTES,
    REQUEST_BYTES,
    SPREAD,
    TURBO,
    TYPES,
    dense_of,
    json_bytes,
    lexical_scores_of,
    operation_bytes,
    points_of,
    queries_of,
    updates_of,
)
from c2llm_integrations.stores.qdrant.errors import REFUSED, is_gone, pause_after, reason, status_of
from c2llm_integrations.stores.qdrant.payload import (
    DENSE,
    LISTED,
    NAMED,
    listed_of,
    ours,
    point_id,
    record_of,
    written_fields,
)
from c2llm_integrations.stores.records import AnyRecord, Hit, Row, Vector
from c2llm_integrations.stores.rows import Candidates, Stored, runs
from c2llm_integrations.stores.spec import Capabilities, CollectionSpec
from c2llm_integrations.stores.vector_store import VectorStore

try:
    from qdrant_client import QdrantClient, models
except ImportError as error:
    raise MissingExtra("qdrant-client", "qdrant") from error

if TYPE_CHECKING:
    from qdrant_client import AsyncQdrantClient

_T = TypeVar("_T")

# More keys of a collection's metadata. Writing merges key by key, so one key a repository keeps two writers from
# overwriting each other's claims; None removes a key.
CLAIM_KEY = "c2llm_claim:"
DEFERRED_KEY = "c2llm_deferred"
# The first release that keeps a collection's metadata (an older one drops it without a word).
OLDEST_SERVER = (1, 16)
TIMEOUT_SECONDS = 60
CONNECT_SECONDS = 5.0
# Far more than a server takes for the graph of ten million rows.
OPTIMIZE_SECONDS = 4 * 3_600.0
# Qdrant's value for "index nothing", and what it takes where a collection does not say.
DEFERRING_KB, DEFAULT_INDEXING_KB = 0, 10_000
SCAN_PAGE = 2_000
# Points made at once for the client in memory: a dozen objects each, which should die young. Of more, most of Python's
# garbage collections look through them, and through all rows too.
LOCAL_ROWS = 64
# Rows are read back in pages of about this many bytes of JSON; a row's text seldom takes more than the other figure.
PAGE_BYTES, TEXT_BYTES = 8 * 2**20, 4_096

LOCAL = Capabilities(lexical=True)  # it is exact and float32 whatever it is asked for
# As JSON a text may grow sixfold, and its terms tenfold; both stay under the 32 MiB of a request.
SERVER = Capabilities(
    datatypes=frozenset({"float32", "float16"}),
    quantizations=frozenset({"int8", "product", *BINARY}),
    lexical=True,
    max_text_bytes=2 * 2**20,
    uploads=4,
    index=GRAPH | SPREAD,
)
# Release → the datatypes and quantizations that came with it.
SINCE = {
    (1, 18): (set(), set(TURBO) - {"turbo8"}),
    (1, 19): ({"turbo4"}, set()),
    (1, 20): ({"turbo8", "turbo16"}, {"turbo8"}),
}


class QdrantStore(VectorStore):
    """One collection behind a `QdrantClient`."""

    def __init__(
        self,
        client: QdrantClient,
        collection: str = "code",
        *,
        url: str = "",
        owned: bool = True,
        successor_of: str | None = None,
    ) -> None:
        """`url` is what messages call the database; an `owned` client is closed with the store.

        `successor_of`: the collection whose place this one is to take. Raises StoreError if the server does not
        answer or is older than 1.16.
        """
        super().__init__(url, collection)
        self.capabilities = LOCAL if is_local(client) else _server(client, url)
        self._client: Any = client
        self._owned = owned
        self._succeeds = successor_of is not None
        self._parts = Parts(client, url, successor_of or collection)
        self._opened: Serving | None = None

    @classmethod
    def open(cls, at: Location) -> QdrantStore:
        """Return a store on the server at a location, in this process's memory if that has no place."""
        return cls.connect(at.place, at.collection, at.key) if at.place else cls.in_memory(at.collection)

    @classmethod
    def list_collections(cls, at: Location) -> list[str]:
        """See `VectorStore.list_collections`."""
        with cls.open(at) as store, store._open():
            parts, found = store._parts, set()
            aliases = parts.aliases()
            for one in parts.retry(store._client.get_collections).collections:
                metadata = parts.metadata(one.name)
                name = metadata.get(NAME_KEY, one.name)
                if SPEC_KEY in metadata and one.name in (name, aliases.get(name)):
                    found.add(str(name))
            return list(found)

    @classmethod
    def in_memory(cls, collection: str = "code") -> QdrantStore:
        """Return an empty store of its own in this process's memory, gone when it is closed."""
        store = cls(QdrantClient(":memory:"), collection, url="qdrant+memory://")
        store._is_private = True
        return store

    @classmethod
    def connect(cls, address: str, collection: str = "code", api_key: str | None = None) -> QdrantStore:
        """Return a store on the server at `address`, http(s)://HOST:PORT.

        Raises StoreError if it does not answer, refuses the key, or is older than 1.16.
        """
        client = QdrantClient(url=address, api_key=api_key, timeout=TIMEOUT_SECONDS, check_compatibility=False)
        try:
            return cls(client, collection, url=f"qdrant+{address}")
        except BaseException:
            client.close()
            raise

    @classmethod
    def from_client(cls, client: QdrantClient | AsyncQdrantClient, collection: str = "code") -> QdrantStore:
        """Return a store over a client that the caller opened and will close.

        An async client belongs to its event loop, so the store opens connections of its own to the same server, with
        the same options. Raises InputError for an async client without a server, whose rows nobody else can reach.
        """
        url = "the given Qdrant client"
        if isinstance(client, QdrantClient):
            return cls(client, collection, url=url, owned=False)
        if is_local(client):
            raise InputError("an AsyncQdrantClient without a server keeps its rows to itself; give a QdrantClient")
        return cls(QdrantClient(**{**client.init_options, "check_compatibility": False}), collection, url=url)

    # ---- the collection

    def _read_spec(self) -> CollectionSpec | None:
        if self._opened is None:
            self._opened = self._find()
        return None if self._opened is None else self._opened.spec

    def _find(self) -> Serving | None:
        if not self._succeeds:
            return self._parts.serving()
        return self._parts.opened(self.collection) if self._parts.exists(self.collection) else None

    def _create(self, spec: CollectionSpec) -> None:
        if self._succeeds:
            self._parts.make(self.collection, spec)
        else:
            self._parts.create(spec)

    def _successor(self) -> VectorStore:
        part = self._parts.spare(self._serving().name)
        return QdrantStore(self._client, part, url=self.url, owned=False, successor_of=self.collection)

    def _replace(self) -> None:
        serving, self._opened = self._serving(), None
        self._parts.replace(serving.name)

    def _drop(self) -> None:
        self._opened = None
        serving = self._find()
        if not self._succeeds:
            self._parts.drop(serving.name if serving else None)
        elif serving:
            self._parts.delete(serving.name)

    def _claims(self) -> dict[str, str]:
        return {
            key.removeprefix(CLAIM_KEY): str(checkout)
            for key, checkout in self._ask(self._parts.metadata).items()
            if key.startswith(CLAIM_KEY)
        }

    def _claim(self, repository: str, checkout: str) -> None:
        metadata = {CLAIM_KEY + repository: checkout}
        self._ask(lambda name: self._client.update_collection(name, metadata=metadata))

    def _close(self) -> None:
        if self._owned:
            self._client.close()

    # ---- the index

    def _defer(self) -> None:
        if self._parts.local:
            return
        config = self._ask(self._client.get_collection).config
        before = (config.metadata or {}).get(DEFERRED_KEY)  # of a killed run, or of another writer
        if before is None:
            before = config.optimizer_config.indexing_threshold
        self._set_indexing(DEFERRING_KB, DEFAULT_INDEXING_KB if before is None else before)

    def _restore(self) -> None:
        before = None if self._parts.local else self._ask(self._parts.metadata).get(DEFERRED_KEY)
        if before is not None:
            self._set_indexing(int(before), None)

    def _set_indexing(self, threshold_kb: int, before_kb: int | None) -> None:
        changed = models.OptimizersConfigDiff(indexing_threshold=threshold_kb)
        metadata = {DEFERRED_KEY: before_kb}
        self._ask(lambda name: self._client.update_collection(name, optimizers_config=changed, metadata=metadata))

    def _optimize(self) -> None:
        deadline, pause = time.monotonic() + OPTIMIZE_SECONDS, 0.02
        status, nothing = models.CollectionStatus, models.OptimizersConfigDiff()
        while (now := self._ask(self._client.get_collection).status) != status.GREEN:
            if now == status.RED:
                raise StoreError(f"{self.url} could not index collection {self.collection!r}; look into its log")
            if time.monotonic() > deadline:
                raise StoreError(
                    f"{self.url} is still indexing collection {self.collection!r} after {OPTIMIZE_SECONDS:.0f} s; "
                    "it goes on by itself and can be searched meanwhile"
                )
            if now == status.GREY:  # a restarted server waits for any change before it goes on
                self._ask(lambda name: self._client.update_collection(name, optimizers_config=nothing))
            time.sleep(pause)
            pause = min(2 * pause, 2.0)

    # ---- writing

    def _upsert(self, records: Sequence[AnyRecord], vectors: Vector, terms: Terms) -> None:
        if self._parts.local:
            for start in range(0, len(records), LOCAL_ROWS):
                part = slice(start, start + LOCAL_ROWS)
                few = points_of(records[part], vectors[part], terms and terms[part])
                self._write(lambda name: self._client.upsert(name, few, wait=True))  # noqa: B023 (called at once)
            return
        points = points_of(records, self._sent(vectors), terms)
        sizes = [json_bytes(point) for point in points]
        for part in runs(sizes, REQUEST_BYTES):
            some = points[part]
            self._write(lambda name: self._client.upsert(name, some, wait=True))  # noqa: B023 (called at once)

    def _update(
        self, records: Sequence[AnyRecord], vectors: Vector | None, terms: Terms, gone: Sequence[Sequence[str]]
    ) -> None:
        operations = updates_of(records, None if vectors is None else self._sent(vectors), terms, gone)
        sizes = [0 if self._parts.local else operation_bytes(one) for one in operations]
        for part in runs(sizes, REQUEST_BYTES):
            some = operations[part]
            self._write(lambda name: self._client.batch_update_points(name, some, wait=True))  # noqa: B023

    def _sent(self, vectors: Vector) -> NDArray[np.floating[Any]]:
        return vectors if self._parts.local else np.round(vectors.astype(np.float64), DECIMALS)

    def _delete(self, ids: Sequence[RecordId]) -> None:
        points = models.PointIdsList(points=list(ids))
        self._ask(lambda name: self._client.delete(name, points, wait=True))

    # ---- reading

    def _written_fields(self, ids: Sequence[RecordId]) -> Mapping[RecordId, Sequence[str]]:
        found = self._ask(lambda name: self._client.retrieve(name, list(ids), with_payload=NAMED))
        return {point_id(one.id): written_fields(one.payload) for one in found}

    def _get(self, ids: Sequence[RecordId]) -> Iterable[AnyRecord]:
        for record in self._retrieve(ids, self._page(TEXT_BYTES), with_payload=True):
            yield record_of(record.id, record.payload)

    def _scan(self, where: Filter, source: str | None) -> Iterator[Stored]:
        for record in self._scroll(where, source, SCAN_PAGE, with_payload=LISTED):
            yield listed_of(record.id, record.payload)

    def _records(self, where: Filter, source: str | None) -> Iterator[AnyRecord]:
        for record in self._scroll(where, source, SCAN_PAGE, with_payload=True):
            yield record_of(record.id, record.payload)

    def _rows(self, where: Filter, source: str | None) -> Iterator[Row]:
        page = self._page(TEXT_BYTES)
        for record in self._scroll(where, source, page, with_payload=True, with_vectors=[DENSE]):
            yield Row(record_of(record.id, record.payload), np.asarray(dense_of(record.vector), np.float32))

    def _scroll(self, where: Filter, source: str | None, page: int, **parts: Any) -> Iterator[models.Record]:
        offset: Any = None
        chosen = ours(TYPES, where, source)
        while True:
            records, offset = self._ask(
                lambda name: self._client.scroll(name, chosen, limit=page, offset=offset, **parts)  # noqa: B023
            )
            yield from records
            if offset is None:
                return

    def _count(self, where: Filter, source: str | None) -> int:
        chosen = ours(TYPES, where, source)
        return int(self._ask(lambda name: self._client.count(name, chosen, exact=True)).count)

    def _total(self) -> int:
        return int(self._ask(lambda name: self._client.count(name, exact=True)).count)

    def _vectors(self, ids: Sequence[RecordId]) -> dict[RecordId, Vector]:
        records = self._retrieve(ids, self._page(0), with_payload=False, with_vectors=[DENSE])
        return {point_id(one.id): np.asarray(dense_of(one.vector), np.float32) for one in records if one.vector}

    def _retrieve(self, ids: Sequence[RecordId], page: int, **parts: Any) -> Iterator[models.Record]:
        for start in range(0, len(ids), page):
            some = list(ids[start : start + page])
            yield from self._ask(lambda name: self._client.retrieve(name, some, **parts))  # noqa: B023 (called at once)

    def _page(self, other_bytes: int) -> int:
        """Return how many rows with so many bytes beside their vector make up a page."""
        # Vectors come back with all the digits of a float64.
        return min(SCAN_PAGE, max(1, PAGE_BYTES // (2 * NUMBER_BYTES * self._existing().width + other_bytes)))

    def _candidates(self, vector: Vector | None, terms: Sequence[str], limit: int, where: Filter) -> Candidates:
        requests = queries_of(self._existing(), vector, terms, limit, where)
        answers = self._ask(lambda name: self._client.query_batch_points(name, requests))
        lists = [
            [Hit(record_of(point.id, point.payload), point.score) for point in answer.points] for answer in answers
        ]
        dense = lists.pop(0) if vector is not None else []
        return Candidates(dense, lists[0] if lists else [])

    def _lexical_scores(self, terms: Sequence[str], ids: Sequence[RecordId]) -> Mapping[RecordId, float]:
        request = lexical_scores_of(terms, ids)
        [found] = self._ask(lambda name: self._client.query_batch_points(name, [request]))
        return {point_id(point.id): point.score for point in found.points}

    # ---- requests

    def _ask(self, call: Callable[[str], _T]) -> _T:
        """Return what `call` returns for the collection that serves, also where another one has just taken its place.

        Raises SpecMismatch if that one's vectors mean something else.
        """
        before = self._serving()
        try:
            return self._parts.retry(lambda: call(before.name))
        except Exception as error:
            if not is_gone(error):
                raise
        self._opened = None
        after = self._serving()
        after.spec.require_same(before.spec)
        return self._parts.retry(lambda: call(after.name))

    def _write(self, call: Callable[[str], object]) -> None:
        try:
            self._ask(call)
        except Exception as error:
            if status_of(error) not in REFUSED:
                raise
            raise BatchRefused(f"{self.url} refused rows of collection {self.collection!r}: {reason(error)}") from error

    def _serving(self) -> Serving:
        while (opened := self._opened) is None:
            self._existing()
        return opened

    def _reason(self, error: BaseException) -> str:
        return reason(error)


def _server(client: QdrantClient, url: str) -> Capabilities:
    """Return what the server can do; raises StoreError if it does not answer or is too old."""
    try:
        # A server that answers at all may be busy; one that does not answer is more likely misspelt.
        version = retrying(
            client.info, lambda error: pause_after(error) if status_of(error) else None, limit=CONNECT_SECONDS
        ).version
    except Exception as error:
        raise StoreError(f"{url} cannot be opened: {reason(error)}; is the server up, and the key right?") from error
    found = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    if found < OLDEST_SERVER:
        raise StoreError(f"{url} runs Qdrant {version}, which keeps no collection metadata; update it to 1.16")
    # An older client does not know what a newer server has.
    client_has = tuple(int(part) for part in re.findall(r"\d+", distribution_version("qdrant-client"))[:2])
    more = [added for release, added in SINCE.items() if release <= min(found, client_has)]
    return replace(
        SERVER,
        datatypes=SERVER.datatypes.union(*(datatypes for datatypes, _ in more)),
        quantizations=SERVER.quantizations.union(*(quantizations for _, quantizations in more)),
    )
