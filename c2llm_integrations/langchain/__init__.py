"""LangChain: embeddings, a vector store for any database, a retriever, a reranker, and code as documents.

    from c2llm_integrations.langchain import C2LLMEmbeddings, C2LLMVectorStore

    store = C2LLMVectorStore("qdrant+http://localhost:6333", "answers", embedding=C2LLMEmbeddings())
    store.add_documents(documents)
    store.similarity_search("retry with backoff", filter={"tenant": "acme"})

`C2LLMSparseEmbeddings` and `C2LLMMilvusSparseEmbedding` each need another LangChain package, which is imported on first
use, as is langchain-text-splitters by `C2LLMCodeSplitter` where it is installed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from c2llm_integrations.errors import MissingExtra

try:
    import langchain_core  # noqa: F401
except ImportError as error:
    raise MissingExtra("langchain-core", "langchain") from error

from c2llm_integrations.langchain.embeddings import C2LLMEmbeddings
from c2llm_integrations.langchain.loader import C2LLMCodeLoader
from c2llm_integrations.langchain.reranker import C2LLMReranker
from c2llm_integrations.langchain.retriever import C2LLMRetriever
from c2llm_integrations.langchain.store_arguments import langchain_milvus_arguments, langchain_qdrant_arguments
from c2llm_integrations.langchain.vector_store import C2LLMVectorStore

if TYPE_CHECKING:
    from c2llm_integrations.langchain.milvus_sparse import C2LLMMilvusSparseEmbedding
    from c2llm_integrations.langchain.qdrant_sparse import C2LLMSparseEmbeddings
    from c2llm_integrations.langchain.splitter import C2LLMCodeSplitter

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

# Name → its module and the LangChain package that it imports.
_LAZY = {
    "C2LLMCodeSplitter": ("splitter", "langchain-text-splitters"),
    "C2LLMMilvusSparseEmbedding": ("milvus_sparse", "langchain-milvus"),
    "C2LLMSparseEmbeddings": ("qdrant_sparse", "langchain-qdrant"),
}


def __getattr__(name: str) -> object:
    """Import a class that imports another package."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, package = _LAZY[name]
    try:
        value = getattr(import_module(f"{__name__}.{module}"), name)
    except ModuleNotFoundError as error:
        raise ImportError(f"{name} needs {package}; run: pip install {package}") from error
    globals()[name] = value
    return value
