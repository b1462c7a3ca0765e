"""Repository search: nDCG@10 of BM25, lexical, dense, hybrid and ranked search, what each rule is worth, and the time.

    python -m benchmarks.repository_search             # the five repositories of the development set
    python -m benchmarks.repository_search --unseen    # packages whose docstrings were taken away and are asked for
    python -m benchmarks.repository_search --development tune --work DIR    # benchmarks.development_set, one split

File-level nDCG@10: the ranked list is the distinct files of the ranked chunks in order of first appearance; every
labeled file is gain 1. "by chunk" ranks each file by its first chunk among the ten best chunks, where further chunks
of a file take places. "mean" is over repositories; a category's figure is over its questions. Each repository is
indexed by `ingest` into a Qdrant Edge collection of its own. "BM25 plain" ranks windows of 40 lines by their words,
identifiers split.
The sources come from the package registries (pip and npm must be there) and are kept under .work/.
Results: results/repository_search.json and .svg, or results/repository_search_unseen.json, or
results/development_set_SPLIT.json.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import RESULTS, report, seconds
from benchmarks.docstring_retrieval import bm25
from benchmarks.drawing import bars
from benchmarks.repositories import PACKAGES, UNSEEN, Asked, development_set, extract, without_docstrings
from c2llm_integrations.code.chunking import chunk_source
from c2llm_integrations.code.lexical_terms import document_terms, sparse
from c2llm_integrations.code.repository import iter_sources, open_tree
from c2llm_integrations.indexing.ingest import ingest
from c2llm_integrations.model.embedder import C2LLMEmbedder
from c2llm_integrations.retrieval.options import RULES
from c2llm_integrations.retrieval.search import search
from c2llm_integrations.stores import open_store
from c2llm_integrations.stores.vector_store import VectorStore

WINDOW = 40
# Enough chunks for ten files; a person is shown ten chunks.
CHUNKS = 100
METHODS: dict[str, dict[str, Any]] = {
    "lexical": {"mode": "lexical", "rules": ()},
    "dense": {"mode": "dense", "rules": ()},
    "hybrid": {"rules": ()},
    "lexical + ranking": {"mode": "lexical"},
    "dense + ranking": {"mode": "dense"},
    "hybrid + ranking": {},
    **{f"  without {rule}": {"rules": [one for one in RULES if one != rule]} for rule in RULES},
}
# MinishLab/semble, on the same questions.
SEMBLE = {"fastapi": 0.784, "model2vec": 0.738, "express": 0.949, "zod": 0.643, "trpc": 0.849}

# method → of each question the nDCG by file and by chunk, and the seconds
Results = dict[str, tuple[list[float], list[float], list[float]]]


def ndcg(ranked: Sequence[str], relevant: frozenset[str]) -> float:
    """nDCG@10 of a ranked list of paths with repetitions."""
    files = list(dict.fromkeys(ranked))[:10]
    gained = sum(1 / math.log2(place + 2) for place, path in enumerate(files) if path in relevant)
    return gained / sum(1 / math.log2(place + 2) for place in range(min(10, len(relevant))))


def ndcg_by_chunk(ranked: Sequence[str], relevant: frozenset[str]) -> float:
    """nDCG@10 of a ranked list of paths with repetitions, each of which takes a place."""
    first = [path if path not in ranked[:place] else "" for place, path in enumerate(ranked[:10])]
    gained = sum(1 / math.log2(place + 2) for place, path in enumerate(first) if path in relevant)
    return gained / sum(1 / math.log2(place + 2) for place in range(min(10, len(relevant))))


def plain_bm25(root: Path, queries: list[str]) -> list[list[str]]:
    """Return the paths of the best windows of `WINDOW` lines for each query."""
    windows = [
        (source.path, "\n".join(lines[start : start + WINDOW]))
        for source in iter_sources(open_tree(root, "plain"))
        for lines in [source.text.splitlines()]
        for start in range(0, len(lines), WINDOW)
    ]
    scores = bm25(queries, [text for _, text in windows])
    return [[windows[place][0] for place in np.argsort(-row, kind="stable")[:CHUNKS]] for row in scores]


def lexical_seconds(root: Path) -> float:
    """What analysing a repository's chunks for the lexical index takes."""
    chunks = [chunk for s in iter_sources(open_tree(root, "x")) for chunk in chunk_source("x", s.path, s.text)]
    return seconds(lambda: sparse([document_terms(chunk.path, chunk.text) for chunk in chunks]))


