"""Our ranking as LlamaIndex's node postprocessor."""

from __future__ import annotations

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import ConfigDict, Field
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle

from c2llm_integrations.errors import InputError
from c2llm_integrations.llama_index.embeddings import C2LLMEmbedding
from c2llm_integrations.retrieval.document_store import rerank
from c2llm_integrations.retrieval.search import for_model, warned_mode_for


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
        query = query_bundle.query_str
        found = [(one.node.get_content(metadata_mode=MetadataMode.NONE), one.node.metadata) for one in nodes]
        own = self.embed_model
        if isinstance(own, C2LLMEmbedding) and warned_mode_for(query, "hybrid", own.embedder) == "lexical":
            ranked = rerank(query, found, None, [], self.top_n)
        else:
            vectors = own.get_text_embedding_batch([text for text, _ in found])
            question = query_bundle.embedding or own.get_query_embedding(for_model(query))
            ranked = rerank(query, found, question, vectors, self.top_n)
        return [NodeWithScore(node=nodes[place].node, score=score) for place, score in ranked]
