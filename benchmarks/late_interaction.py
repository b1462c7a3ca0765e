"""Late interaction on `nano`'s token states as a second stage: what it gains over vectors and over hybrid search.

    python -m benchmarks.late_interaction --training ARCHIVES --languages ARCHIVES --development DIR [--work work]

`nano_recipe/token_head.py` says what is computed and trains the layers. The second stage scores the best 32 or 100 of
the first one again: by itself, and added to the first stage's score with a weight. ARCHIVES are folders of sources that
`nano_recipe.fetch` got: of nano's corpus.tsv some in other languages than Python, and of data/language_packages.tsv.
DIR is the folder of `benchmarks.development_set`. The weight for pairs is chosen on the validation pairs of
`docstring_retrieval`, that for repositories on packages of the development set's tune split, whose own row is
therefore flattered. Results: results/late_interaction.json.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from benchmarks.common import report, seconds
from benchmarks.development_set.archives import fetch, listed, read_tree, write_tree
from benchmarks.development_set.questions import read
from benchmarks.docstring_languages import draw
from benchmarks.docstring_retrieval import VALIDATION, load
from benchmarks.nano_recipe.nano import is_archive
from benchmarks.nano_recipe.token_head import (
    QUESTION_TOKENS,
    TEXT_TOKENS,
    Texts,
    encode,
    nearest,
    train,
    training_pairs,
)
from benchmarks.repositories import PACKAGES, development_set, extract
from benchmarks.repository_search import ndcg
from c2llm_integrations.indexing.ingest import ingest
from c2llm_integrations.model.checkpoint import load_checkpoint
from c2llm_integrations.model.dtype_choice import best_dtype
from c2llm_integrations.model.embedder import C2LLMEmbedder
from c2llm_integrations.model.encoder import load_encoder
from c2llm_integrations.retrieval.options import SearchOptions
from c2llm_integrations.retrieval.search import find, for_model
from c2llm_integrations.stores import open_store
from c2llm_integrations.training.evaluation import human_eval_task
from c2llm_integrations.training.token_state_cache import token_ids

TUNE = ("htop", "ninja-build", "@xterm/xterm", "pelican", "rust-bat", "luarocks", "fastify")
WEIGHTS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 1.2, 1.6, 2.4)
CPU = torch.device("cpu")


@dataclass
class Asked:
    """Questions and what the first stage found: scores and rows of `texts` (n, k), up to 100 labels, right labels."""

    questions: Texts
    texts: Texts
    first: np.ndarray
    rows: np.ndarray
    labels: list[list[str]]
    right: list[frozenset[str]]

    def late(self, weight: torch.Tensor) -> np.ndarray:
        """(n, k) scores of the second stage."""
        asked, found = (
            F.normalize(torch.from_numpy(side.states).float() @ weight.T, dim=-1).numpy()
            for side in (self.questions, self.texts)
        )
        scores = np.empty(self.rows.shape, np.float32)
        for number, rows in enumerate(self.rows):
            tokens = [found[self.texts.starts[row] : self.texts.ends[row]] for row in rows]
            products = np.concatenate(tokens) @ asked[self.questions.starts[number] : self.questions.ends[number]].T
            begins = np.cumsum([0, *map(len, tokens[:-1])])
            scores[number] = np.maximum.reduceat(products, begins).mean(1)
        return scores

    def ndcg(self, scores: np.ndarray) -> np.ndarray:
        """(n,) nDCG@10 where the first of the found are put into the order of `scores` (n, …), the rest stays."""
        orders = np.argsort(-scores, axis=1, kind="stable")
        ranked = [[one[n] for n in order] + one[len(order) :] for one, order in zip(self.labels, orders, strict=True)]
        return np.array(list(map(ndcg, ranked, self.right)))


def asked_pairs(pairs: Sequence[tuple[str, str]], name: str, work: Path) -> Asked:
    """Each question's answer is the text beside it; the first stage compares vectors, of up to 512 tokens."""
    queries, answers = [query for query, _ in pairs], [answer for _, answer in pairs]
    asked, found = (
        encode(queries, 512, work / f"{name}-0-whole.pkl"),
        encode(answers, 512, work / f"{name}-1-whole.pkl"),
    )
    rows = nearest(asked, found, min(100, len(pairs)))
    first = np.take_along_axis(asked.vectors @ found.vectors.T, rows, 1)
    labels = [[str(row) for row in ones] for ones in rows]
    longest = TEXT_TOKENS if name == "HumanEval" else QUESTION_TOKENS
    asked = encode(queries, longest, work / f"{name}-0.pkl")
    found = encode(answers, TEXT_TOKENS, work / f"{name}-1.pkl")
    return Asked(asked, found, first, rows, labels, [frozenset([str(n)]) for n in range(len(pairs))])


