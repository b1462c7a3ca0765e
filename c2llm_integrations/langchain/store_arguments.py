"""How LangChain's own stores open our collections."""

from __future__ import annotations

import os
from typing import Any

from c2llm_integrations.code.lexical_terms import ANALYZER
from c2llm_integrations.errors import InputError
from c2llm_integrations.retrieval.search import spec_of
from c2llm_integrations.stores import DATABASES
from c2llm_integrations.stores.row_fields import OwnField
from c2llm_integrations.stores.vector_store import VectorStore

_VECTOR, _TERMS, _LEXICAL = "vector", "terms", "lexical"


def langchain_milvus_arguments(store: VectorStore) -> dict[str, Any]:
    """Return the arguments that open one of our collections in `langchain_milvus.Milvus`.

        Milvus(embeddings, **langchain_milvus_arguments(store))

    If the collection has a lexical index, the result searches words and vectors together; `Milvus` then asks each for
    `fetch_k` rows, 4 by default, so give at least `k`: `similarity_search(question, k=10, fetch_k=50)`. Close a Milvus
    Lite store first: its file can be opened only once, and LangChain's store keeps it until the process ends. A store
    made from your own client has no address; add `connection_args`.

    Raises:
        InputError: If the store is not a Milvus store.
        StoreError: If the collection does not exist.

    """
    from c2llm_integrations.stores.milvus.store import MilvusStore

    spec = spec_of(store)
    if not isinstance(store, MilvusStore):
        raise InputError(f"{store.url} is not a Milvus store; langchain_milvus opens no other")
    scheme, _, place = store.url.partition("://")
    arguments: dict[str, Any] = {
        "collection_name": store.collection,
        "primary_field": "id",
        "text_field": OwnField.TEXT,
        "vector_field": _VECTOR,
        "search_params": {"metric_type": "COSINE"},
        "enable_dynamic_field": True,
    }
    if place:
        is_lite = scheme == "milvus+lite"
        uri = os.path.expanduser(place) if is_lite else store.url.removeprefix("milvus+")
        token = os.environ.get(DATABASES["milvus+http"].key, "").strip()
        arguments["connection_args"] = {"uri": uri} | ({"token": token} if token and not is_lite else {})
    if spec.analyzer == ANALYZER:
        arguments |= {
            "vector_field": [_VECTOR, _LEXICAL],
            "builtin_function": _terms_function(),
            "search_params": [{"metric_type": "COSINE"}, {"metric_type": "BM25"}],
        }
    return arguments


def _terms_function() -> Any:
    """Return the function that makes the lexical vectors, as `langchain_milvus.Milvus` takes it."""
    from langchain_milvus import BM25BuiltInFunction

    class Terms(BM25BuiltInFunction):
        @property
        def type(self) -> Any:
            # At each search, langchain-milvus 0.4 adds the field of a function of type BM25 to the store's list of
            # vector fields, where it is already: the second search has a weight too many, and Milvus refuses it.
            return super().type.__class__.UNKNOWN

    return Terms(input_field_names=_TERMS, output_field_names=_LEXICAL)


def langchain_qdrant_arguments(store: VectorStore) -> dict[str, Any]:
    """Return the arguments that open one of our collections in `langchain_qdrant.QdrantVectorStore`.

        QdrantVectorStore(embedding=embeddings, **langchain_qdrant_arguments(store))

    If the collection has a lexical index, the result searches words and vectors together. It works as long as `store`
    is open.

    Raises:
        InputError: If the store is neither on a Qdrant server nor in memory.
        StoreError: If the collection does not exist.

    """
    from langchain_qdrant import RetrievalMode

    from c2llm_integrations.langchain.qdrant_sparse import C2LLMSparseEmbeddings

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
            "sparse_vector_name": _LEXICAL,
        }
    return arguments
