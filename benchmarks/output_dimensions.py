"""Fewer dimensions of `nano` by a trained head, by a projection and by truncation: nDCG@10 against bytes per vector.

    python -m benchmarks.output_dimensions [--pairs pairs.jsonl] [--texts 40000] [--steps 2000] [--seeds 3]

The task is that of `docstring_retrieval`: 1,000 docstrings of held-out packages ask for their functions. Heads are
trained, and projections fitted, on pairs that `benchmarks.nano_recipe.nano` mined for nano itself, or, without
--pairs, on the documented functions of the packages installed here; of both, everything that must never be trained on
is left out, and so is code or documentation that the task has as well. What a head's recipe leaves to choose was
chosen on 1,000 other pairs of the held-out packages (`docstring_retrieval.VALIDATION`), whose loss is in the table too.
"int8" compares codes alone; "binary" takes ten times as many candidates as are asked for by their codes and compares
those by the full vectors. Bytes are those that are searched. A head's figures are the mean and the range of its seeds;
"interval" is the 95 % bootstrap interval of the relative loss over the questions. States and heads are kept under
.work/, so that a run that was ended goes on where it stopped. Results: results/output_dimensions.json and .svg.
"""

from __future__ import annotations

import argparse
import json
import random
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.common import RESULTS, report
from benchmarks.docstring_retrieval import VALIDATION, load, ranks
from benchmarks.drawing import scatter
from benchmarks.nano_recipe.data import read_pairs
from benchmarks.nano_recipe.mine import read_definitions
from c2llm_integrations.model.checkpoint import Checkpoint, load_checkpoint
from c2llm_integrations.model.heads_and_projections import Head, fit_projection
from c2llm_integrations.stores.spec import CompactPlan
from c2llm_integrations.training.docstring_pairs import fingerprint
from c2llm_integrations.training.head import encode, pma_of, train_head
from c2llm_integrations.training.options import HeadOptions
from c2llm_integrations.training.token_state_cache import TokenStates, cache_states

WORK = Path(__file__).parents[1] / ".work" / "output_dimensions"
WIDTHS = (128, 64, 32)
STORAGES = {"float32": None, "int8": "int8", "binary": "binary"}
LIMIT, OVERSAMPLED = 10, 100
TRAINED_LENGTH = 256

Matrix = NDArray[np.float32]


def training_pairs(mined: Path | None, count: int) -> list[tuple[str, str]]:
    """Documentation and code of nano's own corpus, or of the packages installed here."""
    pairs = [(row["doc"], row["bare"]) for row in read_pairs(mined)] if mined else list(installed())
    random.Random(0).shuffle(pairs)
    return pairs[:count]


def installed() -> Iterator[tuple[str, str]]:
    """Documentation and code of the packages installed here, without what the tasks hold."""
    held = [*load(), *load(VALIDATION)]
    seen = {fingerprint(pair["bare"]) for pair in held} | {pair["doc"].lower() for pair in held}
    for folder in sorted(Path(sysconfig.get_paths()["purelib"]).iterdir()):
        for found in read_definitions(folder) if folder.is_dir() else ():
            keys = {fingerprint(found.bare), found.doc.lower()}
            if not keys & seen:
                seen |= keys
                yield found.doc, found.bare


