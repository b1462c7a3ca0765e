"""A run in a process of its own: what computing vectors takes of memory goes back to the system when it ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import suppress
from typing import Any

from c2llm_integrations.errors import C2LLMError, StoreBusy
from c2llm_integrations.keeping.checkout import Checkout

# Less urgent than the questions that are answered meanwhile.
NICENESS = 5


class Apart:
    """A run that brings a checkout's collection up to date, begun; `finish` waits for it."""

    def __init__(self, checkout: Checkout) -> None:
        """Start the process; it ends by itself if this one dies."""
        # This process's own module path, and never the current folder: a repository may hold a json.py.
        path = [folder for folder in sys.path if folder]
        code = f"import sys; sys.path[:] = {path!r}; from c2llm_integrations.keeping.apart import main; main()"
        command = [sys.executable, "-c", code, json.dumps(checkout.options)]
        self._checkout = checkout
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        checkout.progress = (0, None)

    def finish(self) -> bool:
        """Wait for the end, keep `progress` and `problem` of the checkout, and say whether all went well."""
        problem: str | None = None
        assert self._process.stdout is not None
        for line in self._process.stdout:
            said = json.loads(line)
            if "problem" in said:
                problem = said["problem"]
            else:
                self._checkout.progress = (said["done"], said["total"])
        code = self._process.wait()
        self._process.stdout.close()
        self._checkout.progress = None
        self._checkout.problem = problem if problem is not None else f"indexing failed: its process ended with {code}"
        with suppress(C2LLMError):  # which the next question says
            self._checkout.look()
        return not self._checkout.problem

    def stop(self) -> None:
        """End the run; the next one goes on where it stopped."""
        self._process.terminate()


def main() -> None:
    """Do one run on the checkout that the command line describes; progress and problem go to standard output."""
    with suppress(AttributeError, OSError):
        os.nice(NICENESS)
    with suppress(BrokenPipeError):
        _say(problem=_run(Checkout.of(json.loads(sys.argv[1]))))
    sys.stdout.flush()
    os._exit(0)


def _run(checkout: Checkout) -> str:
    try:
        return checkout.refresh(lambda done, total: _say(done=done, total=total))
    except StoreBusy:
        return "another process is indexing"
    except BrokenPipeError:
        raise
    except (C2LLMError, OSError, MemoryError) as error:
        return f"indexing failed: {str(error) or type(error).__name__}"


def _say(**what: Any) -> None:
    print(json.dumps(what), flush=True)
