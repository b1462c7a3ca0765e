"""Failing requests, killed and full stores, two writers, poison: each ends with the collection of a calm run."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress

import pytest

from c2llm_integrations.errors import StoreError
from c2llm_integrations.indexing.ingest import ingest
from c2llm_integrations.model.embedder import C2LLMEmbedder
from c2llm_integrations.stores import open_store
from c2llm_integrations.stores.qdrant import store as qdrant
from tests.golden import COMPRESSED, TIED
from tests.ingesting import assert_equal, contents, contents_at, finish, start, write_tree
from tests.qdrant_facade import Faults, ServerProcess, serve
from tests.stores.conftest import empty_milvus

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def model():
    return C2LLMEmbedder.from_pretrained(str(TIED), dtype="float32")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LOCALAPPDATA" if os.name == "nt" else "XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def repo(tmp_path):
    return write_tree(tmp_path / "repo", 0)


@pytest.fixture
def calm(repo, model):
    """What an undisturbed run over `repo` stores; call it when the tree is as it shall be."""

    def run():
        with open_store("qdrant+memory://") as store:
            ingest(repo, model, store)
            return contents(store)

    return run


@pytest.fixture
def server(tmp_path):
    """A server process that has not been started yet."""
    (tmp_path / "server").mkdir()
    process = ServerProcess(tmp_path / "server")
    yield process
    process.kill()


@pytest.fixture
def small_batches(monkeypatch):
    monkeypatch.setattr("c2llm_integrations.indexing.write_changes.BATCH_RECORDS", 4)


def test_five_percent_of_failing_requests_cost_only_time(repo, model, calm, tmp_path, small_batches, monkeypatch):
    monkeypatch.setattr(qdrant, "TIMEOUT_SECONDS", 1)
    faults = Faults(rate=0.05, hang_seconds=2.0)
    with serve(tmp_path / "served", faults=faults) as address, open_store(f"qdrant+{address}") as store:
        for version in range(6):
            ingest(write_tree(repo, version), model, store)
        found = contents(store)
    assert set(faults.seen) == {"429", "500", "hang", "reset", "late reset"}
    assert_equal(found, calm())


def test_each_kind_of_fault_is_survived_at_the_first_write(repo, model, calm, tmp_path, small_batches, monkeypatch):
    monkeypatch.setattr(qdrant, "TIMEOUT_SECONDS", 1)
    for kind in ("429", "500", "hang", "reset", "late reset"):
        faults = Faults(rate=1.0, kinds=[kind], only="PUT .*/points", hang_seconds=2.0, most=2)
        with serve(tmp_path / kind, faults=faults) as address, open_store(f"qdrant+{address}") as store:
            ingest(repo, model, store)
            assert_equal(contents(store), calm())
        assert faults.seen[kind] == 2


def test_a_killed_server_that_comes_back_loses_nothing(repo, model, calm, server, small_batches):
    server.start()

    def restart():
        server.kill()
        time.sleep(0.5)
        server.start()

    thread = threading.Thread(target=restart)

    def progress(done, total, path):
        if done == 10:
            thread.start()

    with open_store(f"qdrant+{server.address}") as store:
        report = ingest(repo, model, store, progress=progress)
        thread.join()
        assert (report.refused, report.written) == ({}, report.stored)
        assert_equal(contents(store), calm())


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX")
def test_a_run_killed_while_a_server_puts_its_index_off_is_mended_by_the_next(repo, calm, server):
    random.seed(20242)
    server.start()
    url = f"qdrant+{server.address}"
    for _ in range(2):
        process = start(repo, url, TIED)
        assert process.stdout.readline() == "ready\n"
        for _ in range(random.randint(2, 25)):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        process.communicate()
    with open_store(url) as store:
        assert indexing_threshold(store) == 0
    finish(start(repo, url, TIED))
    with open_store(url) as store:
        assert indexing_threshold(store) != 0
        assert_equal(contents(store), calm())


def indexing_threshold(store):
    [name] = [one.name for one in store.client.get_collections().collections]
    return store.client.get_collection(name).config.optimizer_config.indexing_threshold


@pytest.mark.parametrize("left", [100, 0], ids=["almost full", "full"])
def test_a_full_disk_stops_the_run_and_room_lets_it_go_on(left, repo, model, calm, small_disk, small_batches):
    url, ballast = f"qdrant+edge://{small_disk / 'store'}", small_disk / "ballast"

    def progress(done, total, path):
        if done == 20:
            fill(ballast, left)

    with pytest.raises(StoreError, match=r"disk|space"), open_store(url) as store:
        ingest(repo, model, store, progress=progress)
    ballast.unlink()
    with open_store(url) as store:
        assert 0 < store.count() < 100
        assert ingest(repo, model, store).unchanged > 0
        assert_equal(contents(store), calm())


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own with 600 MiB, emptied and taken away afterwards."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=600m", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"a small file system cannot be mounted here: {error}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(file, left):
    """Take all the room there is, but for so many MiB."""
    with open(file, "wb", buffering=0) as ballast, suppress(OSError):
        while shutil.disk_usage(file.parent).free > left * 2**20:
            ballast.write(bytes(2**20))


@pytest.fixture(params=["qdrant", "milvus"])
def shared_url(request):
    """A server that several processes may use."""
    if request.param == "qdrant":
        server = request.getfixturevalue("server")
        server.start()
        yield f"qdrant+{server.address}"
    else:
        address = request.getfixturevalue("milvus_lite_address")
        yield f"milvus+{address}"
        empty_milvus(address)


def test_two_writers_of_two_repositories_do_not_disturb_each_other(repo, tmp_path, model, shared_url):
    other = write_tree(tmp_path / "other", 3)
    both = [start(repo, shared_url, TIED), start(other, shared_url, TIED)]
    for process in both:
        finish(process)
    with open_store("qdrant+memory://") as store:
        ingest(repo, model, store)
        ingest(other, model, store)
        wanted, claims = contents(store), store.claims()
    with open_store(shared_url) as store:
        assert store.claims() == claims
        assert_equal(contents(store), wanted)


def test_two_writers_of_one_repository_end_with_one_copy(repo, calm, shared_url):
    for version in (0, 1):
        write_tree(repo, version)
        for process in [start(repo, shared_url, TIED, machine=name) for name in ("one", "other")]:
            finish(process)
        assert_equal(contents_at(shared_url), calm())


def test_two_replacements_at_once_end_with_one_whole_collection(repo, tmp_path, server):
    server.start()
    url = f"qdrant+{server.address}"
    finish(start(repo, url, TIED))
    both = [start(repo, url, COMPRESSED, "--replace", machine=name) for name in ("one", "other")]
    codes = [process.wait() for process in both]
    for process in both:
        process.stdout.close()
    assert 0 in codes
    with open_store("qdrant+memory://") as store:
        ingest(repo, C2LLMEmbedder.from_pretrained(str(COMPRESSED), dtype="float32"), store)
        wanted = contents(store)
    assert_equal(contents_at(url), wanted)


def test_poison_rows_are_filed_and_cost_only_themselves(repo, model, calm, tmp_path, small_batches):
    (repo / "file_2.py").write_text("VALUE = 'arsenic'\n")
    (repo / "file_30.py").write_text("VALUE = 'arsenic too'\n")
    file = tmp_path / "refused.jsonl"
    faults = Faults(poison="arsenic")
    with serve(tmp_path / "served", faults=faults) as address, open_store(f"qdrant+{address}") as store:
        report = ingest(repo, model, store, refused=file)
        found = contents(store)
        faults.poison = ""
        assert ingest(repo, model, store, refused=file).written == 2
        assert_equal(contents(store), calm())
    lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    assert lines == []  # of the second run
    wanted = calm()
    places = [n for n, row in enumerate(wanted[0]) if row.path not in ("file_2.py", "file_30.py")]
    assert_equal(found, ([wanted[0][n] for n in places], wanted[1][places]))
    assert sorted(reason.partition(":")[0] for reason in report.refused.values()) == ["file_2.py", "file_30.py"]
