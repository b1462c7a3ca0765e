"""C2LLM code embeddings, straight from a model into a vector database and back out as answers.

    from c2llm_integrations import C2LLMEmbedder, ingest, open_store, search

    embedder = C2LLMEmbedder.from_pretrained("nano")
    with open_store("qdrant+edge://.c2llm") as store:
        ingest(".", embedder, store)
        hits = search("retry with backoff", embedder, store)

Each name is loaded when it is first used, so importing the package costs no torch.
"""

# Nothing is imported here, not even __future__: `python -m` runs this before the current folder is off the path.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from c2llm_integrations.code.chunk import CodeChunk
    from c2llm_integrations.errors import (
        BatchRefused,
        C2LLMError,
        CheckpointError,
        InputError,
        MissingExtra,
        RepositoryError,
        RowsRefused,
        ServerError,
        SpecMismatch,
        StoreBusy,
        StoreError,
    )
    from c2llm_integrations.indexing.ingest import ingest
    from c2llm_integrations.indexing.ingest_records import ingest_records
    from c2llm_integrations.indexing.report import IngestReport, RecordsReport
    from c2llm_integrations.model.embedder import C2LLMEmbedder
    from c2llm_integrations.retrieval.search import search
    from c2llm_integrations.stores import open_store
    from c2llm_integrations.stores.bulk_loader import load
    from c2llm_integrations.stores.filter import Filter
    from c2llm_integrations.stores.foreign_collection import Layout
    from c2llm_integrations.stores.records import Hit, Record, Row
    from c2llm_integrations.stores.spec import CollectionSpec, CompactPlan
    from c2llm_integrations.stores.vector_store import VectorStore

__all__ = [
    "BatchRefused",
    "C2LLMEmbedder",
    "C2LLMError",
    "CheckpointError",
    "CodeChunk",
    "CollectionSpec",
    "CompactPlan",
    "Filter",
    "Hit",
    "IngestReport",
    "InputError",
    "Layout",
    "MissingExtra",
    "Record",
    "RecordsReport",
    "RepositoryError",
    "Row",
    "RowsRefused",
    "ServerError",
    "SpecMismatch",
    "StoreBusy",
    "StoreError",
    "VectorStore",
    "ingest",
    "ingest_records",
    "load",
    "open_store",
    "search",
]

# Name → its module. An error class stands in `errors`.
_HOMES = {
    "C2LLMEmbedder": "model.embedder",
    "CodeChunk": "code.chunk",
    "CollectionSpec": "stores.spec",
    "CompactPlan": "stores.spec",
    "Filter": "stores.filter",
    "Hit": "stores.records",
    "IngestReport": "indexing.report",
    "Layout": "stores.foreign_collection",
    "Record": "stores.records",
    "RecordsReport": "indexing.report",
    "Row": "stores.records",
    "VectorStore": "stores.vector_store",
    "ingest": "indexing.ingest",
    "ingest_records": "indexing.ingest_records",
    "load": "stores.bulk_loader",
    "open_store": "stores",
    "search": "retrieval.search",
}


def __getattr__(name: str) -> object:
    """Load a public name from its module."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"{__name__}.{_HOMES.get(name, 'errors')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, loaded or not."""
    return sorted(set(globals()) | set(__all__))
