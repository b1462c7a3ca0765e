"""Detect whether a collection is stale by comparing file states, without reading unchanged files.

Files of equal states are equal; the few remaining ones are read and compared by their digests.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass, replace
from pathlib import Path

from c2llm_integrations.code.git import branch_of
from c2llm_integrations.code.repository import list_again
from c2llm_integrations.code.source_file import FileState, read_file
from c2llm_integrations.errors import RepositoryError, StoreBusy
from c2llm_integrations.indexing import file_states
from c2llm_integrations.indexing.claims import Claim, claim_of, claimed_elsewhere, home_of
from c2llm_integrations.indexing.file_states import Rules, Snapshot, States
from c2llm_integrations.stores.vector_store import VectorStore

# Seconds that a search may spend on reading files whose state differs; the next search continues with the rest.
COMPARE_SECONDS = 0.03


@dataclass(frozen=True, slots=True)
class Staleness:
    """The reasons why answers may be stale. Paths are relative to the repository's root.

    `unread`: files touched since, which may have changed; `switched`: the branch that was indexed and the current one;
    `unknown`: why nothing can be compared, or "".
    """

    changed: tuple[str, ...] = ()
    new: tuple[str, ...] = ()
    deleted: tuple[str, ...] = ()
    switched: tuple[str, str] | None = None
    unknown: str = ""
    unread: tuple[str, ...] = ()

    @property
    def paths(self) -> frozenset[str]:
        """All paths that the next run would look at."""
        return frozenset((*self.changed, *self.new, *self.deleted, *self.unread))

    @property
    def reason(self) -> str:
        """Return the reasons in one line, without advice."""
        if self.unknown:
            return self.unknown
        if not (self.changed or self.new or self.deleted):
            count = "1 file was" if len(self.unread) == 1 else f"{len(self.unread):,} files were"
            return f"answers may be stale: {count} touched and not compared yet"
        counts = [f"{len(getattr(self, name)):,} {name}" for name in ("changed", "new", "deleted")]
        found = ", ".join(count for count in counts if not count.startswith("0 "))
        known = len(self.paths) - len(self.unread)
        differ = "1 file differs" if known == 1 else f"{known:,} files differ"
        branch = f", branch {self.switched[1]!r} instead of {self.switched[0]!r}" if self.switched else ""
        unread = f", {len(self.unread):,} touched and not compared yet" if self.unread else ""
        return f"answers may be stale: {differ} from the index ({found}){unread}{branch}"

    def within(self, prefix: str) -> Staleness | None:
        """Return the part of it in the folder `prefix`, None if that is empty."""
        lists = {name: getattr(self, name) for name in ("changed", "new", "deleted", "unread")}
        lists = {name: tuple(one for one in paths if one.startswith(prefix)) for name, paths in lists.items()}
        return replace(self, **lists) if self.unknown or any(lists.values()) else None

    @property
    def warning(self) -> str:
        """Return what the reasons mean for answers, in one line, without advice."""
        return f"answers may be stale: {self.unknown}" if self.unknown else self.reason

    def __str__(self) -> str:
        return f"{self.warning}; run: c2llm index"


def stale(
    root: Path, store: VectorStore, patience: float = COMPARE_SECONDS, claimed: tuple[str, Claim] | None = None
) -> Staleness | None:
    """Compare the tree under `root`, a repository's root, with the snapshot of the rows in `store`.

    None means that the answers are as fresh as the tree, or that nothing was ever indexed from this checkout.
    Takes 25 to 50 ms for 10,000 files. `patience`: seconds to spend on reading files that may have changed; `claimed`:
    what `claim_of` returns, if that is known.
    """
    claimed = claimed or claim_of(root, store)
    if claimed is None:
        if home_of(store) == root.resolve() and store.claims():
            return Staleness(unknown="this index was made when the checkout was elsewhere")
        name = claimed_elsewhere(root, store)
        return Staleness(unknown=f"{name!r} was indexed from another checkout or host") if name else None
    file = file_states.record_file(root, store)
    if file is None:
        return None
    record = file_states.load(file)
    if record is None or record.rows != store.count(source=claimed[0]):
        return Staleness(unknown="an indexing run is under way or did not finish, or the rows were imported")
    try:
        return _compare(root, record, file, patience)
    except RepositoryError as error:
        return Staleness(unknown=str(error))


def _compare(root: Path, record: Snapshot, file: Path, patience: float) -> Staleness | None:
    rules = file_states.ignore_rules(root, record.states)
    known = record.states.keys() if record.rules == rules else set()
    with ThreadPoolExecutor(1) as pool:  # git lists while this thread asks for the states
        work = copy_context().run  # with the time limit of this thread
        listed = pool.submit(work, lambda: [list_again(root, prefix, known) for prefix in record.prefixes])
        suspects, gone = file_states.differing(root, record.states)
        files: set[str] = set().union(*(paths for part in listed.result() for paths in part))
    suspects = [path for path in suspects if path in files]
    changed, unread, verified = _verify(root, record.states, suspects, time.monotonic() + patience)
    deleted = sorted({*gone, *(record.states.keys() - files)})
    new = sorted(files - record.states.keys())
    is_judged = not new and not deleted and rules != record.rules
    _refresh(file, record, verified, file_states.ignore_rules(root, files, settle=True) if is_judged else record.rules)
    if not (changed or unread or new or deleted):
        return None
    branch = branch_of(root)
    switched = (record.branch, branch) if branch != record.branch else None
    return Staleness(tuple(changed), tuple(new), tuple(deleted), switched, unread=tuple(unread))


def _verify(
    root: Path, states: States, suspects: Iterable[str], deadline: float
) -> tuple[list[str], list[str], dict[str, FileState]]:
    """Return the suspects that really changed, those there was no time to read, and the new states of the rest."""
    changed, unread, verified = [], [], {}
    for path in suspects:
        if time.monotonic() >= deadline:
            unread.append(path)
            continue
        state = read_file(root, path)[1]
        if state is None or state.digest != FileState(*states[path]).digest:
            changed.append(path)
        else:
            verified[path] = state
    return changed, unread, verified


def _refresh(file: Path, record: Snapshot, verified: dict[str, FileState], rules: Rules) -> None:
    """Keep the verified states for the next search, unless a run has removed or replaced the record since."""
    if rules == record.rules and not any(state.changed for state in verified.values()):
        return
    with suppress(StoreBusy), file_states.locked(file):
        if file_states.load(file) == record:
            record.states |= verified
            record.rules = rules
            file_states.save(file, record)
