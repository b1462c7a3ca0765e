"""The unit that is embedded, stored and found."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

# Fixed for ever: changing it would change every row id of every collection.
NAMESPACE = uuid.UUID("3f6b7a52-5d0e-5b43-9f0c-6a1c2a9d7e11")

# What a chunk may be; see `chunk_source`.
KINDS = frozenset({"function", "method", "class", "module", "section", "text"})


@dataclass(frozen=True, slots=True)
class CodeChunk:
    """A piece of one source file that is embedded as a whole.

    `path` is POSIX and relative to the repository's root; `start_line` and `end_line` are 1-based and
    inclusive; `symbol` is the qualified name the chunk defines ("Class.method") or ""; `text` is the
    file's own text, unchanged.
    """

    id: str
    repository: str
    path: str
    language: str
    symbol: str
    kind: str
    start_line: int
    end_line: int
    text: str


def chunk_id(repository: str, path: str, text: str, ordinal: int) -> str:
    """Return the row id of a chunk: UUIDv5 of its content and place, so that equal input gives equal rows.

    `ordinal` counts the earlier chunks of the same file with exactly the same text.
    """
    # A NUL can stand in no path and in no text file, so no two different tuples share a key.
    return str(uuid.uuid5(NAMESPACE, "\0".join((repository, path, str(ordinal), text))))
