"""One open store for all retrievers that name it: an embedded database cannot be opened twice."""

from __future__ import annotations

import os
import threading
from typing import Any
from weakref import WeakValueDictionary, finalize

from c2llm_integrations.code.terms import ANALYSER
from c2llm_integrations.embedder import options_of
from c2llm_integrations.ranking import Mode
from c2llm_integrations.search import find, spec_of
from c2llm_integrations.shared_model import Awaited, Settings, SharedModel, shared_model
from c2llm_integrations.stores import open_store
from c2llm_integrations.stores.base import Hit, VectorStore

# Questions asked at the same time: their vectors are computed together, then the store answers one after the other.
QUESTIONS = 16


class SharedStore(Awaited):
    """A store, opened on first use and closed when nothing refers to it any more.

    Pickled and copied as its URL and collection.
    """

    def __init__(self, store: str | VectorStore, collection: str) -> None:
        """Call `shared_store` instead, or nothing is shared."""
        super().__init__(QUESTIONS)
        self._named = (store, collection)
        self._store = None if isinstance(store, str) else store
        self._model: SharedModel | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return shared_store, self._named

    def search(
        self,
        query: str,
        model: SharedModel | None,
        task: str | None = None,
        score_threshold: float | None = None,
        **options: Any,
    ) -> list[Hit]:
        """Search with the options of `find`; without a model, with the one that the collection was made with.

        `task` chooses the query's prompt. Hits below `score_threshold` (scores lie in 0…1) are left out. Errors are
        those of `search`, `open_store` and the embedder.
        """
        with self._lock:
            store = self._opened()
            spec = spec_of(store)
            # Kept, or the model of one question would be freed before the next.
            self._model = model = model or shared_model(Settings(**options_of(spec.fingerprint)))
        spec.require_model(model.embedder.output_dim, model.embedder.fingerprint)
        vector = model.embedder.encode_queries([query], task)[0]
        mode: Mode = "hybrid" if spec.analyser == ANALYSER else "dense"
        with self._lock:
            hits = find(query, vector, store, mode=mode, **options)
        return [hit for hit in hits if score_threshold is None or hit.score >= score_threshold]

    def _opened(self) -> VectorStore:
        if self._store is None:
            url, collection = self._named
            self._store = open_store(str(url), collection)
            finalize(self, self._store.close)
        return self._store


# Keyed by process too: a forked one inherits the handles, but not their threads.
_stores: WeakValueDictionary[tuple[int, str | int, str], SharedStore] = WeakValueDictionary()
_stores_lock = threading.Lock()


def shared_store(store: str | VectorStore, collection: str = "code") -> SharedStore:
    """Return this process's handle on a URL, or on an open store of any collection, which the caller closes."""
    name = (store, collection) if isinstance(store, str) else (id(store), store.collection)
    with _stores_lock:
        return _stores.setdefault((os.getpid(), *name), SharedStore(store, collection))
