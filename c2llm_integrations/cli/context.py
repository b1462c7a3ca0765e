"""The context of a command: the checkout and the index around the current folder, the open store, and its model.

Also what is stale in that index, and the command that indexes it.
"""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import accumulate, islice
from pathlib import Path
from typing import TYPE_CHECKING

from c2llm_integrations._utils.printable import shortened
from c2llm_integrations.cli.options import CollectionPlace, ModelChoice
from c2llm_integrations.cli.output import Origin
from c2llm_integrations.code.exclude import INDEX_FOLDER
from c2llm_integrations.errors import C2LLMError, InputError, RepositoryError, StoreBusy, did_you_mean

if TYPE_CHECKING:
    from c2llm_integrations.indexing.claims import Claim
    from c2llm_integrations.indexing.report import IngestReport
    from c2llm_integrations.model.embedder import C2LLMEmbedder
    from c2llm_integrations.stores.spec import CollectionSpec
    from c2llm_integrations.stores.vector_store import VectorStore

# How long a command waits for a store that another process has open.
BUSY_SECONDS = 10.0
# The most checkouts inside an indexed one that are named.
MAX_NESTED = 5
# The time to look at the checkouts of a collection, and the most notes about them: an index that came with a checkout
# may claim thousands. The current one is looked at first.
NOTES_SECONDS, MAX_NOTES = 15.0, 20
# Characters of one of these notes, and of the commands in it: a claim may name hundreds of folders, each of any length.
MAX_NOTE, MAX_COMMANDS = 2_000, 1_000


def load_model(choice: ModelChoice, spec: CollectionSpec | None) -> C2LLMEmbedder:
    """Load the chosen model, else the one the collection was made with, else nano."""
    from c2llm_integrations.model.checkpoint import lasting_name
    from c2llm_integrations.model.embedder import C2LLMEmbedder
    from c2llm_integrations.model.fingerprint import options_of
    from c2llm_integrations.model.heads_and_projections import remember
    from c2llm_integrations.model.options import ModelOptions, remember_model

    found = ModelOptions()
    if spec is not None:
        found = options_of(spec.fingerprint, choice.projection, choice.head, is_named=choice.model is not None)
    asked = choice.given()
    if choice.model is not None:
        found = replace(found, name=lasting_name(choice.model))
    try:
        embedder = C2LLMEmbedder.from_options(replace(found, **asked))
    except C2LLMError as error:
        if spec is not None and choice.model is not None and not asked and (found.head or found.projection):
            line = f"{choice.model} is not the collection's model: {error}, or index again with --replace"
            raise InputError(line) from error
        if choice.model is not None or spec is None:
            raise
        if asked:
            raise InputError(f"the collection's model cannot be loaded as asked: {error}") from error
        raise InputError(f"the collection's model cannot be loaded: {error}; --model names its new place") from error
    if choice.model is not None:
        remember_model(found.name)
    if made := embedder.projection or embedder.head:
        remember(made)
    return embedder


def require_source(store: VectorStore, name: str | None) -> None:
    """Raise InputError for a repository, or another source, that the store does not hold; None is any."""
    if name is not None and name not in (claims := store.claims()):
        raise InputError(f"nothing is indexed as {name!r}{did_you_mean(name, claims)}")


@contextmanager
def opened(url: str, collection: str) -> Iterator[VectorStore]:
    """Open a store; while another process uses it, wait up to `BUSY_SECONDS`.

    Raises:
        InputError: For a store in memory, which would be gone when the command ends.

    """
    from c2llm_integrations.stores import open_store

    if url.startswith("qdrant+memory:"):
        raise InputError(f"{url} would be gone when this command ends; name a folder, qdrant+edge://PATH, or a server")
    patience = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            store = open_store(url, collection, wait=BUSY_SECONDS)
            break
        except StoreBusy:
            if time.monotonic() > patience:
                raise
            time.sleep(0.05)
    with store:
        yield store


def indexed_store() -> str:
    """Return the URL of the index that the current folder belongs to; raises InputError without one."""
    from c2llm_integrations.stores import own_index

    if (folder := indexed_folder()) is None:
        raise InputError(f"no {INDEX_FOLDER} in {Path.cwd()} or above; run: c2llm index, or name a --store")
    return own_index(folder)


