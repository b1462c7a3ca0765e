"""A small page on this machine over the same search: a question, its hits, and where in them the model looked."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from c2llm_integrations.code.chunk import KINDS, CodeChunk
from c2llm_integrations.code.terms import query_terms
from c2llm_integrations.errors import InputError
from c2llm_integrations.picture import highlighted, weighted
from c2llm_integrations.search import search, spec_of
from c2llm_integrations.stores.base import Hit, VectorStore

if TYPE_CHECKING:
    from c2llm_integrations.embedder import C2LLMEmbedder

MAX_HITS = 100
# Hits whose attention can be asked for; older ones are found again by searching again.
REMEMBERED = 1_000


class Browser:
    """What the page asks for. Calls may come from many threads."""

    def __init__(self, store: VectorStore, embedder: C2LLMEmbedder, look: Callable[[], list[str]] = list) -> None:
        """`look` returns lines about the freshness of the answers.

        Raises StoreError while nothing is indexed, SpecMismatch if the collection was made with another model.
        """
        spec_of(store).require_model(embedder.output_dim, embedder.fingerprint)
        self._store = store
        self._embedder = embedder
        self._look = look
        self._shown: OrderedDict[str, CodeChunk] = OrderedDict()
        self._lock = threading.Lock()

    def about(self) -> dict[str, Any]:
        """Return the repositories there are, and a line about the collection."""
        names = sorted(self._store.claims())
        rows, model = self._store.count(), self._embedder.fingerprint["model"]
        return {
            "repositories": names,
            "kinds": sorted(KINDS),
            "text": f"{rows:,} rows in {self._store.url}, model {model}",
        }

    def search(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Return the hits of a question, ready to be shown; raises InputError for one that cannot be answered."""
        question = _text(asked, "query")
        filters: dict[str, Any] = {
            name: _text(asked, name).strip() or None for name in ("language", "path", "repository", "kind")
        }
        mode: Any = _text(asked, "mode") or "hybrid"
        limit = _text(asked, "limit") or "10"
        if not (limit.isascii() and limit.isdigit() and 1 <= int(limit[:9]) <= MAX_HITS):
            raise InputError(f"the number of hits is {limit[:20]!r}, must be 1 to {MAX_HITS}")
        hits = search(question, self._embedder, self._store, limit=int(limit), mode=mode, **filters)
        with self._lock:
            for hit in hits:
                self._shown[hit.chunk.id] = hit.chunk
                self._shown.move_to_end(hit.chunk.id)
            while len(self._shown) > REMEMBERED:
                self._shown.popitem(last=False)
        terms = query_terms(question)
        return {"hits": [_hit(hit, terms) for hit in hits], "notes": self._look()}

    def attention(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Return the lines of a hit that was shown, each token by the weight that PMA gave it."""
        with self._lock:
            chunk = self._shown.get(_text(asked, "id"))
        if chunk is None:
            raise InputError("this hit is not known any more; search again")
        weights = self._embedder.attention(chunk.text)
        return {"lines": weighted(chunk.text, weights), "share": _share([weight for *_, weight in weights])}


def _hit(hit: Hit, terms: list[str]) -> dict[str, Any]:
    chunk = hit.chunk
    return {
        "id": chunk.id,
        "place": f"{chunk.path}:{chunk.start_line}-{chunk.end_line}",
        "what": " ".join(part for part in (chunk.kind, chunk.symbol, f"· {chunk.repository}") if part),
        "score": f"{hit.score:.3f}",
        "explanation": [(name, f"{value:+.4f}") for name, value in hit.explanation.items()],
        "start_line": chunk.start_line,
        "lines": highlighted(chunk.path, chunk.text, terms),
    }


def _share(weights: list[float]) -> str:
    if not weights:
        return "nothing of it was read"
    total = sum(weights)
    least, most = (len(weights) * edge / total for edge in (min(weights), max(weights)))
    return f"tokens weigh {least:.2f} to {most:.2f} of an even share; {total:.0%} of all weight lies on this code"


def _text(asked: Mapping[str, Any], name: str) -> str:
    value = asked.get(name, "")
    if not isinstance(value, str):
        raise InputError(f"{name} is a {type(value).__name__}, expected text")
    return value
