"""How hits, reports and errors look: to a person at a terminal, to a pipe, to a program that reads JSON."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from c2llm_integrations.ingest import IngestReport
    from c2llm_integrations.stores.base import Hit

Progress = Callable[[int, int | None, str], None]

# Lines of a hit shown at a terminal, and names listed of what was skipped or refused.
LINES, NAMES = 15, 5
# Control characters can rewrite a terminal, bidirectional ones can reorder what is read; both stand in files.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def clean(text: str) -> str:
    """Return `text` with every character that could steer a terminal replaced, newlines and tabs kept."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text.replace("\r\n", "\n"))


def one_line(text: str) -> str:
    """Return `text` safe to print and without line breaks."""
    return " ".join(clean(text).split())


def write(text: str) -> None:
    """Print an answer; a reader that has gone away is no error."""
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def say(text: str) -> None:
    """Print one line for the person, not for the pipe."""
    print(one_line(text), file=sys.stderr, flush=True)


def write_json(document: object) -> None:
    """Print one JSON document, ASCII only, so that nothing in it can steer a terminal."""
    write(json.dumps(document, indent=2))


def file_of(hit: Hit, root: Path | None) -> str | None:
    """Return the hit's file relative to the current folder, or None if it is not under `root` any more."""
    file = root / hit.chunk.path if root else None
    return os.path.relpath(file) if file and file.is_file() else None


def hit_document(rank: int, hit: Hit, root: Path | None) -> dict[str, object]:
    """Return a hit as the JSON schema of `c2llm search --json` has it."""
    chunk = hit.chunk
    return {
        "rank": rank,
        "score": round(hit.score, 6),
        "repository": chunk.repository,
        "path": chunk.path,
        "file": file_of(hit, root),
        "start_line": chunk.start_line,
        "end_line": chunk.end_line,
        "language": chunk.language,
        "kind": chunk.kind,
        "symbol": chunk.symbol,
        "text": chunk.text,
    }


def write_hits(hits: Sequence[Hit], root: Path | None) -> None:
    """Print hits: highlighted code at a terminal, `path:start-end<TAB>score<TAB>symbol` lines into a pipe."""
    if sys.stdout.isatty():
        _show_hits(hits, root)
    elif hits:
        write("\n".join(f"{_place(hit, root)}\t{hit.score:.4f}\t{one_line(hit.chunk.symbol)}" for hit in hits))


def _place(hit: Hit, root: Path | None) -> str:
    name = one_line(file_of(hit, root) or hit.chunk.path)
    return f"{name}:{hit.chunk.start_line}-{hit.chunk.end_line}"


def _show_hits(hits: Sequence[Hit], root: Path | None) -> None:
    from rich.console import Console
    from rich.syntax import Syntax
    from rich.text import Text

    console = Console()
    for hit in hits:
        heading = Text(_place(hit, root), style="bold cyan")
        heading.append(f"  {one_line(hit.chunk.symbol)}  {hit.score:.3f}", style="dim")
        console.print(heading, soft_wrap=True)
        # The blank lines around a chunk belong to it, but say nothing here.
        text = clean(hit.chunk.text).rstrip()
        lines = text.lstrip("\n").split("\n")
        first = hit.chunk.start_line + len(text) - len(text.lstrip("\n"))
        console.print(
            Syntax(
                "\n".join(lines[:LINES]),
                Syntax.guess_lexer(hit.chunk.path),
                theme="ansi_dark",
                background_color="default",
                line_numbers=True,
                start_line=first,
            )
        )
        if len(lines) > LINES:
            console.print(Text(f"     … {len(lines) - LINES} more lines", style="dim"))
        console.print()


def report_lines(report: IngestReport) -> list[str]:
    """Return what an indexing run did, for a person."""
    rate = f", {report.tokens / report.seconds:,.0f} tokens/s" if report.tokens and report.seconds else ""
    lines = [
        f"{report.repository}: {report.files:,} files, {report.chunks:,} chunks, "
        f"{report.tokens:,} tokens embedded in {report.seconds:.1f} s{rate}",
        f"rows: {report.written:,} written, {report.unchanged:,} unchanged, {report.moved:,} moved, "
        f"{report.deleted:,} deleted, {len(report.refused):,} refused",
    ]
    lines += [f"skipped: {count_names(reason, paths)}" for reason, paths in sorted(report.skipped.items())]
    if report.cut:
        lines.append(f"cut at the end, because the model reads no more: {report.cut:,} chunks")
    return [one_line(line) for line in lines]


def count_names(reason: str, names: Sequence[str]) -> str:
    """Return `3 reason (a, b, c)`, with at most NAMES names."""
    more = ", …" if len(names) > NAMES else ""
    return f"{len(names):,} {reason} ({', '.join(sorted(names)[:NAMES])}{more})"


@contextmanager
def progress_bar() -> Iterator[Progress | None]:
    """Yield what reports progress to a bar on standard error, or None where nobody looks."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("reading", total=None)
        yield lambda done, total, what: bar.update(task, completed=done, total=total, description=what)
