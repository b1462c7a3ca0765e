"""Index runs in processes of their own, a tree to run over in versions, and what a collection then holds."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from c2llm_integrations.stores import open_store

ROOT = Path(__file__).parents[1]

# The same call `c2llm index` makes; small batches, so that there are many moments to go wrong at.
RUN = """
import sys, torch
from c2llm_integrations.indexing import ingest as module, write_changes
from c2llm_integrations.model.embedder import C2LLMEmbedder
from c2llm_integrations.stores import open_store
torch.set_num_threads(1)
write_changes.BATCH_RECORDS = 4
repo, url, model, *options = sys.argv[1:]
embedder = C2LLMEmbedder.from_pretrained(model, dtype="float32")
with open_store(url) as store:
    print("ready", flush=True)
    report = module.ingest(
        repo, embedder, store, replace="--replace" in options, progress=lambda *step: print(*step, flush=True)
    )
print("done", report.written, report.deleted, report.replaced, flush=True)
"""


def start(repo, url, model, *options, machine="this"):
    """Begin a run, which prints "ready", a line for each file, and what it did.

    Runs on one `machine` know of each other, because they share the user's cache.
    """
    command = [sys.executable, "-c", RUN, str(repo), url, str(model), *options]
    environment = {**os.environ, "XDG_CACHE_HOME": str(repo.parent / f"cache of {machine}")}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment)


def kill(process, lines):
    """End a run at a random moment of its first `lines` lines, or soon after; say whether it was still running."""
    assert process.stdout.readline() == "ready\n"
    for _ in range(random.randint(0, lines)):
        process.stdout.readline()
    time.sleep(random.random() * 0.05)
    process.send_signal(signal.SIGKILL)
    process.stdout.close()
    return process.wait() == -signal.SIGKILL


def finish(process):
    """Wait for a run and return how many rows it wrote and deleted, and whether it replaced the collection."""
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    _, written, deleted, replaced = output.splitlines()[-1].split()
    return int(written), int(deleted), replaced == "True"


def contents(store):
    """Every row but its vector, sorted by id, and the vectors in that order."""
    rows = sorted(store.scan(), key=lambda row: row.id)
    vectors = store.vectors([row.id for row in rows])
    assert store.count() == len(rows) == len(vectors)
    return rows, np.array([vectors[row.id] for row in rows])


def contents_at(url, collection="code"):
    """The same of a collection that is not open."""
    with open_store(url, collection) as store:
        return contents(store)


def assert_equal(found, wanted):
    """Nothing lost, nothing twice, nothing stale."""
    assert found[0] == wanted[0]
    np.testing.assert_allclose(found[1], wanted[1], atol=1e-5)


def write_tree(root, version, files=40):
    """Write a tree of three functions a file; each version edits some files, moves parts of others, deletes some."""
    root.mkdir(parents=True, exist_ok=True)
    for number in range(files):
        if number % 7 == version % 7:
            (root / f"file_{number}.py").unlink(missing_ok=True)
            continue
        body = "\n".join(f"    value_{line} = compute({line}, {number})" for line in range(12))
        extra = f"# version {version}\n" if number % 5 == version % 5 else ""
        text = extra + "".join(f"def task_{number}_{part}(x):\n{body}\n    return x\n\n\n" for part in range(3))
        (root / f"file_{number}.py").write_text(text)
    return root
