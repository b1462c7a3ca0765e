"""Qdrant Edge, the embedded default: the real engine in this process, one folder a collection.

    PATH/.gitignore             "*": the folder ignores itself
    PATH/.COLLECTION.lock       held by the one process that has the collection open
    PATH/COLLECTION/c2llm.json  the spec and the claims
    PATH/COLLECTION/shard/      the engine's own files

A collection is built under another name and renamed into place, so it is there as a whole or not at all.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from c2llm_integrations.code.chunk import CodeChunk
from c2llm_integrations.errors import StoreError
from c2llm_integrations.stores.base import VectorStore
from c2llm_integrations.stores.files import FileLock, allocated_bytes, sync_folder, write_atomically
from c2llm_integrations.stores.rows import (
    FILTER_FIELDS,
    METADATA_FIELD,
    Filter,
    Hit,
    Stored,
    Vector,
    batch_bytes,
    chunk_of,
    payload_of,
    stored_of,
)
from c2llm_integrations.stores.spec import CollectionSpec

try:
    import qdrant_edge as edge
except ImportError as error:
    raise StoreError(
        "qdrant-edge-py is not installed; run: pip install qdrant-edge-py (no wheel for this platform? "
        'pip install "c2llm-integrations[qdrant]" and use a Qdrant server)'
    ) from error

# The engine maps its files into memory and dies of SIGBUS where a full disk cannot back a page. It grows
# them in sparse steps of 32 MiB: vectors, payload, id tracker and two log segments make 160 MiB.
RESERVE_BYTES = 256 * 2**20
# A batch is written to the log, then to the segment, whose files round up.
WRITE_AMPLIFICATION = 3
# The engine logs each operation before it applies it, and the log outlives this process; only the death of the
# machine can take what was not flushed, and the next run writes that again. Flushing costs 10 to 150 ms.
FLUSH_BYTES = 16 * 2**20
# Exact search takes 5 ms on 100 MB of vectors (100,000 of 256, two cores) where building a graph takes 35 s.
# So segments under 256 MB stay exact and `optimize` only tidies; larger ones get the graph. In KB.
INDEXING_THRESHOLD_KB = 256_000
SCAN_PAGE = 2_000
SPEC_FILE = "c2llm.json"


class QdrantEdgeStore(VectorStore):
    """One collection in a folder, opened by one process at a time."""

    def __init__(self, path: str | Path, collection: str = "code") -> None:
        """Open PATH/`collection` if it exists; nothing is written if it does not.

        Raises StoreBusy if it is open elsewhere, SpecMismatch or StoreError if it cannot be read.
        """
        super().__init__(f"qdrant+edge://{path}", collection)
        self.root = Path(os.path.abspath(Path(path).expanduser()))
        self.folder = self.root / collection
        self._lock: FileLock | None = None
        self._handle: edge.EdgeShard | None = None
        self._spec: CollectionSpec | None = None
        self._unflushed = 0
        with self._errors():
            self._read_spec()

    # ---- the collection

    def _read_spec(self) -> CollectionSpec | None:
        if self._handle is None and (self.folder / SPEC_FILE).exists():
            self._attach()
        return self._spec

    def _create(self, spec: CollectionSpec) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        self._require_space(0)
        self._hold()
        try:
            self._ignore_in_git()
            if not (self.folder / SPEC_FILE).exists():
                self._build(spec)
        except BaseException:
            self._let_go()
            raise
        self._attach()

    def _build(self, spec: CollectionSpec) -> None:
        if self.folder.exists() and any(self.folder.iterdir()):
            raise StoreError(f"{self.folder} holds something else; choose another --collection or --store")
        new, _ = self._cleared_scratch()
        (new / "shard").mkdir(parents=True)
        shard = edge.EdgeShard.create(str(new / "shard"), _config(spec))
        for name in FILTER_FIELDS:
            index = edge.UpdateOperation.create_field_index(_key(name), edge.PayloadSchemaType.Keyword)
            shard.update(index)
        shard.flush()
        shard.close()
        _save_spec(new / SPEC_FILE, spec, {})
        if self.folder.exists():
            self.folder.rmdir()
        os.rename(new, self.folder)
        sync_folder(self.root)

    def _attach(self) -> None:
        self._hold()
        try:
            if not (self.folder / SPEC_FILE).exists():  # dropped since we looked
                self._let_go()
                return
            spec, _ = _load_spec(self.folder / SPEC_FILE)
            try:
                self._handle = edge.EdgeShard.load(str(self.folder / "shard"))
            except Exception as error:
                raise StoreError(f"{self.folder} is damaged ({error}); delete that folder and index again") from error
            self._spec = spec
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
        return _load_spec(self.folder / SPEC_FILE)[1]

    def _claim(self, repository: str, checkout: str) -> None:
        self._require_space(0)
        spec, claims = _load_spec(self.folder / SPEC_FILE)
        _save_spec(self.folder / SPEC_FILE, spec, {**claims, repository: checkout})

    def _optimize(self) -> None:
        # Segments are rewritten beside the old ones before those go.
        self._require_space(allocated_bytes(self.folder))
        self._shard.optimize()
        self._shard.flush()

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
        handle, self._handle, self._spec = self._handle, None, None
        if handle is not None:
            handle.flush()
            handle.close()

    # ---- writing

    def _upsert(self, chunks: Sequence[CodeChunk], vectors: Vector) -> None:
        points = [
            edge.Point(chunk.id, vector, payload_of(chunk))
            for chunk, vector in zip(chunks, vectors.tolist(), strict=True)
        ]
        self._write([edge.UpdateOperation.upsert_points(points)], batch_bytes(chunks, vectors.shape[1]))

    def _update(self, chunks: Sequence[CodeChunk]) -> None:
        operations = [edge.UpdateOperation.overwrite_payload([chunk.id], payload_of(chunk)) for chunk in chunks]
        self._write(operations, batch_bytes(chunks, 0))

    def _delete(self, ids: Sequence[str]) -> None:
        self._write([edge.UpdateOperation.delete_points(list(ids))], 16 * len(ids))

    def _write(self, operations: Sequence[edge.UpdateOperation], size: int) -> None:
        self._require_space(WRITE_AMPLIFICATION * size)
        for operation in operations:
            self._shard.update(operation)
        self._unflushed += size
        if self._unflushed >= FLUSH_BYTES:
            self._shard.flush()
            self._unflushed = 0

    # ---- reading

    def _known(self, ids: Sequence[str]) -> set[str]:
        return {str(record.id) for record in self._shard.retrieve(list(ids), False, False)}

    def _scan(self, repository: str | None) -> Iterator[Stored]:
        offset: edge.PointId | None = None
        where = _ours(Filter(repositories=() if repository is None else (repository,)))
        while True:
            request = edge.ScrollRequest(
                offset=offset, limit=SCAN_PAGE, filter=where, with_payload=[METADATA_FIELD], with_vector=False
            )
            records, offset = self._shard.scroll(request)
            for record in records:
                yield stored_of(str(record.id), record.payload or {})
            if offset is None:
                return

    def _count(self, repository: str | None) -> int:
        where = _ours(Filter(repositories=() if repository is None else (repository,)))
        return self._shard.count(edge.CountRequest(exact=True, filter=where))

    def _vectors(self, ids: Sequence[str]) -> dict[str, Vector]:
        records = self._shard.retrieve(list(ids), False, True)
        return {str(record.id): np.asarray(record.vector, dtype=np.float32) for record in records}

    def _search(self, vector: Vector, limit: int, where: Filter) -> list[Hit]:
        request = edge.QueryRequest(
            query=edge.Query.Nearest(vector.tolist()), limit=limit, filter=_ours(where), with_payload=True
        )
        points = self._shard.query(request)
        return [Hit(chunk_of(str(point.id), point.payload or {}), point.score) for point in points]

    # ---- the folder

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


def _is_ours(child: Path) -> bool:
    made = child.name.startswith((".new-", ".old-", ".gitignore.")) or child.suffix == ".lock"
    return made or (child / SPEC_FILE).exists()


def _config(spec: CollectionSpec) -> edge.EdgeConfig:
    # Payload stays on disk and vectors in mapped files, so resident memory is what the system can spare.
    return edge.EdgeConfig(
        vectors=edge.EdgeVectorParams(size=spec.width, distance=edge.Distance.Cosine, memory=edge.Memory.Cached),
        payload_memory=edge.Memory.Cold,
        optimizers=edge.EdgeOptimizersConfig(indexing_threshold=INDEXING_THRESHOLD_KB),
    )


def _key(name: str) -> str:
    return f"{METADATA_FIELD}.{name}"


def _ours(where: Filter) -> edge.Filter:
    """Return the engine's filter: the asked conditions, and never a row that somebody else wrote."""
    must: list[Any] = [
        edge.FieldCondition(_key(name), match=edge.MatchAny(values)) for name, values in where.conditions().items()
    ]
    must_not: list[Any] = [edge.IsEmptyCondition(_key(name)) for name in ("repository", "path")]
    return edge.Filter(must=must, must_not=must_not)


def _load_spec(file: Path) -> tuple[CollectionSpec, dict[str, str]]:
    try:
        data = json.loads(file.read_text("utf-8"))
        return CollectionSpec.from_json(json.dumps(data["spec"])), dict(data["claims"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise StoreError(
            f"{file} cannot be read ({type(error).__name__}: {error}); delete {file.parent} and index again"
        ) from error


def _save_spec(file: Path, spec: CollectionSpec, claims: dict[str, str]) -> None:
    data = {"spec": json.loads(spec.to_json()), "claims": claims}
    write_atomically(file, json.dumps(data, indent=1, sort_keys=True) + "\n")
