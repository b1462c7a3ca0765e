"""Collections that other programs made: read and searched by their own field names, never changed."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from c2llm_integrations.code.lexical_terms import ANALYZER
from c2llm_integrations.errors import InputError, StoreError
from c2llm_integrations.stores import Location
from c2llm_integrations.stores.filter import Filter
from c2llm_integrations.stores.ids import RecordId, listed_ids
from c2llm_integrations.stores.records import AnyRecord, Candidates, Hit, Record, RecordIterator, Vector
from c2llm_integrations.stores.row_fields import Stored, stored_of, unit
from c2llm_integrations.stores.spec import CollectionSpec
from c2llm_integrations.stores.vector_store import VectorStore


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The names of the fields in a collection that another program made.

        open_store("qdrant+http://localhost:6333", "docs", layout=Layout(text="content", vector="dense"))

    Args:
        text: The field that holds a row's text.
        id: The field that holds a row's id; None for the database's own.
        vector: The name of the dense vector; "" for a Qdrant collection's only, unnamed one.
        sparse: The sparse vector or field for lexical search: in Qdrant one that `C2LLMSparseEmbeddings` made, in
            Milvus one with a BM25 function; None for dense search only.
        metadata: The field that holds the metadata as a mapping; None if every other field is metadata.
        fields: Qdrant only: {"created": "datetime"} for each field that filters compare with moments.

    """

    text: str = "page_content"
    id: str | None = None
    vector: str = ""
    sparse: str | None = None
    metadata: str | None = "metadata"
    fields: Mapping[str, str] = field(default_factory=dict)


def _refuse(store: VectorStore, *_: object, **__: object) -> NoReturn:
    raise StoreError(
        f"collection {store.collection!r} of {store.url} was not made by this package and is only read; "
        "write into another one"
    )


_REFUSED: Any = _refuse


