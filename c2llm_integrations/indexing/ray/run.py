"""Ingest on a Ray cluster, with the rows, ids, spec and verification of `ingest`, on any number of machines.

    folders, git URLs, Parquet, JSON lines ─ list ─▶ batches ─ chunk ─▶ ─ embed (actors) ─▶ ─ write ─▶ driver ─ finish

Ray Data moves the batches and applies backpressure, so memory does not grow with the corpus; the work of a task that
dies is repeated, which changes nothing. The functions and the actor that Ray runs stand at the end; what they do is in
`pipeline_stages`.
"""

from __future__ import annotations

import json
import os
import pickle
import socket
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any
from urllib.parse import unquote, urlsplit

from c2llm_integrations._utils.files import real_path
from c2llm_integrations.code.exclude import UNREADABLE
from c2llm_integrations.code.secrets import is_token
from c2llm_integrations.errors import InputError, MissingExtra, RepositoryError, StoreError
from c2llm_integrations.indexing.ingest import spec_for
from c2llm_integrations.indexing.options import IngestOptions
from c2llm_integrations.indexing.ray import pipeline_stages
from c2llm_integrations.indexing.ray.batches import BatchResult, Destination, PassTracker, TrackedRepository
from c2llm_integrations.indexing.ray.cluster import (
    Cluster,
    EmbedderOf,
    actors_a_node,
    connected,
    loader_of,
    plain_errors,
    share_cores,
)
from c2llm_integrations.indexing.report import IngestReport
from c2llm_integrations.stores import DATABASES, open_store
from c2llm_integrations.stores.bulk_loader import clear_refused
from c2llm_integrations.stores.spec import CollectionSpec

try:
    import ray
    import ray.data
    from ray.util import metrics
except ImportError as error:
    raise MissingExtra("ray", "ray") from error

DATA_SETS = (".parquet", ".jsonl")
# Texts of a data set that make one batch.
BATCH_TEXTS = 256
# The metrics of an actor.
COUNTED = {
    "files": "Files read",
    "chunks": "Embedded chunks",
    "tokens": "Computed tokens",
    "refused": "Chunks that could not be embedded",
}
# The most passes; a repository that does not verify after the last one is an error.
PASSES = 3


def ingest_distributed(
    sources: Sequence[str | os.PathLike[str]],
    store: str,
    *,
    collection: str = "code",
    api_key: str | None = None,
    cluster: Cluster | None = None,
    options: IngestOptions | None = None,
) -> list[IngestReport]:
    """Make the collection hold exactly the chunks of every source; return a report for each repository.

    A source that cannot be read, or whose repository another one fills, has a report of its own with the reason under
    `skipped["unreadable"]`; the other sources are still done.

    Args:
        sources: Folders that every machine can read, git URLs or bare repositories, and files or folders of Parquet
            (.parquet) or JSON lines (.jsonl) with columns repository, path and text. All texts of a repository stand
            in one such data set, each path once.
        store: URL of a server.
        collection: Name of the collection.
        api_key: The server's key; by default it is found in each machine's environment.
        cluster: The machines to use, and the model; by default this machine and nano.
        options: As for `ingest`, without those for one repository on one machine. `force` also reads sources again
            that are done; `progress` gets (batches done, batches, repository).

    Raises:
        InputError: The store is embedded, a URL holds a password, two folders are in one repository, or an option
            is for one repository only.
        RepositoryError: No source can be read.
        StoreError: Some repositories, which it names, did not verify after all passes.
        SpecMismatch: As `ingest` does.

    """
    options = options or IngestOptions()
    require_server(store)
    require_distributable(options)
    named = _named(sources)
    if options.refused is not None:
        clear_refused(options.refused)
    cluster = cluster or Cluster()
    destination = Destination(store, collection, api_key, socket.gethostname())
    begin = perf_counter()
    with connected(cluster), plain_errors(), open_store(store, collection, api_key=api_key) as opened:
        spec_of = ray.remote(num_cpus=0, num_gpus=cluster.gpus_each)(_spec_of)
        spec_options = IngestOptions(compact=options.compact, long_text=options.long_text)
        opened.create(ray.get(spec_of.remote(loader_of(cluster), destination, spec_options)))
        is_first = opened.count() == 0
        with opened.bulk() if is_first else nullcontext():
            reports, problems = _passes(named, destination, cluster, options)
        if not is_first:  # also rows that a killed run left unindexed
            opened.optimize()
    if problems and not reports:
        raise RepositoryError("; ".join(f"{source}: {why}" for source, why in problems.items()))
    reports += [IngestReport(source, skipped={UNREADABLE: [f"{source}: {why}"]}) for source, why in problems.items()]
    for report in reports:
        report.seconds = perf_counter() - begin
    if options.refused is not None:
        _write_refused(reports, options.refused)
    return reports


