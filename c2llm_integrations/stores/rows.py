"""Rows: how a chunk and its vector are written, filtered, found and read back, and which ones are refused."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from c2llm_integrations.code.chunk import CodeChunk
from c2llm_integrations.errors import InputError

Vector = NDArray[np.float32]

# A write is cut into pieces of about this size: well under every engine's limit on one request (Qdrant's
# write-ahead log and REST body take 32 MiB), large enough that the cost per call vanishes.
BATCH_BYTES = 8 * 2**20
# The same for calls that carry only ids.
BATCH_IDS = 10_000
# Where a row's fields lie in a Qdrant payload: LangChain's and LlamaIndex's own stores read these names.
TEXT_FIELD = "page_content"
METADATA_FIELD = "metadata"
# A row's vectors there; the dense one has no name, as those stores expect.
DENSE, LEXICAL = "", "lexical"

_CANONICAL_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class Row:
    """A chunk and its vector, float32 of the collection's width."""

    chunk: CodeChunk
    vector: Vector


class Stored(NamedTuple):
    """What an incremental run needs to know of a row that is already there (no text, no vector)."""

    id: str
    path: str
    language: str
    symbol: str
    kind: str
    start_line: int
    end_line: int


@dataclass(frozen=True, slots=True)
class Hit:
    """A chunk found, with its score (higher is better) and, after ranking, what the score is made of.

    A row that somebody else wrote may have no repository, path, language, symbol ("") or lines (0).
    """

    chunk: CodeChunk
    score: float
    explanation: Mapping[str, float] = field(default_factory=dict, compare=False)


@dataclass(frozen=True, slots=True)
class Candidates:
    """The two ranked lists of one question, best first; the scores of one list say nothing about the other's.

    `dense` scores are cosine similarities.
    """

    dense: list[Hit]
    lexical: list[Hit]


@dataclass(frozen=True, slots=True)
class Filter:
    """Which rows to search: every non-empty field must match one of its values exactly.

    An empty field restricts nothing, so a caller whose glob matched no path must not search at all.
    """

    repositories: Sequence[str] = ()
    languages: Sequence[str] = ()
    paths: Sequence[str] = ()
    kinds: Sequence[str] = ()

    def __post_init__(self) -> None:
        for name in ("repositories", "languages", "paths", "kinds"):
            if isinstance(getattr(self, name), str):
                raise InputError(f"Filter.{name} takes a list of strings, got one: {getattr(self, name)!r}")

    @classmethod
    def of(cls, repository: str | None) -> Filter:
        """Return what the rows of one repository match; for None, what all do."""
        return cls(repositories=() if repository is None else (repository,))

    def conditions(self) -> dict[str, list[str]]:
        """Return row field → the values it may have, for the fields that restrict anything."""
        fields = {
            "repository": self.repositories,
            "language": self.languages,
            "path": self.paths,
            "kind": self.kinds,
        }
        return {name: list(values) for name, values in fields.items() if values}


# The row fields a Filter can name; a store that indexes fields indexes these.
FILTER_FIELDS = ("repository", "language", "path", "kind")


def payload_of(chunk: CodeChunk) -> dict[str, Any]:
    """Return a chunk as the payload both Qdrant stores write: the text, and everything else but the id."""
    metadata = {
        "repository": chunk.repository,
        "path": chunk.path,
        "language": chunk.language,
        "symbol": chunk.symbol,
        "kind": chunk.kind,
        "start_line": chunk.start_line,
        "end_line": chunk.end_line,
    }
    return {TEXT_FIELD: chunk.text, METADATA_FIELD: metadata}


def key_of(name: str) -> str:
    """Return where a field of a chunk other than its text lies in a Qdrant payload."""
    return f"{METADATA_FIELD}.{name}"


def stored_of(id: str, payload: Mapping[str, Any]) -> Stored:
    """Read back what `payload_of` wrote, without the text."""
    get = payload[METADATA_FIELD].get
    return Stored(
        id,
        get("path"),
        get("language", ""),
        get("symbol", ""),
        get("kind", ""),
        get("start_line", 0),
        get("end_line", 0),
    )


def chunk_of(id: str, payload: Mapping[str, Any]) -> CodeChunk:
    """Read back what `payload_of` wrote, or as much as there is of what another program wrote."""
    metadata = payload.get(METADATA_FIELD)
    get = metadata.get if isinstance(metadata, Mapping) else payload.get
    words = {name: _as(str, get(name)) for name in ("repository", "path", "language", "symbol", "kind")}
    lines = {name: _as(int, get(name)) for name in ("start_line", "end_line")}
    text = payload.get(TEXT_FIELD)
    if text is None and "_node_content" in payload:  # LlamaIndex keeps a node, text included, as JSON
        text = json.loads(payload["_node_content"]).get("text")
    return CodeChunk(id=id, **words, **lines, text=_as(str, text))


