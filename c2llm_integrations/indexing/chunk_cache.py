"""A cache of the rows that each file's content gave, in a file beside the collection: deleting it is safe.

A file whose content is known is neither searched for secrets nor cut again, as long as the collection holds exactly
those rows. The cache names no checkout, so it serves in a copy of the index, too.
"""

from __future__ import annotations

import hashlib
import os
import sys
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from c2llm_integrations import code
from c2llm_integrations._utils.files import write_atomically
from c2llm_integrations.code.languages import grammar_modules
from c2llm_integrations.code.safe_open import MAX_OWN_BYTES, open_inside
from c2llm_integrations.indexing.file_states import cache_file
from c2llm_integrations.indexing.row_diff import rows_digest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from c2llm_integrations.code.chunk import CodeChunk
    from c2llm_integrations.code.repository import Tree
    from c2llm_integrations.code.source_file import SourceFile
    from c2llm_integrations.stores.vector_store import VectorStore

# Characters of a digest, and of the two that a line has before its path.
_DIGEST = 32
_DIGESTS = 2 * _DIGEST + 1


class ChunkCache:
    """What the files of one tree gave when they were last cut, and what they give in this run."""

    def __init__(self, tree: Tree, store: VectorStore) -> None:
        """Read what earlier runs kept; nothing, if the code or a grammar differs from that of the last run."""
        self._tree = tree
        # Files that a run looks at alone have changed: it would read and write what is known of all others for nothing.
        self._file: Path | None = None
        if tree.only is None:
            with suppress(RuntimeError):  # a user without a home, for whom `plan` still works
                self._file = cache_file(store, tree.name, "chunks")
        self._version = f"{chunking_version()}{'+secrets' * tree.include_secrets}"
        self._known = self._load()
        self._kept: dict[str, str] = {}

    def rows(self, path: str, digest: str) -> str:
        """Return the `rows_digest` of what a file of this content gave, "" if that is not known."""
        known = self._known.get(path)
        # A file that is taken back from a guess is judged otherwise than one that is not.
        if known is None or known[:_DIGEST] != digest or path in self._tree.wanted:
            return ""
        self._kept[path] = known
        return known[_DIGEST + 1 :]

    def keep(self, source: SourceFile, chunks: Sequence[CodeChunk]) -> None:
        """Keep what a file gave, unless something in it has to be reported again: a secret, or how it is encoded."""
        path = source.path
        if chunks and source.text.encode() == source.data and path not in self._tree.wanted and "\n" not in path:
            self._kept[path] = f"{self._tree.states[path].digest} {rows_digest(chunks)}"

    def save(self) -> None:
        """Write what is known of the tree's files, if their collection's folder can be written to."""
        others = {path: known for path, known in self._known.items() if not self._tree.can_tell(path)}
        known = {**others, **self._kept}
        if self._file is not None and known != self._known:
            lines = (f"{digests} {path}" for path, digests in known.items())
            with suppress(OSError):
                self._file.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(self._file, "\n".join((self._version, *lines, "")), lasting=False)

    def _load(self) -> dict[str, str]:
        """Return path → the digests of its content and its rows, as they stand in a line.

        Line by line, so that what came with a checkout takes no more memory than its size explains.
        """
        known: dict[str, str] = {}
        if self._file is None:
            return known
        with suppress(OSError, ValueError), open_inside(self._file.parent, self._file.name) as file:
            # Only a line of another version is longer.
            is_ours = file.readline(len(self._version) + 1) == f"{self._version}\n".encode()
            if not is_ours or os.fstat(file.fileno()).st_size > MAX_OWN_BYTES:
                return {}
            for line in file:
                if line[_DIGEST : _DIGEST + 1] + line[_DIGESTS : _DIGESTS + 1] + line[-1:] != b"  \n":
                    return {}
                known[line[_DIGESTS + 1 : -1].decode()] = line[:_DIGESTS].decode()
            return known
        return {}


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