class ForeignStore(VectorStore):
    """A collection that somebody else made. Whatever would change it raises StoreError."""

    layout: Layout
    _declaring = "open it with a Layout that has"
    # Whether a row was seen to have each field of the layout.
    _fits = False

    # ---- what a database implements

    @abstractmethod
    def _width(self) -> int | None:
        """Return the width of the vectors, None if the collection is missing; InputError for a wrong layout."""

    @abstractmethod
    def _read(self, where: Filter, vectors: bool) -> RecordIterator:
        """Yield the records that match, with their vectors as they are stored if asked for."""

    @abstractmethod
    def _with_ids(self, ids: Sequence[RecordId], vectors: bool) -> RecordIterator:
        """Yield what `_read` does for the records of these ids."""

    @abstractmethod
    def _row(self, where: Filter) -> Mapping[str, Any] | None:
        """Return all fields of one row, among which `where` chooses by the outermost names, or None."""

    @abstractmethod
    def _counted(self, where: Filter) -> int: ...

    @abstractmethod
    def _nearest(self, vector: Vector, limit: int, where: Filter) -> Iterable[tuple[AnyRecord, Vector]]: ...

    @abstractmethod
    def _lexical(self, terms: Sequence[str], limit: int, where: Filter) -> list[Hit]: ...

    # ---- reading

    def get(self, ids: Iterable[RecordId] | RecordId, *, source: str | None = None) -> dict[RecordId, AnyRecord]:
        """See `VectorStore.get`."""
        return {record.id: record for record, _ in self._ids(ids, vectors=False)}

    def known(self, ids: Iterable[RecordId] | RecordId, *, source: str | None = None) -> set[RecordId]:
        """See `VectorStore.known`."""
        return set(self.get(ids))

    def vectors(self, ids: Iterable[RecordId] | RecordId, *, source: str | None = None) -> dict[RecordId, Vector]:
        """See `VectorStore.vectors`."""
        return {record.id: unit(vector) for record, vector in self._ids(ids, vectors=True) if vector is not None}

    def _ids(self, ids: Iterable[RecordId] | RecordId, *, vectors: bool) -> list[tuple[AnyRecord, Vector | None]]:
        found = listed_ids(ids)
        with self._open():
            return list(self._with_ids(found, vectors)) if found and self._read_spec() is not None else []

    def _read_spec(self) -> CollectionSpec | None:
        width = self._width()
        if width is None:
            return None
        self._fits = self._fits or self._require_fields()
        analyzer = None if self.layout.sparse is None else ANALYZER
        return CollectionSpec(width, {}, analyzer=analyzer, fields=self.layout.fields)

    def _require_fields(self) -> bool:
        """Return whether rows have the layout's fields, False while there are no rows; InputError if none has one."""
        layout = self.layout
        for what, name in (("text", layout.text), ("id", layout.id), ("metadata", layout.metadata)):
            if name is None or name in (self._row(Filter({name: {"exists": True}})) or ()):
                continue
            row = self._row(Filter())
            if row is None:
                return False
            if name not in row:  # else it is there, and empty
                way_out = ", metadata=None if each field is metadata of its own" if what == "metadata" else ""
                raise InputError(
                    f"no row of collection {self.collection!r} has a field {name!r} for {what}, only {sorted(row)}; "
                    f"name it in the Layout{way_out}"
                )
        return True

    def _count(self, where: Filter, source: str | None) -> int:
        return self._counted(where) if source is None else 0

    def _total(self) -> int:
        return self._counted(Filter())

    def _rows(self, where: Filter, source: str | None, *, vectors: bool = False) -> RecordIterator:
        return self._read(where, vectors) if source is None else iter(())

    def _scan(self, where: Filter, source: str | None) -> Iterator[Stored]:
        return (stored_of(record.id, record.metadata) for record, _ in self._rows(where, source))

    def _candidates(self, vector: Vector | None, terms: Sequence[str], limit: int, where: Filter) -> Candidates:
        # Whatever distance the collection has, a score is the cosine.
        dense = []
        if vector is not None:
            found = self._nearest(vector, limit, where)
            dense = [Hit(record, float(vector @ unit(other))) for record, other in found]
        return Candidates(
            sorted(dense, key=lambda hit: -hit.score), self._lexical(terms, limit, where) if terms else []
        )

    def _completed(self, found: Candidates, vector: Vector, terms: Sequence[str]) -> Candidates:
        """Add to the nearest rows those of the lexical list, which stays: its engine scores no chosen rows."""
        near = {hit.record.id for hit in found.dense}
        far = [hit.record.id for hit in found.lexical if hit.record.id not in near]
        rows = self._with_ids(far, vectors=True) if far else ()
        dense = [Hit(record, float(vector @ unit(other))) for record, other in rows if other is not None]
        return Candidates([*found.dense, *sorted(dense, key=lambda hit: -hit.score)], found.lexical)

    def _claims(self) -> dict[str, str]:
        return {}

    @classmethod
    def list_collections(cls, at: Location) -> list[str]:
        """Return an empty list: no collection here is ours."""
        return []

    # ---- what is refused

    create = claim = optimize = bulk = successor = replace_by = drop = upsert = update = delete = _REFUSED
    # What those would call, and what this class reads by `_with_ids`.
    _create = _claim = _optimize = _successor = _replace = _drop = _upsert = _update = _delete = _REFUSED
    _written_fields = _get = _vectors = _REFUSED


def foreign_record(layout: Layout, id: RecordId, fields: Mapping[str, Any]) -> Record:
    """Return a row's fields as a record."""
    outside = {layout.text, layout.id}
    metadata = fields.get(layout.metadata) if layout.metadata else None
    if not isinstance(metadata, Mapping):
        metadata = {name: value for name, value in fields.items() if name not in outside}
    own, text = id if layout.id is None else fields.get(layout.id, id), fields.get(layout.text)
    return Record(own, text if isinstance(text, str) else "", metadata)