def states_of(checkpoint: Checkpoint, mined: Path | None, limit: int) -> tuple[TokenStates, TokenStates, TokenStates]:
    """Token states of the pairs to train on, each text beside its other, and of both tasks, all questions first."""
    WORK.mkdir(parents=True, exist_ok=True)
    listed = WORK / f"texts-{'nano' if mined else 'installed'}-{limit}.json"
    if not listed.exists():
        listed.write_text(json.dumps([text for pair in training_pairs(mined, limit // 2) for text in pair]))
    trained = cache_states(checkpoint, json.loads(listed.read_text()), WORK, max_length=TRAINED_LENGTH)
    task, validation = (
        cache_states(checkpoint, [pair[side] for side in ("doc", "bare") for pair in pairs], WORK)
        for pairs in (load(), load(VALIDATION))
    )
    return trained, task, validation


def head_of(checkpoint: Checkpoint, states: TokenStates, recipe: HeadOptions, corpus: str) -> Head:
    """The head of this recipe, trained if it is not there from an earlier run."""
    name = f"head-{corpus}-{len(states.ends)}-{recipe.output_dim}-{recipe.steps}-{recipe.lr}-{recipe.seed}"
    file = WORK / f"{name}.safetensors"
    if not file.exists():
        head, losses = train_head(checkpoint, states, [[row, row + 1] for row in range(0, len(states.ends), 2)], recipe)
        head.save(file)
        print(f"{file.name}: loss {losses[0]:.4f} → {np.mean(losses[-20:]):.4f}", flush=True)
    return Head.load(file)


def vectors_of(
    checkpoint: Checkpoint, trained: TokenStates, tasks: list[TokenStates], options: argparse.Namespace
) -> Iterator[tuple[str, int, list[list[Matrix]]]]:
    """Yield method, width and, for each task, the vectors that each seed gives it."""

    def encoded(one: Checkpoint, states: TokenStates) -> Matrix:
        with torch.inference_mode():
            return encode(pma_of(one), states, range(len(states.ends))).numpy()

    full = [encoded(checkpoint, states) for states in tasks]
    fitted_on = encoded(checkpoint, trained)
    yield "full width", fitted_on.shape[1], [[found] for found in full]
    corpus, seeds = "nano" if options.pairs else "installed", range(options.seeds)
    for width in WIDTHS:
        recipes = [HeadOptions(width, options.steps, seed=seed) for seed in seeds]
        heads = [checkpoint.with_head(head_of(checkpoint, trained, recipe, corpus)) for recipe in recipes]
        yield "trained head", width, [[encoded(head, states) for head in heads] for states in tasks]
        maps = [fit_projection(fitted_on, width, "", seed=seed).matrix for seed in seeds]
        yield "projection", width, [[_unit(found @ matrix) for matrix in maps] for found in full]
        yield "truncation", width, [[_unit(found[:, :width])] for found in full]


def scores(vectors: Matrix, storage: str) -> NDArray[np.float32]:
    """(questions, functions): how each question ranks the functions as they are stored."""
    queries, documents = np.split(vectors, 2)
    if storage == "int8":
        queries, documents = (_codes(side, documents) for side in (queries, documents))
        return queries @ documents.T
    exact = queries @ documents.T
    if storage == "binary":
        near = np.sign(queries) @ np.sign(documents).T
        worst = np.partition(-near, OVERSAMPLED - 1, axis=1)[:, OVERSAMPLED - 1 : OVERSAMPLED]
        return np.where(-near <= worst, exact, exact - 10)
    return exact


def gains(vectors: Matrix, storage: str) -> NDArray[np.float64]:
    """nDCG@10 of each question, whose one answer is its own function."""
    rank = ranks(scores(vectors, storage))
    return np.where(rank <= LIMIT, 1 / np.log2(rank + 1), 0.0)


def rows_of(method: str, width: int, vectors: list[Matrix], best: NDArray[np.float64]) -> list[dict[str, Any]]:
    """One row of the table for each way of storing; `best`: the gains of the full float32 vectors."""
    rows = []
    for storage, quantization in STORAGES.items():
        plan = CompactPlan(width, quantization=quantization)
        each = [gains(one, storage) for one in vectors]
        reached = [float(gain.mean()) for gain in each]
        rng = np.random.default_rng(0)
        drawn = rng.integers(len(best), size=(2000, len(best)))
        losses = 100 * (1 - np.mean(each, 0)[drawn].mean(1) / best[drawn].mean(1))
        low, high = np.quantile(losses, [0.025, 0.975])
        rows.append(
            {
                "method": method,
                "width": width,
                "storage": storage,
                "bytes": plan.code_bytes or plan.bytes_per_vector,
                "nDCG@10": float(np.mean(reached)),
                "seeds": f"{min(reached):.4f}-{max(reached):.4f}" if len(reached) > 1 else "",
                "loss %": 100 * (1 - float(np.mean(reached)) / float(best.mean())),
                "interval": f"{low:.2f}-{high:.2f}",
            }
        )
    return rows


def _unit(vectors: Matrix) -> Matrix:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def _codes(vectors: Matrix, documents: Matrix) -> Matrix:
    """Whole numbers from -127 to 127 on one scale, which cuts off the largest 1 % of the documents' values."""
    scale = 127 / np.quantile(np.abs(documents), 0.99)
    return np.clip(np.rint(vectors * scale), -127, 127).astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=Path, help="pairs.jsonl, as training.nano mines it")
    parser.add_argument("--texts", type=int, default=40_000)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    checkpoint = load_checkpoint("nano")
    trained, *tasks = states_of(checkpoint, options.pairs, options.texts)
    rows: list[dict[str, Any]] = []
    best: list[NDArray[np.float64]] = []
    for method, width, vectors in vectors_of(checkpoint, trained, tasks, options):
        best = best or [gains(seeds[0], "float32") for seeds in vectors]
        found, other = (rows_of(method, width, *each) for each in zip(vectors, best, strict=True))
        rows += [row | {"validation loss %": side["loss %"]} for row, side in zip(found, other, strict=True)]
    report("output_dimensions", rows)
    dots = [
        (f"{row['method']} {row['width']} {row['storage']}", row["bytes"], row["nDCG@10"])
        for row in rows
        if row["method"] != "truncation" or row["storage"] == "float32"
    ]
    picture = scatter(dots, "bytes a vector that are searched", "nDCG@10", "1,000 docstrings ask for their functions")
    (RESULTS / "output_dimensions.svg").write_text(picture)


if __name__ == "__main__":
    main()
