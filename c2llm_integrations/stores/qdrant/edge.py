"""Qdrant Edge, the embedded default: the real engine in this process, one folder a collection (see `edge_files`)."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Any

from c2llm_integrations._utils.files import FileLock, allocated_bytes, copy_sparse, is_refused, is_writable, sync_folder
from c2llm_integrations.errors import StoreError
from c2llm_integrations.stores import Location
from c2llm_integrations.stores.backend import Gone, Terms
from c2llm_integrations.stores.file_checksums import Entries, break_seal, require_whole
from c2llm_integrations.stores.filter import Filter
from c2llm_integrations.stores.ids import RecordId
from c2llm_integrations.stores.qdrant import edge_conversions as convert
from c2llm_integrations.stores.qdrant import edge_files
from c2llm_integrations.stores.qdrant.edge_conversions import edge
from c2llm_integrations.stores.qdrant.edge_files import NEXT_FILE, SPEC_FILE, Settings
from c2llm_integrations.stores.qdrant.payload import DENSE, Fields, PointReader, ours, pages, points_of, updates_of
from c2llm_integrations.stores.records import AnyRecord, Vector
from c2llm_integrations.stores.row_fields import batch_bytes
from c2llm_integrations.stores.spec import DATATYPES, Capabilities, CollectionSpec
from c2llm_integrations.stores.vector_store import VectorStore

# The engine maps its files into memory and dies of SIGBUS where a full disk cannot back a page. It grows
# them in sparse steps of 32 MiB: vectors, terms, payload and two log segments make 160 MiB, the field indexes 30.
RESERVE_BYTES = 256 * 2**20
# A batch is written to the log, then to the segment, whose files round up.
WRITE_AMPLIFICATION = 3
# The engine logs each operation before it applies it, and the log outlives this process; only the death of the
# machine can take what was not flushed, and the next run writes that again. Within `bulk` opening after a crash may
# take longer.
FLUSH_BYTES, BULK_FLUSH_BYTES = 16 * 2**20, 256 * 2**20
# How many rows are written before the engine is asked to rewrite what it keeps in memory of them (terms) or still has
# to make (codes).
TIDY_ROWS = 50_000
# Rows a page of the scan, which reads everything but text and vector, and of the export, which reads all.
SCAN_PAGE, ROWS_PAGE = 256, 500


class QdrantEdgeStore(PointReader):
    """One collection in a folder, opened by one process at a time.

    One that this user cannot write to is searched in a private copy, as it was when it was opened, by any number.
    """

    capabilities = Capabilities(
        datatypes=frozenset(DATATYPES),
        quantizations=frozenset(convert.QUANTIZATIONS),
        lexical=True,
        index=frozenset(convert.GRAPH),
    )
    _types = convert.TYPES
    _settings_file = SPEC_FILE

    def __init__(self, path: str | Path, collection: str = "code") -> None:
        """Open PATH/`collection` if it exists; nothing is written if it does not.

        Raises StoreBusy if it is open elsewhere, SpecMismatch or StoreError if it cannot be read.
        """
        super().__init__(f"qdrant+edge://{path}", collection)
        self.root = Path(os.path.abspath(Path(path).expanduser()))
        self.folder = self.root / collection
        self._real_root = os.path.realpath(self.root)
        self._file = self.folder / self._settings_file
        self._lock: FileLock | None = None
        self._copy: TemporaryDirectory[str] | None = None
        self._spec: CollectionSpec | None = None
        self._next: _Successor | None = None
        self._place = self.folder
        self._held: tuple[int, int] | None = None
        self._has_graph = False
        self._sealed: Entries = {}
        self._unflushed = self._untidied = 0
        self._flush_bytes = FLUSH_BYTES
        with self._errors():
            self._read_spec()

    @classmethod
    def open(cls, at: Location) -> QdrantEdgeStore:
        """Return a store over the folder at a location."""
        return cls(at.place, at.collection)

    @classmethod
    def list_collections(cls, at: Location) -> list[str]:
        """See `VectorStore.list_collections`; a missing folder has none."""
        found = (file.parent.name for file in Path(at.place).expanduser().glob(f"*/{SPEC_FILE}"))
        return [name for name in found if not name.startswith(".")]

    # ---- the collection

    @contextmanager
    def _open(self) -> Iterator[None]:
        with super()._open():
            if self._client is not None and not self._is_in_place():
                self._close()  # what is there now, the call finds out for itself
            yield

    def _read_spec(self) -> CollectionSpec | None:
        if self._client is None:
            with self._making:
                if self._client is None:  # else another thread has opened it
                    self._require_place()
                    if self._file.exists():
                        self._attach()
        return self._spec

    def _create(self, spec: CollectionSpec) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        self._require_space(0)
        self._hold()
        try:
            if not self._file.exists():
                self._build(spec)
                self._has_only_our_fields = True  # until the lock is released: nobody else can open it
        except BaseException:
            self._let_go()
            raise
        self._attach()

    def _build(self, spec: CollectionSpec) -> None:
        edge_files.ignore_in_git(self.root)
        if any(self.folder.glob("shard*/segments")):
            raise StoreError(f"{self._file} is missing; delete {self.folder} and index again")
        if self.folder.exists() and any(self.folder.iterdir()):
            raise StoreError(f"{self.folder} holds something else; choose another --collection or --store")
        new, _ = edge_files.cleared_scratch(self.root, self.collection)
        settings = Settings(spec, {})
        _make_shard(new / settings.shard, spec)
        settings.save(new / SPEC_FILE)
        if self.folder.exists():
            self.folder.rmdir()
        os.rename(new, self.folder)
        sync_folder(self.root)

    def _attach(self) -> None:
        self._hold()
        try:
            if not self._file.exists():  # dropped since we looked
                self._let_go()
                return
            self._held = _identity(self.folder)
            settings = Settings.load(self._file)
            shard = self._place = self.folder / settings.shard
            # The engine removes a tracker's journal once it is applied, which it is when the shard is closed.
            is_whole = require_whole(edge_files.seal_of(shard), "*/wal/*", rebuilt=("tracker_journal.dat",))
            if is_writable(self.folder) and not self._lacks_room(shard):
                self._sweep()
                # The engine applies its log to its files whenever it loads them, even if nobody writes a row.
                self._sealed = break_seal(edge_files.seal_of(shard)) if is_whole else {}
            else:
                shard = self._copied(shard)
            try:
                client = edge.EdgeShard.load(str(shard))
            except Exception as error:
                raise StoreError(f"{self.folder} is damaged ({error}); delete that folder and index again") from error
            # In this order, for another thread looks at the client first.
            self._spec, self._has_graph, self._client = settings.spec, False, client
        except BaseException:
            self._let_go()
            raise

    def _lacks_room(self, shard: Path) -> bool:
        """Return whether holes of a shard may not be backed where it lies, where even reading one takes room (tmpfs).

        False where a copy would have none either.
        """
        free = shutil.disk_usage(self.root).free
        if free >= RESERVE_BYTES:
            return False
        size = _size_of(shard)
        return free < size - allocated_bytes(shard) and size <= shutil.disk_usage(gettempdir()).free

    def _copied(self, shard: Path) -> Path:
        """Return a copy of a shard that cannot be written to: the engine opens every file for writing."""
        self._copy = TemporaryDirectory(prefix="c2llm-", ignore_cleanup_errors=True)
        # Where a hole that the engine maps cannot be filled, the process dies without a word.
        need = _size_of(shard)
        free = shutil.disk_usage(self._copy.name).free
        if free < need:
            raise StoreError(
                f"{self.folder} cannot be written to, so it is searched in a copy, which needs {need // 2**20} MiB; "
                f"{Path(self._copy.name).parent} has {free // 2**20} MiB free, name another folder in TMPDIR"
            )
        copy_sparse(shard, Path(self._copy.name))
        self._let_go()
        return Path(self._copy.name)

    def _hold(self) -> None:
        # The engine's own lock comes too late: loading first deletes segments it takes for unfinished ones,
        # which may be those that the holder is just writing.
        if self._lock is None:
            way = "close it there, or open it in both with wait=10"
            self._lock = FileLock(self.root / f".{self.collection}.lock", f"{self.folder}", way=way)
            try:
                self._require_place()  # again, for the lock may have come late
            except BaseException:
                self._let_go()
                raise

    def _let_go(self) -> None:
        self._has_only_our_fields = False
        if self._lock is not None:
            self._lock.release()
        self._lock = None

    def _claims(self) -> dict[str, str]:
        return Settings.load(self._file).claims

    def _claim(self, repository: str, checkout: str) -> None:
        self._require_space(0)
        settings = Settings.load(self._file)
        replace(settings, claims={**settings.claims, repository: checkout}).save(self._file)

    def _defer(self) -> None:
        self._flush_bytes = BULK_FLUSH_BYTES

    def _restore(self) -> None:
        self._flush_bytes = FLUSH_BYTES

    def _optimize(self) -> None:
        spec, shard = self._existing(), self._place
        # Segments are rewritten beside the old ones before those go.
        self._require_space(allocated_bytes(shard))
        if not self._has_graph and convert.needs_graph(spec, self._shard.info().points_count):
            self._shard.flush()
            self._shard.close()
            self._client = edge.EdgeShard.load(str(shard), convert.config_of(spec, graph=True))
            self._has_graph = True
        edge_files.give_back_freed_memory()
        self._shard.optimize()
        self._shard.flush()
        edge_files.give_back_freed_memory()
        self._untidied = 0

    def _successor(self) -> VectorStore:
        if self._next is None or self._next._closed:
            self._next = _Successor(self.root, self.collection)
        return self._next

    def _replace(self) -> None:
        self._release_shard()
        os.replace(self.folder / NEXT_FILE, self._file)  # from here on the new rows are the collection
        sync_folder(self.folder)
        self._attach()

    def _drop(self) -> None:
        if self._read_spec() is None:
            return
        self._release_shard()
        _, old = edge_files.cleared_scratch(self.root, self.collection)
        os.rename(self.folder, old)  # from here on the collection is gone, even if this run is killed
        edge_files.cleared_scratch(self.root, self.collection)
        self._let_go()

    def _close(self) -> None:
        try:
            self._release_shard()
        finally:
            self._let_go()

    def _after_fork(self) -> None:
        super()._after_fork()
        handle, self._client, self._spec = self._client, None, None
        if self._copy is not None:
            self._copy._finalizer.detach()  # type: ignore[attr-defined]  # or its folder would end with this process
        self._lock = self._copy = self._next = None
        self._has_only_our_fields = False
        self._unflushed = self._untidied = 0
        if handle is not None:
            edge_files.leave_to_parent(handle, self._real_root)

    def _release_shard(self) -> None:
        if self._next is not None:  # it stands under this store's lock
            self._next.close()
        handle, self._client, self._spec = self._client, None, None
        if handle is not None:
            is_in_place = self._is_in_place()
            if self._unflushed and is_in_place:
                handle.flush()
            self._unflushed = 0
            handle.close()
            copy, self._copy = self._copy, None
            if copy is not None:
                copy.cleanup()
            elif is_in_place:
                edge_files.seal(self._place, self._sealed)

    # ---- writing

    def _upsert(self, records: Sequence[AnyRecord], vectors: Vector, terms: Terms) -> None:
        operation = edge.UpdateOperation.upsert_points(points_of(self._types, records, vectors, terms))
        self._write([operation], _bytes(records, vectors, terms), len(records))

    def _update(self, records: Sequence[AnyRecord], vectors: Vector | None, terms: Terms, gone: Gone) -> None:
        operations = updates_of(self._types, records, vectors, terms, gone)
        self._write(operations, _bytes(records, vectors, terms), len(records))

    def _delete(self, ids: Sequence[RecordId]) -> None:
        self._write([edge.UpdateOperation.delete_points(list(ids))], 16 * len(ids), 0)

    def _write(self, operations: Sequence[edge.UpdateOperation], size: int, rows: int) -> None:
        self._require_space(WRITE_AMPLIFICATION * size)
        for operation in operations:
            self._shard.update(operation)
        self._unflushed += size
        self._untidied += rows
        spec = self._existing()
        tidy = self._untidied >= TIDY_ROWS and (spec.analyzer or spec.quantization) is not None
        if tidy:
            self._shard.optimize()
            self._untidied = 0
        if tidy or self._unflushed >= self._flush_bytes:
            self._shard.flush()
            self._unflushed = 0
            edge_files.give_back_freed_memory()

    # ---- reading

    def _retrieve(self, ids: Sequence[RecordId], payload: Fields, vectors: bool = False) -> Iterable[Any]:
        return self._shard.retrieve(list(ids), payload, [DENSE] if vectors else False)

    def _scroll(self, where: Filter, source: str | None, payload: Fields, vectors: bool = False) -> Iterator[Any]:
        settings = Settings.load(self._file)
        if not where and (source is None or settings.claims.keys() <= {source}):
            edge_files.read_ahead(self.folder / settings.shard)
        page, chosen = ROWS_PAGE if payload is True else SCAN_PAGE, ours(self._types, where, source)
        what, place = (payload, [DENSE] if vectors else False), self._place

        def read(offset: Any, page: int) -> Any:
            if self._place != place:
                raise StoreError(f"{self.collection!r} of {self.url} was replaced while it was read; read it again")
            return self._shard.scroll(edge.ScrollRequest(offset, page, chosen, *what))

        for points, _ in pages(read, page):
            yield from points

    def _found(self, requests: list[Any]) -> list[Any]:
        return self._shard.query_batch(edge.QueryBatchRequest(requests))

    def _count(self, where: Filter, source: str | None) -> int:
        return self._shard.count(edge.CountRequest(exact=True, filter=ours(self._types, where, source)))

    def _total(self) -> int:
        return self._shard.count(edge.CountRequest(exact=True))

    # ---- the folder

    def _require_place(self) -> None:
        """Raise StoreError for a folder that is not ours any more: a program that runs for days opens it often."""
        edge_files.require_plain_files(self.root, self.collection)
        real = os.path.realpath(self.root)
        if real != self._real_root:
            raise StoreError(f"{self.root} leads to {real} now, but to {self._real_root} before; put it back")

    def _is_in_place(self) -> bool:
        """Return whether the folder that is open is still at its path, so that files may be opened by it."""
        real = os.path.join(self._real_root, self.collection)
        return os.path.realpath(self.folder) == real and _identity(self.folder) == self._held

    @property
    def _shard(self) -> edge.EdgeShard:
        shard: edge.EdgeShard | None = self._client
        if shard is None:
            raise StoreError(f"collection {self.collection!r} of {self.url} was closed or dropped; open it again")
        return shard

    def _translate(self, error: BaseException) -> StoreError:
        if isinstance(error, OSError) and is_refused(error):
            places = [place for place in (self.root, self.folder) if os.path.exists(place)]
            is_readable = all(os.access(place, os.R_OK | os.X_OK) for place in places)
            what = "written to" if is_readable else "read"
            way = "its collections can be searched, to index" if is_readable else "ask its owner, or"
            return StoreError(
                f"{self.root} cannot be {what} ({error.strerror}); {way} name another place with "
                "--store qdrant+edge://PATH"
            )
        return super()._translate(error)

    def _require_space(self, size: int) -> None:
        need, free = RESERVE_BYTES + size, shutil.disk_usage(self.root).free
        if free < need and (self._copy is None or is_writable(self.folder)):
            raise StoreError(
                f"{self.root} has {free // 2**20} MiB of disk free, writing needs {need // 2**20} MiB; "
                "make room and run again, nothing written is lost"
            )
        if self._copy is not None:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    def _sweep(self) -> None:
        edge_files.sweep(self.folder)


class _Successor(QdrantEdgeStore):
    """What is to take a collection's place, in its folder and under the lock of the store that made this one."""

    _settings_file = NEXT_FILE

    def _build(self, spec: CollectionSpec) -> None:
        settings = Settings(spec, {}, Settings.load(self.folder / SPEC_FILE).next_shard)
        if (self.folder / settings.shard).exists():
            shutil.rmtree(self.folder / settings.shard)
        _make_shard(self.folder / settings.shard, spec)
        settings.save(self._file)

    def _drop(self) -> None:
        if self._read_spec() is None:
            return
        self._release_shard()
        self._file.unlink()  # from here on there is none, even if this run is killed
        sync_folder(self.folder)
        edge_files.seal_of(self._place).unlink(missing_ok=True)
        shutil.rmtree(self._place)

    def _hold(self) -> None: ...

    def _sweep(self) -> None: ...


def _make_shard(folder: Path, spec: CollectionSpec) -> None:
    folder.mkdir(parents=True)
    shard = edge.EdgeShard.create(str(folder), convert.config_of(spec, graph=False))
    for index in convert.field_indexes(spec):
        shard.update(index)
    shard.flush()
    shard.close()


def _size_of(folder: Path) -> int:
    """Return the bytes of the files under a folder, holes included."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _identity(folder: Path) -> tuple[int, int] | None:
    with suppress(OSError):
        info = os.stat(folder)
        return info.st_dev, info.st_ino
    return None


def _bytes(records: Sequence[AnyRecord], vectors: Vector | None, terms: Terms) -> int:
    width = 0 if vectors is None else vectors.shape[1]
    return batch_bytes(records, width) + sum(8 * len(words) for words in terms or ())
