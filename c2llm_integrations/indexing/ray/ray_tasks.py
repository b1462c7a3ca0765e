"""The stages as the tasks and actors of Ray: rows in, rows out, a pickled batch in each."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Collection, Iterator
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


class Step:
    """A function of a batch. Ray names its tasks after the class."""

    def __init__(self, work: Callable[..., Any], *more: Any) -> None:
        self.work = work
        self.more = more

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return the row of the next stage."""
        return _row(self.work(pickle.loads(row["batch"]), *self.more))


class Chunk(Step):
    """Read, chunk and compare."""


class Write(Step):
    """Store the rows."""


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


class ListSource:
    """List a folder, or clone a repository."""

    def __init__(self, destination: Destination, forced: Collection[str]) -> None:
        self.destination = destination
        self.forced = forced

    def __call__(self, row: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Return a row for each batch of a source."""
        source = row["item"]
        return map(_row, pipeline_stages.list_source(source, self.destination, source in self.forced))


class ListTexts:
    """Make batches of a data set's rows."""

    def __init__(self, destination: Destination, source: str, force: bool) -> None:
        self.destination = destination
        self.source = source
        self.force = force

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[bytes]]:
        """Return a row for each repository among some rows; raises InputError for a missing column."""
        missing = {"repository", "path", "text"} - batch.keys()
        if missing:
            raise InputError(f"{self.source} lacks the columns {', '.join(sorted(missing))}")
        by_repository: dict[str, tuple[list[str], list[str | None]]] = {}
        for name, path, text in zip(batch["repository"], batch["path"], batch["text"], strict=True):
            paths, texts = by_repository.setdefault(str(name), ([], []))
            paths.append(str(path))
            texts.append(text if isinstance(text, str) else None)
        found = [
            pipeline_stages.list_texts(name, paths, texts, self.source, self.destination, self.force)
            for name, (paths, texts) in by_repository.items()
        ]
        return {"batch": [pickle.dumps(one) for one in found]}


def _row(batch: Any) -> dict[str, Any]:
    return {"batch": pickle.dumps(batch)}
