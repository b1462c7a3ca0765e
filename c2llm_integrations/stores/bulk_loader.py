"""Write batches of rows into a store while the caller makes the next ones.

What the store refuses is set aside, with its reason, and the rest is stored; afterwards the store's own count and
some vectors read back are compared with what was meant.
"""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Self

from c2llm_integrations._utils.files import naming, require_output
from c2llm_integrations._utils.json_lines import MAX_LINE_BYTES, parse_row
from c2llm_integrations.errors import BatchRefused, InputError, RowsRefused, StoreError
from c2llm_integrations.stores.ids import RecordId, packed, unpacked
from c2llm_integrations.stores.records import AnyRecord, Row, Vector, chunk_of, is_chunk
from c2llm_integrations.stores.row_checks import hashable
from c2llm_integrations.stores.row_fields import parts, unit
from c2llm_integrations.stores.vector_store import VectorStore

# Vectors read back after a load. Each must be what was sent up to the rounding of float16, which at unit length costs
# less than 1e-6; every engine gives back full vectors, whatever codes it searches.
VERIFIED = 32
MIN_COSINE = 0.999
# Refused rows that a report names: of millions, each would take memory, and the file of refused rows has all.
KEPT_REFUSED = 1_000

_Item = TypeVar("_Item", Row, AnyRecord)


@dataclass(kw_only=True)
class LoadReport:
    """What became of the rows of one load.

    `shortened`: texts cut at the store's byte limit; `refused`: of the first `KEPT_REFUSED` refused ones, record id →
    its place and why it is not in the store; `refused_count`: how many were refused in all.
    """

    written: int = 0
    shortened: int = 0
    refused: dict[Any, str] = field(default_factory=dict)
    refused_count: int = 0
    seconds: float = 0.0

    def refuse(self, id: Any, why: str, kept: int | None = KEPT_REFUSED) -> None:
        """Count a refused row, and name it if it is among the first `kept`."""
        self.refused_count += 1
        if kept is None or len(self.refused) < kept:
            self.refused[id] = why


def load(batches: Iterable[Sequence[Row]], store: VectorStore, *, refused: str | Path | None = None) -> LoadReport:
    """Write batches of rows into an existing collection, as they come, and verify that it holds them.

        with store.bulk():
            report = load(batches, store)

    Args:
        batches: Rows, in lists of some hundred. An id may occur in one batch only.
        store: An open store whose collection exists.
        refused: File that gets one JSON object per row that could not be stored; that of an earlier load is replaced.

    Raises:
        StoreError: The store fails, or does not hold what it acknowledged.
        InputError: `refused` is a file of another kind, or its folder is missing.

    """
    begin = perf_counter()
    before, report = store.total(), LoadReport()
    with Loader(store, report, refused=None if refused is None else Path(refused)) as loader:
        for rows in batches:
            loader.add(rows)
    loader.verify(before + len(loader.keys()))
    report.seconds = perf_counter() - begin
    return report


def clear_refused(file: Path) -> None:
    """Delete the file of refused rows of an earlier run; raises InputError for any other, which somebody may need."""
    if file.is_symlink():
        file.unlink()  # the link alone
    elif file.exists() or not file.absolute().parent.is_dir():
        require_output(file)
        if not _was_filed(file):
            raise InputError(f"{file} exists and is not a file of refused rows; name another one for them")
        file.unlink()
    # A missing one may lie where nothing can be written: it is needed only if a row is refused.


def _was_filed(file: Path) -> bool:
    with file.open("rb") as opened:
        first = opened.readline(MAX_LINE_BYTES)
    try:
        return not first or "reason" in parse_row(first, str(file))
    except InputError:  # a run that was killed may have left a part of its first line
        return first.startswith(b'{"id": ') and not first.endswith(b"\n")


