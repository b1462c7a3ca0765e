"""The same ingest on a Ray cluster: `ingest`'s rows, ids, spec and verification, on any number of machines.

    folders, git URLs, Parquet, JSON lines ─ list ─▶ parcels ─ chunk ─▶ ─ embed (actors) ─▶ ─ write ─▶ driver ─ finish

Ray Data moves the parcels and holds back what runs ahead, so memory does not grow with the corpus; what dies is done
again, which changes nothing. The driver keeps sums, and what was refused or is stale.
"""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from c2llm_integrations import parcels
from c2llm_integrations.code.terms import ANALYSER
from c2llm_integrations.errors import InputError, MissingExtra, StoreError
from c2llm_integrations.ingest import IngestReport
from c2llm_integrations.parcels import Parcel, Place, Sum
from c2llm_integrations.stores import open_store
from c2llm_integrations.stores.base import CollectionSpec

try:
    import ray
    import ray.data
    from ray.util.metrics import Counter
except ImportError as error:
    raise MissingExtra("ray", "ray") from error

EMBEDDED = ("qdrant+edge", "qdrant+memory", "milvus+lite")
# Texts of a data set that make one parcel.
TEXTS = 256
# Times a repository that does not verify is gone through before it is an error.
PASSES = 3

Progress = Callable[[int, int | None, str], None]
EmbedderOf = Callable[[], Any]


@dataclass
class Cluster:
    """What a run may use: the `address` of a running cluster (None starts one on this machine), embedding actors,
    GPUs for each, and writing tasks at once.
    """

    address: str | None = None
    embedders: int = 1
    gpus_each: float = 0.0
    writers: int = 2


@dataclass
class _Gathered:
    """What the driver knows of one repository until it is finished."""

    report: IngestReport
    source: str
    parcels: int = 0
    wanted: Sum = field(default_factory=Sum)
    stale: list[str] = field(default_factory=list)
    paths: set[str] = field(default_factory=set)
    commits: set[str | None] = field(default_factory=set)
    is_done: bool = False
    is_text: bool = False


def ingest_distributed(
    sources: Sequence[str | os.PathLike[str]],
    store: str,
    *,
    model: str = "nano",
    collection: str = "code",
    api_key: str | None = None,
    cluster: Cluster | None = None,
    options: dict[str, Any] | None = None,
    force: bool = False,
    progress: Progress | None = None,
    make_embedder: EmbedderOf | None = None,
) -> list[IngestReport]:
    """Make the collection hold exactly the chunks of every source; return a report for each repository.

    `sources`: folders that every machine can read, git URLs or bare repositories, and files or folders of Parquet
    (.parquet) or JSON lines (.jsonl) with columns repository, path and text. `store`: the URL of a server; the key is
    given, or found in each machine's environment. `options` are those of `C2LLMEmbedder.from_pretrained`;
    `make_embedder` makes another embedder than `model`. `progress(parcels done, parcels, repository)`.
    Raises InputError for an embedded store or a source that is none, StoreError naming the repositories that the store
    does not hold as they are after all passes, and what `ingest` raises.
    """
    _require_server(store)
    cluster = cluster or Cluster()
    place = Place(store, collection, api_key)
    make = make_embedder or _Loading(model, options or {})
    begin = perf_counter()
    _connect(cluster)
    spec = ray.get(ray.remote(num_cpus=0)(_spec_of).remote(make, place))
    with open_store(store, collection, api_key=api_key) as opened:
        opened.create(spec)
        pending = [str(source) for source in sources]
        reports: dict[str, IngestReport] = {}
        failed: dict[str, str] = {}
        with opened.bulk() if opened.count() == 0 else nullcontext():
            for _ in range(PASSES):
                found, failed = _one_pass(pending, place, make, cluster, force, progress)
                for report in found:
                    reports[report.repository] = report
                if not failed:
                    break
                pending = sorted(set(failed.values()))
    if failed:
        raise StoreError(
            f"not verified after {PASSES} passes: {', '.join(sorted(failed))}; run again, look at the store"
        )
    for report in reports.values():
        report.seconds = perf_counter() - begin
    return list(reports.values())


def _require_server(store: str) -> None:
    scheme = store.partition("://")[0]
    if scheme in EMBEDDED:
        raise InputError(f"{scheme}:// is for one process; a cluster needs a server, such as qdrant+http://HOST:6333")


