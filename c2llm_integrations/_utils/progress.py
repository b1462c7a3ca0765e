"""Progress callbacks, and the bar that draws them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from c2llm_integrations._utils.printable import one_line

# What is done, how much there is in all (None while nobody knows), and what is being done.
Progress = Callable[[int, int | None, str], None]
# Characters of a path beside the bar.
PATH_WIDTH = 40


@contextmanager
def shown(progress: Progress | bool | None = True) -> Iterator[Progress | None]:
    """Yield the callback given; for True, one that draws a bar on standard error, or None if that is not a terminal."""
    if not isinstance(progress, bool):
        yield progress
        return
    if not progress or not sys.stderr.isatty():
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
