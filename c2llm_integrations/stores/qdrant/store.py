"""Qdrant through qdrant-client: a server, this process's memory, or any client the user already has."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.metadata import version as distribution_version
from typing import Any

import numpy as np

from c2llm_integrations._utils.retry import retrying
from c2llm_integrations.errors import BatchRefused, InputError, StoreError
from c2llm_integrations.stores import Location
from c2llm_integrations.stores.backend import Gone, Terms
from c2llm_integrations.stores.bounded_pages import bounded_pages
from c2llm_integrations.stores.filter import Filter
from c2llm_integrations.stores.ids import RecordId
from c2llm_integrations.stores.qdrant.aliases import NAME_KEY, SPEC_KEY, AliasedCollection, Serving, is_local
from c2llm_integrations.stores.qdrant.client import (
    DECIMALS,
    GRAPH,
    REFUSED,
    SPREAD,
    TYPES,
    AsyncQdrantClient,
    QdrantClient,
    bounded_client,
    is_gone,
    is_too_large,
    models,
    pause_after,
    reason,
    retrieved,
    status_of,
)
from c2llm_integrations.stores.qdrant.payload import (
    BINARY,
    DENSE,
    TURBO,
    Fields,
    PointReader,
    Vectors,
    ours,
    pages,
    points_of,
    updates_of,
)
from c2llm_integrations.stores.records import AnyRecord, Vector
from c2llm_integrations.stores.row_checks import require
from c2llm_integrations.stores.row_fields import BATCH_IDS
from c2llm_integrations.stores.spec import Capabilities, CollectionSpec
from c2llm_integrations.stores.vector_store import VectorStore

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
# Points made at once for the client in memory: of more, Python's garbage collections would look through all rows.
LOCAL_ROWS = 64
# Rows are read back in pages of about this many bytes of JSON; a row's text seldom takes more than the second figure,
# and the numbers of its vector come with all the digits of a float64.
PAGE_BYTES, TEXT_BYTES, VECTOR_NUMBER_BYTES = 8 * 2**20, 4_096, 26
# Rows are sent in requests of so many bytes, which as JSON, with the terms, are up to four times as many: a server
# refuses bodies over 32 MiB, and time-outs come long before.
REQUEST_BYTES = 3 * 2**19

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


class QdrantStore(PointReader):
    """One collection behind a `QdrantClient`."""

    _types = TYPES
    _batch_bytes = REQUEST_BYTES

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
        self._alias = AliasedCollection(client, url, successor_of or collection)
        self._opened: Serving | None = None

    @classmethod
    def open(cls, at: Location) -> QdrantStore:
        """Return a store on the server at a location, in this process's memory if that has no place."""
        return cls.connect(at.place, at.collection, at.key) if at.place else cls.in_memory(at.collection)

    @classmethod
    def list_collections(cls, at: Location) -> list[str]:
        """See `VectorStore.list_collections`."""
        with cls.open(at) as store, store._open():
            alias, found = store._alias, set()
            aliases = alias.aliases()
            for one in alias.call("get_collections").collections:
                metadata = alias.metadata(one.name)
                name = metadata.get(NAME_KEY, one.name)
                if SPEC_KEY in metadata and one.name in (name, aliases.get(name)):
                    found.add(str(name))
            return list(found)

    @classmethod
    def in_memory(cls, collection: str = "code") -> QdrantStore:
        """Return an empty store of its own in this process's memory, gone when it is closed."""
        store = cls(QdrantClient(":memory:"), collection, url="qdrant+memory://")
        store._has_only_our_fields = True
        return store

    @classmethod
    def connect(cls, address: str, collection: str = "code", api_key: str | None = None) -> QdrantStore:
        """Return a store on the server at `address`, http(s)://HOST:PORT.

        Raises StoreError if it does not answer, refuses the key, or is older than 1.16.
        """
        client = bounded_client(address, api_key, TIMEOUT_SECONDS)
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
        require(client, AsyncQdrantClient, "a QdrantClient")
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
            return self._alias.serving()
        return self._alias.opened(self.collection) if self._alias.exists(self.collection) else None

    def _create(self, spec: CollectionSpec) -> None:
        if self._succeeds:
            self._alias.make(self.collection, spec)
        else:
            self._alias.create(spec)

    def _successor(self) -> VectorStore:
        part = self._alias.spare(self._serving().name)
        return QdrantStore(self._client, part, url=self.url, owned=False, successor_of=self.collection)

    def _replace(self) -> None:
        serving, self._opened = self._serving(), None
        self._alias.replace(serving.name)

    def _drop(self) -> None:
        self._opened = None
        serving = self._find()
        if not self._succeeds:
            self._alias.drop(serving.name if serving else None)
        elif serving:
            self._alias.delete(serving.name)

    def _claims(self) -> dict[str, str]:
        metadata = self._ask("get_collection").config.metadata or {}
        return {key.removeprefix(CLAIM_KEY): str(one) for key, one in metadata.items() if key.startswith(CLAIM_KEY)}

    def _claim(self, repository: str, checkout: str) -> None:
        self._ask("update_collection", metadata={CLAIM_KEY + repository: checkout})

    def _close(self) -> None:
        if self._owned:
            self._client.close()

    # ---- the index

    def _defer(self) -> None:
        if self._alias.local:
            return
        config = self._ask("get_collection").config
        before = (config.metadata or {}).get(DEFERRED_KEY)  # of a killed run, or of another writer
        if before is None:
            before = config.optimizer_config.indexing_threshold
        self._set_indexing(DEFERRING_KB, DEFAULT_INDEXING_KB if before is None else before)

    def _restore(self) -> None:
        metadata = {} if self._alias.local else self._ask("get_collection").config.metadata or {}
        if (before := metadata.get(DEFERRED_KEY)) is not None:
            self._set_indexing(int(before), None)

    def _set_indexing(self, threshold_kb: int, before_kb: int | None) -> None:
        changed = models.OptimizersConfigDiff(indexing_threshold=threshold_kb)
        self._ask("update_collection", optimizers_config=changed, metadata={DEFERRED_KEY: before_kb})

    def _optimize(self) -> None:
        deadline, pause = time.monotonic() + OPTIMIZE_SECONDS, 0.02
        status = models.CollectionStatus
        while (now := self._ask("get_collection").status) != status.GREEN:
            if now == status.RED:
                raise StoreError(f"{self.url} could not index collection {self.collection!r}; look into its log")
            if time.monotonic() > deadline:
                raise StoreError(
                    f"{self.url} is still indexing collection {self.collection!r} after {OPTIMIZE_SECONDS:.0f} s; "
                    "it continues by itself and can be searched meanwhile"
                )
            if now == status.GREY:  # a restarted server waits for any change before it goes on
                self._ask("update_collection", optimizers_config=models.OptimizersConfigDiff())
            time.sleep(pause)
            pause = min(2 * pause, 2.0)

    # ---- writing

    def _upsert(self, records: Sequence[AnyRecord], vectors: Vector, terms: Terms) -> None:
        local = self._alias.local
        rows = LOCAL_ROWS if local else len(records)
        for start in range(0, len(records), rows):
            part = slice(start, start + rows)
            # Arrays, which the client in memory makes of lists anyway, twice.
            sent, words = self._sent(vectors[part]), terms and terms[part]
            self._write("upsert", points_of(self._types, records[part], sent, words, as_arrays=local))

    def _update(self, records: Sequence[AnyRecord], vectors: Vector | None, terms: Terms, gone: Gone) -> None:
        sent = None if vectors is None else self._sent(vectors)
        self._write("batch_update_points", updates_of(self._types, records, sent, terms, gone))

    def _sent(self, vectors: Vector) -> Vectors:
        return vectors if self._alias.local else np.round(vectors.astype(np.float64), DECIMALS)

    def _delete(self, ids: Sequence[RecordId]) -> None:
        self._ask("delete", models.PointIdsList(points=list(ids)), wait=True)

    # ---- reading

    def _retrieve(self, ids: Sequence[RecordId], payload: Fields, vectors: bool = False) -> Iterator[Any]:
        page = self._page(TEXT_BYTES if payload else 0) if vectors or payload is True else BATCH_IDS
        what = {"with_payload": payload, "with_vectors": [DENSE] if vectors else False}
        return retrieved(lambda some: self._ask("retrieve", some, **what), ids, page)

    def _scroll(self, where: Filter, source: str | None, payload: Fields, vectors: bool = False) -> Iterator[Any]:
        chosen, page = ours(self._types, where, source), self._page(TEXT_BYTES) if vectors else SCAN_PAGE
        what = {"with_payload": payload, "with_vectors": [DENSE] if vectors else False}
        found = pages(
            lambda offset, rows: self._ask("scroll", chosen, offset=offset, limit=rows, **what), page, is_too_large
        )
        return bounded_pages(self, found)

    def _found(self, requests: list[Any]) -> list[Any]:
        return [answer.points for answer in self._ask("query_batch_points", requests)]

    def _count(self, where: Filter, source: str | None) -> int:
        return int(self._ask("count", ours(self._types, where, source), exact=True).count)

    def _total(self) -> int:
        return int(self._ask("count", exact=True).count)

    def _page(self, other_bytes: int) -> int:
        """Return how many rows with so many bytes beside their vector make up a page."""
        return min(SCAN_PAGE, max(1, PAGE_BYTES // (VECTOR_NUMBER_BYTES * self._existing().width + other_bytes)))

    # ---- requests

    def _ask(self, method: str, *args: Any, **options: Any) -> Any:
        """Call the client's `method` for the collection that serves, also where another has just taken its place.

        Raises SpecMismatch if that one's vectors mean something else.
        """
        before = self._serving()
        try:
            return self._alias.call(method, before.name, *args, **options)
        except Exception as error:
            if not is_gone(error):
                raise
        self._opened = None
        after = self._serving()
        after.spec.require_same(before.spec)
        return self._alias.call(method, after.name, *args, **options)

    def _write(self, method: str, points: Sequence[Any]) -> None:
        try:
            self._ask(method, points, wait=True)
        except Exception as error:
            if status_of(error) not in REFUSED:
                raise
            raise BatchRefused(f"{self.url} refused rows of collection {self.collection!r}: {reason(error)}") from error

    def _serving(self) -> Serving:
        while (opened := self._opened) is None:
            self._existing()
        return opened

    _reason = staticmethod(reason)


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
