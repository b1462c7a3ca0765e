"""`c2llm bench`: the speed of a model on this machine, as a table."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from c2llm_integrations.cli import terminal
from c2llm_integrations.cli.options import Output, command


@command
def bench(
    model: Annotated[str, typer.Option(metavar="ID", help="What to measure: nano, a folder or a hub id.")] = "nano",
    device: Annotated[str, typer.Option(metavar="D", help="auto, cpu, cuda, cuda:N, or several.")] = "auto",
    seconds: Annotated[float, typer.Option(metavar="S", help="How long to measure.")] = 120.0,
    *,
    output: Output,
) -> int:
    """Measure a model on this machine with real code: tokens a second, share of the peak, memory, best setting.

    The peak is the best that the model's own matrix products reach here. Let nothing else run meanwhile.
    """
    from c2llm_integrations.model.benchmark import measure

    found = [asdict(one) for one in measure(model, seconds, device, terminal.say)]
    if output.as_json:
        terminal.write_json({"model": model, "settings": found, "best": found[0]})
        return 0
    titles = {
        "dtype": "{}",
        "batch_tokens": "{:,}",
        "tokens_per_second": "{:,.0f}",
        "texts_per_second": "{:,.1f}",
        "peak_tflops": "{:.2f}",
        "mfu": "{:.0%}",
        "query_ms": "{:.1f}",
        "memory_mb": "{:,.0f}",
    }
    lines = [list(titles)]
    lines += [["-" if row[name] is None else form.format(row[name]) for name, form in titles.items()] for row in found]
    widths = [max(len(line[n]) for line in lines) for n in range(len(titles))]
    for line in lines:
        terminal.write("  ".join(text.rjust(width) for text, width in zip(line, widths, strict=True)))
    return 0
