"""The chunks of a repository as LangChain's documents."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from langchain_core.document_loaders import BaseLoader
from langchain_core.documents import Document

from c2llm_integrations.code.chunk import CodeChunk, piece_id, piece_metadata
from c2llm_integrations.code.chunking import chunk_source
from c2llm_integrations.code.parse_budget import ParseBudget
from c2llm_integrations.code.repository import iter_sources, open_tree


class C2LLMCodeLoader(BaseLoader):
    """Load the chunks of a repository as documents, with the metadata that `ingest` writes.

    A document's id depends on its lines as well as its text, so that LangChain's `index` updates moved chunks.
    """

    def __init__(self, root: str | os.PathLike[str], repository: str | None = None) -> None:
        """Name a folder; `repository` overrides its name. Loading raises RepositoryError or InputError."""
        self.root = root
        self.repository = repository

    def lazy_load(self) -> Iterator[Document]:
        """Yield one document per chunk, with one file in memory at a time."""
        tree = open_tree(self.root, self.repository)
        budget = ParseBudget()
        for source in iter_sources(tree):
            for chunk in chunk_source(tree.name, source.path, source.text, budget=budget):
                yield piece(chunk, "", {})


def piece(chunk: CodeChunk, document: str, own: Mapping[str, Any]) -> Document:
    """Return a chunk as a document; `document` and `own` are the id and metadata of the document it was cut from."""
    metadata = piece_metadata(chunk, own)
    return Document(id=piece_id(document, chunk.text, metadata), page_content=chunk.text, metadata=metadata)
