"""Folders of the user's own code → the texts that a head learns from without labels."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from c2llm_integrations import prompts
from c2llm_integrations.checkpoint import Checkpoint
from c2llm_integrations.code.chunking import chunk_source
from c2llm_integrations.code.repository import iter_sources, open_tree
from c2llm_integrations.sampling import sample
from c2llm_integrations.training.examples import Example
from c2llm_integrations.training.pairs import LANGUAGES, definitions


def own_texts(checkpoint: Checkpoint, folders: Sequence[Path], limit: int, seed: int = 0) -> list[str]:
    """Up to `limit` chunks and questions, each as the checkpoint embeds it, without repetition, by chance of `seed`.

    The questions are what the code's own documentation says: a head that sees documents alone loses most on questions.
    """
    ask, show = prompts.query_prompt(checkpoint.prompts), prompts.document_prompt(checkpoint.prompts)

    def all_texts() -> Iterator[str]:
        for folder in folders:
            tree = open_tree(folder)
            for source in iter_sources(tree):
                chunks = chunk_source(tree.name, source.path, source.text)
                yield from ((show + chunk.text).strip() for chunk in chunks)
                if chunks and chunks[0].language in LANGUAGES:
                    found = definitions(source.text, chunks[0].language)
                    yield from ((ask + definition.doc).strip() for definition in found)

    return list(dict.fromkeys(sample(all_texts(), limit, seed)))


def grouped_texts(
    checkpoint: Checkpoint, examples: Sequence[Example], limit: int, seed: int = 0
) -> tuple[list[str], list[list[int]]]:
    """Up to about `limit` texts of pairs, as the checkpoint embeds them, and which belong together: query first."""
    places: dict[str, int] = {}
    groups = []
    for texts in texts_of(checkpoint, random.Random(seed).sample(examples, len(examples))):
        if len(places) >= limit:
            break
        groups.append([places.setdefault(text, len(places)) for text in texts])
    return list(places), groups


def texts_of(checkpoint: Checkpoint, examples: Iterable[Example]) -> Iterator[list[str]]:
    """Yield each example's texts as the checkpoint embeds them: the query, its positive, its negatives."""
    ask, show = prompts.query_prompt(checkpoint.prompts), prompts.document_prompt(checkpoint.prompts)
    for example in examples:
        yield [(ask + example.query).strip()] + [
            (show + text).strip() for text in (example.positive, *example.negatives)
        ]
