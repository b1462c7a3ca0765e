"""`c2llm search`: a question → hits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from c2llm_integrations._utils.option_field import option
from c2llm_integrations.cli import terminal
from c2llm_integrations.cli.context import indexed_folder, indexed_store, load_model, opened, origins_of, stale_notes
from c2llm_integrations.cli.options import ModelPlace, Output, Place, command
from c2llm_integrations.cli.output import Origin, document_of, look_at, write_hits
from c2llm_integrations.errors import InputError, did_you_mean
from c2llm_integrations.retrieval.options import RULES, SearchOptions

if TYPE_CHECKING:
    from c2llm_integrations.retrieval.options import Mode
    from c2llm_integrations.stores.vector_store import Hit


@dataclass(frozen=True)
class Show(Output):
    """How to search, and how to show what is found."""

    dense: bool = option(False, "Search by meaning alone.")
    lexical: bool = option(False, "Search by words alone, without loading a model.")
    no_rule: list[str] | None = option(None, "Rank without this rule; --explain names them.", metavar="NAME")
    explain: bool = option(False, "Show what each score is the sum of.")
    context: int | None = option(None, "Show the code with N lines around it.", metavar="N", min=0, max=1000)
    index: bool = option(False, "First bring the index of this repository up to date, or make it.")


@command
def search(
    query: Annotated[list[str], typer.Argument(metavar="QUERY...", help="What you look for, in words or code.")],
    place: Place,
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
    options = replace(options, mode=mode, rules=_rules_without(show.no_rule or ()))
    if show.index:
        from c2llm_integrations.cli.index import bring_up_to_date

        bring_up_to_date(place, model.choice())
    answer = _ask(question, options, place, model)
    looks = [look_at(hit, answer.origins, show.context) for hit in answer.hits]
    if show.as_json:
        about = {"model": answer.model, "mode": answer.mode, "notes": answer.notes}
        terminal.write_json(document_of(question, about, looks))
    else:
        write_hits(looks, explain=show.explain, context=show.context)
    for note in answer.notes:
        terminal.say(note)
    return 0


def _rules_without(off: Sequence[str]) -> list[str]:
    """Return the ranking rules to apply, and those of `off` that do not exist, which are then refused by name."""
    return [*(rule for rule in RULES if rule not in off), *(set(off) - set(RULES))]


@dataclass(frozen=True)
class _Answer:
    """Hits, how they were found, and what the user should know about them."""

    hits: list[Hit]
    origins: dict[str, Origin]
    model: object
    mode: Mode
    notes: list[str]


def _ask(question: str, options: SearchOptions, place: Place, model: ModelPlace) -> _Answer:
    from c2llm_integrations.code.analyzer import ANALYZER
    from c2llm_integrations.indexing.ownership import require_known_model
    from c2llm_integrations.retrieval.search import (
        GIVEN_NOTE,
        UNREADABLE_NOTE,
        is_given,
        mode_for,
        require_question,
        search_with,
        spec_of,
        unmatched,
    )

    url = place.store or indexed_store()
    require_question(question, options)
    with opened(url, place.collection) as held:
        spec = spec_of(held)
        of_given = is_given(held)
        if options.mode != "lexical":
            require_known_model(held, model.model)
            if of_given and model.model is None:
                raise InputError(
                    f"collection {held.collection!r} was filled with given vectors and does not say what made them; "
                    "name that model with --model, or search its words with --lexical"
                )
        if options.repository is not None and options.repository not in (claims := held.claims()):
            raise InputError(f"nothing is indexed as {options.repository!r}{did_you_mean(options.repository, claims)}")
    mode = options.mode
    # Loading takes seconds, in which others may have the store.
    embedder = None if mode == "lexical" else load_model(model.choice(), None if of_given else spec)
    with opened(url, place.collection) as held:
        origins = origins_of(held)
        within = replace(options, path=_from_here(options.path, origins))
        hits = search_with(question, embedder, held, within)
        failed = unmatched(held, within) if not hits else ""
        empty = not hits and not held.count()
        notes = stale_notes(held, place)
        if mode != "lexical" and of_given:
            notes.append(GIVEN_NOTE)
    if mode == "hybrid" and spec.analyzer != ANALYZER:
        mode = "dense"
        notes.append("answered by meaning alone: this collection has no words to search")
    if mode == "hybrid" and embedder is not None and mode_for(question, embedder, spec) == "lexical":
        mode = "lexical"
        notes.append(UNREADABLE_NOTE)
    if not hits:
        filters = (options.repository, options.language, options.path, options.kind)
        why = _why_nothing(empty, mode, any(filters))
        given = getattr(options, failed) if failed else None
        if failed and not empty:
            why = f"nothing indexed has the {failed} {given!r}"
            if failed == "path" and "[" in str(given):  # as folders of some web frameworks are called
                why += r"; in a pattern, '[ab]' is one letter: write '\[ab\]' for a folder of that name"
            elif failed == "path" and "*" in str(given):
                why += "; a pattern starts at the repository's root"
        notes.append(f"no answer: {why}")
    return _Answer(hits, origins, spec.fingerprint.get("model"), mode, notes)


def _from_here(path: str | None, origins: Mapping[str, Origin]) -> str | None:
    """Return a path that is meant from the current folder, as one from the root of its repository; None for all."""
    from c2llm_integrations.code.query_paths import from_root

    folders = [*(origin.folder for origin in origins.values()), indexed_folder()]
    for root in filter(None, folders if path else ()):
        if found := from_root(str(path), root, Path.cwd()):
            return None if found == "/" else found
    return path


def _why_nothing(empty: bool, mode: Mode, filtered: bool) -> str:
    if empty:
        return "the collection holds no row"
    wanted = [*(["has these words"] if mode == "lexical" else []), *(["fits these filters"] if filtered else [])]
    return f"no row {' and '.join(wanted or ['was found'])}"
