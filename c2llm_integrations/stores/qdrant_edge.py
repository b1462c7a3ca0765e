"""Qdrant Edge, the embedded default: the real engine in this process, one folder a collection.

    PATH/.gitignore             "*": the folder ignores itself
    PATH/.COLLECTION.lock       held by the one process that has the collection open
    PATH/COLLECTION/c2llm.json  the spec, the claims and the name of the shard's folder
    PATH/COLLECTION/shard/      the engine's own files
    PATH/COLLECTION/next.json   the same of the collection that is to take this one's place, in shard-2/ beside it

A collection is built under another name and renamed into place, so it is there as a whole or not at all; renaming
next.json to c2llm.json replaces it. Shards that neither file names were left by a killed run and are swept.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from c2llm_integrations.code.chunk import CodeChunk
from c2llm_integrations.errors import StoreError
from c2llm_integrations.stores.base import VectorStore
from c2llm_integrations.stores.edge_types import (
    DATATYPES,
    DENSE,
    QUANTIZATIONS,
    config_of,
    edge,
    field_indexes,
    needs_graph,
    ours,
    points_of,
    queries_of,
)
from c2llm_integrations.stores.files import FileLock, allocated_bytes, sync_folder, write_atomically
from c2llm_integrations.stores.rows import (
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
SCAN_PAGE, ROWS_PAGE = 2_000, 500
SPEC_FILE, NEXT_FILE = "c2llm.json", "next.json"

_SHARD = re.compile(r"shard(?:-([0-9]{1,9}))?")


@dataclass(frozen=True, slots=True)
class _Settings:
    """What c2llm.json or next.json holds."""

    spec: CollectionSpec
    claims: dict[str, str]
    shard: str = "shard"

    @classmethod
    def load(cls, file: Path) -> _Settings:
        try:
            data = json.loads(file.read_text("utf-8"))
            shard = data.get("shard", "shard")
            if not _SHARD.fullmatch(shard):
                raise ValueError(f"shard {shard!r}")
            return cls(CollectionSpec.from_json(json.dumps(data["spec"])), dict(data["claims"]), shard)
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            spoilt = file if file.name == NEXT_FILE else file.parent
            raise StoreError(
                f"{file} cannot be read ({type(error).__name__}: {error}); delete {spoilt} and index again"
            ) from error

    def save(self, file: Path) -> None:
        data = {"spec": json.loads(self.spec.to_json()), "claims": self.claims, "shard": self.shard}
        write_atomically(file, json.dumps(data, indent=1, sort_keys=True) + "\n")


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
        self._ignore_in_git()
        if self.folder.exists() and any(self.folder.iterdir()):
            raise StoreError(f"{self.folder} holds something else; choose another --collection or --store")
        new, _ = self._cleared_scratch()
        settings = _Settings(spec, {})
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
            settings = _Settings.load(self._file)
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
        return _Settings.load(self._file).claims

    def _claim(self, repository: str, checkout: str) -> None:
        self._require_space(0)
        settings = _Settings.load(self._file)
        replace(settings, claims={**settings.claims, repository: checkout}).save(self._file)

    def _defer(self) -> None:
        self._flush_bytes = BULK_FLUSH_BYTES

    def _restore(self) -> None:
        self._flush_bytes = FLUSH_BYTES

    def _optimize(self) -> None:
        spec, shard = self._existing(), self.folder / _Settings.load(self._file).shard
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
        _, old = self._cleared_scratch()
        os.rename(self.folder, old)  # from here on the collection is gone, even if this run is killed
        self._cleared_scratch()
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
        """Delete the shards that neither settings file names; only while no shard is open."""
        files = [file for name in (SPEC_FILE, NEXT_FILE) if (file := self.folder / name).exists()]
        named = {_Settings.load(file).shard for file in files}
        for child in self.folder.iterdir():
            if _SHARD.fullmatch(child.name) and child.name not in named:
                shutil.rmtree(child)

    def _cleared_scratch(self) -> tuple[Path, Path]:
        """Return where to build and where to take apart, after removing what a killed run left there."""
        new, old = (self.root / f".{kind}-{self.collection}" for kind in ("new", "old"))
        for folder in (new, old):
            if folder.exists():
                shutil.rmtree(folder)
        return new, old

    def _ignore_in_git(self) -> None:
        """Write `.gitignore`, but only into a folder that holds nothing but ours."""
        ignore = self.root / ".gitignore"
        if not ignore.exists() and all(_is_ours(child) for child in self.root.iterdir()):
            write_atomically(ignore, "*\n")


class _Successor(QdrantEdgeStore):
    """What is to take a collection's place, in its folder and under the lock of the store that made this one."""

    _settings_file = NEXT_FILE

    def _build(self, spec: CollectionSpec) -> None:
        number = int((_SHARD.fullmatch(_Settings.load(self.folder / SPEC_FILE).shard) or [0, 0])[1] or 1)
        settings = _Settings(spec, {}, f"shard-{number + 1}")
        if (self.folder / settings.shard).exists():
            shutil.rmtree(self.folder / settings.shard)
        _make_shard(self.folder / settings.shard, spec)
        settings.save(self._file)

    def _drop(self) -> None:
        if self._read_spec() is None:
            return
        shard = _Settings.load(self._file).shard
        self._release_shard()
        self._file.unlink()  # from here on there is none, even if this run is killed
        sync_folder(self.folder)
        shutil.rmtree(self.folder / shard)

    def _hold(self) -> None: ...

    def _sweep(self) -> None: ...


def list_collections(path: str | Path) -> list[str]:
    """Return the names of the collections in a folder, sorted; a missing folder has none."""
    found = (file.parent.name for file in Path(path).expanduser().glob(f"*/{SPEC_FILE}"))
    return sorted(name for name in found if not name.startswith("."))


def _is_ours(child: Path) -> bool:
    made = child.name.startswith((".new-", ".old-", ".gitignore.")) or child.suffix in (".lock", ".states")
    return made or (child / SPEC_FILE).exists()


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
