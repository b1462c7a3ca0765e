"""Every error this package raises on purpose.

C2LLMError
├── MissingExtra         (ImportError)  an optional dependency is not installed
├── CheckpointError      (ValueError)   a model folder is incomplete, unsafe or not C2LLM
├── InputError           (ValueError)   a text, option or path that cannot be used
├── RepositoryError      (ValueError)   a folder that cannot be indexed as asked
├── ServerError          (RuntimeError) an embedding server refused or failed
└── StoreError           (RuntimeError) a vector database refused or failed
    ├── StoreBusy                       another process holds the store
    ├── SpecMismatch                    the collection was made with another model or layout
    ├── RowsRefused                     rows that must not or could not be stored
    └── BatchRefused                    the database refused a write for what is in it

Each message is one line: what was wrong, both values, and the way out.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from typing import Any


class C2LLMError(Exception):
    """Base of every error raised on purpose by this package."""


class MissingExtra(C2LLMError, ImportError):
    """An optional dependency is absent; the message names the `pip install` that brings it."""

    def __init__(self, package: str, extra: str) -> None:
        """Name the `package` that could not be imported, and the `extra` of this distribution that installs it."""
        super().__init__(f'{package} is not installed; run: pip install "c2llm-integrations[{extra}]"')
        self._given = package, extra

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._given  # as it crosses processes; the message alone would not do


class CheckpointError(C2LLMError, ValueError):
    """A checkpoint is missing, incomplete, unsafe to read, or of another architecture."""


class InputError(C2LLMError, ValueError):
    """A text, option or path that cannot be used."""


class RepositoryError(C2LLMError, ValueError):
    """A folder that cannot be indexed as asked."""


class ServerError(C2LLMError, RuntimeError):
    """An embedding server cannot be reached, refused a request, or answered with something else than vectors."""


class StoreError(C2LLMError, RuntimeError):
    """A vector database refused a request or failed."""


class StoreBusy(StoreError):
    """Another process holds the store open."""


class SpecMismatch(StoreError):
    """A collection was made with another model or layout than the one asked for."""


class BatchRefused(StoreError):
    """The database refused a whole write because of its content; some of the rows may be fine on their own."""


class RowsRefused(StoreError):
    """Rows that cannot be stored; nothing of the call was written.

    `reasons` maps each record's id to why; `places` maps the row's index in the call to why, because records of two
    sources may have one id.
    """

    def __init__(self, refused: Mapping[int, tuple[Any, str]]) -> None:
        """Take index in the call → record id and a one-line reason; must not be empty."""
        first, why = next(iter(refused.values()))
        more = f" (and {len(refused) - 1} more)" if len(refused) > 1 else ""
        super().__init__(f"row {first} refused: {why}{more}")
        self.places = {place: why for place, (_, why) in refused.items()}
        self.reasons = dict(refused.values())
        self._given = refused

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._given,)

    def at(self, places: Sequence[int]) -> RowsRefused:
        """Return the same error for a larger call, where these rows have the indexes `places`."""
        return RowsRefused({places[place]: given for place, given in self._given.items()})


# Names listed of what there is, where nothing is close.
_MOST_NAMES = 12


def reason_of(error: BaseException) -> str:
    """Return what went wrong in a line; an unexpected error is called that."""
    if isinstance(error, (C2LLMError, OSError, MemoryError)):
        return str(error) or type(error).__name__
    return f"unexpected {type(error).__name__}: {error}"


def did_you_mean(word: str, known: Collection[str]) -> str:
    """Return the end of an error line: the known names close to the given one, or all of them, or ""."""
    if close := get_close_matches(word, known, n=3, cutoff=0.5):
        return f"; did you mean {' or '.join(close)}?"
    more = ", …" if len(known) > _MOST_NAMES else ""
    return f"; there are: {', '.join(sorted(known)[:_MOST_NAMES])}{more}" if known else ""
