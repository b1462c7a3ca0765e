"""Claims: which checkout fills a repository's rows in a collection, and from which commit.

An index inside a checkout names that checkout, and those inside it, relative to itself, so it keeps working when it is
moved, copied or mounted on another host. In any other store a checkout is identified by its host and path.
"""

from __future__ import annotations

import os
import secrets
import shlex
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, TypeVar
from urllib.parse import quote, unquote

from c2llm_integrations.code.exclude import INDEX_FOLDER, UNREADABLE, within_limits
from c2llm_integrations.code.git import GitFolder, may_rule
from c2llm_integrations.code.git_commit import CommitSeen
from c2llm_integrations.code.repository import Tree, checkout_id, name_of
from c2llm_integrations.code.safe_open import parts_inside
from c2llm_integrations.errors import InputError, RepositoryError, StoreError
from c2llm_integrations.model.options import is_known_model
from c2llm_integrations.stores import EDGE, own_index
from c2llm_integrations.stores.vector_store import VectorStore

_Change = TypeVar("_Change")

# The most folders of one checkout in a claim: looking at each takes about 8 ms. More of them count as the whole one.
MAX_FOLDERS = 256

# Written in place of the checkout in the claim of records that are not a repository's, before the name of the run.
RECORDS = "records:"


@dataclass(frozen=True)
class Claim:
    """The checkout that fills a repository's rows, the one commit they are of, if any, and the folders, () for all.

    `checkout` is a `checkout_id`, or "./PATH" relative to the checkout that holds the index.
    """

    checkout: str
    commit: str | None = None
    folders: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return the claim as stores keep it: CHECKOUT@COMMIT:FOLDER:FOLDER."""
        commit = f"@{self.commit}" if self.commit else ""
        return ":".join([quote(self.checkout) + commit, *map(quote, self.folders)])

    @classmethod
    def parse(cls, text: str) -> Claim:
        """Parse what `str` returned."""
        who, *folders = text.split(":")
        checkout, _, commit = who.partition("@")
        inside = dict.fromkeys(filter(_is_inside, map(unquote, folders)))
        return cls(unquote(checkout), commit or None, tuple(inside) if len(inside) <= MAX_FOLDERS else ())


class HasClaims(Protocol):
    """A store, or claims that were read from one."""

    def claims(self) -> dict[str, str]:
        """Return repository name → its claim."""


# ---- checkouts


def edge_folder(store: HasClaims) -> Path | None:
    """Return the folder of an embedded Qdrant, None for any other store."""
    url = str(getattr(store, "url", ""))
    return Path(os.path.abspath(Path(url.removeprefix(EDGE)).expanduser())) if url.startswith(EDGE) else None


def home_of(store: HasClaims) -> Path | None:
    """Return the root of the checkout that holds this index as its own; None for a store that lies elsewhere."""
    folder = edge_folder(store)
    return folder.parent.resolve() if folder is not None and folder.name == INDEX_FOLDER else None


def checkout_of(root: Path, store: HasClaims) -> str:
    """Return how this store's claims identify the checkout at `root`."""
    root, home = root.resolve(), home_of(store)
    if home is None or not root.is_relative_to(home):
        return checkout_id(root)
    inside = root.relative_to(home).as_posix()
    return "." if inside == "." else f"./{inside}"


def folders_of(claims: Mapping[str, Claim], store: HasClaims, known: Iterable[Path] = ()) -> dict[str, Path | None]:
    """Return where each claim's checkout is: inside the one that holds the index, or one of the `known` folders."""
    home = home_of(store)
    by_id: dict[str, Path] = {}
    for folder in (*known, *([] if home is None else [home])):
        by_id.setdefault(checkout_id(folder), folder)
    return {
        name: by_id.get(claim.checkout)
        if home is None or not claim.checkout.startswith(".")
        else _below(home, claim.checkout)
        for name, claim in claims.items()
    }


def _below(home: Path, checkout: str) -> Path | None:
    """Return the folder of a claim; None for one that leads out of its checkout: a claim is data."""
    if not within_limits(checkout):  # resolving takes the square of its length
        return None
    try:
        folder = (home / checkout).resolve()
        folder.is_dir()  # raises for a name that is too long for this system
    except (ValueError, RuntimeError, OSError):  # no path at all, or links in a circle
        return None
    return folder if folder.is_relative_to(home) else None


