"""A question → the chunks that answer it, best first."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from c2llm_integrations.code.chunk import KINDS, CodeChunk
from c2llm_integrations.code.languages import LANGUAGES, language_of
from c2llm_integrations.code.terms import ANALYSER, query_terms
from c2llm_integrations.errors import InputError, StoreError
from c2llm_integrations.ranking import RULES, Mode, rank, require_known
from c2llm_integrations.stores.base import Candidates, CollectionSpec, Filter, Hit, Stored, Vector, VectorStore
from c2llm_integrations.suggesting import did_you_mean

if TYPE_CHECKING:
    from c2llm_integrations.embedder import C2LLMEmbedder

# Rows asked of each list: with 50 the fewest questions find their file, from 100 to 400 as many do.
CANDIDATES = 100


class Source(Protocol):
    """What can be searched: a store, or an index in memory."""

    def scan(self, repository: str | None = None) -> Iterator[Stored] | Iterator[CodeChunk]:
        """Yield everything there is (of one repository)."""

    def candidates(
        self, vector: Vector | None, terms: Sequence[str], limit: int, where: Filter | None = None
    ) -> Candidates:
        """Return the best by vector and the best by terms."""


def search(
    query: str,
    embedder: C2LLMEmbedder | None,
    store: VectorStore,
    limit: int = 10,
    language: str | None = None,
    path: str | None = None,
    repository: str | None = None,
    kind: str | None = None,
    mode: Mode = "hybrid",
    rules: Collection[str] = RULES,
) -> list[Hit]:
    """Return up to `limit` hits, best first.

    `language` is a name such as "python"; `path` a pattern in .gitignore syntax ("*.py", "src/", "src/**/test_*.go");
    `kind` one of `KINDS`. `mode` "dense" compares vectors only, "lexical" words only (`embedder` may then be None);
    "hybrid" is both, or dense where the collection has no lexical index that this version can ask. `rules` are the
    ranking rules to apply. A score lies in 0…1 and its parts are in the hit's explanation; see `ranking`.
    Raises InputError for a blank query, a limit below 1, or a filter, mode or rule that does not exist, StoreError when
    nothing is indexed or there is no lexical index to ask, and SpecMismatch when the collection was made with another
    model.
    """
    require_question(query, limit)
    require_known(mode, rules)
    spec = spec_of(store)
    if spec.analyser != ANALYSER:
        if mode == "lexical":
            raise StoreError(
                f"{store.url} has no lexical index of version {ANALYSER!r} (it has {spec.analyser!r}); "
                "search without --lexical, or index again with --replace"
            )
        mode = "dense"
    vector = None
    if embedder is not None:
        spec.require_model(embedder.output_dim, embedder.fingerprint)
        vector = embedder.encode_queries([query])[0] if mode != "lexical" else None
    elif mode != "lexical":
        raise InputError(f"mode {mode!r} needs an embedder; pass one, or use mode 'lexical'")
    return find(query, vector, store, limit, language, path, repository, kind, mode, rules)


def find(
    query: str,
    vector: Vector | None,
    source: Source,
    limit: int = 10,
    language: str | None = None,
    path: str | None = None,
    repository: str | None = None,
    kind: str | None = None,
    mode: Mode = "hybrid",
    rules: Collection[str] = RULES,
) -> list[Hit]:
    """Return what `search` does, for a query whose vector is known, or None in mode "lexical".

    Raises InputError as `search` does, and for a lexical search without a word to look for.
    """
    require_question(query, limit)
    terms = query_terms(query) if mode != "dense" else []
    if mode == "lexical" and not terms:
        raise InputError(f"the query {query[:40]!r} has no word that lexical search could look for; add one")
    where = _filter(source, language, path, repository, kind)
    if where is None:
        return []
    return rank(query, source.candidates(vector, terms, max(limit, CANDIDATES), where), limit, mode, rules)


def require_question(query: str, limit: int) -> None:
    """Raise InputError for a query or a limit that nothing can answer."""
    if not query.strip():
        raise InputError("the query is empty; ask in words, or give a name or a piece of code")
    if limit < 1:
        raise InputError(f"limit is {limit}, must be at least 1")


def require_names(language: str | None, kind: str | None) -> None:
    """Raise InputError for a language or kind that no row can have, naming what may have been meant."""
    if language is not None and language.lower() not in LANGUAGES:
        meant = language_of(f"x.{language}")  # somebody may have named the suffix of its files
        hint = f"; did you mean {meant}?" if meant != "text" else did_you_mean(language, LANGUAGES)
        raise InputError(f"there is no language {language!r}{hint}")
    if kind is not None and kind not in KINDS:
        raise InputError(f"there is no kind {kind!r}{did_you_mean(kind, KINDS)}")


def spec_of(store: VectorStore) -> CollectionSpec:
    """Return the collection's spec; raises StoreError while nothing is indexed."""
    spec = store.spec
    if spec is None:
        raise StoreError(f"{store.url} holds no collection {store.collection!r}, nothing is indexed; run: c2llm index")
    return spec


def _filter(
    source: Source, language: str | None, path: str | None, repository: str | None, kind: str | None
) -> Filter | None:
    """Return the filter, or None if no path matches; raises InputError for a name that no row can have."""
    require_names(language, kind)
    paths = [] if path is None else _matching(path, {row.path for row in source.scan(repository)})
    if path is not None and not paths:
        return None
    return Filter(
        repositories=[repository] if repository else (),
        languages=[language.lower()] if language else (),
        paths=paths,
        kinds=[kind] if kind else (),
    )


def _matching(pattern: str, paths: Iterable[str]) -> list[str]:
    from pathspec import GitIgnoreSpec

    try:
        spec = GitIgnoreSpec.from_lines([pattern.removeprefix("./")])
    except ValueError as error:
        raise InputError(f"path pattern {pattern!r} is not valid: {error}; write it as in .gitignore") from None
    if not any(part.include for part in spec.patterns):
        raise InputError(f"path pattern {pattern!r} selects nothing; give one such as 'src/' or '*.py'")
    return sorted(spec.match_files(paths))
