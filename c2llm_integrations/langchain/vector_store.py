"""Any of our stores as LangChain's vector store."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import VectorStore
from langchain_core.vectorstores.utils import maximal_marginal_relevance
from typing_extensions import Self

from c2llm_integrations.errors import InputError
from c2llm_integrations.langchain.embeddings import C2LLMEmbeddings
from c2llm_integrations.model.fingerprint import Fingerprint
from c2llm_integrations.retrieval.document_store import Documents, refuse_unknown
from c2llm_integrations.retrieval.options import Mode
from c2llm_integrations.retrieval.ranking import require_known
from c2llm_integrations.retrieval.search import for_model
from c2llm_integrations.retrieval.store_handles import shared_store
from c2llm_integrations.stores import open_store
from c2llm_integrations.stores.records import AnyRecord, Hit
from c2llm_integrations.stores.row_checks import listed, require, require_count, require_share
from c2llm_integrations.stores.spec import CompactPlan
from c2llm_integrations.stores.vector_store import VectorStore as Store
from c2llm_integrations.stores.vector_store import Where


class C2LLMVectorStore(VectorStore):
    """Store documents with any metadata in any of our stores, and search words and vectors together.

        store = C2LLMVectorStore("qdrant+http://localhost:6333", "answers", embedding=C2LLMEmbeddings())
        store.add_documents(documents)
        store.similarity_search("retry with backoff", k=5, filter={"tenant": "acme", "votes": {"gte": 10}})

    A document keeps its id, or gets one that depends on its text and metadata. A filter is a mapping as `Filter` takes
    it: any fields, values, lists of values, ranges, "exists", "not", "and", "or". Each search takes a `search_type`
    ("hybrid", "dense" or "lexical") of its own. Scores lie in 0…1; a search by vector returns cosines.
    """

    def __init__(
        self,
        store: str | Store = "qdrant+memory://",
        collection: str = "documents",
        *,
        embedding: Embeddings | None = None,
        search_type: Mode = "hybrid",
        source: str = "documents",
        compact: CompactPlan | None = None,
        fields: Mapping[str, str] | None = None,
    ) -> None:
        """Name a store; the first document creates the collection.

        Args:
            store: A URL, shared by all objects with that URL, or an open store. "qdrant+memory://" is new each time.
            collection: The collection to open; an open store has its own.
            embedding: The model that embeds documents and queries; None for `C2LLMEmbeddings()`.
            search_type: The default of searches.
            source: The set that these documents belong to. Ids are unique in it, and deleting stays within it.
            compact: How to store the vectors of a new collection; one that is there must have been made so.
            fields: Field of the metadata → its kind, such as {"customer": "tenant", "votes": "integer"}: a new
                collection indexes these for filters and refuses other kinds of values (see `CollectionSpec`). Adding to
                one that was made without them raises SpecMismatch.

        """
        require_known(search_type, ())
        if embedding is not None and not hasattr(embedding, "embed_documents"):
            require(embedding, Embeddings, "LangChain's embeddings, such as C2LLMEmbeddings()")
        if store == "qdrant+memory://":
            store = open_store(str(store), collection)
        self._embedding = embedding or C2LLMEmbeddings()
        self._search_type = search_type
        self._documents = Documents(shared_store(store, collection), source, compact, fields)

    @property
    def embeddings(self) -> Embeddings:
        """The model that embeds documents and queries."""
        return self._embedding

    # ---- writing

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        **unknown: Any,
    ) -> list[str]:
        """Write texts and return their ids. A text with a known id replaces the earlier one.

        A text that is already stored under the same id, or at the same path, is not embedded again.

        Raises:
            InputError: If the number of metadatas or ids is not that of the texts, or one is not a list.
            RowsRefused: For a text, metadata or id that cannot be stored, and for an id that occurs twice.

        """
        refuse_unknown(unknown.keys() - {"batch_size"}, ("ids", "metadatas", "batch_size"))
        texts = listed(texts, str, "texts")
        metadatas = None if metadatas is None else listed(metadatas, (Mapping, type(None)), "metadatas")
        ids = None if ids is None else listed(ids, object, "ids")
        for name, given in {"metadatas": metadatas, "ids": ids}.items():
            if given and len(given) != len(texts):
                raise InputError(f"there are {len(texts)} texts and {len(given)} {name}; give one for each text")
        records = self._documents.records(
            ids or [None] * len(texts), texts, [one or {} for one in metadatas or [{}] * len(texts)]
        )
        self._documents.add(records, self._embedding.embed_documents, self._fingerprint)
        return [str(record.id) for record in records]

    @classmethod
    def from_texts(
        cls,
        texts: list[str],
        embedding: Embeddings,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        **kwargs: Any,
    ) -> Self:
        """Return a store with these texts. Other arguments are those of the constructor."""
        made = cls(embedding=embedding, **kwargs)
        made.add_texts(texts, metadatas, ids=ids)
        return made

    def delete(self, ids: list[str] | None = None, *, filter: Where | None = None, **unknown: Any) -> bool:
        """Delete documents of this source: those with these ids, those that match the filter, or, without either, all.

        Return True, also for ids that are not there. Raises InputError for a filter that every document matches.
        """
        refuse_unknown(unknown, ("ids", "filter"))
        if ids is not None and filter is not None:
            raise InputError("delete got ids and a filter; give one of them")
        documents = self._documents
        where = documents.where(filter)
        if filter is not None and not where:  # most likely one that was put together from nothing
            raise InputError(f"the filter {filter!r:.60} matches every document; delete() deletes all of this source")
        with documents.shared.opened() as store:
            if ids is not None:
                store.delete(list(documents.own(store, ids)), source=documents.source)
            else:
                store.delete(source=documents.source, where=where)
        return True

    # ---- reading

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Return the documents with these ids, in their order. Unknown ids are left out."""
        return [self._document(record) for record in self._documents.get(ids)]

    def similarity_search_with_score(
        self, query: str, k: int = 4, *, filter: Where | None = None, search_type: Mode | None = None, **unknown: Any
    ) -> list[tuple[Document, float]]:
        """Return the `k` best documents and their scores in 0…1, best first."""
        refuse_unknown(unknown, _SEARCH)
        mode = self._mode(query, search_type)
        vector = None if mode == "lexical" else self._embedding.embed_query(for_model(query))
        return self._scored(self._ranked(query, vector, k, filter, mode))

    async def asimilarity_search_with_score(
        self, query: str, k: int = 4, *, filter: Where | None = None, search_type: Mode | None = None, **unknown: Any
    ) -> list[tuple[Document, float]]:
        """Run `similarity_search_with_score` without blocking; queries that wait together share a batch."""
        refuse_unknown(unknown, _SEARCH)
        documents = self._documents
        mode = await documents.shared.hand_over(self._mode, query, search_type)
        vector = None if mode == "lexical" else await self._embedding.aembed_query(for_model(query))
        return self._scored(await documents.shared.hand_over(self._ranked, query, vector, k, filter, mode))

    def similarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        """Return the `k` best documents. Other arguments are `filter` and `search_type`."""
        return [document for document, _ in self.similarity_search_with_score(query, k, **kwargs)]

    async def asimilarity_search(self, query: str, k: int = 4, **kwargs: Any) -> list[Document]:
        """Run `similarity_search` without blocking the event loop."""
        return [document for document, _ in await self.asimilarity_search_with_score(query, k, **kwargs)]

    def similarity_search_by_vector(
        self, embedding: list[float], k: int = 4, *, filter: Where | None = None, **unknown: Any
    ) -> list[Document]:
        """Return the `k` documents nearest to a vector."""
        refuse_unknown(unknown, _SEARCH)
        hits = self._documents.nearest(embedding, k, self._documents.where(filter))
        return [document for document, _ in self._scored(hits)]

    def max_marginal_relevance_search_by_vector(
        self,
        embedding: list[float],
        k: int = 4,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        *,
        filter: Where | None = None,
        **unknown: Any,
    ) -> list[Document]:
        """Return `k` of the `fetch_k` documents nearest to a vector, chosen to differ from each other."""
        refuse_unknown(unknown, _SEARCH)
        require_count(k, "k")
        require_count(fetch_k, "fetch_k")
        require_share(lambda_mult, "lambda_mult")
        hits = self._documents.nearest(embedding, fetch_k, self._documents.where(filter))
        hits, vectors = self._documents.with_vectors(hits)
        chosen = maximal_marginal_relevance(np.asarray(embedding, np.float32), vectors, lambda_mult, k)
        return [self._document(hits[place].record) for place in chosen]

    def max_marginal_relevance_search(
        self, query: str, k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[Document]:
        """Return `k` of the `fetch_k` documents nearest to a query, chosen to differ from each other."""
        vector = self._embedding.embed_query(for_model(query))
        self._documents.require_comparable(vector, self._fingerprint())
        return self.max_marginal_relevance_search_by_vector(vector, k, fetch_k, lambda_mult, **kwargs)

    def similarity_search_with_relevance_scores(
        self, query: str, k: int = 4, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """Return the `k` best documents and their scores in 0…1, without those below a `score_threshold`."""
        _require_threshold(kwargs)
        return super().similarity_search_with_relevance_scores(query, k, **kwargs)

    async def asimilarity_search_with_relevance_scores(
        self, query: str, k: int = 4, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """Run `similarity_search_with_relevance_scores` without blocking the event loop."""
        _require_threshold(kwargs)
        return await super().asimilarity_search_with_relevance_scores(query, k, **kwargs)

    def _select_relevance_score_fn(self) -> Callable[[float], float]:
        return float

    # ---- shared

    def _mode(self, query: str, asked: Mode | None) -> Mode:
        own = self._embedding
        embedder = own.embedder if isinstance(own, C2LLMEmbeddings) else None
        return self._documents.mode(query, asked or self._search_type, embedder)

    def _ranked(self, query: str, vector: list[float] | None, k: int, filter: Where | None, mode: Mode) -> list[Hit]:
        documents = self._documents
        if vector is not None:
            documents.require_comparable(vector, self._fingerprint())
        return documents.ranked(query, vector, k, documents.where(filter), mode)

    def _fingerprint(self) -> Fingerprint:
        """Return what identifies the vectors; for other models than ours, the class and its model name."""
        own = getattr(self._embedding, "underlying_embeddings", self._embedding)  # LangChain's cache around a model
        if isinstance(own, C2LLMEmbeddings):
            return own.embedder.fingerprint
        name = getattr(own, "model", None) or getattr(own, "model_name", None) or ""
        return {"embeddings": f"{type(own).__module__}.{type(own).__qualname__} {name}".strip()}

    def _document(self, record: AnyRecord) -> Document:
        return Document(id=str(record.id), page_content=record.text, metadata=self._documents.metadata(record))

    def _scored(self, hits: Sequence[Hit]) -> list[tuple[Document, float]]:
        return [(self._document(hit.record), hit.score) for hit in hits]


def _require_threshold(given: Mapping[str, Any]) -> None:
    if given.get("score_threshold") is not None:
        require_share(given["score_threshold"], "score_threshold")


_SEARCH = ("k", "filter", "search_type", "fetch_k", "lambda_mult")