def measure(
    root: Path, asked: Sequence[Asked], embedder: C2LLMEmbedder, store: VectorStore
) -> tuple[Results, dict[str, float]]:
    """Index one repository and ask it everything, each way; also return what indexing took."""
    times = {"index": ingest(root, embedder, store, repository="asked").seconds, "terms": lexical_seconds(root)}
    times["plain"] = seconds(lambda: plain_bm25(root, []))
    plain = plain_bm25(root, [one.query for one in asked])
    by_file, by_chunk = (
        [score(paths, one.files) for paths, one in zip(plain, asked, strict=True)] for score in (ndcg, ndcg_by_chunk)
    )
    results: Results = {"BM25 plain": (by_file, by_chunk, [])}
    for method, options in METHODS.items():
        by_file, by_chunk, spent = [], [], []
        for one in asked:
            paths = [hit.chunk.path for hit in search(one.query, embedder, store, limit=CHUNKS, **options)]
            by_file.append(ndcg(paths, one.files))
            by_chunk.append(ndcg_by_chunk(paths, one.files))
            start = time.perf_counter()
            search(one.query, embedder, store, **options)
            spent.append(time.perf_counter() - start)
        results[method] = (by_file, by_chunk, spent)
    return results, times


def table(asked: Sequence[Asked], results: Results, times: dict[str, float]) -> list[dict[str, Any]]:
    """One row a method: its mean over repositories, then by repository, language and category, then the times."""
    rows = []
    for method, (scores, by_chunk, spent) in results.items():
        means = _means(asked, scores)
        row: dict[str, Any] = {"method": method, "mean": statistics.fmean(means.values())}
        row |= {"by chunk": statistics.fmean(_means(asked, by_chunk).values()), **means}
        languages = {one.language: {a.repository for a in asked if a.language == one.language} for one in asked}
        if len(languages) > 1:
            row |= {name: statistics.fmean(means[one] for one in ones) for name, ones in languages.items()}
        for category in dict.fromkeys(one.category for one in asked):
            row[category] = statistics.fmean(s for s, a in zip(scores, asked, strict=True) if a.category == category)
        row = {key: round(value, 3) if isinstance(value, float) else value for key, value in row.items()}
        index = {"BM25 plain": times["plain"], "lexical": times["terms"]}.get(method, times["index"])
        row["index_s"] = "" if method.startswith(" ") else round(index, 2)
        row["p50_ms"] = round(1000 * statistics.median(spent), 1) if spent else ""
        rows.append(row)
    return rows


def _means(asked: Sequence[Asked], scores: Sequence[float]) -> dict[str, float]:
    """Repository → the mean over its questions."""
    by: dict[str, list[float]] = {}
    for one, score in zip(asked, scores, strict=True):
        by.setdefault(one.repository, []).append(score)
    return {name: statistics.fmean(values) for name, values in by.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--unseen", action="store_true", help="ask installed packages for their docstrings instead")
    parser.add_argument("--development", metavar="SPLIT", help="tune, choose or report, of the development set")
    parser.add_argument(
        "--work", type=Path, default=Path(".work/development_set"), help="folder that keeps its archives"
    )
    parser.add_argument("--model", default="nano")
    options = parser.parse_args()
    embedder = C2LLMEmbedder.from_pretrained(options.model)
    if options.development:
        from benchmarks.development_set import scoring  # it imports this module

        rows = scoring.table(scoring.ask_split(options.development, options.work, embedder))
        report(f"development_set_{options.development}", rows)
        return
    every: list[Asked] = []
    results: Results = {}
    times = {"index": 0.0, "terms": 0.0, "plain": 0.0}
    for name in UNSEEN if options.unseen else PACKAGES:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder, "sources")
            root.mkdir()
            if options.unseen:
                asked = without_docstrings(name, root)
            else:
                extract(name, root)
                asked = [one for one in development_set() if one.repository == name]
            with open_store(f"qdrant+edge://{folder}/store") as store:
                found, spent = measure(root, asked, embedder, store)
        every += asked
        for method, parts in found.items():
            for total, part in zip(results.setdefault(method, ([], [], [])), parts, strict=True):
                total.extend(part)
        times = {key: value + spent[key] for key, value in times.items()}
    rows = table(every, results, times)
    if options.unseen:
        report("repository_search_unseen", rows)
        return
    rows.append({"method": "Semble, as published", "mean": round(statistics.fmean(SEMBLE.values()), 3), **SEMBLE})
    report("repository_search", rows)
    shown = [(row["method"], row["mean"]) for row in rows if not row["method"].startswith(" ")]
    (RESULTS / "repository_search.svg").write_text(bars(shown, "nDCG@10, mean of five repositories, model: nano"))


if __name__ == "__main__":
    main()
