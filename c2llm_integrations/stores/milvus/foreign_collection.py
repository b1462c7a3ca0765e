"""A Milvus collection that somebody else made."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from pymilvus import DataType, MilvusClient

from c2llm_integrations._utils.retry import retrying
from c2llm_integrations.errors import InputError
from c2llm_integrations.stores import Location
from c2llm_integrations.stores.bounded_pages import bounded_pages
from c2llm_integrations.stores.filter import Filter, leaves
from c2llm_integrations.stores.foreign_collection import ForeignStore, Layout, foreign_record
from c2llm_integrations.stores.ids import RecordId
from c2llm_integrations.stores.milvus import collections
from c2llm_integrations.stores.milvus.collections import STRONG
from c2llm_integrations.stores.milvus.errors import pause_after, reason
from c2llm_integrations.stores.milvus.filter import Column, foreign_expression, literal
from c2llm_integrations.stores.milvus.schema import id_from, vector_from
from c2llm_integrations.stores.records import AnyRecord, Hit, RecordIterator, Vector
from c2llm_integrations.stores.row_checks import require

PAGE = 1_000
# The kinds of vectors whose cosines can be computed here.
_COMPARED = (DataType.FLOAT_VECTOR, DataType.FLOAT16_VECTOR)


class ForeignMilvusStore(ForeignStore):
    """A collection behind a `MilvusClient`, read under the names of its layout."""

    _declaring = "only collections made here can: copy the rows into one that has"

    def __init__(
        self,
        client: MilvusClient,
        collection: str,
        layout: Layout,
        *,
        url: str = "the given Milvus client",
        owned: bool = False,
    ) -> None:
        """`url` is what messages call the database; an `owned` client is closed with the store."""
        require(client, MilvusClient, "a MilvusClient")
        super().__init__(url, collection)
        _require_no_moments(layout)
        self.layout = layout
        self._client = client
        self._release: Callable[[], object] = client.close if owned else lambda: None
        self._schema: dict[str, Any] = {}  # once it was read
        self._has_fixed_fields = False  # whether rows have the fields of the schema only

    @classmethod
    def open(cls, at: Location, layout: Layout | None = None) -> ForeignMilvusStore:
        """Return a store at a location: a server's address or the folder of a local database."""
        layout = layout or Layout()
        _require_no_moments(layout)  # before anything is opened
        if at.place.startswith(("http://", "https://")):
            client, _ = collections.connect(at.place, at.key)
            return cls(client, at.collection, layout, url=f"milvus+{at.place}", owned=True)
        from c2llm_integrations.stores.milvus.lite import acquire, release, resolved

        folder = resolved(at.place)
        client = acquire(folder)
        store = cls(client, at.collection, layout, url=f"milvus+lite://{at.place}")
        store._release = lambda: release(folder, client)
        return store

    def _width(self) -> int | None:
        if not self._schema:
            described = collections.described(self._client, self.collection)
            if described is None:
                return None
            fields = {one["name"]: one for one in described["fields"]}
            layout = self.layout
            for what, name in (("vector", layout.vector), ("sparse", layout.sparse), ("id", layout.id)):
                if name is not None and name not in fields:
                    raise InputError(
                        f"collection {self.collection!r} has no field {name!r} for {what}, only {sorted(fields)}; "
                        "name it in the Layout"
                    )
            if (kind := DataType(fields[layout.vector]["type"])) not in _COMPARED:
                raise InputError(
                    f"field {layout.vector!r} of collection {self.collection!r} is a {kind.name}, must be "
                    f"{' or '.join(one.name for one in _COMPARED)}; name such a field in the Layout, or load the texts "
                    "into a collection made here"
                )
            collections.call(self._client, "load_collection", self.collection)
            self._schema, self._has_fixed_fields = fields, not described.get("enable_dynamic_field")
        return int(self._schema[self.layout.vector]["params"]["dim"])

    @property
    def _columns(self) -> dict[str, Column]:
        return {name: _column(field) for name, field in self._schema.items()}

    @property
    def _key(self) -> str:
        return next(name for name, field in self._schema.items() if field.get("is_primary"))

    @property
    def _output(self) -> list[str]:
        names = [name for name, one in self._schema.items() if not DataType(one["type"]).name.endswith("_VECTOR")]
        return [*names, "$meta"]

    def _read(self, where: Filter, vectors: bool) -> RecordIterator:
        return self._pages(self._chosen(where), vectors)

    def _with_ids(self, ids: Sequence[RecordId], vectors: bool) -> RecordIterator:
        field = self._schema.get(self.layout.id or self._key)
        is_text = field is None or field["type"] == DataType.VARCHAR
        wanted = [str(id) if is_text else id for id in ids if is_text or isinstance(id, int)]
        if not wanted:
            return iter(())
        return self._pages(f"{self.layout.id or self._key} in [{', '.join(map(literal, wanted))}]", vectors)

    def _pages(self, where: str, vectors: bool) -> RecordIterator:
        output = [*self._output, *([self.layout.vector] if vectors else [])]
        pages = self._call("query_iterator", batch_size=PAGE, filter=where, output_fields=output, **STRONG)
        rows = iter(lambda: retrying(pages.next, pause_after), [])
        try:
            for row in bounded_pages(self, ((some, some[-1][self._key]) for some in rows)):
                yield self._pair(row[self._key], row)
        finally:
            pages.close()

    def _row(self, where: Filter) -> Mapping[str, Any] | None:
        if self._unknown(where):
            return None
        chosen = foreign_expression(where, self._key, self._columns, None)
        found = self._call("query", filter=chosen, limit=1, output_fields=self._output, **STRONG)
        return found[0] if found else None

    def _counted(self, where: Filter) -> int:
        [found] = self._call("query", filter=self._chosen(where), output_fields=["count(*)"], **STRONG)
        return int(found["count(*)"])

    def _nearest(self, vector: Vector, limit: int, where: Filter) -> Iterable[tuple[AnyRecord, Vector]]:
        output = [*self._output, self.layout.vector]
        is_half = self._schema[self.layout.vector]["type"] == DataType.FLOAT16_VECTOR
        asked = vector.astype(np.float16) if is_half else vector
        hits = self._search(asked, self.layout.vector, limit, where, output)
        return [(record, vector) for record, vector in map(self._found, hits) if vector is not None]

    def _lexical(self, terms: Sequence[str], limit: int, where: Filter) -> list[Hit]:
        hits = self._search(" ".join(terms), self.layout.sparse or "", limit, where, self._output)
        # Milvus Lite returns BM25 as a distance.
        return [Hit(self._found(hit)[0], abs(hit["distance"])) for hit in hits]

    def _search(self, query: Any, field: str, limit: int, where: Filter, output: list[str]) -> Any:
        options = {"anns_field": field, "limit": limit, "filter": self._chosen(where), "output_fields": output}
        return self._call("search", data=[query], **options, **STRONG)[0]

    def _unknown(self, where: Filter) -> list[str]:
        """Return the fields of a filter that no row can have."""
        keys = {one.key for one in leaves(where.condition)} if self._has_fixed_fields else set()
        return sorted(key for key in keys if key.partition(".")[0] not in self._schema)

    def _chosen(self, where: Filter) -> str:
        unknown = self._unknown(where) if self.layout.metadata is None else []
        if unknown:
            raise InputError(
                f"collection {self.collection!r} has no field {unknown[0]!r} to filter by, only {sorted(self._schema)}"
            )
        return foreign_expression(where, self._key, self._columns, self.layout.metadata)

    def _found(self, hit: Any) -> tuple[AnyRecord, Vector | None]:
        return self._pair(hit.get("id", hit.get(self._key)), hit["entity"])

    def _pair(self, key: Any, row: dict[str, Any]) -> tuple[AnyRecord, Vector | None]:
        vector = row.get(self.layout.vector)
        inner = {name: value for name, value in row.items() if name not in (self.layout.vector, self._key)}
        if self.layout.id == self._key:
            inner[self._key] = key
        id = id_from(key) if isinstance(key, str) else int(key)
        return foreign_record(self.layout, id, inner), None if vector is None else vector_from(vector)

    def _call(self, method: str, **options: Any) -> Any:
        return collections.call(self._client, method, self.collection, **options)

    def _close(self) -> None:
        self._release()

    _reason = staticmethod(reason)


def _require_no_moments(layout: Layout) -> None:
    if "datetime" in layout.fields.values():
        raise InputError("Milvus compares moments only in collections made here; leave fields out of the Layout")


def _column(field: Mapping[str, Any]) -> Column:
    is_list = field["type"] == DataType.ARRAY
    held = DataType(field["element_type"] if is_list else field["type"]).name
    kind = int if held.startswith("INT") else {"VARCHAR": str, "BOOL": bool, "FLOAT": float, "DOUBLE": float}.get(held)
    return Column(kind, is_list, is_there=f"{field['name']} is not null" if field.get("nullable") else "")
