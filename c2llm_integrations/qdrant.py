"""Qdrant: the stores for a server and for the engine inside this process, and plans measured in it.

from qdrant_client import QdrantClient
from c2llm_integrations.qdrant import QdrantStore

store = QdrantStore.from_client(QdrantClient("http://localhost:6333"), "snippets")
"""

from c2llm_integrations.stores.qdrant.edge import QdrantEdgeStore
from c2llm_integrations.stores.qdrant.foreign_collection import ForeignQdrantStore
from c2llm_integrations.stores.qdrant.measure_plans import MeasuredPlan, choose_plan, measure_plans
from c2llm_integrations.stores.qdrant.store import QdrantStore

__all__ = ["ForeignQdrantStore", "MeasuredPlan", "QdrantEdgeStore", "QdrantStore", "choose_plan", "measure_plans"]
