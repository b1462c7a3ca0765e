"""Shared by both Qdrant stores: a record as a payload; vectors and filters in either client's types.

    {"page_content": text, "metadata": {…}}                       a chunk; LangChain's own store reads these names
    {…, "c2llm_source": "answers", "c2llm_digest": "…"}           any other record of ours

After the digest, each behind a quote, stand the names of the fields that we wrote, and behind two quotes the record's
id, where the row could not have it: digest"language"votes""doc-17. Rows of earlier releases have the names in
"c2llm_fields" and the id in "c2llm_id".

Fields that others add, to the payload or to the metadata, are kept by every update and come back with the record.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from c2llm_integrations._utils.json_lines import parse_json
from c2llm_integrations.code.lexical_terms import sparse, sparse_query
from c2llm_integrations.stores.backend import Gone, Terms
from c2llm_integrations.stores.filter import All, AnyOf, Condition, Exists, Filter, Not, Period, Range
from c2llm_integrations.stores.ids import RecordId
from c2llm_integrations.stores.records import (
    MAX_EXACT_INTEGER,
    AnyRecord,
    Candidates,
    Hit,
    RecordIterator,
    Vector,
    digest_of,
    is_chunk,
)
from c2llm_integrations.stores.row_fields import OwnField, Stored, field_names, made_of, stored_of
from c2llm_integrations.stores.spec import CollectionSpec
from c2llm_integrations.stores.vector_store import VectorStore

Vectors = NDArray[np.floating[Any]]  # rounded ones are float64
Fields = bool | list[str]  # True for the whole payload, or the names of its fields to read

METADATA_FIELD = "metadata"
# A row's vectors; the dense one has no name, as the frameworks' own stores expect.
DENSE, LEXICAL = "", "lexical"
# The fields of a chunk that are asked for most.
FILTER_FIELDS = ("repository", "language", "path", "kind")
# What a listing reads of each row: everything but the text.
LISTED = [METADATA_FIELD, OwnField.SOURCE, OwnField.DIGEST]
# What says which fields of a row we wrote.
NAMED = [OwnField.DIGEST, OwnField.FIELDS]
# Quantization → what Qdrant calls the bits of its codes: "bits1_5", in Edge `Bits1_5` and `OneAndHalfBits`.
TURBO = {"turbo8": "bits8", "turbo": "bits4", "turbo2": "bits2", "turbo1.5": "bits1_5", "turbo1": "bits1"}
BINARY = {"binary2": "two_bits", "binary1.5": "one_and_half_bits", "binary": "one_bit"}


def payload_of(record: AnyRecord) -> dict[str, Any]:
    """Return what is written of a record beside its vectors."""
    payload: dict[str, Any] = {OwnField.TEXT: record.text, METADATA_FIELD: dict(record.metadata)}
    if not is_chunk(record):
        payload[OwnField.SOURCE] = record.source
        # One string, since Edge takes 3 µs for each, and more for a list; no name of a field is empty or holds a quote.
        digest = digest_of(record) + _names_of(tuple(record.metadata))
        payload[OwnField.DIGEST] = digest if record.id == record.row_id else f'{digest}""{record.id}'
    return payload


@lru_cache(256)  # most records of a source have the same fields
def _names_of(fields: tuple[str, ...]) -> str:
    return '"' + '"'.join(sorted(fields))


def record_of(id: Any, payload: Mapping[str, Any] | None) -> AnyRecord:
    """Read back what `payload_of` wrote, or as much as there is of what another program wrote."""
    payload = payload or {}
    metadata = payload.get(METADATA_FIELD)
    if not isinstance(metadata, Mapping):
        metadata = {name: value for name, value in payload.items() if name != OwnField.TEXT}
    # An update cannot write null, which removes the field there.
    metadata = {**metadata, **{name: None for name in written_fields(payload) if name not in metadata}}
    text = payload.get(OwnField.TEXT)
    if text is None and "_node_content" in payload:  # LlamaIndex keeps a node, text included, as JSON
        with suppress(ValueError, TypeError):
            node = parse_json(payload["_node_content"])
            text = node.get("text") if isinstance(node, dict) else None
    text = text if isinstance(text, str) else ""
    _, own = _behind_digest(payload)
    return made_of(point_id(id), text, metadata, payload if own is None else {**payload, OwnField.ID: own})


def _behind_digest(payload: Mapping[str, Any]) -> tuple[list[str] | None, str | None]:
    """Return the names of fields and the id that `payload_of` put behind the digest, None for what is not there."""
    digest = payload.get(OwnField.DIGEST)
    _, mark, rest = digest.partition('"') if isinstance(digest, str) else ("", "", "")
    names, has_id, id = rest.partition('""')
    return [name for name in names.split('"') if name] if mark else None, id if has_id else None


def written_fields(payload: Mapping[str, Any] | None) -> Sequence[str]:
    """Return the fields of the metadata that we wrote, as `payload_of` keeps them."""
    payload = payload or {}
    found, _ = _behind_digest(payload)
    if found is not None:
        return found
    names = payload.get(OwnField.FIELDS) or []
    return names.split('"') if isinstance(names, str) else field_names(names)


def point_id(id: Any) -> RecordId:
    """Return a row's id, however a client spells it."""
    return id if isinstance(id, int) else str(id)


