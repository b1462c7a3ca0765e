"""Mined definitions → token ids, and from them the query and the code of each training pair."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from c2llm_integrations.sampling import sample
from c2llm_integrations.training.pairs import masked, words

NAME_SHARE = 0.35
"""How often a definition is asked for by the words of its name instead of by its documentation."""
LONGEST = 512


def read_pairs(path: Path, limit: int | None = None) -> list[dict[str, Any]]:
    """The rows of a pairs.jsonl: package, language, name, doc, source, bare; or `limit` of them, by chance."""
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in (lines if limit is None else sample(lines, limit))]


@dataclass(frozen=True)
class Ragged:
    """Arrays of uint16 token ids of different lengths, end to end."""

    flat: np.ndarray
    ends: np.ndarray

    def __getitem__(self, row: int) -> np.ndarray:
        """The ids of one text."""
        return self.flat[self.ends[row - 1] if row else 0 : self.ends[row]]


def tokenize(tokenizer: Tokenizer, texts: Iterable[str], longest: int = LONGEST) -> Ragged:
    """Ids of every text, cut at `longest` tokens. The vocabulary must fit 16 bits."""
    arrays = [
        np.array(encoding.ids[:longest], dtype=np.uint16)
        for some in _blocks(texts, 4096)
        for encoding in tokenizer.encode_batch_fast(some, add_special_tokens=False)
    ]
    return Ragged(np.concatenate(arrays), np.cumsum([len(array) for array in arrays]))


@dataclass(frozen=True)
class TokenizedPairs:
    """All that a training step draws from, as token ids; `packages` (n,) numbers each row's package."""

    docs: Ragged
    names: Ragged
    bare: Ragged
    masked: Ragged
    packages: np.ndarray

    def draw(
        self, rows: Sequence[int] | np.ndarray, query_length: int, code_length: int, rng: np.random.Generator
    ) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Queries and code of `rows`: documentation → code without it, or name → code with the name masked."""
        queries, code = [], []
        for row in rows:
            by_name = rng.random() < NAME_SHARE and len(self.names[row]) > 1
            queries.append((self.names if by_name else self.docs)[row][:query_length])
            code.append((self.masked if by_name else self.bare)[row][:code_length])
        return queries, code


def tokenize_pairs(tokenizer: Tokenizer, pairs: Sequence[dict[str, Any]], seed: int = 0) -> TokenizedPairs:
    """Half of the masked sources keep their documentation, since the code that is searched has it too."""
    keep_docs = np.random.default_rng(seed).random(len(pairs)) < 0.5
    number: dict[str, int] = {}
    packages = np.array([number.setdefault(pair["package"], len(number)) for pair in pairs])
    hidden = (
        masked(pair["source" if keep else "bare"], pair["name"]) if pair["name"] else ""
        for pair, keep in zip(pairs, keep_docs, strict=True)
    )
    return TokenizedPairs(
        docs=tokenize(tokenizer, (pair["doc"] for pair in pairs)),
        names=tokenize(tokenizer, (" ".join(words(pair["name"])) for pair in pairs)),
        bare=tokenize(tokenizer, (pair["bare"] for pair in pairs)),
        masked=tokenize(tokenizer, hidden),
        packages=packages,
    )


def _blocks(texts: Iterable[str], size: int) -> Iterator[list[str]]:
    block: list[str] = []
    for text in texts:
        block.append(text)
        if len(block) == size:
            yield block
            block = []
    if block:
        yield block
