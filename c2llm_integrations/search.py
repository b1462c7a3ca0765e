"""A question → the chunks that answer it, best first."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from c2llm_integrations.errors import InputError, StoreError
from c2llm_integrations.stores.base import CollectionSpec, Filter, Hit, VectorStore

if TYPE_CHECKING:
    from c2llm_integrations.embedder import C2LLMEmbedder


def search(
    query: str,
    embedder: C2LLMEmbedder,
    store: VectorStore,
    limit: int = 10,
    language: str | None = None,
    path: str | None = None,
    repository: str | None = None,
) -> list[Hit]:
    """Return up to `limit` hits, best first.

    `language` is a name such as "python"; `path` a pattern in .gitignore syntax ("*.py", "src/", "src/**/test_*.go").
    Raises InputError for a blank query, a limit below 1 or a bad pattern, StoreError when nothing is indexed, and
    SpecMismatch when the collection was made with another model.
    """
    if not query.strip():
        raise InputError("the query is empty; ask in words, or give a name or a piece of code")
    if limit < 1:
        raise InputError(f"limit is {limit}, must be at least 1")
    spec_of(store).require_same(CollectionSpec(embedder.output_dim, embedder.fingerprint))
    paths: list[str] = []
    if path is not None:
        paths = _matching(path, {row.path for row in store.scan(repository)})
        if not paths:
            return []
    where = Filter(
        repositories=[repository] if repository else (), languages=[language.lower()] if language else (), paths=paths
    )
    return store.search(embedder.encode_queries([query])[0], limit, where)


def spec_of(store: VectorStore) -> CollectionSpec:
    """Return the collection's spec; raises StoreError while nothing is indexed."""
    spec = store.spec
    if spec is None:
        raise StoreError(f"{store.url} holds no collection {store.collection!r}, nothing is indexed; run: c2llm index")
    return spec


def _matching(pattern: str, paths: Iterable[str]) -> list[str]:
    from pathspec import GitIgnoreSpec

    try:
        spec = GitIgnoreSpec.from_lines([pattern.removeprefix("./")])
    except ValueError as error:
        raise InputError(f"path pattern {pattern!r} is not valid: {error}") from None
    if not any(part.include for part in spec.patterns):
        raise InputError(f"path pattern {pattern!r} selects nothing; give one such as 'src/' or '*.py'")
    return sorted(spec.match_files(paths))
