"""Our search as LlamaIndex's retriever, and our ranking as its node postprocessor, `C2LLMRerank`."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from llama_index.core import instrumentation
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import ConfigDict, Field
from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import NodeWithScore, QueryBundle

from c2llm_integrations.errors import InputError
from c2llm_integrations.llama_index.embeddings import C2LLMEmbedding
from c2llm_integrations.llama_index.nodes import NODE_FIELDS, node_of, text_of
from c2llm_integrations.retrieval.clashing_fields import given_metadata
from c2llm_integrations.retrieval.document_store import refuse_unknown, rerank
from c2llm_integrations.retrieval.options import SearchOptions
from c2llm_integrations.retrieval.search import for_model, warned_mode_for
from c2llm_integrations.retrieval.store_handles import STORE_WAIT_SECONDS, shared_store
from c2llm_integrations.stores.vector_store import VectorStore

_dispatcher = instrumentation.get_dispatcher(__name__)  # type: ignore[attr-defined]  # a re-export
# The options of `search` that the retriever takes by the same name.
OPTIONS = tuple(one.name for one in fields(SearchOptions) if one.name != "limit")


class C2LLMRetriever(BaseRetriever):
    """Search a collection that `c2llm index`, `ingest`, one of our vector stores or one of LlamaIndex's has filled."""

    def __init__(
        self,
        store: str | VectorStore,
        collection: str = "code",
        *,
        embed_model: C2LLMEmbedding | None = None,
        similarity_top_k: int = 10,
        score_threshold: float | None = None,
        callback_manager: CallbackManager | None = None,
        **options: Any,
    ) -> None:
        """Name a store; `similarity_top_k`, `score_threshold` and the mapping `options` can be set later too.

        Args:
            store: A URL, opened on first use and shared by all objects with that URL, or an open store. The key of a
                server comes from the environment.
            collection: The collection to open; an open store has its own.
            embed_model: The model that embeds the query; None for the model that the collection was made with.
            similarity_top_k: How many nodes to return.
            score_threshold: The lowest score (0…1) of a node to return.
            callback_manager: Receives LlamaIndex's events.
            options: Those of `search`: `language`, `path`, `repository`, `kind`, `where`, `mode`, `rules`.

        Raises:
            InputError: If an option does not exist. Retrieving raises the errors of `search` and `open_store`.

        """
        super().__init__(callback_manager)
        refuse_unknown(options, OPTIONS)
        self._source = shared_store(store, collection, STORE_WAIT_SECONDS)
        self.embed_model = embed_model
        self.similarity_top_k = similarity_top_k
        self.score_threshold = score_threshold
        self.options = options

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return self._search(query_bundle.query_str)

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return await self._source.hand_over(self._search, query_bundle.query_str)

    def _search(self, query: str) -> list[NodeWithScore]:
        refuse_unknown(self.options, OPTIONS)
        options = SearchOptions(limit=self.similarity_top_k, **self.options)
        hits = self._source.search(query, options, self.embed_model, self.score_threshold)
        found = [(node_of(hit.record, given_metadata(hit.record, NODE_FIELDS)), hit.score) for hit in hits]
        return [NodeWithScore(node=node, score=score) for node, score in found]


class C2LLMRerank(BaseNodePostprocessor):
    """Order the nodes of any retriever as `search` does: by vectors, words and the rules for code.

    Args:
        embed_model: The model that embeds the query and the nodes.
        top_n: How many nodes to return.

    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    embed_model: BaseEmbedding = Field(default_factory=C2LLMEmbedding)
    top_n: int = Field(default=10, gt=0)

    @classmethod
    def class_name(cls) -> str:
        """Return the name under which LlamaIndex serializes this class."""
        return "C2LLMRerank"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        if query_bundle is None:
            raise InputError("C2LLMRerank needs the query; pass query_str or query_bundle")
        query, name = query_bundle.query_str, self.embed_model.model_name
        _dispatcher.event(ReRankStartEvent(query=query_bundle, nodes=nodes, top_n=self.top_n, model_name=name))
        asked: dict[str, Any] = {
            EventPayload.NODES: nodes,
            EventPayload.QUERY_STR: query,
            EventPayload.TOP_K: self.top_n,
            EventPayload.MODEL_NAME: name,
        }
        with self.callback_manager.event(CBEventType.RERANKING, asked) as event:
            best = self._best(nodes, query_bundle)
            event.on_end({EventPayload.NODES: best})
        _dispatcher.event(ReRankEndEvent(nodes=best))
        return best

    def _best(self, nodes: list[NodeWithScore], query_bundle: QueryBundle) -> list[NodeWithScore]:
        query = query_bundle.query_str
        found = [(text_of(one.node), one.node.metadata) for one in nodes]
        own = self.embed_model
        if isinstance(own, C2LLMEmbedding) and warned_mode_for(query, "hybrid", own.embedder) == "lexical":
            ranked = rerank(query, found, None, [], self.top_n)
        else:
            vectors = own.get_text_embedding_batch([text for text, _ in found])
            question = query_bundle.embedding or own.get_query_embedding(for_model(query))
            ranked = rerank(query, found, question, vectors, self.top_n)
        return [NodeWithScore(node=nodes[place].node, score=score) for place, score in ranked]
