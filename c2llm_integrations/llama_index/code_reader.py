"""The files of a repository as LlamaIndex's documents, and the code chunker as its node parser."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from llama_index.core.bridge.pydantic import ConfigDict, Field
from llama_index.core.callbacks import CallbackManager
from llama_index.core.node_parser import NodeParser
from llama_index.core.node_parser.node_utils import default_id_func
from llama_index.core.readers.base import BaseReader
from llama_index.core.schema import BaseNode, Document, MetadataMode, NodeRelationship, TextNode
from llama_index.core.utils import get_tqdm_iterable
from typing_extensions import Self

from c2llm_integrations.code.chunk import piece_id, piece_metadata
from c2llm_integrations.code.chunking import CHUNK_CHARS, chunk_source
from c2llm_integrations.code.repository import iter_sources, open_tree


class C2LLMCodeReader(BaseReader):
    """Load the files that `ingest` would read as documents.

    Metadata are "repository" and "path", relative to the root. The id of a document is "REPOSITORY:PATH", so that a
    pipeline with a docstore recognizes a file in any checkout.
    """

    def __init__(self, root: str | os.PathLike[str], repository: str | None = None) -> None:
        """Name a folder; `repository` overrides its name. Loading raises RepositoryError or InputError."""
        self.root = root
        self.repository = repository

    def lazy_load_data(self, *args: Any, **load_kwargs: Any) -> Iterator[Document]:
        """Yield one document per file, with one file in memory at a time."""
        tree = open_tree(self.root, self.repository)
        for source in iter_sources(tree):
            metadata = {"repository": tree.name, "path": source.path}
            yield Document(text=source.text, id_=f"{tree.name}:{source.path}", metadata=metadata)


class C2LLMNodeParser(NodeParser):
    """Split documents into whole functions, methods and classes that fit `max_chars`; short neighbors share a node.

    Such a node is named after the class among them, else after the longest.

    The metadata field "path", else "file_path", else "file_name" decides the language. Without an `id_func`, a node's
    id depends on the document's id and metadata, on its text and on its lines. A node keeps the metadata of its
    document and adds those of a chunk, with the prefix "chunk_" if the document has another value under that name.
    Metadata are shown to language models but not embedded: the vector of a node is that of its code.
    """

    model_config = ConfigDict(extra="forbid")

    max_chars: int = Field(default=CHUNK_CHARS, gt=0, description="Maximum characters of a chunk.")
    repository: str = Field(default="", description="Repository of documents whose metadata name none.")

    @classmethod
    def class_name(cls) -> str:
        """Return the name under which LlamaIndex serializes this class."""
        return "C2LLMNodeParser"

    @classmethod
    def from_defaults(
        cls,
        max_chars: int = CHUNK_CHARS,
        repository: str = "",
        include_prev_next_rel: bool = True,
        callback_manager: CallbackManager | None = None,
        id_func: Callable[[int, BaseNode], str] | None = None,
    ) -> Self:
        """Return a parser, as `from_defaults` of LlamaIndex's own parsers does."""
        return cls(
            max_chars=max_chars,
            repository=repository,
            include_prev_next_rel=include_prev_next_rel,
            callback_manager=callback_manager or CallbackManager([]),
            id_func=id_func or default_id_func,
        )

    def _parse_nodes(self, nodes: Sequence[BaseNode], show_progress: bool = False, **kwargs: Any) -> list[BaseNode]:
        shown = get_tqdm_iterable(nodes, show_progress, "Parsing code")
        return [piece for node in shown for piece in self._pieces(node)]

    def _pieces(self, node: BaseNode) -> list[TextNode]:
        own = node.metadata
        path = str(next((own[key] for key in ("path", "file_path", "file_name") if own.get(key)), ""))
        repository = str(own.get("repository") or self.repository)
        text = node.get_content(metadata_mode=MetadataMode.NONE)
        pieces = []
        for number, chunk in enumerate(chunk_source(repository, path, text, self.max_chars)):
            metadata = piece_metadata(chunk, own)
            own_id = self.id_func not in (None, default_id_func)  # None with LlamaIndex's first 0.14
            pieces.append(
                TextNode(
                    id_=self.id_func(number, node) if own_id else piece_id(node.node_id, chunk.text, metadata),
                    text=chunk.text,
                    metadata=metadata,
                    excluded_embed_metadata_keys=sorted(metadata),
                    excluded_llm_metadata_keys=_unsaid(node, metadata),
                    relationships={NodeRelationship.SOURCE: node.as_related_node_info()},
                )
            )
        return pieces


def _unsaid(node: BaseNode, metadata: dict[str, Any]) -> list[str]:
    """Return the fields that a language model does not see: those the document hides, and empty fields of ours."""
    empty = [name for name, value in metadata.items() if value == "" and name not in node.metadata]
    return [*node.excluded_llm_metadata_keys, *empty]
