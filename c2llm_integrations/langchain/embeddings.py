"""C2LLM's vectors as LangChain's embeddings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from langchain_core.embeddings import Embeddings
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, create_model

from c2llm_integrations.model.options import ModelOptions
from c2llm_integrations.model.shared_model import SharedModel, shared_model

if TYPE_CHECKING:
    from c2llm_integrations.model.embedder import C2LLMEmbedder

# Every model option becomes a field. The name gets a field of its own, because LangChain calls it `model`.
_Options: Any = create_model("_Options", __base__=BaseModel, **ModelOptions.as_fields())


class C2LLMEmbeddings(_Options, Embeddings):  # type: ignore[misc]
    """Embed documents and queries with C2LLM. The model loads on first use; objects with equal options share it.

    Args:
        model: "nano", a folder, a hub id, or a server's URL; also called `model_name`.
        query_task: The task whose prompt queries get; None for the checkpoint's own prompt, else that for code search.
        show_progress: Whether to show a progress bar on a terminal.
        options: Those of `C2LLMEmbedder.from_pretrained`. Its errors are raised on first use.

    """

    model_config = ConfigDict(extra="forbid", populate_by_name=True, protected_namespaces=())

    model_name: str = Field(default="nano", alias="model")
    query_task: str | None = None
    show_progress: bool = False

    _shared: SharedModel | None = PrivateAttr(default=None)

    @property
    def model(self) -> str:
        """The name of the model, as LangChain's programs read it."""
        return str(self.model_name)

    @property
    def embedder(self) -> C2LLMEmbedder:
        """The embedder for these options. A process loads it once."""
        return self.shared.embedder

    @property
    def shared(self) -> SharedModel:
        """The handle of the embedder, which may not be loaded yet."""
        self._shared = shared_model(ModelOptions.of(self))  # every time, because a field may have been set since
        return self._shared

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return one list of `output_dim` floats for each document."""
        return self.shared.documents(texts, progress=self.show_progress)

    def embed_query(self, text: str) -> list[float]:
        """Return the `output_dim` floats of a question."""
        return self.shared.queries([text], self.query_task)[0]

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """Run `embed_documents` in another thread."""
        shared = self.shared
        return await shared.hand_over(shared.documents, texts, progress=self.show_progress)

    async def aembed_query(self, text: str) -> list[float]:
        """Embed a query in one batch with all queries that wait at the same time."""
        return await self.shared.aquery(text, self.query_task)
