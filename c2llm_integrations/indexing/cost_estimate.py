"""Estimate what writing chunks would cost in tokens, time and disk, by embedding a sample of them."""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING

from c2llm_integrations._utils.sampling import Reservoir
from c2llm_integrations.code.chunk import CodeChunk
from c2llm_integrations.code.lexical_terms import document_terms
from c2llm_integrations.stores.vector_store import CollectionSpec

if TYPE_CHECKING:
    from c2llm_integrations.model.embedder import C2LLMEmbedder

# Chunks kept as a sample; 4, 8, 16, … of them are embedded until one group has taken this long.
SAMPLE_CHUNKS = 508
ENOUGH_SECONDS = 2.0
# Bytes that Qdrant Edge takes on disk, measured on 40,000 chunks of Python: for a row's id and indexed fields; for each
# of its different terms, a hash and a weight, stored and indexed. The other fields and the text, compressed, take about
# the text's own bytes.
ROW_BYTES, TERM_BYTES = 200, 14


@dataclass(frozen=True)
class Estimate:
    """The estimated cost of writing chunks, accurate to about a tenth.

    `store_bytes`: on disk, without the store's log and a graph; `minutes`: of embedding, on this machine as it is now.
    """

    tokens: int = 0
    store_bytes: int = 0
    tokens_per_second: float = 0.0
    minutes: float = 0.0


class Estimator:
    """Collect chunks one by one and keep a random sample of them."""

    def __init__(self, embedder: C2LLMEmbedder, spec: CollectionSpec) -> None:
        """Take the model, and the spec of the collection that the chunks would be written to."""
        self._embedder = embedder
        self._spec = spec
        self._rows = self._characters = self._bytes = 0
        self._sample = Reservoir[CodeChunk](SAMPLE_CHUNKS)

    def add(self, chunk: CodeChunk) -> None:
        """Count a chunk, and perhaps keep it in the sample."""
        self._rows += 1
        self._characters += len(chunk.text)
        self._bytes += len(chunk.text.encode(errors="replace"))
        self._sample.add(chunk)

    def estimate(self) -> Estimate:
        """Embed some of the sample and extrapolate to all chunks."""
        if not self._rows:
            return Estimate()
        tokens_per_character, characters_per_second = self._measure()
        tokens, seconds = tokens_per_character * self._characters, self._characters / characters_per_second
        return Estimate(round(tokens), self._store_bytes(), tokens / seconds, seconds / 60)

    def _measure(self) -> tuple[float, float]:
        """Return tokens per character, 0 for a server that does not count, and characters per second at last."""
        embedder = self._embedder
        sample = self._sample.items
        embedder.encode_documents([sample[0].text])  # the first call also sets up
        before, start, size = embedder.tokens_seen, 0, 4
        characters, rate, took = 0, 0.0, 0.0
        while start < len(sample) and took < ENOUGH_SECONDS:
            texts = [chunk.text for chunk in sample[start : start + size]]
            begin = perf_counter()
            embedder.encode_documents(texts)
            took = perf_counter() - begin
            read = sum(map(len, texts))
            rate, characters = read / took, characters + read
            start, size = start + size, 2 * size
        return (embedder.tokens_seen - before) / max(1, characters), rate

    def _store_bytes(self) -> int:
        spec, sample = self._spec, self._sample.items
        terms = 0.0
        if spec.analyzer is not None:
            terms = sum(len(set(document_terms(chunk.path, chunk.text))) for chunk in sample) / len(sample)
        return round(self._rows * (spec.plan.bytes_per_vector + ROW_BYTES + TERM_BYTES * terms)) + self._bytes
