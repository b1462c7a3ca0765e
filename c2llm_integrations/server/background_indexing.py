"""Index in the background while questions come, and release memory when they stop.

Each run has its own process, so that the memory of computing vectors goes back to the system when it ends.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from c2llm_integrations.errors import C2LLMError, StoreBusy, reason_of
from c2llm_integrations.server.live_index import LiveIndex, LiveIndexConfig

# A run that failed is tried again after this many seconds, if somebody asks.
RETRY_SECONDS = 5.0
# Questions that are answered meanwhile take precedence.
NICENESS = 5
# This process's own module path, and never the current folder: a repository may hold a json.py. The threads that
# compute a batch end with the process.
_PROGRAM = """
import os, sys
sys.path[:] = {path!r}
from c2llm_integrations.server.background_indexing import run_once
run_once(sys.argv[1])
sys.stdout.flush()
os._exit(0)
"""


class BackgroundIndexer:
    """Index the folders that are not current, one by one, at the start and whenever `wake` is called."""

    def __init__(self, indexes: Sequence[LiveIndex], index: bool, idle_seconds: float) -> None:
        """Take the indexes to keep current, or with `index` False only to release; nothing runs before `start`.

        An index releases its model after `idle_seconds` without a question.
        """
        self._indexes = indexes
        self._index = index
        self._idle_seconds = idle_seconds
        self._awake = threading.Event()
        self._stopped = threading.Event()
        self._run: IndexingProcess | None = None
        self._thread = threading.Thread(target=self._work, name="c2llm-indexer", daemon=True)
        for one in indexes:
            one.on_stale = self.wake

    def start(self) -> None:
        """Start the thread."""
        self._awake.set()
        self._thread.start()

    def wake(self) -> None:
        """Make the thread look at the indexes soon."""
        self._awake.set()

    def stop(self, seconds: float) -> bool:
        """Stop the thread and a run under way; return whether they ended within the time limit."""
        self._stopped.set()
        self._awake.set()
        if (run := self._run) is not None:
            run.stop()
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _work(self) -> None:
        while not self._stopped.is_set():
            if self._awake.wait(self._idle_seconds / 2):
                self._awake.clear()
                went_well = [self._keep(one) for one in self._indexes]
                if not all(went_well):
                    self._stopped.wait(RETRY_SECONDS)
            for one in self._indexes:
                if time.monotonic() > one.state.used + self._idle_seconds:
                    one.release()

    def _keep(self, index: LiveIndex) -> bool:
        """Bring one index up to date; return whether that succeeded."""
        try:
            found = index.look()
            if found is None:
                index.update(problem="")
            index.warm()
            if found is None or not self._index or self._stopped.is_set():
                return True
            self._run = IndexingProcess(index)
            if self._stopped.is_set():  # by now: `stop` may have seen no run
                self._run.stop()
            went_well = self._run.finish()
            index.warm()
            return went_well
        except Exception as error:  # this thread has to go on; the next question reports the error
            index.update(progress=None, problem=f"indexing failed: {reason_of(error)}")
            return False


class IndexingProcess:
    """A running update of an index; `finish` waits for it."""

    def __init__(self, index: LiveIndex) -> None:
        """Start the process; it ends by itself if this one dies."""
        program = _PROGRAM.format(path=[folder for folder in sys.path if folder])
        command = [sys.executable, "-c", program, json.dumps(asdict(index.config), default=str)]
        self._index = index
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        index.update(progress=(0, None))

    def finish(self) -> bool:
        """Wait for the end, pass on progress and problem, and return whether it succeeded."""
        problem: str | None = None
        assert self._process.stdout is not None
        for line in self._process.stdout:
            said = json.loads(line)
            if "problem" in said:
                problem = said["problem"]
            else:
                self._index.update(progress=(said["done"], said["total"]))
        code = self._process.wait()
        self._process.stdout.close()
        if problem is None:
            problem = f"indexing failed: its process ended with {code}"
        self._index.update(progress=None, problem=problem)
        with suppress(C2LLMError):  # the next question reports it
            self._index.look()
        return not problem

    def stop(self) -> None:
        """End the run; the next one continues where it stopped."""
        self._process.terminate()


def run_once(config: str) -> None:
    """Do one run on a `LiveIndexConfig` in JSON; progress and problem go to standard output, one object a line."""
    with suppress(AttributeError, OSError):
        os.nice(NICENESS)
    with suppress(BrokenPipeError, KeyboardInterrupt):
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # `stop` lets it clean up
        try:
            given = json.loads(config)
            index = LiveIndex(LiveIndexConfig(**{**given, "folder": Path(given["folder"])}))
            problem = index.refresh(lambda done, total: _say(done=done, total=total))
        except StoreBusy:
            problem = "another process is indexing"
        except BrokenPipeError:
            raise
        except Exception as error:  # a folder may hold anything, and a traceback is no answer to a question
            problem = f"indexing failed: {reason_of(error)}"
        _say(problem=problem)


def _say(**what: Any) -> None:
    print(json.dumps(what), flush=True)