def portable(claim: str, store: HasClaims) -> str:
    """Return a claim as it is written outside its index, where a relative checkout means nothing."""
    read = Claim.parse(claim)
    folder = folders_of({"": read}, store)[""] if read.checkout.startswith(".") else None
    return claim if folder is None else str(replace(read, checkout=checkout_id(folder)))


def claim_of(root: Path, store: HasClaims) -> tuple[str, Claim] | None:
    """Return the repository's name whose rows the checkout at `root` fills, and its claim; None if it fills no name."""
    mine, claims = {checkout_of(root, store), checkout_id(root)}, claims_of(store)
    return next(((name, claim) for name, claim in claims.items() if claim.checkout in mine), None)


def names_of(root: Path, store: HasClaims) -> set[str]:
    """Return all names that the checkout at `root` fills, or may have filled when it was elsewhere.

    Claims that an earlier release or an import wrote into a checkout's own index do not name that checkout.
    """
    mine, claims = {checkout_of(root, store), checkout_id(root)}, claims_of(store)
    is_own = home_of(store) == root.resolve()
    return {
        name
        for name, claim in claims.items()
        if claim.checkout in mine or (is_own and not claim.checkout.startswith((".", RECORDS)))
    }


def claimed_elsewhere(root: Path, store: HasClaims) -> str | None:
    """Return the name that the checkout at `root` would get, if another checkout fills it in this store."""
    name = name_of(root)
    return name if claim_of(root, store) is None and name in store.claims() else None


def index_of(root: Path) -> str:
    """Return the URL of the index that the checkout at `root` has, or would get: a submodule shares the outer one."""
    if not (root / INDEX_FOLDER).is_dir():
        for above in root.parents:
            if (above / INDEX_FOLDER).is_dir() and may_rule(above / INDEX_FOLDER, root) and _is_submodule(root, above):
                return own_index(above)
    return own_index(root)


def _is_submodule(root: Path, above: Path) -> bool:
    """Return whether the repository at `above` keeps the git folder of the checkout at `root`, which only names it."""
    git, outer = GitFolder.of(root), GitFolder.of(above)
    if git is None or outer is None or not (root / ".git").is_file() or git.own != git.common:
        return False
    return git.own.is_dir() and git.own.resolve().is_relative_to(outer.common.resolve() / "modules")


def is_worktree(root: Path) -> bool:
    """Return whether a checkout shares its repository with another one."""
    git = GitFolder.of(root)
    return git is not None and git.own != git.common


def parts_of(claim: Claim, root: Path, prefix: str = "") -> tuple[str, ...]:
    """Return the folders under `root` that a run on the folder `prefix` has to read: no more than is indexed already.

    () if the claim holds nothing of it. A folder that a link leads out of `root` does not count.
    """
    here = root.resolve()
    folders = [one for one in claim.folders if _below(here, one)] or [""]
    if any(not one or f"{prefix}/".startswith(f"{one}/") for one in folders):
        return (prefix,)
    return tuple(one for one in folders if not prefix or one.startswith(f"{prefix}/"))


def _is_inside(folder: str) -> bool:
    """Return whether a folder of a claim lies in its checkout: a claim is data, and may have come with one."""
    with suppress(OSError):
        return within_limits(folder) and parts_inside(folder) is not None
    return False


# ---- models


def require_known_model(store: VectorStore, chosen: str | None = None) -> None:
    """Raise InputError if an index that lies in a checkout names a model that this user has never chosen.

    Such an index may have come with the checkout, and a model's name may be any path or hub id. `chosen` is what the
    user names now, if anything.
    """
    spec = store.spec
    if chosen is not None or spec is None or home_of(store) is None:
        return
    name = str(spec.fingerprint.get("model"))
    if name != "nano" and not is_known_model(name):
        raise InputError(
            f"the index {edge_folder(store)} names the model {name!r}, which you never used on this machine; "
            f"if you trust it, name it once with --model {shlex.quote(name)}"
        )


# ---- what a run may do


