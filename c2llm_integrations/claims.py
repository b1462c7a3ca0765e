"""Who fills a repository's rows in a collection, and from which commit: each repository has one claim there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol, TypeVar

from c2llm_integrations.code.commit import Claim, CommitSeen
from c2llm_integrations.code.repository import Tree, checkout_id
from c2llm_integrations.code.skipping import UNREADABLE
from c2llm_integrations.errors import RepositoryError
from c2llm_integrations.stores.base import VectorStore

_Change = TypeVar("_Change")


class HasClaims(Protocol):
    """A store, or what was read of one."""

    def claims(self) -> dict[str, str]:
        """Return repository name → its claim."""


def require_claim(
    tree: Tree, store: HasClaims, force: bool, own_store: bool, checkout: str | None = None
) -> str | None:
    """Return the checkout that fills this repository's name so far.

    Raises RepositoryError if `checkout`, by default the tree's own, must not fill it now.
    """
    mine, owners = checkout or checkout_id(tree.root), _owners(store)
    former = sorted(name for name, owner in owners.items() if name != tree.name and (own_store or owner == mine))
    if former:
        raise RepositoryError(
            f"this checkout was indexed as {former[0]!r} and would now be {tree.name!r}, twice in one collection; "
            f"keep the name with --repository {former[0]}, or start over with --replace"
        )
    owner = owners.get(tree.name)
    if owner not in (None, mine) and not (force or own_store):
        raise RepositoryError(
            f"repository {tree.name!r} in this collection was indexed from another checkout ({owner}, this is {mine}); "
            "name this one with --repository, or take it over with --force"
        )
    return owner


def require_alone(tree: Tree, store: VectorStore, allowed: bool) -> None:
    """Raise RepositoryError if replacing the collection would drop what other checkouts have filled."""
    mine = checkout_id(tree.root)
    others = sorted(name for name, owner in _owners(store).items() if owner != mine)
    if others and not allowed:
        raise RepositoryError(
            f"--replace would drop what other checkouts filled: {', '.join(others)}; "
            "take another --collection, or drop them with --force"
        )


def name_of(root: Path, store: HasClaims) -> str | None:
    """Return the repository's name whose rows the checkout at `root` fills, None if it fills none."""
    mine = checkout_id(root)
    return next((name for name, owner in _owners(store).items() if owner == mine), None)


def _owners(store: HasClaims) -> dict[str, str]:
    """Return repository name → the `checkout_id` of the folder that fills it."""
    return {name: Claim.parse(text).checkout for name, text in store.claims().items()}


class CommitClaim:
    """Keeps the claim true: it names a commit only while every row of the repository is as that commit has it."""

    def __init__(self, tree: Tree, store: VectorStore) -> None:
        """`seen` is to see every source that is read."""
        self.seen = CommitSeen(tree.root)
        self._tree = tree
        self._store = store
        self._before = Claim.parse(store.claims()[tree.name])

    def before(self, changes: Iterator[_Change]) -> Iterator[_Change]:
        """Pass changes on; before the first one, the claim names no commit any more."""
        for number, change in enumerate(changes):
            if number == 0 and self._before.commit:
                self._store.claim(self._tree.name, self._before.checkout)
            yield change

    def record(self) -> None:
        """Name the commit that was read, if it was read as it is, and is that of the rows under other folders too."""
        commit = self.seen.commit
        is_part = self._tree.prefix or self._tree.only is not None
        if (is_part and commit != self._before.commit) or UNREADABLE in self._tree.skipped:
            commit = None
        claim = str(Claim(self._before.checkout, commit))
        if self._store.claims()[self._tree.name] != claim:
            self._store.claim(self._tree.name, claim)
