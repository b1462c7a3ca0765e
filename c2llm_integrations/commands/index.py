"""`c2llm index`: a repository → the rows of a collection."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from c2llm_integrations import terminal
from c2llm_integrations.commands.cluster import (
    Address,
    Embedders,
    Engine,
    GpusEach,
    index_on_cluster,
    require_local,
)
from c2llm_integrations.commands.opening import indexed_folder, load_model, opened, store_of
from c2llm_integrations.commands.options import (
    REFUSED,
    AsJson,
    Collection,
    Datatype,
    FittedProjection,
    LongText,
    Quantization,
    Refused,
    Rescore,
    Store,
    TrainedHead,
    Truncate,
    place_again,
    plan_of,
)
from c2llm_integrations.commands.reports import say_problems, write_report
from c2llm_integrations.commands.watch import keep_current, known_vectors

if TYPE_CHECKING:
    from c2llm_integrations.ingest import IngestReport

LARGER = "codefuse-ai/C2LLM-0.5B (1 GB) or codefuse-ai/C2LLM-7B (15 GB)"


def index(
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PATH",
            show_default=False,
            help="A repository, or a folder in one.  [default: .]  With --engine ray also several, git URLs, and "
            ".parquet or .jsonl of repository, path and text.",
        ),
    ] = None,
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
        int | None, typer.Option(metavar="N", min=1, help="Dimensions expected; fewer need one of the next three.")
    ] = None,
    projection: FittedProjection = None,
    head: TrainedHead = None,
    truncate: Truncate = None,
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
    engine: Engine = "local",
    address: Address = None,
    embedders: Embedders = None,
    gpus_each: GpusEach = None,
    as_json: AsJson = False,
) -> int:
    """Read a repository into a store. A repeated run embeds only what has changed, and needs no option again.

    The bundled model, nano, is the default. For better answers, slower: --model codefuse-ai/C2LLM-0.5B or
    codefuse-ai/C2LLM-7B, with --replace if the collection was made with another model.
    """
    paths = paths or ["."]
    vectors = {"output_dim": output_dim, "projection": projection, "head": head, "truncate": truncate}
    compact = {"datatype": datatype, "quantization": quantization, "rescore": rescore}
    same: dict[str, Any] = {"long_text": long_text, "force": force, "refused": refused}
    if engine == "ray":
        return index_on_cluster(
            paths,
            store,
            collection,
            model=model,
            vectors=vectors,
            compact=compact,
            **same,
            cluster={"address": address, "embedders": embedders, "gpus_each": gpus_each},
            unusable={"--repository": repository, "--replace": replace, "--dry-run": dry_run, "--watch": watch},
            as_json=as_json,
        )
    if engine != "local":
        raise typer.BadParameter(f"{engine!r} is neither local nor ray", param_hint="--engine")
    require_local(paths, {"--address": address, "--embedders": embedders, "--gpus-each": gpus_each})
    if watch and dry_run:
        raise typer.BadParameter("it does nothing that --watch could repeat", param_hint="--dry-run")
    path, same["repository"] = Path(paths[0]), repository
    report, is_new, again = _index(
        path, store, collection, model, vectors, compact, same, replace=replace, dry_run=dry_run
    )
    write_report(report, planned=dry_run, as_json=as_json)
    if is_new and report.stored and not dry_run:
        place = place_again(store, collection)
        terminal.say(f'now ask: c2llm search{place} "..."')
        terminal.say(f"better answers, slower: c2llm index{place} --replace --model {LARGER}")
    failed = say_problems(report.refused, refused, report.unreadable)
    if watch:
        with opened(store or store_of(path), collection) as held:
            keep_current(path, held, partial(again, store=held))
    return 1 if failed else 0


def bring_up_to_date(
    store: str | None, collection: str, model: str | None, projection: Path | None, head: Path | None
) -> None:
    """Index the repository around the current folder as `c2llm index` without further options would."""
    vectors = {"projection": projection, "head": head}
    report, _, _ = _index(
        indexed_folder() or Path(), store, collection, model, vectors, compact={}, options={"refused": REFUSED}
    )
    say_problems(report.refused, REFUSED, report.unreadable)


def _index(
    path: Path,
    store: str | None,
    collection: str,
    model: str | None,
    vectors: dict[str, Any],
    compact: dict[str, Any],
    options: dict[str, Any],
    *,
    replace: bool = False,
    dry_run: bool = False,
) -> tuple[IngestReport, bool, Callable[..., IngestReport]]:
    """Index one repository in this process, or only plan it.

    `vectors` are the options of `load_model`, `compact` of `plan_of`, `options` of `ingest`. Returns the report,
    whether the collection is a new one, and what indexes the same way again, given a `store`.
    """
    from c2llm_integrations.ingest import ingest, plan

    own = store is None
    with opened(store or store_of(path), collection) as held:
        spec = None if replace else held.spec
        embedder = load_model(model, spec, **vectors)
        options = {**options, "own_store": own, "compact": plan_of(embedder.output_dim, spec, **compact)}
        if dry_run:
            planned = {name: value for name, value in options.items() if name != "refused"}
            report = plan(path, held, embedder, **planned, replace=replace)
        else:
            stored_as = compact.get("datatype") or (spec.datatype if spec is not None else "float32")
            others = known_vectors(own, path, collection, embedder, stored_as)
            with terminal.progress_bar() as progress, others as known:
                report = ingest(path, embedder, held, **options, replace=replace, progress=progress, vectors_from=known)
    return report, spec is None, partial(ingest, path, embedder, **options)
