"""How hits, reports and errors look: to a person at a terminal, to a pipe, to a program that reads JSON."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from c2llm_integrations.ingest import IngestReport
    from c2llm_integrations.stores.base import Hit

Progress = Callable[[int, int | None, str], None]
# Repository name → the folder of its checkout on this machine.
Checkouts = Mapping[str, Path]

# Lines of a hit that a terminal shows, names listed of what was skipped, and the progress bar's room for a path.
LINES, NAMES, PATH_WIDTH = 15, 5, 40
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


# ---- hits


def file_of(hit: Hit, checkouts: Checkouts) -> str | None:
    """Return the hit's file relative to the current folder; None if its checkout is not known or it is gone."""
    root = checkouts.get(hit.chunk.repository)
    file = root / hit.chunk.path if root else None
    if file is None or not file.is_file():
        return None
    try:
        return os.path.relpath(file)
    except ValueError:  # on another drive of Windows
        return str(file)


def hits_document(question: str, model: object, hits: Sequence[Hit], checkouts: Checkouts) -> dict[str, Any]:
    """Return the JSON document of a search. `path` is relative to the repository, `file` to the current folder."""
    fields = ("repository", "path", "start_line", "end_line", "language", "kind", "symbol", "text")
    return {
        "query": question,
        "model": model,
        "hits": [
            {"rank": rank, "score": round(hit.score, 6), "file": file_of(hit, checkouts)}
            | {name: getattr(hit.chunk, name) for name in fields}
            for rank, hit in enumerate(hits, 1)
        ],
    }


def write_hits(hits: Sequence[Hit], checkouts: Checkouts) -> None:
    """Print hits: highlighted code at a terminal, one tab-separated line each into a pipe."""
    if sys.stdout.isatty():
        for hit in hits:
            _show(hit, checkouts)
    elif hits:
        write("\n".join(f"{_place(hit, checkouts)}\t{hit.score:.4f}\t{one_line(hit.chunk.symbol)}" for hit in hits))


def _place(hit: Hit, checkouts: Checkouts) -> str:
    name = file_of(hit, checkouts) or hit.chunk.path
    return f"{one_line(name)}:{hit.chunk.start_line}-{hit.chunk.end_line}"


def _show(hit: Hit, checkouts: Checkouts) -> None:
    from rich.console import Console
    from rich.syntax import Syntax
    from rich.text import Text

    # Blank lines around the code belong to the chunk, but say nothing here.
    lines = clean(hit.chunk.text).rstrip().split("\n")
    blank = next((at for at, line in enumerate(lines) if line.strip()), 0)
    shown = lines[blank : blank + LINES]
    code = Syntax(
        "\n".join(shown),
        Syntax.guess_lexer(hit.chunk.path),
        theme="ansi_dark",
        background_color="default",
        line_numbers=True,
        start_line=hit.chunk.start_line + blank,
    )
    console = Console()
    heading = Text(_place(hit, checkouts), style="bold cyan")
    heading.append(f"  {hit.score:.3f}  {one_line(hit.chunk.symbol)}", style="not bold dim")
    console.print(heading, soft_wrap=True)
    console.print(code)
    if left := len(lines) - blank - len(shown):
        console.print(Text(f"  … {left} more lines", style="dim"))
    console.print()


# ---- reports


def write_report(report: IngestReport, *, planned: bool, as_json: bool) -> None:
    """Print what an indexing run did, or would do if `planned`."""
    if as_json:
        write_json(asdict(report))
    else:
        write("\n".join(report_lines(report, planned)))


def say_problems(report: IngestReport) -> bool:
    """Name each row that was refused and each file that could not be read; say whether there was any."""
    found = problems(report)
    for problem in found:
        say(problem)
    return bool(found)


def report_lines(report: IngestReport, planned: bool) -> list[str]:
    """Return what an indexing run did, or would do if `planned`, for a person."""
    done = "would be " if planned else ""
    lines = [
        f"{report.repository}: {report.files:,} files, {report.chunks:,} chunks in {report.seconds:.1f} s",
        f"{done}written {report.written:,}, unchanged {report.unchanged:,}, moved {report.moved:,}, "
        f"deleted {report.deleted:,}, refused {len(report.refused):,}",
    ]
    if report.tokens:
        lines.append(f"embedded {report.tokens:,} tokens, {report.tokens / report.seconds:,.0f} a second")
    if report.cut:
        lines.append(f"cut {report.cut:,} chunks at the end, where the model stops reading")
    for reason, paths in sorted(report.skipped.items()):
        more = ", …" if len(paths) > NAMES else ""
        lines.append(f"skipped {len(paths):,} ({reason}): {', '.join(sorted(paths)[:NAMES])}{more}")
    return [one_line(line) for line in lines]


def problems(report: IngestReport) -> list[str]:
    """Return one line for each row that was refused and each file that could not be read."""
    unread = report.skipped.get("unreadable", [])
    return [f"refused: {why}" for why in report.refused.values()] + [f"unreadable: {path}" for path in unread]


def status_lines(document: Mapping[str, Any]) -> list[str]:
    """Return what a collection holds, for a person."""
    lines = [f"{name:<10}  {document[name]}" for name in ("store", "collection", "model", "width", "rows")]
    for held in document["repositories"]:
        where = held["folder"] or f"checkout {held['checkout']}, not here"
        lines.append(f"{'repository':<10}  {held['repository']}: {held['rows']:,} rows from {where}")
    return [one_line(line) for line in lines]
