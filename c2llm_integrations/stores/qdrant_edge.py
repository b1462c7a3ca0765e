"""Qdrant Edge, the embedded default: the real engine in this process, one folder a collection (see `edge_folder`)."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from c2llm_integrations.code.chunk import CodeChunk
from c2llm_integrations.errors import StoreError
from c2llm_integrations.stores.base import VectorStore
from c2llm_integrations.stores.edge_folder import (
    NEXT_FILE,
    SPEC_FILE,
    Settings,
    cleared_scratch,
    ignore_in_git,
    read_ahead,
    sweep,
)
from c2llm_integrations.stores.edge_types import (
    DATATYPES,
    QUANTIZATIONS,
    config_of,
    edge,
    field_indexes,
    needs_graph,
    ours,
    points_of,
    queries_of,
)
from c2llm_integrations.stores.files import FileLock, allocated_bytes, sync_folder
from c2llm_integrations.stores.rows import (
    DENSE,
    METADATA_FIELD,
    Candidates,
    Filter,
    Hit,
    Row,
    Stored,
    Vector,
    batch_bytes,
    chunk_of,
    payload_of,
    stored_of,
    unit,
)
from c2llm_integrations.stores.spec import Capabilities, CollectionSpec

# The engine maps its files into memory and dies of SIGBUS where a full disk cannot back a page. It grows
# them in sparse steps of 32 MiB: vectors, terms, payload and two log segments make 160 MiB, the field indexes 30.
RESERVE_BYTES = 256 * 2**20
# A batch is written to the log, then to the segment, whose files round up.
WRITE_AMPLIFICATION = 3
# The engine logs each operation before it applies it, and the log outlives this process; only the death of the
# machine can take what was not flushed, and the next run writes that again. Flushing costs 10 to 150 ms.
FLUSH_BYTES = 16 * 2**20
# The same within `bulk`, where opening after a crash may take longer: twice the speed at 100,000 rows of 256.
BULK_FLUSH_BYTES = 256 * 2**20
# How many rows are written before the engine is asked to rewrite what it keeps in memory of them (terms) or still has
# to make (codes).
TIDY_ROWS = 50_000
# Rows a page of the scan, which reads everything but text and vector, and of the export, which reads all.
SCAN_PAGE, ROWS_PAGE = 256, 500  # 300,000 rows are listed in pages of 256 in 2.5 s, of 2,000 in 2.8 s


class QdrantEdgeStore(VectorStore):
    """One collection in a folder, opened by one process at a time."""

    capabilities = Capabilities(
        datatypes=frozenset(DATATYPES), quantizations=frozenset(QUANTIZATIONS), lexical=True, uploads=1
    )
    _settings_file = SPEC_FILE

    def __init__(self, path: str | Path, collection: str = "code") -> None:
        """Open PATH/`collection` if it exists; nothing is written if it does not.

        Raises StoreBusy if it is open elsewhere, SpecMismatch or StoreError if it cannot be read.
        """
        super().__init__(f"qdrant+edge://{path}", collection)
        self.root = Path(os.path.abspath(Path(path).expanduser()))
        self.folder = self.root / collection
        self._file = self.folder / self._settings_file
        self._lock: FileLock | None = None
        self._handle: edge.EdgeShard | None = None
        self._spec: CollectionSpec | None = None
        self._next: _Successor | None = None
        self._has_graph = False
        self._unflushed = self._untidied = 0
        self._flush_bytes = FLUSH_BYTES
        with self._errors():
            self._read_spec()

    # ---- the collection

    def _read_spec(self) -> CollectionSpec | None:
        if self._handle is None and self._file.exists():
            self._attach()
        return self._spec

    def _create(self, spec: CollectionSpec) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        self._require_space(0)
        self._hold()
        try:
            if not self._file.exists():
                self._build(spec)
        except BaseException:
            self._let_go()
            raise
        self._attach()

    def _build(self, spec: CollectionSpec) -> None:
        ignore_in_git(self.root)
        if self.folder.exists() and any(self.folder.iterdir()):
            raise StoreError(f"{self.folder} holds something else; choose another --collection or --store")
        new, _ = cleared_scratch(self.root, self.collection)
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
            settings = Settings.load(self._file)
            self._sweep()
            try:
                self._handle = edge.EdgeShard.load(str(self.folder / settings.shard))
            except Exception as error:
                raise StoreError(f"{self.folder} is damaged ({error}); delete that folder and index again") from error
            self._spec, self._has_graph = settings.spec, False
        except BaseException:
            self._let_go()
            raise

    def _hold(self) -> None:
        # The engine's own lock comes too late: loading first deletes segments it takes for unfinished ones,
        # which may be those that the holder is just writing.
        if self._lock is None:
            self._lock = FileLock(self.root / f".{self.collection}.lock", f"{self.folder}")

    def _let_go(self) -> None:
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
        spec, shard = self._existing(), self.folder / Settings.load(self._file).shard
        # Segments are rewritten beside the old ones before those go.
        self._require_space(allocated_bytes(shard))
        if not self._has_graph and needs_graph(spec, self._shard.info().points_count):
            self._shard.flush()
            self._shard.close()
            self._handle = edge.EdgeShard.load(str(shard), config_of(spec, graph=True))
            self._has_graph = True
        self._shard.optimize()
        self._shard.flush()
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
        _, old = cleared_scratch(self.root, self.collection)
        os.rename(self.folder, old)  # from here on the collection is gone, even if this run is killed
        cleared_scratch(self.root, self.collection)
        self._let_go()

    def _close(self) -> None:
        try:
            self._release_shard()
        finally:
            self._let_go()

    def _release_shard(self) -> None:
        if self._next is not None:  # it stands under this store's lock
            self._next.close()
        handle, self._handle, self._spec = self._handle, None, None
        if handle is not None:
            if self._unflushed:
                handle.flush()
                self._unflushed = 0
            handle.close()

    # ---- writing

    def _upsert(self, chunks: Sequence[CodeChunk], vectors: Vector, terms: Sequence[Sequence[str]] | None) -> None:
        size = batch_bytes(chunks, vectors.shape[1]) + sum(8 * len(words) for words in terms or ())
        self._write([edge.UpdateOperation.upsert_points(points_of(chunks, vectors, terms))], size, len(chunks))

    def _update(self, chunks: Sequence[CodeChunk]) -> None:
        operations = [edge.UpdateOperation.overwrite_payload([chunk.id], payload_of(chunk)) for chunk in chunks]
        self._write(operations, batch_bytes(chunks, 0), len(chunks))

    def _delete(self, ids: Sequence[str]) -> None:
        self._write([edge.UpdateOperation.delete_points(list(ids))], 16 * len(ids), 0)

    def _write(self, operations: Sequence[edge.UpdateOperation], size: int, rows: int) -> None:
        self._require_space(WRITE_AMPLIFICATION * size)
        for operation in operations:
            self._shard.update(operation)
        self._unflushed += size
        self._untidied += rows
        tidy = self._untidied >= TIDY_ROWS and self._is_rewritten
        if tidy:
            self._shard.optimize()
            self._untidied = 0
        if tidy or self._unflushed >= self._flush_bytes:
            self._shard.flush()
            self._unflushed = 0

    # ---- reading

    def _known(self, ids: Sequence[str]) -> set[str]:
        return {str(record.id) for record in self._shard.retrieve(list(ids), False, False)}

    def _scan(self, repository: str | None) -> Iterator[Stored]:
        for record in self._scroll(repository, SCAN_PAGE, [METADATA_FIELD], False):
            yield stored_of(str(record.id), record.payload or {})

    def _rows(self, repository: str | None) -> Iterator[Row]:
        for record in self._scroll(repository, ROWS_PAGE, True, [DENSE]):
            yield Row(chunk_of(str(record.id), record.payload or {}), _vector_of(record))

    def _scroll(
        self, repository: str | None, page: int, payload: edge.WithPayloadType, vector: edge.WithVectorType
    ) -> Iterator[edge.Record]:
        settings = Settings.load(self._file)
        if repository is None or settings.claims.keys() <= {repository}:
            read_ahead(self.folder / settings.shard)
        offset: edge.PointId | None = None
        where = ours(repository)
        while True:
            request = edge.ScrollRequest(offset, page, where, payload, vector)
            records, offset = self._shard.scroll(request)
            yield from records
            if offset is None:
                return

    def _count(self, repository: str | None) -> int:
        return self._shard.count(edge.CountRequest(exact=True, filter=ours(repository)))

    def _total(self) -> int:
        return self._shard.count(edge.CountRequest(exact=True))

    def _vectors(self, ids: Sequence[str]) -> dict[str, Vector]:
        return {str(record.id): _vector_of(record) for record in self._shard.retrieve(list(ids), False, [DENSE])}

    def _candidates(self, vector: Vector | None, terms: Sequence[str], limit: int, where: Filter) -> Candidates:
        queries = queries_of(self._existing(), vector, terms, limit, where)
        found = [
            [Hit(chunk_of(str(point.id), point.payload or {}), point.score) for point in points]
            for points in self._shard.query_batch(edge.QueryBatchRequest(queries))
        ]
        dense = found.pop(0) if vector is not None else []
        return Candidates(dense, found.pop() if found else [])

    # ---- the folder

    @property
    def _is_rewritten(self) -> bool:
        return self._spec is not None and (self._spec.analyser or self._spec.quantization) is not None

    @property
    def _shard(self) -> edge.EdgeShard:
        if self._handle is None:
            raise StoreError(f"collection {self.collection!r} of {self.url} was closed or dropped; open it again")
        return self._handle

    def _require_space(self, size: int) -> None:
        need, free = RESERVE_BYTES + size, shutil.disk_usage(self.root).free
        if free < need:
            raise StoreError(
                f"{self.root} has {free // 2**20} MiB of disk free, writing needs {need // 2**20} MiB; "
                "make room and run again, nothing written is lost"
            )

    def _sweep(self) -> None:
        sweep(self.folder)


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
        shard = Settings.load(self._file).shard
        self._release_shard()
        self._file.unlink()  # from here on there is none, even if this run is killed
        sync_folder(self.folder)
        shutil.rmtree(self.folder / shard)

    def _hold(self) -> None: ...

    def _sweep(self) -> None: ...


def _make_shard(folder: Path, spec: CollectionSpec) -> None:
    folder.mkdir(parents=True)
    shard = edge.EdgeShard.create(str(folder), config_of(spec, graph=False))
    for index in field_indexes():
        shard.update(index)
    shard.flush()
    shard.close()


def _vector_of(record: edge.Record) -> Vector:
    # At unit length when written, but halves are rounded.
    whole: Vector = unit(np.asarray([record.vector], dtype=np.float32))[0]
    return whole
