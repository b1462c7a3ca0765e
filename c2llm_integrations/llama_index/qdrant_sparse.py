"""The code-aware analyzer as sparse vectors of LlamaIndex's Qdrant store."""

from __future__ import annotations

from c2llm_integrations.code.lexical_terms import document_terms, query_terms, sparse, sparse_query
from c2llm_integrations.stores.row_checks import listed

Sparse = tuple[list[list[int]], list[list[float]]]


def sparse_doc_fn(texts: list[str]) -> Sparse:
    """Return the terms of documents and their weights, for `QdrantVectorStore(enable_hybrid=True, sparse_doc_fn=…)`.

    Qdrant adds the weight of rare terms: create that store with
    `sparse_config=models.SparseVectorParams(modifier=models.Modifier.IDF)`.
    """
    weighted = sparse([document_terms("", text) for text in listed(texts, str, "texts")])
    return [terms for terms, _ in weighted], [weights for _, weights in weighted]


def sparse_query_fn(texts: list[str]) -> Sparse:
    """Return the terms of queries, each with weight 1. The counterpart of `sparse_doc_fn`."""
    asked = [sparse_query(query_terms(text)) for text in listed(texts, str, "texts")]
    return [terms for terms, _ in asked], [weights for _, weights in asked]
