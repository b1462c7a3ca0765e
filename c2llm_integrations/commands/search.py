"""`c2llm search`: a question → hits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from c2llm_integrations import terminal
from c2llm_integrations.commands.hits import Origin, document_of, look_at, write_hits
from c2llm_integrations.commands.opening import indexed_store, load_model, opened, origins_of
from c2llm_integrations.commands.options import AsJson, Collection, Head, Model, Projection, Store, place_again
from c2llm_integrations.errors import InputError
from c2llm_integrations.suggesting import did_you_mean

if TYPE_CHECKING:
    from c2llm_integrations.ranking import Mode
    from c2llm_integrations.stores.base import Hit


def search(
    query: Annotated[list[str], typer.Argument(metavar="QUERY...", help="What you look for, in words or code.")],
    store: Store = None,
    collection: Collection = "code",
    limit: Annotated[int, typer.Option(metavar="N", min=1, max=10_000, help="How many answers.")] = 10,
    language: Annotated[str | None, typer.Option(metavar="L", help="Only this language, such as python.")] = None,
    path: Annotated[str | None, typer.Option(metavar="GLOB", help="Only these files, such as 'src/**/*.py'.")] = None,
    kind: Annotated[
        str | None, typer.Option(metavar="K", help="Only function, method, class, module, section or text.")
    ] = None,
    repository: Annotated[str | None, typer.Option(metavar="NAME", help="Only this repository.")] = None,
    dense: Annotated[bool, typer.Option("--dense", help="By meaning alone.")] = False,
    lexical: Annotated[bool, typer.Option("--lexical", help="By words alone, without loading a model.")] = False,
    no_rule: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Rank without this rule; --explain names them.")
    ] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Show what each score is the sum of.")] = False,
    context: Annotated[
        int | None, typer.Option(metavar="N", min=0, max=1000, help="Show the code with N lines around it.")
    ] = None,
    index: Annotated[
        bool, typer.Option("--index", help="First bring the index of this repository up to date, or make it.")
    ] = False,
    model: Model = None,
    projection: Projection = None,
    head: Head = None,
    as_json: AsJson = False,
) -> int:
    """Print the chunks that answer a question, best first, from any folder of an indexed repository.

    A file under the current checkout is named relative to the current folder, any other one relative to its
    repository. Into a pipe each answer is one line: path:start-end, score and symbol, separated by tabs, and with
    --explain the parts of the score. At a terminal the lines have a link where the indexed commit is known.
    """
    # Bytes of another encoding come as lone surrogates, which no model and no JSON takes.
    question = " ".join(query).encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    if not question.strip():
        raise typer.BadParameter("it is blank; ask in words, or give a piece of code", param_hint="QUERY")
    if dense and lexical:
        raise typer.BadParameter("--dense and --lexical are both given; choose one", param_hint="--lexical")
    mode: Mode = "dense" if dense else "lexical" if lexical else "hybrid"
    how: dict[str, Any] = {"limit": limit, "mode": mode, "rules": _rules_without(no_rule or ())}
    how |= {"language": language, "path": path, "repository": repository, "kind": kind}
    if index:
        from c2llm_integrations.commands.index import bring_up_to_date

        bring_up_to_date(store, collection, model, projection, head)
    answer = _ask(question, store, collection, model, projection, head, **how)
    looks = [look_at(hit, answer.origins, context) for hit in answer.hits]
    if as_json:
        about = {"model": answer.model, "mode": answer.mode, "notes": answer.notes}
        terminal.write_json(document_of(question, about, looks))
    else:
        write_hits(looks, explain=explain, context=context)
    for note in answer.notes:
        terminal.say(note)
    return 0


def _rules_without(off: Sequence[str]) -> list[str]:
    """Return the ranking rules to apply, and those of `off` that do not exist, which are then refused by name."""
    from c2llm_integrations.ranking import RULES

    return [*(rule for rule in RULES if rule not in off), *(set(off) - set(RULES))]


@dataclass(frozen=True)
class _Answer:
    """Hits, how they were found, and what the asker should know of them."""

    hits: list[Hit]
    origins: dict[str, Origin]
    model: object
    mode: Mode
    notes: list[str]


def _ask(
    question: str,
    store: str | None,
    collection: str,
    model: str | None,
    projection: Path | None,
    head: Path | None,
    *,
    mode: Mode,
    repository: str | None,
    **options: Any,
) -> _Answer:
    from c2llm_integrations.code.terms import ANALYSER
    from c2llm_integrations.keeping.freshness import stale
    from c2llm_integrations.ranking import require_known
    from c2llm_integrations.search import require_names, spec_of
    from c2llm_integrations.search import search as find

    url, place = store or indexed_store(), place_again(store, collection)
    filters = [options[name] for name in ("language", "path", "kind")]
    require_known(mode, options["rules"])
    require_names(options["language"], options["kind"])
    with opened(url, collection) as held:
        spec = spec_of(held)
        if repository is not None and repository not in (claims := held.claims()):
            raise InputError(f"nothing is indexed as {repository!r}{did_you_mean(repository, claims)}")
    # Loading takes seconds, in which others may have the store.
    embedder = None if mode == "lexical" else load_model(model, spec, projection, head)
    with opened(url, collection) as held:
        hits = find(question, embedder, held, mode=mode, repository=repository, **options)
        origins = origins_of(held)
        empty = not hits and not held.count()
        found = (stale(origin.folder, held) for origin in origins.values() if origin.folder)
        notes = [f"{note}{place}" for note in found if note]
    if mode == "hybrid" and spec.analyser != ANALYSER:
        mode = "dense"
        notes.append("answered by meaning alone: this collection has no words to search")
    if not hits:
        notes.append(f"no answer: {_why_nothing(empty, mode, any((repository, *filters)))}")
    return _Answer(hits, origins, spec.fingerprint.get("model"), mode, notes)


def _why_nothing(empty: bool, mode: Mode, filtered: bool) -> str:
    if empty:
        return "the collection holds no row"
    wanted = [*(["has these words"] if mode == "lexical" else []), *(["fits these filters"] if filtered else [])]
    return f"no row {' and '.join(wanted or ['was found'])}"
