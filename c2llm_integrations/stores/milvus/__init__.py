"""Milvus through pymilvus: a server, Zilliz Cloud, or Milvus Lite in this process."""

from c2llm_integrations.errors import MissingExtra

try:
    import pymilvus  # noqa: F401
except ImportError as error:
    raise MissingExtra("pymilvus", "milvus") from error