def require_claim(tree: Tree, store: HasClaims, force: bool, checkout: str | None = None) -> None:
    """Raise RepositoryError if `checkout`, by default the tree's own, must not fill this repository's name now."""
    claims, mine = claims_of(store), checkout or checkout_of(tree.root, store)
    filled = (
        {name for name, claim in claims.items() if claim.checkout == mine} if checkout else names_of(tree.root, store)
    )
    former = sorted(filled - {tree.name})
    if former:
        raise RepositoryError(
            f"this checkout was indexed as {former[0]!r} and would now be {tree.name!r}, twice in one collection; "
            f"keep the name with --repository {shlex.quote(former[0])}, or start over with --replace"
        )
    if tree.name in claims and tree.name not in filled and not force:
        raise RepositoryError(
            f"repository {tree.name!r} in this collection was indexed from another checkout "
            f"({claims[tree.name].checkout[:80]}, this is {mine}); "
            "name this one with --repository, or take it over with --force"
        )


def require_records(source: str, store: HasClaims) -> None:
    """Raise RepositoryError for a source that a checkout fills."""
    held = claims_of(store).get(source)
    if held is not None and not held.checkout.startswith(RECORDS):
        raise RepositoryError(
            f"source {source!r} is a repository of this collection, indexed from checkout {held.checkout[:80]}; "
            "choose another name for the source of these records"
        )


def claim_records(source: str, store: VectorStore) -> Callable[[], None]:
    """Claim a source for this run, and return a check that raises StoreError once another run has claimed it."""
    mine = str(Claim(f"{RECORDS}{secrets.token_hex(8)}"))
    store.claim(source, mine)

    def require_mine() -> None:
        if store.claims().get(source) != mine:
            raise StoreError(
                f"lost ownership of {source!r} to a concurrent writer, nothing was deleted; run again when it is done"
            )

    return require_mine


def require_alone(mine: Collection[str], store: VectorStore, way_out: str = "drop this one first") -> None:
    """Raise RepositoryError if replacing the collection would drop rows of other names than `mine`, or of no claim."""
    others = sorted(store.claims().keys() - set(mine))
    if not others and (unclaimed := store.total() - sum(store.count(source=one) for one in mine)) > 0:
        others = [f"{unclaimed:,} rows that no source claims"]
    if others:
        raise RepositoryError(
            f"replacing the collection would drop what others filled: {', '.join(others)}; "
            f"take another collection, or {way_out}"
        )


def claim(tree: Tree, store: VectorStore) -> None:
    """Record that the tree's checkout fills its name from now on, and its folder with those it has filled before."""
    before = claims_of(store).get(tree.name)
    folders = outermost([tree.prefix, *(before.folders or ("",) if before else ())])
    commit = before.commit if before and tree.name in names_of(tree.root, store) else None
    wanted = Claim(checkout_of(tree.root, store), commit, folders)
    if wanted != before:
        store.claim(tree.name, str(wanted))


def outermost(prefixes: Iterable[str]) -> tuple[str, ...]:
    """Return the folders that are not inside another of them, sorted; () for all, if one is the root or many are."""
    found: list[str] = []
    for one in sorted(set(prefixes), key=lambda prefix: prefix.split("/")):  # each before what is in it
        if not found or not one.startswith(f"{found[-1]}/"):
            found.append(one)
    return () if "" in found or len(found) > MAX_FOLDERS else tuple(sorted(found))


def claims_of(store: HasClaims) -> dict[str, Claim]:
    """Return repository name → its claim, as the store has them now."""
    return {name: Claim.parse(text) for name, text in store.claims().items()}


class CommitClaim:
    """Keep the claim true: it names a commit only while every row equals that commit."""

    def __init__(self, tree: Tree, store: VectorStore) -> None:
        """Take `seen`, which must see every source that is read."""
        self.seen = CommitSeen(tree.root)
        self._tree = tree
        self._store = store
        self._before = Claim.parse(store.claims()[tree.name])

    def before(self, changes: Iterator[_Change]) -> Iterator[_Change]:
        """Pass changes on; before the first one, remove the commit from the claim."""
        for number, change in enumerate(changes):
            if number == 0 and self._before.commit:
                self._store.claim(self._tree.name, str(replace(self._before, commit=None)))
            yield change

    def record(self) -> None:
        """Claim the commit that was read, if nothing differed from it and rows under other folders are of it, too."""
        commit = self.seen.commit
        is_part = self._tree.prefix or self._tree.only is not None
        if (is_part and commit != self._before.commit) or UNREADABLE in self._tree.skipped:
            commit = None
        claim = str(replace(self._before, commit=commit))
        if self._store.claims()[self._tree.name] != claim:
            self._store.claim(self._tree.name, claim)
