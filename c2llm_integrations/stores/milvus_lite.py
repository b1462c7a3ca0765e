"""Milvus Lite: Milvus's interface over a folder, served by a thread of this process.

Search is exact. One process at a time has the folder open; all its collections share one server.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from pathlib import Path

from c2llm_integrations.errors import InputError, MissingExtra, StoreError
from c2llm_integrations.stores.files import FileLock
from c2llm_integrations.stores.milvus import Held, MilvusStore
from c2llm_integrations.stores.milvus_collections import CONNECTION, names
from c2llm_integrations.stores.milvus_schema import Server
from c2llm_integrations.stores.spec import CollectionSpec

try:
    from milvus_lite.server_manager import server_manager_instance
    from pymilvus import MilvusClient
except ImportError as error:
    raise MissingExtra("milvus-lite", "milvus") from error

LITE = Server("lite", (3, 2))
# How many stores of this process have each folder open: the last one stops its server, which frees the folder.
_holders: Counter[Path] = Counter()
_guard = threading.Lock()


class MilvusLiteStore(MilvusStore):
    """One collection in a folder, which is not made before `create`."""

    def __init__(self, path: str | Path, collection: str = "code") -> None:
        """Open PATH, whose name ends in ".db", if it exists.

        Raises InputError for another ending, StoreBusy if it is open elsewhere, StoreError if it cannot be opened.
        """
        super().__init__(None, LITE, collection, url=f"milvus+lite://{path}")
        self.path = _resolved(path)
        if self.path.exists():
            with self._errors():
                self._attach()

    def _find(self) -> Held | None:
        if self._client is None and self.path.exists():
            self._attach()
        return None if self._client is None else super()._find()

    def _create(self, spec: CollectionSpec) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        self._attach()
        super()._create(spec)

    def _attach(self) -> None:
        if self._client is None:
            self._client = _acquire(self.path)

    def _close(self) -> None:
        if self._client is not None:
            _release(self.path, self._client)
            self._client = None


def list_collections(path: str | Path) -> list[str]:
    """Return the names of the collections that this package made in a folder, sorted; errors are the store's."""
    folder = _resolved(path)
    if not folder.exists():
        return []
    client = _acquire(folder)
    try:
        return names(client)
    finally:
        _release(folder, client)


def _resolved(path: str | Path) -> Path:
    resolved = Path(os.path.realpath(Path(path).expanduser()))
    if resolved.suffix != ".db":
        raise InputError(f"milvus+lite://{path} does not end in .db, by which Milvus knows a local database; rename it")
    return resolved


def _acquire(path: Path) -> MilvusClient:
    with _guard:
        if not path.is_dir():
            raise StoreError(f"{path} is no folder; a database of Milvus Lite 2 must be moved with its own tools")
        if not _holders[path]:
            # The engine takes this lock too, but where it cannot, it prints a traceback and gives no reason.
            FileLock(path / "LOCK", str(path)).release()
        client = MilvusClient(str(path), **CONNECTION)
        _holders[path] += 1
        return client


def _release(path: Path, client: MilvusClient) -> None:
    with _guard:
        client.close()
        _holders[path] -= 1
        if not _holders[path]:
            server_manager_instance.release_server(str(path))
