"""No damaged file is answered from: whatever happens to one, it is refused in one line, or what is read is right."""

import re
import shutil
import subprocess
import sys

import pytest

from c2llm_integrations.errors import StoreError
from c2llm_integrations.stores import open_store
from tests.conftest import ROOT
from tests.damage import URLS, answers, make
from tests.indexing.test_export_import import ROWS, fill, row
from tests.repeats import DAMAGES

pytestmark = pytest.mark.slow

KINDS = ("edge", "milvus", "parquet", "projection", "head")


@pytest.mark.parametrize("kind", KINDS)
def test_random_damages_are_refused_or_harmless(kind, tmp_path):
    make(kind, tmp_path / "good")
    command = [sys.executable, "-m", "tests.damage", kind, str(tmp_path), "0", str(DAMAGES)]
    # In a process of its own, which an engine that aborts would end.
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1200)
    outcomes = done.stdout.splitlines()
    assert (done.returncode, done.stderr, len(outcomes)) == (0, "", DAMAGES), outcomes[-1:]
    assert [one for one in outcomes if not re.search(": (same$|refused: )", one)] == []


@pytest.mark.parametrize(("kind", "name"), [("edge", "chunk_0.mmap"), ("edge", "c2llm.json"), ("milvus", "*.parquet")])
def test_the_advice_mends_it(kind, name, tmp_path):
    make(kind, tmp_path / "it")
    *good, _ = answers(kind, tmp_path / "it")  # hits with equal scores come in the order of writing
    next((tmp_path / "it").rglob(name)).unlink()
    url = URLS[kind].format(tmp_path / "it")
    with pytest.raises(StoreError, match="delete ") as caught, open_store(url) as store:
        fill(store)
    shutil.rmtree(re.search("delete (.*) and index again", str(caught.value))[1])
    with open_store(url) as store:
        fill(store)
    assert [*answers(kind, tmp_path / "it")][:-1] == good


@pytest.mark.parametrize("kind", URLS)
def test_what_another_client_of_the_engine_wrote_is_no_damage(kind, tmp_path):
    make(kind, tmp_path / "it")
    if kind == "edge":
        import qdrant_edge as edge

        from c2llm_integrations.stores.qdrant.edge_conversions import TYPES
        from c2llm_integrations.stores.qdrant.payload import points_of

        shard = edge.EdgeShard.load(str(tmp_path / "it" / "code" / "shard"))
        more = row(77)
        shard.update(edge.UpdateOperation.upsert_points(points_of(TYPES, [more.chunk], more.vector[None], [["f77"]])))
        shard.flush()
        shard.close()
    else:
        code = (
            "import sys; from pymilvus import MilvusClient\n"
            "client = MilvusClient(sys.argv[1]); (name,) = client.list_collections()\n"
            "client.delete(name, ids=[sys.argv[2]]); client.flush(name); client.close()"
        )
        command = [sys.executable, "-c", code, str(tmp_path / "it" / "rows.db"), ROWS[0].chunk.id]
        subprocess.run(command, check=True)  # in this process, its server would keep the folder
    with open_store(URLS[kind].format(tmp_path / "it")) as store:
        assert store.count() == len(ROWS) + (1 if kind == "edge" else -1)


def test_a_killed_writer_leaves_a_collection_that_opens(tmp_path):
    make("edge", tmp_path / "it")
    code = (
        "import os, sys; from tests.indexing.test_export_import import row\n"
        "from c2llm_integrations.stores import open_store\n"
        "store = open_store(sys.argv[1]); store.upsert([row(77)]); os._exit(9)"
    )
    url = URLS["edge"].format(tmp_path / "it")
    assert subprocess.run([sys.executable, "-c", code, url], cwd=ROOT).returncode == 9
    assert not list(tmp_path.rglob("*.seal"))
    with open_store(url) as store:
        assert store.count() == len(ROWS) + 1
    assert list(tmp_path.rglob("*.seal"))


def test_files_of_releases_without_checksums_are_read(tmp_path):
    for kind in URLS:
        make(kind, tmp_path / kind)
        good = answers(kind, tmp_path / kind)
        for seal in (tmp_path / kind).rglob("*.seal"):
            seal.unlink()
        assert answers(kind, tmp_path / kind) == good
