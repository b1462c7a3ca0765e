"""Snapshots: the state of each source file when it was indexed, in a file beside the collection.

The file is a cache: deleting it is safe, and makes the next run slower. A run removes it before its first write and
writes it again after verifying the rows, so it never describes what a killed run left.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from typing_extensions import Self

from c2llm_integrations._utils.files import FileLock, user_cache, write_atomically
from c2llm_integrations._utils.json_lines import parse_json
from c2llm_integrations.code.exclude import within_limits
from c2llm_integrations.code.git import branch_of
from c2llm_integrations.code.repository import IGNORE_FILE, Tree
from c2llm_integrations.code.safe_open import parts_inside, require_small
from c2llm_integrations.code.source_file import FileState, is_settled, read_file
from c2llm_integrations.errors import StoreError
from c2llm_integrations.indexing.claims import MAX_FOLDERS, checkout_of, edge_folder, outermost
from c2llm_integrations.stores.vector_store import VectorStore

# Seconds that a run waits for a search that is writing the states it verified.
LOCK_SECONDS = 5.0
# Seconds that it waits for another run: child processes of a killed one may hold the lock a little longer.
RUN_SECONDS = 1.0
LAYOUT = 1

# Path → the fields of its `FileState`, which as bare tuples are read in half the time.
States = dict[str, tuple[int, int, int, int, str]]
# Path of an ignore file → its times, size and inode; () if they may change without a trace.
Rules = dict[str, tuple[int, ...]]


@dataclass
class Snapshot:
    """The sources of a collection: the folders, the rows they gave, and the state of each file read.

    `rules` are the states of the ignore files that no listing shows to have changed.
    """

    rows: int
    branch: str
    prefixes: list[str]
    rules: Rules
    states: States = field(default_factory=dict)


class SnapshotWriter:
    """One run on one checkout and collection: a `with` block around all that it reads and writes.

    The record is taken away when the block is entered and written again by `finish`.
    """

    def __init__(self, tree: Tree, store: VectorStore, anew: bool = False) -> None:
        """Take a listed tree and its store; `anew`: nothing that the store holds of this repository will be kept.

        `changed`, once entered: files that differ from what the rows were read from, as far as a record says.
        """
        self._tree = tree
        self._store = store
        self._anew = anew
        self._file = record_file(tree.root, store)
        self._run: FileLock | None = None
        self._kept: Snapshot | None = None
        self._branch = ""
        self._rules: Rules = {}
        self.changed: list[str] = []

    def __enter__(self) -> Self:
        """Raise StoreBusy if another run on the same is under way."""
        tree = self._tree
        what = f"a run that indexes {tree.root} into {self._store.collection!r}"
        self._run = _lock(self._file, ".run.lock", what, RUN_SECONDS)
        self._branch = branch_of(tree.root)  # now: a switch during the run must show
        with locked(self._file, LOCK_SECONDS):
            earlier = load(self._file)
            try:
                if self._file is not None:
                    self._file.unlink(missing_ok=True)
            except OSError as error:  # a record that stayed would describe what this run is about to change
                raise StoreError(
                    f"{self._file} cannot be written to ({error.strerror}); "
                    "to index name another place with --store qdrant+edge://PATH"
                ) from error
        if earlier is not None and not self._anew and earlier.rows == self._store.count(source=tree.name):
            self._kept = earlier
        known = self._kept.states if self._kept else {}
        self.changed = differing(tree.root, known)[0]
        self._rules = ignore_rules(tree.root, (*tree.files, *known), settle=True)
        return self

    def __exit__(self, *_: object) -> None:
        if self._run is not None:
            self._run.release()

    def finish(self, rows: int) -> None:
        """Snapshot what was read, after the store was found to hold the `rows` that it gave."""
        tree, kept = self._tree, self._kept
        before = kept.states.items() if kept else ()
        states = {path: state for path, state in before if not tree.can_tell(path)}
        states |= {path: _settled(tree.root, path, state) for path, state in tree.states.items()}
        prefixes = [tree.prefix, *(kept.prefixes if kept else ())]
        record = Snapshot(rows, self._branch, list(outermost(prefixes)) or [""], self._rules, states)
        with locked(self._file, LOCK_SECONDS):
            save(self._file, record)


def _settled(root: Path, path: str, state: FileState) -> FileState:
    """Return the state of a file that was read too soon after a change, now that some time has passed."""
    if state.changed:
        return state
    again = read_file(root, path)[1]
    return again if again is not None and again.digest == state.digest else state


def differing(root: Path, states: States) -> tuple[list[str], list[str]]:
    """Return the files whose state is not the recorded one, and those that are gone."""
    suspects, gone = [], []
    below, lstat = f"{root}{os.sep}", os.lstat
    for path, (modified, changed, size, inode, _) in states.items():
        try:
            info = lstat(below + path)
        except (OSError, ValueError):  # a record in a checkout may hold any name
            gone.append(path)
            continue
        if info.st_mtime_ns != modified or info.st_ctime_ns != changed or info.st_size != size or info.st_ino != inode:
            suspects.append(path)
    return suspects, gone


def ignore_rules(root: Path, paths: Iterable[str], settle: bool = False) -> Rules:
    """Return the states of the ignore files in all folders of `paths`: git may hide them from the listing.

    With `settle`, for a record, a file that may still change without a trace gets a state that equals no other.
    """
    now = time.time_ns()
    found: Rules = {}
    for folder in folders_above(paths):
        path = f"{folder}/{IGNORE_FILE}" if folder else IGNORE_FILE
        with suppress(OSError, ValueError):  # a record in a checkout may hold any name
            info = os.lstat(f"{root}{os.sep}{path}")
            is_known = not settle or is_settled(info, now)
            found[path] = (info.st_mtime_ns, info.st_ctime_ns, info.st_size, info.st_ino) if is_known else ()
    return found


def folders_above(paths: Iterable[str]) -> Iterator[str]:
    """Yield "" and each folder above the paths once; a path may have hundreds, so they are not all kept at a time."""
    yield ""
    before = ""
    for folder in sorted({path[: path.rfind("/") + 1] for path in paths}):
        end = len(folder)
        # What this one shares with any before it, it shares with the last one, in the order of their names with "/".
        while end and not before.startswith(folder[:end]):
            yield folder[: end - 1]
            end = folder.rfind("/", 0, end - 1) + 1
        before = folder


def record_file(root: Path, store: VectorStore) -> Path | None:
    """Return where the record of a checkout lies."""
    return cache_file(store, checkout_of(root, store), "states")


def cache_file(store: VectorStore, owner: str, kind: str) -> Path | None:
    """Return where a cache beside a collection lies: in an embedded store's own folder, else in the user's cache."""
    owner = hashlib.sha256(owner.encode()).hexdigest()[:16]
    folder = edge_folder(store)
    if folder is not None:
        return folder / f".{store.collection}.{owner}.{kind}"
    if store.url.startswith("qdrant+memory"):
        return None
    name = hashlib.sha256(f"{store.url}\0{store.collection}\0{owner}".encode()).hexdigest()[:32]
    return user_cache() / f"{name}.{kind}"


def load(file: Path | None) -> Snapshot | None:
    """Read a record; None if it is missing, or left by another release, a crash or somebody else's checkout."""
    try:
        data = parse_json(require_small(file).read_bytes()) if file is not None else {}
        if data.pop("layout", None) != LAYOUT:
            return None
        columns = (data.pop(name) for name in FileState._fields)
        states = zip(*columns, strict=True)
        rules = {path: tuple(state) for path, state in data.pop("rules").items()}
        found = Snapshot(rules=rules, states=dict(zip(data.pop("paths"), states, strict=True)), **data)
        prefixes = set(found.prefixes)
        if len(prefixes) > MAX_FOLDERS:  # no run of ours writes so many, and each is listed
            return None
        for prefix in prefixes:
            parts_inside(prefix)
        found.prefixes = list(outermost(prefixes)) or [""]
        return found if _are_ours((*found.states, *filter(None, prefixes))) else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _are_ours(paths: Sequence[str]) -> bool:
    """Return whether a run may have written these paths: they and the folders above are looked at below the root."""
    parts = "/".join(("", *paths, ""))  # in one string, since each search asks this of all files
    return not any(odd in parts for odd in ("//", "/./", "/../")) and all(map(within_limits, paths))


def save(file: Path | None, record: Snapshot) -> None:
    """Write a record, if its folder can be written to."""
    if file is None:
        return
    data = {"layout": LAYOUT, "paths": list(record.states)}
    columns = zip(*record.states.values(), strict=True) if record.states else [()] * len(FileState._fields)
    data |= dict(zip(FileState._fields, map(list, columns), strict=True))
    data |= {name: getattr(record, name) for name in ("rows", "branch", "prefixes", "rules")}
    with suppress(OSError):
        write_atomically(file, json.dumps(data), lasting=False)


@contextmanager
def locked(file: Path | None, wait: float = 0.0) -> Iterator[None]:
    """Hold the record; raises StoreBusy if another process still holds it after `wait` seconds."""
    lock = _lock(file, ".lock", str(file), wait)
    try:
        yield
    finally:
        if lock is not None:
            lock.release()


def _lock(file: Path | None, suffix: str, what: str, wait: float) -> FileLock | None:
    """Take a lock beside a record; None without one, as in a folder that nothing can be written to."""
    if file is not None:
        with suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            return FileLock(file.with_suffix(suffix), what, wait)
    return None
