"""The same ingest on a Ray cluster: `ingest`'s rows, ids, spec and verification, on any number of machines.

    folders, git URLs, Parquet, JSON lines ─ list ─▶ parcels ─ chunk ─▶ ─ embed (actors) ─▶ ─ write ─▶ driver ─ finish

Ray Data moves the parcels and holds back what runs ahead, so memory does not grow with the corpus; what dies is done
again, which changes nothing.
"""

from __future__ import annotations

import json
import logging
import os
import pickle
import socket
import uuid
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any
from urllib.parse import urlsplit

from c2llm_integrations import parcels
from c2llm_integrations.code.skipping import UNREADABLE
from c2llm_integrations.compression import CompactPlan
from c2llm_integrations.errors import C2LLMError, InputError, MissingExtra, RepositoryError, StoreError
from c2llm_integrations.gathering import Gathered, Gathering
from c2llm_integrations.ingest import IngestReport, spec_for
from c2llm_integrations.parcels import Parcel, Place
from c2llm_integrations.progress import Progress
from c2llm_integrations.stores import LOCAL, open_store
from c2llm_integrations.stores.base import CollectionSpec

try:
    import ray
    import ray.data
    from ray.util import metrics
except ImportError as error:
    raise MissingExtra("ray", "ray") from error

DATA_SETS = (".parquet", ".jsonl")
# Texts of a data set that make one parcel.
TEXTS = 256
# Times a repository that does not verify is gone through before it is an error.
PASSES = 3

EmbedderOf = Callable[[], Any]
PlanOf = Callable[[int, CollectionSpec | None], CompactPlan | None]


@dataclass
class Cluster:
    """What a run may use: the `address` of a running cluster (None starts one on this machine), embedding actors,
    GPUs for each, and writing tasks at once.
    """

    address: str | None = None
    embedders: int = 1
    gpus_each: float = 0.0
    writers: int = 2


def ingest_distributed(
    sources: Sequence[str | os.PathLike[str]],
    store: str,
    *,
    model: str = "nano",
    collection: str = "code",
    api_key: str | None = None,
    cluster: Cluster | None = None,
    options: dict[str, Any] | None = None,
    make_embedder: EmbedderOf | None = None,
    compact: PlanOf | None = None,
    long_text: str | None = None,
    force: bool = False,
    refused: Path | None = None,
    progress: Progress | None = None,
) -> list[IngestReport]:
    """Make the collection hold exactly the chunks of every source; return a report for each repository.

    `sources`: folders that every machine can read, git URLs or bare repositories, and files or folders of Parquet
    (.parquet) or JSON lines (.jsonl) with columns repository, path and text; all texts of a repository stand in one
    such data set, each path once. `store`: the URL of a server; the key is given, or found in each machine's
    environment. `options` are those of `C2LLMEmbedder.from_pretrained`; `make_embedder` makes another embedder than
    `model`. `compact(width, the collection's spec)` gives the plan and `long_text` is that of `ingest`. `force` takes
    over names that others fill, and reads again what is done. `refused`: a file that gets a line of JSON for each row
    that was refused. `progress(parcels done, parcels, repository)`.
    A source that cannot be read, or whose repository another one fills, has a report of its own with the reason under
    `skipped["unreadable"]`; the others are done all the same.
    Raises InputError for an embedded store, a URL with a password and folders of one repository; RepositoryError if
    there is no source that can be read; StoreError naming the repositories that the store does not hold as they are
    after all passes; SpecMismatch as `ingest` does.
    """
    require_server(store)
    named = _named(sources)
    cluster = cluster or Cluster()
    make = make_embedder or _Loading(model, options or {})
    place = Place(store, collection, api_key, socket.gethostname())
    begin = perf_counter()
    with _connected(cluster), _plain_errors(), open_store(store, collection, api_key=api_key) as opened:
        spec_of = ray.remote(num_cpus=0, num_gpus=cluster.gpus_each)(_spec_of)
        opened.create(ray.get(spec_of.remote(make, place, compact, long_text)))
        is_first = opened.count() == 0
        with opened.bulk() if is_first else nullcontext():
            reports, problems = _passes(named, place, make, cluster, force, progress)
        if not is_first:  # also what a killed run left put off
            opened.optimize()
    if problems and not reports:
        raise RepositoryError("; ".join(f"{source}: {why}" for source, why in problems.items()))
    reports += [IngestReport(source, skipped={UNREADABLE: [f"{source}: {why}"]}) for source, why in problems.items()]
    for report in reports:
        report.seconds = perf_counter() - begin
    if refused is not None:
        _write_refused(reports, refused)
    return reports


def require_server(store: str) -> None:
    """Raise InputError for the URL of an embedded store."""
    scheme = store.partition("://")[0]
    if scheme in LOCAL:
        raise InputError(f"{scheme}:// is for one process; a cluster needs a server, such as qdrant+http://HOST:6333")


