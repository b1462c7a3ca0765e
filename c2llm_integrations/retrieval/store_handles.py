"""One open store for all framework objects that name it: an embedded database cannot be opened twice."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from numbers import Real
from typing import Any
from weakref import WeakValueDictionary, finalize

from c2llm_integrations.errors import InputError
from c2llm_integrations.indexing.claims import require_known_model
from c2llm_integrations.model.fingerprint import options_of
from c2llm_integrations.model.shared_model import Awaited, SharedModel, shared_model
from c2llm_integrations.retrieval.clashing_fields import stored_where
from c2llm_integrations.retrieval.options import SearchOptions
from c2llm_integrations.retrieval.search import (
    find,
    for_model,
    require_comparable,
    spec_of,
    supported_mode,
    warn_if_given,
    warned_mode_for,
)
from c2llm_integrations.stores import open_store, whole_url
from c2llm_integrations.stores.foreign_collection import ForeignStore
from c2llm_integrations.stores.records import Hit
from c2llm_integrations.stores.row_checks import require, require_share
from c2llm_integrations.stores.spec import CollectionSpec
from c2llm_integrations.stores.vector_store import VectorStore

# Questions asked at the same time: their vectors are computed together, then the store answers, a server side by side.
QUESTIONS = 16
# How long a question, and a run that writes, wait for an embedded collection that another process uses.
STORE_WAIT_SECONDS = 30.0


class SharedStore(Awaited):
    """A store, opened on first use and closed when nothing refers to it any more.

    Pickled and copied as its URL and collection.
    """

    def __init__(self, store: str | VectorStore, collection: str, wait: float = STORE_WAIT_SECONDS) -> None:
        """Call `shared_store` instead, or nothing is shared."""
        super().__init__(QUESTIONS)
        self._named = (store, collection, wait)
        self._store = None if isinstance(store, str) else store

    def _begin(self) -> None:
        super()._begin()
        self._model: SharedModel | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return shared_store, self._named

    @contextmanager
    def opened(self) -> Iterator[VectorStore]:
        """Hold the open store, one thread at a time unless it takes several."""
        with self._lock:
            if self._store is None:
                url, collection, wait = self._named
                self._store = open_store(str(url), collection, wait=wait)
                finalize(self, self._store.close)
            store = self._store
            if store.capabilities.uploads == 1:
                yield store
                return
        yield store

    def search(self, query: str, options: SearchOptions, own: Any = None, threshold: float | None = None) -> list[Hit]:
        """Search as `search` does, with its errors and those of `open_store` and the embedder.

        `own`: the framework's embedding of ours, None for the model that the collection was made with; `threshold`: the
        lowest score (0…1) of a hit to return. Warns if the model does not know the script of the question, which is
        then answered by words alone, or if the model of given vectors is not known.
        """
        if threshold is not None:
            require_share(threshold, "score_threshold")
        with self.opened() as store:
            spec = spec_of(store)
            mode = supported_mode(options.mode, spec, store)
            if mode != "lexical" and own is None:
                require_known_model(store)
        vector = None
        if mode != "lexical":
            embedder = (self._own_model(store, spec) if own is None else own.shared).embedder
            task = None if own is None else own.query_task
            require_comparable(spec, embedder.output_dim, embedder.fingerprint)
            warn_if_given(store)
            mode = warned_mode_for(query, mode, embedder)
            vector = embedder.encode_queries([for_model(query)], task)[0] if mode != "lexical" else None
        with self.opened() as store:
            where = options.where if isinstance(store, ForeignStore) else stored_where(options.where)
            hits = find(query, vector, store, replace(options, mode=mode, where=where))
        return [hit for hit in hits if threshold is None or hit.score >= threshold]

    def _own_model(self, store: VectorStore, spec: CollectionSpec) -> SharedModel:
        """Return the model that made a collection, kept, or that of one question would be freed before the next."""
        if not spec.fingerprint:
            raise InputError(
                f"collection {store.collection!r}, which somebody else made, does not say what made its vectors; "
                "give that model to the retriever"
            )
        if "weights" not in spec.fingerprint:
            raise InputError(
                f"the vectors of {store.collection!r} were not made by C2LLM ({spec.fingerprint}); "
                "search them with what made them, through the framework's vector store, or in mode 'lexical'"
            )
        with self._lock:
            self._model = self._model or shared_model(options_of(spec.fingerprint))
            return self._model


# How a store was asked for, and the handle on it.
KeptStore = tuple[tuple[Any, ...], SharedStore]


def kept_store(kept: KeptStore | None, *asked: Any) -> KeptStore:
    """Return the handle that an object has kept if it was asked for the same, else that of `shared_store(*asked)`.

    A field of the object may have been set since; a relative URL still means the folder where it was first asked for.
    """
    return kept if kept is not None and kept[0] == asked else (asked, shared_store(*asked))


_stores: WeakValueDictionary[tuple[Any, ...], SharedStore] = WeakValueDictionary()
_stores_lock = threading.Lock()


def shared_store(store: str | VectorStore, collection: str = "code", wait: float = STORE_WAIT_SECONDS) -> SharedStore:
    """Return this process's handle on a URL, or on an open store of any collection, which the caller closes.

    Several processes (web workers) may name one embedded Qdrant: they take turns, each call within `wait` seconds.
    For more questions than one process can answer use a server, `qdrant+http://HOST:PORT`.
    """
    require(store, (str, VectorStore), "a store's URL such as 'qdrant+edge://rows', or an open store")
    require(wait, Real, "the seconds to wait")
    if not wait >= 0:  # NaN too, of which no deadline comes
        raise InputError(f"wait is {wait}, must be at least 0 seconds")
    if isinstance(store, str):
        store = whole_url(store)  # it is opened later, and the process may have gone to another folder by then
    name = (store, collection) if isinstance(store, str) else (id(store), store.collection)
    with _stores_lock:
        return _stores.setdefault(name, SharedStore(store, collection, wait))
