"""Records embedded by actors of a real Ray: the rows of a run in one process, whatever dies meanwhile."""

import json
import os
import signal
from functools import partial
from pathlib import Path

import pytest
import ray

from c2llm_integrations import ingest_records, open_store
from c2llm_integrations.cli.main import run
from c2llm_integrations.errors import InputError
from c2llm_integrations.indexing.ray.cluster import Cluster, RayEmbedder
from c2llm_integrations.model.embedder import C2LLMEmbedder
from tests.golden import TIED
from tests.ingesting import assert_equal, contents_at

LOAD = partial(C2LLMEmbedder.from_pretrained, str(TIED), dtype="float32")


def records(count):
    return [{"id": f"doc-{n}", "text": f"def function_{n}(): return {n}", "votes": n} for n in range(count)]


def actors():
    """The process ids of the models."""
    names = {int(one.name): (one / "cmdline") for one in Path("/proc").iterdir() if one.name.isdigit()}
    return [pid for pid, name in names.items() if name.exists() and name.read_bytes().startswith(b"ray::_Model")]


@pytest.fixture
def expected(tmp_path):
    """What one process makes of 600 records."""
    url = f"qdrant+edge://{tmp_path / 'expected'}"
    with open_store(url, "records") as store:
        ingest_records(records(600), LOAD(), store, source="answers")
    return contents_at(url, "records")


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finding Ray's workers needs /proc")
def test_rows_are_those_of_one_process_although_a_model_is_killed(expected, tmp_path):
    killed = []

    def kill(done, total, source):
        if done and not killed:
            killed.append(actors()[0])
            os.kill(killed[0], signal.SIGKILL)

    url = f"qdrant+edge://{tmp_path / 'spread'}"
    with RayEmbedder.on(Cluster(embedders=2, make_embedder=LOAD)) as embedder:
        assert embedder.batch_size > 128
        with open_store(url, "records") as store:
            report = ingest_records(records(600), embedder, store, source="answers", batch_size=300, progress=kill)
            assert (report.written, len(killed)) == (600, 1)
            assert report.tokens == embedder.tokens_seen > 0
            again = ingest_records(records(600), embedder, store, source="answers")
            assert (again.unchanged, again.tokens) == (600, 0)
        assert_equal(contents_at(url, "records"), expected)
        assert embedder.encode_documents([]).shape == (0, embedder.output_dim)
        with pytest.raises(InputError, match="text 0 is a int"):
            embedder.encode_documents([7])
    assert not ray.is_initialized()
    assert not actors()


def test_the_command_embeds_on_ray_and_says_what_goes_together(expected, tmp_path, capsys):
    file, url = tmp_path / "answers.jsonl", f"qdrant+edge://{tmp_path / 'loaded'}"
    file.write_text("".join(json.dumps(one) + "\n" for one in records(600)))
    words = ["load", str(file), "--source", "answers", "--store", url, "--model", str(TIED), "--embedders", "2"]
    assert run([*words, "--dry-run"]) == 2
    assert "no effect with --vectors or --dry-run" in capsys.readouterr().err
    assert run(words) == 0
    ids, vectors = contents_at(url, "records")
    assert list(ids) == list(expected[0])
    assert (vectors * expected[1]).sum(1).min() > 0.999
