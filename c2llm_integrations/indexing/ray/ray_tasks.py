"""The stages as the tasks and actors of Ray: rows in, rows out, a pickled batch in each."""

from __future__ import annotations

import pickle
from collections.abc import Collection, Iterator
from typing import Any

from c2llm_integrations.errors import InputError, MissingExtra
from c2llm_integrations.indexing.ray import pipeline_stages
from c2llm_integrations.indexing.ray.batches import Destination
from c2llm_integrations.indexing.ray.cluster import EmbedderOf, share_cores

try:
    import ray
    from ray.util import metrics
except ImportError as error:
    raise MissingExtra("ray", "ray") from error


def embedding_actor(make: EmbedderOf, actors: int) -> type[Any]:
    """Return the actor's class, its settings in it: Ray's constructor arguments are lost with a node."""
    return type("Embedding", (EmbeddingActor,), {"make": staticmethod(make), "actors": actors})


class EmbeddingActor:
    """An actor that holds a model, with its share of the node's cores."""

    make: EmbedderOf
    actors: int

    def __init__(self) -> None:
        share_cores(self.actors)
        self.embedder = self.make()
        self.tags = {"actor": ray.get_runtime_context().get_actor_id() or ""}
        self.files = metrics.Counter("c2llm_files", "Files read", tag_keys=("actor",))
        self.chunks = metrics.Counter("c2llm_chunks", "Embedded chunks", tag_keys=("actor",))
        self.tokens = metrics.Counter("c2llm_tokens", "Computed tokens", tag_keys=("actor",))
        self.refused = metrics.Counter("c2llm_refused", "Chunks that could not be embedded", tag_keys=("actor",))

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return the row with vectors, and count what was done."""
        batch = pipeline_stages.embed(pickle.loads(row["batch"]), self.embedder)
        report = batch.result.report
        for metric, value in (
            (self.files, report.files),
            (self.chunks, len(batch.new)),
            (self.tokens, report.tokens),
            (self.refused, report.refused_count),
        ):
            if value:
                metric.inc(value, self.tags)
        return _row(batch)


# Ray names its tasks after these functions.


def list_source(row: dict[str, Any], destination: Destination, forced: Collection[str]) -> Iterator[dict[str, Any]]:
    """Return a row for each batch of a folder, or of a repository to clone."""
    source = row["item"]
    return map(_row, pipeline_stages.list_source(source, destination, source in forced))


def list_texts(batch: dict[str, Any], destination: Destination, source: str, force: bool) -> dict[str, list[bytes]]:
    """Return a row for each repository among some rows of a data set; raises InputError for a missing column."""
    missing = {"repository", "path", "text"} - batch.keys()
    if missing:
        raise InputError(f"{source} lacks the columns {', '.join(sorted(missing))}")
    by_repository: dict[str, tuple[list[str], list[str | None]]] = {}
    for name, path, text in zip(batch["repository"], batch["path"], batch["text"], strict=True):
        paths, texts = by_repository.setdefault(str(name), ([], []))
        paths.append(str(path))
        texts.append(text if isinstance(text, str) else None)
    found = [
        pipeline_stages.list_texts(name, paths, texts, source, destination, force)
        for name, (paths, texts) in by_repository.items()
    ]
    return {"batch": [pickle.dumps(one) for one in found]}


def chunk(row: dict[str, Any], destination: Destination) -> dict[str, Any]:
    """Read, chunk and compare a batch."""
    return _row(pipeline_stages.chunk(pickle.loads(row["batch"]), destination))


def write(row: dict[str, Any], destination: Destination) -> dict[str, Any]:
    """Store the rows of a batch."""
    return _row(pipeline_stages.write(pickle.loads(row["batch"]), destination))


def _row(batch: Any) -> dict[str, Any]:
    return {"batch": pickle.dumps(batch)}
