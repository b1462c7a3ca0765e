"""Doc comment → definition in eight languages: MRR of `nano`, BM25 and all-MiniLM-L6-v2, and the means over languages.

    python -m benchmarks.docstring_languages ARCHIVES [--model FOLDER_OR_ID ...]

ARCHIVES is a folder for the packages that data/language_packages.tsv lists, none of which `nano` saw; where there is
no such folder, the registries' own clients (npm, apt-get with deb-src lines) fetch them. A language has 250 candidates,
documented definitions of its packages: at most 150 of one, no two with the same code or documentation; Python's are
those of `docstring_retrieval`. Intervals are bootstrapped over the questions. Results:
results/docstring_languages.json and .svg.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import RESULTS, report
from benchmarks.docstring_retrieval import bm25, c2llm_scores, load, minilm_scores, ranks
from benchmarks.drawing import bars
from benchmarks.nano_recipe.corpus import package_of
from benchmarks.nano_recipe.fetch import fetch
from benchmarks.nano_recipe.mine import read_definitions
from benchmarks.nano_recipe.nano import is_archive
from c2llm_integrations.training.docstring_pairs import fingerprint

PACKAGES = Path(__file__).parent / "data" / "language_packages.tsv"
EACH, OF_ONE_PACKAGE = 250, 150


def draw(archives: Iterable[Path], seed: int = 0) -> dict[str, list[tuple[str, str]]]:
    """Languages and their pairs of documentation and code without it."""
    found: dict[str, list[tuple[str, str]]] = {}
    seen: set[str] = set()
    for archive in sorted(archives):
        definitions = [definition for definition in read_definitions(archive, held=True) if definition.name]
        random.Random(f"{seed} {package_of(archive)}").shuffle(definitions)
        taken: dict[str, int] = {}
        for one in definitions:
            keys = {fingerprint(one.bare), one.doc.lower()}
            if keys & seen or taken.setdefault(one.language, 0) == OF_ONE_PACKAGE:
                continue
            seen |= keys
            taken[one.language] += 1
            found.setdefault(one.language, []).append((one.doc, one.bare))
    for pairs in found.values():
        random.Random(seed).shuffle(pairs)
    return {language: pairs[:EACH] for language, pairs in sorted(found.items()) if language != "python"}


def reciprocal_ranks(
    tasks: dict[str, list[tuple[str, str]]], scores: Callable[[list[str], list[str]], np.ndarray]
) -> dict[str, np.ndarray]:
    """Of each language's questions."""
    return {language: 1 / ranks(scores(*map(list, zip(*pairs, strict=True)))) for language, pairs in tasks.items()}


def row_of(model: str, found: dict[str, np.ndarray]) -> dict[str, Any]:
    """MRR in each language, their mean and its interval."""
    rng = np.random.default_rng(0)
    drawn = [np.mean([rng.choice(one, len(one)).mean() for one in found.values()]) for _ in range(2000)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    each = {language: float(one.mean()) for language, one in found.items()}
    return {"model": model, "mean": float(np.mean(list(each.values()))), "interval": f"{low:.3f}-{high:.3f}", **each}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archives", type=Path, help="folder of the packages' archives, fetched where they are missing")
    parser.add_argument("--model", nargs="*", default=["nano"], help="C2LLM checkpoints: nano, folders, hub ids")
    options = parser.parse_args()
    if not options.archives.is_dir() and (missing := fetch(PACKAGES, options.archives)):
        raise SystemExit(f"not to be had: {', '.join(missing)}")
    tasks = draw(file for file in options.archives.iterdir() if is_archive(file))
    tasks = {"python": [(pair["doc"], pair["bare"]) for pair in load()], **tasks}
    print({language: len(pairs) for language, pairs in tasks.items()})
    models: dict[str, Callable[[list[str], list[str]], np.ndarray]] = {"BM25": bm25, "all-MiniLM-L6-v2": minilm_scores}
    models |= {name: partial(c2llm_scores, name) for name in options.model}
    rows = [row_of(name, reciprocal_ranks(tasks, scores)) for name, scores in models.items()]
    report("docstring_languages", rows)
    title = "MRR, mean over eight languages"
    (RESULTS / "docstring_languages.svg").write_text(bars([(row["model"], row["mean"]) for row in rows], title))


if __name__ == "__main__":
    main()
