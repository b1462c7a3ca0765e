"""`c2llm load`: a file of records → the rows of their source."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from c2llm_integrations._utils.option_field import option
from c2llm_integrations._utils.progress import shown
from c2llm_integrations.cli import terminal
from c2llm_integrations.cli.context import load_model, opened, store_of
from c2llm_integrations.cli.options import (
    REFUSED,
    ClusterChoice,
    CollectionPlace,
    ModelChoice,
    Output,
    PlanChoice,
    command,
)
from c2llm_integrations.cli.output import say_problems, write_report
from c2llm_integrations.indexing.options import RecordOptions

if TYPE_CHECKING:
    from c2llm_integrations.model.embedder import C2LLMEmbedder
    from c2llm_integrations.model.fingerprint import DocumentEmbedder


@dataclass(frozen=True)
class RecordsPlace(CollectionPlace):
    """A collection, other than that of code."""

    collection: str = option("records", "The set of rows inside the store, apart from that of code.", metavar="NAME")


@dataclass(frozen=True, kw_only=True)
class LoadRun(ClusterChoice, Output):
    """The source of the records, and options of one run."""

    source: str = option(MISSING, "Name of the set that the records belong to; the same in every run.", metavar="NAME")
    field: list[str] | None = option(
        None,
        "Index a field for filters: keyword, tenant, integer, float, boolean or datetime; may be repeated.",
        metavar="NAME=KIND",
    )
    embedders: int | None = option(
        None, "Number of Ray actors that embed.  [default: none, in this process]", metavar="N", min=1
    )
    dry_run: bool = option(False, "Print what would be done; do nothing.")


@command
def load(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Records: .jsonl, .jsonl.gz or .parquet.")],
    run: LoadRun,
    options: RecordOptions,
    place: RecordsPlace,
    model: ModelChoice,
    plan: PlanChoice,
) -> int:
    """Load records into a store. A repeated run embeds only what has changed; a killed one continues where it stopped.

    All fields but the text, the id and the vector are stored as metadata, for filters.
    """
    from c2llm_integrations.indexing.claims import require_known_model
    from c2llm_integrations.indexing.ingest_records import ingest_records_with, plan_records

    options = replace(options, fields=_kinds(run.field))
    with opened(place.store or store_of(Path()), place.collection) as held:
        spec = None if options.replace else held.spec
        if spec is not None and options.vectors is None:
            require_known_model(held, model.model)
        with _embedding(run, partial(load_model, model, spec), options) as (embedder, batch_size):
            width = embedder.output_dim if embedder else None
            options = replace(options, compact=plan.plan(width, spec), batch_size=batch_size)
            if run.dry_run:
                report = plan_records(file, embedder, held, run.source, options)
            else:
                with shown() as progress:
                    report = ingest_records_with(file, embedder, held, run.source, replace(options, progress=progress))
    write_report(report, planned=run.dry_run, as_json=run.as_json)
    if options.replace and report.refused_count and not run.dry_run:
        terminal.say("the collection is as it was: mend what was refused, and run this again")
    elif spec is None and report.stored and not run.dry_run and embedder is not None:
        terminal.say(f'now ask: c2llm search{place.again()} "..."')
    return 1 if say_problems(report.refused, report.refused_count, options.refused or REFUSED) else 0


@contextmanager
def _embedding(
    run: LoadRun, load: Callable[[], C2LLMEmbedder], options: RecordOptions
) -> Iterator[tuple[DocumentEmbedder | None, int | None]]:
    """Yield the embedder, None if vectors are given, and the batch size, None for the default."""
    if run.embedders is None:
        yield load() if options.vectors is None else None, options.batch_size
        return
    if options.vectors is not None or run.dry_run:
        raise typer.BadParameter(
            "it has no effect with --vectors or --dry-run, which embed nothing", param_hint="--embedders"
        )
    from c2llm_integrations.indexing.ray.cluster import Cluster, RayEmbedder

    with RayEmbedder.on(Cluster(run.address, run.embedders, run.gpus_each, make_embedder=load)) as embedder:
        yield embedder, options.batch_size or embedder.batch_size


def _kinds(fields: list[str] | None) -> dict[str, str] | None:
    """Parse NAME=KIND options into field → kind."""
    pairs = [one.partition("=") for one in fields or ()]
    for name, _, kind in pairs:
        if not name or not kind:
            raise typer.BadParameter(f"{name!r} is not NAME=KIND, such as votes=integer", param_hint="--field")
    return {name: kind for name, _, kind in pairs} or None
