"""Hard negatives: what a model itself ranks high for a question although it is no answer to it."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from datasets import Dataset
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import mine_hard_negatives

from c2llm_integrations.stores.files import write_atomically
from c2llm_integrations.training.examples import Example

MARGIN = 0.05  # what scores above 95 % of the positive may well be an answer too (NV-Retriever, arXiv 2407.15831)


def with_mined(model: SentenceTransformer, examples: Sequence[Example], count: int, file: Path) -> list[Example]:
    """Give each example up to `count` negatives more, found among all positives by sentence-transformers.

    They are kept in `file`, so that an interrupted run neither looks for them again nor finds others.
    """
    if not file.exists():
        write_atomically(file, json.dumps(_mine(model, examples, count)))
    return [
        replace(example, negatives=tuple(dict.fromkeys((*example.negatives, *found))))
        for example, found in zip(examples, json.loads(file.read_text()), strict=True)
    ]


def _mine(model: SentenceTransformer, examples: Sequence[Example], count: int) -> list[list[str]]:
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
