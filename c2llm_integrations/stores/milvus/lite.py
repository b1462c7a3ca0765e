"""Milvus Lite: Milvus's interface over a folder, served by a thread of this process.

Search is exact but for int8 codes, whose hits are compared again. One process at a time has the folder open; all its
collections share one server.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import Counter
from contextlib import suppress
from pathlib import Path

from pymilvus import MilvusClient

from c2llm_integrations._utils.files import FileLock, is_writable, write_atomically
from c2llm_integrations._utils.json_lines import parse_json
from c2llm_integrations.errors import InputError, MissingExtra, StoreError
from c2llm_integrations.stores import Location
from c2llm_integrations.stores.file_checksums import break_seal, require_whole, write_seal
from c2llm_integrations.stores.milvus.collections import CONNECTION, names
from c2llm_integrations.stores.milvus.schema import Server
from c2llm_integrations.stores.milvus.store import MilvusStore, Serving
from c2llm_integrations.stores.spec import CollectionSpec

try:
    from milvus_lite.server_manager import server_manager_instance
except ImportError as error:
    raise MissingExtra("milvus-lite", "milvus") from error

# It prints each failed call with its traceback, as pymilvus does.
if logging.getLogger("milvus_lite").level == logging.NOTSET:
    logging.getLogger("milvus_lite").setLevel(logging.CRITICAL)

LITE = Server("lite", (3, 2))
# The checksums of the files, while no server has the folder open.
SEAL = "c2llm.seal"
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
        self.path = resolved(path)
        if self.path.exists():
            with self._errors():
                self._attach()

    @classmethod
    def open(cls, at: Location) -> MilvusLiteStore:
        """Return a store over the folder at a location."""
        return cls(at.place, at.collection)

    @classmethod
    def list_collections(cls, at: Location) -> list[str]:
        """See `VectorStore.list_collections`."""
        folder = resolved(at.place)
        if not folder.exists():
            return []
        client = acquire(folder)
        try:
            return names(client)
        finally:
            release(folder, client)

    def _find(self) -> Serving | None:
        if self._client is None and self.path.exists():
            self._attach()
        return None if self._client is None else super()._find()

    def _create(self, spec: CollectionSpec) -> None:
        self.path.mkdir(parents=True, exist_ok=True)
        if not any(self.path.iterdir()):  # git must not take a database inside a repository for code
            write_atomically(self.path / ".gitignore", "*\n")
        self._attach()
        super()._create(spec)

    def _attach(self) -> None:
        with self._making:
            if self._client is None:
                self._client = acquire(self.path)

    def _close(self) -> None:
        if self._client is not None:
            release(self.path, self._client)
            self._client = None


def resolved(path: str | Path) -> Path:
    """Return the folder of a database; raises InputError for a name that Milvus does not know as one."""
    resolved = Path(os.path.realpath(Path(path).expanduser()))
    if resolved.suffix != ".db":
        raise InputError(f"milvus+lite://{path} does not end in .db, by which Milvus knows a local database; rename it")
    return resolved


def acquire(path: Path) -> MilvusClient:
    """Return a client of the server of a folder, which the first one of this process starts."""
    with _guard:
        if not path.is_dir():
            raise StoreError(f"{path} is not a folder; move a database of Milvus Lite 2 with that release's tools")
        if not _holders[path]:
            if not is_writable(path):
                raise StoreError(
                    f"{path} cannot be written to, as Milvus Lite has to even for a search; copy it elsewhere"
                )
            # The engine takes this lock too, but where it cannot, it prints a traceback and gives no reason.
            lock = FileLock(path / "LOCK", str(path), way="close it there, or use a server for several")
            try:
                sealed = require_whole(path / SEAL, "*/manifest.json", rebuilt=("*.idx",))
                break_seal(path / SEAL)
                _repair(path, sealed)
            finally:
                lock.release()
        client = MilvusClient(str(path), **CONNECTION)
        _holders[path] += 1
        return client


def _repair(path: Path, sealed: bool) -> None:
    """Take away what a run that was killed at the wrong moment leaves, and what milvus-lite 3.2 stumbles over."""
    for collection in path.glob("collections/*"):
        if not any(collection.iterdir()):
            collection.rmdir()  # just being created; a name could not be used again
        _remove_stored_logs(collection)
        if not sealed:
            for index in collection.glob("partitions/*/indexes/*.idx"):
                index.unlink()  # half written, the collection could not be loaded; it is made anew from the rows


def _remove_stored_logs(collection: Path) -> None:
    """Remove write-ahead logs whose rows are stored: read once more, every row of them would be there twice."""
    try:
        first = int(parse_json((collection / "manifest.json").read_text("utf-8"))["active_wal_number"])
    except (OSError, ValueError, TypeError, KeyError):
        return  # nothing stored yet, or by a release that keeps its logs otherwise
    for log in collection.glob("wal/wal_*_*.arrow"):
        number = log.stem.rpartition("_")[2]
        if number.isdecimal() and int(number) < first:
            log.unlink()


def release(path: Path, client: MilvusClient) -> None:
    """Close what `acquire` returned; the last one of a folder stops its server."""
    with _guard:
        client.close()
        _holders[path] -= 1
        if not _holders[path]:
            server_manager_instance.release_server(str(path))
            with suppress(OSError):
                write_seal(path / SEAL, [file for file in path.rglob("*") if file.is_file() and file.stat().st_size])
