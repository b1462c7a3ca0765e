"""The Ray cluster of a run: found or started, and its errors as this package's own."""

from __future__ import annotations

import logging
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from c2llm_integrations.errors import C2LLMError, MissingExtra

try:
    import ray
except ImportError as error:
    raise MissingExtra("ray", "ray") from error

EmbedderOf = Callable[[], Any]


@dataclass
class Cluster:
    """The machines, model and parallelism of a run.

    Attributes:
        address: That of a running cluster; None starts one on this machine.
        embedders: Actors with a model each.
        gpus_each: GPUs for each of them.
        writers: Tasks that write at once.
        make_embedder: Loads the model in an actor, so it is pickled; None loads nano.

    """

    address: str | None = None
    embedders: int = 1
    gpus_each: float = 0.0
    writers: int = 2
    make_embedder: EmbedderOf | None = None


def load_nano() -> Any:
    """Load the bundled model."""
    from c2llm_integrations.model.embedder import C2LLMEmbedder

    return C2LLMEmbedder.from_pretrained("nano")


@contextmanager
def connected(cluster: Cluster) -> Iterator[None]:
    """Connect to the cluster, or start one on this machine, unless this process is connected already."""
    if ray.is_initialized():
        yield
        return
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
