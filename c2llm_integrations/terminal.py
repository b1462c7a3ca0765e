"""What reaches a terminal, a pipe or a reader of JSON: nothing that steers it, and no traceback of a closed pipe."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from c2llm_integrations.progress import Progress

# The progress bar's room for a path.
PATH_WIDTH = 40
# Control characters can rewrite a terminal, bidirectional ones can reorder what is read; both stand in files.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def clean(text: str) -> str:
    """Return `text` with every character that could steer a terminal replaced; newlines and tabs stay."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text.replace("\r\n", "\n"))


def one_line(text: str) -> str:
    """Return `text` safe to print, line breaks and tabs made spaces."""
    return clean(text).strip().replace("\n", " ").replace("\t", " ")


def write(text: str) -> None:
    """Print an answer; a reader that has gone away is no error."""
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        # The interpreter flushes once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def say(text: str) -> None:
    """Print one line for the person, not for the pipe."""
    print(one_line(text), file=sys.stderr, flush=True)


def agreed(question: str) -> bool:
    """Ask the person at the terminal; anything but yes is no."""
    sys.stderr.write(f"{one_line(question)} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def write_json(document: object) -> None:
    """Print one JSON document, in ASCII, so that nothing in it can steer a terminal."""
    write(json.dumps(document, indent=2))


@contextmanager
def progress_bar() -> Iterator[Progress | None]:
    """Yield what draws progress on standard error, or None where nobody looks."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}", markup=False))
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)

        def show(done: int, total: int | None, what: str) -> None:
            bar.update(task, completed=done, total=total, description=one_line(what)[-PATH_WIDTH:])

        yield show
