"""Repositories → pairs to train on: what documentation says → the code without it; a name's words → the code masked."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from c2llm_integrations.code.languages import language_of
from c2llm_integrations.code.repository import iter_sources, open_tree
from c2llm_integrations.errors import InputError
from c2llm_integrations.training.mine import fingerprint
from c2llm_integrations.training.pairs import LANGUAGES, Definition, definitions, masked, words

Row = dict[str, str]


@dataclass
class Mined:
    """Rows of query, positive, dataset (the repository) and language, split by repository; `repeated` were dropped."""

    training: list[Row] = field(default_factory=list)
    held_out: list[Row] = field(default_factory=list)
    repositories: Counter[str] = field(default_factory=Counter)
    repeated: int = 0


def mine_repositories(paths: Sequence[Path], held_out: float = 0.0, seed: int = 0) -> Mined:
    """All pairs of the repositories; the share `held_out` of them is kept apart, chosen by their names and `seed`.

    No code and no documentation comes twice, and what a held-out repository has, no other one trains on. Raises
    InputError where nothing is documented, or a share that leaves nothing to train on.
    """
    trees = {tree.name: tree for tree in map(open_tree, paths)}
    order = sorted(trees, key=lambda name: hashlib.sha256(f"{seed} {name}".encode()).digest())
    apart = max(round(held_out * len(order)), held_out > 0)  # who asks for some gets at least one
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


def _pairs(found: Definition) -> Iterator[Row]:
    yield {"query": found.doc, "positive": found.bare}
    if len(parts := words(found.name)) > 1:
        yield {"query": " ".join(parts), "positive": masked(found.bare, found.name)}