def _as(kind: type[Any], value: Any) -> Any:
    return value if type(value) is kind else kind()


def batch_bytes(chunks: Sequence[CodeChunk], width: int) -> int:
    """Return an upper estimate of what rows take on the wire: UTF-8 has at most 4 bytes a character."""
    return sum(4 * width + 4 * len(chunk.text) + 512 for chunk in chunks)


def slices(chunks: Sequence[CodeChunk], width: int) -> Iterator[slice]:
    """Cut rows into runs of at most about `BATCH_BYTES`, at least one row each."""
    return runs([batch_bytes([chunk], width) for chunk in chunks], BATCH_BYTES)


def runs(sizes: Sequence[int], most: int) -> Iterator[slice]:
    """Cut things of these sizes, in their order, into runs of at most `most` in all, at least one thing each."""
    start = total = 0
    for position, size in enumerate(sizes):
        if position > start and total + size > most:
            yield slice(start, position)
            start, total = position, 0
        total += size
    if start < len(sizes):
        yield slice(start, len(sizes))


def refused_chunks(chunks: Sequence[CodeChunk], max_text_bytes: int | None) -> dict[str, str]:
    """Return id → reason for the chunks that could not be stored or found again."""
    refused: dict[str, str] = {}
    seen: set[str] = set()
    for chunk in chunks:
        why = _why_chunk_refused(chunk, max_text_bytes)
        if chunk.id in seen:
            why = "the id stands twice in one batch; ids must be unique"
        if why is not None:
            refused.setdefault(chunk.id, why)
        seen.add(chunk.id)
    return refused


def cut_text(chunk: CodeChunk, max_bytes: int | None) -> CodeChunk:
    """Return the chunk with its text cut to so many bytes of UTF-8, between two characters."""
    if max_bytes is None or 4 * len(chunk.text) <= max_bytes:
        return chunk
    head = chunk.text.encode(errors="surrogatepass")[:max_bytes].decode(errors="ignore")
    return chunk if len(head) >= len(chunk.text) else replace(chunk, text=head)


def _why_chunk_refused(chunk: CodeChunk, max_text_bytes: int | None) -> str | None:
    if not _CANONICAL_UUID.fullmatch(chunk.id):
        return f"id {chunk.id!r} is no lower-case UUID; make ids with chunk_id"
    for name in ("text", "repository", "path", "language", "symbol", "kind"):
        try:
            size = len(getattr(chunk, name).encode())
        except UnicodeEncodeError as error:
            return f"lone surrogate {error.object[error.start]!r} in {error.object[:80]!r}; decode the file again"
        if max_text_bytes is not None and size > max_text_bytes:
            return f"{name} has {size} bytes, the store takes {max_text_bytes}; use smaller chunks"
    return None


def row_ids(ids: Iterable[str]) -> list[str]:
    """Return the ids as a list; raises InputError for one that no row can have."""
    found = [ids] if isinstance(ids, str) else list(ids)
    for id in found:
        if not _CANONICAL_UUID.fullmatch(id):
            raise InputError(f"id {id!r} is no lower-case UUID; pass a list of row ids")
    return found


def packed(id: str) -> bytes:
    """Return the 16 bytes of a row id."""
    return bytes.fromhex(id.replace("-", ""))


def unpacked(key: bytes) -> str:
    """Return the row id that `packed` gave `key` for; NUL bytes may be missing at its end, as NumPy leaves them out."""
    return str(uuid.UUID(bytes=key.ljust(16, b"\0")))


def parts(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    """Cut ids into runs of at most `BATCH_IDS`."""
    for start in range(0, len(ids), BATCH_IDS):
        yield ids[start : start + BATCH_IDS]


def refused_vectors(rows: Sequence[Row], width: int) -> dict[str, str]:
    """Return id → reason for the rows whose vector could not be compared with (width,) others."""
    if all(np.shape(row.vector) == (width,) for row in rows):
        vectors = np.array([row.vector for row in rows])
        if np.isfinite(vectors).all() and vectors.any(axis=-1).all():
            return {}
    whys = ((row.chunk.id, why_vector_refused(row.vector, width)) for row in rows)
    return {id: why for id, why in whys if why is not None}


def why_vector_refused(vector: Vector, width: int) -> str | None:
    """Return why a vector could not be compared with (width,) others, or None."""
    if np.shape(vector) != (width,):
        return f"vector has shape {np.shape(vector)}, the collection holds ({width},)"
    if not np.isfinite(vector).all():
        return "vector holds NaN or infinity; embed the text again"
    if not np.any(vector):
        return "vector is all zeros, which has no direction for cosine"
    return None


def unit(vectors: NDArray[Any]) -> Vector:
    """(n, width) → the same at unit length; in float64, where no float32 overflows or vanishes when squared."""
    wide = vectors.astype(np.float64)
    scaled: Vector = (wide / np.linalg.norm(wide, axis=1, keepdims=True)).astype(np.float32)
    return scaled
