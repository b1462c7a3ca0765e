"""Ask the development set: nDCG@10 of dense, lexical and hybrid search with ranking, and whether scores tell "none"."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np

from benchmarks.development_set.archives import fetch, listed, read_tree, write_tree
from benchmarks.development_set.questions import Question, read
from benchmarks.repository_search import CHUNKS, ndcg, ndcg_by_chunk
from c2llm_integrations.indexing.ingest import ingest
from c2llm_integrations.model.embedder import C2LLMEmbedder
from c2llm_integrations.retrieval.options import Mode, SearchOptions
from c2llm_integrations.retrieval.search import apart, find
from c2llm_integrations.stores import open_store
from c2llm_integrations.stores.base import VectorStore

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
    vectors = embedder.encode_queries([apart(one.question) for one in questions])
    for one, vector in zip(questions, vectors, strict=True):
        for mode in MODES:
            hits = find(
                one.question, None if mode == "lexical" else vector, store, SearchOptions(limit=CHUNKS, mode=mode)
            )
            paths, files = [hit.chunk.path for hit in hits], frozenset(one.files)
            scores = (ndcg(paths, files), ndcg_by_chunk(paths, files)) if files else (0.0, 0.0)
            found.append(Scored(one, mode, *scores, hits[0].score if hits else 0.0))
    return found


def ask_all(split: str, work: Path, embedder: C2LLMEmbedder) -> list[Scored]:
    """Index each package of a split, without the words that its questions are made of, and ask it."""
    asked, found = read(split), []
    for package in listed():
        if not (questions := asked.get(package.name)):
            continue
        with tempfile.TemporaryDirectory() as folder:
            removed = {span for one in questions for span in one.removed}
            write_tree(read_tree(fetch(package, work)), removed, Path(folder, "tree"))
            with open_store(f"qdrant+edge://{folder}/store") as store:
                spent = ingest(Path(folder, "tree"), embedder, store, repository="asked").seconds
                found += ask(questions, embedder, store)
                print(f"{package.name}: {len(questions)} questions, {store.count()} chunks, {spent:.0f} s", flush=True)
    return found


def table(scored: Sequence[Scored]) -> list[dict[str, Any]]:
    """One row per mode: means over packages with intervals, then each kind and language, then the AUC of "none"."""
    return [_row(mode, ones) for mode, ones in _grouped(scored, lambda one: one.mode).items()]


def _row(mode: str, scored: Sequence[Scored]) -> dict[str, Any]:
    answerable = [one for one in scored if one.question.kind != "none"]
    by_package = _grouped(answerable, lambda one: one.question.package)
    files = {name: np.array([one.by_file for one in ones]) for name, ones in by_package.items()}
    chunks = {name: np.array([one.by_chunk for one in ones]) for name, ones in by_package.items()}
    row: dict[str, Any] = {"mode": mode, "questions": len(answerable), "packages": len(files)}
    row |= {"by file": _mean(files), "over questions": _interval(files, True), "over packages": _interval(files, False)}
    row |= {"by chunk": _mean(chunks), "by chunk, over questions": _interval(chunks, True)}
    row["by chunk, over packages"] = _interval(chunks, False)
    kinds = _grouped(answerable, lambda one: one.question.kind)
    for name, ones in {**dict(sorted(kinds.items())), **_by_language(answerable)}.items():
        row[name] = float(np.mean([one.by_file for one in ones]))
        row[f"{name}, by chunk"] = float(np.mean([one.by_chunk for one in ones]))
    return row | none_auc(scored)


def _grouped(scored: Sequence[Scored], key: Callable[[Scored], str]) -> dict[str, list[Scored]]:
    found: dict[str, list[Scored]] = {}
    for one in scored:
        found.setdefault(key(one), []).append(one)
    return found


def _by_language(scored: Sequence[Scored]) -> dict[str, list[Scored]]:
    main = {package.name: package.language for package in listed()}
    return dict(sorted(_grouped(scored, lambda one: main[one.question.package]).items()))


def _mean(groups: dict[str, np.ndarray]) -> float:
    return float(np.mean([one.mean() for one in groups.values()]))


def _interval(groups: dict[str, np.ndarray], over_questions: bool) -> str:
    """Return the bootstrapped 95 % interval of the mean over packages: their questions drawn anew, or the packages."""
    rng, all_of = np.random.default_rng(0), list(groups.values())
    means = np.array([one.mean() for one in all_of])
    if over_questions:
        drawn = [np.mean([rng.choice(one, len(one)).mean() for one in all_of]) for _ in range(DRAWS)]
    else:
        drawn = [rng.choice(means, len(means)).mean() for _ in range(DRAWS)]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return f"{low:.3f}-{high:.3f}"


def none_auc(scored: Sequence[Scored]) -> dict[str, float]:
    """Return how often an answerable question's best hit scores above that of one that nothing answers.

    "in a package": the mean over packages, each against its own questions; "pooled": one threshold for all of them.
    """
    inside = []
    for ones in _grouped(scored, lambda one: one.question.package).values():
        inside.append(auc(*_scores(ones)))
    known = [one for one in inside if not np.isnan(one)]
    return {
        "none: AUC in a package": float(np.mean(known)) if known else 0.5,
        "none: AUC pooled": auc(*_scores(scored)),
    }


def _scores(scored: Sequence[Scored]) -> tuple[list[float], list[float]]:
    answerable = [one.best for one in scored if one.question.kind != "none"]
    return answerable, [one.best for one in scored if one.question.kind == "none"]


def auc(high: Sequence[float], low: Sequence[float]) -> float:
    """Return the share of pairs in which the first is greater, ties half; NaN without pairs."""
    first, second = np.array(high)[:, None], np.array(low)[None, :]
    return float(((first > second) + (first == second) / 2).mean()) if high and low else float("nan")
