"""LlamaIndex: C2LLM's embedding, a retriever over any store, and the code chunker as a node parser."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from c2llm_integrations.code.chunking import CHUNK_CHARS, chunk_source
from c2llm_integrations.errors import MissingExtra
from c2llm_integrations.shared_model import SharedModel, settings_of, shared_model
from c2llm_integrations.shared_store import shared_store
from c2llm_integrations.stores.base import Hit, VectorStore
from c2llm_integrations.stores.rows import METADATA_FIELD, payload_of

try:
    from llama_index.core.base.base_retriever import BaseRetriever
    from llama_index.core.base.embeddings.base import BaseEmbedding
    from llama_index.core.bridge.pydantic import ConfigDict, Field, PrivateAttr
    from llama_index.core.callbacks import CallbackManager
    from llama_index.core.node_parser import NodeParser
    from llama_index.core.node_parser.node_utils import default_id_func
    from llama_index.core.schema import (
        BaseNode,
        MetadataMode,
        NodeRelationship,
        NodeWithScore,
        QueryBundle,
        TextNode,
    )
    from llama_index.core.utils import get_tqdm_iterable
    from llama_index_instrumentation.dispatcher import DISPATCHER_SPAN_DECORATED_ATTR
except ImportError as error:
    raise MissingExtra("llama-index-core", "llama-index") from error

# Texts handed to the model at once: enough to sort like lengths together, and what one event reports.
EMBED_BATCH = 512

_F = TypeVar("_F", bound=Callable[..., Any])


def _without_span(method: _F) -> _F:
    """Mark an override that only calls the base class, whose own span is the one to record."""
    setattr(method, DISPATCHER_SPAN_DECORATED_ATTR, True)
    return method


class C2LLMEmbedding(BaseEmbedding):
    """C2LLM's vectors for LlamaIndex. The model loads on first use; objects of equal settings share it.

    `model_name` is "nano", a folder, or a hub id; `query_task` chooses the prompt of queries (None: the checkpoint's
    own, else the published one for code search). The other fields, and the errors, are those of
    `C2LLMEmbedder.from_pretrained`. An `embeddings_cache` may be shared with other models and holds queries and texts
    apart.
    """

    model_config = ConfigDict(extra="forbid")

    model_name: str = Field(default="nano", description="nano, a folder, or a hub id.")
    revision: str | None = Field(default=None, description="Revision of a hub id.")
    output_dim: int | None = Field(default=None, description="Width of the vectors; None for the checkpoint's own.")
    dtype: str = Field(default="auto", description="auto, float32, bfloat16, float16 or int8.")
    device: str = Field(default="auto", description="auto, cpu, cuda, cuda:1, several: cuda:0,cuda:1, …")
    max_length: int = Field(default=2048, description="Tokens read of each text.")
    normalize: bool = Field(default=True, description="Whether vectors have unit length.")
    head: str | None = Field(default=None, description="File of a trained head of another width.")
    projection: str | None = Field(default=None, description="File of a fitted projection to fewer dimensions.")
    truncate: int | None = Field(default=None, description="How many of the first dimensions to keep.")
    batch_tokens: int | None = Field(default=None, description="Tokens computed at once; None for what suits.")
    query_task: str | None = Field(default=None, description="The published task whose prompt queries get.")
    embed_batch_size: int = Field(default=EMBED_BATCH, description="Texts embedded together.", gt=0, le=2048)

    _shared: SharedModel | None = PrivateAttr(default=None)

    @classmethod
    def class_name(cls) -> str:
        """Return the name under which LlamaIndex serialises this class."""
        return "C2LLMEmbedding"

    @property
    def shared(self) -> SharedModel:
        """The model behind these settings, which this process loads once."""
        self._shared = shared_model(settings_of(self))  # asked again each time, because a field may have been set since
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

    # The base class looks a text up in its cache by nothing but itself: the same words as a query, or embedded by
    # another model, would be given the wrong vector. So each call runs on a copy whose cache knows what is asked.

    def _caching(self, *role: str | None) -> C2LLMEmbedding:
        if self.embeddings_cache is None or isinstance(self.embeddings_cache, _ScopedCache):
            return self
        scope = repr((self.shared.settings, role))
        return self.model_copy(update={"embeddings_cache": _ScopedCache(self.embeddings_cache, scope)})

    @_without_span
    def get_query_embedding(self, query: str) -> list[float]:
        """See the base class."""
        return super(C2LLMEmbedding, self._caching("query", self.query_task)).get_query_embedding(query)

    @_without_span
    async def aget_query_embedding(self, query: str) -> list[float]:
        """See the base class."""
        return await super(C2LLMEmbedding, self._caching("query", self.query_task)).aget_query_embedding(query)

    @_without_span
    def get_text_embedding(self, text: str) -> list[float]:
        """See the base class."""
        return super(C2LLMEmbedding, self._caching("text")).get_text_embedding(text)

    @_without_span
    async def aget_text_embedding(self, text: str) -> list[float]:
        """See the base class."""
        return await super(C2LLMEmbedding, self._caching("text")).aget_text_embedding(text)

    @_without_span
    def get_text_embedding_batch(
        self, texts: list[str], show_progress: bool = False, **kwargs: Any
    ) -> list[list[float]]:
        """See the base class."""
        texts = list(texts)
        return super(C2LLMEmbedding, self._caching("text")).get_text_embedding_batch(texts, show_progress, **kwargs)

    @_without_span
    async def aget_text_embedding_batch(
        self, texts: list[str], show_progress: bool = False, **kwargs: Any
    ) -> list[list[float]]:
        """See the base class."""
        caching = self._caching("text")
        return await super(C2LLMEmbedding, caching).aget_text_embedding_batch(list(texts), show_progress, **kwargs)


class _ScopedCache:
    """The part of a user's cache that holds one kind of vector."""

    def __init__(self, cache: Any, scope: str) -> None:
        self._cache = cache
        self._scope = scope

    def _key(self, text: str) -> str:
        return hashlib.sha256(f"{self._scope}\0{text}".encode("utf-8", "surrogatepass")).hexdigest()

    def get(self, key: str, collection: str) -> Any:
        """Return what is kept for a text of this kind, None if nothing is."""
        return self._cache.get(key=self._key(key), collection=collection)

    def put(self, key: str, val: Any, collection: str) -> None:
        """Keep the vector of a text of this kind."""
        self._cache.put(key=self._key(key), val=val, collection=collection)

    async def aget(self, key: str, collection: str) -> Any:
        """The same as `get`, by the user's own asynchronous method."""
        return await self._cache.aget(key=self._key(key), collection=collection)

    async def aput(self, key: str, val: Any, collection: str) -> None:
        """The same as `put`, by the user's own asynchronous method."""
        await self._cache.aput(key=self._key(key), val=val, collection=collection)