def require_server(store: str) -> None:
    """Raise InputError for the URL of an embedded store."""
    scheme = store.partition("://")[0]
    if scheme in DATABASES and not DATABASES[scheme].port:
        raise InputError(f"{scheme}:// is for one process; a cluster needs a server, such as qdrant+http://HOST:6333")


def _named(sources: Sequence[str | os.PathLike[str]]) -> list[str]:
    """Return the sources as every machine knows them, each once."""
    named: dict[str, str] = {}
    for source in map(str, sources):
        if "://" in source:
            if _holds_password(source):
                raise InputError(
                    "a URL holds a password, token or parameters; take it out, URLs end up in logs, "
                    "and use a credential helper"
                )
            named[source] = source
            continue
        folder = real_path(source)
        root = next((above for above in (folder, *folder.parents) if (above / ".git").exists()), folder)
        key = str(folder if source.endswith(DATA_SETS) else root)
        if named.setdefault(key, str(folder)) != str(folder):
            raise InputError(f"{named[key]} and {folder} are in one repository, {root}; index that, or one at a time")
    if not named:
        raise InputError("there is nothing to index; give at least one source")
    return list(named.values())


def _holds_password(source: str) -> bool:
    """Return whether a URL holds a password or a token, anywhere in it; raises InputError if it is not a URL."""
    try:
        source.encode()
        url = urlsplit(source)
    except ValueError:
        url = None
    if url is None or not source.isprintable():
        raise InputError(f"{source!r:.200} is not a URL; write it like https://host/owner/name.git")
    # An access token may stand as the user of a web address; "git" does in ssh://git@host.
    is_user = url.scheme in ("http", "https") and url.username is not None
    return url.password is not None or is_user or bool(url.query) or is_token(unquote(source))


def require_distributable(options: IngestOptions) -> None:
    """Raise InputError for an option that is for one repository in one process."""
    default = IngestOptions()
    for name in ("repository", "replace", "include_secrets", "only", "vectors_from"):
        if getattr(options, name) != getattr(default, name):
            raise InputError(f"{name} is for one repository on this machine, not for a cluster; leave it out")


def _spec_of(make: EmbedderOf, destination: Destination, options: IngestOptions) -> CollectionSpec:
    """Return the spec that the collection is to have for vectors of this model."""
    store, embedder = destination.open(), make()
    return spec_for(embedder.output_dim, embedder.fingerprint, store, options, store.spec)


def _write_refused(reports: Sequence[IngestReport], file: Path) -> None:
    lines = [
        json.dumps({"id": id, "repository": report.repository, "reason": why}) + "\n"
        for report in reports
        for id, why in report.refused.items()
    ]
    if lines:
        file.write_text("".join(lines), encoding="ascii")


# ---- passes: batches stream through the cluster, the driver adds them up


def _passes(
    sources: list[str], destination: Destination, cluster: Cluster, options: IngestOptions
) -> tuple[list[IngestReport], dict[str, str]]:
    """Go through the sources until all is verified; return the repositories' reports, and source → its problem."""
    verified: dict[str, IngestReport] = {}
    unverified: dict[str, IngestReport] = {}
    problems: dict[str, str] = {}
    forced = set(sources if options.force else ())
    left = sources
    for _ in range(PASSES):
        destination = replace(destination, token=uuid.uuid4().hex)
        texts = {source: _texts(source) for source in left if source.endswith(DATA_SETS)}
        rows = {source: data.count() for source, data in texts.items()}
        tracker = PassTracker(rows, partial(_start_finish, destination))
        for done, result in enumerate(_stream(left, texts, destination, cluster, forced), 1):
            tracker.take(result)
            if options.progress is not None:
                options.progress(done, tracker.total, result.repository)
        left = tracker.end(left)
        problems |= tracker.problems
        forced |= tracker.contested  # the claim may be the other's by now, and rows of it are there
        for name, report in tracker.verified.items():
            verified[name] = _added(verified.get(name) or unverified.get(name), report)
        for name, one in tracker.failed.items():
            unverified[name] = _added(unverified.get(name), one.report)
        if not left:
            return list(verified.values()), problems
    missing = ", ".join(sorted(tracker.failed) or left)
    raise StoreError(f"not verified after {PASSES} passes: {missing}; run again, and check who else writes there")


