"""The Ray cluster of a run, and an embedder whose models are spread over it.

The cluster is found or started, and its errors are raised as this package's own.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from c2llm_integrations.errors import C2LLMError, InputError, MissingExtra

try:
    import ray
except ImportError as error:
    raise MissingExtra("ray", "ray") from error

EmbedderOf = Callable[[], Any]
# Texts that an actor gets at once.
PART_TEXTS = 128
# Parts for each actor in one batch of records: one computed, one on its way, and more so that all end about together.
PARTS_EACH = 4
# The first release whose clusters, which listen on all addresses of a machine, ask for a token by default.
_GUARDED = (2, 59)


@dataclass
class Cluster:
    """The machines, model and parallelism of a run.

    Attributes:
        address: Of a running cluster, such as "auto"; None starts one on this machine.
        embedders: Number of actors, each with a model.
        gpus_each: GPUs for each actor, also a share such as 0.5.
        writers: Number of tasks that write at once.
        make_embedder: A function that returns the embedder in an actor, so it must be picklable; None loads nano.

    """

    address: str | None = None
    embedders: int = 1
    gpus_each: float = 0.0
    writers: int = 2
    make_embedder: EmbedderOf | None = None


def loader_of(cluster: Cluster) -> EmbedderOf:
    """Return what loads the model in an actor."""
    return cluster.make_embedder or _load_nano


def _load_nano() -> Any:
    """Load the bundled model."""
    from c2llm_integrations.model.embedder import C2LLMEmbedder

    return C2LLMEmbedder.from_pretrained("nano")


@contextmanager
def connected(cluster: Cluster) -> Iterator[None]:
    """Connect to the cluster, or start one on this machine, unless this process is connected already.

    Raises InputError where Ray would let every machine of the network run code on this one.
    """
    if ray.is_initialized():
        yield
        return
    if cluster.address in (None, "local") and tuple(map(int, ray.__version__.split(".")[:2])) < _GUARDED:
        raise InputError(
            f"Ray {ray.__version__} would let every machine of the network run code on this one; "
            "run: pip install 'ray>=2.59'"
        )
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report to its makers
    logging.getLogger("ray").setLevel(logging.ERROR)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
    # Workers import from the folder in which Ray is started: not from a tree that may hold a json.py.
    here, ending = os.getcwd(), signal.getsignal(signal.SIGTERM)
    os.chdir(Path(__file__).parents[3])
    try:
        if cluster.address is not None:
            ray.init(cluster.address, **quiet)
        else:
            # Logical cores: an actor that embeds leaves room for the steps around it, which take little.
            cores = max(os.cpu_count() or 1, 2) + cluster.embedders
            ray.init("local", num_cpus=cores, include_dashboard=False, **quiet)
    finally:
        os.chdir(here)
    if callable(ending) and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, ending)  # Ray has set its own
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"ray\.")  # its own settings, and small inputs
            yield
    finally:
        ray.shutdown()


@contextmanager
def plain_errors() -> Iterator[None]:
    """Raise this package's own errors without the traceback that Ray adds from the other machine."""
    try:
        yield
    except ray.exceptions.RayError as error:
        raise _own_error(error) or error from None


def _own_error(error: BaseException | None) -> C2LLMError | None:
    while error is not None:
        if isinstance(error, C2LLMError) and not isinstance(error, ray.exceptions.RayError):
            return error
        error = getattr(error, "cause", None) or error.__cause__
    return None


def actors_a_node(cluster: Cluster) -> int:
    """Return how many of the cluster's models share a node, at most."""
    nodes = sum(node["Alive"] for node in ray.nodes())  # type: ignore[no-untyped-call]
    return -(-cluster.embedders // max(1, nodes))


def share_cores(actors: int) -> None:
    """Compute with this process's share of the node's cores; `actors`: how many models are there."""
    import torch

    torch.set_num_threads(max(1, (os.cpu_count() or 1) // actors))


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
            actors = [made.remote(loader_of(cluster), share) for _ in range(cluster.embedders)]
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
