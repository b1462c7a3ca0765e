"""SIGKILL at any moment, then run again: exactly the collection of an undisturbed run."""

import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from c2llm_integrations.stores import open_store
from tests.golden import TIED

KILLS = int(os.environ.get("C2LLM_KILLS", "6"))

# The same call `c2llm index` makes; small batches, so that there are many moments to be killed at.
RUN = """
import sys, torch
from c2llm_integrations import ingest as module
from c2llm_integrations.embedder import C2LLMEmbedder
from c2llm_integrations.stores import open_store
torch.set_num_threads(1)
module.BATCH = 4
embedder = C2LLMEmbedder.from_pretrained(sys.argv[3], dtype="float32")
with open_store("qdrant+edge://" + sys.argv[2]) as store:
    print("ready", flush=True)
    report = module.ingest(sys.argv[1], embedder, store, progress=lambda *step: print(*step, flush=True))
print("done", report.written, report.deleted, flush=True)
"""


def start(repo, store):
    return subprocess.Popen(
        [sys.executable, "-c", RUN, str(repo), str(store), str(TIED)], stdout=subprocess.PIPE, text=True
    )


def finish(repo, store):
    process = start(repo, store)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    return output.splitlines()[-1].split()


def contents(store):
    with open_store(f"qdrant+edge://{store}") as opened:
        rows = sorted(opened.scan(), key=lambda row: row.id)
        vectors = opened.vectors([row.id for row in rows])
        assert opened.count() == len(rows) == len(vectors)
        return rows, np.array([vectors[row.id] for row in rows])


def write_tree(repo, version):
    for number in range(40):
        if number % 7 == version % 7:
            (repo / f"file_{number}.py").unlink(missing_ok=True)
            continue
        body = "\n".join(f"    value_{line} = compute({line}, {number})" for line in range(12))
        extra = f"# version {version}\n" if number % 5 == version % 5 else ""
        text = extra + "".join(f"def task_{number}_{part}(x):\n{body}\n    return x\n\n\n" for part in range(3))
        (repo / f"file_{number}.py").write_text(text)


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX")
def test_a_killed_run_resumes_to_the_same_collection(tmp_path):
    random.seed(20240)
    repo, store, calm = tmp_path / "repo", tmp_path / "killed", tmp_path / "calm"
    repo.mkdir()
    (tmp_path / "other").mkdir()
    write_tree(repo, 0)
    died = 0
    for attempt in range(KILLS):
        if attempt == KILLS // 2:  # the second half interrupts an update: edits, moves and deletions
            finish(repo, store)
            write_tree(repo, 1)
        process = start(repo, store)
        assert process.stdout.readline() == "ready\n"
        for _ in range(random.randint(0, 36)):
            process.stdout.readline()
        time.sleep(random.random() * 0.05)
        process.send_signal(signal.SIGKILL)
        process.stdout.close()
        died += process.wait() == -signal.SIGKILL
    assert died >= KILLS // 2
    finish(repo, store)
    assert finish(repo, store) == ["done", "0", "0"]
    finish(repo, calm)
    (rows, vectors), (want_rows, want_vectors) = contents(store), contents(calm)
    assert rows == want_rows
    np.testing.assert_allclose(vectors, want_vectors, atol=1e-5)
