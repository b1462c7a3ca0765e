"""Search: the hits that answer a question, best first, and the notes that go with them."""

from __future__ import annotations

import os
import re
import time
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias
from weakref import WeakKeyDictionary

from c2llm_integrations.code.chunk import KINDS, CodeChunk
from c2llm_integrations.code.exclude import within_limits
from c2llm_integrations.code.languages import LANGUAGES, languages_called
from c2llm_integrations.code.lexical_terms import ANALYZER, UNSPACED, query_terms
from c2llm_integrations.code.path_filter import from_root, selected
from c2llm_integrations.code.repository import checkout_id
from c2llm_integrations.errors import InputError, StoreError, did_you_mean
from c2llm_integrations.indexing.claims import Claim
from c2llm_integrations.model.fingerprint import Fingerprint
from c2llm_integrations.retrieval.options import RULES, Mode, SearchOptions
from c2llm_integrations.retrieval.question import bounded
from c2llm_integrations.retrieval.ranking import rank, require_known
from c2llm_integrations.stores import collections_beside
from c2llm_integrations.stores.backend import require_parts
from c2llm_integrations.stores.filter import Filter
from c2llm_integrations.stores.foreign_collection import ForeignStore
from c2llm_integrations.stores.records import Hit, Vector
from c2llm_integrations.stores.row_checks import require, require_count
from c2llm_integrations.stores.row_fields import Stored
from c2llm_integrations.stores.spec import CollectionSpec
from c2llm_integrations.stores.vector_store import VectorStore

if TYPE_CHECKING:
    from c2llm_integrations.model.embedder import C2LLMEmbedder
    from c2llm_integrations.retrieval.lexical_index import LexicalIndex

    Searchable: TypeAlias = VectorStore | LexicalIndex

# Above this share of unknown letters, all questions get about the same vector.
MAX_UNKNOWN = 0.5
UNREADABLE_NOTE = "answered by words alone: the model does not know the script of the question"
DENSE_NOTE = "compared by a meaningless vector: the model does not know the script of the question; search by words"
WORDLESS_NOTE = "answered by vectors alone: this collection has no words to search"
GIVEN_NOTE = (
    "the collection was filled with given vectors of an unknown model: if it was not this one, the order of hits is "
    "meaningless; to have it checked, give the model with the vectors when you fill a collection"
)
# Rows asked of each list. With 50, fewer questions find their file; 100 to 400 do equally well.
CANDIDATES = 100
# How long the paths of a collection are cached: another process may rename a file.
PATHS_SECONDS = 5.0

_GLUED = re.compile(f"(?<=[A-Za-z0-9_])(?=[{UNSPACED}])|(?<=[{UNSPACED}])(?=[A-Za-z0-9_])")


def search(
    query: str,
    embedder: C2LLMEmbedder | None,
    store: VectorStore,
    *,
    limit: int = 10,
    language: str | Sequence[str] | None = None,
    path: str | None = None,
    kind: str | None = None,
    repository: str | None = None,
    where: Filter | Mapping[str, Any] | None = None,
    mode: Mode = "hybrid",
    rules: Collection[str] = RULES,
) -> list[Hit]:
    """Return up to `limit` hits, best first.

        search("retry with backoff", embedder, store, language="go", where={"votes": {"gte": 10}})

    "hybrid" falls back to "dense" where the collection has no lexical index that this version can ask, and to
    "lexical" where the model does not know the script of the question (`mode_and_note`).

    Args:
        query: Words, a name, code, an error message or a stack trace.
        embedder: The model that the collection was made with; may be None in mode "lexical".
        store: An open store.
        limit: How many hits to return at most.
        language: A name such as "python" or "c++", or several ("go,c++" or a list), any of which matches.
        path: The path of an indexed file, which wins over a pattern, or a pattern in .gitignore syntax ("*.py", "src/",
            "src/**/test_*.{go,rs}").
        repository: The repository to search; records that are not chunks have no repository, select them by `where`.
        kind: "function", "method", "class", "module", "section" or "text".
        where: Conditions on any metadata, also of records that are not chunks; see `Filter`.
        mode: "dense" compares vectors only, "lexical" words only, "hybrid" both.
        rules: The ranking rules to apply, by default all; `retrieval.ranking` explains them.

    Returns:
        Hits with scores in 0…1; the parts in `explanation` sum to the score.

    Raises:
        InputError: The query is blank, the limit below 1, or a filter, mode or rule does not exist.
        StoreError: Nothing is indexed, or there is no lexical index to ask.
        SpecMismatch: The collection was made with another model.

    Warns:
        UserWarning: If the collection was filled with given vectors, whose model is not known.

    """
    require_parts(embedder, store)
    options = SearchOptions(
        limit=limit, language=language, path=path, repository=repository, kind=kind, where=where, mode=mode, rules=rules
    )
    if embedder is not None and options.mode != "lexical":
        warn_if_given(store)
    return search_with(query, embedder, store, options)


