"""Milvus Lite: Milvus's interface over a folder, served by a thread of this process.

Search is exact. One process at a time has the folder open; all its collections share one server.
"""

from __future__ import annotations

import json
import os
import threading
from collections import Counter
from pathlib import Path

import numpy as np

from c2llm_integrations.errors import InputError, MissingExtra, StoreError
from c2llm_integrations.stores.files import FileLock, write_atomically
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
        if not any(self.path.iterdir()):  # a database inside a repository is no part of it
            write_atomically(self.path / ".gitignore", "*\n")
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
            lock = FileLock(path / "LOCK", str(path))
            try:
                _repair(path)
            finally:
                lock.release()
        client = MilvusClient(str(path), **CONNECTION)
        _holders[path] += 1
        return client


def _repair(path: Path) -> None:
    """Take away what a run that was killed at the wrong moment leaves, and what milvus-lite 3.2 stumbles over."""
    for collection in path.glob("collections/*"):
        if not any(collection.iterdir()):
            collection.rmdir()  # just being created; a name could not be used again
        _remove_stored_logs(collection)
        for index in collection.glob("partitions/*/indexes/*.flat.idx"):
            try:
                np.load(index, mmap_mode="r", allow_pickle=False)
            except (ValueError, OSError, EOFError):
                index.unlink()  # half written: the collection could not be loaded; it is made anew from the rows


def _remove_stored_logs(collection: Path) -> None:
    """Remove write-ahead logs whose rows are stored: read once more, every row of them would be there twice."""
    try:
        first = int(json.loads((collection / "manifest.json").read_text("utf-8"))["active_wal_number"])
    except (OSError, ValueError, TypeError, KeyError):
        return  # nothing stored yet, or by a release that keeps its logs otherwise
    for log in collection.glob("wal/wal_*_*.arrow"):
        number = log.stem.rpartition("_")[2]
        if number.isdecimal() and int(number) < first:
            log.unlink()


def _release(path: Path, client: MilvusClient) -> None:
    with _guard:
        client.close()
        _holders[path] -= 1
        if not _holders[path]:
            server_manager_instance.release_server(str(path))
