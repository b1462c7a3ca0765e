"""What LangChain's and LlamaIndex's classes cost beside the embedder, and how long they keep an event loop waiting.

python -m benchmarks.frameworks [MODEL [TEXTS]]      (default: nano 2000)
"""

from __future__ import annotations

import asyncio
import importlib.util
import statistics
import sys
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from benchmarks.common import report, seconds
from c2llm_integrations.code.chunking import chunk_source
from c2llm_integrations.code.repository import iter_sources, open_tree
from c2llm_integrations.langchain import C2LLMEmbeddings
from c2llm_integrations.llama_index import C2LLMEmbedding

RUNS = 5
QUERY_RUNS = 20  # of a fifth of a second each


def some_texts(count: int) -> list[str]:
    """Chunks of the installed networkx package, in order."""
    spec = importlib.util.find_spec("networkx")
    assert spec is not None
    assert spec.origin is not None
    tree = open_tree(Path(spec.origin).parent)
    return [chunk.text for s in iter_sources(tree) for chunk in chunk_source(tree.name, s.path, s.text)][:count]


async def longest_stall(work: Coroutine[Any, Any, Any]) -> float:
    """Seconds that the loop was kept from a task that only sleeps."""
    running = asyncio.ensure_future(work)
    longest, last = 0.0, time.perf_counter()
    while not running.done():
        await asyncio.sleep(0.001)
        longest, last = max(longest, time.perf_counter() - last), time.perf_counter()
    await running
    return longest


async def at_once(embeddings: C2LLMEmbeddings, queries: list[str]) -> None:
    await asyncio.gather(*(embeddings.aembed_query(query) for query in queries))


async def in_sequence(embeddings: C2LLMEmbeddings, queries: list[str]) -> None:
    for query in queries:
        await embeddings.aembed_query(query)


def main(model: str, count: int) -> None:
    texts = some_texts(count)
    queries = [f"where is graph number {n} read from a file?" for n in range(64)]
    langchain, llama = C2LLMEmbeddings(model=model), C2LLMEmbedding(model_name=model)
    embedder = langchain.shared.embedder
    ways = {
        "the embedder": lambda: embedder.encode_documents(texts),
        "LangChain embed_documents": lambda: langchain.embed_documents(texts),
        "LlamaIndex get_text_embedding_batch": lambda: llama.get_text_embedding_batch(texts),
    }
    for way in ways.values():
        way()
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(RUNS):  # in turn, so that a slow minute of the machine hits all alike
        for name, way in ways.items():
            taken[name].append(seconds(way))
    own = taken["the embedder"]
    rows = [
        {
            "what": f"{len(texts)} texts, {name}",
            "seconds": statistics.median(times),
            "ratio": statistics.median(time / beside for time, beside in zip(times, own, strict=True)),
        }
        for name, times in taken.items()
    ]
    pairs = [
        [seconds(lambda ask=ask: asyncio.run(ask(langchain, queries))) for ask in (in_sequence, at_once)]
        for _ in range(QUERY_RUNS)
    ]
    slow, fast = (statistics.median(column) for column in zip(*pairs, strict=True))
    rows.append({"what": "64 queries, one after the other", "seconds": slow, "ratio": 1.0})
    gain = statistics.median(together / alone for alone, together in pairs)
    rows.append({"what": "64 queries, at once", "seconds": fast, "ratio": gain})
    for name, work in (
        ("LangChain", lambda: langchain.aembed_documents(texts[: len(texts) // 2])),
        ("LlamaIndex", lambda: llama.aget_text_embedding_batch(texts[: len(texts) // 2])),
    ):
        stalls = [asyncio.run(longest_stall(work())) for _ in range(RUNS)]
        # The best run, because what another process takes from this machine stalls the loop too.
        rows.append({"what": f"longest stall of a loop, {len(texts) // 2} texts, {name}", "seconds": min(stalls)})
    report("frameworks", rows)


if __name__ == "__main__":
    model, count = [*sys.argv[1:], *("nano", "2000")[len(sys.argv) - 1 :]]
    main(model, int(count))
