"""LangChain's own Qdrant store: how it opens our collections, and our lexical terms as its sparse vectors."""

from __future__ import annotations

from typing import Any

from langchain_qdrant import RetrievalMode
from langchain_qdrant.sparse_embeddings import SparseEmbeddings, SparseVector

from c2llm_integrations.code.lexical_terms import ANALYZER, query_terms, sparse_query, sparse_texts
from c2llm_integrations.errors import InputError
from c2llm_integrations.retrieval.search import spec_of
from c2llm_integrations.stores.row_checks import listed
from c2llm_integrations.stores.vector_store import VectorStore


def langchain_qdrant_arguments(store: VectorStore) -> dict[str, Any]:
    """Return the arguments that open one of our collections in `langchain_qdrant.QdrantVectorStore`.

        QdrantVectorStore(embedding=embeddings, **langchain_qdrant_arguments(store))

    If the collection has a lexical index, the result searches words and vectors together. It works as long as `store`
    is open.

    Raises:
        InputError: If the store is neither on a Qdrant server nor in memory.
        StoreError: If the collection does not exist.

    """
    spec = spec_of(store)
    if not hasattr(store.client, "query_points"):
        raise InputError(
            f"{store.url} has no Qdrant client; langchain_qdrant opens only Qdrant servers and qdrant+memory://"
        )
    arguments: dict[str, Any] = {"client": store.client, "collection_name": store.collection}
    if spec.analyzer == ANALYZER:
        arguments |= {
            "retrieval_mode": RetrievalMode.HYBRID,
            "sparse_embedding": C2LLMSparseEmbeddings(),
            "sparse_vector_name": "lexical",
        }
    return arguments


class C2LLMSparseEmbeddings(SparseEmbeddings):
    """BM25 weights of identifiers, their parts and stems, as our own stores compute them.

    For `QdrantVectorStore` in HYBRID or SPARSE mode. Qdrant adds the weight of rare terms: create the collection with
    `sparse_vector_params=models.SparseVectorParams(modifier=models.Modifier.IDF)`.
    """

    def embed_documents(self, texts: list[str]) -> list[SparseVector]:
        """Return the weighted terms of each text."""
        weighted = sparse_texts(listed(texts, str, "texts"))
        return [SparseVector(indices=indices, values=values) for indices, values in weighted]

    def embed_query(self, text: str) -> SparseVector:
        """Return the terms of a query, each with weight 1."""
        indices, values = sparse_query(query_terms(text))
        return SparseVector(indices=indices, values=values)
