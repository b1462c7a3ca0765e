"""Index any records as the rows of a source: embed new ones, update changed metadata, delete missing ones.

Each row keeps a digest of its text and its metadata, and nothing else is remembered. So an unchanged record is neither
embedded nor written, and a killed run continues where it stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain, islice, zip_longest
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from c2llm_integrations._utils.progress import Progress, shown
from c2llm_integrations.errors import InputError
from c2llm_integrations.indexing.claims import claim_records, require_alone, require_records
from c2llm_integrations.indexing.ingest import fill_and_replace, spec_for
from c2llm_integrations.indexing.options import RecordOptions
from c2llm_integrations.indexing.record_readers import Item, Names, how_many, read_items, vector_of, why_unusable
from c2llm_integrations.indexing.report import RecordsReport
from c2llm_integrations.indexing.row_diff import Change, KeySet, StoredDigests
from c2llm_integrations.indexing.write_changes import (
    BATCH_CHARS,
    BATCH_GIVEN,
    BATCH_RECORDS,
    Refuse,
    Work,
    embed_rows,
    fill,
    write_changes,
)
from c2llm_integrations.stores.backend import require_parts
from c2llm_integrations.stores.bulk_loader import Loader
from c2llm_integrations.stores.filter import value_of
from c2llm_integrations.stores.ids import RecordId, checked_row_id, row_id, why_id_refused
from c2llm_integrations.stores.records import PreparedRecord, Record, Row, is_chunk
from c2llm_integrations.stores.row_checks import refused_records
from c2llm_integrations.stores.row_fields import plain_record
from c2llm_integrations.stores.spec import CollectionSpec, CompactPlan
from c2llm_integrations.stores.vector_store import VectorStore

if TYPE_CHECKING:
    from c2llm_integrations.indexing.options import Transform, Vectors
    from c2llm_integrations.model.fingerprint import DocumentEmbedder


_TAKEN = "the id is that of a row which this source did not write; use ids that are other strings"


def ingest_records(
    records: Any,
    embedder: DocumentEmbedder | None,
    store: VectorStore,
    *,
    source: str,
    text: str = "text",
    id: str | None = "id",
    compact: CompactPlan | None = None,
    long_text: str | None = None,
    fields: Mapping[str, str] | None = None,
    delete_missing: bool = False,
    replace: bool = False,
    batch_size: int | None = None,
    progress: Progress | bool | None = None,
    refused: str | Path | None = None,
    transform: Transform | None = None,
    vectors: Vectors | None = None,
) -> RecordsReport:
    """Make the store hold these records of a source, and say what that took.

    A record without changes costs nothing but its comparison; one with other metadata is updated in place; one with
    another text is embedded again. A run that was killed is continued by running it again. A record that cannot be
    stored is refused with its reason, and the others are stored. Everything written is verified.

    Args:
        records: Any iterable (a generator is read as it goes) of mappings, `Record`s, `Row`s, LangChain documents or
            LlamaIndex nodes; a `datasets.Dataset`, an Arrow table or a polars data frame; the path of a .jsonl,
            .jsonl.gz or .parquet file.
        embedder: What embeds the texts, a `C2LLMEmbedder` or, on a cluster, a `RayEmbedder`; None if `vectors` are
            given.
        store: Where the rows go.
        source: The name of the set that the records are from, the same in every run. What another source, a
            repository or another program wrote is not touched.
        text: The field of a mapping that is embedded. What is not the text, the id or the vector is metadata.
        id: The field that tells records apart; UUIDs and unsigned integers become the rows' ids as they are. None, or
            a record without one: its text decides.
        compact: How vectors are stored; None keeps what the collection has.
        long_text: "refuse" or "cut", for a text over the store's byte limit. None keeps what the collection has.
        fields: Field of the metadata → its kind, for fields that filters use (see `CollectionSpec`); a record with
            another kind of value is refused. None keeps what the collection has.
        delete_missing: Delete the rows of this source that are not among `records`, after all others are stored.
        replace: Fill a new collection, for another model, plan or kinds of fields, which takes the old one's place once
            it is complete. Until then, and if a record is refused or the run killed, the old one serves, and the next
            such run continues. Nothing of the old one is kept, so no other source may be in it.
        batch_size: Records embedded and stored together; by default 256, or 1,024 with `vectors`. Long texts make
            batches smaller.
        progress: Called with (records done, records or None, source); True draws a bar on a terminal. A record counts
            once it is compared: up to two batches of them may not be stored yet.
        refused: File that gets one JSON object per record that could not be stored.
        transform: Called with each record as it is in `records`; returns what to store, or None to leave it out.
        vectors: Vectors made elsewhere, in the order of the records (after `transform` has left some out), or the
            name of the field that holds each record's. A record whose text has not changed keeps its vector.

    Raises:
        InputError: What is given holds no records, or an option cannot be used.
        RepositoryError: The source is a repository of this collection, or `replace` would drop other sources.
        SpecMismatch: The collection was made with another model, or otherwise than `compact` says.
        StoreError: The store failed, does not hold what it acknowledged, or another run writes the same source.

    """
    require_parts(embedder, store)
    with shown(progress) as report:
        options = RecordOptions(
            text=text,
            id=id,
            compact=compact,
            long_text=long_text,
            fields=fields,
            delete_missing=delete_missing,
            replace=replace,
            batch_size=batch_size,
            progress=report,
            refused=None if refused is None else Path(refused),
            transform=transform,
            vectors=vectors,
        )
        return ingest_records_with(records, embedder, store, source, options)


def ingest_records_with(
    records: Any, embedder: DocumentEmbedder | None, store: VectorStore, source: str, options: RecordOptions
) -> RecordsReport:
    """Do what `ingest_records` does, its options as one object."""
    begin = perf_counter()
    items = _items(records, source, options)
    require_records(source, store)
    is_first = store.spec is None
    spec, items = _spec(items, embedder, store, options)

    def fill_store(store: VectorStore, is_new: bool) -> RecordsReport:
        require_mine = claim_records(source, store)
        run = _Run(source, store, spec, options, embedder, is_new=is_new)
        run.total = how_many(records)
        return run.write_and_verify(items, require_mine)

    if is_first or not options.replace:
        report = fill_store(store, store.create(spec))
    else:
        require_alone([source], store)
        report = fill_and_replace(fill_store, store, spec, source, partial(require_alone, [source], store))
    report.seconds = perf_counter() - begin
    return report


def plan_records(
    records: Any, embedder: DocumentEmbedder | None, store: VectorStore | None, source: str, options: RecordOptions
) -> RecordsReport:
    """Return what `ingest_records` would do, without changing anything; `store=None`: with an empty one."""
    begin = perf_counter()
    items = _items(records, source, options)
    spec = None
    if store is not None:
        require_records(source, store)
        if options.replace:
            require_alone([source], store)
        spec, items = _spec(items, embedder, store, options)
        store.capabilities.require(spec)
        if not options.replace and (held := store.spec) is not None:
            held.require_same(spec)
    run = _Run(source, store, spec, options, embedder, is_new=options.replace)
    run.total, run.is_dry = how_many(records), True
    report = run.report

    def refuse(_: Sequence[Record], reasons: Mapping[Any, str]) -> None:
        for id, why in reasons.items():
            report.refuse(id, f"{source}: {id}: {why}")

    for _, change in run.changes(items, refuse):
        report.written += change is Change.NEW
    report.deleted, report.stored = len(run.gone()), len(run.stored)
    report.seconds = perf_counter() - begin
    _note_if_all_refused(report)
    return report


def _note_if_all_refused(report: RecordsReport) -> None:
    if report.refused_count and not report.written + report.unchanged + report.updated:
        first = next(iter(report.refused.values()))
        report.notes.insert(0, f"nothing is stored of {report.records:,} records: each was refused, such as {first}")


def _items(records: Any, source: str, options: RecordOptions) -> Iterator[Item]:
    """Return the records with their vectors, after a look at the options."""
    if not isinstance(source, str) or not source:
        raise InputError(f"source is {source!r:.60}; name the set that the records are from, such as 'answers'")
    if why := why_id_refused(source):
        raise InputError(f"source cannot be used: {why}")
    if options.batch_size is not None and options.batch_size < 1:
        raise InputError(f"batch_size is {options.batch_size}, must be at least 1")
    field = options.vectors if isinstance(options.vectors, str) else None
    items = read_items(records, Names(options.text, options.id, field), source, options.transform)
    return items if options.vectors is None or field is not None else _with_vectors(items, options.vectors)


def _with_vectors(items: Iterator[Item], vectors: Iterable[Any]) -> Iterator[Item]:
    end: Any = object()
    for number, (item, vector) in enumerate(zip_longest(items, vectors, fillvalue=end)):
        if vector is end:
            raise InputError(f"there are only {number} vectors for more records; give one for each, in the same order")
        if item is end:
            raise InputError("there are more vectors than records; give one for each, in the same order")
        item.vector = vector
        yield item


def _spec(
    items: Iterator[Item], embedder: DocumentEmbedder | None, store: VectorStore, options: RecordOptions
) -> tuple[CollectionSpec, Iterator[Item]]:
    """Return the spec to ask for, and all items: without an embedder, the first vector decides a new one's width."""
    old = store.spec
    held = None if options.replace else old
    if embedder is not None:
        width, fingerprint = embedder.output_dim, embedder.fingerprint
    else:
        first = list(islice(items, 1))
        vector: Any = vector_of(first[0].vector) if first else None
        width = len(vector) if np.ndim(vector) == 1 else 0
        may_lack_one = held is not None and (not first or first[0].problem or options.vectors is not None)
        if not width and not may_lack_one:
            raise InputError(
                "neither an embedder nor vectors are given; give an embedder, or lists of numbers with vectors="
            )
        items = chain(first, items)
        width, fingerprint = (width, {}) if held is None else (held.width, held.fingerprint)
    if held is not None or old is None:
        spec = spec_for(width, fingerprint, store, options, held)
        return replace(spec, fields={**spec.fields, **(options.fields or {})}), items
    plan, long_text = options.compact or replace(old.plan, output_dim=None), options.long_text or old.long_text
    spec = spec_for(width, fingerprint, store, replace(options, compact=plan, long_text=long_text), None)
    return replace(spec, fields=old.fields if options.fields is None else options.fields, index=old.index), items


