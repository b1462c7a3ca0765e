"""SIGKILL while records are loaded, then run again: exactly the rows of an undisturbed run, nothing embedded twice."""

import json
import os
import random
import subprocess
import sys

import pytest

from c2llm_integrations.stores import open_store
from tests.indexing.record_models import held
from tests.ingesting import ROOT, kill

KILLS = int(os.environ.get("C2LLM_KILLS", "5"))
RECORDS = 600

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX")]

RUN = """
import sys
from c2llm_integrations import ingest_records, open_store
from tests.indexing.record_models import CountingEmbedder
file, url = sys.argv[1:]
embedder = CountingEmbedder()
with open_store(url, "answers") as store:
    print("ready", flush=True)
    report = ingest_records(
        file, embedder, store, source="answers", delete_missing=True, batch_size=10,
        progress=lambda *step: print(*step, flush=True),
    )
print("done", report.written, report.updated, report.deleted, len(embedder.embedded), flush=True)
"""


def start(file, url):
    """Begin a run, which prints "ready", a line for each batch, and what it did."""
    command = [sys.executable, "-c", RUN, str(file), url]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)


def finish(process):
    """Wait for a run; return how many rows it wrote, updated and deleted, and how many texts it embedded."""
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return tuple(map(int, output.splitlines()[-1].split()[1:]))


def write(file, version):
    """Write a version of the records: each changes some texts, other metadata, and leaves some out."""
    records = [
        {
            "id": f"doc-{number}",
            "text": f"text {number} of version {version if number % 4 == 0 else 0}",
            "votes": number + (version if number % 4 == 1 else 0),
        }
        for number in range(RECORDS)
        if number % 4 != 2 or (number + version) % 8 != 2
    ]
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    return {
        record["id"]: (record["text"], {name: record[name] for name in record if name not in ("id", "text")})
        for record in records
    }


@pytest.mark.parametrize("scheme", ["qdrant+edge", "milvus+lite"])
def test_a_killed_load_resumes_to_the_same_rows(tmp_path, scheme):
    random.seed(20260)
    url, file = f"{scheme}://{tmp_path / 'rows.db'}", tmp_path / "records.jsonl"
    write(file, 0)
    died = 0
    for attempt in range(KILLS):
        if attempt == KILLS // 2:  # the others interrupt an update: new texts, other metadata, deletions
            finish(start(file, url))
            wanted = write(file, 4)
        died += kill(start(file, url), RECORDS // 10)
    assert died >= KILLS // 2
    finish(start(file, url))
    assert finish(start(file, url)) == (0, 0, 0, 0)
    with open_store(url, "answers") as store:
        assert held(store, "answers") == wanted
