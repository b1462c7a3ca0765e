"""Write safely to a terminal or a pipe, without a traceback when the pipe closes."""

from __future__ import annotations

import json
import os
import sys

from c2llm_integrations._utils.printable import one_line


def write(text: str) -> None:
    """Print an answer; a closed pipe is not an error."""
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        # The interpreter flushes once more when it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def say(text: str) -> None:
    """Print one line to standard error."""
    print(one_line(text), file=sys.stderr, flush=True)


def agreed(question: str) -> bool:
    """Ask at the terminal; return whether the answer is yes."""
    sys.stderr.write(f"{one_line(question)} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def write_json(document: object) -> None:
    """Print one JSON document, in ASCII, so that nothing in it can steer a terminal."""
    write(json.dumps(document, indent=2))