class C2LLMNodeParser(NodeParser):
    """Cuts documents into whole functions, methods and classes where they fit `max_chars`.

    The language is told from the document's metadata "path", else "file_path", else "file_name". Node ids depend only
    on repository, path and text, unless an `id_func` is given. Metadata is shown to language models but not embedded:
    a node's vector is that of its code.
    """

    max_chars: int = Field(default=CHUNK_CHARS, gt=0, description="Characters of a chunk at most.")
    repository: str = Field(default="", description="Name of the repository, where a document's metadata has none.")

    @classmethod
    def class_name(cls) -> str:
        """Return the name under which LlamaIndex serialises this class."""
        return "C2LLMNodeParser"

    def _parse_nodes(self, nodes: Sequence[BaseNode], show_progress: bool = False, **kwargs: Any) -> list[BaseNode]:
        return [
            piece for node in get_tqdm_iterable(nodes, show_progress, "Parsing code") for piece in self._pieces(node)
        ]

    def _pieces(self, node: BaseNode) -> list[TextNode]:
        own = node.metadata
        path = str(next((own[key] for key in ("path", "file_path", "file_name") if own.get(key)), ""))
        repository = str(own.get("repository") or self.repository)
        text = node.get_content(metadata_mode=MetadataMode.NONE)
        pieces = []
        for number, chunk in enumerate(chunk_source(repository, path, text, self.max_chars)):
            metadata = payload_of(chunk)[METADATA_FIELD]
            own_id = self.id_func is not default_id_func
            pieces.append(
                TextNode(
                    id_=self.id_func(number, node) if own_id else chunk.id,
                    text=chunk.text,
                    metadata=metadata,
                    excluded_embed_metadata_keys=sorted({*own, *metadata}),
                    excluded_llm_metadata_keys=list(node.excluded_llm_metadata_keys),
                    relationships={NodeRelationship.SOURCE: node.as_related_node_info()},
                )
            )
        return pieces


class C2LLMRetriever(BaseRetriever):
    """Search over a collection that `c2llm index` or `ingest` wrote."""

    def __init__(
        self,
        store: str | VectorStore,
        collection: str = "code",
        *,
        embed_model: C2LLMEmbedding | None = None,
        similarity_top_k: int = 10,
        language: str | None = None,
        path: str | None = None,
        repository: str | None = None,
        score_threshold: float | None = None,
        callback_manager: CallbackManager | None = None,
    ) -> None:
        """`store` is a URL, opened on first use and shared by all that name it, or an open store of any collection.

        `embed_model` defaults to the model that the collection was made with. `language`, `path` and `repository` are
        the filters of `search`; hits below `score_threshold` (scores lie in 0…1) are left out. A server's key comes
        from the environment. Retrieving raises the errors of `search` and `open_store`.
        """
        super().__init__(callback_manager)
        self._source = shared_store(store, collection)
        self._embed_model = embed_model
        self._threshold = score_threshold
        self._options = {"limit": similarity_top_k, "language": language, "path": path, "repository": repository}

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return [_found(hit) for hit in self._search(query_bundle.query_str)]

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        hits = await self._source.hand_over(self._search, query_bundle.query_str)
        return [_found(hit) for hit in hits]

    def _search(self, query: str) -> list[Hit]:
        own = self._embed_model
        model, task = (own.shared, own.query_task) if own else (None, None)
        return self._source.search(query, model, task, self._threshold, **self._options)


def _found(hit: Hit) -> NodeWithScore:
    metadata = payload_of(hit.chunk)[METADATA_FIELD]
    node = TextNode(
        id_=hit.chunk.id, text=hit.chunk.text, metadata=metadata, excluded_embed_metadata_keys=sorted(metadata)
    )
    return NodeWithScore(node=node, score=hit.score)