def warn_if_given(store: VectorStore) -> None:
    """Warn that a model is compared with vectors that may be another's."""
    if is_given(store):
        warnings.warn(GIVEN_NOTE, stacklevel=3)


def is_given(store: VectorStore) -> bool:
    """Return whether nothing tells which model made the vectors; of a collection made by others, its Layout does."""
    spec = store.spec
    return spec is not None and spec.is_given and not isinstance(store, ForeignStore)


def require_comparable(spec: CollectionSpec, width: int, fingerprint: Fingerprint) -> None:
    """Raise SpecMismatch for vectors of another model, or only of another width where their model is not known."""
    spec.require_model(width, spec.fingerprint if spec.is_given else fingerprint)  # its own: the width is compared


@dataclass(frozen=True)
class Answer:
    """Hits, best first, and lines that the asker should read with them.

    `unmatched`: the filter that no row passes, if there is no hit; `mode`: how they were found.
    """

    hits: list[Hit]
    notes: list[str]
    unmatched: str = ""
    mode: Mode = "lexical"


def answer(query: str, embedder: C2LLMEmbedder | None, store: VectorStore, options: SearchOptions) -> Answer:
    """Return what `search_with` does, with what to say of it."""
    found = _answer(query, embedder, store, options)
    return found if found.hits else replace(found, unmatched=unmatched(store, options))


def search_with(query: str, embedder: C2LLMEmbedder | None, store: VectorStore, options: SearchOptions) -> list[Hit]:
    """Return what `search` returns, for options as one object."""
    return _answer(query, embedder, store, options).hits


def _answer(query: str, embedder: C2LLMEmbedder | None, store: VectorStore, options: SearchOptions) -> Answer:
    require_question(query, options)
    spec = spec_of(store)
    supported = supported_mode(options.mode, spec, store)
    vector = None
    if embedder is not None:
        require_comparable(spec, embedder.output_dim, embedder.fingerprint)
    elif supported != "lexical":
        raise InputError(f"mode {supported!r} needs an embedder; pass one, or use mode 'lexical'")
    mode, note = mode_and_note(query, supported, embedder)
    if embedder is not None and mode != "lexical":
        vector = embedder.encode_queries([for_model(query)])[0]
    path = None if options.path is None else _within_checkout(options.path, store)
    hits = find(query, vector, store, replace(options, mode=mode, path=path))
    notes = [WORDLESS_NOTE] if supported != options.mode else []
    notes += [note] if note else []
    notes += [GIVEN_NOTE] if mode != "lexical" and is_given(store) else []
    return Answer(hits, notes, mode=mode)


def supported_mode(mode: Mode, spec: CollectionSpec, store: VectorStore) -> Mode:
    """Return `mode`, or "dense" if the collection has no lexical index to ask; raises StoreError for "lexical" then."""
    if spec.analyzer == ANALYZER:
        return mode
    if mode != "lexical":
        return "dense"
    if isinstance(store, ForeignStore):
        raise StoreError(
            f"collection {store.collection!r} of {store.url} can be searched by vectors only; "
            "name a sparse vector or field in the Layout, or search in another mode"
        )
    raise StoreError(
        f"{store.url} has no lexical index of version {ANALYZER!r} (it has {spec.analyzer!r}); "
        "search without --lexical, or index again with --replace"
    )


def is_readable(query: str, embedder: C2LLMEmbedder) -> bool:
    """Return whether the model knows the script of a question, so that its vector says something."""
    return embedder.unknown_share(for_model(query)) <= MAX_UNKNOWN


def warned_mode_for(query: str, mode: Mode, embedder: C2LLMEmbedder | None) -> Mode:
    """Return the mode of `mode_and_note`, with its note as a warning."""
    chosen, note = mode_and_note(query, mode, embedder)
    if note:
        warnings.warn(f"{query[:40]!r} is {note}", stacklevel=2)
    return chosen


def mode_and_note(query: str, mode: Mode, embedder: C2LLMEmbedder | None) -> tuple[Mode, str]:
    """Return how a question is answered, and a note if its vector is meaningless, else ""."""
    if mode == "lexical" or embedder is None or is_readable(query, embedder):
        return mode, ""
    return ("lexical", UNREADABLE_NOTE) if mode == "hybrid" else (mode, DENSE_NOTE)


def for_model(query: str) -> str:
    """Return a question as the model reads it.

    Names are separated from adjacent text in a script without spaces: a model's vocabulary has no mixture of both.
    """
    query = bounded(query)
    return query if query.isascii() else _GLUED.sub(" ", query)


