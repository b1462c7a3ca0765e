"""`c2llm status`, `collections` and `drop`: what a store holds, and its end."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from c2llm_integrations import terminal
from c2llm_integrations.commands.opening import indexed_store, opened, origins_of
from c2llm_integrations.commands.options import AsJson, Collection, Store
from c2llm_integrations.commands.reports import status_lines, table
from c2llm_integrations.errors import InputError, StoreError
from c2llm_integrations.suggesting import did_you_mean

if TYPE_CHECKING:
    from c2llm_integrations.stores.base import CollectionSpec, VectorStore


def status(store: Store = None, collection: Collection = "code", as_json: AsJson = False) -> int:
    """Show what a collection holds: its model, how its vectors are kept, its repositories and their rows."""
    from c2llm_integrations.search import spec_of

    with opened(store or indexed_store(), collection) as held:
        origins = origins_of(held)
        document = {
            "store": held.url,
            "collection": collection,
            "rows": held.count(),
            **_about(spec_of(held)),
            "repositories": [
                {
                    "repository": name,
                    "rows": held.count(name),
                    "checkout": origin.checkout,
                    "commit": origin.commit,
                    "folder": str(origin.folder) if origin.folder else None,
                }
                for name, origin in sorted(origins.items())
            ],
        }
    if as_json:
        terminal.write_json(document)
    else:
        terminal.write("\n".join(status_lines(document)))
    return 0


def collections(store: Store = None, as_json: AsJson = False) -> int:
    """List the collections of a store that this program made. One that is in use is named without details."""
    from c2llm_integrations.stores import list_collections

    url = store or indexed_store()
    found, failed = [], False
    for name in list_collections(url):
        try:
            with opened(url, name) as held:
                found.append(_summary(held))
        except StoreError as error:
            terminal.say(f"{name}: {error}")
            failed = True
    if as_json:
        terminal.write_json({"store": url, "collections": found})
    elif found:
        terminal.write("\n".join(table(found)))
    elif not failed:
        terminal.say(f"{url} holds no collection; run: c2llm index")
    return int(failed)


def drop(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The collection.")],
    store: Store = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> int:
    """Delete a collection and all its rows; asks first, and without a terminal only does so with --yes."""
    from c2llm_integrations.stores import list_collections

    url = store or indexed_store()
    known = list_collections(url)
    if name not in known:
        raise InputError(f"{url} holds no collection {name!r}{did_you_mean(name, known)}")
    if not yes and not sys.stdin.isatty():
        raise typer.BadParameter("there is no terminal to ask on; say --yes", param_hint="drop")
    if not yes and not terminal.agreed(f"drop {name!r} of {url}?"):
        terminal.say(f"kept {name!r}")
        return 1
    with opened(url, name) as held:
        rows = held.count()
        held.drop()
    terminal.say(f"dropped {name!r}, {rows:,} rows")
    return 0


def _about(spec: CollectionSpec) -> dict[str, Any]:
    from c2llm_integrations.compression import CompactPlan

    plan = CompactPlan(spec.width, spec.datatype, spec.quantization, spec.rescore)
    return {
        "model": spec.fingerprint.get("model"),
        "width": spec.width,
        "datatype": spec.datatype,
        "quantization": spec.quantization,
        "analyser": spec.analyser,
        "bytes_per_vector": plan.bytes_per_vector,
    }


def _summary(held: VectorStore) -> dict[str, Any]:
    from c2llm_integrations.search import spec_of

    return {"name": held.collection, "rows": held.count(), **_about(spec_of(held))}
