"""Format hits and reports for a terminal, a pipe or a program that reads JSON."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from c2llm_integrations._utils.printable import clean, one_line, shortened
from c2llm_integrations.cli.terminal import say, write, write_json
from c2llm_integrations.code.safe_open import MAX_PATH_BYTES

if TYPE_CHECKING:
    from c2llm_integrations.indexing.report import IngestReport, RecordsReport
    from c2llm_integrations.stores.records import Hit

# The version of the JSON document; fields may be added to one version, never removed or changed in meaning.
SCHEMA = 1
# Lines of a hit that a terminal shows without being asked for more.
LINES = 15
# Characters printed of a symbol: a row may hold a longer one.
MAX_SYMBOL = 300
_CHANGED = "        … its file is not here, or has changed since it was indexed"


@dataclass(frozen=True)
class Origin:
    """What fills a repository's rows: a checkout, the commit they were read from, the checkout's folder if here."""

    checkout: str
    commit: str | None = None
    folder: Path | None = None


@dataclass(frozen=True)
class ShownHit:
    """A hit as it is shown.

    `file`: its file relative to the current folder, None if that is not here; `url`: its lines at the indexed commit,
    None if that is not known; `before`, `after`: the lines around it; `changed`: they were asked for, but the file
    no longer holds the hit.
    """

    hit: Hit
    file: str | None
    url: str | None
    before: Sequence[str] = ()
    after: Sequence[str] = ()
    changed: bool = False

    @property
    def place(self) -> str:
        """PATH:START-END, PATH as an editor would open it if it can; of a record that is not a chunk SOURCE: ID."""
        chunk, record = self.hit.chunk, self.hit.record
        if not chunk.start_line:
            return one_line(f"{record.source}: {record.id}" if record.source else str(record.id))
        return f"{shortened(self.file or chunk.path, MAX_PATH_BYTES)}:{chunk.start_line}-{chunk.end_line}"


def shown_hit(hit: Hit, origins: Mapping[str, Origin], context: int | None = None) -> ShownHit:
    """Return a hit with its place and the `context` lines around it."""
    from c2llm_integrations.code.git_commit import permalink

    chunk = hit.chunk
    origin = origins.get(chunk.repository, Origin(""))
    url = None
    if origin.commit is not None:
        url = permalink(chunk.repository, origin.commit, chunk.path, chunk.start_line, chunk.end_line)
    file = file_of(hit, origin.folder)
    if not context:
        return ShownHit(hit, file, url)
    lines = _lines_around(hit, origin.folder, context) if file and origin.folder else None
    before, after = lines or ((), ())
    return ShownHit(hit, file, url, before, after, changed=lines is None)


def file_of(hit: Hit, folder: Path | None) -> str | None:
    """Return the hit's file relative to the current folder; None if its checkout is not here or it is gone."""
    if folder is None or not hit.chunk.path:
        return None
    file = folder / hit.chunk.path
    try:
        # A row is data: its path must not lead out of the checkout.
        if not file.is_file() or not file.resolve().is_relative_to(folder.resolve()):
            return None
    except OSError:  # a folder above it may not be entered, or its name is too long for this system
        return None
    try:
        return os.path.relpath(file)
    except ValueError:  # on another drive of Windows
        return str(file)


def _lines_around(hit: Hit, folder: Path, context: int) -> tuple[list[str], list[str]] | None:
    """Return the lines before and after a hit, without secrets; None if its file no longer holds it there.

    A row is data, which others may have written: what no index would hold is not shown for it.
    """
    from c2llm_integrations.code.exclude import INTERNAL_NAMES, SECRET, why_skip_name
    from c2llm_integrations.code.line_pieces import Lines
    from c2llm_integrations.code.source_file import SourceFile, read_source, redacted

    chunk = hit.chunk
    if why_skip_name(chunk.path) == SECRET or not INTERNAL_NAMES.isdisjoint(chunk.path.split("/")):
        return None
    source, _ = read_source(folder, chunk.path, wanted=True)
    if not isinstance(source, SourceFile):
        return None
    start, end = chunk.start_line - 1, chunk.end_line
    shown = Lines(redacted(source).text).lines
    for lines in (shown, Lines(source.text).lines):  # the latter was stored with --include-secrets
        if start >= 0 and chunk.text and chunk.text in "".join(lines[start:end]):
            return shown[max(0, start - context) : start], shown[end : end + context]
    return None