def listed_of(id: Any, payload: Mapping[str, Any] | None) -> Stored:
    """Read back a row without its text."""
    payload = payload or {}
    metadata = payload.get(METADATA_FIELD)
    digest = payload.get(OwnField.DIGEST)
    digest = digest.partition('"')[0] if isinstance(digest, str) else ""
    return stored_of(point_id(id), metadata if isinstance(metadata, Mapping) else {}, digest)


def key_of(name: str, prefix: tuple[str, ...] = (METADATA_FIELD,)) -> str:
    """Return where a field of the metadata lies in a payload; "a.b" is in the mapping in "a"."""
    return ".".join([*prefix, *map(quoted, name.split("."))])


def quoted(name: str) -> str:
    """Return the name of one field as a path in a payload takes it."""
    return name if name.isidentifier() and name.isascii() else f'"{name}"'


def indexed(spec: CollectionSpec) -> dict[str, str]:
    """Return key of the payload → the kind of index it gets (`spec.FIELD_KINDS`)."""
    kinds = {**dict.fromkeys(FILTER_FIELDS, "keyword"), **spec.fields}
    if spec.tenant is None:
        kinds["repository"] = "tenant"
    return {**{key_of(name): kind for name, kind in kinds.items()}, OwnField.SOURCE: "keyword"}


class Types(NamedTuple):
    """What filters and searches are made of: the client's module, and what the two clients make differently.

    `request(vector, using, limit, filter, params, with_payload)` is one search, `has_ids(ids)` a condition on the row,
    `point(id, vector, payload)` a row. Of rows that exist, `move(pairs)` replaces the vectors, `remove(id, keys)` takes
    keys out of a payload, and `put(id, fields, key)` writes fields below a key of it, None for the outermost ones.
    """

    client: Any
    Range: Any
    Period: Any
    boolean: Callable[[bool], Any]
    request: Callable[..., Any]
    has_ids: Callable[[Sequence[RecordId]], Any]
    point: Callable[[RecordId, Any, dict[str, Any]], Any]
    move: Callable[[Sequence[tuple[RecordId, Any]]], Any]
    remove: Callable[[RecordId, list[str]], Any]
    put: Callable[[RecordId, dict[str, Any], str | None], Any]
    prefix: tuple[str, ...] = (METADATA_FIELD,)  # where the metadata lies in a payload


def vectors_of(client: Any, vectors: Vectors | None, terms: Terms, *, as_arrays: bool = False) -> Iterator[Any]:
    """Yield the vectors of each row as points take them: dense, lexical or both; nothing where there are none.

    `as_arrays`: dense ones stay arrays, which the client in memory takes under their name.
    """
    # One at a time stays in the processor's cache: half the time of all at once.
    dense = (vector if as_arrays else vector.tolist() for vector in vectors) if vectors is not None else None
    if terms is None:
        return ({DENSE: numbers} for numbers in dense) if dense and as_arrays else dense or iter(())
    lexical = (client.SparseVector(indices=indices, values=values) for indices, values in sparse(terms))
    if dense is None:
        return ({LEXICAL: words} for words in lexical)
    return ({DENSE: numbers, LEXICAL: words} for numbers, words in zip(dense, lexical, strict=True))