def _named(sources: Sequence[str | os.PathLike[str]]) -> list[str]:
    """Return the sources as every machine knows them, each once."""
    named: dict[str, str] = {}
    for source in map(str, sources):
        if "://" in source:
            url = urlsplit(source)
            # An access token may stand as the user of a web address; "git" does in ssh://git@host.
            if url.password is not None or (url.scheme in ("http", "https") and url.username is not None):
                raise InputError("a URL holds a password; take it out, URLs end up in logs; use a credential helper")
            named[source] = source
            continue
        folder = Path(source).resolve()
        root = next((above for above in (folder, *folder.parents) if (above / ".git").exists()), folder)
        key = str(folder if source.endswith(DATA_SETS) else root)
        if named.setdefault(key, str(folder)) != str(folder):
            raise InputError(f"{named[key]} and {folder} are in one repository, {root}; index that, or one at a time")
    if not named:
        raise InputError("there is nothing to index; give at least one source")
    return list(named.values())


@dataclass(frozen=True)
class _Loading:
    """Loads the model by name, on whichever machine calls it."""

    model: str
    options: dict[str, Any]

    def __call__(self) -> Any:
        from c2llm_integrations.embedder import C2LLMEmbedder

        return C2LLMEmbedder.from_pretrained(self.model, **self.options)


def _spec_of(make: EmbedderOf, place: Place, compact: PlanOf | None, long_text: str | None) -> CollectionSpec:
    """Return the spec that the collection is to have for vectors of this model."""
    embedder, store = make(), place.open()
    plan = None if compact is None else compact(embedder.output_dim, store.spec)
    return spec_for(embedder, store, plan, long_text, store.spec)


@contextmanager
def _connected(cluster: Cluster) -> Iterator[None]:
    """Connect to the cluster, or start one on this machine, unless this process is connected already."""
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would report to its makers
    logging.getLogger("ray").setLevel(logging.ERROR)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
    if cluster.address is not None:
        ray.init(cluster.address, **quiet)
    else:
        # Logical cores: an actor that embeds leaves room for the steps around it, which take little.
        cores = max(os.cpu_count() or 1, 2) + cluster.embedders
        ray.init("local", num_cpus=cores, include_dashboard=False, **quiet)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"ray\.")  # its own settings, and small inputs
            yield
    finally:
        ray.shutdown()


@contextmanager
def _plain_errors() -> Iterator[None]:
    """Raise this package's own errors as they were on the other machine, without Ray's traceback from there."""
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


def _write_refused(reports: Sequence[IngestReport], file: Path) -> None:
    file.unlink(missing_ok=True)
    lines = [
        json.dumps({"id": id, "repository": report.repository, "reason": why}) + "\n"
        for report in reports
        for id, why in report.refused.items()
    ]
    if lines:
        file.write_text("".join(lines), encoding="ascii")


# ---- passes: parcels stream through the cluster, the driver adds them up


def _passes(
    sources: list[str], place: Place, make: EmbedderOf, cluster: Cluster, force: bool, progress: Progress | None
) -> tuple[list[IngestReport], dict[str, str]]:
    """Go through the sources until all is verified; return the repositories' reports, and source → its problem."""
    reports: dict[str, IngestReport] = {}
    began: dict[str, IngestReport] = {}
    problems: dict[str, str] = {}
    forced = set(sources if force else ())
    for _ in range(PASSES):
        here = replace(place, token=uuid.uuid4().hex)
        texts = {source: _texts(source) for source in sources if source.endswith(DATA_SETS)}
        gathering = Gathering({source: data.count() for source, data in texts.items()}, _Finish(here))
        for done, parcel in enumerate(_stream(sources, texts, here, make, cluster, forced), 1):
            gathering.take(parcel)
            if progress is not None:
                progress(done, gathering.total, parcel.repository)
        sources = gathering.end(sources)
        problems |= gathering.problems
        forced |= gathering.contested  # the claim may be the other's by now, and rows of it are there
        for name, report in gathering.verified.items():
            reports[name] = _added(reports.get(name) or began.get(name), report)
        for name, one in gathering.failed.items():
            began[name] = _added(began.get(name), one.report)
        if not sources:
            return list(reports.values()), problems
    missing = ", ".join(sorted(gathering.failed) or sources)
    raise StoreError(f"not verified after {PASSES} passes: {missing}; run again, and check who else writes there")


def _added(before: IngestReport | None, report: IngestReport) -> IngestReport:
    """Return the report of a repository that took another pass: what it is now, and what was done in all."""
    if before is not None:
        report.unchanged = max(0, report.unchanged - before.written)
        for name in ("written", "moved", "deleted", "tokens", "cut", "shortened"):
            setattr(report, name, getattr(report, name) + getattr(before, name))
    return report