def asked_repositories(names: Sequence[str], development: Path, name: str, work: Path) -> Asked:
    """Hybrid search with ranking is the first stage; the best 32 chunks are scored again."""
    file = work / f"{name}.json"
    if not file.exists():
        file.write_text(json.dumps([row for one in names for row in ask_repository(one, development)]))
    found = json.loads(file.read_text())
    texts = list(dict.fromkeys(text for *_, hits in found for _, _, text in hits[:32]))
    number = {text: n for n, text in enumerate(texts)}
    questions = encode([row[0] for row in found], QUESTION_TOKENS, work / f"{name}-0.pkl")
    rows = np.array([[number[text] for _, _, text in hits[:32]] for *_, hits in found])
    first = np.array([[score for _, score, _ in hits[:32]] for *_, hits in found])
    labels = [[path for path, *_ in hits] for *_, hits in found]
    right = [frozenset(files) for _, files, _ in found]
    return Asked(questions, encode(texts, TEXT_TOKENS, work / f"{name}-1.pkl"), first, rows, labels, right)


def ask_repository(name: str, development: Path) -> list[tuple[str, list[str], list[tuple[str, float, str]]]]:
    """Return each question, its files, and the path, score and text of the 100 best hits."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "tree")
        root.mkdir()
        if name in PACKAGES:
            extract(name, root)
            asked = [(one.query, sorted(one.files)) for one in development_set() if one.repository == name]
        else:
            package = next(one for one in listed() if one.name == name)
            questions = read("tune")[name]
            removed = {span for one in questions for span in one.removed}
            write_tree(read_tree(fetch(package, development)), removed, root)
            asked = [(one.question, one.files) for one in questions if one.kind != "none"]
        embedder = C2LLMEmbedder.from_pretrained("nano")
        with open_store(f"qdrant+edge://{folder}/store") as store:
            ingest(root, embedder, store, repository="asked")
            vectors = embedder.encode_queries([for_model(query) for query, _ in asked])
            hits = [
                find(query, one, store, SearchOptions(limit=100))
                for (query, _), one in zip(asked, vectors, strict=True)
            ]
    found = [[(hit.chunk.path, hit.score, hit.chunk.text) for hit in ones] for ones in hits]
    return [(query, files, ones) for (query, files), ones in zip(asked, found, strict=True)]


def measured(head: str, name: str, asked: Asked, late: list[np.ndarray], weight: float) -> dict[str, Any]:
    """One row: the first stage, the second alone, and both, of one or several seeds; intervals over the questions."""
    rng = np.random.default_rng(0)
    before = asked.ndcg(asked.first)
    row: dict[str, Any] = {"head": head, "set": name, "questions": len(before), "weight": weight}
    row["first stage"] = float(before.mean())
    for k in (32, 100) if asked.rows.shape[1] >= 100 else (32,):
        alone = np.mean([asked.ndcg(one[:, :k]) for one in late], 0)
        each = [asked.ndcg(asked.first[:, :k] + weight * one[:, :k]) - before for one in late]
        gain = np.mean(each, 0)
        low, high = np.quantile([rng.choice(gain, len(gain)).mean() for _ in range(2000)], [0.025, 0.975])
        row |= {f"late alone, {k}": float(alone.mean()), f"both, {k}": float((before + gain).mean())}
        row |= {f"gain, {k}": round(float(gain.mean()), 4), f"interval, {k}": f"{low:+.4f} to {high:+.4f}"}
        row[f"seeds, {k}"] = " ".join(f"{one.mean():+.4f}" for one in each)
    return row


def mean_row(head: str, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the mean gain over docstrings, HumanEval, the languages as one, and both sets of repositories."""
    gains = {row["set"]: row["gain, 32"] for row in rows if row["head"] == head and row["set"] != "validation"}
    single = [gains.pop(name) for name in ("docstrings", "HumanEval", "tune packages", "five repositories")]
    languages = float(np.mean(list(gains.values())))
    return {
        "head": head,
        "set": "mean of five sets",
        "languages": languages,
        "gain, 32": float(np.mean([*single, languages])),
    }


