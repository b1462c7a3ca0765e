"""An embedded collection shared by several processes: each opens it only for the time of a call.

    PATH/.COLLECTION.lock       held by the process that has the collection open
    PATH/.COLLECTION.next.lock  held by the one that wants it next, which asks the holder to let go

The holder lets go after the call in which it was asked, or within `POLL_SECONDS` between two calls; unasked, after
`IDLE_SECONDS`. Opening again takes tens of milliseconds, so a holder that nobody asks keeps the collection open.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from c2llm_integrations._utils.files import FileLock
from c2llm_integrations.errors import StoreBusy, StoreError
from c2llm_integrations.stores import Location
from c2llm_integrations.stores.qdrant.edge import QdrantEdgeStore

POLL_SECONDS = 0.1
IDLE_SECONDS = 20.0
# How often the next in turn looks whether it is, and the others, on average, whether they are the next.
RETRY_SECONDS, QUEUE_SECONDS = 0.01, 0.1
# Who gave way asks again when everybody else has looked, or two would take turns and a third would never come in.
PAUSE_SECONDS = 1.5 * QUEUE_SECONDS


class SharedEdgeStore(QdrantEdgeStore):
    """A collection in a folder, open in this process while it is used and nobody else asks for it.

    Its calls may come from any thread, one at a time. A call raises StoreBusy if its turn has not come after `wait`
    seconds.
    """

    def __init__(self, path: str | Path, collection: str, wait: float) -> None:
        """See `QdrantEdgeStore`; `wait` in seconds."""
        self._wait = wait
        self._turn = threading.RLock()
        self._calls = 0
        self._ushered: FileLock | None = None  # which opening of the collection the thread looks after
        self._used = time.monotonic()
        self._gave_way = float("-inf")
        self._deadline = self._used + wait
        with self._turn:
            super().__init__(path, collection)

    @classmethod
    def open(cls, at: Location) -> QdrantEdgeStore:
        """Return a store over the folder at a location, shared if `wait` says for how long."""
        return QdrantEdgeStore.open(at) if at.wait is None else cls(at.place, at.collection, at.wait)

    @contextmanager
    def _open(self) -> Iterator[None]:
        deadline = time.monotonic() + self._wait
        with self._turn:
            if not self._calls:
                self._deadline = deadline
            self._calls += 1
            try:
                with super()._open():
                    self._read_spec()  # which opens the collection again if there is one
                    yield
            finally:
                self._calls -= 1
                self._used = time.monotonic()
                self._let_go_if_asked()

    def _after_fork(self) -> None:
        super()._after_fork()
        self._turn, self._calls, self._ushered = threading.RLock(), 0, None

    def _close(self) -> None:
        with self._turn:
            super()._close()

    def _hold(self) -> None:
        if self._lock is not None:
            return
        try:
            super()._hold()
        except StoreBusy:
            self._queue()
        self._ushered = self._lock
        threading.Thread(target=self._usher, args=(self._lock,), name="c2llm-turns", daemon=True).start()

    def _queue(self) -> None:
        ask: FileLock | None = None
        try:
            while True:
                if ask is None and time.monotonic() >= self._gave_way + PAUSE_SECONDS:
                    ask = self._ask()
                if ask is not None:
                    with suppress(StoreBusy):
                        return super()._hold()
                if time.monotonic() > self._deadline:
                    raise StoreBusy(f"{self.folder} is still in use after {self._wait:g} s; try again")
                time.sleep(RETRY_SECONDS if ask else random.uniform(0.5, 1.5) * QUEUE_SECONDS)
        finally:
            if ask is not None:
                ask.release()

    def _ask(self) -> FileLock | None:
        """Ask the holder to let go; None if somebody is asking already."""
        with suppress(StoreBusy):
            return FileLock(self.root / f".{self.collection}.next.lock", "the next turn")
        return None

    def _let_go_if_asked(self) -> None:
        has_successor = self._next is not None and not self._next._closed  # which stands under this lock
        if (self._lock is None and self._copy is None) or self._calls or has_successor:
            return
        asked = self._ask() if self._copy is None else None
        if asked is not None:
            asked.release()
        is_wanted = asked is None and self._copy is None  # nobody waits for a copy
        if not is_wanted and time.monotonic() < self._used + IDLE_SECONDS:
            return
        if is_wanted:
            self._gave_way = time.monotonic()
        try:
            self._release_shard()
        finally:
            self._let_go()

    def _usher(self, lock: FileLock) -> None:
        while True:
            time.sleep(POLL_SECONDS)
            with self._turn:
                if self._ushered is not lock or (self._lock is None and self._copy is None):
                    return
                with suppress(StoreError, OSError):  # what is wrong with the collection, the next call says
                    self._let_go_if_asked()
