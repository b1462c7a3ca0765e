"""`c2llm index-ray`: several repositories at once, on a Ray cluster, into a server."""

from __future__ import annotations

from dataclasses import MISSING, asdict, dataclass
from functools import partial
from typing import Annotated

import typer

from c2llm_integrations._utils.option_field import option
from c2llm_integrations._utils.progress import shown
from c2llm_integrations.cli import terminal
from c2llm_integrations.cli.options import (
    REFUSED,
    ClusterChoice,
    CollectionPlace,
    ModelChoice,
    Output,
    PlanChoice,
    command,
)
from c2llm_integrations.cli.output import report_lines, say_problems
from c2llm_integrations.cli.store_and_model import load_model, opened
from c2llm_integrations.indexing.options import IngestOptions, WriteOptions


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
