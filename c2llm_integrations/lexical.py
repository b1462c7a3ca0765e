"""Chunks ranked by their terms in this process's memory: answers until there are vectors, and stores nothing."""

from __future__ import annotations

import threading
from array import array
from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from c2llm_integrations.code.chunk import CodeChunk
from c2llm_integrations.code.terms import document_terms, sparse, sparse_query
from c2llm_integrations.stores.rows import Candidates, Filter, Hit, Vector

# Bytes of source text, each of which takes about 6 bytes of memory here. A repository beyond it is answered from its
# first files until it has vectors.
MAX_BYTES = 32 * 2**20


class LexicalIndex:
    """BM25 over chunks, as the stores compute it. Chunks may be added while others search."""

    def __init__(self) -> None:
        self.bytes = 0
        self._chunks: list[CodeChunk] = []
        self._places: defaultdict[int, array[int]] = defaultdict(lambda: array("I"))
        self._weights: defaultdict[int, array[float]] = defaultdict(lambda: array("f"))
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """How many chunks there are."""
        return len(self._chunks)

    @property
    def is_full(self) -> bool:
        """Whether `MAX_BYTES` are reached."""
        return self.bytes >= MAX_BYTES

    def add(self, chunks: Sequence[CodeChunk]) -> None:
        """Take chunks in."""
        weighted = sparse([document_terms(chunk.path, chunk.text) for chunk in chunks])
        with self._lock:
            for chunk, (terms, weights) in zip(chunks, weighted, strict=True):
                place = len(self._chunks)
                self._chunks.append(chunk)
                self.bytes += len(chunk.text)
                for term, weight in zip(terms, weights, strict=True):
                    self._places[term].append(place)
                    self._weights[term].append(weight)

    def scan(self, repository: str | None = None) -> Iterator[CodeChunk]:
        """Yield the chunks (of one repository)."""
        for chunk in self._chunks[:]:
            if repository in (None, chunk.repository):
                yield chunk

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
        wanted = (where or Filter()).conditions()
        hits: list[Hit] = []
        for place in np.argsort(-scores, kind="stable"):
            if scores[place] <= 0 or len(hits) == limit:
                break
            chunk = self._chunks[place]
            if all(getattr(chunk, name) in values for name, values in wanted.items()):
                hits.append(Hit(chunk, float(scores[place])))
        return Candidates([], hits)
