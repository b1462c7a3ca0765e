"""LangChain: C2LLM's embeddings, a retriever over any store, and the code chunker as loader and splitter."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

from c2llm_integrations.code.chunk import CodeChunk
from c2llm_integrations.code.chunking import CHUNK_CHARS, chunk_source
from c2llm_integrations.code.repository import iter_sources, open_tree
from c2llm_integrations.errors import MissingExtra
from c2llm_integrations.shared_model import SharedModel, settings_of, shared_model
from c2llm_integrations.shared_store import SharedStore, shared_store
from c2llm_integrations.stores.base import Hit, VectorStore
from c2llm_integrations.stores.rows import METADATA_FIELD, payload_of

try:
    from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
    from langchain_core.document_loaders import BaseLoader
    from langchain_core.documents import BaseDocumentTransformer, Document
    from langchain_core.embeddings import Embeddings
    from langchain_core.retrievers import BaseRetriever
    from pydantic import BaseModel, ConfigDict, Field, PrivateAttr
except ImportError as error:
    raise MissingExtra("langchain-core", "langchain") from error


class C2LLMEmbeddings(BaseModel, Embeddings):
    """C2LLM's vectors for LangChain. The model loads on first use; objects of equal settings share it.

    `model` and `model_name` are one field: "nano", a folder, or a hub id. `query_task` chooses the prompt of queries
    (None: the checkpoint's own, else the published one for code search). `show_progress` lets a bar show on a
    terminal. The other fields, and the errors, are those of `C2LLMEmbedder.from_pretrained`.
    """

    model_config = ConfigDict(extra="forbid", populate_by_name=True, protected_namespaces=())

    model_name: str = Field(default="nano", alias="model")
    revision: str | None = None
    output_dim: int | None = None
    dtype: str = "auto"
    device: str = "auto"
    max_length: int = 2048
    normalize: bool = True
    head: str | None = None
    projection: str | None = None
    truncate: int | None = None
    batch_tokens: int | None = None
    query_task: str | None = None
    show_progress: bool = False

    _shared: SharedModel | None = PrivateAttr(default=None)

    @property
    def shared(self) -> SharedModel:
        """The model behind these settings, which this process loads once."""
        self._shared = shared_model(settings_of(self))  # asked again each time, because a field may have been set since
        return self._shared

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed documents: one list of `output_dim` floats each."""
        return self.shared.documents(texts, show_progress=self.show_progress)

    def embed_query(self, text: str) -> list[float]:
        """Embed a question: `output_dim` floats."""
        return self.shared.queries([text], self.query_task)[0]

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed documents in another thread."""
        shared = self.shared
        return await shared.hand_over(shared.documents, texts, show_progress=self.show_progress)

    async def aembed_query(self, text: str) -> list[float]:
        """Embed a question in another thread, in one batch with all that wait at the same time."""
        return await self.shared.aquery(text, self.query_task)


class C2LLMRetriever(BaseRetriever):
    """Search over a collection that `c2llm index` or `ingest` wrote.

    `store` is a URL, opened on first use and shared by all retrievers that name it, or an open `VectorStore`, whose own
    collection is then searched. `embeddings` defaults to the model that the collection was made with. `language`,
    `path` and `repository` are the filters of `search`; hits below `score_threshold` (scores lie in 0…1) are left out.
    `k`, `language` and `path` can be given to `invoke` too. A server's key comes from the environment. Errors are those
    of `search` and `open_store`.
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    store: str | VectorStore
    collection: str = "code"
    embeddings: C2LLMEmbeddings | None = None
    k: int = 10
    language: str | None = None
    path: str | None = None
    repository: str | None = None
    score_threshold: float | None = None

    _shared: SharedStore | None = PrivateAttr(default=None)

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,
        k: int | None = None,
        language: str | None = None,
        path: str | None = None,
    ) -> list[Document]:
        hits = self._source().search(query, **self._options(k, language, path))
        return [_found(hit) for hit in hits]

    async def _aget_relevant_documents(
        self,
        query: str,
        *,
        run_manager: AsyncCallbackManagerForRetrieverRun,
        k: int | None = None,
        language: str | None = None,
        path: str | None = None,
    ) -> list[Document]:
        source = self._source()
        hits = await source.hand_over(source.search, query, **self._options(k, language, path))
        return [_found(hit) for hit in hits]

    def _source(self) -> SharedStore:
        self._shared = shared_store(self.store, self.collection)
        return self._shared

    def _options(self, k: int | None, language: str | None, path: str | None) -> dict[str, Any]:
        return {
            "model": None if self.embeddings is None else self.embeddings.shared,
            "task": None if self.embeddings is None else self.embeddings.query_task,
            "limit": self.k if k is None else k,
            "language": language or self.language,
            "path": path or self.path,
            "repository": self.repository,
            "score_threshold": self.score_threshold,
        }


class C2LLMCodeLoader(BaseLoader):
    """The chunks of a repository as documents, with the ids and metadata that `ingest` gives its rows."""

    def __init__(self, root: str | os.PathLike[str], repository: str | None = None) -> None:
        """`repository` overrides the repository's name. Raises RepositoryError or InputError when loading."""
        self.root = root
        self.repository = repository

    def lazy_load(self) -> Iterator[Document]:
        """Yield one document a chunk, one file in memory at a time."""
        tree = open_tree(self.root, self.repository)
        for source in iter_sources(tree):
            yield from map(_document, chunk_source(tree.name, source.path, source.text))


class C2LLMCodeSplitter(BaseDocumentTransformer):
    """Cuts documents into whole functions, methods and classes where they fit `max_chars`.

    The language is told from the document's metadata "path", else "file_path", else "source". Each piece keeps the
    metadata of its document and adds that of a chunk; its id depends only on repository, path and text.
    """

    def __init__(self, max_chars: int = CHUNK_CHARS) -> None:
        self.max_chars = max_chars

    def split_documents(self, documents: Sequence[Document]) -> list[Document]:
        """Cut each document; joined, its pieces are its text again. Raises InputError for text that is no Unicode."""
        pieces = []
        for document in documents:
            own = document.metadata
            path = str(next((own[key] for key in ("path", "file_path", "source") if own.get(key)), ""))
            repository = str(own.get("repository") or "")
            for chunk in chunk_source(repository, path, document.page_content, self.max_chars):
                pieces.append(_document(chunk, own))
        return pieces

    def transform_documents(self, documents: Sequence[Document], **kwargs: Any) -> Sequence[Document]:
        """The same as `split_documents`, under the name that LangChain's pipelines call."""
        return self.split_documents(documents)


def _document(chunk: CodeChunk, metadata: dict[str, Any] | None = None) -> Document:
    own = payload_of(chunk)[METADATA_FIELD]
    return Document(id=chunk.id, page_content=chunk.text, metadata={**(metadata or {}), **own})


def _found(hit: Hit) -> Document:
    return _document(hit.chunk, {"score": hit.score})
