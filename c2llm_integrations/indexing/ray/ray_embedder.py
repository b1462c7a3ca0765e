"""Copies of a model on a Ray cluster that look like one embedder: only the embedding is spread over the cluster."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import cycle
from typing import Any

import numpy as np
from numpy.typing import NDArray

from c2llm_integrations.errors import MissingExtra
from c2llm_integrations.indexing.ray.cluster import (
    Cluster,
    EmbedderOf,
    actors_a_node,
    connected,
    plain_errors,
    share_cores,
)

try:
    import ray
except ImportError as error:
    raise MissingExtra("ray", "ray") from error

# Texts that an actor gets at once.
PART_TEXTS = 128
# Parts for each actor in one batch of records: one computed, one on its way, and more so that all end about together.
PARTS_EACH = 4


class RayEmbedder:
    """An embedder for `ingest_records` whose vectors the actors of a cluster compute.

        with RayEmbedder.on(Cluster("auto", embedders=8, gpus_each=1, make_embedder=load)) as embedder:
            ingest_records(file, embedder, store, source="answers", batch_size=embedder.batch_size)

    Attributes: those of `C2LLMEmbedder` that say what a vector means and what was computed; `batch_size`, the records
    in one batch that keep all actors busy.
    """

    def __init__(self, actors: Sequence[Any]) -> None:
        """Call `on`, which starts the actors."""
        self._actors = actors
        self.output_dim: int
        self.fingerprint: Mapping[str, Any]
        self.output_dim, self.fingerprint = ray.get(actors[0].describe.remote())
        self.tokens_seen = self.texts_cut = 0
        self.batch_size = PART_TEXTS * PARTS_EACH * len(actors)

    @classmethod
    @contextmanager
    def on(cls, cluster: Cluster) -> Iterator[RayEmbedder]:
        """Start the models, and stop them at the end; Ray too, unless this process is connected already.

        An actor that dies is started again, and its texts are computed again.
        """
        with connected(cluster), plain_errors():
            made: Any = ray.remote(num_cpus=1, num_gpus=cluster.gpus_each, max_restarts=-1, max_task_retries=-1)(_Model)
            share = actors_a_node(cluster)
            actors = [made.remote(cluster.loader, share) for _ in range(cluster.embedders)]
            try:
                yield cls(actors)
            finally:
                for actor in actors:
                    ray.kill(actor)

    def encode_documents(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return (len(texts), output_dim) vectors, as `C2LLMEmbedder.encode_documents` does."""
        texts = [texts] if isinstance(texts, str) else texts
        parts = [list(texts[begin : begin + PART_TEXTS]) for begin in range(0, len(texts), PART_TEXTS)]
        with plain_errors():
            turns = zip(cycle(self._actors), parts, strict=False)
            done = ray.get([actor.encode.remote(part) for actor, part in turns])
        for _, tokens, cut in done:
            self.tokens_seen += tokens
            self.texts_cut += cut
        return np.concatenate([np.empty((0, self.output_dim), np.float32), *(vectors for vectors, _, _ in done)])


class _Model:
    """An actor that holds a model."""

    def __init__(self, make: EmbedderOf, actors: int) -> None:
        share_cores(actors)
        self._embedder = make()

    def describe(self) -> tuple[int, Mapping[str, Any]]:
        """Return the width of its vectors and what they mean."""
        return self._embedder.output_dim, dict(self._embedder.fingerprint)

    def encode(self, texts: list[str]) -> tuple[NDArray[np.float32], int, int]:
        """Return the vectors of documents, how many tokens were computed, and how many texts were cut."""
        tokens, cut = self._embedder.tokens_seen, self._embedder.texts_cut
        vectors = self._embedder.encode_documents(texts)
        return vectors, self._embedder.tokens_seen - tokens, self._embedder.texts_cut - cut
