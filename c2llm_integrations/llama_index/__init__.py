"""LlamaIndex: an embedding, a vector store for any database, a retriever, a reranker, and code as documents and nodes.

from c2llm_integrations.llama_index import C2LLMEmbedding, C2LLMVectorStore

embedding = C2LLMEmbedding()
store = C2LLMVectorStore(store="qdrant+http://localhost:6333", collection="answers", embed_model=embedding)
index = VectorStoreIndex.from_vector_store(store, embed_model=embedding)
"""

from __future__ import annotations

from c2llm_integrations.errors import MissingExtra

try:
    import llama_index.core  # noqa: F401
except ImportError as error:
    raise MissingExtra("llama-index-core", "llama-index") from error

from c2llm_integrations.llama_index.code_reader import C2LLMCodeReader, C2LLMNodeParser
from c2llm_integrations.llama_index.embeddings import C2LLMEmbedding, sparse_doc_fn, sparse_query_fn
from c2llm_integrations.llama_index.retriever import C2LLMRerank, C2LLMRetriever
from c2llm_integrations.llama_index.vector_store import C2LLMVectorStore

__all__ = [
    "C2LLMCodeReader",
    "C2LLMEmbedding",
    "C2LLMNodeParser",
    "C2LLMRerank",
    "C2LLMRetriever",
    "C2LLMVectorStore",
    "sparse_doc_fn",
    "sparse_query_fn",
]
