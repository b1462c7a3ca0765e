"""Our ranking as LangChain's document compressor."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.embeddings import Embeddings
from pydantic import ConfigDict, Field

from c2llm_integrations.langchain.embeddings import C2LLMEmbeddings
from c2llm_integrations.retrieval.document_store import rerank
from c2llm_integrations.retrieval.search import for_model, warned_mode_for


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
