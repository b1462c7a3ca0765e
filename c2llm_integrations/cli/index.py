"""`c2llm index` and `index-ray`: a repository → the rows of a collection, and several at once on a Ray cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import MISSING, asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from c2llm_integrations._utils.files import real_path
from c2llm_integrations._utils.option_field import option
from c2llm_integrations._utils.progress import shown
from c2llm_integrations.cli import terminal
from c2llm_integrations.cli.context import folders_to_refresh, load_model, nested, opened, store_of
from c2llm_integrations.cli.options import (
    REFUSED,
    ClusterChoice,
    CollectionPlace,
    ModelChoice,
    Output,
    PlanChoice,
    command,
)
from c2llm_integrations.cli.output import report_lines, say_problems, write_report
from c2llm_integrations.indexing.options import IngestOptions, WriteOptions

if TYPE_CHECKING:
    from c2llm_integrations.indexing.options import VectorsFrom
    from c2llm_integrations.indexing.report import IngestReport
    from c2llm_integrations.model.embedder import C2LLMEmbedder
    from c2llm_integrations.stores.vector_store import VectorStore

LARGER = "codefuse-ai/C2LLM-0.5B (1 GB) or codefuse-ai/C2LLM-7B (15 GB)"
# Seconds that a run may spend on comparing files that may have changed.
COMPARE_SECONDS = 10.0


@dataclass(frozen=True)
class IndexRun(Output):
    """Options of a run besides indexing."""

    dry_run: bool = option(False, "Print what would be done and what it would cost; do nothing.")
    watch: bool = option(False, "Keep running and index again on changes, until Ctrl-C.")
    vectors_from: str | None = option(
        None, "A store whose collection of the same name has vectors to copy, such as a team's.", metavar="URL"
    )


@command
def index(
    path: Annotated[
        Path, typer.Argument(metavar="PATH", show_default=False, help="A repository, or a folder in one.  [default: .]")
    ] = Path(),
    *,
    place: CollectionPlace,
    model: ModelChoice,
    plan: PlanChoice,
    options: IngestOptions,
    run: IndexRun,
) -> int:
    """Read a repository into a store. A repeated run embeds only what has changed, and remembers the options.

    The bundled model, nano, is the default. For better answers, slower: --model codefuse-ai/C2LLM-0.5B or
    codefuse-ai/C2LLM-7B, with --replace if the collection was made with another model.
    """
    if run.watch and run.dry_run:
        raise typer.BadParameter("it cannot be combined with --watch; choose one", param_hint="--dry-run")
    report, is_new, again = _index(path, place, model, plan, options, run)
    write_report(report, planned=run.dry_run, as_json=run.as_json)
    if is_new and report.stored and not run.dry_run:
        terminal.say(f'now ask: c2llm search{place.again()} "..."')
        terminal.say(f"better answers, slower: c2llm index{place.again()} --replace --model {LARGER}")
    for advice in nested(path, report, place):
        terminal.say(advice)
    failed = say_problems(report.refused, report.refused_count, options.refused or REFUSED, report.unreadable)
    if run.watch:
        with opened(place.store or store_of(path), place.collection) as held:
            _keep_current(path, held, partial(again, held))
    return 1 if failed else 0


def bring_up_to_date(place: CollectionPlace, model: ModelChoice) -> None:
    """Update the index of the repository around the current folder, or make it."""
    for folder, root in folders_to_refresh(place):
        options = IngestOptions(refused=REFUSED, expected_root=root)
        report, _, _ = _index(folder, place, model, PlanChoice(), options, IndexRun())
        say_problems(report.refused, report.refused_count, REFUSED, report.unreadable)


def _index(
    path: Path,
    place: CollectionPlace,
    model: ModelChoice,
    plan: PlanChoice,
    options: IngestOptions,
    run: IndexRun,
) -> tuple[IngestReport, bool, Callable[..., IngestReport]]:
    """Index one repository in this process, or only plan it.

    Returns the report, whether the collection is a new one, and what indexes the same way again, given a store and
    the paths to look at.
    """
    from c2llm_integrations.code.repository import root_of
    from c2llm_integrations.indexing.claims import index_of, require_known_model
    from c2llm_integrations.indexing.ingest import ingest_with
    from c2llm_integrations.indexing.ingest import plan as plan_run
    from c2llm_integrations.stores import require_one_key

    root = options.expected_root or root_of(path)
    options = replace(options, expected_root=root)
    if run.vectors_from is not None:
        require_one_key(place.store or index_of(root), run.vectors_from)
    with opened(place.store or index_of(root), place.collection) as held:
        spec = None if options.replace else held.spec
        if spec is not None:
            require_known_model(held, model.model)
        embedder = load_model(model, spec)
        options = replace(options, compact=plan.plan(embedder.output_dim, spec))
        if run.dry_run:
            report = plan_run(path, held, embedder, options)
        else:
            stored_as = plan.datatype or (spec.datatype if spec is not None else "float32")
            others = _known_vectors(root, place, run.vectors_from, embedder, stored_as)
            with shown() as progress, others as known:
                report = ingest_with(path, embedder, held, replace(options, progress=progress, vectors_from=known))

    def again(held: VectorStore, only: frozenset[str] | None = None) -> IngestReport:
        return ingest_with(path, embedder, held, replace(options, replace=False, only=only))

    return report, spec is None, again


@contextmanager
def _known_vectors(
    root: Path, place: CollectionPlace, url: str | None, embedder: C2LLMEmbedder, datatype: str
) -> Iterator[VectorsFrom]:
    """Yield a source of vectors: the repository's other worktrees and the store at `url`; print how many it gave."""
    from c2llm_integrations.indexing.vector_reuse import SharedIndex, Worktrees, known_vectors

    with ExitStack() as stack:
        others = shared = None
        if place.store is None:
            others = stack.enter_context(Worktrees(root, place.collection, embedder, datatype))
        if url is not None:
            shared = SharedIndex(stack.enter_context(opened(url, place.collection)), embedder, datatype)
        sources = [one.vectors for one in (others, shared) if one is not None]
        yield lambda chunks: known_vectors(chunks, *sources)
    for note in others.notes if others is not None else ():
        terminal.say(note)
    if others is not None and others.copied:
        terminal.say(f"{others.copied:,} vectors were copied from other worktrees")
    if shared is not None:
        terminal.say(f"{shared.copied:,} vectors were copied from {url}")


