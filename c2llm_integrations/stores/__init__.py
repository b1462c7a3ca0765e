"""Where rows live: one file a database, one contract (`base.VectorStore`), one URL to name any of them."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import urlsplit

from c2llm_integrations.code.skipping import INDEX_FOLDER
from c2llm_integrations.errors import InputError
from c2llm_integrations.stores.base import VectorStore

__all__ = ["list_collections", "open_store", "own_index"]

EDGE = "qdrant+edge://"
SCHEMES = (
    f"{EDGE}PATH",
    "qdrant+memory://",
    "qdrant+http(s)://HOST:PORT",
    "milvus+lite://PATH.db",
    "milvus+http(s)://HOST:PORT",
)
LOCAL = ("qdrant+edge", "qdrant+memory", "milvus+lite")
# Where each server listens unless the URL says otherwise: its own default, and 443 where Zilliz Cloud puts Milvus.
PORTS = {"qdrant+http": 6333, "qdrant+https": 6333, "milvus+http": 19530, "milvus+https": 443}
KEYS = {"qdrant": "QDRANT_API_KEY", "milvus": "MILVUS_TOKEN"}

# Safe as a file name on every system and as a collection name in Qdrant; Milvus takes fewer.
_COLLECTION = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]{0,126}[A-Za-z0-9_-])?")
_CREDENTIALS = re.compile(r"[^/\\]*:[^/\\]*@")


def open_store(
    url: str, collection: str = "code", *, api_key: str | None = None, wait: float | None = None
) -> VectorStore:
    """Open the store that a URL names; `SCHEMES` lists the URLs there are.

    PATH is taken as it stands (relative, absolute or `~`, any drive letter, no percent-decoding). `api_key` is for
    servers only; without it QDRANT_API_KEY or MILVUS_TOKEN (also USER:PASSWORD) is read. With `wait`, an embedded
    Qdrant is shared with other processes that open it so: each call waits up to so many seconds for its turn. Nothing
    is created until `VectorStore.create`. Raises InputError for a URL, collection name or key that cannot be used,
    MissingExtra if the client is not installed, StoreBusy if another process has the collection open, StoreError if
    no server answers.
    """
    if not _COLLECTION.fullmatch(collection) or ".." in collection:
        raise InputError(
            f"collection {collection!r} is no usable name; use 1 to 128 letters, digits, '.', '_', '-', "
            "starting with a letter, digit or '_', without '..' or a '.' at the end"
        )
    scheme, place, key = _place(url, api_key)
    if scheme == "qdrant+edge" and wait is not None:
        from c2llm_integrations.stores.turns import EdgeInTurns

        return EdgeInTurns(place, collection, wait)
    if scheme == "qdrant+edge":
        from c2llm_integrations.stores.qdrant_edge import QdrantEdgeStore

        return QdrantEdgeStore(place, collection)
    if scheme == "milvus+lite":
        from c2llm_integrations.stores.milvus_lite import MilvusLiteStore

        return MilvusLiteStore(place, collection)
    if scheme.startswith("milvus"):
        from c2llm_integrations.stores.milvus import MilvusStore

        return MilvusStore.connect(place, collection, key)
    from c2llm_integrations.stores.qdrant import QdrantStore

    return QdrantStore.connect(place, collection, key) if place else QdrantStore.in_memory(collection)


def list_collections(url: str, *, api_key: str | None = None) -> list[str]:
    """Return the names of the collections that this package made in a store, sorted; errors are `open_store`'s."""
    scheme, place, key = _place(url, api_key)
    if scheme == "qdrant+edge":
        from c2llm_integrations.stores import edge_folder

        return edge_folder.list_collections(place)
    if scheme in ("qdrant+http", "qdrant+https"):
        from c2llm_integrations.stores import qdrant

        return qdrant.list_collections(place, key)
    if scheme == "milvus+lite":
        from c2llm_integrations.stores import milvus_lite

        return milvus_lite.list_collections(place)
    if scheme.startswith("milvus"):
        from c2llm_integrations.stores import milvus

        return milvus.list_collections(place, key)
    return []


def own_index(root: Path) -> str:
    """Return the URL of the index that the repository under `root` has, or would get."""
    return f"{EDGE}{root / INDEX_FOLDER}"


def _place(url: str, api_key: str | None) -> tuple[str, str, str | None]:
    """Return a URL's scheme, what it names there (a path, an http(s) address, nothing), and the key to send."""
    scheme, separator, rest = url.partition("://")
    if _CREDENTIALS.match(rest if separator else url):
        raise InputError("the store URL holds credentials; take them out, URLs end up in logs and shell histories")
    if separator and scheme in PORTS:
        return scheme, _address(scheme, rest), _key(scheme, api_key)
    if not separator or scheme not in LOCAL:
        named = f"scheme {scheme!r}" if separator else "a store without a scheme"
        raise InputError(f"{named} is not supported; this release knows {', '.join(SCHEMES)}")
    if api_key is not None:
        raise InputError(f"{scheme}:// is a store of this machine and takes no API key; leave it out")
    if scheme == "qdrant+memory":
        if rest:
            raise InputError("qdrant+memory:// takes nothing after it; every opening is a new, empty store")
    elif not rest:
        raise InputError(f"{scheme}:// names no folder; write {next(one for one in SCHEMES if scheme in one)}")
    return scheme, _native(rest), None


def _address(scheme: str, rest: str) -> str:
    """Return http(s)://HOST:PORT; what a wrong URL holds is never repeated, for it may be a key."""
    try:
        parts = urlsplit(f"//{rest}")
        host, port = parts.hostname, parts.port or PORTS[scheme]
    except ValueError:
        host, port = None, 0
    if not host or parts.path not in ("", "/") or parts.query or parts.fragment or "@" in rest:
        raise InputError(
            f"{scheme}:// is not followed by HOST:PORT alone; write it like {scheme}://localhost:{PORTS[scheme]} "
            "and give a key by argument or environment"
        )
    return f"{scheme.partition('+')[2]}://{f'[{host}]' if ':' in host else host}:{port}"


def _key(scheme: str, argument: str | None) -> str | None:
    """Return the key to send, or None; a client would show one that cannot stand in a header in its error."""
    variable = KEYS[scheme.partition("+")[0]]
    key = (os.environ.get(variable, "") if argument is None else argument).strip()
    if not (key.isascii() and key.isprintable()):
        raise InputError(f"the API key ({variable} or the argument) holds characters that no key has; copy it again")
    return key or None


def _native(path: str) -> str:
    # "qdrant+edge:///C:/x", as URLs write a Windows path, has one slash too many for Windows.
    return path[1:] if os.name == "nt" and re.match(r"/[A-Za-z]:", path) else path