def _added(before: IngestReport | None, report: IngestReport) -> IngestReport:
    """Return the report of a repository that took another pass: its rows now, and the work of all passes."""
    if before is not None:
        report.unchanged = max(0, report.unchanged - before.written)
        for name in ("written", "moved", "deleted", "tokens", "cut", "shortened"):
            setattr(report, name, getattr(report, name) + getattr(before, name))
    return report


def _start_finish(destination: Destination, one: TrackedRepository) -> Callable[[], tuple[int, int]]:
    """Start a task that finishes a repository; return what waits for it, as `PassTracker` wants it."""
    task = ray.remote(num_cpus=0.25, max_retries=-1)(pipeline_stages.finish)
    wanted = None if one.is_done else one.wanted
    answer = task.remote(one.report.repository, destination, wanted, one.stale, one.paths, one.claim)

    def wait() -> tuple[int, int]:
        with plain_errors():
            deleted, stored = ray.get(answer)
            return deleted, stored

    return wait


def _texts(source: str) -> ray.data.Dataset:
    if not source.endswith(".parquet"):
        return ray.data.read_json(source)
    context = ray.data.DataContext.get_current()
    newest = getattr(context, "use_datasource_v2", None)
    if newest is None:
        return ray.data.read_parquet(source)
    context.use_datasource_v2 = False  # it starts 32 processes to look into one file
    try:
        return ray.data.read_parquet(source)
    finally:
        context.use_datasource_v2 = newest


def _stream(
    sources: Sequence[str],
    texts: dict[str, ray.data.Dataset],
    destination: Destination,
    cluster: Cluster,
    forced: Collection[str],
) -> Iterator[BatchResult]:
    """Yield what each batch gave; `forced`: sources that take over names, and are read again even if done."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    folders = [source for source in sources if source not in texts]
    for dataset in _listed(folders, texts, destination, forced):
        chunked = dataset.map(chunk, fn_args=(destination,), num_cpus=0.5)
        embedded = chunked.map(
            embedding_actor(loader_of(cluster), actors_a_node(cluster)),
            compute=ray.data.ActorPoolStrategy(size=cluster.embedders),
            num_cpus=1,
            num_gpus=cluster.gpus_each,
        )
        writers = ray.data.TaskPoolStrategy(cluster.writers)
        written = embedded.map(write, fn_args=(destination,), compute=writers, num_cpus=0.25)
        for row in written.iter_rows():
            yield pickle.loads(row["batch"])


def _listed(
    folders: Sequence[str], texts: Mapping[str, Any], destination: Destination, forced: Collection[str]
) -> Iterator[Any]:
    """Yield data sets of batches, one batch a block, so that each is passed on as soon as it is ready.

    Untyped, for Ray's types of a function leave out what `fn_args` gives it.
    """
    if folders:
        items: Any = ray.data.from_items(list(folders), override_num_blocks=len(folders))
        listed = items.flat_map(list_source, fn_args=(destination, forced), num_cpus=0.5)
        yield listed.repartition(target_num_rows_per_block=1)
    for source, dataset in texts.items():
        more = (destination, source, source in forced)
        listed = dataset.map_batches(list_texts, fn_args=more, batch_size=BATCH_TEXTS, num_cpus=0.5)
        yield listed.repartition(target_num_rows_per_block=1)


# ---- the stages as tasks and actors: rows in, rows out, a pickled batch in each; Ray names them after these functions


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
        self.counters = {
            name: metrics.Counter(f"c2llm_{name}", what, tag_keys=("actor",)) for name, what in COUNTED.items()
        }

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return the row with vectors, and count what was done."""
        batch = pipeline_stages.embed(pickle.loads(row["batch"]), self.embedder)
        report = batch.result.report
        done = {
            "files": report.files,
            "chunks": len(batch.new),
            "tokens": report.tokens,
            "refused": report.refused_count,
        }
        for name, value in done.items():
            if value:
                self.counters[name].inc(value, self.tags)
        return _row(batch)


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
