"""One open store for all framework objects that name it: an embedded database cannot be opened twice."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary, finalize

from c2llm_integrations.errors import InputError
from c2llm_integrations.indexing.claims import require_known_model
from c2llm_integrations.model.fingerprint import options_of
from c2llm_integrations.model.shared_model import Awaited, SharedModel, shared_model
from c2llm_integrations.retrieval.options import Mode, SearchOptions
from c2llm_integrations.retrieval.reserved_fields import stored_where
from c2llm_integrations.retrieval.search import (
    GIVEN_NOTE,
    UNREADABLE_NOTE,
    answerable,
    apart,
    find,
    is_given,
    is_readable,
    require_comparable,
    spec_of,
)
from c2llm_integrations.stores import open_store
from c2llm_integrations.stores.foreign_collection import ForeignStore
from c2llm_integrations.stores.spec import CollectionSpec
from c2llm_integrations.stores.vector_store import Hit, VectorStore

if TYPE_CHECKING:
    from c2llm_integrations.model.embedder import C2LLMEmbedder

# Questions asked at the same time: their vectors are computed together, then the store answers one by one.
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
        self._model: SharedModel | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return shared_store, self._named

    @contextmanager
    def opened(self) -> Iterator[VectorStore]:
        """Hold the open store, one thread at a time."""
        with self._lock:
            if self._store is None:
                url, collection, wait = self._named
                self._store = open_store(str(url), collection, wait=wait)
                finalize(self, self._store.close)
            yield self._store

    def search(
        self,
        query: str,
        options: SearchOptions,
        *,
        model: SharedModel | None = None,
        task: str | None = None,
        score_threshold: float | None = None,
    ) -> list[Hit]:
        """Search as `search` does.

        Args:
            query: The question.
            options: The rows to search, and how to rank them.
            model: The model to embed it with; None for the one that the collection was made with.
            task: The task whose prompt the question gets.
            score_threshold: The lowest score (they lie in 0…1) of a hit to return.

        Raises:
            C2LLMError: Those of `search`, `open_store` and the embedder.

        Warns:
            UserWarning: If the model does not know the script of the question, which is then answered by words alone,
                or if the collection was filled with given vectors, whose model is not known.

        """
        with self.opened() as store:
            spec = spec_of(store)
            mode = answerable(options.mode, spec, store)
            if mode != "lexical" and model is None:
                require_known_model(store)
        vector = None
        if mode != "lexical":
            embedder = (model or self._own_model(store, spec)).embedder
            require_comparable(spec, embedder)
            if is_given(store):
                warnings.warn(GIVEN_NOTE, stacklevel=2)
            mode = readable_mode(query, mode, embedder)
            vector = embedder.encode_queries([apart(query)], task)[0] if mode != "lexical" else None
        with self.opened() as store:
            where = options.where if isinstance(store, ForeignStore) else stored_where(options.where)
            hits = find(query, vector, store, replace(options, mode=mode, where=where))
        return [hit for hit in hits if score_threshold is None or hit.score >= score_threshold]

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


def readable_mode(query: str, mode: Mode, embedder: C2LLMEmbedder | None) -> Mode:
    """Return `mode`; "lexical", with a warning, for a hybrid search whose question the model cannot read."""
    if mode != "hybrid" or embedder is None or is_readable(query, embedder):
        return mode
    warnings.warn(f"{query[:40]!r} is {UNREADABLE_NOTE}", stacklevel=2)
    return "lexical"


# Keyed by process too: a forked one inherits the handles, but not their threads.
_stores: WeakValueDictionary[tuple[Any, ...], SharedStore] = WeakValueDictionary()
_stores_lock = threading.Lock()


def shared_store(store: str | VectorStore, collection: str = "code", wait: float = STORE_WAIT_SECONDS) -> SharedStore:
    """Return this process's handle on a URL, or on an open store of any collection, which the caller closes.

    Several processes (web workers) may name one embedded Qdrant: they take turns, each call within `wait` seconds.
    For more questions than one process can answer use a server, `qdrant+http://HOST:PORT`.
    """
    name = (store, collection) if isinstance(store, str) else (id(store), store.collection)
    with _stores_lock:
        return _stores.setdefault((os.getpid(), *name), SharedStore(store, collection, wait))