def _batch(items: Iterator[Item], size: int) -> list[Item]:
    """Return the next items: `size` of them, fewer of long texts or lines."""
    batch: list[Item] = []
    chars = 0
    for item in islice(items, size):
        batch.append(item)
        chars += max(item.size, len(item.text) if isinstance(item.text, str) else 0)
        if chars >= BATCH_CHARS:
            break
    return batch


class _Run:
    """One run over the records of a source."""

    def __init__(
        self,
        source: str,
        store: VectorStore | None,
        spec: CollectionSpec | None,
        options: RecordOptions,
        embedder: DocumentEmbedder | None,
        *,
        is_new: bool = False,
    ) -> None:
        holds_rows = None if is_new else store
        self.report = RecordsReport(source)
        self.stored = StoredDigests(() if holds_rows is None else holds_rows.scan(source=source))
        self._source = source
        self._store = store
        self._spec = spec
        self._is_new = is_new
        self._options = options
        self.total: int | None = None  # records, where that is known
        self.is_dry = False  # whether nothing will be written
        self._embedder = embedder
        # Ids that are neither UUIDs nor numbers are the source's own; the others may be taken.
        self._shared = holds_rows is not None and holds_rows.total() > len(self.stored)
        self._seen = KeySet()
        self._copies: dict[RecordId, int] = {}
        self._vectors: dict[RecordId, Any] = {}
        self._unnamed = 0
        # Fields that were named and that no record has had yet.
        self._unseen = {*(options.fields or ()), *((options.id,) if options.id not in (None, "id") else ())}

    def write_and_verify(self, items: Iterator[Item], require_mine: Callable[[], None]) -> RecordsReport:
        """Compare, write, verify, delete, verify again; `require_mine` raises once another run has the source."""
        store, report, embedder = self._store, self.report, self._embedder
        assert store is not None
        tokens, cut = (embedder.tokens_seen, embedder.texts_cut) if embedder else (0, 0)

        def write(loader: Loader) -> None:
            write_changes(self.changes(items, loader.refuse), partial(self._rows, loader), loader, self._size)

        def gone() -> list[RecordId]:
            if left := self.gone():
                require_mine()
            return left

        work = Work(report.source, self.stored, write, gone, self._is_new, embedder is not None)
        fill(work, store, report, bulk=self._is_new or store.total() == 0, refused=self._options.refused)
        if embedder:
            report.tokens, report.cut = embedder.tokens_seen - tokens, embedder.texts_cut - cut
        require_mine()
        _note_if_all_refused(report)
        return report

    def gone(self) -> list[RecordId]:
        """Return the rows to delete, if asked for and known for certain; raises InputError if that would be all.

        A collection that takes another one's place may hold what an earlier run, killed or refused, has begun.
        """
        if self._options.replace and not self.report.records:
            raise InputError(
                f"there are no records, and replacing would leave nothing of {self._source!r}; "
                "was the generator used up? To empty the source, delete its rows"
            )
        if not (self._options.delete_missing or self._options.replace):
            return []
        if self._unnamed:
            self.report.notes.append(
                f"nothing was deleted: {self._unnamed} records have no usable id, each could be any of the rows"
            )
            return []
        if not self.report.records and len(self.stored):
            raise InputError(
                f"there are no records, and delete_missing would delete all {len(self.stored)} rows of "
                f"{self._source!r}; was the generator used up? To empty the source, delete its rows"
            )
        return list(self.stored.left())

    # ---- one batch after another

    @property
    def _size(self) -> int:
        given = self._options.vectors is not None or self._embedder is None
        return self._options.batch_size or (BATCH_GIVEN if given else BATCH_RECORDS)

    def changes(self, items: Iterator[Item], refuse: Refuse[Record]) -> Iterator[tuple[Record, Change]]:
        """Yield the records to act on; `refuse(records, id → reason)` gets those that cannot be stored."""
        while batch := _batch(items, self._size):
            if self._options.progress is not None:
                self._options.progress(self.report.records, self.total, self._source)
            self.report.records += len(batch)
            self._look(batch)
            yield from self._compared([checked for item in batch if (checked := self._checked(item, refuse))], refuse)
        if self.report.records:
            missing = "no record has the field {!r}; check the name"
            self.report.notes += map(missing.format, sorted(self._unseen))

    def _look(self, batch: list[Item]) -> None:
        """Cross out the named fields that a record has."""
        for item in batch if self._unseen else ():
            if item.id is not None:
                self._unseen.discard(self._options.id or "")
            if isinstance(item.metadata, Mapping):
                self._unseen = {name for name in self._unseen if value_of(item.metadata, name) is None}

    def _compared(self, records: list[PreparedRecord], refuse: Refuse[Record]) -> Iterator[tuple[Record, Change]]:
        changes = self.stored.take([one.key for one in records], [one.digest for one in records])
        new = [one.key for one, change in zip(records, changes, strict=True) if change is None]
        taken = self._store.known(new) if new and self._store is not None and self._shared else ()
        refused = self._refused(records, changes)
        refused |= dict.fromkeys((key for key in new if key in taken), _TAKEN)
        for record, change in zip(records, changes, strict=True):
            why = refused.get(record.key)
            if why is not None or change in (Change.NONE, Change.MOVED):  # its vector is not stored
                self._vectors.pop(record.key, None)
            if why is not None:
                refuse([record], {record.id: why})
            elif change is Change.NONE:
                self.report.unchanged += 1
            else:
                self.report.updated += change is Change.MOVED
                yield record, change or Change.NEW

    def _checked(self, item: Item, refuse: Refuse[Record]) -> PreparedRecord | None:
        """Return an item as a record, None after refusing it; `_vectors` gets the vector that came with it."""
        id, why = item.id, item.problem or (None if item.id is None else why_id_refused(item.id))
        if why is not None:
            self._unnamed += 1
            id = item.where
        elif (why := why_unusable(item.text, item.metadata, self._options.text)) is None:
            id = self._from_content(item.text) if id is None else id
            found = self._compared_with_run(id, item)
            if isinstance(found, PreparedRecord):
                if item.vector is not None:
                    self._vectors[found.key] = item.vector
                return found
            why = found
        named = Record(item.where if id is None else id, "", {}, self._source)
        if item.id is not None and id is not item.where:
            self.stored.take_all([named.row_id])  # it is still there, though not as it was
        refuse([named], {named.id: why})
        return None

    def _compared_with_run(self, id: RecordId, item: Item) -> PreparedRecord | str:
        """Return a record that can be stored beside those before it, or why it cannot."""
        key = checked_row_id(self._source, id)
        if not self._seen.add(key):
            return "the id came before in this run; only the first is stored"
        if item.vector is None and self._embedder is None:
            return "it has no vector, and there is no embedder"
        plain = plain_record(id, str(item.text), item.metadata, self._source, key)  # NumPy's strings too
        if not isinstance(plain, str) and is_chunk(plain):
            return f"its metadata is that of a chunk of repository {self._source!r}; choose another source name"
        return plain

    def _from_content(self, text: str) -> RecordId:
        first = row_id(self._source, None, text)
        if first not in self._seen:
            return first
        self._copies[first] = copies = self._copies.get(first, 0) + 1
        return row_id(self._source, None, text, copies)

    def _rows(self, loader: Loader, records: list[Record]) -> list[Row]:
        """Return the rows of new records, with their own vectors where they have some."""
        given = [(record, self._vectors.pop(record.row_id, None)) for record in records]
        rows = [Row(record, vector_of(vector)) for record, vector in given if vector is not None]
        rest = [record for record, vector in given if vector is None]
        return rows + embed_rows(rest, self._embedder, loader.refuse) if self._embedder else rows

    def _refused(self, records: list[PreparedRecord], changes: list[Change | None]) -> dict[RecordId, str]:
        """Return key → reason for what the store would refuse, before it is embedded, which takes longest."""
        if self._store is None or self._spec is None:
            return {}
        changed = [
            one
            for one, change in zip(records, changes, strict=True)
            # What comes with its vector costs nothing before it is written, and is checked then.
            if change is Change.MOVED or (change is None and (self.is_dry or one.key not in self._vectors))
        ]
        limit = None if self._spec.long_text == "cut" else self._store.capabilities.max_text_bytes
        return {changed[place].key: why for place, why in refused_records(changed, limit, self._spec.fields).items()}
