"""The unit that is embedded, stored and found."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from c2llm_integrations.errors import InputError

# Fixed for ever: changing it would change every row id of every collection.
NAMESPACE = uuid.UUID("3f6b7a52-5d0e-5b43-9f0c-6a1c2a9d7e11")

# The metadata of a chunk, in the order in which stores write it, and the type of each.
CHUNK_FIELDS: dict[str, type[str] | type[int]] = {
    "repository": str,
    "path": str,
    "language": str,
    "symbol": str,
    "kind": str,
    "start_line": int,
    "end_line": int,
}
# What a chunk may be; see `chunk_source`.
KINDS = frozenset({"function", "method", "class", "module", "section", "text"})


@dataclass(frozen=True, slots=True)
class CodeChunk:
    """A piece of one source file that is embedded as a whole.

    Attributes:
        id: The row's id, a UUID (`chunk_id`).
        repository: The repository's name.
        path: POSIX, relative to the repository's root.
        language: Such as "python".
        symbol: The qualified name that the chunk defines ("Class.method"), or "".
        kind: "function", "method", "class", "module", "section" or "text".
        start_line: 1-based.
        end_line: Inclusive.
        text: The file's own text, unchanged.

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

    @property
    def metadata(self) -> dict[str, Any]:
        """The fields that a store keeps beside the text: everything but the id."""
        return {name: getattr(self, name) for name in CHUNK_FIELDS}

    @property
    def source(self) -> str:
        """The chunk's source, as of any record: the repository."""
        return self.repository

    @property
    def row_id(self) -> str:
        """The id of the chunk's row in a database."""
        return self.id


def chunk_id(repository: str, path: str, text: str, ordinal: int) -> str:
    """Return the row id of a chunk: UUIDv5 of its content and place, so that equal input gives equal rows.

    `ordinal` counts the earlier chunks of the same file with exactly the same text.
    """
    # A NUL can stand in no path and in no text file, so no two different tuples share a key.
    return str(uuid.uuid5(NAMESPACE, "\0".join((repository, path, str(ordinal), text))))


def piece_metadata(chunk: CodeChunk, own: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata of a piece of a document: the document's own, and the chunk's.

    The document's fields are never overwritten: a field of the chunk with another value gets "chunk_" in front.
    """
    merged = dict(own)
    for name, value in chunk.metadata.items():
        while merged.get(name, value) != value:
            name = f"chunk_{name}"
        merged[name] = value
    return merged


def piece_id(document: str, text: str, metadata: Mapping[str, Any]) -> str:
    """Return the id of a piece of a document: UUIDv5 of the document's id, the text and all metadata, lines included.

    So pieces of two documents never share an id, and a framework that skips a known id skips only a piece that is
    equal in everything. Raises InputError for metadata that hold themselves, or are nested too deep.
    """
    fields = sorted(((str(name), value) for name, value in metadata.items()), key=itemgetter(0))
    try:
        written = json.dumps([document, text, fields], default=str, skipkeys=True)
    except (ValueError, RecursionError) as error:
        raise InputError(f"metadata cannot be written as JSON ({error}); remove circular references") from error
    return str(uuid.uuid5(NAMESPACE, written))
