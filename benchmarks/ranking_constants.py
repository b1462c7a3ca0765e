"""Whether the ranking's constants lie on a plateau: nDCG@10 of the development set under other ones.

    python -m benchmarks.ranking_constants [--draws 200]

"one at a time" moves each constant alone; "drawn" takes all at random from the same values; "left out" chooses the best
draw on four repositories and scores the fifth, which is what choosing constants on this set is worth elsewhere.
Results: results/ranking_constants.json.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.common import report
from benchmarks.repositories import PACKAGES, Asked, development_set, extract
from benchmarks.repository_search import CHUNKS, ndcg
from c2llm_integrations.code.lexical_terms import query_terms
from c2llm_integrations.indexing.ingest import ingest
from c2llm_integrations.model.embedder import C2LLMEmbedder
from c2llm_integrations.retrieval import ranking
from c2llm_integrations.retrieval.search import CANDIDATES
from c2llm_integrations.stores import open_store
from c2llm_integrations.stores.records import Candidates

VALUES: dict[str, list[float]] = {
    "WORDS_WEIGHT": [0.25, 0.3, 0.35, 0.4, 0.45],
    "DEFINITION": [0.8, 0.9, 0.95],
    "SYMBOL": [0.1, 0.15, 0.2, 0.3],
    "FILE_NAME": [0.2, 0.3, 0.4],
    "PATH": [0.2, 0.3, 0.4, 0.5],
    "FILE": [0.2, 0.3, 0.4],
    "FILE_DECAY": [0.4, 0.5, 0.6],
    "TESTS": [0.3, 0.5, 0.7],
}
Setting = dict[str, float]
Lists = dict[str, list[tuple[Asked, Candidates]]]


def candidates(embedder: C2LLMEmbedder) -> Lists:
    """Repository → its questions with their two lists."""
    lists: Lists = {}
    for name in PACKAGES:
        with tempfile.TemporaryDirectory() as folder:
            extract(name, Path(folder, "sources"))
            with open_store(f"qdrant+edge://{folder}/store") as store:
                ingest(Path(folder, "sources"), embedder, store, repository="asked")
                for one in development_set():
                    if one.repository == name:
                        vector = embedder.encode_queries([one.query])[0]
                        found = store.candidates(vector, query_terms(one.query), CANDIDATES)
                        lists.setdefault(name, []).append((one, found))
    return lists


def apply(setting: Setting) -> None:
    """Make the ranking use these constants."""
    for name, value in setting.items():
        if name == "WORDS_WEIGHT":
            ranking.LEXICAL_WEIGHT["words"] = value
        elif name == "TESTS":
            ranking.LEFT["tests"] = value
        else:
            setattr(ranking, name, value)


def scores(lists: Lists, setting: Setting) -> dict[str, float]:
    """Repository → nDCG@10 under these constants."""
    apply(setting)
    return {
        name: statistics.fmean(
            ndcg([hit.chunk.path for hit in ranking.rank(one.query, found, CHUNKS)], one.files) for one, found in pairs
        )
        for name, pairs in lists.items()
    }


def left_out(drawn: list[dict[str, float]]) -> dict[str, float]:
    """Repository → its score under the draw that is best on the others."""
    return {
        name: max(drawn, key=lambda one: sum(score for other, score in one.items() if other != name))[name]
        for name in drawn[0]
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=200)
    options = parser.parse_args()
    lists = candidates(C2LLMEmbedder.from_pretrained("nano"))
    chosen = {name: getattr(ranking, name, 0.0) for name in VALUES}
    chosen |= {"WORDS_WEIGHT": ranking.LEXICAL_WEIGHT["words"], "TESTS": ranking.LEFT["tests"]}
    rows: list[dict[str, Any]] = [row("chosen", scores(lists, chosen))]
    for name, values in VALUES.items():
        moved = [row(f"{name} {value}", scores(lists, {**chosen, name: value})) for value in values]
        rows += [one for one, value in zip(moved, values, strict=True) if value != chosen[name]]
    rng = random.Random(0)
    draws = [{name: rng.choice(values) for name, values in VALUES.items()} for _ in range(options.draws)]
    drawn = [scores(lists, draw) for draw in draws]
    means = sorted(statistics.fmean(one.values()) for one in drawn)
    for label, value in (("lowest", means[0]), ("median", statistics.median(means)), ("highest", means[-1])):
        rows.append({"constants": f"{label} of {len(draws)} draws", "mean": round(value, 3)})
    rows.append(row("left out", left_out(drawn)))
    report("ranking_constants", rows)


def row(label: str, by: dict[str, float]) -> dict[str, Any]:
    """One line of the table."""
    rounded = {name: round(score, 3) for name, score in by.items()}
    return {"constants": label, "mean": round(statistics.fmean(by.values()), 3), **rounded}


if __name__ == "__main__":
    main()
