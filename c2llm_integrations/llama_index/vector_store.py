"""Any of our stores as LlamaIndex's vector store."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import ConfigDict, Field, PrivateAttr, ValidationError
from llama_index.core.indices.query.embedding_utils import get_top_k_mmr_embeddings
from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
    VectorStoreQueryResult,
)

from c2llm_integrations.errors import InputError
from c2llm_integrations.llama_index.embeddings import C2LLMEmbedding
from c2llm_integrations.llama_index.nodes import DOCUMENT, NODE_FIELDS, kept_of, node_of, text_of, where_of
from c2llm_integrations.model.fingerprint import Fingerprint
from c2llm_integrations.retrieval.document_store import Documents, refuse_unknown
from c2llm_integrations.retrieval.options import Mode
from c2llm_integrations.retrieval.search import is_readable
from c2llm_integrations.retrieval.store_handles import KeptStore, SharedStore, kept_store
from c2llm_integrations.stores import open_store
from c2llm_integrations.stores.filter import Filter, value_of
from c2llm_integrations.stores.records import Hit, Record, Row
from c2llm_integrations.stores.row_checks import listed, require_count, require_share
from c2llm_integrations.stores.spec import CompactPlan
from c2llm_integrations.stores.vector_store import VectorStore

# MMR chooses from so many times the wanted nodes, as in LlamaIndex's own stores.
PREFETCH = 4

_ALIKE = "the vectors of such questions are alike; mode 'hybrid' or 'sparse' looks for their words"

_MODES: dict[VectorStoreQueryMode, Mode] = {
    VectorStoreQueryMode.SPARSE: "lexical",
    VectorStoreQueryMode.TEXT_SEARCH: "lexical",
    VectorStoreQueryMode.HYBRID: "hybrid",
    VectorStoreQueryMode.SEMANTIC_HYBRID: "hybrid",
}


class C2LLMVectorStore(BasePydanticVectorStore):
    """Store nodes with any metadata in any of our stores.

        store = C2LLMVectorStore("milvus+lite://rows.db", "answers", embed_model=embedding)
        index = VectorStoreIndex.from_vector_store(store, embed_model=embedding)
        index.as_retriever(vector_store_query_mode="hybrid", similarity_top_k=5).retrieve("retry with backoff")

    Query modes are DEFAULT (cosines), SPARSE (words), HYBRID (both) and MMR. HYBRID ranks as `search` does; with an
    `alpha` it is their weighted sum without rules, where 1 is vectors alone. Filters take every operator and any
    nesting. A text filter first reads all values of its field in the collection.

    Args:
        store: A URL, shared by all objects with that URL, or an open store. "qdrant+memory://" is new each time.
        collection: The collection to open; an open store has its own. The first node creates it.
        embed_model: The model of the vectors. The collection then refuses those of another; None accepts any vectors
            of the same width.
        source: The set that these nodes belong to. Ids are unique in it, and deleting stays within it.
        compact: How to store the vectors of a new collection; one that is there must have been made so.
        fields: Field of the metadata → its kind, such as {"customer": "tenant", "votes": "integer"}: a new collection
            indexes these for filters and refuses other kinds of values (see `CollectionSpec`); adding to one that was
            made without them raises SpecMismatch. A node's document, by which `delete` finds it, is always indexed.

    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    stores_text: bool = True
    flat_metadata: bool = False
    store: str | VectorStore = "qdrant+memory://"
    collection: str = "documents"
    embed_model: BaseEmbedding | None = Field(default=None, exclude=True)
    source: str = "documents"
    compact: CompactPlan | None = None
    fields: dict[str, str] | None = None

    _opened: VectorStore | None = PrivateAttr(default=None)
    _kept: KeptStore | None = PrivateAttr(default=None)

    def __init__(
        self, store: str | VectorStore = "qdrant+memory://", collection: str = "documents", **options: Any
    ) -> None:
        """Name a store; the first node creates the collection. See the class for the options."""
        refuse_unknown(options, type(self).model_fields)
        try:
            super().__init__(**{"store": store, "collection": collection, **options})
        except ValidationError as error:
            wrong = error.errors()[0]
            name = ".".join(map(str, wrong["loc"]))
            raise InputError(f"{name} is {wrong['input']!r:.60}: {wrong['msg'].lower()}") from None

    def model_post_init(self, context: Any) -> None:
        """Open a store in memory, which no URL names; another is opened on first use."""
        if self.store == "qdrant+memory://":
            self._opened = open_store(str(self.store), self.collection)
        self._shared()

    @classmethod
    def class_name(cls) -> str:
        """Return the name under which LlamaIndex serializes this class."""
        return "C2LLMVectorStore"

    @property
    def client(self) -> Any:
        """The database's own client."""
        with self._shared().opened() as store:
            return store.client

    # ---- writing

    def add(self, nodes: Sequence[BaseNode], **unknown: Any) -> list[str]:
        """Write nodes with their vectors and return their ids. A node with a known id replaces the earlier one.

        Raises:
            InputError: For what is not a list of nodes.
            RowsRefused: For a node that cannot be stored.
            SpecMismatch: If the vectors of the collection are of another model or width.

        """
        refuse_unknown(unknown, ())
        documents = self._documents()
        rows = []
        for node in listed(nodes, BaseNode, "nodes"):
            plain = documents.record(node.node_id, text_of(node), node.metadata)
            record = Record(plain.id, plain.text, {**plain.metadata, **kept_of(node)}, plain.source)
            rows.append(Row(record, np.asarray(node.get_embedding(), np.float32)))
        documents.put(rows, self._fingerprint())
        return [node.node_id for node in nodes]

    def delete(self, ref_doc_id: str, **unknown: Any) -> None:
        """Delete the nodes of a document."""
        refuse_unknown(unknown, ())
        with self._shared().opened() as store:
            store.delete(where={DOCUMENT: ref_doc_id}, source=self.source)

    def delete_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None, **unknown: Any
    ) -> None:
        """Delete the nodes that have one of these ids, if given, and match the filters.

        Raises InputError for neither, and without ids for filters that every node matches.
        """
        refuse_unknown(unknown, ())
        if node_ids is None and filters is None:
            raise InputError("delete_nodes got neither node_ids nor filters; `clear` deletes all")
        where = self._where(filters)
        if node_ids is None and not where:  # most likely filters that were put together from nothing
            raise InputError("the filters match every node; `clear` deletes all")
        with self._shared().opened() as store:
            if node_ids is None:
                store.delete(where=where, source=self.source)
            else:
                found = self._documents().own(store, node_ids)
                store.delete([id for id, record in found.items() if where.matches(record.metadata)], source=self.source)

    def clear(self) -> None:
        """Delete all nodes of this source."""
        with self._shared().opened() as store:
            store.delete(where={}, source=self.source)

    # ---- reading

    def get_nodes(self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None) -> list[BaseNode]:
        """Return the nodes that have one of these ids, if given, and match the filters."""
        documents, where = self._documents(), self._where(filters)
        if node_ids is not None:
            records = [one for one in documents.get(node_ids) if where.matches(one.metadata)]
        else:
            with documents.shared.opened() as store:
                records = list(store.scroll(where, source=self.source))
        return [node_of(record, documents.metadata(record)) for record in records]

    def query(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """Return the nodes that answer a query, best first, and their scores.

        Mode MMR takes `mmr_prefetch_k` and `mmr_threshold`. Raises InputError for an unknown mode, and for a query
        without the text or vector that its mode needs.
        """
        refuse_unknown(kwargs, ("mmr_prefetch_k", "mmr_threshold"))
        documents = self._documents()
        hits = self._hits(documents, query, kwargs)
        return VectorStoreQueryResult(
            nodes=[node_of(hit.record, documents.metadata(hit.record)) for hit in hits],
            similarities=[hit.score for hit in hits],
            ids=[str(hit.record.id) for hit in hits],
        )

    def _hits(self, documents: Documents, query: VectorStoreQuery, options: dict[str, Any]) -> list[Hit]:
        where = self._where(query.filters)
        if query.doc_ids:
            where &= Filter({DOCUMENT: query.doc_ids})
        threshold = query.mmr_threshold if query.mmr_threshold is not None else options.get("mmr_threshold")
        prefetch = options.get("mmr_prefetch_k")
        require_count(query.similarity_top_k, "similarity_top_k")
        counts = {"sparse_top_k": query.sparse_top_k, "hybrid_top_k": query.hybrid_top_k, "mmr_prefetch_k": prefetch}
        for name, many in counts.items():
            if many is not None:
                require_count(many, name)
        for name, share in {"alpha": query.alpha, "mmr_threshold": threshold}.items():
            if share is not None:
                require_share(share, name)
        limit, text, vector = query.similarity_top_k, query.query_str, query.query_embedding
        if query.node_ids:
            documents = documents.among(query.node_ids)
        if vector is not None and _MODES.get(query.mode) != "lexical" and (means := self._fingerprint()):
            documents.require_comparable(vector, means)
        if query.mode in _MODES:
            if text is None or (vector is None and _MODES[query.mode] == "hybrid"):
                raise InputError(f"mode {query.mode.value!r} needs the query's text, and a hybrid one its vector")
            if _MODES[query.mode] == "lexical":
                return documents.ranked(text, None, query.sparse_top_k or limit, where, "lexical")
            own = self.embed_model
            mode = documents.mode(text, "hybrid", own.embedder if isinstance(own, C2LLMEmbedding) else None)
            weight = None if query.alpha is None else 1.0 - query.alpha
            return documents.ranked(text, vector, query.hybrid_top_k or limit, where, mode, weight=weight)
        if query.mode not in (VectorStoreQueryMode.DEFAULT, VectorStoreQueryMode.MMR):
            known = "default, sparse, text_search, hybrid, semantic_hybrid, mmr"
            raise InputError(f"query mode {query.mode.value!r} is not supported; use one of: {known}")
        if vector is None:
            raise InputError(f"mode {query.mode.value!r} needs the vector of the query")
        own = self.embed_model
        if text is not None and isinstance(own, C2LLMEmbedding) and not is_readable(text, own.embedder):
            warnings.warn(f"the model does not know the script of {text[:40]!r}: {_ALIKE}", stacklevel=3)
        if query.mode == VectorStoreQueryMode.DEFAULT:
            return documents.nearest(vector, limit, where)
        hits, vectors = documents.with_vectors(documents.nearest(vector, prefetch or PREFETCH * limit, where))
        scores, places = get_top_k_mmr_embeddings(
            vector,
            [one.tolist() for one in vectors],
            similarity_top_k=limit,
            embedding_ids=list(range(len(hits))),
            mmr_threshold=threshold,
        )
        return [Hit(hits[place].record, float(score)) for score, place in zip(scores, places, strict=True)]

    # ---- async: the work runs in a thread and never blocks the event loop

    async def async_add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        """Await `add`."""
        return await self._shared().hand_over(self.add, nodes, **kwargs)

    async def adelete(self, ref_doc_id: str, **kwargs: Any) -> None:
        """Await `delete`."""
        await self._shared().hand_over(self.delete, ref_doc_id, **kwargs)

    async def adelete_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None, **kwargs: Any
    ) -> None:
        """Await `delete_nodes`."""
        await self._shared().hand_over(self.delete_nodes, node_ids, filters, **kwargs)

    async def aclear(self) -> None:
        """Await `clear`."""
        await self._shared().hand_over(self.clear)

    async def aget_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None
    ) -> list[BaseNode]:
        """Await `get_nodes`."""
        return await self._shared().hand_over(self.get_nodes, node_ids, filters)

    async def aquery(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """Await `query`."""
        return await self._shared().hand_over(self.query, query, **kwargs)

    # ---- shared

    def _shared(self) -> SharedStore:
        self._kept = kept_store(self._kept, self._opened or self.store, self.collection)
        return self._kept[1]

    def _documents(self) -> Documents:
        fields = {**(self.fields or {}), DOCUMENT: "keyword"}
        return Documents(self._shared(), self.source, self.compact, fields, NODE_FIELDS)

    def _fingerprint(self) -> Fingerprint | None:
        own = self.embed_model
        if isinstance(own, C2LLMEmbedding):
            return own.embedder.fingerprint
        return None if own is None else {"embeddings": f"{own.class_name()} {own.model_name}"}

    def _where(self, filters: MetadataFilters | None) -> Filter:
        documents = self._documents()

        def values(key: str) -> Iterator[Any]:
            with documents.shared.opened() as store:
                for record in store.scroll():  # a query's filter chooses among all sources
                    yield value_of(documents.metadata(record), key)

        return documents.where(where_of(filters, values))
