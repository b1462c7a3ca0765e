"""Two worker processes of a web application on one embedded index: both answer, in turns."""

import subprocess
import sys

import pytest

from c2llm_integrations.indexing.ingest import ingest
from c2llm_integrations.model.embedder import C2LLMEmbedder
from c2llm_integrations.stores import open_store, own_index
from tests.golden import TIED
from tests.ingesting import write_tree

# Opens the index, says so, and asks once everybody has opened it.
WORKER = """
import sys
from c2llm_integrations.retrieval.options import SearchOptions
from c2llm_integrations.retrieval.store_handles import shared_store
store = shared_store(sys.argv[1], "code")
print(len(store.search(sys.argv[2], SearchOptions())), flush=True)
sys.stdin.readline()
print(sum(bool(store.search(f"{sys.argv[2]} {n}", SearchOptions())) for n in range(5)), flush=True)
"""


@pytest.fixture
def url(tmp_path, monkeypatch):
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.setenv(name, str(tmp_path / "cache"))
    tree = write_tree(tmp_path / "one", 0, files=4)
    with open_store(own_index(tree)) as store:
        ingest(tree, C2LLMEmbedder.from_pretrained(str(TIED), dtype="float32"), store)
    return own_index(tree)


def test_two_workers_answer_from_one_embedded_index(url):
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, url, question], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for question in ("file", "add up")
    ]
    assert all(int(worker.stdout.readline()) > 0 for worker in workers)  # each has it while the other still runs
    for worker in workers:
        worker.stdin.write("\n")
        worker.stdin.flush()
    assert [worker.communicate(timeout=300)[0] for worker in workers] == ["5\n", "5\n"]
    assert [worker.returncode for worker in workers] == [0, 0]
