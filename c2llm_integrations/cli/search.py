"""`c2llm search`: a question → hits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from c2llm_integrations._utils.option_field import option
from c2llm_integrations.cli import terminal
from c2llm_integrations.cli.context import (
    indexed_folder,
    indexed_store,
    load_model,
    opened,
    origins_of,
    require_source,
    stale_notes,
)
from c2llm_integrations.cli.options import CollectionPlace, ModelPlace, Output, command
from c2llm_integrations.cli.output import Origin, document_of, shown_hit, write_hits
from c2llm_integrations.errors import InputError
from c2llm_integrations.retrieval.options import RULES, SearchOptions

if TYPE_CHECKING:
    from c2llm_integrations.retrieval.options import Mode
    from c2llm_integrations.retrieval.search import Answer
    from c2llm_integrations.stores.records import Hit
    from c2llm_integrations.stores.spec import CollectionSpec
    from c2llm_integrations.stores.vector_store import VectorStore


@dataclass(frozen=True)
class Show(Output):
    """Options of the search mode and of the output."""

    dense: bool = option(False, "Search by vectors alone.")
    lexical: bool = option(False, "Search by words alone, without loading a model.")
    no_rule: list[str] | None = option(None, "Rank without this rule; --explain names them.", metavar="NAME")
    explain: bool = option(False, "Show the parts of each score.")
    context: int | None = option(None, "Show the code with N lines around it.", metavar="N", min=0, max=1000)
    index: bool = option(False, "Create or update the index of this repository first.")


@command
def search(
    query: Annotated[list[str], typer.Argument(metavar="QUERY...", help="The question, in words or code.")],
    place: CollectionPlace,
    options: SearchOptions,
    show: Show,
    model: ModelPlace,
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
    if show.dense and show.lexical:
        raise typer.BadParameter("--dense and --lexical are both given; choose one", param_hint="--lexical")
    mode: Mode = "dense" if show.dense else "lexical" if show.lexical else "hybrid"
    off = show.no_rule or []
    # Unknown names are kept, so that they are refused later.
    rules = [*(rule for rule in RULES if rule not in off), *(set(off) - set(RULES))]
    options = replace(options, mode=mode, rules=rules)
    if show.index:
        from c2llm_integrations.cli.index import bring_up_to_date

        bring_up_to_date(place, model.choice())
    answer = _ask(question, options, place, model)
    shown = [shown_hit(hit, answer.origins, show.context) for hit in answer.hits]
    if show.as_json:
        about = {"model": answer.model, "mode": answer.mode, "notes": answer.notes}
        terminal.write_json(document_of(question, about, shown))
    else:
        write_hits(shown, explain=show.explain, context=show.context)
    for note in answer.notes:
        terminal.say(note)
    return 0


@dataclass(frozen=True)
class _Found:
    """Hits, how they were found, and notes for the user."""

    hits: list[Hit]
    origins: dict[str, Origin]
    model: object
    mode: Mode
    notes: list[str]


def _ask(question: str, options: SearchOptions, place: CollectionPlace, model: ModelPlace) -> _Found:
    from c2llm_integrations.retrieval.search import answer, is_given, require_question

    url = place.store or indexed_store()
    require_question(question, options)
    with opened(url, place.collection) as store:
        spec = _checked_spec(store, options, model)
        of_given = is_given(store)
    # Closed while the model loads, which takes seconds, so that other processes can use the store.
    embedder = None if options.mode == "lexical" else load_model(model.choice(), None if of_given else spec)
    with opened(url, place.collection) as store:
        origins = origins_of(store)
        from_root = replace(options, path=_from_here(options.path, origins))
        found = answer(question, embedder, store, from_root)
        why = "" if found.hits else _why_nothing(store, options, found)
        notes = [*stale_notes(store, place), *found.notes, *([f"no answer: {why}"] if why else [])]
    return _Found(found.hits, origins, spec.fingerprint.get("model"), found.mode, notes)


def _checked_spec(store: VectorStore, options: SearchOptions, model: ModelPlace) -> CollectionSpec:
    """Return the collection's spec; raises InputError for a model or a repository that the store does not know."""
    from c2llm_integrations.indexing.claims import require_known_model
    from c2llm_integrations.retrieval.search import is_given, spec_of

    spec = spec_of(store)
    if options.mode != "lexical":
        require_known_model(store, model.model)
        if is_given(store) and model.model is None:
            raise InputError(
                f"collection {store.collection!r} was filled with given vectors and does not say what made them; "
                "name that model with --model, or search its words with --lexical"
            )
    require_source(store, options.repository)
    return spec


def _from_here(path: str | None, origins: Mapping[str, Origin]) -> str | None:
    """Return a path that is meant from the current folder, as one from the root of its repository; None for all."""
    from c2llm_integrations.code.path_filter import from_root

    folders = [*(origin.folder for origin in origins.values()), indexed_folder()]
    for root in filter(None, folders if path else ()):
        if found := from_root(str(path), root, Path.cwd()):
            return None if found == "/" else found
    return path


def _why_nothing(store: VectorStore, options: SearchOptions, found: Answer) -> str:
    """Return why no row answers."""
    if not store.count():
        return "the collection holds no row"
    if name := found.unmatched:
        given = getattr(options, name)
        return f"nothing indexed has the {name} {given!r}{_pattern_hint(str(given)) if name == 'path' else ''}"
    wanted = ["has these words"] if found.mode == "lexical" else []
    if any((options.repository, options.language, options.path, options.kind)):
        wanted.append("fits these filters")
    return f"no row {' and '.join(wanted or ['was found'])}"


def _pattern_hint(path: str) -> str:
    """Return how to write a path that may be meant otherwise than a pattern reads."""
    if "[" in path:  # as folders of some web frameworks are called
        return r"; in a pattern, '[ab]' is one letter: write '\[ab\]' for a folder of that name"
    return "; a pattern starts at the repository's root" if "*" in path else ""
