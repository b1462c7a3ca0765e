"""Milvus: the stores for a server, and for Milvus Lite in a folder of this machine.

from pymilvus import MilvusClient
from c2llm_integrations.milvus import MilvusStore

store = MilvusStore.from_client(MilvusClient("http://localhost:19530"), "snippets")
"""

from c2llm_integrations.stores.milvus.foreign_collection import ForeignMilvusStore
from c2llm_integrations.stores.milvus.lite import MilvusLiteStore
from c2llm_integrations.stores.milvus.store import MilvusStore

__all__ = ["ForeignMilvusStore", "MilvusLiteStore", "MilvusStore"]
