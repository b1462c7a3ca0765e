"""The schema of a Milvus collection of ours, rows to records and back, and what each kind of Milvus can do.

| field | type | default | |
|---|---|---|---|
| id | VARCHAR(128) | | primary key |
| vector | FLOAT_VECTOR or FLOAT16_VECTOR | | cosine |
| page_content | VARCHAR | "" | the text |
| repository | VARCHAR | "" | indexed on servers, partition key from 2.4 on |
| path, language | VARCHAR | "" | indexed on servers |
| symbol, kind | VARCHAR | "" | |
| start_line, end_line | INT64 | 0 | |
| c2llm_source | VARCHAR | "" | of a record that is not a chunk: ":" and its source |
| the tenant's | VARCHAR | "" | only with a tenant: indexed on servers, partition key there in place of repository |
| terms | VARCHAR | "" | only with an analyzer: words of the text, for `lexical` |
| lexical | SPARSE_FLOAT_VECTOR | | only with an analyzer: BM25 over `terms`, made by the server |

Dynamic fields are on, and all but the first two have defaults, so that other libraries can add rows of their own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pymilvus import DataType, Function, FunctionType, MilvusClient

from c2llm_integrations.code.chunk import CHUNK_FIELDS
from c2llm_integrations.code.lexical_terms import K1, B
from c2llm_integrations.errors import InputError
from c2llm_integrations.stores.backend import Terms
from c2llm_integrations.stores.filter import moment_of, value_of
from c2llm_integrations.stores.ids import MAX_INTEGER_ID, RecordId
from c2llm_integrations.stores.milvus.filter import is_plain, microseconds, source_value
from c2llm_integrations.stores.records import AnyRecord, Vector, digest_of, is_chunk
from c2llm_integrations.stores.row_fields import RESERVED, OwnField, field_names, made_of
from c2llm_integrations.stores.spec import Capabilities, CollectionSpec

# Milvus's own limit on the bytes of a VARCHAR.
MAX_VARCHAR_BYTES = 65_535
# Ours are UUIDs; LangChain's `index` names the documents that it adds by a digest of up to 128 hexadecimal digits.
MAX_ID_BYTES = 128
# Milvus's own limit on the letters of a column's name.
MAX_NAME_LETTERS = 255
VECTOR_FIELD = "vector"
TERMS_FIELD = "terms"
LEXICAL_FIELD = "lexical"
# What `Stored` is made of, and what a record is: "$meta" stands for all dynamic fields.
STORED_FIELDS = ["id", *(name for name in CHUNK_FIELDS if name != "repository"), OwnField.DIGEST]
RECORD_FIELDS = [OwnField.TEXT, *CHUNK_FIELDS, "$meta"]
INDEXED = ("repository", "path", "language")

# Every partition has segments of its own, and each takes a search more time.
PARTITIONS = 4
# Two would keep a server busy; the client takes as long to pack a batch as the server to store it.
UPLOADS = 4
# Links of a row in the graph, and candidates looked at while it is built and, unless more hits are asked for, searched:
# larger figures, and Milvus's own AUTOINDEX, take longer to build and find no more.
HNSW = {"M": 16, "efConstruction": 64}
EF = 192
# What a spec's `index` may say of how a server keeps a collection.
SPREAD = frozenset({"num_shards", "replica_number"})
# Clusters, fewer where a segment has less than 39 rows for each, and how many of them a search looks into.
NLIST = 1024
NPROBE = 64
# On Milvus Lite all of them, also where another pymilvus has them made as many as the engine likes.
LITE_NPROBE = 2**16


@dataclass(frozen=True, slots=True)
class Server:
    """The kind of Milvus at the other end: "lite", "cloud" (Zilliz) or "server", and its release."""

    kind: str
    release: tuple[int, int]

    @classmethod
    def of(cls, version: str, address: str = "") -> Server:
        """Read what `MilvusClient.get_server_version` returns, and where that client is connected."""
        numbers = [int(number) for number in re.findall(r"\d+", version)] + [0, 0]
        lite, cloud = version.startswith("milvus_lite"), "zilliz" in (version + address).lower()
        return cls("lite" if lite else "cloud" if cloud else "server", (numbers[0], numbers[1]))

    @property
    def has_partition_key(self) -> bool:
        """Whether rows of different repositories are kept apart."""
        # Until 2.3.9 servers put upserted rows into wrong partitions, where a filter misses them (Milvus's pull request
        # 30772). Milvus Lite would only spread its few rows over more files.
        return self.kind != "lite" and self.release >= (2, 4)

    @property
    def updates_partly(self) -> bool:
        """Whether fields of a row can be changed without sending its vector."""
        return self.kind == "lite" or self.release >= (2, 6)

    @property
    def capabilities(self) -> Capabilities:
        """What a store on this Milvus can do."""
        if self.kind == "lite":
            # It keeps every full vector in memory too; codes make the index beside them smaller.
            quantized = frozenset({"int8"})
            return Capabilities(quantizations=quantized, lexical=True, max_text_bytes=MAX_VARCHAR_BYTES)
        quantizations = {"int8", "product"} | ({"rabitq"} if self.release >= (2, 6) else set())
        return Capabilities(
            datatypes=frozenset({"float32", "float16"} if self.release >= (2, 4) else {"float32"}),
            quantizations=frozenset() if self.kind == "cloud" else frozenset(quantizations),
            lexical=self.release >= (2, 5),
            max_text_bytes=MAX_VARCHAR_BYTES,
            uploads=UPLOADS,
            index=SPREAD if self.kind == "cloud" else SPREAD | HNSW.keys() | {"nlist"},
        )


def tenant_column(spec: CollectionSpec) -> str | None:
    """Return the field of the tenant if it gets a column of its own: each record of ours has one string there."""
    name = spec.tenant
    fits = (
        name is not None
        and is_plain(name)
        and len(name) <= MAX_NAME_LETTERS
        and name not in CHUNK_FIELDS.keys() | RESERVED
    )
    return name if fits else None


def schema_of(spec: CollectionSpec, server: Server) -> Any:
    """Return the schema of a collection with this spec."""
    schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=True)
    schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=MAX_ID_BYTES)
    vector = DataType.FLOAT16_VECTOR if spec.datatype == "float16" else DataType.FLOAT_VECTOR
    schema.add_field(VECTOR_FIELD, vector, dim=spec.width)
    tenant = tenant_column(spec)
    for name in (OwnField.TEXT, *CHUNK_FIELDS, OwnField.SOURCE, *([tenant] if tenant else [])):
        if CHUNK_FIELDS.get(name) is int:
            schema.add_field(name, DataType.INT64, default_value=0)
            continue
        key = name == (tenant or "repository") and server.has_partition_key
        schema.add_field(name, DataType.VARCHAR, max_length=MAX_VARCHAR_BYTES, default_value="", is_partition_key=key)
    if spec.analyzer is not None:
        # The terms are words already. A server's `standard` would cut Chinese ones; Lite has no `whitespace`.
        tokenizer = {"tokenizer": "standard" if server.kind == "lite" else "whitespace"}
        analyzed = {"enable_analyzer": True, "analyzer_params": tokenizer}
        schema.add_field(TERMS_FIELD, DataType.VARCHAR, max_length=MAX_VARCHAR_BYTES, default_value="", **analyzed)
        schema.add_field(LEXICAL_FIELD, DataType.SPARSE_FLOAT_VECTOR)
        schema.add_function(Function("bm25", FunctionType.BM25, [TERMS_FIELD], [LEXICAL_FIELD]))
    return schema


def indexes_of(spec: CollectionSpec, server: Server) -> dict[str, dict[str, Any]]:
    """Return field → the index that it has."""
    # Milvus Lite 3.2 reads only what lies under "params", and pymilvus 3 takes one such level away.
    params = {"params": {"nlist": 1}} if server.kind == "lite" else _vector_params(spec)
    dense = {"index_type": _vector_index(spec, server), "metric_type": "COSINE", "params": params}
    # Before 2.4 servers knew one index for strings.
    scalar = {"index_type": "INVERTED" if server.release >= (2, 4) else "Trie"}
    lexical = {"index_type": "SPARSE_INVERTED_INDEX", "metric_type": "BM25", "params": {"bm25_k1": K1, "bm25_b": B}}
    return {
        VECTOR_FIELD: dense,
        **({} if spec.analyzer is None else {LEXICAL_FIELD: lexical}),
        # Milvus Lite compares strings as fast without, and cannot load a collection whose index was half written.
        **({} if server.kind == "lite" else dict.fromkeys([*INDEXED, *filter(None, [tenant_column(spec)])], scalar)),
    }


def _vector_index(spec: CollectionSpec, server: Server) -> str:
    if server.kind == "lite":
        # One cluster: faiss compares all codes. A graph finds less than half of what a narrow filter leaves, and saves
        # no more: the engine goes over every row before each search. IVF_FLAT is faster than FLAT, but faiss warns on
        # standard error of each segment of a few rows.
        return "IVF_SQ8" if spec.quantization == "int8" else "FLAT"
    if server.kind == "cloud":
        return "AUTOINDEX"  # it takes no other
    return {"int8": "IVF_SQ8", "product": "IVF_PQ", "rabitq": "IVF_RABITQ"}.get(spec.quantization or "", "HNSW")


def _vector_params(spec: CollectionSpec) -> dict[str, int]:
    own = {name: number for name, number in spec.index.items() if name not in SPREAD}
    params = HNSW if spec.quantization is None else {"nlist": NLIST}
    if spec.quantization == "product":
        # Bytes a vector: one for 4 dimensions, as `spec.QUANTIZATIONS` says, or fewer where 4 does not divide.
        wanted = max(1, spec.width // 4)
        params |= {"m": next(m for m in range(wanted, 0, -1) if spec.width % m == 0), "nbits": 8}
    if unused := sorted(own.keys() - params.keys()):
        raise InputError(
            f"index {unused[0]!r} is not for quantization {spec.quantization!r}, whose index knows {sorted(params)}"
        )
    return params | own


def search_params_of(spec: CollectionSpec, server: Server, limit: int) -> dict[str, Any]:
    """Return how thoroughly `limit` vectors are searched."""
    if server.kind == "lite":
        thorough = {"nprobe": LITE_NPROBE}
    else:
        thorough = {"ef": max(EF, limit)} if spec.quantization is None else {"nprobe": NPROBE}
    return {"metric_type": "COSINE", "params": thorough}


def entities_of(
    records: Sequence[AnyRecord], vectors: Vector | None, terms: Terms, spec: CollectionSpec, *, has_records: bool
) -> list[dict[str, Any]]:
    """Return rows as Milvus takes them; without vectors or terms, those fields are left out.

    `has_records`: the collection has a column for the source of records that are not chunks.
    """
    entities: list[dict[str, Any]] = []
    moments = [name for name, kind in spec.fields.items() if kind == "datetime"]
    for position, record in enumerate(records):
        entity = {"id": str(record.row_id), OwnField.TEXT: record.text, **record.metadata}
        if not is_chunk(record):
            empty = {name: value for name, value in record.metadata.items() if value is None or value in ([], ())}
            entity = {name: value for name, value in entity.items() if name not in empty}
            entity = {**_DEFAULTS, **entity}
            # A column has its default where the value is null: its name in the list would say that this was written.
            names = sorted(record.metadata.keys() - (empty.keys() & _DEFAULTS.keys()))
            entity |= {OwnField.SOURCE: source_value(record.source), OwnField.FIELDS: names}
            entity |= {OwnField.EMPTY: empty, OwnField.ID: record.id, OwnField.DIGEST: digest_of(record)}
        elif has_records:
            entity[OwnField.SOURCE] = ""  # all rows of one call need the same columns
        if moments:
            entity[OwnField.TIMES] = _times(record, moments)
        if vectors is not None:
            vector = vectors[position]
            entity[VECTOR_FIELD] = vector.astype(np.float16) if spec.datatype == "float16" else vector
        if terms is not None:
            entity[TERMS_FIELD] = _joined(terms[position])
        entities.append(entity)
    return entities


def _times(record: AnyRecord, names: Sequence[str]) -> dict[str, Any]:
    """Return the moments in those fields as numbers, in mappings as the fields are."""
    times: dict[str, Any] = {}
    for name in names:
        moment = moment_of(value_of(record.metadata, name))
        if moment is not None:
            *outer, last = name.split(".")
            place = times
            for part in outer:
                place = place.setdefault(part, {})
            place[last] = microseconds(moment)
    return times


def record_from(id: str, row: Mapping[str, Any], tenant: str | None = None) -> AnyRecord:
    """Return a row as Milvus gave it back, ours or another program's, as a record; `tenant` is the column of that."""
    own, empty = field_names(row.get(OwnField.FIELDS)), row.get(OwnField.EMPTY)
    # A chunk has every column; of another row the default means missing.
    is_whole = (row.get("start_line") or 0) > 0 and not row.get(OwnField.SOURCE)
    metadata = {
        name: value
        for name, value in row.items()
        if name not in RESERVED and (name in own or is_whole or value != _DEFAULTS.get(name))
        # A null is no value: ours are in OwnField.EMPTY, and pymilvus writes one for a column that it remembers of a
        # dropped collection of the same name.
        if value is not None
    }
    if tenant is not None and not metadata.get(tenant):
        metadata.pop(tenant, None)
    metadata |= empty if isinstance(empty, Mapping) else {}
    source = row.get(OwnField.SOURCE)
    ours = {OwnField.SOURCE: source[1:], OwnField.ID: row.get(OwnField.ID)} if source else {}
    return made_of(id_from(id), row.get(OwnField.TEXT) or "", metadata, ours)


_DEFAULTS = {name: kind() for name, kind in CHUNK_FIELDS.items()}


def id_from(key: str) -> RecordId:
    """Return the id of a row from its primary key, which Milvus keeps as a string."""
    is_number = key.isascii() and key.isdecimal() and str(int(key)) == key and int(key) <= MAX_INTEGER_ID
    return int(key) if is_number else key


def vector_from(value: Any) -> Vector:
    """Return a vector as Milvus gave it back: a list of floats, or one with the bytes of half-precision ones."""
    if isinstance(value, list) and isinstance(value[0], bytes):
        [value] = value
    if isinstance(value, bytes):
        value = np.frombuffer(value, np.float16)
    return np.asarray(value, dtype=np.float32)


def _joined(terms: Sequence[str]) -> str:
    """Join terms, as many as a field takes; what a very long text says last is only left out of the lexical index."""
    text = " ".join(terms)
    if 4 * len(text) <= MAX_VARCHAR_BYTES or len(data := text.encode()) <= MAX_VARCHAR_BYTES:
        return text
    return data[:MAX_VARCHAR_BYTES].rpartition(b" ")[0].decode()