@dataclass(frozen=True)
class _Loading:
    """Loads the model by name, on whichever machine calls it."""

    model: str
    options: dict[str, Any]

    def __call__(self) -> Any:
        from c2llm_integrations.embedder import C2LLMEmbedder

        return C2LLMEmbedder.from_pretrained(self.model, **self.options)


def _spec_of(make: EmbedderOf, place: Place) -> CollectionSpec:
    """Return the spec that the collection has, or is to get, for vectors of this model."""
    embedder, store = make(), place.open()
    held = store.spec
    if held is not None:
        held.require_model(embedder.output_dim, embedder.fingerprint)
        return held
    analyser = ANALYSER if store.capabilities.lexical else None
    return CollectionSpec(embedder.output_dim, embedder.fingerprint, analyser=analyser)


def _connect(cluster: Cluster) -> None:
    if ray.is_initialized():
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report to its makers
    logging.getLogger("ray").setLevel(logging.ERROR)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "warning"}
    if cluster.address is not None:
        ray.init(cluster.address, **quiet)
        return
    # Logical cores: an actor that embeds leaves room for the steps around it, which take little.
    ray.init(num_cpus=max(os.cpu_count() or 1, 2) + cluster.embedders, include_dashboard=False, **quiet)


# ---- one pass: parcels stream through the cluster, the driver adds them up


def _one_pass(
    sources: Sequence[str], place: Place, make: EmbedderOf, cluster: Cluster, force: bool, progress: Progress | None
) -> tuple[list[IngestReport], dict[str, str]]:
    """Return the reports of the repositories that were verified, and the others: name → its source."""
    gathered: dict[str, _Gathered] = {}
    finishing: dict[str, Any] = {}
    total = 0
    for done, parcel in enumerate(_stream(sources, place, make, cluster, force), 1):
        one = gathered.setdefault(parcel.repository, _Gathered(IngestReport(parcel.repository), parcel.source))
        total += parcel.is_text or (0 if one.parcels else parcel.parcels)
        _gather(one, parcel)
        if one.parcels == parcel.parcels:
            finishing[parcel.repository] = _finish(one, place)
        if progress is not None:
            progress(done, total, parcel.repository)
    for name, one in gathered.items():
        if one.is_text:
            finishing[name] = _finish(one, place)
    failed = {name: one.source for name, one in gathered.items() if name not in finishing}
    for name, answer in finishing.items():
        report = gathered[name].report
        try:
            report.deleted, report.stored = ray.get(answer)
        except ray.exceptions.RayTaskError as error:
            if not isinstance(error.cause, StoreError):
                raise
            failed[name] = gathered[name].source
    return [one.report for name, one in gathered.items() if name not in failed], failed


def _gather(one: _Gathered, parcel: Parcel) -> None:
    report = one.report
    one.parcels += 1
    one.wanted = (one.wanted + parcel.ids) - Sum().add(parcel.refused)
    one.stale += parcel.stale
    one.commits.add(parcel.commit)
    one.is_done |= parcel.is_done
    if parcel.is_text:
        one.is_text = True
        one.paths |= set(parcel.files)
    report.files += len(parcel.files)
    report.chunks += parcel.chunks
    report.unchanged += parcel.unchanged
    report.moved += parcel.updated
    report.written += parcel.written
    report.tokens += parcel.tokens
    report.cut += parcel.cut
    report.shortened += parcel.shortened
    report.refused |= parcel.refused
    for reason, paths in parcel.skipped.items():
        report.skipped.setdefault(reason, []).extend(paths)


def _finish(one: _Gathered, place: Place) -> Any:
    """Begin to delete what is stale and to verify; the answer is the numbers of rows deleted and held."""
    task = ray.remote(num_cpus=0.25, max_retries=-1)(parcels.finish)
    paths = one.paths if one.is_text else None
    [commit] = one.commits if len(one.commits) == 1 else [None]
    return task.remote(one.report.repository, place, None if one.is_done else one.wanted, one.stale, paths, commit)