def indexed_folder() -> Path | None:
    """Return the current folder, or the nearest above it, that has an index in it, or None."""
    here = Path.cwd()
    return next((folder for folder in (here, *here.parents) if _has_index(folder, here)), None)


def current_checkout() -> Path:
    """Return the current folder, or the nearest above it, that is indexed or under git; else the current one."""
    from c2llm_integrations.code.git import has_git, may_rule

    here = Path.cwd()
    for folder in (here, *here.parents):
        if _has_index(folder, here) or (has_git(folder) and may_rule(folder / ".git", here)):
            return folder
    return here


def _has_index(folder: Path, here: Path) -> bool:
    """Return whether the folder has an index that may rule the current folder: anybody can put one into /tmp."""
    from c2llm_integrations.code.git import may_rule

    return (folder / INDEX_FOLDER).is_dir() and may_rule(folder / INDEX_FOLDER, here)


def store_of(path: Path) -> str:
    """Return the URL of the index that the repository around `path` has, or would get."""
    from c2llm_integrations.code.repository import root_of
    from c2llm_integrations.indexing.claims import index_of

    return index_of(root_of(path))


def _claimed(store: VectorStore) -> Iterator[tuple[str, Claim, Path | None]]:
    """Yield each repository of the store, what fills it, and that checkout's folder if it is at or above this one."""
    from c2llm_integrations.indexing.claims import claims_of, folders_of

    here, claims = Path.cwd(), claims_of(store)
    folders = folders_of(claims, store, [here, *here.parents])
    return ((name, claim, folders[name]) for name, claim in claims.items())


def origins_of(store: VectorStore) -> dict[str, Origin]:
    """Return the checkout that fills each repository of the store."""
    return {name: Origin(claim.checkout, claim.commit, folder) for name, claim, folder in _claimed(store)}


def _checkouts(store: VectorStore) -> dict[Path, tuple[str, Claim]]:
    """Return folder → the name and claim of each checkout that fills the store, as far as they are known here."""
    found: dict[Path, tuple[str, Claim]] = {}
    for name, claim, folder in _claimed(store):
        if folder is not None:
            found.setdefault(folder, (name, claim))
    return found


def folders_to_refresh(place: CollectionPlace) -> list[tuple[Path, Path | None]]:
    """Return the indexed folders of the current checkout and of those inside it, else the current folder.

    With each goes the root that it must have, None for the current folder.
    """
    from c2llm_integrations.indexing.claims import home_of, parts_of

    root = current_checkout()
    with opened(place.store or store_of(root), place.collection) as held:
        inside = {folder: claim for folder, (_, claim) in _checkouts(held).items() if folder.is_relative_to(root)}
        claims = [(folder, claim) for folder, claim in inside.items() if folder.is_dir()]
        if not claims and held.claims() and home_of(held) == root.resolve():
            return [(root, None)]
    if not claims:
        return [(Path(), None)]
    return [(folder / part, folder) for folder, claim in claims for part in parts_of(claim, folder)]


def stale_notes(held: VectorStore, place: CollectionPlace) -> list[str]:
    """Return why answers of this store may be stale, each reason with the command that fixes it."""
    from c2llm_integrations.code.git import time_limit

    root, checkouts = current_checkout(), _checkouts(held)
    with time_limit(NOTES_SECONDS) as left:
        claimed = checkouts.get(root.resolve())
        notes = list(
            _other_checkout_notes(root, held, place) if claimed is None else _here_notes(root, claimed[1], held, place)
        )
        in_order = sorted(checkouts, key=lambda folder: folder != root.resolve())
        for number, folder in enumerate(in_order):
            if left() <= 0 or len(notes) >= MAX_NOTES:
                notes.append(f"{len(in_order) - number:,} more checkouts of this index were not looked at")
                break
            notes += _checkout_notes(folder, checkouts[folder], held, place)
    return notes


def _here_notes(root: Path, claim: Claim, held: VectorStore, place: CollectionPlace) -> Iterator[str]:
    """Yield a note if the current folder is none of those of its checkout that are indexed."""
    from c2llm_integrations.indexing.claims import parts_of

    here = Path.cwd()
    if here != root and not parts_of(claim, root, here.relative_to(root).as_posix()):
        parts = ", ".join(parts_of(claim, root))
        yield _advice(f"of this checkout only {parts} is indexed, not {here}", [index_command(here, held, place)])


