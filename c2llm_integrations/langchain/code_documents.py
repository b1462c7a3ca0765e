"""Code as LangChain's documents: the chunks of a repository, and the pieces of documents."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from langchain_core.document_loaders import BaseLoader
from langchain_core.documents import BaseDocumentTransformer, Document

from c2llm_integrations.code.chunk import CodeChunk, piece_id, piece_metadata
from c2llm_integrations.code.chunking import CHUNK_CHARS, chunk_source
from c2llm_integrations.code.repository import iter_chunks, open_tree
from c2llm_integrations.errors import InputError
from c2llm_integrations.stores.row_checks import listed, require

if TYPE_CHECKING:
    TextSplitter: Any
else:
    try:
        from langchain_text_splitters import TextSplitter
    except ImportError:  # then nothing is installed that requires a TextSplitter

        class TextSplitter(BaseDocumentTransformer):
            """Stand in for the class of langchain-text-splitters."""

            def __init__(self, **kwargs: Any) -> None:
                """Accept the arguments of the real class."""


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
        for chunk in iter_chunks(open_tree(self.root, self.repository)):
            yield _piece(chunk, "", {})


class C2LLMCodeSplitter(TextSplitter):  # type: ignore[misc]
    """Split documents into whole functions, methods and classes that fit `max_chars`.

    The metadata field "path", else "file_path", else "source" decides the language. Each piece keeps the metadata of
    its document and adds those of a chunk, with the prefix "chunk_" if the document has another value under that name.
    Its id depends on the document's id and metadata, on its text and on its lines.
    """

    def __init__(self, max_chars: int = CHUNK_CHARS, path: str = "") -> None:
        """Set the maximum size of a piece, and the path that decides the language of documents without one."""
        if max_chars < 1:
            raise InputError(f"max_chars is {max_chars}, must be at least 1")
        super().__init__(chunk_size=max_chars, chunk_overlap=0)
        self.max_chars = max_chars
        self.path = path

    def split_text(self, text: str) -> list[str]:
        """Return the pieces of a text. Joined, they give the text, without a byte order mark in front."""
        require(text, str, "a text")
        return [chunk.text for chunk in chunk_source("", self.path, text, self.max_chars)]

    def create_documents(self, texts: list[str], metadatas: list[dict[str, Any]] | None = None) -> list[Document]:
        """Return the pieces of texts with these metadata."""
        texts = listed(texts, str, "texts")
        own = listed(metadatas, Mapping, "metadata") if metadatas is not None else [{} for _ in texts]
        if len(own) != len(texts):
            raise InputError(f"{len(own)} metadatas are given for {len(texts)} texts, expected one each")
        return self.split_documents(
            [Document(page_content=text, metadata=copy.deepcopy(one)) for text, one in zip(texts, own, strict=True)]
        )

    def split_documents(self, documents: Iterable[Document]) -> list[Document]:
        """Return the pieces of all documents. Raises InputError for text that is not valid Unicode."""
        pieces = []
        for document in listed(documents, Document, "documents"):
            own = document.metadata
            path = str(next((own[key] for key in ("path", "file_path", "source") if own.get(key)), self.path))
            repository = str(own.get("repository") or "")
            for chunk in chunk_source(repository, path, document.page_content, self.max_chars):
                pieces.append(_piece(chunk, document.id or "", own))
        return pieces

    def transform_documents(self, documents: Sequence[Document], **kwargs: Any) -> Sequence[Document]:
        """Call `split_documents`, under the name that LangChain's pipelines use."""
        return self.split_documents(documents)


def _piece(chunk: CodeChunk, document: str, own: Mapping[str, Any]) -> Document:
    """Return a chunk as a document; `document` and `own` are the id and metadata of the document it was cut from."""
    metadata = piece_metadata(chunk, own)
    return Document(id=piece_id(document, chunk.text, metadata), page_content=chunk.text, metadata=metadata)
