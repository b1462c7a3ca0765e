"""How reports look: what an indexing run did or would do, what a collection holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from c2llm_integrations.terminal import one_line, say, write, write_json

if TYPE_CHECKING:
    from c2llm_integrations.estimate import Estimate
    from c2llm_integrations.ingest import IngestReport

# Names listed of what was skipped or refused.
NAMES = 5


def write_report(report: IngestReport, *, planned: bool, as_json: bool) -> None:
    """Print what an indexing run did, or would do if `planned`."""
    if as_json:
        write_json(asdict(report))
    else:
        write("\n".join(report_lines(report, planned)))


def report_lines(report: IngestReport, planned: bool) -> list[str]:
    """Return what an indexing run did, or would do if `planned`, for a person."""
    done = "would be " if planned else ""
    lines = [
        f"{report.repository}: {report.files:,} files, {report.chunks:,} chunks in {report.seconds:.1f} s",
        f"{done}written {report.written:,}, unchanged {report.unchanged:,}, moved {report.moved:,}, "
        f"deleted {report.deleted:,}, refused {len(report.refused):,}",
    ]
    if report.estimate is not None:
        lines.append(_estimated(report.estimate))
    if report.tokens:
        lines.append(f"embedded {report.tokens:,} tokens, {report.tokens / report.seconds:,.0f} a second")
    if report.cut:
        lines.append(f"cut {report.cut:,} chunks at the end, where the model stops reading")
    if report.shortened:
        lines.append(f"shortened {report.shortened:,} texts to what the store takes")
    if report.replaced:
        lines.append("the new collection has taken the old one's place")
    for reason, paths in sorted(report.skipped.items()):
        more = ", …" if len(paths) > NAMES else ""
        lines.append(f"skipped {len(paths):,} ({reason}): {', '.join(sorted(paths)[:NAMES])}{more}")
    return [one_line(line) for line in lines]


def _estimated(cost: Estimate) -> str:
    return (
        f"about {cost.tokens:,} tokens, {size(cost.store_bytes)} in the store, "
        f"{cost.minutes:.1f} minutes at {cost.tokens_per_second:,.0f} tokens a second"
    )


def say_problems(refused: Mapping[str, str], file: Path, unread: Sequence[str] = ()) -> bool:
    """Name the first rows that were refused, the file that has all, and what could not be read; say if any."""
    for why in list(refused.values())[:NAMES]:
        say(f"refused: {why}")
    if refused:
        say(f"refused {len(refused):,} in all; {file} has each with its reason")
    for path in unread:
        say(f"unreadable: {path}")
    return bool(refused or unread)


def status_lines(document: Mapping[str, Any]) -> list[str]:
    """Return what a collection holds, for a person."""
    names = [name for name in document if name != "repositories"]
    wide = max(map(len, names))
    lines = [f"{name.replace('_', ' '):<{wide}}  {_said(document[name])}" for name in names]
    for held in document["repositories"]:
        where = held["folder"] or f"checkout {held['checkout']}, not here"
        commit = f", commit {held['commit'][:12]}" if held["commit"] else ""
        lines.append(f"{'repository':<{wide}}  {held['repository']}: {held['rows']:,} rows from {where}{commit}")
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
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
