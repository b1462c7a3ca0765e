"""LangChain's own Milvus store: how it opens our collections, and our lexical terms as its sparse vectors."""

from __future__ import annotations

import os
from typing import Any

from langchain_milvus import BM25BuiltInFunction
from langchain_milvus.utils.sparse import BaseSparseEmbedding

from c2llm_integrations.code.lexical_terms import ANALYZER, query_terms, sparse_query, sparse_texts
from c2llm_integrations.errors import InputError
from c2llm_integrations.retrieval.search import spec_of
from c2llm_integrations.stores import DATABASES
from c2llm_integrations.stores.milvus.store import MilvusStore
from c2llm_integrations.stores.row_checks import listed
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
    spec = spec_of(store)
    if not isinstance(store, MilvusStore):
        raise InputError(f"{store.url} is not a Milvus store, the only kind that langchain_milvus opens")
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
            "builtin_function": _Terms(input_field_names=_TERMS, output_field_names=_LEXICAL),
            "search_params": [{"metric_type": "COSINE"}, {"metric_type": "BM25"}],
        }
    return arguments


class _Terms(BM25BuiltInFunction):
    """The function that makes the lexical vectors."""

    @property
    def type(self) -> Any:
        """The type of the function: none that langchain-milvus knows."""
        # At each search, langchain-milvus 0.4 adds the field of a function of type BM25 to the store's list of
        # vector fields, where it is already: the second search has a weight too many, and Milvus refuses it.
        return super().type.__class__.UNKNOWN


class C2LLMMilvusSparseEmbedding(BaseSparseEmbedding):
    """BM25 weights of identifiers, their parts and stems, for the sparse vector field of `Milvus`.

    Its index compares by inner product ("metric_type": "IP"), which ignores how rare a term is. If the server has the
    built-in BM25 function, one of our collections (`langchain_milvus_arguments`) ranks better.
    """

    def embed_documents(self, texts: list[str]) -> list[dict[int, float]]:
        """Return the terms of each text and their weights."""
        weighted = sparse_texts(listed(texts, str, "texts"))
        return [dict(zip(indices, values, strict=True)) for indices, values in weighted]

    def embed_query(self, query: str) -> dict[int, float]:
        """Return the terms of a query, each with weight 1."""
        return dict(zip(*sparse_query(query_terms(query)), strict=True))