class Loader:
    """Writes batches with as many threads as the store takes; leaving its `with` block waits until all is written.

    As many batches again may wait; then `add` and `update` do. An error of the store is raised by the next call, or
    at the end, and drops what waits. However the block is left, what was acknowledged is in `report` and stored.
    """

    def __init__(
        self,
        store: VectorStore,
        report: LoadReport | None = None,
        *,
        refused: Path | None = None,
        kept: int | None = KEPT_REFUSED,
        waits: bool = False,
    ) -> None:
        """`report` is filled as rows are stored; `refused` is that of `load`; `kept`: how many refused rows to name.

        `waits`: `add` and `update` return once a batch is stored, if the store is one of this process. Its writing and
        the making of the next batch only take Python's lock from each other, unless an embedder works outside of it.
        """
        uploads = store.capabilities.uploads
        self._waits = waits and uploads == 1
        self.report = LoadReport() if report is None else report
        self._store = store
        self._refused = refused
        self._kept = kept
        self._ids = bytearray()
        self._sample: dict[RecordId, Vector] = {}
        self._random = random.Random(0)
        self._lock = threading.Lock()
        self._error: BaseException | None = None
        self._room = threading.Semaphore(2 * uploads)
        self._threads = ThreadPoolExecutor(uploads, "c2llm-loader")
        if refused is not None:
            clear_refused(refused)

    def add(self, rows: Sequence[Row]) -> None:
        """Queue rows for writing, in one call of `upsert` unless some are refused; do not change them afterwards."""
        if len(rows):
            self._put(lambda: self._send(list(rows), self._upsert))

    def update(self, records: Sequence[AnyRecord]) -> None:
        """Queue records whose rows exist: everything but their vectors is written."""
        if len(records):
            self._put(lambda: self._send(list(records), self._store.update))

    def keys(self) -> NDArray[np.bytes_]:
        """Return the packed ids of the rows that were acknowledged, each once, in order."""
        return np.unique(np.frombuffer(self._ids, "S16"))

    def verify(self, expected: int, source: str | None = None) -> int:
        """Compare what the store holds now with what was written; `expected`: rows (of a source) there should be.

        Return how many there are.

        If there are not, because rows were overwritten or others write too, every id is looked up. Some vectors are
        read back. Raises StoreError for what is missing or different.
        """
        found = self._store.total() if source is None else self._store.count(source=source)
        keys = self.keys()
        ids = [] if found == expected else list(map(unpacked, keys))
        missing = [id for part in parts(ids) for id in sorted(set(part) - self._store.known(part), key=str)]
        if missing:
            raise StoreError(
                f"{self._store.collection!r} holds {found} rows, expected {expected}; of {len(keys)} that it "
                f"acknowledged it lacks {len(missing)}, such as {missing[0]}; run again, check who else writes there"
            )
        self.verify_sample()
        return found

    def verify_sample(self) -> None:
        """Read some of the written vectors back; raises StoreError for one that is missing or different."""
        held = self._store.vectors(list(self._sample))
        for key, sent in self._sample.items():
            if key not in held:
                raise StoreError(f"row {key} was acknowledged but cannot be read back; run the command again")
            cosine = float(unit(sent) @ held[key])
            if not cosine >= MIN_COSINE:
                raise StoreError(
                    f"row {key} reads back with cosine {cosine:.4f} to what was sent, expected at least {MIN_COSINE}; "
                    "the store is damaged or another model writes to it"
                )

    def refuse(self, records: Iterable[AnyRecord], reasons: Mapping[Any, str]) -> None:
        """Report and file those records whose id has a reason as refused."""
        self._refuse((record, reasons[record.id]) for record in records if record.id in reasons)

    def _refuse(self, refused: Iterable[tuple[AnyRecord, str]]) -> None:
        filed: list[str] = []
        for record, why in refused:
            place, line = f"{record.source}: {record.id}", {"id": record.id, "source": record.source}
            if is_chunk(record):
                chunk = chunk_of(record)
                lines = f"{chunk.start_line}-{chunk.end_line}"
                place, line = f"{chunk.path}:{lines}", {"id": chunk.id, "repository": chunk.repository}
                line |= {"path": chunk.path, "lines": lines, "symbol": chunk.symbol}
            with self._lock:
                self.report.refuse(hashable(record.id), f"{place}: {why}", self._kept)
            filed.append(json.dumps({**line, "reason": why}, default=repr) + "\n")
        if self._refused is not None and filed:
            with self._lock, naming(self._refused), open(self._refused, "a", encoding="ascii") as file:
                file.writelines(filed)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        self._threads.shutdown()
        if error is None and self._error is not None:
            raise self._error

    def _put(self, task: Callable[[], None]) -> None:
        if self._error is None:
            self._room.acquire()
            done = self._threads.submit(self._work, task)
            if self._waits:
                done.result()
        if self._error is not None:
            raise self._error

    def _work(self, task: Callable[[], None]) -> None:
        try:
            if self._error is None:  # else drop it
                task()
        except BaseException as error:
            self._error = error
        finally:
            self._room.release()

    def _send(self, items: list[_Item], call: Callable[[list[_Item]], None]) -> None:
        """Call with as many of the items as the store takes; set the others aside."""
        try:
            call(items)
        except RowsRefused as refusal:
            self._refuse((_record(items[place]), why) for place, why in refusal.places.items())
            if good := [item for place, item in enumerate(items) if place not in refusal.places]:
                self._send(good, call)
        except BatchRefused as refusal:
            if len(items) == 1:
                self._refuse([(_record(items[0]), str(refusal))])
                return
            middle = len(items) // 2
            self._send(items[:middle], call)
            self._send(items[middle:], call)

    def _upsert(self, rows: list[Row]) -> None:
        shortened = self._store.upsert(rows)
        with self._lock:
            self.report.shortened += shortened
            for row in rows:
                id = row.record.row_id
                self._ids += packed(id)
                self.report.written += 1
                self._choose(id, row.vector)

    def _choose(self, id: RecordId, vector: Vector) -> None:
        """A reservoir: every row of the load is equally likely to be read back."""
        if len(self._sample) >= VERIFIED and id not in self._sample:
            place = int(self._random.random() * self.report.written)
            if place >= VERIFIED:
                return
            del self._sample[list(self._sample)[place]]
        self._sample[id] = vector.copy()  # a view would keep its whole batch


def _record(item: Row | AnyRecord) -> AnyRecord:
    return item.record if isinstance(item, Row) else item
