"""How fast rows are stored and verified, in how much memory, and what storing adds to the time of embedding.

    python -m benchmarks.load_speed [--only edge qdrant million overlap half]

edge     Qdrant Edge, 100,000 rows x 256 of real code, dense and with terms (given like the vectors, and made): rows a
         second, verification included
qdrant   Qdrant in this process's memory, ours beside langchain-qdrant's add_texts
million  Qdrant Edge, 1,000,000 rows x 64: memory beside the interpreter's, and listing what an index run compares
overlap  an index run with nano over an installed package against the embedding of the same batches alone
half     the same with the 0.5B shape (random weights) and few chunks

Every figure comes from a process of its own, so that its peak memory is its own. Rows that are not asked for keep what
the result file says of them.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import shutil
import statistics
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import memory_mb, own_peak_mb, process, report, seconds
from c2llm_integrations.code.chunk import CodeChunk
from c2llm_integrations.code.chunking import chunk_source
from c2llm_integrations.code.lexical_terms import ANALYZER, document_terms
from c2llm_integrations.code.repository import iter_sources, open_tree
from c2llm_integrations.indexing.row_diff import StoredRows
from c2llm_integrations.stores import open_store, vector_store
from c2llm_integrations.stores.bulk_loader import load
from c2llm_integrations.stores.records import Row
from c2llm_integrations.stores.spec import CollectionSpec

# As many as an index run stores at once.
BATCH = 256
TOKENIZER = Path("tests/data/golden/c2llm-tiny-tied/tokenizer.json")


def package(name: str) -> Path:
    """The folder of an installed package."""
    spec = importlib.util.find_spec(name)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


def real_chunks() -> list[CodeChunk]:
    tree = open_tree(package("networkx"))
    return [chunk for s in iter_sources(tree) for chunk in chunk_source(tree.name, s.path, s.text)]


def batches(count: int, width: int, chunks: list[CodeChunk]) -> Iterator[list[Row]]:
    """`count` rows of those chunks, again and again under other paths, with random vectors."""
    random = np.random.default_rng(0)
    for start in range(0, count, BATCH):
        vectors = random.standard_normal((BATCH, width), np.float32)
        numbers = range(start, min(start + BATCH, count))
        yield [
            Row(_again(chunks[number % len(chunks)], number), vector)
            for number, vector in zip(numbers, vectors, strict=False)
        ]


def _again(chunk: CodeChunk, number: int) -> CodeChunk:
    # Random ids as real ones are; a hash of the text would be time that the loader does not take.
    key = np.random.default_rng(number).bytes(16)
    return replace(chunk, id=str(uuid.UUID(bytes=key)), path=f"copy_{number // 8_000}/{chunk.path}")


def edge(count: int, width: int, analyzer: str | None, *, terms_given: bool = False) -> dict[str, Any]:
    made = list(batches(count, width, real_chunks()))
    if terms_given:
        known = {
            (row.chunk.path, row.chunk.text): document_terms(row.chunk.path, row.chunk.text)
            for rows in made
            for row in rows
        }
        vector_store.document_terms = lambda path, text: known[path, text]  # type: ignore[attr-defined]
    folder = tempfile.mkdtemp()
    with open_store(f"qdrant+edge://{folder}") as store:
        store.create(CollectionSpec(width, {"model": "given"}, analyzer=analyzer))
        took = seconds(lambda: _load(store, iter(made)))
    shutil.rmtree(folder)
    return {"rows/s": count / took, "peak_mb": own_peak_mb()}


def _load(store: Any, made: Iterator[list[Row]]) -> None:
    with store.bulk():
        assert not load(made, store).refused


def million(count: int, width: int, analyzer: str | None) -> dict[str, Any]:
    chunks = real_chunks()
    begin, own = own_peak_mb(), memory_mb("RssAnon")
    folder = tempfile.mkdtemp()
    with open_store(f"qdrant+edge://{folder}") as store, Watch() as watch:
        store.create(CollectionSpec(width, {"model": "given"}, analyzer=analyzer))
        took = seconds(lambda: _load(store, batches(count, width, chunks)))
        added = watch.peak - own
        listed = seconds(lambda: StoredRows(store.scan()))
    shutil.rmtree(folder)
    return {
        "rows/s": count / took,
        "added_mb": added,
        "added_with_mapped_files_mb": own_peak_mb() - begin,
        "listing_s": listed,
        "listing_added_mb": watch.peak - own,
    }


class Watch(threading.Thread):
    """The peak of what only this process can give back, so without mapped files; looked at five times a second."""

    def __enter__(self) -> Watch:
        self.peak, self.done = memory_mb("RssAnon"), threading.Event()
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.done.set()
        self.join()

    def run(self) -> None:
        while not self.done.wait(0.2):
            self.peak = max(self.peak, memory_mb("RssAnon"))


def ours_in_memory(count: int, width: int) -> dict[str, Any]:
    made = list(batches(count, width, real_chunks()))
    with open_store("qdrant+memory://") as store:
        store.create(CollectionSpec(width, {"model": "given"}))
        begin = own_peak_mb()
        took = seconds(lambda: _load(store, iter(made)))
    return {"rows/s": count / took, "added_mb": own_peak_mb() - begin, "peak_mb": own_peak_mb()}


def langchain_in_memory(count: int, width: int) -> dict[str, Any]:
    from langchain_core.embeddings import Embeddings
    from langchain_qdrant import QdrantVectorStore
    from qdrant_client import QdrantClient, models

    made = list(batches(count, width, real_chunks()))

    class Given(Embeddings):
        """The vectors of the batch at hand."""

        def embed_documents(self, texts: list[str]) -> list[list[float]]:
            return [next(given) for _ in texts]

        def embed_query(self, text: str) -> list[float]:
            raise NotImplementedError

    client = QdrantClient(":memory:")
    client.create_collection("code", models.VectorParams(size=width, distance=models.Distance.COSINE))
    store = QdrantVectorStore(client, "code", Given(), validate_collection_config=False)
    begin = own_peak_mb()
    given: Iterator[list[float]] = (row.vector.tolist() for rows in made for row in rows)

    def run() -> None:
        for rows in made:
            chunks = [row.chunk for row in rows]
            store.add_texts(
                [chunk.text for chunk in chunks],
                [chunk.metadata for chunk in chunks],
                [chunk.id for chunk in chunks],
                batch_size=BATCH,
            )

    took = seconds(run)
    assert client.count("code").count == count
    return {"rows/s": count / took, "added_mb": own_peak_mb() - begin, "peak_mb": own_peak_mb()}


def overlap(model: str, folder: str, limit: int) -> dict[str, Any]:
    """An index run against embedding its batches alone, three times in turn."""
    from c2llm_integrations.indexing.ingest import ingest
    from c2llm_integrations.indexing.write_changes import BATCH_RECORDS
    from c2llm_integrations.model.embedder import C2LLMEmbedder

    embedder = C2LLMEmbedder.from_pretrained(model)
    root = Path(tempfile.mkdtemp()) / "tree"
    texts = _copy(Path(folder), root, limit)

    def embed() -> None:
        for start in range(0, len(texts), BATCH_RECORDS):
            embedder.encode_documents(texts[start : start + BATCH_RECORDS])

    def index() -> None:
        with tempfile.TemporaryDirectory() as place, open_store(f"qdrant+edge://{place}/store") as store:
            assert ingest(root, embedder, store).written == len(texts)

    embedder.encode_documents(texts[:8])
    pairs = [(both_times(embed), both_times(index)) for _ in range(3)]
    shutil.rmtree(root.parent)
    wall = [whole[0] / alone[0] for alone, whole in pairs]
    cpu = [whole[1] / alone[1] for alone, whole in pairs]
    return {
        "chunks": len(texts),
        "embedding_s": min(alone[0] for alone, _ in pairs),
        "index_s": min(whole[0] for _, whole in pairs),
        "ratio": statistics.median(wall),
        "cpu_ratio": statistics.median(cpu),
    }


def both_times(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds by the clock, and of computing on all cores."""
    begin = time.process_time()
    return seconds(work), time.process_time() - begin