def best_weight(asked: Asked, late: list[np.ndarray]) -> float:
    """Return the weight of the second stage that is best here, over the seeds."""
    scores = [asked.first[:, :32] for _ in late]
    return max(
        WEIGHTS, key=lambda w: sum(asked.ndcg(a + w * b[:, :32]).mean() for a, b in zip(scores, late, strict=True))
    )


def cost(asked: Asked, hits: list[str], width: int) -> dict[str, Any]:
    """Milliseconds (best of ten) to compute and compare a question's chunks, and bytes a chunk if it was stored."""
    checkpoint = load_checkpoint("nano")
    encoder = load_encoder(checkpoint, best_dtype(checkpoint, [CPU]), CPU)
    tokens = sorted((ids for ids, _ in token_ids(checkpoint, hits, TEXT_TOKENS)), key=len)
    weight, question = torch.eye(384)[:width], torch.from_numpy(asked.questions.states[:12]).float()

    def work() -> None:
        states = torch.cat([encoder.states(tokens[n : n + 8]) for n in range(0, len(tokens), 8)]).float()
        (F.normalize(states @ weight.T, dim=-1) @ (question @ weight.T).T).amax(0)

    mean = float((asked.texts.ends - asked.texts.starts).mean())
    described = {"head": f"cost, {width}", "set": f"{len(hits)} chunks, {sum(map(len, tokens))} tokens"}
    stored = {"bytes, 8 bits": round(mean * width), "bytes, 1 bit": round(mean * width / 8)}
    best = min(seconds(work) for _ in range(10))
    return described | {"ms": round(1000 * best), "threads": torch.get_num_threads(), **stored}


def pair_sets(languages: Path) -> dict[str, list[tuple[str, str]]]:
    """Questions and answers: the validation pairs, which only choose a weight, and those that are reported."""
    sets = {
        name: [(one["doc"], one["bare"]) for one in load(*file)]
        for name, file in (("validation", [VALIDATION]), ("docstrings", []))
    }
    coding = human_eval_task()
    sets["HumanEval"] = list(zip(coding.queries, coding.texts, strict=True))
    return sets | draw(filter(is_archive, languages.iterdir()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("training", "languages", "development"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("work"))
    options = parser.parse_args()
    work = options.work
    work.mkdir(parents=True, exist_ok=True)
    listed_pairs = work / "pairs.json"
    if not listed_pairs.exists():
        listed_pairs.write_text(json.dumps(training_pairs(options.training, options.languages)))
    docs, code = zip(*json.loads(listed_pairs.read_text()), strict=True)
    pairs = encode(docs, QUESTION_TOKENS, work / "training-0.pkl"), encode(code, TEXT_TOKENS, work / "training-1.pkl")
    heads = {"untrained": [torch.eye(384)]}
    heads["64 dimensions"] = [train(*pairs, 64, 1000, 3e-3, 0)]
    heads["384 dimensions"] = [train(*pairs, 384, 300, 5e-4, seed) for seed in range(3)]
    del pairs
    sets = {name: asked_pairs(ones, name, work) for name, ones in pair_sets(options.languages).items()}
    for name, names in (("tune packages", TUNE), ("five repositories", PACKAGES)):
        sets[name] = asked_repositories(list(names), options.development, name, work)
    rows = []
    for head, weights in heads.items():
        late = {name: [asked.late(weight) for weight in weights] for name, asked in sets.items()}
        for_pairs, for_search = (best_weight(sets[one], late[one]) for one in ("validation", "tune packages"))
        for name, asked in sets.items():
            weight = for_search if name in ("tune packages", "five repositories") else for_pairs
            rows.append(measured(head, name, asked, late[name], weight))
        rows.append(mean_row(head, rows))
        print(*rows[-len(sets) - 1 :], sep="\n", flush=True)
    hits = [text for _, _, text in json.loads((work / "tune packages.json").read_text())[0][2][:32]]
    rows += [cost(sets["tune packages"], hits, width) for width in (64, 384)]
    report("late_interaction", rows)


if __name__ == "__main__":
    main()
