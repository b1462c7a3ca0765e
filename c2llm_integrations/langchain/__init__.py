"""LangChain: embeddings, a vector store for any database, a retriever, a reranker, and code as documents.

    from c2llm_integrations.langchain import C2LLMEmbeddings, C2LLMVectorStore

    store = C2LLMVectorStore("qdrant+http://localhost:6333", "answers", embedding=C2LLMEmbeddings())
    store.add_documents(documents)
    store.similarity_search("retry with backoff", filter={"tenant": "acme"})

What belongs to LangChain's own stores needs their packages, langchain-qdrant and langchain-milvus, and is imported on
first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from c2llm_integrations.errors import MissingExtra

try:
    import langchain_core  # noqa: F401
except ImportError as error:
    raise MissingExtra("langchain-core", "langchain") from error

from c2llm_integrations.langchain.code_documents import C2LLMCodeLoader, C2LLMCodeSplitter
from c2llm_integrations.langchain.embeddings import C2LLMEmbeddings
from c2llm_integrations.langchain.retriever import C2LLMReranker, C2LLMRetriever
from c2llm_integrations.langchain.vector_store import C2LLMVectorStore

if TYPE_CHECKING:
    from c2llm_integrations.langchain.milvus import C2LLMMilvusSparseEmbedding, langchain_milvus_arguments
    from c2llm_integrations.langchain.qdrant import C2LLMSparseEmbeddings, langchain_qdrant_arguments

__all__ = [
    "C2LLMCodeLoader",
    "C2LLMCodeSplitter",
    "C2LLMEmbeddings",
    "C2LLMMilvusSparseEmbedding",
    "C2LLMReranker",
    "C2LLMRetriever",
    "C2LLMSparseEmbeddings",
    "C2LLMVectorStore",
    "langchain_milvus_arguments",
    "langchain_qdrant_arguments",
]

# Name → the database whose module has it.
_LAZY = {
    **dict.fromkeys(("C2LLMMilvusSparseEmbedding", "langchain_milvus_arguments"), "milvus"),
    **dict.fromkeys(("C2LLMSparseEmbeddings", "langchain_qdrant_arguments"), "qdrant"),
}


def __getattr__(name: str) -> object:
    """Import what needs another package."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        value = getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
    except ModuleNotFoundError as error:
        package = f"langchain-{_LAZY[name]}"
        raise ImportError(f"{name} needs {package}; run: pip install {package}") from error
    globals()[name] = value
    return value
