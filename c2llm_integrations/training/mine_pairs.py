"""Mine training data from repositories and folders of code.

Pairs: documentation → the code without it, a name's words → the code masked. For a head that learns without labels:
chunks, and the questions that their documentation answers.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from c2llm_integrations._utils.sampling import sample
from c2llm_integrations.code.chunking import chunk_source
from c2llm_integrations.code.languages import language_of
from c2llm_integrations.code.repository import iter_sources, open_tree
from c2llm_integrations.errors import InputError
from c2llm_integrations.model import prompts
from c2llm_integrations.model.checkpoint import Checkpoint
from c2llm_integrations.training.docstring_pairs import (
    LANGUAGES,
    DocumentedCode,
    definitions,
    fingerprint,
    masked,
    words,
)
from c2llm_integrations.training.pair_files import Example

Row = dict[str, str]


@dataclass
class Mined:
    """Rows of query, positive, dataset (the repository) and language, split by repository; `repeated` were dropped."""

    training: list[Row] = field(default_factory=list)
    held_out: list[Row] = field(default_factory=list)
    repositories: Counter[str] = field(default_factory=Counter)
    repeated: int = 0


def mine_repositories(paths: Sequence[Path], held_out: float = 0.0, seed: int = 0) -> Mined:
    """Return all pairs of the repositories; the share `held_out` of them is kept apart, by their names and `seed`.

    No code and no documentation repeats, and nothing that a held-out repository contains is trained on.

    Raises:
        InputError: Nothing is documented, or the share leaves nothing to train on.

    """
    trees = {tree.name: tree for tree in map(open_tree, paths)}
    order = sorted(trees, key=lambda name: hashlib.sha256(f"{seed} {name}".encode()).digest())
    apart = max(round(held_out * len(order)), held_out > 0)  # at least one, if any share is asked for
    if not 0 <= held_out < 1 or apart == len(order):
        share = f"a share of {held_out} of {len(order)} repositories"
        raise InputError(f"{share} leaves none to train on; choose less, or name more repositories")
    mined, seen = Mined(), set[str]()
    for number, name in enumerate(order):
        rows = mined.held_out if number < apart else mined.training
        for source in iter_sources(trees[name]):
            language = language_of(source.path, source.text)
            for found in definitions(source.text, language) if language in LANGUAGES else ():
                keys = {fingerprint(found.bare), found.doc.lower()}
                if keys & seen:
                    mined.repeated += 1
                    continue
                seen |= keys
                pairs = [{**pair, "dataset": name, "language": language} for pair in _pairs(found)]
                mined.repositories[name] += len(pairs)
                rows += pairs
    if not mined.training:
        raise InputError("no documented definition was found; mine code that has docstrings or comments")
    return mined


def _pairs(found: DocumentedCode) -> Iterator[Row]:
    yield {"query": found.doc, "positive": found.bare}
    if len(parts := words(found.name)) > 1:
        yield {"query": " ".join(parts), "positive": masked(found.bare, found.name)}


def own_texts(checkpoint: Checkpoint, folders: Sequence[Path], limit: int, seed: int = 0) -> list[str]:
    """Return up to `limit` chunks and questions, each once and as the checkpoint embeds it, drawn by `seed`.

    The questions come from the code's own documentation: a head that sees only documents is worst at questions.
    """
    query_prompt = prompts.query_prompt(checkpoint.prompts)
    document_prompt = prompts.document_prompt(checkpoint.prompts)

    def all_texts() -> Iterator[str]:
        for folder in folders:
            tree = open_tree(folder)
            for source in iter_sources(tree):
                chunks = chunk_source(tree.name, source.path, source.text)
                yield from ((document_prompt + chunk.text).strip() for chunk in chunks)
                if chunks and chunks[0].language in LANGUAGES:
                    found = definitions(source.text, chunks[0].language)
                    yield from ((query_prompt + definition.doc).strip() for definition in found)

    return list(dict.fromkeys(sample(all_texts(), limit, seed)))


def grouped_texts(
    checkpoint: Checkpoint, examples: Sequence[Example], limit: int, seed: int = 0
) -> tuple[list[str], list[list[int]]]:
    """Return about `limit` texts of pairs, as the checkpoint embeds them, and which belong together, query first."""
    places: dict[str, int] = {}
    groups = []
    for texts in texts_of(checkpoint, random.Random(seed).sample(examples, len(examples))):
        if len(places) >= limit:
            break
        groups.append([places.setdefault(text, len(places)) for text in texts])
    return list(places), groups


def texts_of(checkpoint: Checkpoint, examples: Iterable[Example]) -> Iterator[list[str]]:
    """Yield each example's texts as the checkpoint embeds them: the query, its positive, its negatives."""
    query_prompt = prompts.query_prompt(checkpoint.prompts)
    document_prompt = prompts.document_prompt(checkpoint.prompts)
    for example in examples:
        yield [(query_prompt + example.query).strip()] + [
            (document_prompt + text).strip() for text in (example.positive, *example.negatives)
        ]
