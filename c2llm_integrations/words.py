"""A folder's files, read into a lexical index by a thread, and questions to as much of it as there is."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

from c2llm_integrations.code.chunking import chunk_source
from c2llm_integrations.code.repository import iter_sources, open_tree
from c2llm_integrations.errors import C2LLMError
from c2llm_integrations.lexical import LexicalIndex
from c2llm_integrations.search import find
from c2llm_integrations.stores.base import Hit

# Files are read again after so long, but reading takes at most one part in so many of the time.
OLD_SECONDS, OLD_FACTOR = 30.0, 20


class Words:
    """The words of a folder. `read` is set when the thread that reads it has ended."""

    def __init__(self, folder: Path) -> None:
        """Begin to read the folder."""
        self.read = threading.Event()
        self._folder = folder
        self._index = LexicalIndex()
        self._files = (0, 0)
        self._problem = ""
        self._begin = self._end = time.monotonic()
        threading.Thread(target=self._fill, name="c2llm-words", daemon=True).start()

    def search(self, question: str, limit: int, path: str | None = None, **options: Any) -> list[Hit]:
        """Answer as `search` does in mode "lexical", from what is read so far."""
        return find(question, None, self._index, limit=limit, path=path, **{**options, "mode": "lexical"})

    def is_old(self) -> bool:
        """Say whether the files may have changed so long ago that they should be read again."""
        age = time.monotonic() - self._end
        return self.read.is_set() and age > max(OLD_SECONDS, OLD_FACTOR * (self._end - self._begin))

    def notes(self) -> list[str]:
        """Say what is missing, in lines."""
        done, total = self._files
        notes = [self._problem] if self._problem else []
        if done < total:
            what = "held in memory" if self.read.is_set() else "read so far"
            notes.append(f"{done:,} of {total:,} files are {what}; the others are not searched yet")
        return notes

    def _fill(self) -> None:
        try:
            tree = open_tree(self._folder)
            for done, source in enumerate(iter_sources(tree)):
                self._files = (done, len(tree.files))
                if self._index.is_full:
                    return
                self._index.add(chunk_source(tree.name, source.path, source.text))
            self._files = (len(tree.files), len(tree.files))
        except C2LLMError as error:
            self._problem = str(error)
        finally:
            self._end = time.monotonic()
            self.read.set()
