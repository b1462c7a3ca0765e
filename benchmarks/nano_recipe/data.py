"""Mined definitions → token ids, and from them the query and the code of each training pair."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from c2llm_integrations._utils.sampling import sample
from c2llm_integrations.training.docstring_pairs import masked, words

NAME_SHARE, BODY_SHARE = 0.35, 0.15
"""How often a definition is asked for by the words of its name, and its body by its first lines and documentation,
instead of all of it by its documentation."""
SHORTEST_BODY = 8  # tokens: what is shorter, such as `return self.name`, could be anybody's
LONGEST = 512


@dataclass(frozen=True)
class Ragged:
    """Arrays of uint16 token ids of different lengths, end to end."""

    flat: np.ndarray
    ends: np.ndarray

    def __getitem__(self, row: int) -> np.ndarray:
        """The ids of one text."""
        return self.flat[self.ends[row - 1] if row else 0 : self.ends[row]]

    @property
    def lengths(self) -> np.ndarray:
        """(n,) how many ids each text has."""
        return np.diff(self.ends, prepend=0)


def read_pairs(path: Path, limit: int | None = None) -> list[dict[str, Any]]:
    """Return the rows of a pairs.jsonl (package, language, name, doc, source, bare), or a sample of `limit`."""
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in (lines if limit is None else sample(lines, limit))]


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
    """All that a training step draws from, as token ids.

    `heads` (n,): how many tokens of each row's `bare` come before its body, 0 where it has none; `packages` (n,)
    numbers each row's package.
    """

    docs: Ragged
    names: Ragged
    bare: Ragged
    masked: Ragged
    heads: np.ndarray
    packages: np.ndarray

    def draw(
        self, rows: Sequence[int] | np.ndarray, query_length: int, code_length: int, rng: np.random.Generator
    ) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Queries and code of `rows`, each of one of three kinds by chance.

        Documentation → code without it, name → code with the name masked, or first lines and documentation → body: the
        one kind whose queries may be as long as code.
        """
        queries, code = [], []
        for row in rows:
            kind, head = rng.random(), self.heads[row]
            if kind < NAME_SHARE and len(self.names[row]) > 1:
                queries.append(self.names[row][:query_length])
                code.append(self.masked[row][:code_length])
            elif kind > 1 - BODY_SHARE and head:
                queries.append(np.concatenate([self.bare[row][:head], self.docs[row]])[:code_length])
                code.append(self.bare[row][head : head + code_length])
            else:
                queries.append(self.docs[row][:query_length])
                code.append(self.bare[row][:code_length])
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
    bare = tokenize(tokenizer, (pair["bare"] for pair in pairs))
    heads = tokenize(tokenizer, (head_of(pair["bare"]) for pair in pairs)).lengths
    return TokenizedPairs(
        docs=tokenize(tokenizer, (pair["doc"] for pair in pairs)),
        names=tokenize(tokenizer, (" ".join(words(pair["name"])) for pair in pairs)),
        bare=bare,
        masked=tokenize(tokenizer, hidden),
        heads=np.where(bare.lengths - heads < SHORTEST_BODY, 0, heads),
        packages=packages,
    )


def head_of(code: str) -> str:
    """A definition's first lines, up to the one that opens its body with `:` or `{`; "" where no line does."""
    lines = code.splitlines(keepends=True)
    last = next((number for number, line in enumerate(lines) if line.rstrip().endswith((":", "{"))), -1)
    return "".join(lines[: last + 1])


def _blocks(texts: Iterable[str], size: int) -> Iterator[list[str]]:
    block: list[str] = []
    for text in texts:
        block.append(text)
        if len(block) == size:
            yield block
            block = []
    if block:
        yield block