def _stream(sources: Sequence[str], place: Place, make: EmbedderOf, cluster: Cluster, force: bool) -> Iterator[Parcel]:
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    for dataset in _listed(sources, place, force):
        chunked = dataset.map(_Step(parcels.chunk), num_cpus=0.5)
        embedded = chunked.map(
            _embedding(make, _actors_a_node(cluster)),
            compute=ray.data.ActorPoolStrategy(size=cluster.embedders),
            num_cpus=1,
            num_gpus=cluster.gpus_each,
        )
        written = embedded.map(
            _Step(parcels.write, place), compute=ray.data.TaskPoolStrategy(cluster.writers), num_cpus=0.25
        )
        for row in written.iter_rows():
            yield pickle.loads(row["parcel"])


def _listed(sources: Sequence[str], place: Place, force: bool) -> Iterator[ray.data.Dataset]:
    """Yield data sets of parcels, one parcel a block, so that each is passed on as soon as it is ready."""
    folders = [source for source in sources if not source.endswith((".parquet", ".jsonl"))]
    if folders:
        listed = ray.data.from_items(folders, override_num_blocks=len(folders))
        step = _Listing(place, force)
        yield listed.flat_map(step, num_cpus=0.5).repartition(target_num_rows_per_block=1)
    for source in sources:
        if source not in folders:
            texts = ray.data.read_parquet(source) if source.endswith(".parquet") else ray.data.read_json(source)
            listing = _ListingTexts(place, source)
            yield texts.map_batches(listing, batch_size=TEXTS, num_cpus=0.5).repartition(target_num_rows_per_block=1)


def _actors_a_node(cluster: Cluster) -> int:
    nodes = sum(node["Alive"] for node in ray.nodes())  # type: ignore[no-untyped-call]
    return -(-cluster.embedders // max(1, nodes))


# ---- the steps, as Ray calls them: rows in, rows out, a pickled parcel in each


class _Step:
    """A function of a parcel."""

    def __init__(self, work: Callable[..., Parcel], *more: Any) -> None:
        self.work = work
        self.more = more

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return _row(self.work(pickle.loads(row["parcel"]), *self.more))


def _embedding(make: EmbedderOf, actors: int) -> type[Any]:
    """Return the actor's class, its settings in it: Ray's constructor arguments are lost with a node."""
    return type("Embedding", (_Embedding,), {"make": staticmethod(make), "actors": actors})


class _Embedding:
    """An actor that holds a model, with its share of the node's cores."""

    make: EmbedderOf
    actors: int

    def __init__(self) -> None:
        import torch

        torch.set_num_threads(max(1, (os.cpu_count() or 1) // self.actors))
        self.embedder = self.make()
        self.tags = {"actor": ray.get_runtime_context().get_actor_id() or ""}
        self.chunks = Counter("c2llm_chunks", "Embedded chunks", tag_keys=("actor",))
        self.tokens = Counter("c2llm_tokens", "Computed tokens", tag_keys=("actor",))
        self.refused = Counter("c2llm_refused", "Chunks that could not be embedded", tag_keys=("actor",))

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        parcel = parcels.embed(pickle.loads(row["parcel"]), self.embedder)
        for metric, value in (
            (self.chunks, len(parcel.new)),
            (self.tokens, parcel.tokens),
            (self.refused, len(parcel.refused)),
        ):
            if value:
                metric.inc(value, self.tags)
        return _row(parcel)


class _Listing:
    def __init__(self, place: Place, force: bool) -> None:
        self.place = place
        self.force = force

    def __call__(self, row: dict[str, Any]) -> list[dict[str, Any]]:
        return [_row(parcel) for parcel in parcels.list_source(row["item"], self.place, self.force)]


class _ListingTexts:
    def __init__(self, place: Place, source: str) -> None:
        self.place = place
        self.source = source

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[bytes]]:
        missing = {"repository", "path", "text"} - batch.keys()
        if missing:
            raise InputError(f"{self.source} lacks the columns {', '.join(sorted(missing))}")
        by_repository: dict[str, tuple[list[str], list[str]]] = {}
        for name, path, text in zip(batch["repository"], batch["path"], batch["text"], strict=True):
            paths, texts = by_repository.setdefault(str(name), ([], []))
            paths.append(str(path))
            texts.append(str(text))
        found = [
            parcels.list_texts(name, paths, texts, self.source, self.place)
            for name, (paths, texts) in by_repository.items()
        ]
        return {"parcel": [pickle.dumps(parcel) for parcel in found]}


def _row(parcel: Parcel) -> dict[str, Any]:
    return {"parcel": pickle.dumps(parcel)}
