"""Our search as LangChain's retriever, and our ranking as its document compressor, `C2LLMReranker`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, get_type_hints

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.embeddings import Embeddings
from langchain_core.retrievers import BaseRetriever
from pydantic import ConfigDict, Field, PrivateAttr, create_model, field_validator

from c2llm_integrations.langchain.embeddings import C2LLMEmbeddings
from c2llm_integrations.retrieval.clashing_fields import given_metadata
from c2llm_integrations.retrieval.document_store import refuse_unknown, rerank
from c2llm_integrations.retrieval.options import SearchOptions
from c2llm_integrations.retrieval.search import for_model, warned_mode_for
from c2llm_integrations.retrieval.store_handles import STORE_WAIT_SECONDS, KeptStore, SharedStore, kept_store
from c2llm_integrations.stores.filter import Filter
from c2llm_integrations.stores.records import Hit
from c2llm_integrations.stores.vector_store import VectorStore

# Every option of `search` becomes a field. LangChain calls the limit `k`.
_types = get_type_hints(SearchOptions, localns={"Filter": Filter})
_options: dict[str, Any] = {
    one.name: (_types[one.name], one.default) for one in fields(SearchOptions) if one.name != "limit"
}
_Options: Any = create_model("_Options", __base__=BaseRetriever, **_options)
# What `invoke` takes as well.
PER_CALL = ("k", "score_threshold", *_options)


class C2LLMRetriever(_Options):  # type: ignore[misc]
    """Search a collection that `c2llm index`, `ingest`, one of our vector stores or one of LangChain's has filled.

        retriever = C2LLMRetriever(store="qdrant+edge://.c2llm", k=5, language=["go", "rust"])
        retriever.invoke("retry with backoff", path="src/", where={"votes": {"gte": 10}})

    Args:
        store: A URL, opened on first use and shared by all objects with that URL, or an open store. The key of a server
            comes from the environment.
        collection: The collection to open; an open store has its own.
        embeddings: The model that embeds the query; None for the model that the collection was made with.
        k: How many documents to return.
        score_threshold: The lowest score (0…1) of a document to return.
        wait: Seconds to wait for an embedded collection that another process uses; of objects that share one URL, the
            first decides.
        options: Those of `search`: `language`, `path`, `repository`, `kind`, `where`, `mode`, `rules`.
        search_kwargs: The same options again, in the form that `as_retriever` takes.

    `invoke` takes `k`, `score_threshold` and the options too. A document's metadata are those of its row, "score", and
    "_id", the id of the row, for `EnsembleRetriever(id_key="_id")`. Retrieving raises the errors of `search` and
    `open_store`.

    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    store: str | VectorStore
    collection: str = "code"
    embeddings: C2LLMEmbeddings | None = None
    k: int = 10
    score_threshold: float | None = None
    wait: float = STORE_WAIT_SECONDS
    search_kwargs: dict[str, Any] = Field(default_factory=dict)

    _kept: KeptStore | None = PrivateAttr(default=None)

    @field_validator("search_kwargs")
    @classmethod
    def _known(cls, given: dict[str, Any]) -> dict[str, Any]:
        refuse_unknown(given, PER_CALL)
        return given

    def model_post_init(self, context: Any) -> None:
        """Name the store, which is opened on first use."""
        super().model_post_init(context)
        self._source()

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, **asked: Any
    ) -> list[Document]:
        return self._search(self._source(), query, asked)

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, **asked: Any
    ) -> list[Document]:
        source = self._source()
        return await source.hand_over(self._search, source, query, asked)

    def _source(self) -> SharedStore:
        self._kept = kept_store(self._kept, self.store, self.collection, self.wait)
        return self._kept[1]

    def _search(self, source: SharedStore, query: str, asked: Mapping[str, Any]) -> list[Document]:
        refuse_unknown(asked, PER_CALL)
        given = {**{name: getattr(self, name) for name in PER_CALL}, **self.search_kwargs, **asked}
        threshold = given.pop("score_threshold")
        options = SearchOptions(limit=given.pop("k"), **given)
        return [_found(hit) for hit in source.search(query, options, self.embeddings, threshold)]


def _found(hit: Hit) -> Document:
    record = hit.record
    metadata = {"score": hit.score, **given_metadata(record), "_id": record.row_id}
    return Document(id=str(record.id), page_content=record.text, metadata=metadata)


class C2LLMReranker(BaseDocumentCompressor):
    """Order the documents of any retriever as `search` does: by vectors, words and the rules for code.

    Args:
        embeddings: The model that embeds the query and the documents.
        top_n: How many documents to return.

    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    embeddings: Embeddings = Field(default_factory=C2LLMEmbeddings)
    top_n: int = Field(default=10, gt=0)

    def compress_documents(self, documents: Sequence[Document], query: str, callbacks: Any = None) -> list[Document]:
        """Return the best documents, best first, each with its score (0…1) in the metadata field "relevance_score"."""
        if not documents or not self._reads(query):
            return self._ordered(documents, query, None, [])
        question = self.embeddings.embed_query(for_model(query))
        return self._ordered(documents, query, question, self.embeddings.embed_documents(_texts(documents)))

    async def acompress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Any = None
    ) -> list[Document]:
        """Run `compress_documents` without blocking the event loop."""
        own = self.embeddings
        reads = await own.shared.hand_over(self._reads, query) if isinstance(own, C2LLMEmbeddings) else True
        if not documents or not reads:
            return await asyncio.to_thread(self._ordered, documents, query, None, [])
        question = await self.embeddings.aembed_query(for_model(query))
        vectors = await self.embeddings.aembed_documents(_texts(documents))
        return await asyncio.to_thread(self._ordered, documents, query, question, vectors)

    def _reads(self, query: str) -> bool:
        own = self.embeddings
        return not isinstance(own, C2LLMEmbeddings) or warned_mode_for(query, "hybrid", own.embedder) == "hybrid"

    def _ordered(
        self, documents: Sequence[Document], query: str, question: list[float] | None, vectors: list[list[float]]
    ) -> list[Document]:
        found = [(one.page_content, one.metadata) for one in documents]
        return [
            documents[place].model_copy(update={"metadata": {**documents[place].metadata, "relevance_score": score}})
            for place, score in rerank(query, found, question, vectors, self.top_n)
        ]


def _texts(documents: Sequence[Document]) -> list[str]:
    return [document.page_content for document in documents]
