"""What a command opens: the store it reads, the model that belongs to it, and the checkouts that fill it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from c2llm_integrations.code.skipping import INDEX_FOLDER
from c2llm_integrations.commands.hits import Origin
from c2llm_integrations.errors import C2LLMError, InputError, StoreBusy

if TYPE_CHECKING:
    from c2llm_integrations.embedder import C2LLMEmbedder
    from c2llm_integrations.stores.base import CollectionSpec, VectorStore

# How long a command waits for a store that another process has open.
BUSY_SECONDS = 10.0


def load_model(
    model: str | None,
    spec: CollectionSpec | None,
    projection: Path | None = None,
    head: Path | None = None,
    **options: Any,
) -> C2LLMEmbedder:
    """Load the named model, else the one the collection was made with, else nano.

    `options` are those of `from_pretrained` that are not None; over the collection's own they win.
    """
    from c2llm_integrations.checkpoint import lasting_name
    from c2llm_integrations.embedder import C2LLMEmbedder, options_of
    from c2llm_integrations.projections import remember

    found: dict[str, Any] = {"name": "nano"} if spec is None else options_of(spec.fingerprint, projection, head)
    options |= {"projection": projection, "head": head}
    asked = {name: value for name, value in options.items() if value is not None}
    found |= asked
    if model is not None:
        found["name"] = lasting_name(model)
    try:
        embedder = C2LLMEmbedder.from_pretrained(**found)
    except C2LLMError as error:
        if model is not None or spec is None:
            raise
        if asked:
            raise InputError(f"the collection's model cannot be loaded as asked: {error}") from error
        raise InputError(f"the collection's model cannot be loaded: {error}; --model names its new place") from error
    if made := embedder.projection or embedder.checkpoint.head:
        remember(made)
    return embedder


@contextmanager
def opened(url: str, collection: str) -> Iterator[VectorStore]:
    """Open a store; while another process has it, wait a little for its turn.

    Raises InputError for a store that is gone when the command ends.
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


def indexed_store() -> str:
    """Return the URL of the index that the current folder belongs to; raises InputError if there is none."""
    from c2llm_integrations.stores import own_index

    if (folder := indexed_folder()) is None:
        raise InputError(f"no {INDEX_FOLDER} in {Path.cwd()} or above; run: c2llm index, or name a --store")
    return own_index(folder)


def indexed_folder() -> Path | None:
    """Return the current folder, or the nearest above it, that has an index in it; None if there is none."""
    here = Path.cwd()
    return next((folder for folder in (here, *here.parents) if (folder / INDEX_FOLDER).is_dir()), None)


def store_of(path: Path) -> str:
    """Return the URL of the index that the repository around `path` has, or would get."""
    from c2llm_integrations.code.repository import root_of
    from c2llm_integrations.stores import own_index

    return own_index(root_of(path))


def origins_of(store: VectorStore) -> dict[str, Origin]:
    """Return what fills each repository of the store; the folder of those that do so from here or from beside it."""
    from c2llm_integrations.code.commit import Claim
    from c2llm_integrations.code.repository import checkout_id
    from c2llm_integrations.tree_record import edge_folder

    here = Path.cwd()
    folders = [here, *here.parents]
    if index := edge_folder(store):
        folders.append(index.resolve().parent)
    ids = {checkout_id(folder): folder for folder in folders}
    claims = {name: Claim.parse(text) for name, text in store.claims().items()}
    return {name: Origin(claim.checkout, claim.commit, ids.get(claim.checkout)) for name, claim in claims.items()}
