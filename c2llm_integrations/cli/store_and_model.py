"""Open the store that a command works on, and load the model that belongs to its collection."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from c2llm_integrations.cli.options import ModelChoice
from c2llm_integrations.errors import C2LLMError, InputError, StoreBusy, did_you_mean

if TYPE_CHECKING:
    from c2llm_integrations.model.embedder import C2LLMEmbedder
    from c2llm_integrations.stores.vector_store import CollectionSpec, VectorStore

# How long a command waits for a store that another process has open.
BUSY_SECONDS = 10.0


def load_model(choice: ModelChoice, spec: CollectionSpec | None) -> C2LLMEmbedder:
    """Load the chosen model, else the one the collection was made with, else nano."""
    from c2llm_integrations.model.checkpoint import lasting_name
    from c2llm_integrations.model.embedder import C2LLMEmbedder
    from c2llm_integrations.model.fingerprint import options_of
    from c2llm_integrations.model.heads_and_projections import remember
    from c2llm_integrations.model.options import ModelOptions, remember_model

    found = ModelOptions()
    if spec is not None:
        found = options_of(spec.fingerprint, choice.projection, choice.head, is_named=choice.model is not None)
    asked = choice.given()
    if choice.model is not None:
        found = replace(found, name=lasting_name(choice.model))
    try:
        embedder = C2LLMEmbedder.from_options(replace(found, **asked))
    except C2LLMError as error:
        if choice.model is not None or spec is None:
            raise
        if asked:
            raise InputError(f"the collection's model cannot be loaded as asked: {error}") from error
        raise InputError(f"the collection's model cannot be loaded: {error}; --model names its new place") from error
    if choice.model is not None:
        remember_model(found.name)
    if made := embedder.projection or embedder.head:
        remember(made)
    return embedder


def require_source(store: VectorStore, name: str | None) -> None:
    """Raise InputError for a repository, or another source, that the store does not hold; None is any."""
    if name is not None and name not in (claims := store.claims()):
        raise InputError(f"nothing is indexed as {name!r}{did_you_mean(name, claims)}")


@contextmanager
def opened(url: str, collection: str) -> Iterator[VectorStore]:
    """Open a store; while another process uses it, wait up to `BUSY_SECONDS`.

    Raises:
        InputError: For a store in memory, which would be gone when the command ends.

    """
    from c2llm_integrations.stores import open_store

    if url.startswith("qdrant+memory:"):
        raise InputError(f"{url} would be gone when this command ends; name a folder, qdrant+edge://PATH, or a server")
    patience = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            store = open_store(url, collection, wait=BUSY_SECONDS)
            break
        except StoreBusy:
            if time.monotonic() > patience:
                raise
            time.sleep(0.05)
    with store:
        yield store
