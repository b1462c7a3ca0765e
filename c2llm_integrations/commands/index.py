"""`c2llm index`: a repository → the rows of a collection."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from c2llm_integrations import terminal
from c2llm_integrations.commands.opening import load_model, opened, store_of
from c2llm_integrations.commands.options import (
    REFUSED,
    AsJson,
    Collection,
    Datatype,
    LongText,
    Quantization,
    Refused,
    Rescore,
    Store,
    plan_of,
)
from c2llm_integrations.commands.reports import say_problems, write_report
from c2llm_integrations.commands.watch import keep_current, known_vectors

LARGER = "codefuse-ai/C2LLM-0.5B (1 GB) or codefuse-ai/C2LLM-7B (15 GB)"


def index(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A repository, or a folder in one.")] = Path("."),
    store: Store = None,
    collection: Collection = "code",
    model: Annotated[
        str | None,
        typer.Option(metavar="ID", help="nano, a folder or a hub id.  [default: the collection's own, else nano]"),
    ] = None,
    repository: Annotated[
        str | None, typer.Option(metavar="NAME", help="What the repository is called.  [default: its origin URL]")
    ] = None,
    output_dim: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Dimensions expected; fewer need one of the next two.")
    ] = None,
    projection: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Fewer dimensions by what c2llm fit-projection wrote.")
    ] = None,
    truncate: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Only the first N dimensions, which loses more.")
    ] = None,
    datatype: Datatype = None,
    quantization: Quantization = None,
    rescore: Rescore = None,
    long_text: LongText = None,
    refused: Refused = REFUSED,
    force: Annotated[bool, typer.Option("--force", help="Take over a name that another checkout fills.")] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Fill a new collection; the old one serves until it is complete.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done and what it would cost, and do nothing.")
    ] = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Then go on: index again whenever something changes, until Ctrl-C.")
    ] = False,
    as_json: AsJson = False,
) -> int:
    """Read a repository into a store. A repeated run embeds only what has changed, and needs no option again.

    The bundled model, nano, is the default. For better answers, slower: --model codefuse-ai/C2LLM-0.5B or
    codefuse-ai/C2LLM-7B, with --replace if the collection was made with another model.
    """
    from c2llm_integrations.ingest import ingest, plan

    if watch and dry_run:
        raise typer.BadParameter("it does nothing that --watch could repeat", param_hint="--dry-run")
    with opened(store or store_of(path), collection) as held:
        spec = None if replace else held.spec
        embedder = load_model(model, spec, projection, output_dim=output_dim, truncate=truncate)
        options: dict[str, Any] = {"repository": repository, "force": force, "own_store": store is None}
        options["compact"] = plan_of(
            embedder.output_dim, spec, datatype=datatype, quantization=quantization, rescore=rescore
        )
        options["long_text"] = long_text
        if dry_run:
            report = plan(path, None if replace else held, embedder, **options)
        else:
            stored_as = datatype or (spec.datatype if spec is not None else "float32")
            others = known_vectors(store is None, path, collection, embedder, stored_as)
            with terminal.progress_bar() as progress, others as known:
                report = ingest(
                    path,
                    embedder,
                    held,
                    **options,
                    replace=replace,
                    refused=refused,
                    progress=progress,
                    vectors_from=known,
                )
    write_report(report, planned=dry_run, as_json=as_json)
    if spec is None and report.stored and not dry_run:
        terminal.say('now ask: c2llm search "..."')
        terminal.say(f"better answers, slower: c2llm index --replace --model {LARGER}")
    failed = say_problems(report.refused, refused, report.skipped.get("unreadable", []))
    if watch:
        with opened(store or store_of(path), collection) as held:
            keep_current(path, held, partial(ingest, path, embedder, held, **options, refused=refused))
    return 1 if failed else 0
