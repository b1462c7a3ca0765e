"""`c2llm plan` and `fit-projection`: how few bits or dimensions are enough, measured on the user's own vectors."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from c2llm_integrations._utils.option_field import option
from c2llm_integrations._utils.progress import shown
from c2llm_integrations.cli import terminal
from c2llm_integrations.cli.context import indexed_store, load_model, opened
from c2llm_integrations.cli.options import CollectionPlace, ModelChoice, Output, command, require_new
from c2llm_integrations.errors import InputError

if TYPE_CHECKING:
    from c2llm_integrations.model.heads_and_projections import Matrix
    from c2llm_integrations.stores.qdrant.measure_plans import MeasuredPlan

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
# Vectors used at most, drawn at random: enough to decide the directions of 3,584 dimensions.
SAMPLE_TEXTS = 32_768
# Of these, vectors kept out of the fit to measure it; and neighbors compared.
HELD_OUT, NEIGHBORS = 512, 10


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
    rows: Annotated[str, typer.Option(metavar="N", help="Expected number of rows, such as 10M.")],
    budget: Annotated[str, typer.Option(metavar="BYTES", help="Most bytes for all their vectors, such as 2GB.")],
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
    from c2llm_integrations.retrieval.search import spec_of
    from c2llm_integrations.stores.qdrant.measure_plans import PLANS, choose_plan, measure_plans

    with opened(place.store or indexed_store(), place.collection) as held:
        spec_of(held)
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
    terminal.say(f"{size:.2f} GB for {count:,} rows: --datatype {chosen.datatype}{codes}, of c2llm import or index")
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


@dataclass(frozen=True)
class RowsPlace(CollectionPlace):
    """A collection to fit on, instead of a folder."""

    store: str | None = option(None, "Fit on the rows of a collection here.", metavar="URL")


@command
def fit_projection(
    output_dim: Annotated[int, typer.Option(metavar="N", min=1, help="Number of dimensions to keep.")],
    place: RowsPlace,
    path: Annotated[
        Path | None, typer.Argument(metavar="PATH", help="Fit on the chunks of this folder.  [default: .]")
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="ID", help="nano, a folder or a hub id.  [default: nano]")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="File to write.  [default: c2llm-projection-N.safetensors]")
    ] = None,
) -> int:
    """Fit a map to fewer dimensions on the chunks of a folder, or on the vectors of a collection named by --store.

    Use it with c2llm index --replace --projection FILE. The command prints what share of the ten nearest neighbors is
    kept among vectors that it was not fitted on.
    """
    from c2llm_integrations.model.heads_and_projections import fit_projection as fit
    from c2llm_integrations.model.heads_and_projections import remember

    file = out or Path(f"c2llm-projection-{output_dim}.safetensors")
    require_new(file)
    if path is not None and place.store is not None:
        raise InputError("both a folder and a --store are given; choose one")
    if place.store is None:
        vectors, weights = _of_folder(path or Path(), model, output_dim)
    else:
        vectors, weights = _of_collection(place.store, place.collection, model)
    held_out = min(HELD_OUT, len(vectors) // 10)
    projection = fit(vectors[held_out:], output_dim, weights)
    projection.save(file)
    remember(projection)
    terminal.write(str(file))
    terminal.say(f"fitted {vectors.shape[1]} → {output_dim} dimensions on {len(vectors) - held_out:,} vectors")
    if held_out and len(vectors) > NEIGHBORS:
        kept = recall_kept(vectors, vectors @ projection.matrix, held_out)
        terminal.say(f"of the {NEIGHBORS} nearest of {held_out:,} other vectors, {kept:.1%} stay the same")
    return 0


def _of_folder(path: Path, model: str | None, output_dim: int) -> tuple[Matrix, str]:
    """Return the vectors of chunks in random order, and the digest of the model's weights."""
    from c2llm_integrations._utils.sampling import sample
    from c2llm_integrations.code.repository import iter_chunks, open_tree

    tree = open_tree(path)
    embedder = load_model(ModelChoice(model=model), None)
    if output_dim >= embedder.output_dim:  # now: embedding may take long
        raise InputError(f"cannot fit {output_dim} dimensions on vectors of {embedder.output_dim}; ask for fewer")
    texts = sample((chunk.text for chunk in iter_chunks(tree)), SAMPLE_TEXTS)
    with shown() as progress:
        vectors = embedder.encode_documents(texts, progress=progress)
    return vectors, str(embedder.fingerprint["weights"])


def _of_collection(store: str, collection: str, model: str | None) -> tuple[Matrix, str]:
    import numpy as np

    from c2llm_integrations._utils.sampling import sample
    from c2llm_integrations.retrieval.search import spec_of

    if model is not None:
        raise InputError("--model says how to embed a folder; a collection has its vectors already")
    with opened(store, collection) as held:
        made = spec_of(held).fingerprint
        if made["projection"]:
            raise InputError(f"the collection was made with projection {made['projection']}; fit on one without")
        vectors = sample((row.vector for row in held.rows()), SAMPLE_TEXTS)
    if not vectors:
        raise InputError(f"collection {collection!r} of {store} holds no row; index into it, or name a folder")
    return np.stack(vectors), str(made["weights"])


def recall_kept(vectors: Matrix, projected: Matrix, queries: int) -> float:
    """Return which share of the nearest neighbors of the first `queries` vectors stay so when they are projected.

    `vectors` (n, width), `projected` (n, fewer); neighbors are compared by cosine among all n.
    """
    import numpy as np

    from c2llm_integrations.stores.row_fields import unit

    def nearest(rows: Matrix) -> list[list[int]]:
        rows = unit(rows)
        scores = rows[:queries] @ rows.T
        np.fill_diagonal(scores, -np.inf)
        found: list[list[int]] = np.argpartition(-scores, NEIGHBORS - 1, axis=1)[:, :NEIGHBORS].tolist()
        return found

    before, after = nearest(vectors), nearest(projected)
    same = [len(set(one) & set(other)) for one, other in zip(before, after, strict=True)]
    return float(np.mean(same)) / NEIGHBORS
