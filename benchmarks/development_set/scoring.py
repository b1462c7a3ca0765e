"""Ask the development set: nDCG@10 of dense, lexical and hybrid search with ranking, and whether scores tell "none"."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np

from benchmarks.development_set.archives import Package, fetch, listed, read_tree, write_tree
from benchmarks.development_set.questions import Question, read
from benchmarks.repository_search import CHUNKS, ndcg, ndcg_by_chunk
from c2llm_integrations.indexing.ingest import ingest
from c2llm_integrations.model.embedder import C2LLMEmbedder
from c2llm_integrations.retrieval.options import Mode, SearchOptions
from c2llm_integrations.retrieval.search import find, for_model
from c2llm_integrations.stores import open_store
from c2llm_integrations.stores.vector_store import VectorStore

MODES: tuple[Mode, ...] = get_args(Mode)
DRAWS = 1000


@dataclass(frozen=True, slots=True)
class Scored:
    """How one mode answered one question; for the kind "none" only `best` says something."""

    question: Question
    mode: Mode
    by_file: float
    by_chunk: float
    best: float


def ask(questions: Sequence[Question], embedder: C2LLMEmbedder, store: VectorStore) -> list[Scored]:
    """Ask a package everything in each mode."""
    found = []
    vectors = embedder.encode_queries([for_model(one.question) for one in questions])
    for one, vector in zip(questions, vectors, strict=True):
        for mode in MODES:
            hits = find(
                one.question, None if mode == "lexical" else vector, store, SearchOptions(limit=CHUNKS, mode=mode)
            )
            paths, files = [hit.chunk.path for hit in hits], frozenset(one.files)
            scores = (ndcg(paths, files), ndcg_by_chunk(paths, files)) if files else (0.0, 0.0)
            found.append(Scored(one, mode, *scores, hits[0].score if hits else 0.0))
    return found


def ask_package(package: Package, questions: Sequence[Question], work: Path, embedder: C2LLMEmbedder) -> list[Scored]:
    """Index a package without the words that its questions are made of, and ask it."""
    with tempfile.TemporaryDirectory() as folder:
        removed = {span for one in questions for span in one.removed}
        write_tree(read_tree(fetch(package, work)), removed, Path(folder, "tree"))
        with open_store(f"qdrant+edge://{folder}/store") as store:
            spent = ingest(Path(folder, "tree"), embedder, store, repository="asked").seconds
            print(f"{package.name}: {len(questions)} questions, {store.count()} chunks, {spent:.0f} s", flush=True)
            return ask(questions, embedder, store)


def ask_split(split: str, work: Path, embedder: C2LLMEmbedder) -> list[Scored]:
    """Ask every package of a split; one whose pinned archive the registry has no more is told and left out."""
    asked, found = read(split), []
    for package in listed():
        if package.name in asked:
            try:
                fetch(package, work)
            except SystemExit as error:
                print(f"left out: {error}", flush=True)
                continue
            found += ask_package(package, asked[package.name], work, embedder)
    return found


def table(scored: Sequence[Scored]) -> list[dict[str, Any]]:
    """One row per mode: means over packages with intervals, then each kind and language, then the AUC of "none"."""
    return [_row(mode, ones) for mode, ones in _grouped(scored, lambda one: one.mode).items()]


def _row(mode: str, scored: Sequence[Scored]) -> dict[str, Any]:
    of = {package.name: package.language for package in listed()}
    answerable = [one for one in scored if one.question.kind != "none"]
    packages = list(_grouped(answerable, lambda one: one.question.package).values())
    row: dict[str, Any] = {"mode": mode, "questions": len(answerable), "packages": len(packages)}
    for name in ("by_file", "by_chunk"):
        values = [np.array([getattr(one, name) for one in ones]) for ones in packages]
        row[name] = float(np.mean([one.mean() for one in values]))
        row |= {
            f"{name}, over {what}": text
            for what, text in zip(("questions", "packages"), _intervals(values), strict=True)
        }
    groups = _grouped(answerable, lambda one: one.question.kind) | _grouped(
        answerable, lambda one: of[one.question.package]
    )
    for group, ones in groups.items():
        row[group] = float(np.mean([one.by_file for one in ones]))
        row[f"{group}, by_chunk"] = float(np.mean([one.by_chunk for one in ones]))
    inside = [none_auc(ones) for ones in _grouped(scored, lambda one: one.question.package).values()]
    return row | {"none, AUC in a package": float(np.nanmean(inside)), "none, AUC over all": none_auc(scored)}


def _grouped(scored: Sequence[Scored], key: Callable[[Scored], str]) -> dict[str, list[Scored]]:
    found: defaultdict[str, list[Scored]] = defaultdict(list)
    for one in scored:
        found[key(one)].append(one)
    return dict(sorted(found.items()))


def _intervals(values: Sequence[np.ndarray]) -> list[str]:
    """Return 95 % intervals of the mean over packages: with questions of each drawn anew, and with packages."""
    rng, means = np.random.default_rng(0), np.array([one.mean() for one in values])
    questions = [np.mean([rng.choice(one, len(one)).mean() for one in values]) for _ in range(DRAWS)]
    packages = [rng.choice(means, len(means)).mean() for _ in range(DRAWS)]
    ends = [np.quantile(drawn, [0.025, 0.975]) for drawn in (questions, packages)]
    return [f"{low:.3f}-{high:.3f}" for low, high in ends]


def none_auc(scored: Sequence[Scored]) -> float:
    """Return how often an answerable question's best hit scores above that of one that nothing answers, ties half.

    NaN where there is only one sort of question.
    """
    first = np.array([one.best for one in scored if one.question.kind != "none"])[:, None]
    second = np.array([one.best for one in scored if one.question.kind == "none"])[None, :]
    return float(((first > second) + (first == second) / 2).mean()) if first.size and second.size else float("nan")
