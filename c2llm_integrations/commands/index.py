"""`c2llm index`: a repository → the rows of a collection."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from c2llm_integrations import terminal
from c2llm_integrations.commands.cluster import index_on_cluster, require_local
from c2llm_integrations.commands.opening import indexed_folder, load_model, opened, store_of
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
    place_again,
    plan_of,
)
from c2llm_integrations.commands.reports import say_problems, write_report
from c2llm_integrations.commands.watch import keep_current, known_vectors

if TYPE_CHECKING:
    from c2llm_integrations.embedder import C2LLMEmbedder
    from c2llm_integrations.ingest import IngestReport
    from c2llm_integrations.stores.base import VectorStore

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
    projection: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Fewer dimensions by what c2llm fit-projection wrote.")
    ] = None,
    head: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Another width by what c2llm train-head wrote.")
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
    engine: Annotated[
        str, typer.Option(metavar="local|ray", help="ray: on a cluster, into a Qdrant or Milvus server.")
    ] = "local",
    address: Annotated[
        str | None, typer.Option(metavar="A", help="Ray's cluster, such as auto.  [default: start one here]")
    ] = None,
    embedders: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Ray's actors with a model each.  [default: 1]")
    ] = None,
    gpus_each: Annotated[
        float | None, typer.Option(metavar="G", min=0, help="GPUs for each of these.  [default: 0]")
    ] = None,
    as_json: AsJson = False,
) -> int:
    """Read a repository into a store. A repeated run embeds only what has changed, and needs no option again.

    The bundled model, nano, is the default. For better answers, slower: --model codefuse-ai/C2LLM-0.5B or
    codefuse-ai/C2LLM-7B, with --replace if the collection was made with another model.
    """
    paths = paths or ["."]
    vectors: dict[str, Any] = {"projection": projection, "head": head, "truncate": truncate}
    vectors["output_dim"] = output_dim
    compact: dict[str, Any] = {"datatype": datatype, "quantization": quantization, "rescore": rescore}
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
    path = Path(paths[0])
    url, own = store or store_of(path), store is None
    same |= {"repository": repository, "own_store": own}
    with opened(url, collection) as held:
        spec = None if replace else held.spec
        embedder = load_model(model, spec, **vectors)
        same["compact"] = plan_of(embedder.output_dim, spec, **compact)
        stored_as = datatype or (spec.datatype if spec is not None else "float32")
        report = _index(path, held, embedder, same, stored_as, replace=replace, dry_run=dry_run)
    write_report(report, planned=dry_run, as_json=as_json)
    if spec is None and report.stored and not dry_run:
        place = place_again(store, collection)
        terminal.say(f'now ask: c2llm search{place} "..."')
        terminal.say(f"better answers, slower: c2llm index{place} --replace --model {LARGER}")
    failed = say_problems(report.refused, refused, report.skipped.get("unreadable", []))
    if watch:
        from c2llm_integrations.ingest import ingest

        with opened(url, collection) as held:
            keep_current(path, held, partial(ingest, path, embedder, held, **same))
    return 1 if failed else 0


def bring_up_to_date(
    store: str | None, collection: str, model: str | None, projection: Path | None, head: Path | None
) -> None:
    """Index the repository around the current folder as `c2llm index` without further options would."""
    path = indexed_folder() or Path()
    url, own = store or store_of(path), store is None
    with opened(url, collection) as held:
        spec = held.spec
        embedder = load_model(model, spec, projection, head)
        compact = plan_of(embedder.output_dim, spec, datatype=None, quantization=None, rescore=None)
        stored_as = spec.datatype if spec is not None else "float32"
        options: dict[str, Any] = {"compact": compact, "own_store": own, "refused": REFUSED}
        report = _index(path, held, embedder, options, stored_as, replace=False, dry_run=False)
    say_problems(report.refused, REFUSED, report.skipped.get("unreadable", []))


def _index(
    path: Path,
    held: VectorStore,
    embedder: C2LLMEmbedder,
    options: dict[str, Any],
    stored_as: str,
    *,
    replace: bool,
    dry_run: bool,
) -> IngestReport:
    """Index one repository in this process, or only plan it; `options` are those of `ingest`."""
    from c2llm_integrations.ingest import ingest, plan

    if dry_run:
        planned = {name: value for name, value in options.items() if name != "refused"}
        return plan(path, held, embedder, **planned, replace=replace)
    others = known_vectors(options["own_store"], path, held.collection, embedder, stored_as)
    with terminal.progress_bar() as progress, others as known:
        return ingest(path, embedder, held, **options, replace=replace, progress=progress, vectors_from=known)
