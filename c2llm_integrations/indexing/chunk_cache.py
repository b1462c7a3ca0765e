"""A cache of the rows that each file's content gave, in a file beside the collection: deleting it is safe.

A file whose content is known is neither searched for secrets nor cut again, as long as the collection holds exactly
those rows. The cache names no checkout, so it serves in a copy of the index, too.
"""

from __future__ import annotations

import hashlib
import json
import sys
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from c2llm_integrations import code
from c2llm_integrations._utils.files import user_cache, write_whole
from c2llm_integrations._utils.json_lines import parse_json
from c2llm_integrations.code.languages import grammar_modules
from c2llm_integrations.code.safe_open import read_inside
from c2llm_integrations.indexing.chunk_diff import rows_digest
from c2llm_integrations.indexing.claims import edge_folder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from c2llm_integrations.code.chunk import CodeChunk
    from c2llm_integrations.code.repository import Tree
    from c2llm_integrations.code.source_file import SourceFile
    from c2llm_integrations.stores.vector_store import VectorStore

# Of the file, which may have come with a checkout; a million files take half of it.
MAX_BYTES = 2**28


class ChunkCache:
    """What the files of one tree gave when they were last cut, and what they give in this run."""

    def __init__(self, tree: Tree, store: VectorStore) -> None:
        """Read what earlier runs kept; nothing, if the code or a grammar differs from that of the last run."""
        self._tree = tree
        self._file = _file_of(tree, store)
        self._version = f"{chunking_version()}{'+secrets' * tree.include_secrets}"
        self._known = self._load()
        self._kept: dict[str, tuple[str, str]] = {}

    def rows(self, path: str, digest: str) -> str:
        """Return the `rows_digest` of what a file of this content gave, "" if that is not known."""
        known = self._known.get(path)
        # A file that is taken back from a guess is judged otherwise than one that is not.
        if known is None or known[0] != digest or path in self._tree.wanted:
            return ""
        self._kept[path] = known
        return known[1]

    def keep(self, source: SourceFile, chunks: Sequence[CodeChunk]) -> None:
        """Keep what a file gave, unless something in it has to be reported again: a secret, or how it is encoded."""
        if chunks and source.text.encode() == source.data and source.path not in self._tree.wanted:
            self._kept[source.path] = (self._tree.states[source.path].digest, rows_digest(chunks))

    def save(self) -> None:
        """Write what is known of the tree's files, if their collection's folder can be written to."""
        others = {path: known for path, known in self._known.items() if not self._tree.can_tell(path)}
        known = {**others, **self._kept}
        if self._file is not None and known != self._known:
            digests, rows = zip(*known.values(), strict=True) if known else ((), ())
            data = {"version": self._version, "paths": list(known), "digests": digests, "rows": rows}
            with suppress(OSError):
                self._file.parent.mkdir(parents=True, exist_ok=True)
                write_whole(self._file, json.dumps(data))

    def _load(self) -> dict[str, tuple[str, str]]:
        try:
            document = b"" if self._file is None else read_inside(self._file.parent, self._file.name, MAX_BYTES + 1)
            data = parse_json(document) if 0 < len(document) <= MAX_BYTES else {}
            if data.get("version") != self._version:
                return {}
            paths, digests, rows = data["paths"], data["digests"], data["rows"]
            if not all(isinstance(one, str) for column in (paths, digests, rows) for one in column):
                return {}
            return dict(zip(paths, zip(digests, rows, strict=True), strict=True))
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return {}


def _file_of(tree: Tree, store: VectorStore) -> Path | None:
    """Return where the cache lies: in an embedded store's own folder, else in the user's cache."""
    folder = edge_folder(store)
    if folder is not None:
        return folder / f".{store.collection}.{_digest(tree.name)[:16]}.chunks"
    if store.url.startswith("qdrant+memory"):
        return None
    return user_cache() / f"{_digest(store.url, store.collection, tree.name)[:32]}.chunks"


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


@cache
def chunking_version() -> str:
    """Return a digest of all that decides, beside a file's path and content, which chunks it gives."""
    digest = hashlib.sha256(sys.version.encode())
    for file in sorted(Path(str(code.__file__)).parent.rglob("*.py")):
        digest.update(file.read_bytes())
    for package in ("c2llm-integrations", "tree-sitter", "pygments", "chardetng-py", *grammar_modules()):
        with suppress(PackageNotFoundError):
            digest.update(f"{package} {version(package)}\n".encode())
    return digest.hexdigest()[:32]
