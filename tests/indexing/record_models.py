"""Records to load, an embedder that counts, and what a collection then holds."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from c2llm_integrations.stores.vector_store import VectorStore

WIDTH = 16


class CountingEmbedder:
    """Gives each text a vector of its own, and remembers which texts it was asked for."""

    output_dim = WIDTH
    tokens_seen = 0
    texts_cut = 0

    def __init__(self) -> None:
        self.fingerprint = {"model": "counting"}
        self.embedded: list[str] = []

    def encode_documents(self, texts: Sequence[str], progress: Any = None) -> NDArray[np.float32]:
        """Return one unit vector a text."""
        self.embedded += texts
        self.tokens_seen += sum(map(len, texts))
        return vectors_of(texts)


def vectors_of(texts: Sequence[str]) -> NDArray[np.float32]:
    """One unit vector a text, the same in every process."""
    seeds = (int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") for text in texts)
    vectors = np.array([np.random.default_rng(seed).standard_normal(WIDTH) for seed in seeds], np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def held(store: VectorStore, source: str) -> dict[Any, tuple[str, dict[str, Any]]]:
    """Return id → text and metadata of a source's rows, after a look at each vector."""
    rows = list(store.rows(source=source))
    if rows:
        found = np.array([row.vector for row in rows])
        np.testing.assert_allclose(found, vectors_of([row.record.text for row in rows]), atol=1e-3)
    return {row.record.id: (row.record.text, dict(row.record.metadata)) for row in rows}