def _keep_current(path: Path, store: VectorStore, run: Callable[..., IngestReport]) -> None:
    """Call `run(only=paths)` whenever files under `path` differ from what `store` holds, until Ctrl-C."""
    from c2llm_integrations.code.repository import root_of
    from c2llm_integrations.indexing.staleness import stale
    from c2llm_integrations.indexing.watcher import watch

    folder = real_path(path)
    root = root_of(folder)
    below = "" if folder == root else f"{folder.relative_to(root).as_posix()}/"

    def work() -> None:
        found = stale(root, store, COMPARE_SECONDS)
        if found is None:
            return
        paths = frozenset(one for one in found.paths if one.startswith(below))
        if not found.unknown and not paths:
            return
        report = run(only=None if found.unknown else paths)
        terminal.say(
            f"{report.repository}: {report.files:,} files, written {report.written:,}, moved {report.moved:,}, "
            f"deleted {report.deleted:,}, refused {report.refused_count:,} in {report.seconds:.1f} s"
        )

    terminal.say(f"watching {folder} until you press Ctrl-C")
    with suppress(KeyboardInterrupt):
        watch(folder, work, terminal.say)


@dataclass(frozen=True)
class ServerPlace(CollectionPlace):
    """A collection of a server."""

    store: str | None = option(MISSING, "A Qdrant or Milvus server.", metavar="URL")


@dataclass(frozen=True)
class RayRun(ClusterChoice, Output):
    """The cluster of a run, and its other options."""

    embedders: int = option(1, "Ray's actors with a model each.", metavar="N", min=1)
    force: bool = option(False, "Take over names that other checkouts fill, and read sources again that are done.")


@command
def index_ray(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="Repositories, folders in one, git URLs, and .parquet or .jsonl of repository, path and text.",
        ),
    ],
    place: ServerPlace,
    model: ModelChoice,
    plan: PlanChoice,
    options: WriteOptions,
    run: RayRun,
) -> int:
    """Read repositories into a Qdrant or Milvus server, on a Ray cluster. Rows are those that c2llm index writes."""
    from c2llm_integrations.indexing.ray.cluster import Cluster
    from c2llm_integrations.indexing.ray.run import ingest_distributed, require_server

    url = str(place.store)
    require_server(url)
    with opened(url, place.collection) as held:
        spec = held.spec
    with shown() as progress:
        reports = ingest_distributed(
            sources,
            url,
            collection=place.collection,
            cluster=Cluster(run.address, run.embedders, run.gpus_each, make_embedder=partial(load_model, model, spec)),
            options=IngestOptions(
                long_text=options.long_text,
                refused=options.refused,
                force=run.force,
                compact=plan.plan(None, spec),
                progress=progress,
            ),
        )
    if run.as_json:
        terminal.write_json([asdict(report) for report in reports])
    else:
        terminal.write("\n".join(line for report in reports for line in report_lines(report, False)))
    why = {id: reason for report in reports for id, reason in report.refused.items()}
    unread = [path for report in reports for path in report.unreadable]
    return 1 if say_problems(why, len(why), options.refused or REFUSED, unread) else 0
