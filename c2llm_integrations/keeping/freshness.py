"""Is what the collection says still what the tree says? Answered from file states, without reading unchanged files.

Equal states are equal files; the few others are read and compared by their digests.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from c2llm_integrations.claims import name_of
from c2llm_integrations.code.origin import branch_of
from c2llm_integrations.code.reading import FileState, read_source
from c2llm_integrations.code.repository import list_again
from c2llm_integrations.code.skipping import INDEX_FOLDER
from c2llm_integrations.errors import RepositoryError, StoreBusy
from c2llm_integrations.stores.base import VectorStore
from c2llm_integrations.tree_record import (
    Record,
    Rules,
    States,
    edge_folder,
    ignore_rules,
    load,
    locked,
    record_file,
    save,
)

# Seconds that a search may spend on reading files whose state differs; those left over count as changed.
PATIENCE = 0.03


@dataclass(frozen=True, slots=True)
class Staleness:
    """Why answers may be stale. Paths are relative to the repository's root.

    `switched`: the branch that was indexed and the one there now; `unknown`: why nothing can be compared, or "".
    """

    changed: tuple[str, ...] = ()
    new: tuple[str, ...] = ()
    deleted: tuple[str, ...] = ()
    switched: tuple[str, str] | None = None
    unknown: str = ""

    @property
    def paths(self) -> frozenset[str]:
        """All paths that another run would look at."""
        return frozenset((*self.changed, *self.new, *self.deleted))

    @property
    def reason(self) -> str:
        """Return what is known, in one line, without advice."""
        if self.unknown:
            return self.unknown
        counts = [f"{len(getattr(self, name)):,} {name}" for name in ("changed", "new", "deleted")]
        found = ", ".join(count for count in counts if not count.startswith("0 "))
        differ = "1 file differs" if len(self.paths) == 1 else f"{len(self.paths):,} files differ"
        branch = f", branch {self.switched[1]!r} instead of {self.switched[0]!r}" if self.switched else ""
        return f"answers may be stale: {differ} from the index ({found}){branch}"

    def __str__(self) -> str:
        return f"{f'answers may be stale: {self.unknown}' if self.unknown else self.reason}; run: c2llm index"


def stale(root: Path, store: VectorStore, patience: float = PATIENCE) -> Staleness | None:
    """Compare the tree under `root`, a repository's root, with what `store` was filled with from there.

    None means that the answers are as fresh as the tree, or that nothing was ever indexed from this checkout.
    Takes 25 to 50 ms for 10,000 files. `patience`: seconds to spend on reading files that may have changed.
    """
    name = name_of(root, store)
    if name is None:
        moved = edge_folder(store) == root / INDEX_FOLDER and store.claims()
        return Staleness(unknown="this index was made when the checkout was elsewhere") if moved else None
    file = record_file(root, store)
    if file is None:
        return None
    record = load(file)
    if record is None or record.rows != store.count(name):
        return Staleness(unknown="an indexing run is under way or did not finish, or the rows were imported")
    try:
        return _compare(root, record, file, patience)
    except RepositoryError as error:
        return Staleness(unknown=str(error))


def _compare(root: Path, record: Record, file: Path, patience: float) -> Staleness | None:
    rules = ignore_rules(root, record.states)
    known = record.states.keys() if record.rules == rules else set()
    with ThreadPoolExecutor(1) as pool:  # git lists while this thread asks for the states
        listed = pool.submit(lambda: [list_again(root, prefix, known) for prefix in record.prefixes])
        suspects, gone = _differing(root, record.states)
        files: set[str] = set().union(*(paths for part in listed.result() for paths in part))
    suspects = [path for path in suspects if path in files]
    changed, verified = _verify(root, record.states, suspects, time.monotonic() + patience)
    deleted = sorted({*gone, *(record.states.keys() - files)})
    new = sorted(files - record.states.keys())
    if not new and not deleted:
        _refresh(file, record, verified, rules if rules == record.rules else ignore_rules(root, files, settle=True))
    if not (changed or new or deleted):
        return None
    branch = branch_of(root)
    switched = (record.branch, branch) if branch != record.branch else None
    return Staleness(tuple(changed), tuple(new), tuple(deleted), switched)


def _differing(root: Path, states: States) -> tuple[list[str], list[str]]:
    """Return the files whose state is not the recorded one, and those that are gone."""
    suspects, gone = [], []
    below, lstat = f"{root}{os.sep}", os.lstat
    for path, (modified, changed, size, inode, _) in states.items():
        try:
            info = lstat(below + path)
        except OSError:
            gone.append(path)
            continue
        if info.st_mtime_ns != modified or info.st_ctime_ns != changed or info.st_size != size or info.st_ino != inode:
            suspects.append(path)
    return suspects, gone


def _verify(
    root: Path, states: States, suspects: Iterable[str], deadline: float
) -> tuple[list[str], dict[str, FileState]]:
    """Return which of the suspects really changed, and the new states of the others."""
    changed, verified = [], {}
    for path in suspects:
        state = read_source(root, path)[1] if time.monotonic() < deadline else None
        if state is None or state.digest != FileState(*states[path]).digest:
            changed.append(path)
        else:
            verified[path] = state
    return changed, verified


def _refresh(file: Path, record: Record, verified: dict[str, FileState], rules: Rules) -> None:
    """Keep what was verified for the next search, unless a run took the record away, or wrote another, since."""
    if rules == record.rules and not any(state.changed for state in verified.values()):
        return
    with suppress(StoreBusy), locked(file):
        if load(file) == record:
            record.states |= verified
            record.rules = rules
            save(file, record)
