"""The code-aware analyzer as sparse vectors of LangChain's Qdrant store."""

from __future__ import annotations

from langchain_qdrant.sparse_embeddings import SparseEmbeddings, SparseVector

from c2llm_integrations.code.lexical_terms import document_terms, query_terms, sparse, sparse_query
from c2llm_integrations.stores.row_checks import listed


class C2LLMSparseEmbeddings(SparseEmbeddings):
    """BM25 weights of identifiers, their parts and stems, as our own stores compute them.

    For `QdrantVectorStore` in HYBRID or SPARSE mode. Qdrant adds the weight of rare terms: create the collection with
    `sparse_vector_params=models.SparseVectorParams(modifier=models.Modifier.IDF)`.
    """

    def embed_documents(self, texts: list[str]) -> list[SparseVector]:
        """Return the weighted terms of each text."""
        weighted = sparse([document_terms("", text) for text in listed(texts, str, "texts")])
        return [SparseVector(indices=indices, values=values) for indices, values in weighted]

    def embed_query(self, text: str) -> SparseVector:
        """Return the terms of a query, each with weight 1."""
        indices, values = sparse_query(query_terms(text))
        return SparseVector(indices=indices, values=values)
