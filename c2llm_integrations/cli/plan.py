"""`c2llm plan`: choose how to store N vectors in a number of bytes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from c2llm_integrations._utils.option_field import option
from c2llm_integrations._utils.progress import shown
from c2llm_integrations.cli import terminal
from c2llm_integrations.cli.checkouts import indexed_store
from c2llm_integrations.cli.options import CollectionPlace, Output, command
from c2llm_integrations.cli.store_and_model import opened

if TYPE_CHECKING:
    from c2llm_integrations.stores.qdrant.measure_plans import MeasuredPlan

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}


@dataclass(frozen=True)
class SamplePlace(CollectionPlace):
    """The collection whose vectors are measured."""

    store: str | None = option(None, "Measure on vectors of a collection here.  [default: the index]", metavar="URL")


def _number(text: str) -> float:
    if (found := re.fullmatch(r"(\d+(?:\.\d+)?) ?([kmgt]?)b?", text.strip().lower())) is None:
        raise typer.BadParameter(f"{text!r} is not a number such as 10M or 2GB")
    return float(found[1]) * _UNITS[found[2]]


@command
def plan(
    place: SamplePlace,
    output: Output,
    rows: Annotated[str, typer.Option(metavar="N", help="Number of rows to come, such as 10M.")],
    budget: Annotated[str, typer.Option(metavar="BYTES", help="Bytes for their vectors, such as 2GB.")],
    recall: Annotated[
        float,
        typer.Option(metavar="R", min=0, max=1, help="Share of the ten nearest that a search must find."),
    ] = 0.98,
    sample: Annotated[int, typer.Option(metavar="N", min=200, help="Number of vectors to measure on.")] = 10_000,
) -> int:
    """Measure datatypes and quantizations on vectors of a collection, and recommend the smallest that is good enough.

    Bytes are those of a full vector and its codes; recall is against exact float32 search among the sample.
    """
    count, limit = int(_number(rows)), _number(budget)
    import numpy as np

    from c2llm_integrations._utils.sampling import sample as sampled
    from c2llm_integrations.stores.qdrant.measure_plans import PLANS, choose_plan, measure_plans

    with opened(place.store or indexed_store(), place.collection) as held:
        vectors = sampled((row.vector for row in held.rows()), sample)
    measured = []
    with shown() as progress:
        for one in measure_plans(np.asarray(vectors, np.float32)):
            measured.append(one)
            if progress is not None:
                progress(len(measured), len(PLANS), f"{one.plan.datatype} {one.plan.quantization or ''}")
    if output.as_json:
        terminal.write_json([_about(one, count) for one in measured])
    else:
        terminal.write("\n".join(_lines(measured, count)))
    chosen = choose_plan(measured, count, limit, recall).plan
    codes = f" --quantization {chosen.quantization}" if chosen.quantization else ""
    size = chosen.bytes_per_vector * count / 1e9
    terminal.say(f"{size:.2f} GB for {count:,} rows: c2llm index --replace --datatype {chosen.datatype}{codes}")
    return 0


def _about(one: MeasuredPlan, rows: int) -> dict[str, object]:
    plan = one.plan
    return {
        "datatype": plan.datatype,
        "quantization": plan.quantization,
        "rescore": plan.rescore,
        "bytes_per_vector": plan.bytes_per_vector,
        "bytes": plan.bytes_per_vector * rows,
        "recall": round(one.recall, 4),
    }


def _lines(measured: list[MeasuredPlan], rows: int) -> list[str]:
    head = f"{'datatype':10}{'quantization':14}{'rescored':>9}{'bytes each':>12}{'GB in all':>11}{'recall@10':>11}"
    return [
        head,
        *(
            f"{one.plan.datatype:10}{one.plan.quantization or '-':14}{f'x {one.plan.rescore:g}':>9}"
            f"{one.plan.bytes_per_vector:12g}{one.plan.bytes_per_vector * rows / 1e9:11.2f}{one.recall:11.3f}"
            for one in measured
        ),
    ]
