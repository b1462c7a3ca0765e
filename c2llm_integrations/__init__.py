"""C2LLM code embeddings, straight from a model into a vector database and back out as answers.

The names below are loaded when first used, so importing the package costs no torch. The two verbs stand in
modules of their own name, and a package attribute cannot be both: write
`from c2llm_integrations.ingest import ingest` and `from c2llm_integrations.search import search`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from c2llm_integrations.code.chunk import CodeChunk
    from c2llm_integrations.embedder import C2LLMEmbedder
    from c2llm_integrations.errors import (
        C2LLMError,
        CheckpointError,
        InputError,
        MissingExtra,
        RepositoryError,
        RowsRefused,
        SpecMismatch,
        StoreBusy,
        StoreError,
    )
    from c2llm_integrations.stores import open_store
    from c2llm_integrations.stores.base import Hit, VectorStore

__all__ = [
    "C2LLMEmbedder",
    "C2LLMError",
    "CheckpointError",
    "CodeChunk",
    "Hit",
    "InputError",
    "MissingExtra",
    "RepositoryError",
    "RowsRefused",
    "SpecMismatch",
    "StoreBusy",
    "StoreError",
    "VectorStore",
    "open_store",
]

_HOME = {
    "C2LLMEmbedder": "embedder",
    "CodeChunk": "code.chunk",
    "Hit": "stores.base",
    "VectorStore": "stores.base",
    "open_store": "stores",
}


def __getattr__(name: str) -> object:
    """Load a public name from its module; every name of `__all__` without a home is an error class."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME.get(name, 'errors')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted(set(globals()) | set(__all__))
