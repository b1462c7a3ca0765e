"""Measure the recall of plans on the user's own vectors in Qdrant's engine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from tempfile import TemporaryDirectory

import numpy as np

from c2llm_integrations.errors import InputError
from c2llm_integrations.stores.qdrant.edge import QdrantEdgeStore
from c2llm_integrations.stores.records import Record, Row, Vector
from c2llm_integrations.stores.row_checks import require
from c2llm_integrations.stores.row_fields import unit
from c2llm_integrations.stores.spec import DATATYPES, QUANTIZATIONS, CollectionSpec, CompactPlan

# What is measured: each datatype alone, and with codes of fewer bits.
PLANS = tuple(
    CompactPlan(datatype=datatype, quantization=quantization)
    for datatype in ("float32", "float16", "turbo8", "turbo4")
    for quantization in (None, "int8", "turbo", "turbo2", "binary2", "binary")
    if quantization is None or QUANTIZATIONS[quantization] < DATATYPES[datatype]
)
# Of the vectors, the share that ask for the others, and how many at most.
QUERIES_SHARE, MOST_QUERIES = 10, 200
NEIGHBORS = 10
BATCH = 1_000


@dataclass(frozen=True)
class MeasuredPlan:
    """A plan and its recall: the share (0…1) of the ten nearest rows that a search finds.

    Attributes:
        plan: The plan, its width named.
        recall: Measured with the plan's own rescoring.

    """

    plan: CompactPlan
    recall: float


def measure_plans(vectors: Vector, plans: Sequence[CompactPlan] = PLANS) -> Iterator[MeasuredPlan]:
    """Load vectors under each plan, and yield how many of their exact neighbors a search finds.

    Args:
        vectors: (n, width), at least 200; a tenth, at most 200, ask for the others.
        plans: Without a width; theirs is that of the vectors.

    Raises:
        InputError: For too few vectors, or those of another shape.

    """
    if vectors.ndim != 2:
        raise InputError(f"the vectors have shape {vectors.shape}, expected (number, width)")
    if len(vectors) < QUERIES_SHARE * 2 * NEIGHBORS:
        raise InputError(f"{len(vectors)} vectors are too few to measure plans, at least 200 are needed")
    vectors = unit(vectors)
    asked = min(MOST_QUERIES, len(vectors) // QUERIES_SHARE)
    queries, rows = vectors[:asked], vectors[asked:]
    exact = np.argsort(-(queries @ rows.T), axis=1)[:, :NEIGHBORS]
    for plan in plans:
        made = replace(plan, output_dim=vectors.shape[1])
        found = _found(queries, rows, made)
        same = [len(set(one) & set(other)) for one, other in zip(exact.tolist(), found, strict=True)]
        yield MeasuredPlan(made, sum(same) / (NEIGHBORS * asked))


def _found(queries: Vector, rows: Vector, plan: CompactPlan) -> list[list[int]]:
    """Return the numbers of the rows that each query finds."""
    spec = CollectionSpec.planned(rows.shape[1], {}, plan, lexical=False)
    with TemporaryDirectory(prefix="c2llm-plan-") as folder, QdrantEdgeStore(folder) as store:
        store.create(spec)
        with store.bulk():
            for start in range(0, len(rows), BATCH):
                part = enumerate(rows[start : start + BATCH], start)
                store.upsert([Row(Record(number, "row", {}, "plan"), vector) for number, vector in part])
        return [[int(hit.record.id) for hit in store.search(query, NEIGHBORS)] for query in queries]


def choose_plan(measured: Sequence[MeasuredPlan], rows: int, budget: float, recall: float) -> MeasuredPlan:
    """Return the plan of the fewest bytes that keeps the recall; raises InputError if none does within the budget.

    Args:
        measured: What `measure_plans` yields.
        rows: How many rows there will be.
        budget: Bytes for the vectors of all rows, full ones and codes together.
        recall: The least share of the ten nearest that a search must find.

    """
    for name, value in {"rows": rows, "budget": budget, "recall": recall}.items():
        require(value, Real, f"{name} as a number")
    good = sorted((one for one in measured if one.recall >= recall), key=lambda one: one.plan.bytes_per_vector)
    if not measured:
        raise InputError("no measured plan is given; give all that measure_plans yields, as a list")
    if not good:
        best = max(measured, key=lambda one: one.recall)
        raise InputError(f"no plan keeps a recall of {recall:g}, the best keeps {best.recall:.3f}; ask for less")
    if (need := good[0].plan.bytes_per_vector * rows) > budget:
        raise InputError(
            f"{rows:,} vectors that keep a recall of {recall:g} take {need / 1e9:.2f} GB, the budget is "
            f"{budget / 1e9:.2f}; take fewer dimensions (--output-dim), a lower recall or a larger budget"
        )
    return good[0]
