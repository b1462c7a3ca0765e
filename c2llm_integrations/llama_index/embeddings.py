"""C2LLM's vectors as LlamaIndex's embedding, and lexical terms as the sparse vectors of its Qdrant store."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import ConfigDict, Field, PrivateAttr, create_model

from c2llm_integrations.code.lexical_terms import query_terms, sparse_query, sparse_texts
from c2llm_integrations.model.options import ModelOptions
from c2llm_integrations.model.shared_model import SharedModel, shared_model
from c2llm_integrations.stores.row_checks import listed, require

if TYPE_CHECKING:
    from c2llm_integrations.model.embedder import C2LLMEmbedder

_Sparse = tuple[list[list[int]], list[list[float]]]
# Texts passed to the model at once: enough to batch equal lengths together. One event reports as many.
EMBED_BATCH = 512

# Every model option becomes a field. The name gets a field of its own, because LlamaIndex calls it `model_name`.
_Options: Any = create_model("_Options", __base__=BaseEmbedding, **ModelOptions.as_fields())


def _with_own_cache(name: str, role: str, several: str = "") -> Any:
    """Return a method of the base class that runs on a copy whose cache holds only vectors of this model and role.

    The base class takes the text alone as the key. `several`: its argument of many texts, for which one string is
    refused, since its characters would be embedded.
    """
    method: Callable[..., Any] = getattr(BaseEmbedding, name)

    @functools.wraps(method)
    def run(self: C2LLMEmbedding, *args: Any, **kwargs: Any) -> Any:
        given = args[0] if args else kwargs.get(several)
        if several and isinstance(given, str):
            require(given, list, f"a list of {several}")
        return method(self._caching(role), *args, **kwargs)

    return run


class C2LLMEmbedding(_Options):  # type: ignore[misc]
    """Embed texts and queries with C2LLM. The model loads on first use; objects with equal options share it.

    Args:
        model_name: "nano", a folder, a hub id, or a server's URL.
        query_task: The task whose prompt queries get; None for the checkpoint's own prompt, else that for code search.
        embed_batch_size: How many texts to embed together.
        embeddings_cache: A cache. Other models may share it.
        options: Those of `C2LLMEmbedder.from_pretrained`. Its errors are raised on first use.

    """

    model_config = ConfigDict(extra="forbid")

    model_name: str = Field(default="nano", description="nano, a folder, a hub id, or a server's URL.")
    query_task: str | None = Field(default=None, description="The published task whose prompt queries get.")
    embed_batch_size: int = Field(default=EMBED_BATCH, description="Texts embedded together.", gt=0, le=2048)

    _shared: SharedModel | None = PrivateAttr(default=None)

    @classmethod
    def class_name(cls) -> str:
        """Return the name under which LlamaIndex serializes this class."""
        return "C2LLMEmbedding"

    @property
    def embedder(self) -> C2LLMEmbedder:
        """The embedder for these options. A process loads it once."""
        return self.shared.embedder

    @property
    def shared(self) -> SharedModel:
        """The handle of the embedder, which may not be loaded yet."""
        self._shared = shared_model(ModelOptions.of(self))  # every time, because a field may have been set since
        return self._shared

    def _get_query_embedding(self, query: str) -> list[float]:
        return self.shared.queries([query], self.query_task)[0]

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return await self.shared.aquery(query, self.query_task)

    def _get_text_embedding(self, text: str) -> list[float]:
        return self.shared.documents([text])[0]

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return (await self._aget_text_embeddings([text]))[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return self.shared.documents(texts)

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        shared = self.shared
        return await shared.hand_over(shared.documents, texts)

    get_query_embedding = _with_own_cache("get_query_embedding", "query")
    aget_query_embedding = _with_own_cache("aget_query_embedding", "query")
    get_text_embedding = _with_own_cache("get_text_embedding", "text")
    aget_text_embedding = _with_own_cache("aget_text_embedding", "text")
    get_text_embedding_batch = _with_own_cache("get_text_embedding_batch", "text", "texts")
    aget_text_embedding_batch = _with_own_cache("aget_text_embedding_batch", "text", "texts")
    get_agg_embedding_from_queries = _with_own_cache("get_agg_embedding_from_queries", "query", "queries")
    aget_agg_embedding_from_queries = _with_own_cache("aget_agg_embedding_from_queries", "query", "queries")

    def _caching(self, role: str) -> C2LLMEmbedding:
        if self.embeddings_cache is None or isinstance(self.embeddings_cache, _ScopedCache):
            return self
        kind = (role, self.query_task) if role == "query" else (role,)
        scope = repr((self.shared.options, kind))
        copy: C2LLMEmbedding = self.model_copy(update={"embeddings_cache": _ScopedCache(self.embeddings_cache, scope)})
        return copy


class _ScopedCache:
    """The part of a user's cache that holds one kind of vector."""

    def __init__(self, cache: Any, scope: str) -> None:
        self._cache = cache
        self._scope = scope

    def _key(self, text: str) -> str:
        return hashlib.sha256(f"{self._scope}\0{text}".encode("utf-8", "surrogatepass")).hexdigest()

    def get(self, key: str, collection: str) -> Any:
        """Return the cached vector of a text, or None."""
        return self._cache.get(key=self._key(key), collection=collection)

    def put(self, key: str, val: Any, collection: str) -> None:
        """Cache the vector of a text."""
        self._cache.put(key=self._key(key), val=val, collection=collection)

    async def aget(self, key: str, collection: str) -> Any:
        """Await `aget` of the user's cache."""
        return await self._cache.aget(key=self._key(key), collection=collection)

    async def aput(self, key: str, val: Any, collection: str) -> None:
        """Await `aput` of the user's cache."""
        await self._cache.aput(key=self._key(key), val=val, collection=collection)


def sparse_doc_fn(texts: list[str]) -> _Sparse:
    """Return the terms of documents and their weights, for `QdrantVectorStore(enable_hybrid=True, sparse_doc_fn=…)`.

    Qdrant adds the weight of rare terms: create that store with
    `sparse_config=models.SparseVectorParams(modifier=models.Modifier.IDF)`.
    """
    weighted = sparse_texts(listed(texts, str, "texts"))
    return [terms for terms, _ in weighted], [weights for _, weights in weighted]


def sparse_query_fn(texts: list[str]) -> _Sparse:
    """Return the terms of queries, each with weight 1. The counterpart of `sparse_doc_fn`."""
    asked = [sparse_query(query_terms(text)) for text in listed(texts, str, "texts")]
    return [terms for terms, _ in asked], [weights for _, weights in asked]