def document_of(question: str, about: Mapping[str, object], shown: Sequence[ShownHit]) -> dict[str, Any]:
    """Return the JSON document of a search, version `SCHEMA`.

    `schema`; `query`; from `about`: `model`, `mode` (hybrid, dense or lexical), `notes` (lines that a person is told,
    such as that answers may be stale); `hits`, best first, each with `rank` (from 1), `score`, `repository`, `path`
    (relative to the repository), `file` (relative to the current folder, or null), `url` (the lines at the indexed
    commit, or null), `start_line`, `end_line` (from 1, both included), `language`, `kind`, `symbol`, `text`,
    `before`, `after` (lines of --context), `changed` (true where these are not known), `explanation` (name → part of
    the score).
    """
    fields = ("repository", "path", "start_line", "end_line", "language", "kind", "symbol", "text")
    return {
        "schema": SCHEMA,
        "query": question,
        **about,
        "hits": [
            {"rank": rank, "score": round(one.hit.score, 6), "file": one.file, "url": one.url}
            | {name: getattr(one.hit.chunk, name) for name in fields}
            | {"before": list(one.before), "after": list(one.after), "changed": one.changed}
            | {"explanation": {name: round(value, 6) for name, value in one.hit.explanation.items()}}
            for rank, one in enumerate(shown, 1)
        ],
    }


def write_hits(shown: Sequence[ShownHit], *, explain: bool = False, context: int | None = None) -> None:
    """Print hits: code at a terminal, one tab-separated line each into a pipe unless lines around it are asked for."""
    if sys.stdout.isatty():
        for one in shown:
            _show(one, explain, context)
    elif context is not None:
        for one in shown:
            write("\n".join(_plain(one, explain)))
    elif shown:
        write("\n".join(_fields(one, explain) for one in shown))


def _fields(one: ShownHit, explain: bool) -> str:
    fields = [one.place, f"{one.hit.score:.4f}", shortened(one.hit.chunk.symbol, MAX_SYMBOL)]
    return "\t".join([*fields, _explained(one)] if explain else fields)


def _explained(one: ShownHit) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in one.hit.explanation.items())


def _plain(one: ShownHit, explain: bool) -> list[str]:
    lines, start = _code(one)
    numbered = [f"{number:6}  {line}".rstrip() for number, line in enumerate(lines, start)]
    return [_fields(one, explain), *numbered, *([_CHANGED] if one.changed else []), ""]


def _code(one: ShownHit) -> tuple[list[str], int]:
    """Return the lines to show and the number of the first one."""
    chunk = one.hit.chunk
    lines = clean("".join([*one.before, chunk.text, *one.after])).rstrip().split("\n")
    # Blank lines around the code belong to the chunk, but say nothing here.
    blank = next((at for at, line in enumerate(lines) if line.strip()), 0)
    return lines[blank:], chunk.start_line - len(one.before) + blank


def _show(one: ShownHit, explain: bool, context: int | None) -> None:
    from rich.console import Console
    from rich.syntax import Syntax
    from rich.text import Text

    from c2llm_integrations._utils.highlighting import BoundedLexer

    lines, start = _code(one)
    shown = lines if context is not None else lines[:LINES]
    code = Syntax(
        "\n".join(shown),
        BoundedLexer(one.hit.chunk.path),
        theme="ansi_dark",
        background_color="default",
        line_numbers=True,
        start_line=start,
    )
    console = Console()
    heading = Text(one.place, style="bold cyan")
    heading.append(f"  {one.hit.score:.3f}  {shortened(one.hit.chunk.symbol, MAX_SYMBOL)}", style="not bold dim")
    console.print(heading, soft_wrap=True)
    for line in (one.url, _explained(one) if explain else None):
        if line:
            console.print(Text(f"  {one_line(line)}", style="dim"), soft_wrap=True)
    console.print(code)
    if left := len(lines) - len(shown):
        console.print(Text(f"  … {left} more lines", style="dim"))
    if one.changed:
        console.print(Text(_CHANGED, style="dim"))
    console.print()


# Names listed of what was skipped or refused.
NAMES = 5


