"""The code-aware analyzer as sparse vectors of LangChain's Milvus store."""

from __future__ import annotations

from langchain_milvus.utils.sparse import BaseSparseEmbedding

from c2llm_integrations.code.lexical_terms import document_terms, query_terms, sparse, sparse_query
from c2llm_integrations.stores.row_checks import listed


class C2LLMMilvusSparseEmbedding(BaseSparseEmbedding):
    """BM25 weights of identifiers, their parts and stems, for the sparse vector field of `Milvus`.

    Its index compares by inner product ("metric_type": "IP"), which ignores how rare a term is. If the server has the
    built-in BM25 function, one of our collections (`langchain_milvus_arguments`) ranks better.
    """

    def embed_documents(self, texts: list[str]) -> list[dict[int, float]]:
        """Return the terms of each text and their weights."""
        weighted = sparse([document_terms("", text) for text in listed(texts, str, "texts")])
        return [dict(zip(indices, values, strict=True)) for indices, values in weighted]

    def embed_query(self, query: str) -> dict[int, float]:
        """Return the terms of a query, each with weight 1."""
        indices, values = sparse_query(query_terms(query))
        return dict(zip(indices, values, strict=True))
