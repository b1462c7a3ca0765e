"""Apply the changes of a source to its rows: write new ones, verify them, delete stale ones, count the rest.

Repositories and other records both use it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from c2llm_integrations.errors import InputError, StoreError
from c2llm_integrations.indexing.row_diff import Change, StoredKeys
from c2llm_integrations.stores.bulk_loader import Loader
from c2llm_integrations.stores.ids import RecordId
from c2llm_integrations.stores.records import AnyRecord, PreparedRecord, Row
from c2llm_integrations.stores.vector_store import VectorStore

if TYPE_CHECKING:
    from c2llm_integrations.indexing.report import RunReport
    from c2llm_integrations.model.fingerprint import DocumentEmbedder

# Records in one batch, which a killed run may have to embed again; more if they come with vectors.
BATCH_RECORDS, BATCH_GIVEN = 256, 1_024
# Characters of texts or metadata after which a batch ends early, so that large records do not take more memory.
BATCH_CHARS = 8 * 2**20

_Record = TypeVar("_Record", bound=AnyRecord)
Refuse = Callable[[Sequence[_Record], Mapping[Any, str]], None]


@dataclass(frozen=True)
class Work:
    """The work of a run for one source.

    `before`: its rows at first; `write(loader)` writes what is new or changed; `gone()` then names the rows to delete.
    `is_new`: the collection was made for this run. To ask for rows would make a Milvus server load it, and let go of
    it to fill it: four seconds. `embeds`: whether vectors are made while others are stored.
    """

    source: str
    before: StoredKeys
    write: Callable[[Loader], None]
    gone: Callable[[], Sequence[RecordId]]
    is_new: bool
    embeds: bool = True


def fill(work: Work, store: VectorStore, report: RunReport, *, bulk: bool, refused: Path | None) -> None:
    """Write, verify, delete, and verify again; `report` gets what was done with the rows.

    `bulk`: most rows are still to be written, so the index is built once all are there; `refused`: as for `load`.
    """
    is_first_load = work.is_new or (bulk and store.total() == 0)
    loader = Loader(store, report, refused=refused, waits=not work.embeds)
    with store.bulk() if bulk else nullcontext(), loader:
        work.write(loader)
    keys = loader.keys()
    rows = len(work.before) + len(keys) - work.before.among(keys)  # the rows before, and those written that are new
    # All rows are counted faster than those of a source.
    found = loader.verify(rows, None if is_first_load else work.source)
    stale = work.gone()
    store.delete(stale)
    if stale or not bulk:  # else leaving `bulk` has just done it
        store.optimize()
    rows -= len(stale)
    if stale or found != rows:  # counting may take as long as a scan
        require_count(store, work.source, rows)
    report.deleted, report.stored = len(stale), rows


def write_changes(
    changes: Iterable[tuple[_Record, Change]],
    make_rows: Callable[[list[_Record]], list[Row]],
    loader: Loader,
    size: int | None = None,
) -> None:
    """Send new records to be written and moved ones to be updated, in batches."""
    size = size or BATCH_RECORDS
    new: list[_Record] = []
    moved: list[_Record] = []
    chars = 0
    for record, change in changes:
        (new if change is Change.NEW else moved).append(record)
        chars += max(len(record.text), record.json_bytes if isinstance(record, PreparedRecord) else 0)
        if len(new) == size or len(moved) == size or chars >= BATCH_CHARS:
            loader.add(make_rows(new))
            loader.update(moved)
            new, moved, chars = [], [], 0
    loader.add(make_rows(new))
    loader.update(moved)


def embed_rows(records: Sequence[_Record], embedder: DocumentEmbedder, refuse: Refuse[_Record]) -> list[Row]:
    """Return the rows of records, without those that cannot be embedded; `refuse(records, id → reason)` gets these."""
    if not records:
        return []
    try:
        vectors = embedder.encode_documents([record.text for record in records])
    except InputError as error:
        if len(records) == 1:
            refuse(records, {records[0].id: str(error)})
            return []
        middle = len(records) // 2
        return embed_rows(records[:middle], embedder, refuse) + embed_rows(records[middle:], embedder, refuse)
    return [Row(record, vector) for record, vector in zip(records, vectors, strict=True)]


def require_count(store: VectorStore, source: str, expected: int) -> None:
    """Raise StoreError unless the store holds this many rows of a source."""
    found = store.count(source=source)
    if found != expected:
        raise StoreError(
            f"{store.collection!r} holds {found} rows of {source!r} where {expected} were acknowledged; "
            "run the command again, and check who else writes there"
        )