def write_report(report: IngestReport | RecordsReport, *, planned: bool, as_json: bool) -> None:
    """Print what an indexing run did, or would do if `planned`."""
    if as_json:
        write_json(asdict(report))
    else:
        write("\n".join(report_lines(report, planned)))


def report_lines(report: IngestReport | RecordsReport, planned: bool) -> list[str]:
    """Return what an indexing run did, or would do if `planned`, for a person."""
    from c2llm_integrations.indexing.report import RecordsReport

    if isinstance(report, RecordsReport):
        read, changed = f"{report.source}: {report.records:,} records", f"updated {report.updated:,}"
    else:
        read = f"{report.repository}: {report.files:,} files, {report.chunks:,} chunks"
        changed = f"moved {report.moved:,}"
    lines = [
        f"{read} in {report.seconds:.1f} s",
        f"{'would be ' if planned else ''}written {report.written:,}, unchanged {report.unchanged:,}, {changed}, "
        f"deleted {report.deleted:,}, refused {report.refused_count:,}",
    ]
    if not isinstance(report, RecordsReport) and report.estimate is not None:
        cost = report.estimate
        lines.append(
            f"about {cost.tokens:,} tokens, {size(cost.store_bytes)} in the store, "
            f"{cost.minutes:.1f} minutes at {cost.tokens_per_second:,.0f} tokens a second"
        )
    if report.tokens:
        lines.append(f"embedded {report.tokens:,} tokens, {report.tokens / report.seconds:,.0f} a second")
    if report.cut:
        lines.append(f"cut {report.cut:,} texts at the end, where the model stops reading")
    if report.shortened:
        lines.append(f"shortened {report.shortened:,} texts to what the store takes")
    if report.replaced:
        lines.append("the new collection has taken the old one's place")
    lines += report.notes
    return [one_line(line) for line in lines + ([] if isinstance(report, RecordsReport) else _file_lines(report))]


def _file_lines(report: IngestReport) -> list[str]:
    """Return what to say of files that were left out or are not plain UTF-8."""
    from c2llm_integrations.code.exclude import TOO_LARGE
    from c2llm_integrations.code.repository import IGNORE_FILE

    lines = [f"read {len(paths):,} as {name}: {_named(paths)}" for name, paths in sorted(report.encodings.items())]
    lines += [f"skipped {len(paths):,} ({reason}): {_named(paths)}" for reason, paths in sorted(report.skipped.items())]
    if TOO_LARGE in report.skipped:
        lines.append(f"to index a large file all the same, add a line !PATH to {IGNORE_FILE}")
    return lines


def _named(paths: Sequence[str]) -> str:
    return ", ".join(sorted(paths)[:NAMES]) + (", …" if len(paths) > NAMES else "")


def say_problems(refused: Mapping[str, str], count: int, file: Path, unread: Sequence[str] = ()) -> bool:
    """Name the first of `count` refused rows, the file that has all, and what could not be read; say if any."""
    for why in list(refused.values())[:NAMES]:
        say(f"refused: {why}")
    if count:
        say(f"refused {count:,} in all; {file} has each with its reason")
    for path in unread:
        say(f"unreadable: {path}")
    return bool(count or unread)


def status_lines(document: Mapping[str, Any]) -> list[str]:
    """Return what a collection holds, for a person."""
    from c2llm_integrations.indexing.claims import RECORDS

    names = [name for name in document if name != "repositories"]
    wide = max(map(len, names))
    lines = [f"{name.replace('_', ' '):<{wide}}  {_said(document[name])}" for name in names]
    for held in document["repositories"]:
        where = f" from {held['folder'] or 'a checkout that is not here'}"
        commit = f", commit {held['commit'][:12]}" if held["commit"] else ""
        is_records = held["checkout"].startswith(RECORDS)
        what, where = ("records", "") if is_records else ("repository", f"{where}{commit}")
        lines.append(f"{what:<{wide}}  {held['repository']}: {held['rows']:,} rows{where}")
    return [one_line(line) for line in lines]


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return rows of equal keys under these as headings, the columns aligned."""
    cells = [[name.replace("_", " ") for name in rows[0]]]
    cells += [[one_line(_said(value)) for value in row.values()] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]


def size(count: float) -> str:
    """Return a number of bytes for a person, in powers of 1000."""
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:,.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:,.1f} GB"


def _said(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} ({said})" for name, said in value.items()) or "none"
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
