"""Where rows live: one file a database, one contract (`base.VectorStore`), one URL to name any of them."""

from __future__ import annotations

import os
import re

from c2llm_integrations.errors import InputError
from c2llm_integrations.stores.base import VectorStore

__all__ = ["open_store"]

SCHEMES = ("qdrant+edge://PATH", "qdrant+memory://")

# Safe as a file name on every system and as a collection name in every database we know.
_COLLECTION = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]{0,126}[A-Za-z0-9_-])?")
_CREDENTIALS = re.compile(r"[^/\\]*:[^/\\]*@")


def open_store(url: str, collection: str = "code") -> VectorStore:
    """Open the store that a URL names: `qdrant+edge://PATH` or `qdrant+memory://`.

    PATH is taken as it stands (relative, absolute or `~`, any drive letter, no percent-decoding). Nothing is
    created until `VectorStore.create`. Raises InputError for a URL or collection name that cannot be used,
    MissingExtra if the client is not installed, StoreBusy if another process has the collection open.
    """
    scheme, separator, rest = url.partition("://")
    if _CREDENTIALS.match(rest if separator else url):
        raise InputError("the store URL holds credentials; take them out, URLs end up in logs and shell histories")
    if not _COLLECTION.fullmatch(collection) or ".." in collection:
        raise InputError(
            f"collection {collection!r} is no usable name; use 1 to 128 letters, digits, '.', '_', '-', "
            "starting with a letter, digit or '_', without '..' or a '.' at the end"
        )
    if (scheme, separator) == ("qdrant+edge", "://"):
        if not rest:
            raise InputError("qdrant+edge:// names no folder; write qdrant+edge://PATH")
        from c2llm_integrations.stores.qdrant_edge import QdrantEdgeStore

        return QdrantEdgeStore(_native(rest), collection)
    if (scheme, separator) == ("qdrant+memory", "://"):
        if rest:
            raise InputError("qdrant+memory:// takes nothing after it; every opening is a new, empty store")
        from c2llm_integrations.stores.qdrant import QdrantStore

        return QdrantStore.in_memory(collection)
    named = f"scheme {scheme!r}" if separator else "a store without a scheme"
    raise InputError(f"{named} is not supported; this release knows {' and '.join(SCHEMES)}")


def _native(path: str) -> str:
    # "qdrant+edge:///C:/x", as URLs write a Windows path, has one slash too many for Windows.
    return path[1:] if os.name == "nt" and re.match(r"/[A-Za-z]:", path) else path
