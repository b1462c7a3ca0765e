"""Where rows live: a folder per database, one contract (`vector_store.VectorStore`), one URL to name any of them."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from c2llm_integrations.code.exclude import INDEX_FOLDER
from c2llm_integrations.errors import C2LLMError, InputError

if TYPE_CHECKING:
    from c2llm_integrations.stores.foreign_collection import Layout
    from c2llm_integrations.stores.vector_store import VectorStore


class Database(NamedTuple):
    """A database that URLs name by their scheme.

    `store` is the MODULE:CLASS of its `VectorStore`, `foreign` that of its `ForeignStore` if it has one; `place` is
    what follows "://": a path, HOST:PORT or nothing. A server has its own `port`, and a variable that may hold a `key`.
    """

    store: str
    place: str
    foreign: str = ""
    port: int = 0
    key: str = ""


class Location(NamedTuple):
    """What a store is opened with; `place` is what the URL names: a path, an http(s) address, or "" where it ends."""

    place: str
    collection: str = "code"
    key: str | None = None
    wait: float | None = None


EDGE = "qdrant+edge://"
_QDRANT = "c2llm_integrations.stores.qdrant.store:QdrantStore"
_FOREIGN_QDRANT = "c2llm_integrations.stores.qdrant.foreign_collection:ForeignQdrantStore"
_MILVUS = "c2llm_integrations.stores.milvus.store:MilvusStore"
_FOREIGN_MILVUS = "c2llm_integrations.stores.milvus.foreign_collection:ForeignMilvusStore"
# A new database is one line here, and one module whose class passes the contract's tests. A server listens at its own
# default port unless the URL says otherwise, and at 443 where Zilliz Cloud puts Milvus.
DATABASES = {
    "qdrant+edge": Database("c2llm_integrations.stores.qdrant.edge_turns:SharedEdgeStore", "PATH"),
    "qdrant+memory": Database(_QDRANT, ""),
    "qdrant+http": Database(_QDRANT, "HOST:PORT", _FOREIGN_QDRANT, 6333, "QDRANT_API_KEY"),
    "qdrant+https": Database(_QDRANT, "HOST:PORT", _FOREIGN_QDRANT, 6333, "QDRANT_API_KEY"),
    "milvus+lite": Database("c2llm_integrations.stores.milvus.lite:MilvusLiteStore", "PATH.db", _FOREIGN_MILVUS),
    "milvus+http": Database(_MILVUS, "HOST:PORT", _FOREIGN_MILVUS, 19530, "MILVUS_TOKEN"),
    "milvus+https": Database(_MILVUS, "HOST:PORT", _FOREIGN_MILVUS, 443, "MILVUS_TOKEN"),
}

# Safe as a file name on every system and as a collection name in Qdrant; Milvus takes fewer.
_COLLECTION = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]{0,126}[A-Za-z0-9_-])?")
_CREDENTIALS = re.compile(r"[^/\\]*:[^/\\]*@")


def open_store(
    url: str,
    collection: str = "code",
    *,
    api_key: str | None = None,
    wait: float | None = None,
    layout: Layout | None = None,
) -> VectorStore:
    """Open the store that a URL names; `DATABASES` lists the schemes.

    PATH is taken as it stands (relative, absolute or `~`, any drive letter, no percent-decoding). Nothing is created
    until `VectorStore.create`. A collection that this user cannot write to (a read-only mount, another owner's folder)
    is searched in a private copy by any number of processes, as it was when it was opened.

    Args:
        url: Such as "qdrant+edge://PATH" or "milvus+http://HOST:PORT".
        collection: One named set of rows in that database.
        api_key: For servers only; without it QDRANT_API_KEY or MILVUS_TOKEN (also USER:PASSWORD) is read.
        wait: How many seconds each call waits for its turn: an embedded Qdrant is then shared with other processes that
            open it so.
        layout: What the fields of a collection that somebody else made are called (`Layout`); it is read and searched,
            and never changed.

    Raises:
        InputError: For a URL, collection name, key or layout that cannot be used.
        MissingExtra: If the client is not installed.
        StoreBusy: If another process has the collection open.
        StoreError: If no server answers.

    """
    if not isinstance(url, str):
        raise InputError(f"expected a URL such as 'qdrant+edge://PATH', got {url!r:.60} ({type(url).__name__})")
    if not isinstance(collection, str) or not _COLLECTION.fullmatch(collection) or ".." in collection:
        raise InputError(
            f"collection name {collection!r} cannot be used; use 1 to 128 letters, digits, '.', '_', '-', "
            "starting with a letter, digit or '_', without '..' or a '.' at the end"
        )
    database, place, key = _located(url, api_key)
    location = Location(place, collection, key, wait)
    opened: VectorStore
    if layout is None:
        opened = _class(database.store).open(location)
    elif database.foreign:
        opened = _class(database.foreign).open(location, layout)
    else:
        raise InputError(
            f"{url.partition('://')[0]}:// holds only collections made here; leave the layout out, or give the client "
            "of another program's folder to ForeignQdrantStore"
        )
    return opened


def whole_url(url: str) -> str:
    """Return the URL of a store with the whole path of its folder, so that it means the same from every folder."""
    try:
        database, place, _ = _located(url, None)
    except C2LLMError:  # opening it says what is wrong
        return url
    if database.port or not place:
        return url
    return f"{url.partition('://')[0]}://{os.path.abspath(os.path.expanduser(place))}"


def list_collections(url: str, *, api_key: str | None = None) -> list[str]:
    """Return the names of the collections that this package made in a store, sorted; errors are `open_store`'s."""
    database, place, key = _located(url, api_key)
    return sorted(_class(database.store).list_collections(Location(place, key=key)))


def collections_beside(store: VectorStore) -> list[str]:
    """Return the collections that an embedded database holds, for a message; of a server [], which needs its key."""
    try:
        database, place, _ = _located(store.url, None)
        return [] if database.port else sorted(_class(database.store).list_collections(Location(place)))
    except C2LLMError:
        return []


def require_one_key(*urls: str) -> None:
    """Raise InputError where a key of the environment would be sent to several servers: it is that of one of them."""
    servers: defaultdict[str, set[str]] = defaultdict(set)
    for database, place, key in (_located(url, None) for url in urls):
        if key is not None:
            servers[database.key].add(place)
    for variable, places in servers.items():
        if len(places) > 1:
            raise InputError(
                f"{variable} would be sent to {' and '.join(sorted(places))}; give each its own key in Python: "
                "ingest(…, open_store(URL, api_key=…), vectors_from=open_store(URL, api_key=…))"
            )


def _class(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)


def own_index(root: Path) -> str:
    """Return the URL of the index that the repository under `root` has, or would get."""
    return f"{EDGE}{root / INDEX_FOLDER}"


def _located(url: str, api_key: str | None) -> tuple[Database, str, str | None]:
    """Return a URL's database, what it names there, and the key to send."""
    scheme, separator, rest = url.partition("://")
    if _CREDENTIALS.match(rest if separator else url):
        raise InputError("the store URL holds credentials; take them out, URLs end up in logs and shell histories")
    database = DATABASES.get(scheme) if separator else None
    if database is None:
        named = f"scheme {scheme!r}" if separator else "a store without a scheme"
        known = ", ".join(_example(one) for one in DATABASES if not one.endswith("https"))
        raise InputError(f"{named} is not supported; this release knows {known}")
    if database.port:
        return database, _address(scheme, rest, database.port), _key(database.key, api_key)
    if api_key is not None:
        raise InputError(f"{scheme}:// is a store of this machine and takes no API key; leave it out")
    if rest and not database.place:
        raise InputError(f"{scheme}:// takes nothing after it; every opening is a new, empty store")
    if database.place and not rest:
        raise InputError(f"{scheme}:// names no folder; write {_example(scheme)}")
    # "qdrant+edge:///C:/x", as URLs write a Windows path, has one slash too many for Windows.
    return database, rest[1:] if os.name == "nt" and re.match(r"/[A-Za-z]:", rest) else rest, None


def _example(scheme: str) -> str:
    return f"{re.sub('http$', 'http(s)', scheme)}://{DATABASES[scheme].place}"


def _address(scheme: str, rest: str, default_port: int) -> str:
    """Return http(s)://HOST:PORT; what a wrong URL holds is never repeated, because it may be a key."""
    try:
        parts = urlsplit(f"//{rest}")
        host, port = parts.hostname, parts.port or default_port
    except ValueError:
        host, port = None, 0
    if not host or parts.path not in ("", "/") or parts.query or parts.fragment or "@" in rest:
        raise InputError(
            f"{scheme}:// is not followed by HOST:PORT alone; write it like {scheme}://localhost:{default_port} "
            "and give a key by argument or environment, and all else, such as a database's name, to a client of yours "
            "(from_client)"
        )
    return f"{scheme.partition('+')[2]}://{f'[{host}]' if ':' in host else host}:{port}"


def _key(variable: str, argument: str | None) -> str | None:
    """Return the key to send, or None; a client would show one that cannot stand in a header in its error."""
    key = (os.environ.get(variable, "") if argument is None else argument).strip()
    if not (key.isascii() and key.isprintable()):
        raise InputError(f"the API key ({variable} or the argument) holds characters that no key has; copy it again")
    return key or None