def points_of(
    types: Types, records: Sequence[AnyRecord], vectors: Vectors, terms: Terms, *, as_arrays: bool = False
) -> list[Any]:
    """Return rows as points; `vectors`: (len(records), width); `as_arrays`: see `vectors_of`."""
    made = vectors_of(types.client, vectors, terms, as_arrays=as_arrays)
    return [types.point(one.row_id, vector, payload_of(one)) for one, vector in zip(records, made, strict=True)]


def updates_of(
    types: Types, records: Sequence[AnyRecord], vectors: Vectors | None, terms: Terms, gone: Gone
) -> list[Any]:
    """Return the operations that overwrite our fields of rows and leave those of others: see `Backend._update`.

    A row's digest is written last, so that it does not claim what a kill left out.
    """
    # No vectors stand for those that stay.
    moved = list(zip((one.row_id for one in records), vectors_of(types.client, vectors, terms), strict=False))
    operations = [types.move(moved)] if moved else []
    for record, names in zip(records, gone, strict=True):
        id, payload = record.row_id, payload_of(record)
        if names:
            operations.append(types.remove(id, [f"{METADATA_FIELD}.{quoted(name)}" for name in names]))
        operations.append(types.put(id, payload.pop(METADATA_FIELD), METADATA_FIELD))
        operations.append(types.put(id, payload, None))
    return operations


def lexical_query(client: Any, terms: Sequence[str]) -> Any:
    """Return the terms of a question as Qdrant compares them with those of the rows."""
    indices, values = sparse_query(terms)
    return client.SparseVector(indices=indices, values=values)


def search_params(client: Any, spec: CollectionSpec) -> Any:
    """Return how codes are rescored, in a client's own types; None where there are no codes."""
    if spec.quantization is None:
        return None
    rescore = client.QuantizationSearchParams(rescore=spec.rescore > 0, oversampling=spec.rescore or None)
    return client.SearchParams(quantization=rescore)


def ours(types: Types, where: Filter, source: str | None) -> Any:
    """Return what only rows of this package (of one source) match, and of those the ones that a filter chooses."""
    chunk = types.client.Filter(
        must=[] if source is None else [_match(types, key_of("repository"), [source])],
        must_not=[
            _is_empty(types, key_of("repository")),
            _is_empty(types, key_of("path")),
            _is_there(types, OwnField.SOURCE),
        ],
    )
    record = _is_there(types, OwnField.SOURCE) if source is None else _match(types, OwnField.SOURCE, [source])
    chosen = [_condition(types, where.condition)] if where else []
    return types.client.Filter(should=[chunk, record], must=chosen)


def filter_of(types: Types, where: Filter) -> Any:
    """Return a filter in a client's own types; None if it restricts nothing."""
    return _condition(types, All((where.condition,))) if where else None


def _condition(types: Types, condition: Condition) -> Any:
    if isinstance(condition, All):
        return types.client.Filter(must=[_condition(types, one) for one in condition.conditions])
    if isinstance(condition, AnyOf):
        if not condition.conditions:  # an empty `should` restricts nothing
            return _match(types, OwnField.SOURCE, [])
        return types.client.Filter(should=[_condition(types, one) for one in condition.conditions])
    if isinstance(condition, Not):
        return types.client.Filter(must_not=[_condition(types, condition.condition)])
    key = key_of(condition.key, types.prefix)
    if isinstance(condition, Exists):
        return _is_there(types, key)
    if isinstance(condition, Range):
        # A range would look into lists; "key[]" is empty for whatever is not one.
        bounds = types.client.FieldCondition(key=key, range=types.Range(**condition.bounds))
        return types.client.Filter(must=[bounds, _is_empty(types, f"{key}[]")])
    if isinstance(condition, Period):
        moments = {name: bound.isoformat() for name, bound in condition.bounds.items()}
        return types.client.FieldCondition(key=key, range=types.Period(**moments))
    return _in(types, key, condition.values)


def _in(types: Types, key: str, values: Sequence[str | float]) -> Any:
    strings = [value for value in values if isinstance(value, str)]
    others = [_equal(types, key, value) for value in values if not isinstance(value, str)]
    if not others:
        return _match(types, key, strings)
    return types.client.Filter(should=[_match(types, key, strings), *others])


def _equal(types: Types, key: str, value: float) -> Any:
    if isinstance(value, bool) or (isinstance(value, int) and abs(value) > MAX_EXACT_INTEGER):
        plain = types.boolean(value) if isinstance(value, bool) else value
        return types.client.FieldCondition(key=key, match=types.client.MatchValue(value=plain))
    return types.client.FieldCondition(key=key, range=types.Range(gte=value, lte=value))  # 5 is 5.0 too


