"""What a collection was filled from, kept in a file beside it: the state of each source file when it was read.

The file is a cache: losing it costs work, and it can hide no change. A run takes it away before its first write and
puts it back after it has verified what it wrote, so it never describes a collection that a killed run left.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from typing_extensions import Self

from c2llm_integrations.code.origin import branch_of
from c2llm_integrations.code.reading import RACY_NS, FileState, read_source
from c2llm_integrations.code.repository import IGNORE_FILE, Tree, checkout_id
from c2llm_integrations.stores import EDGE
from c2llm_integrations.stores.base import VectorStore
from c2llm_integrations.stores.files import FileLock
from c2llm_integrations.user_cache import user_cache

# Seconds that a run waits for a search that is just writing what it verified.
LOCK_SECONDS = 5.0
# And for another run: what a killed one had started may hold the lock for a moment longer.
RUN_SECONDS = 1.0
LAYOUT = 1

# Path → the fields of its `FileState`, which as bare tuples are read in half the time.
States = dict[str, tuple[int, int, int, int, str]]
# Path of an ignore file → its times, size and inode.
Rules = dict[str, tuple[int, ...]]


@dataclass
class Record:
    """What a collection was filled from: the folders, the rows they gave, and the state of each file read.

    `rules` are the states of the ignore files that no listing shows to have changed.
    """

    rows: int
    branch: str
    prefixes: list[str]
    rules: Rules
    states: States = field(default_factory=dict)


class Recording:
    """One run on one checkout and collection: a `with` block around all that it reads and writes.

    The record is taken away when the block is entered and written again by `finish`.
    """

    def __init__(self, tree: Tree, store: VectorStore, anew: bool = False) -> None:
        """`anew`: nothing that the store holds of this repository now will be kept."""
        self._tree = tree
        self._store = store
        self._anew = anew
        self._file = record_file(tree.root, store)
        self._run: FileLock | None = None
        self._kept: Record | None = None
        self._branch = ""
        self._rules: Rules = {}

    def __enter__(self) -> Self:
        """Raise StoreBusy if another run on the same is under way."""
        tree = self._tree
        if self._file is not None:
            with suppress(OSError):  # a folder that nothing can be written to holds no record
                self._file.parent.mkdir(parents=True, exist_ok=True)
                what = f"a run that indexes {tree.root} into {self._store.collection!r}"
                self._run = FileLock(self._file.with_suffix(".run.lock"), what, RUN_SECONDS)
        self._branch = branch_of(tree.root)  # now: a switch during the run must show
        with locked(self._file, LOCK_SECONDS):
            earlier = load(self._file)
            if self._file is not None:
                self._file.unlink(missing_ok=True)
        if earlier is not None and not self._anew and earlier.rows == self._store.count(tree.name):
            self._kept = earlier
        known = self._kept.states if self._kept else {}
        self._rules = ignore_rules(tree.root, (*tree.files, *known), settle=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._run is not None:
            self._run.release()

    def finish(self, rows: int) -> None:
        """Record what was read, after the store was found to hold the `rows` that it gave."""
        tree, kept = self._tree, self._kept
        before = kept.states.items() if kept else ()
        states = {path: state for path, state in before if not tree.can_tell(path)}
        states |= {path: _settled(tree.root, path, state) for path, state in tree.states.items()}
        prefixes = [tree.prefix, *(kept.prefixes if kept else ())]
        record = Record(rows, self._branch, _outermost(prefixes), self._rules, states)
        with locked(self._file, LOCK_SECONDS):
            save(self._file, record)


def _settled(root: Path, path: str, state: FileState) -> FileState:
    """Return the state of a file that was read too soon after a change, now that some time has passed."""
    if state.changed:
        return state
    again = read_source(root, path)[1]
    return again if again is not None and again.digest == state.digest else state


def ignore_rules(root: Path, paths: Iterable[str], settle: bool = False) -> Rules:
    """Return the states of the ignore files in all folders of `paths`: git may hide them from the listing.

    With `settle`, for a record, the state of one that may still change without a trace equals no other.
    """
    latest = time.time_ns() - RACY_NS
    folders = {path.rpartition("/")[0] for path in paths}
    for folder in tuple(folders):
        while folder:
            folder = folder.rpartition("/")[0]
            folders.add(folder)
    found: Rules = {}
    for folder in {"", *folders}:
        path = f"{folder}/{IGNORE_FILE}" if folder else IGNORE_FILE
        with suppress(OSError):
            info = os.lstat(f"{root}{os.sep}{path}")
            is_settled = not settle or max(info.st_mtime_ns, info.st_ctime_ns) < latest
            found[path] = (info.st_mtime_ns, info.st_ctime_ns, info.st_size, info.st_ino) if is_settled else ()
    return found


def _outermost(prefixes: Iterable[str]) -> list[str]:
    """Return the folders that lie in no other of them."""
    every = set(prefixes)
    return sorted(one for one in every if not any(other != one and _is_in(one, other) for other in every))


def _is_in(path: str, folder: str) -> bool:
    return not folder or path.startswith(f"{folder}/")


def edge_folder(store: VectorStore) -> Path | None:
    """Return the folder of an embedded Qdrant, None for any other store."""
    if not store.url.startswith(EDGE):
        return None
    return Path(os.path.abspath(Path(store.url.removeprefix(EDGE)).expanduser()))


def record_file(root: Path, store: VectorStore) -> Path | None:
    """Return where the record lies: in an embedded store's own folder, else in the user's cache."""
    checkout = checkout_id(root)
    folder = edge_folder(store)
    if folder is not None:
        return folder / f".{store.collection}.{checkout}.states"
    if store.url.startswith("qdrant+memory"):
        return None
    name = hashlib.sha256(f"{store.url}\0{store.collection}\0{checkout}".encode()).hexdigest()[:32]
    return user_cache() / f"{name}.states"


def load(file: Path | None) -> Record | None:
    """Read a record; None if there is none, or one that another release or a crash of the machine left."""
    try:
        data = json.loads(file.read_bytes()) if file is not None else {}
        if data.pop("layout", None) != LAYOUT:
            return None
        columns = (data.pop(name) for name in FileState._fields)
        states = zip(*columns, strict=True)
        rules = {path: tuple(state) for path, state in data.pop("rules").items()}
        return Record(rules=rules, states=dict(zip(data.pop("paths"), states, strict=True)), **data)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def save(file: Path | None, record: Record) -> None:
    """Write a record; where nothing can be written there is none."""
    if file is None:
        return
    data = {"layout": LAYOUT, "paths": list(record.states)}
    columns = zip(*record.states.values(), strict=True) if record.states else [()] * len(FileState._fields)
    data |= dict(zip(FileState._fields, map(list, columns), strict=True))
    data |= {name: getattr(record, name) for name in ("rows", "branch", "prefixes", "rules")}
    temporary = file.with_name(f"{file.name}.{os.getpid()}.tmp")
    with suppress(OSError):
        temporary.write_text(json.dumps(data), "utf-8")
        os.replace(temporary, file)


@contextmanager
def locked(file: Path | None, wait: float = 0.0) -> Iterator[None]:
    """Hold the record; raises StoreBusy if another still holds it after `wait` seconds."""
    lock = None
    if file is not None:
        with suppress(OSError):  # a folder that nothing can be written to holds no record
            file.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(file.with_suffix(".lock"), str(file), wait)
    try:
        yield
    finally:
        if lock is not None:
            lock.release()
