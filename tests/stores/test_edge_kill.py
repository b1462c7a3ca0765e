"""SIGKILL at random moments: nothing acknowledged is lost, and nothing half made is left for ever."""

from __future__ import annotations

import random
import subprocess
import sys
import time
import uuid
from pathlib import Path

import numpy as np
import pytest

from c2llm_integrations.code.lexical_terms import ANALYZER, query_terms
from c2llm_integrations.stores.qdrant.edge import QdrantEdgeStore
from c2llm_integrations.stores.spec import CollectionSpec
from tests.repeats import KILLS

pytestmark = pytest.mark.slow

BATCH = 100
SPECS = {
    "plain": CollectionSpec(32, {"weights": "abc"}),
    "lexical": CollectionSpec(32, {"weights": "abc"}, analyzer=ANALYZER),
    "coded": CollectionSpec(32, {"weights": "abc"}, quantization="binary", rescore=10.0, analyzer=ANALYZER),
}

# Segments are rewritten after so little that it happens all the time.
COMMON = """
import sys, uuid
import numpy as np
from c2llm_integrations.code.chunk import CodeChunk
from c2llm_integrations.stores.qdrant import edge, edge_conversions
from c2llm_integrations.stores.vector_store import Row
from tests.stores.test_edge_kill import SPECS

root, start, spec = sys.argv[1], int(sys.argv[2]), SPECS[sys.argv[3]]
edge_conversions.LEXICAL_ROWS = edge_conversions.CODED_ROWS = 100
edge.TIDY_ROWS = 300

def rows(batch, size=100):
    for i in range(batch * size, batch * size + size):
        id = str(uuid.uuid5(uuid.NAMESPACE_OID, str(i)))
        vector = np.random.default_rng(i).standard_normal(32).astype(np.float32)
        text = f"def only_{i}():\\n" + "    x = 1\\n" * 50
        yield Row(CodeChunk(id, "repo", f"f{i // 10}.py", "python", f"s{i}", "function", i, i + 1, text), vector)
"""

WRITE = """
store = edge.QdrantEdgeStore(root)
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
    store = edge.QdrantEdgeStore(root)
    store.create(spec)
    store.upsert(list(rows(0, 5)))
    store.claim("repo", str(batch))
    store.drop() if batch % 2 else store.close()
    print("round", batch, flush=True)
    store.close()
"""

REPLACE = """
store = edge.QdrantEdgeStore(root)
store.create(spec)
for batch in range(start, start + 10_000):
    successor = store.successor()
    successor.drop()
    successor.create(spec)
    successor.upsert(list(rows(batch)))
    successor.claim("batch", str(batch))
    store.replace_by(successor)
    print("replaced", batch, flush=True)
"""


def run_and_kill(program: str, root: Path, start: int, kind: str, after: float) -> list[tuple[str, int]]:
    """Run a program until `after` seconds past its first line, kill it, and return the lines it printed."""
    command = [sys.executable, "-c", COMMON + program, str(root), str(start), kind]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        time.sleep(after)
        process.kill()
        lines = [first, *process.stdout]
    # A line cut by the kill was not an acknowledgement.
    done = [line.split() for line in lines if line.endswith("\n")]
    return [(what, int(batch)) for what, batch in done]


@pytest.mark.parametrize("kind", SPECS)
def test_no_acknowledged_batch_is_lost(quick_path: Path, kind: str) -> None:
    moments = random.Random(7)
    upserted: set[int] = set()
    deleted: set[int] = set()
    for _ in range(KILLS):
        lines = run_and_kill(WRITE, quick_path, max(upserted, default=-1) + 1, kind, moments.uniform(0.0, 0.5))
        upserted |= {batch for what, batch in lines if what == "upsert"}
        deleted |= {batch for what, batch in lines if what == "delete"}
        with QdrantEdgeStore(quick_path) as store:
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
    """The newest rows are those at risk: their vectors, terms and payloads must be whole."""
    wanted = numbers(batch)[10:]
    vectors = store.vectors([id_of(i) for i in wanted])
    for i in wanted:
        vector = np.random.default_rng(i).standard_normal(32).astype(np.float32)
        np.testing.assert_allclose(vectors[id_of(i)], vector / np.linalg.norm(vector), atol=1e-6)
    last = wanted[-1]
    found = store.candidates(vectors[id_of(last)], query_terms(f"only_{last}"), 1)
    spec = store.spec
    for hits in [found.dense, found.lexical] if spec and spec.analyzer else [found.dense]:
        [hit] = hits
        assert (hit.chunk.id, hit.chunk.start_line) == (id_of(last), last)
        assert hit.chunk.text == f"def only_{last}():\n" + "    x = 1\n" * 50


def numbers(batch: int) -> list[int]:
    return list(range(batch * BATCH, (batch + 1) * BATCH))


def id_of(number: int) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_OID, str(number)))


def test_a_kill_while_making_or_dropping_leaves_a_collection_or_none(quick_path: Path) -> None:
    moments = random.Random(11)
    for _ in range(KILLS):
        run_and_kill(REMAKE, quick_path, 0, "coded", moments.uniform(0.0, 0.3))
        with QdrantEdgeStore(quick_path) as store:
            assert store.spec in (None, SPECS["coded"])
            assert store.count() in (0, 5)
            store.create(SPECS["coded"])
            assert store.count() in (0, 5)
            store.drop()
        assert {child.name for child in quick_path.iterdir()} == {".gitignore", ".code.lock"}


def test_a_kill_while_replacing_leaves_the_old_rows_or_the_new_ones(quick_path: Path) -> None:
    moments = random.Random(13)
    last = -1
    for _ in range(KILLS):
        lines = run_and_kill(REPLACE, quick_path, last + 1, "lexical", moments.uniform(0.0, 0.3))
        acknowledged = max((batch for _, batch in lines), default=last)
        with QdrantEdgeStore(quick_path) as store:
            last = int(store.claims()["batch"])
            assert last in (acknowledged, acknowledged + 1)
            assert {row.id for row in store.scan()} == {id_of(i) for i in numbers(last)}
            check_last(store, last)
            # What the killed run had begun may be gone on with, and nothing else takes room.
            begun = store.successor().spec is not None
            shards = [child for child in (quick_path / "code").iterdir() if child.is_dir()]
            assert len(shards) == 1 + begun
