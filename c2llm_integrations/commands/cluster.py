"""`c2llm index --engine ray`: several repositories at once, on a Ray cluster."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from c2llm_integrations import terminal
from c2llm_integrations.commands.opening import load_model, opened
from c2llm_integrations.commands.options import plan_of
from c2llm_integrations.commands.reports import report_lines, say_problems

Engine = Annotated[str, typer.Option(metavar="local|ray", help="ray: on a cluster, into a Qdrant or Milvus server.")]
Address = Annotated[
    str | None, typer.Option(metavar="A", help="Ray's cluster, such as auto.  [default: start one here]")
]
Embedders = Annotated[
    int | None, typer.Option(metavar="N", min=1, help="Ray's actors with a model each.  [default: 1]")
]
GpusEach = Annotated[float | None, typer.Option(metavar="G", min=0, help="GPUs for each of these.  [default: 0]")]


def require_local(paths: Sequence[str], cluster_options: dict[str, object]) -> None:
    """Raise typer.BadParameter for what only a cluster can do."""
    if len(paths) > 1:
        raise typer.BadParameter("several need --engine ray and a server; run it once for each", param_hint="PATH")
    for name, value in cluster_options.items():
        if value is not None:
            raise typer.BadParameter("it is for --engine ray", param_hint=name)


def index_on_cluster(
    paths: Sequence[str],
    store: str | None,
    collection: str,
    *,
    model: str | None,
    vectors: dict[str, Any],
    compact: dict[str, Any],
    long_text: str | None,
    force: bool,
    refused: Path,
    cluster: dict[str, Any],
    unusable: dict[str, object],
    as_json: bool,
) -> int:
    """Index all `paths` into a server and return the exit code.

    `vectors` are the options of `load_model`, `compact` of `plan_of`, `cluster` of `Cluster`; an option in `unusable`
    that is set is refused.
    """
    from c2llm_integrations.distributed import Cluster, ingest_distributed, require_server
    from c2llm_integrations.stores import EDGE

    for name, value in unusable.items():
        if value:
            raise typer.BadParameter("it is for one repository on this machine, not for --engine ray", param_hint=name)
    url = store or EDGE  # which is refused by its name
    require_server(url)
    with opened(url, collection) as held:
        spec = held.spec
    with terminal.progress_bar() as progress:
        reports = ingest_distributed(
            paths,
            url,
            collection=collection,
            cluster=Cluster(**{name: value for name, value in cluster.items() if value is not None}),
            make_embedder=partial(load_model, model, spec, **vectors),
            compact=partial(plan_of, **compact),
            long_text=long_text,
            force=force,
            refused=refused,
            progress=progress,
        )
    if as_json:
        terminal.write_json([asdict(report) for report in reports])
    else:
        terminal.write("\n".join(line for report in reports for line in report_lines(report, False)))
    why = {id: reason for report in reports for id, reason in report.refused.items()}
    unread = [path for report in reports for path in report.unreadable]
    return 1 if say_problems(why, refused, unread) else 0
