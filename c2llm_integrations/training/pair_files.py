"""Read and check files of training pairs: {query, positive, negatives?, dataset?, language?} in each row."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from c2llm_integrations._utils.files import write_atomically
from c2llm_integrations._utils.json_lines import is_json_lines, read_rows
from c2llm_integrations.errors import InputError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

# A text that scores above 95 % of the positive may be an answer too (NV-Retriever, arXiv 2407.15831).
MARGIN = 0.05


@dataclass(frozen=True, slots=True)
class Example:
    """A question, its answer, and texts that do not answer it; only one `dataset` and `language` share a batch."""

    query: str
    positive: str
    negatives: tuple[str, ...] = ()
    dataset: str = ""
    language: str = ""


def read_examples(files: Sequence[Path]) -> tuple[list[Example], Counter[str]]:
    """Return all pairs of JSON-lines and Parquet files, in order, and how many were left out, by reason.

    Left out are repeated pairs, pairs with a blank side, and negatives that are blank, repeated or the positive
    itself.

    Raises:
        InputError: A file has no pairs, or a row lacks a column or has another type in it.

    """
    left_out: Counter[str] = Counter()
    examples: dict[tuple[str, str], Example] = {}
    for file in files:
        before = len(examples)
        for where, row in rows_of(file):
            example = _example(row, where, left_out)
            if not example.query.strip() or not example.positive.strip():
                left_out["blank"] += 1
            elif (example.query, example.positive) in examples:
                left_out["repeated"] += 1
            else:
                examples[example.query, example.positive] = example
        if len(examples) == before:
            raise InputError(f"{file} holds no pair that is not blank or repeated; each row needs query and positive")
    return list(examples.values()), left_out


def sides_of(row: Mapping[str, Any], where: str) -> tuple[str, str]:
    """Return the question and the answer of a row: its query and positive, or doc and bare, as nano's pairs have them.

    Raises:
        InputError: The row lacks a side.

    """
    query, text = (row.get(one) or row.get(other) for one, other in (("query", "doc"), ("positive", "bare")))
    if not isinstance(query, str) or not isinstance(text, str):
        raise InputError(f"{where} needs query and positive, or doc and bare, as text")
    return query, text


def is_pair_file(path: Path) -> bool:
    """Return whether a path is a file of pairs, by its name."""
    return path.suffix == ".parquet" or is_json_lines(path)


def rows_of(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield where each row of a file of pairs is, and the row; raises InputError for a damaged file."""
    if file.suffix != ".parquet":
        return read_rows(file)
    from c2llm_integrations.stores.parquet import read_mappings  # needs the extra `parquet`

    return ((f"{file}: row {number}", row) for number, (row, _) in enumerate(read_mappings(file), 1))


def _example(row: dict[str, Any], where: str, left_out: Counter[str]) -> Example:
    if not all(isinstance(row.get(name), str) for name in ("query", "positive")):
        raise InputError(f"{where} needs query and positive as text, has {', '.join(row) or 'nothing'}")
    negatives = row.get("negatives") or []
    if not isinstance(negatives, list) or not all(isinstance(text, str) for text in negatives):
        raise InputError(f"{where} has negatives that are not a list of texts")
    kept = [text for text in dict.fromkeys(negatives) if text.strip() and text != row["positive"]]
    left_out["negatives that are the positive"] += (same := negatives.count(row["positive"]))
    left_out["negatives blank or repeated"] += len(negatives) - len(kept) - same
    labels = (str(row.get(name) or "") for name in ("dataset", "language"))
    return Example(row["query"], row["positive"], tuple(kept), *labels)


# ---- what a model itself ranks high for a question although it does not answer it


def with_mined(model: SentenceTransformer, examples: Sequence[Example], count: int, file: Path) -> list[Example]:
    """Return the examples, each with up to `count` more negatives that `model` finds among all positives.

    They are kept in `file`, so that an interrupted run continues with the same ones.
    """
    if not file.exists():
        write_atomically(file, json.dumps(_mine(model, examples, count)))
    return [
        replace(example, negatives=tuple(dict.fromkeys((*example.negatives, *found))))
        for example, found in zip(examples, json.loads(file.read_text()), strict=True)
    ]


def _mine(model: SentenceTransformer, examples: Sequence[Example], count: int) -> list[list[str]]:
    from datasets import Dataset
    from sentence_transformers.util import mine_hard_negatives

    pairs = {"query": [e.query for e in examples], "positive": [e.positive for e in examples]}
    triplets = mine_hard_negatives(
        Dataset.from_dict(pairs),
        model,
        anchor_column_name="query",
        positive_column_name="positive",
        num_negatives=count,
        relative_margin=MARGIN,
        output_format="triplet",  # the one that keeps pairs of which fewer are found
        verbose=False,
    )
    found: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for row in triplets:
        found[row["query"], row["positive"]].append(row["negative"])
    return [found[e.query, e.positive] for e in examples]