def _match(types: Types, key: str, values: Sequence[str]) -> Any:
    return types.client.FieldCondition(key=key, match=types.client.MatchAny(any=list(values)))


def _is_empty(types: Types, key: str) -> Any:
    return types.client.FieldCondition(key=key, is_empty=True)


def _is_there(types: Types, key: str) -> Any:
    return types.client.Filter(must_not=[_is_empty(types, key)])


# ---- what both stores read alike


class PointReader(VectorStore):
    """A store that reads points."""

    _types: ClassVar[Types]

    @abstractmethod
    def _retrieve(self, ids: Sequence[RecordId], payload: Fields, vectors: bool = False) -> Iterable[Any]:
        """Return the points of those of `ids` that are there."""

    @abstractmethod
    def _scroll(self, where: Filter, source: str | None, payload: Fields, vectors: bool = False) -> Iterator[Any]:
        """Yield the points of our rows, as `Backend._rows` does."""

    @abstractmethod
    def _found(self, requests: list[Any]) -> list[Any]:
        """Return the points that each of these searches finds."""

    def _known(self, ids: Sequence[RecordId]) -> Iterable[RecordId]:
        return {point_id(one.id) for one in self._retrieve(ids, False)}

    def _written_fields(self, ids: Sequence[RecordId]) -> Mapping[RecordId, Sequence[str]]:
        return {point_id(one.id): written_fields(one.payload) for one in self._retrieve(ids, NAMED)}

    def _get(self, ids: Sequence[RecordId]) -> Iterable[AnyRecord]:
        return (record_of(one.id, one.payload) for one in self._retrieve(ids, True))

    def _vectors(self, ids: Sequence[RecordId]) -> dict[RecordId, Vector]:
        found = self._retrieve(ids, False, vectors=True)
        return {point_id(one.id): _dense(one.vector) for one in found if one.vector}  # others may write none

    def _scan(self, where: Filter, source: str | None) -> Iterator[Stored]:
        return (listed_of(one.id, one.payload) for one in self._scroll(where, source, LISTED))

    def _rows(self, where: Filter, source: str | None, *, vectors: bool = False) -> RecordIterator:
        for one in self._scroll(where, source, True, vectors):
            yield record_of(one.id, one.payload), _dense(one.vector) if vectors else None

    def _candidates(self, vector: Vector | None, terms: Sequence[str], limit: int, where: Filter) -> Candidates:
        types, requests = self._types, []
        rows = filter_of(types, where)
        if vector is not None:
            params = search_params(types.client, self._existing())
            requests.append(types.request(vector.tolist(), DENSE, limit, rows, params, with_payload=True))
        if terms:
            query = lexical_query(types.client, terms)
            requests.append(types.request(query, LEXICAL, limit, rows, with_payload=True))
        lists = [[Hit(record_of(one.id, one.payload), one.score) for one in found] for found in self._found(requests)]
        dense = lists.pop(0) if vector is not None else []
        return Candidates(dense, lists[0] if lists else [])

    def _lexical_scores(self, terms: Sequence[str], ids: Sequence[RecordId]) -> Mapping[RecordId, float]:
        types = self._types
        rows = types.client.Filter(must=[types.has_ids(ids)])
        [found] = self._found([types.request(lexical_query(types.client, terms), LEXICAL, len(ids), rows)])
        return {point_id(one.id): one.score for one in found}


def pages(
    read: Callable[[Any, int], tuple[Sequence[Any], Any]],
    rows: int,
    is_too_large: Callable[[Exception], bool] = lambda error: False,
) -> Iterator[tuple[Sequence[Any], Any]]:
    """Yield the points of one page after another, and the next offset; too large ones are read again in halves.

    `read(offset, rows)` returns so many points from an offset on, None at first, and the next offset, None at the end.
    """
    offset, is_last = None, False
    while not is_last:
        try:
            points, following = read(offset, rows)
        except Exception as error:
            if rows == 1 or not is_too_large(error):
                raise
            rows //= 2
            continue
        yield points, following
        offset, is_last = following, following is None


def _dense(vector: Any) -> Vector:
    """Return the dense vector of a point, however its client spells it."""
    return np.asarray(vector[DENSE] if isinstance(vector, dict) else vector, np.float32)