def _checkout_notes(
    folder: Path, claimed: tuple[str, Claim], held: VectorStore, place: CollectionPlace
) -> Iterator[str]:
    """Yield why the answers from one of the store's checkouts may be stale."""
    from c2llm_integrations.indexing.claims import parts_of
    from c2llm_integrations.indexing.staleness import stale

    if not folder.is_dir():
        name, where = claimed[0], f" --store {shlex.quote(place.store)}" if place.store else ""
        command = f"c2llm drop {place.collection} --repository {shlex.quote(name)}{where}"
        if held.count(source=name):
            told = f"{folder} is gone, and what was indexed of it is still found as {name!r}"
            yield shortened(f"{told}; to drop it, run: {command}" if len(command) <= MAX_COMMANDS else told, MAX_NOTE)
        return
    try:
        if (found := stale(folder, held, claimed=claimed)) is not None:
            commands = [index_command(folder / part, held, place) for part in parts_of(claimed[1], folder)]
            yield _advice(found.warning, commands)
    except RepositoryError as error:
        yield shortened(str(error), MAX_NOTE)


def _other_checkout_notes(root: Path, held: VectorStore, place: CollectionPlace) -> Iterator[str]:
    """Yield notes for a checkout that does not fill the store."""
    from c2llm_integrations.indexing.claims import home_of
    from c2llm_integrations.indexing.staleness import stale

    home = home_of(held)
    if home is not None and home in root.resolve().parents:
        command = index_command(root, None, place)
        yield _advice(f"answers come from another checkout, {home}; {root} is not in its index", [command])
    elif (found := stale(root, held)) is not None:
        command = index_command(root, held, place)
        yield _advice(found.warning, [command if home == root.resolve() else f"{command} --force"])


def _advice(why: str, commands: Sequence[str]) -> str:
    """Return a note with the commands to run, each of them whole: a part of one could be another command."""
    ends = accumulate(len(one) + len(" && ") for one in commands)
    count = sum(end <= MAX_COMMANDS for end in ends)
    why = shortened(why, MAX_NOTE - MAX_COMMANDS - 100)
    if not count:
        return f"{why}; index the folder again (its path is too long to show)"
    rest = f"; and the same of {len(commands) - count:,} more folders" if count < len(commands) else ""
    return f"{why}; run: {' && '.join(commands[:count])}{rest}"


def index_command(folder: Path, held: VectorStore | None, place: CollectionPlace) -> str:
    """Return the command that indexes `folder` into `held`, or into its own default index."""
    from c2llm_integrations.indexing.claims import home_of
    from c2llm_integrations.stores import EDGE

    path = _word(folder)
    if place.store is None and held is not None and home_of(held) != Path(store_of(folder).removeprefix(EDGE)).parent:
        place = replace(place, store=held.url)
    return f"c2llm index{'' if path == '.' else f' {path}'}{place.again()}"


def _word(folder: Path) -> str:
    """Return a folder, seen from here, as a word of a command."""
    path = os.path.relpath(folder)
    return shlex.quote(f"./{path}" if path.startswith("-") else path)  # it would be an option


def nested(path: Path, report: IngestReport, place: CollectionPlace) -> list[str]:
    """Return the commands that add the checkouts inside the one that was indexed; each has its own name."""
    from c2llm_integrations.code.git import has_git
    from c2llm_integrations.code.repository import checkout_id, root_of
    from c2llm_integrations.indexing.claims import checkout_of, claims_of, is_worktree

    if not (found := report.skipped.get("nested repository")):
        return []
    root = root_of(path)
    with opened(place.store or store_of(path), place.collection) as held:
        claimed = {claim.checkout for claim in claims_of(held).values()}
        others = (
            one
            for one in (root / path for path in found)
            if not is_worktree(one) and claimed.isdisjoint((checkout_of(one, held), checkout_id(one)))
        )
        return [
            f"{os.path.relpath(one)} is another repository; to search it too, run: {index_command(one, held, place)}"
            if has_git(one)
            else f"{os.path.relpath(one)} is a submodule that is not checked out; to search it too, run: "
            f"git submodule update --init {_word(one)} && {index_command(one, held, place)}"
            for one in islice(others, MAX_NESTED)
        ]