class _Finish:
    """Has a repository finished by a task, as `Gathering` asks for."""

    def __init__(self, place: Place) -> None:
        self.place = place

    def __call__(self, one: Gathered) -> Callable[[], tuple[int, int]]:
        task = ray.remote(num_cpus=0.25, max_retries=-1)(parcels.finish)
        wanted = None if one.is_done else one.wanted
        answer = task.remote(one.report.repository, self.place, wanted, one.stale, one.paths, one.claim)

        def wait() -> tuple[int, int]:
            with _plain_errors():
                deleted, stored = ray.get(answer)
                return deleted, stored

        return wait


def _texts(source: str) -> ray.data.Dataset:
    return ray.data.read_parquet(source) if source.endswith(".parquet") else ray.data.read_json(source)


def _stream(
    sources: Sequence[str],
    texts: dict[str, ray.data.Dataset],
    place: Place,
    make: EmbedderOf,
    cluster: Cluster,
    forced: Collection[str],
) -> Iterator[Parcel]:
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    folders = [source for source in sources if source not in texts]
    for dataset in _listed(folders, texts, place, forced):
        chunked = dataset.map(_Chunk(parcels.chunk, place), num_cpus=0.5)
        embedded = chunked.map(
            _embedding(make, _actors_a_node(cluster)),
            compute=ray.data.ActorPoolStrategy(size=cluster.embedders),
            num_cpus=1,
            num_gpus=cluster.gpus_each,
        )
        written = embedded.map(
            _Write(parcels.write, place), compute=ray.data.TaskPoolStrategy(cluster.writers), num_cpus=0.25
        )
        for row in written.iter_rows():
            yield pickle.loads(row["parcel"])


def _listed(
    folders: Sequence[str], texts: dict[str, ray.data.Dataset], place: Place, forced: Collection[str]
) -> Iterator[ray.data.Dataset]:
    """Yield data sets of parcels, one parcel a block, so that each is passed on as soon as it is ready.

    `forced`: sources that take over names which others fill, and are read again where they are done.
    """
    if folders:
        listed = ray.data.from_items(list(folders), override_num_blocks=len(folders))
        step = _Listing(place, forced)
        yield listed.flat_map(step, num_cpus=0.5).repartition(target_num_rows_per_block=1)
    for source, dataset in texts.items():
        parts = dataset.map_batches(_ListingTexts(place, source, source in forced), batch_size=TEXTS, num_cpus=0.5)
        yield parts.repartition(target_num_rows_per_block=1)


def _actors_a_node(cluster: Cluster) -> int:
    nodes = sum(node["Alive"] for node in ray.nodes())  # type: ignore[no-untyped-call]
    return -(-cluster.embedders // max(1, nodes))


# ---- the steps, as Ray calls them: rows in, rows out, a pickled parcel in each


class _Step:
    """A function of a parcel. Ray names its tasks after the class."""

    def __init__(self, work: Callable[..., Parcel], *more: Any) -> None:
        self.work = work
        self.more = more

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return _row(self.work(pickle.loads(row["parcel"]), *self.more))


class _Chunk(_Step):
    pass


class _Write(_Step):
    pass


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
        self.files = metrics.Counter("c2llm_files", "Files read", tag_keys=("actor",))
        self.chunks = metrics.Counter("c2llm_chunks", "Embedded chunks", tag_keys=("actor",))
        self.tokens = metrics.Counter("c2llm_tokens", "Computed tokens", tag_keys=("actor",))
        self.refused = metrics.Counter("c2llm_refused", "Chunks that could not be embedded", tag_keys=("actor",))

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        parcel = parcels.embed(pickle.loads(row["parcel"]), self.embedder)
        for metric, value in (
            (self.files, parcel.read),
            (self.chunks, len(parcel.new)),
            (self.tokens, parcel.tokens),
            (self.refused, len(parcel.refused)),
        ):
            if value:
                metric.inc(value, self.tags)
        return _row(parcel)


class _Listing:
    def __init__(self, place: Place, forced: Collection[str]) -> None:
        self.place = place
        self.forced = forced

    def __call__(self, row: dict[str, Any]) -> Iterator[dict[str, Any]]:
        source = row["item"]
        return map(_row, parcels.list_source(source, self.place, source in self.forced))


class _ListingTexts:
    def __init__(self, place: Place, source: str, force: bool) -> None:
        self.place = place
        self.source = source
        self.force = force

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[bytes]]:
        missing = {"repository", "path", "text"} - batch.keys()
        if missing:
            raise InputError(f"{self.source} lacks the columns {', '.join(sorted(missing))}")
        by_repository: dict[str, tuple[list[str], list[str | None]]] = {}
        for name, path, text in zip(batch["repository"], batch["path"], batch["text"], strict=True):
            paths, texts = by_repository.setdefault(str(name), ([], []))
            paths.append(str(path))
            texts.append(text if isinstance(text, str) else None)
        found = [
            parcels.list_texts(name, paths, texts, self.source, self.place, self.force)
            for name, (paths, texts) in by_repository.items()
        ]
        return {"parcel": [pickle.dumps(parcel) for parcel in found]}


def _row(parcel: Parcel) -> dict[str, Any]:
    return {"parcel": pickle.dumps(parcel)}
