"""`c2llm status`, `collections`, `drop`, `export` and `import`: show, delete and move what a store holds."""

from __future__ import annotations

import sys
from dataclasses import replace as changed
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from c2llm_integrations._utils.progress import shown
from c2llm_integrations.cli import terminal
from c2llm_integrations.cli.context import indexed_store, opened, origins_of, require_source, store_of
from c2llm_integrations.cli.options import REFUSED, CollectionPlace, Output, PlanChoice, Store, command
from c2llm_integrations.cli.output import say_problems, size, status_lines, table
from c2llm_integrations.errors import InputError, StoreError, did_you_mean
from c2llm_integrations.indexing.options import WriteOptions

if TYPE_CHECKING:
    from c2llm_integrations.stores.spec import CollectionSpec


@command
def status(place: CollectionPlace, output: Output) -> int:
    """Show what a collection holds: its model, how its vectors are kept, the fields that filters use, its sources."""
    from c2llm_integrations.retrieval.search import spec_of

    with opened(place.store or indexed_store(), place.collection) as held:
        origins, spec = origins_of(held), spec_of(held)
        document = {
            "store": held.url,
            "collection": place.collection,
            "rows": held.count(),
            **_about(spec),
            "fields": spec.fields,
            "tenant": spec.tenant,
            "repositories": [
                {
                    "repository": name,
                    "rows": held.count(source=name),
                    "checkout": origin.checkout,
                    "commit": origin.commit,
                    "folder": str(origin.folder) if origin.folder else None,
                }
                for name, origin in sorted(origins.items())
            ],
        }
    if output.as_json:
        terminal.write_json(document)
    else:
        terminal.write("\n".join(status_lines(document)))
    return 0


@command
def collections(output: Output, store: Store = None) -> int:
    """List the collections of a store that this program made. A collection in use is named without details."""
    from c2llm_integrations.retrieval.search import spec_of
    from c2llm_integrations.stores import list_collections

    url = store or indexed_store()
    found, failed = [], False
    for name in list_collections(url):
        try:
            with opened(url, name) as held:
                found.append({"name": name, "rows": held.count(), **_about(spec_of(held))})
        except StoreError as error:
            terminal.say(f"{name}: {error}")
            failed = True
    if output.as_json:
        terminal.write_json({"store": url, "collections": found})
    elif found:
        terminal.write("\n".join(table(found)))
    elif not failed:
        terminal.say(f"{url} holds no collection; run: c2llm index")
    return int(failed)


def drop(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The collection.")],
    store: Store = None,
    repository: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only the rows of this repository or source.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> int:
    """Delete a collection and all its rows; asks first, and without a terminal only does so with --yes."""
    from c2llm_integrations.stores import list_collections

    url = store or indexed_store()
    known = list_collections(url)
    if name not in known:
        raise InputError(f"{url} holds no collection {name!r}{did_you_mean(name, known)}")
    if not yes and not sys.stdin.isatty():
        raise typer.BadParameter("no terminal to ask for confirmation; give --yes", param_hint="drop")
    what = repr(name) if repository is None else f"{repository!r} in {name!r}"
    if not yes and not terminal.agreed(f"drop {what} of {url}?"):
        terminal.say(f"kept {what}")
        return 1
    with opened(url, name) as held:
        require_source(held, repository)
        rows = held.count() if repository is None else held.delete(where={}, source=repository)
        if repository is None:
            held.drop()
    terminal.say(f"dropped {what}, {rows:,} rows")
    return 0


@command
def export(
    file: Annotated[Path, typer.Argument(metavar="FILE.parquet", help="The file to write.")],
    place: CollectionPlace,
    repository: Annotated[str | None, typer.Option(metavar="NAME", help="Only the rows of this repository.")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Write over FILE if it exists.")] = False,
) -> int:
    """Write a collection to a Parquet file, vectors included: for any other store, without embedding again."""
    from c2llm_integrations.indexing import export_import

    export_import.require_target(file, replace)
    with opened(place.store or indexed_store(), place.collection) as held, shown() as progress:
        require_source(held, repository)
        done = export_import.export(held, file, repository=repository, replace=replace, progress=progress)
    terminal.say(f"exported {done.rows:,} rows of {done.spec.width} dimensions to {file}, {size(file.stat().st_size)}")
    return 0


@command
def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE.parquet", help="File written by c2llm export.")],
    place: CollectionPlace,
    plan: PlanChoice,
    options: WriteOptions,
    lexical: Annotated[
        bool | None, typer.Option("--lexical/--no-lexical", help="Whether to index words for lexical search.")
    ] = None,
) -> int:
    """Add the rows of a file to a collection that has the same model, or make one as the exported one was.

    Options say what a new collection is to have instead. Rows that are there already are left as they are, so an
    interrupted import is completed by running it again.
    """
    from c2llm_integrations.indexing import export_import
    from c2llm_integrations.stores.parquet import contents_of

    with opened(place.store or store_of(Path()), place.collection) as held, shown() as progress:
        made = held.spec or contents_of(file).spec
        options = changed(options, compact=plan.plan(made.width, made), progress=progress)
        report = export_import.import_rows(file, held, options, lexical=lexical)
    terminal.say(
        f"imported {report.written:,} of {report.rows:,} rows, {report.held:,} were there, in {report.seconds:.1f} s"
    )
    return 1 if say_problems(report.refused, report.refused_count, options.refused or REFUSED) else 0


def _about(spec: CollectionSpec) -> dict[str, Any]:
    from c2llm_integrations.stores.spec import CompactPlan

    plan = CompactPlan(spec.width, spec.datatype, spec.quantization, spec.rescore)
    return {
        "model": spec.fingerprint.get("model"),
        "width": spec.width,
        "datatype": spec.datatype,
        "quantization": spec.quantization,
        "analyzer": spec.analyzer,
        "bytes_per_vector": plan.bytes_per_vector,
    }