def find(query: str, vector: Vector | None, index: Searchable, options: SearchOptions) -> list[Hit]:
    """Return what `search` returns, for a query whose vector is known, or None in mode "lexical".

    Raises InputError as `search` does, and for a lexical search without a word to look for.
    """
    require_question(query, options)
    query = bounded(query)
    terms = query_terms(query) if options.mode != "dense" else []
    if options.mode == "lexical" and not terms:
        raise InputError(f"the query {query[:40]!r} has no word that lexical search could look for; add one")
    where = _filter(index, options)
    if where is None:
        return []
    candidates = index.candidates(vector, terms, max(options.limit, CANDIDATES), where)
    return rank(query, candidates, options.limit, options.mode, options.rules)


def require_question(query: str, options: SearchOptions) -> None:
    """Raise InputError for a blank query, or for options that do not exist or are of another type."""
    require(query, str, "a question as a string")
    require_count(options.limit, "limit")
    require(options.language or "", (str, Sequence), "the name of a language, or several")
    require(options.path or "", str, "a path as a string")
    if not query.strip():
        raise InputError("the query is empty; ask in words, or give a name or a piece of code")
    require_known(options.mode, options.rules)
    for language in options.languages:
        require(language, str, "the name of a language")
        if not languages_called(language):
            raise InputError(f"there is no language {language!r}{did_you_mean(language, LANGUAGES)}")
    if options.kind is not None and options.kind not in KINDS:
        raise InputError(f"there is no kind {options.kind!r}{did_you_mean(options.kind, KINDS)}")


def unmatched(index: Searchable, options: SearchOptions) -> str:
    """Return the first filter that no row passes: "path", "language" or "kind"; "" if each passes some."""
    is_filtered = options.path or options.languages or options.kind
    rows: list[Stored | CodeChunk] = list(index.scan(source=options.repository)) if is_filtered else []
    if options.path and not selected(options.path, {row.path for row in rows}):
        return "path"
    languages = _languages(options)
    if languages and not any(row.language in languages for row in rows):
        return "language"
    return "kind" if options.kind and all(row.kind != options.kind for row in rows) else ""


def spec_of(store: VectorStore) -> CollectionSpec:
    """Return the collection's spec; raises StoreError while nothing is indexed."""
    spec = store.spec
    if spec is None:
        others = ", ".join(map(repr, collections_beside(store)))
        raise StoreError(
            f"{store.url} holds no collection {store.collection!r}, "
            + (f"only {others}; name one of these" if others else "nothing is indexed; run: c2llm index")
        )
    return spec


def _languages(options: SearchOptions) -> list[str]:
    return list(dict.fromkeys(one for name in options.languages for one in languages_called(name)))


def _filter(index: Searchable, options: SearchOptions) -> Filter | None:
    """Return the filter, or None if no path matches."""
    asked: dict[str, Any] = {"repository": options.repository, "language": _languages(options), "kind": options.kind}
    if options.path is not None:
        paths = _Paths.of(index, options.repository)
        if not paths.selected(options.path):
            paths = _Paths.of(index, options.repository, anew=True)
        chosen = paths.selected(options.path)
        if not chosen:
            return None
        asked["path"] = chosen if len(chosen) < len(paths.all) else None
    return Filter({name: value for name, value in asked.items() if value}) & Filter(options.where)


class _Paths:
    """The paths of a collection, which take a scan: cached until it changes.

    Changes by other processes show in the number of rows, and after `PATHS_SECONDS` at the latest.
    """

    _cached: ClassVar[WeakKeyDictionary[Searchable, dict[str | None, _Paths]]] = WeakKeyDictionary()

    def __init__(self, index: Searchable, repository: str | None, stamp: tuple[int, int]) -> None:
        self.all = frozenset(row.path for row in index.scan(source=repository))
        self._stamp = stamp
        self._end = time.monotonic() + PATHS_SECONDS
        self._selected: dict[str, list[str]] = {}

    @classmethod
    def of(cls, index: Searchable, repository: str | None, anew: bool = False) -> _Paths:
        """Return the paths of an index (of one repository); `anew`: without the cache."""
        cached = cls._cached.setdefault(index, {})
        stamp = index.changes, index.count(source=repository)
        paths = cached.get(repository)
        if paths is None or anew or paths._stamp != stamp or time.monotonic() > paths._end:
            paths = cached[repository] = cls(index, repository, stamp)
        return paths

    def selected(self, path: str) -> list[str]:
        """Return the paths that a path or pattern selects."""
        if path not in self._selected:
            self._selected[path] = selected(path, self.all)
        return self._selected[path]


def _within_checkout(path: str, store: VectorStore) -> str:
    """Return an absolute path as one from the root of the checkout that it lies in, if that fills the collection."""
    if not os.path.isabs(path) or "\0" in path or not within_limits(path):
        return path
    checkouts = {Claim.parse(text).checkout for text in store.claims().values()}
    roots = (folder for folder in (Path(path), *Path(path).parents) if checkout_id(folder) in checkouts)
    return next((found for root in roots if (found := from_root(path, root, root))), path)
