"""SIGKILL at random moments: nothing acknowledged is lost, and nothing half made is left for ever."""

from __future__ import annotations

import random
import subprocess
import sys
import time
import uuid
from pathlib import Path

import numpy as np

from c2llm_integrations.stores.base import CollectionSpec
from c2llm_integrations.stores.qdrant_edge import QdrantEdgeStore

KILLS = 5
BATCH = 100
SPEC = CollectionSpec(32, {"weights": "abc"})

COMMON = """
import sys, uuid
import numpy as np
from c2llm_integrations.code.chunk import CodeChunk
from c2llm_integrations.stores.base import CollectionSpec, Row
from c2llm_integrations.stores.qdrant_edge import QdrantEdgeStore

root, start = sys.argv[1], int(sys.argv[2])
spec = CollectionSpec(32, {"weights": "abc"})

def rows(batch, size=100):
    for i in range(batch * size, batch * size + size):
        id = str(uuid.uuid5(uuid.NAMESPACE_OID, str(i)))
        vector = np.random.default_rng(i).standard_normal(32).astype(np.float32)
        chunk = CodeChunk(id, "repo", f"f{i // 10}.py", "python", f"s{i}", "function", i, i + 1, "x = 1\\n" * 50)
        yield Row(chunk, vector)
"""

WRITE = """
store = QdrantEdgeStore(root)
store.create(spec)
for batch in range(start, start + 10_000):
    store.upsert(list(rows(batch)))
    print("upsert", batch, flush=True)
    if batch % 3 == 0:
        store.delete([row.chunk.id for row in rows(batch)][:10])
        print("delete", batch, flush=True)
    if batch % 7 == 0:
        store.optimize()
"""

REMAKE = """
for batch in range(10_000):
    store = QdrantEdgeStore(root)
    store.create(spec)
    store.upsert(list(rows(0, 5)))
    store.claim("repo", str(batch))
    store.drop() if batch % 2 else store.close()
    print("round", batch, flush=True)
    store.close()
"""


def run_and_kill(program: str, root: Path, start: int, after: float) -> list[tuple[str, int]]:
    """Run a program until `after` seconds past its first line, kill it, and return the lines it printed."""
    command = [sys.executable, "-c", COMMON + program, str(root), str(start)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        time.sleep(after)
        process.kill()
        lines = [first, *process.stdout]
    # A line cut by the kill was not an acknowledgement.
    done = [line.split() for line in lines if line.endswith("\n")]
    return [(what, int(batch)) for what, batch in done]


def test_no_acknowledged_batch_is_lost(tmp_path: Path) -> None:
    moments = random.Random(7)
    upserted: set[int] = set()
    deleted: set[int] = set()
    for _ in range(KILLS):
        lines = run_and_kill(WRITE, tmp_path, max(upserted, default=-1) + 1, moments.uniform(0.0, 0.5))
        upserted |= {batch for what, batch in lines if what == "upsert"}
        deleted |= {batch for what, batch in lines if what == "delete"}
        with QdrantEdgeStore(tmp_path) as store:
            held = {row.id: row for row in store.scan()}
            assert store.count() == len(held)
            for batch in upserted:
                wanted = numbers(batch)[10:] if batch % 3 == 0 else numbers(batch)
                assert {id_of(i) for i in wanted} <= held.keys()
            for batch in deleted:
                assert not {id_of(i) for i in numbers(batch)[:10]} & held.keys()
            check_last(store, max(upserted))
    assert len(upserted) >= KILLS


def check_last(store: QdrantEdgeStore, batch: int) -> None:
    """The newest rows are those at risk: their vectors and payloads must be whole."""
    wanted = numbers(batch)[10:]
    vectors = store.vectors([id_of(i) for i in wanted])
    for i in wanted:
        vector = np.random.default_rng(i).standard_normal(32).astype(np.float32)
        np.testing.assert_allclose(vectors[id_of(i)], vector / np.linalg.norm(vector), atol=1e-6)
    [hit] = store.search(vectors[id_of(wanted[-1])], 1)
    assert (hit.chunk.id, hit.chunk.start_line, hit.chunk.text) == (id_of(wanted[-1]), wanted[-1], "x = 1\n" * 50)


def numbers(batch: int) -> list[int]:
    return list(range(batch * BATCH, (batch + 1) * BATCH))


def id_of(number: int) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_OID, str(number)))


def test_a_kill_while_making_or_dropping_leaves_a_collection_or_none(tmp_path: Path) -> None:
    moments = random.Random(11)
    for _ in range(KILLS):
        run_and_kill(REMAKE, tmp_path, 0, moments.uniform(0.0, 0.3))
        with QdrantEdgeStore(tmp_path) as store:
            assert store.spec in (None, SPEC)
            assert store.count() in (0, 5)
            store.create(SPEC)
            assert store.count() in (0, 5)
            store.drop()
        assert {child.name for child in tmp_path.iterdir()} == {".gitignore", ".code.lock"}
