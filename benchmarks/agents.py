"""What an agent or a watcher waits for: the look at the tree before an answer, and a server's first answers.

python -m benchmarks.agents [FILES]      (default: 10000, of which the look is taken; the server reads 1 MB)
"""

from __future__ import annotations

import asyncio
import importlib.util
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from mcp import Client, StdioServerParameters, stdio_client

from benchmarks.common import report, seconds
from c2llm_integrations.code.chunking import chunk_source
from c2llm_integrations.code.repository import checkout_id, iter_sources, open_tree
from c2llm_integrations.indexing.file_states import SnapshotWriter
from c2llm_integrations.indexing.staleness import stale
from c2llm_integrations.stores import open_store
from c2llm_integrations.stores.records import Row
from c2llm_integrations.stores.spec import CollectionSpec

RUNS = 30
QUESTIONS = ("how is PageRank computed?", "shortest path between two nodes", "find_cliques")


def make_tree(root: Path, files: int) -> None:
    """A git repository of small files, ten to a folder."""
    for number in range(files):
        file = root / f"package_{number // 100}" / f"part_{number // 10 % 10}" / f"module_{number}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"def function_{number}(value):\n    return value * {number}\n")
    for command in (["init", "-q"], ["add", "-A"], ["-c", "user.name=n", "-c", "user.email=e", "commit", "-qm", "all"]):
        subprocess.run(["git", "-C", str(root), *command], check=True)


def look(root: Path) -> list[float]:
    """Seconds of each look at a tree that has not changed."""
    with open_store(f"qdrant+edge://{root / '.c2llm'}") as store:
        tree = open_tree(root)
        store.create(CollectionSpec(2, {"model": "none"}))
        store.claim(tree.name, checkout_id(root))
        with SnapshotWriter(tree, store) as snapshot:
            chunks = [chunk for one in iter_sources(tree) for chunk in chunk_source(tree.name, one.path, one.text)]
            store.upsert([Row(chunk, np.ones(2, np.float32)) for chunk in chunks])
            snapshot.finish(store.count(source=tree.name))
        taken = []
        for _ in range(RUNS + 1):
            begin = time.perf_counter()
            assert stale(root, store, patience=60) is None
            taken.append(time.perf_counter() - begin)
    return taken[1:]  # the first one reads what was written just before it was indexed


def copy_sources(root: Path, size: int) -> int:
    """Copy files of the installed networkx package, of 3 KB and more, up to `size` bytes; return how many."""
    spec = importlib.util.find_spec("networkx")
    assert spec is not None
    assert spec.origin is not None
    source, copied = Path(spec.origin).parent, 0
    for file in sorted(source.rglob("*.py")):
        if 3_000 <= file.stat().st_size <= size:
            target = root / file.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
            size, copied = size - file.stat().st_size, copied + 1
    return copied


def ask(root: Path) -> float:
    """Seconds of the command that indexes a checkout and answers a question, starting with nothing."""

    def run() -> None:
        shutil.rmtree(root / ".c2llm", ignore_errors=True)
        command = [sys.executable, "-m", "c2llm_integrations", "search", "--index", QUESTIONS[0]]
        subprocess.run(command, cwd=root, check=True, capture_output=True)

    return statistics.median(seconds(run) for _ in range(3))


async def serve(root: Path) -> dict[str, float]:
    """Seconds from starting a server to its first answer and to vectors, and of a question then."""
    begin = time.perf_counter()
    parameters = StdioServerParameters(command=sys.executable, args=["-m", "c2llm_integrations", "mcp", str(root)])
    async with Client(stdio_client(parameters)) as client:
        await client.call_tool("search_code", {"query": QUESTIONS[0]})
        first = time.perf_counter() - begin
        while "vectors and words" not in (await client.call_tool("index_status", {})).content[0].text:
            await asyncio.sleep(0.2)
        vectors = time.perf_counter() - begin
        await client.call_tool("search_code", {"query": QUESTIONS[0]})
        taken = []
        for number in range(RUNS):
            asked = time.perf_counter()
            await client.call_tool("search_code", {"query": QUESTIONS[number % 3]})
            taken.append(time.perf_counter() - asked)
    return {"first": first, "vectors": vectors, "question": statistics.median(taken)}


def main(files: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "tree"
        make_tree(root, files)
        taken = look(root)
        sources = Path(folder) / "sources"
        copied = copy_sources(sources, 10**6)
        served = asyncio.run(serve(sources))
        asked = ask(sources)
    report(
        "agents",
        [
            {
                "what": f"look at {files:,} unchanged files, median",
                "takes": 1000 * statistics.median(taken),
                "unit": "ms",
            },
            {"what": f"look at {files:,} unchanged files, best", "takes": 1000 * min(taken), "unit": "ms"},
            {"what": f"index {copied} files, 1 MB, and answer", "takes": asked, "unit": "s"},
            {"what": f"first answer of a server on {copied} files, 1 MB", "takes": served["first"], "unit": "s"},
            {"what": "until it answers from vectors", "takes": served["vectors"], "unit": "s"},
            {"what": "a question then, median", "takes": 1000 * served["question"], "unit": "ms"},
        ],
    )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
