"""Ray: records embedded, and repositories indexed, by a cluster; `c2llm index-ray` does the latter."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from c2llm_integrations.indexing.ray.cluster import Cluster, RayEmbedder

__all__ = ["Cluster", "RayEmbedder"]


def __getattr__(name: str) -> object:
    """Load a public name; the modules beside it that need no Ray do not load it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from c2llm_integrations.indexing.ray import cluster

    return getattr(cluster, name)
