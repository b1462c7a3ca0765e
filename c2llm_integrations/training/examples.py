"""Files of training pairs → examples, checked: {query, positive, negatives?, dataset?, language?} in each row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from c2llm_integrations.errors import InputError, MissingExtra
from c2llm_integrations.json_lines import read_rows

SUFFIXES = (".jsonl", ".parquet")


@dataclass(frozen=True, slots=True)
class Example:
    """A question, what answers it, and what does not; `dataset` and `language` say what may share its batch."""

    query: str
    positive: str
    negatives: tuple[str, ...] = ()
    dataset: str = ""
    language: str = ""


def read_examples(files: Sequence[Path]) -> tuple[list[Example], Counter[str]]:
    """All pairs of JSON-lines and Parquet files, in order, and how many of what was left out, by reason.

    Left out are repeated pairs, pairs with a blank side, and negatives that are blank, repeated or the positive
    itself. Raises InputError for a file without pairs, a row without both columns, or one of another type.
    """
    left_out: Counter[str] = Counter()
    examples: dict[tuple[str, str], Example] = {}
    for file in files:
        before = len(examples)
        for where, row in _read_parquet(file) if file.suffix == ".parquet" else read_rows(file):
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


def _read_parquet(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise MissingExtra("pyarrow", "parquet") from error
    try:
        with parquet.ParquetFile(file) as opened:
            rows = (row for batch in opened.iter_batches() for row in batch.to_pylist())
            for number, row in enumerate(rows, 1):
                yield f"{file}: row {number}", row
    except (OSError, ValueError) as error:  # pyarrow's own errors are ValueErrors, some of several lines
        why = str(error).split("\n")[0]
        raise InputError(
            f"{file} is no Parquet file of pairs: {why}; write it again, with query and positive"
        ) from error


def _example(row: dict[str, Any], where: str, left_out: Counter[str]) -> Example:
    if not all(isinstance(row.get(name), str) for name in ("query", "positive")):
        raise InputError(f"{where} needs query and positive as text, has {', '.join(row) or 'nothing'}")
    negatives = row.get("negatives") or []
    if not isinstance(negatives, list) or not all(isinstance(text, str) for text in negatives):
        raise InputError(f"{where} has negatives that are no list of texts")
    kept = [text for text in dict.fromkeys(negatives) if text.strip() and text != row["positive"]]
    left_out["negatives that are the positive"] += (same := negatives.count(row["positive"]))
    left_out["negatives blank or repeated"] += len(negatives) - len(kept) - same
    labels = (str(row.get(name) or "") for name in ("dataset", "language"))
    return Example(row["query"], row["positive"], tuple(kept), *labels)