def _copy(folder: Path, root: Path, limit: int) -> list[str]:
    """Copy source files until they hold `limit` chunks; return the chunks' texts in the order of a run."""
    tree, found = open_tree(folder), 0
    for source in iter_sources(tree):
        if found >= limit:
            break
        target = root / source.path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(source.text, encoding=source.encoding, newline="")
        found += len(list(chunk_source(tree.name, source.path, source.text)))
    again = open_tree(root)
    return [chunk.text for s in iter_sources(again) for chunk in chunk_source(again.name, s.path, s.text)]


def half_billion(limit: int) -> dict[str, Any]:
    from benchmarks.speed_sides import make_checkpoint

    with tempfile.TemporaryDirectory() as folder:
        make_checkpoint(Path(folder), TOKENIZER, "bfloat16")
        return overlap(folder, str(package("networkx")), limit)


CASES: dict[str, dict[str, Callable[[], dict[str, Any]]]] = {
    "edge": {
        "Edge, 100,000 x 256, dense": lambda: edge(100_000, 256, None),
        "Edge, 100,000 x 256, terms given": lambda: edge(100_000, 256, ANALYZER, terms_given=True),
        "Edge, 100,000 x 256, terms made of the text": lambda: edge(100_000, 256, ANALYZER),
    },
    "qdrant": {
        "Qdrant in memory, 20,000 x 256, ours": lambda: ours_in_memory(20_000, 256),
        "Qdrant in memory, 20,000 x 256, langchain-qdrant": lambda: langchain_in_memory(20_000, 256),
    },
    "million": {
        "Edge, 1,000,000 x 64, dense": lambda: million(1_000_000, 64, None),
        "Edge, 1,000,000 x 64, terms too": lambda: million(1_000_000, 64, ANALYZER),
    },
    "overlap": {"index run, nano": lambda: overlap("nano", str(package("networkx")), 4_000)},
    "half": {"index run, 0.5B shape": lambda: half_billion(48)},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        group, what = options.child
        print(json.dumps(CASES[group][what]()))
        return
    rows = []
    for group in options.only:
        for what in CASES[group]:
            done = process(sys.executable, "-m", "benchmarks.load_speed", "--child", group, what)
            measured = json.loads(done["output"].splitlines()[-1])
            rows.append({"what": what, **measured, "date": time.strftime("%Y-%m-%d")})
            print(rows[-1], flush=True)
    report("load_speed", rows, keep="what")


if __name__ == "__main__":
    main()
