"""Rank chunks by their terms in this process's memory, until there are vectors; nothing is stored.

A thread reads a folder's files into such an index; questions are answered from what it has read so far.
"""

from __future__ import annotations

import threading
import time
from array import array
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from c2llm_integrations.code.chunk import CodeChunk
from c2llm_integrations.code.chunking import chunk_source
from c2llm_integrations.code.lexical_terms import document_terms, sparse, sparse_query
from c2llm_integrations.code.parsing import ParseBudget
from c2llm_integrations.code.repository import iter_sources, open_tree
from c2llm_integrations.errors import reason_of
from c2llm_integrations.retrieval.options import SearchOptions
from c2llm_integrations.retrieval.search import find
from c2llm_integrations.stores.filter import Filter
from c2llm_integrations.stores.records import Candidates, Hit, Vector

# Bytes of source text, each of which takes about 6 bytes of memory here. A repository beyond it is answered from its
# first files until it has vectors.
MAX_BYTES = 32 * 2**20
# Files are read again after this many seconds, or this many times the time that reading took, if that is more.
OLD_SECONDS, OLD_FACTOR = 30.0, 20


class LexicalIndex:
    """BM25 over chunks, as the stores compute it. Chunks may be added during searches."""

    def __init__(self) -> None:
        self.bytes = 0
        self.changes = 0
        self._chunks: list[CodeChunk] = []
        self._places: defaultdict[int, array[int]] = defaultdict(lambda: array("I"))
        self._weights: defaultdict[int, array[float]] = defaultdict(lambda: array("f"))
        self._lock = threading.Lock()

    def add(self, chunks: Sequence[CodeChunk]) -> None:
        """Add chunks."""
        weighted = sparse([document_terms(chunk.path, chunk.text) for chunk in chunks])
        with self._lock:
            self.changes += 1
            for chunk, (terms, weights) in zip(chunks, weighted, strict=True):
                place = len(self._chunks)
                self._chunks.append(chunk)
                self.bytes += len(chunk.text)
                for term, weight in zip(terms, weights, strict=True):
                    self._places[term].append(place)
                    self._weights[term].append(weight)

    def scan(self, *, source: str | None = None) -> Iterator[CodeChunk]:
        """Yield the chunks (of one repository)."""
        for chunk in self._chunks[:]:
            if source in (None, chunk.repository):
                yield chunk

    def count(self, *, source: str | None = None) -> int:
        """Return how many chunks there are (of one repository)."""
        return sum(1 for _ in self.scan(source=source))

    def candidates(
        self, vector: Vector | None, terms: Sequence[str], limit: int, where: Filter | None = None
    ) -> Candidates:
        """Return the `limit` chunks that share most with `terms`; there are no vectors to compare."""
        with self._lock:
            total = len(self._chunks)
            scores = np.zeros(total)
            for term in sparse_query(terms)[0]:
                if term in self._places:
                    places = np.array(self._places[term])
                    rarity = np.log(1 + (total - len(places) + 0.5) / (len(places) + 0.5))
                    scores[places] += rarity * np.array(self._weights[term])
        wanted = where or Filter()
        hits: list[Hit] = []
        for place in np.argsort(-scores, kind="stable"):
            if scores[place] <= 0 or len(hits) == limit:
                break
            chunk = self._chunks[place]
            if wanted.matches(chunk.metadata):
                hits.append(Hit(chunk, float(scores[place])))
        return Candidates([], hits)


class FolderIndex:
    """The lexical index of a folder, filled by a thread. `read` is set when the thread has ended."""

    def __init__(self, folder: Path, expected_root: Path | None = None) -> None:
        """Begin to read the folder; `expected_root` as for `open_tree`."""
        self.read = threading.Event()
        self._folder, self._root = folder, expected_root
        self.index = LexicalIndex()
        self._files = (0, 0)
        self._problem = ""
        self._begin = self._end = time.monotonic()
        threading.Thread(target=self._fill, name="c2llm-folder-index", daemon=True).start()

    def search(self, question: str, options: SearchOptions) -> list[Hit]:
        """Answer as `search` does in mode "lexical", from what is read so far."""
        return find(question, None, self.index, replace(options, mode="lexical"))

    def is_old(self) -> bool:
        """Return whether the files were read so long ago that they should be read again."""
        age = time.monotonic() - self._end
        return self.read.is_set() and age > max(OLD_SECONDS, OLD_FACTOR * (self._end - self._begin))

    def notes(self) -> list[str]:
        """Return lines that say what is missing."""
        done, total = self._files
        notes = [self._problem] if self._problem else []
        if done < total:
            what = "held in memory" if self.read.is_set() else "read so far"
            notes.append(f"{done:,} of {total:,} files are {what}; the others are not searched yet")
        return notes

    def _fill(self) -> None:
        try:
            tree = open_tree(self._folder, expected_root=self._root)
            budget = ParseBudget()
            for done, source in enumerate(iter_sources(tree)):
                self._files = (done, len(tree.files))
                if self.index.bytes >= MAX_BYTES:
                    return
                self.index.add(chunk_source(tree.name, source.path, source.text, budget=budget))
            self._files = (len(tree.files), len(tree.files))
        except Exception as error:  # whatever a folder holds, questions are answered from what is read
            self._problem = reason_of(error)
        finally:
            self._end = time.monotonic()
            self.read.set()
