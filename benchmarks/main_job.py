"""The main job with `nano`: tokens per second, indexing a real package, indexing it again, asking it.

python -m benchmarks.main_job [FOLDER]      (default: the installed networkx package)
"""

from __future__ import annotations

import importlib.util
import shutil
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.common import median, process, report, seconds

QUESTION = "shortest path between two nodes with weighted edges"


def embedding(root: Path) -> list[dict[str, Any]]:
    from c2llm_integrations.code.chunking import chunk_source
    from c2llm_integrations.code.repository import iter_sources, open_tree
    from c2llm_integrations.model.embedder import C2LLMEmbedder

    tree = open_tree(root)
    texts = [chunk.text for s in iter_sources(tree) for chunk in chunk_source(tree.name, s.path, s.text)]
    embedder = C2LLMEmbedder.from_pretrained("nano")
    rows = []
    for name, sample in (("as they come", texts[:2000]), ("longest", sorted(texts, key=len)[-500:])):
        before = embedder.tokens_seen
        embedder.encode_documents(sample)
        tokens = embedder.tokens_seen - before
        took = median(lambda sample=sample: embedder.encode_documents(sample))
        rows.append({"what": f"nano, chunks {name}", "value": tokens / took, "unit": "tokens/s"})
        rows.append({"what": f"nano, chunks {name}", "value": len(sample) / took, "unit": "chunks/s"})
    once = statistics.median(seconds(lambda: embedder.encode_queries([QUESTION])) for _ in range(50))
    return [*rows, {"what": "one query embedded", "value": once * 1000, "unit": "ms"}]


def commands(root: Path) -> list[dict[str, Any]]:
    from c2llm_integrations.model.embedder import C2LLMEmbedder
    from c2llm_integrations.retrieval.search import search
    from c2llm_integrations.stores import open_store

    c2llm = [sys.executable, "-m", "c2llm_integrations"]
    folder = tempfile.mkdtemp()
    store = f"qdrant+edge://{folder}/store"
    rows = []

    def row(what: str, done: dict[str, Any]) -> None:
        rows.append({"what": what, "value": done["seconds"], "unit": "s"})
        if "index" in what:  # a smaller process shows the peak of this one, which started it
            rows.append({"what": what, "value": done["peak_mb"], "unit": "MB peak"})

    try:
        row("c2llm index, first run", process(*c2llm, "index", str(root), "--store", store))
        row("c2llm index, nothing changed", process(*c2llm, "index", str(root), "--store", store))
        for what, command in (("c2llm --help", ["--help"]), ("c2llm search", ["search", QUESTION, "--store", store])):
            runs = [process(*c2llm, *command) for _ in range(5)]
            row(what, sorted(runs, key=lambda run: run["seconds"])[2])
        embedder = C2LLMEmbedder.from_pretrained("nano")
        with open_store(store) as opened:
            took = median(lambda: search(QUESTION, embedder, opened), runs=50)
        rows.append({"what": "search in a running process", "value": took * 1000, "unit": "ms"})
    finally:
        shutil.rmtree(folder)
    return rows


def main() -> None:
    spec = importlib.util.find_spec("networkx")
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(spec.origin).parent  # type: ignore[union-attr,arg-type]
    report("main_job", [*commands(root), *embedding(root)])


if __name__ == "__main__":
    main()
