"""One embedded collection, several processes and threads: each gets its turn, and nobody waits for nothing."""

import asyncio
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from c2llm_integrations._utils.files import FileLock
from c2llm_integrations.code.chunk import CodeChunk, chunk_id
from c2llm_integrations.errors import StoreBusy, StoreError
from c2llm_integrations.stores import open_store, vector_store
from c2llm_integrations.stores.qdrant import edge as edge_store
from c2llm_integrations.stores.qdrant import edge_turns
from c2llm_integrations.stores.records import Row
from c2llm_integrations.stores.spec import CollectionSpec
from tests.waiting import until

pytestmark = pytest.mark.slow

SPEC = CollectionSpec(2, {"model": "none"})
COUNTER = """
import sys
from c2llm_integrations.stores import open_store
store = open_store(sys.argv[1], wait=60)
for line in sys.stdin:
    print(store.count(), flush=True)
"""


def rows(start, count):
    texts = [f"row {number}" for number in range(start, start + count)]
    return [
        Row(CodeChunk(chunk_id("r", "a.py", text, 0), "r", "a.py", "python", "", "text", 1, 1, text), np.ones(2))
        for text in texts
    ]


@pytest.fixture
def url(tmp_path):
    """The URL of an embedded collection of five rows."""
    url = f"qdrant+edge://{tmp_path / 'index'}"
    with open_store(url) as store:
        store.create(SPEC)
        store.upsert(rows(0, 5))
    return url


@pytest.fixture
def other(url):
    """Ask another process, which has the collection open in turns, how many rows there are."""
    process = subprocess.Popen(
        [sys.executable, "-c", COUNTER, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )

    def count():
        process.stdin.write("\n")
        process.stdin.flush()
        return int(process.stdout.readline())

    yield count
    process.communicate(timeout=60)


def test_a_writer_and_a_reader_alternate(url, other):
    with open_store(url, wait=60) as store:
        store.create(SPEC)
        for number in range(1, 4):
            store.upsert(rows(5 * number, 5))
            assert other() == 5 * number + 5
        assert store.count() == 20


def test_two_stores_of_one_process_alternate(url):
    with open_store(url, wait=60) as one, open_store(url, wait=60) as two:
        for _ in range(3):
            assert one.count() == two.count() == 5


def test_an_idle_holder_lets_go_unasked(url, monkeypatch):
    monkeypatch.setattr(edge_turns, "IDLE_SECONDS", 0.2)
    with open_store(url, wait=60) as idle:
        assert idle.count() == 5

        def opened():
            try:
                with open_store(url) as exclusive:
                    return exclusive.count()
            except StoreBusy:
                return None

        assert until(opened) == 5
        assert idle.count() == 5


def test_a_turn_that_does_not_come_is_an_error(url):
    with open_store(url) as exclusive, pytest.raises(StoreBusy):
        open_store(url, wait=0.2)
    assert exclusive.collection == "code"


def test_threads_take_turns_on_one_store(url):
    counted = []
    with open_store(url, wait=60) as store:
        threads = [threading.Thread(target=lambda: counted.append(store.count())) for _ in range(64)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert counted == [5] * 64


def test_a_scan_in_progress_is_not_interrupted(url, monkeypatch):
    monkeypatch.setattr(edge_turns, "IDLE_SECONDS", 0)
    with open_store(url, wait=60) as store:
        scan = store.scan()
        first = next(scan)
        time.sleep(3 * edge_turns.POLL_SECONDS)
        assert len({first, *scan}) == 5


def test_a_successor_is_filled_under_one_turn(url):
    with open_store(url, wait=60) as store, open_store(url, wait=60) as reader:
        store.create(SPEC)
        with store.successor() as successor:
            successor.create(SPEC)
            successor.upsert(rows(0, 1))
            with pytest.raises(StoreBusy):
                open_store(url, wait=0.3)
            store.replace_by(successor)
        assert store.count() == 1
        assert reader.count() == 1


def test_nothing_is_made_where_nothing_is(tmp_path):
    with open_store(f"qdrant+edge://{tmp_path / 'none'}", wait=1) as store:
        assert store.spec is None
        assert store.count() == 0
    with pytest.raises(StoreError, match="closed"):
        store.count()
    assert not (tmp_path / "none").exists()


def test_a_server_is_shared_anyway():
    with open_store("qdrant+memory://", wait=1) as store:
        assert store.spec is None


# ---- a folder that is exchanged while a program runs


@pytest.fixture
def private(tmp_path):
    """The folder of another index, of two rows, of which nothing may be read or changed."""
    with open_store(f"qdrant+edge://{tmp_path / 'private'}") as store:
        store.create(SPEC)
        store.upsert(rows(100, 2))
        store.claim("private", "there")
    return tmp_path / "private"


def content(folder):
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.mark.parametrize(
    ("part", "state"),
    [
        *((part, "idle") for part in ("", "code", "code/shard", "code/c2llm.json", ".code.lock")),
        *((part, state) for part in ("", "code") for state in ("open", "unflushed")),
    ],
)
def test_a_folder_that_became_a_link_is_not_opened(part, state, private, tmp_path, monkeypatch):
    monkeypatch.setattr(edge_turns, "IDLE_SECONDS", 0.0 if state == "idle" else 1000.0)
    index, keep = tmp_path / ".c2llm", tmp_path / "keep"
    place = index / part if part else index
    with open_store(f"qdrant+edge://{index}", wait=60) as store:
        store.create(SPEC)
        store.upsert(rows(0, 5))
        if state == "open":
            store.client.flush()
        if state == "idle":
            until(lambda: store._client is None)
        before = content(private)
        place.rename(keep)
        place.symlink_to(private / part)
        for read in (store.claims, store.count, lambda: list(store.scan()), lambda: store.claim("r", "here")):
            with pytest.raises(StoreError, match="is a symbolic link"):
                read()
        assert content(private) == before
        place.unlink()
        keep.rename(place)
        assert (store.count(), store.claims()) == (5, {})
    assert content(private) == before


def test_a_folder_above_that_became_a_link_is_not_followed(private, tmp_path, monkeypatch):
    monkeypatch.setattr(edge_turns, "IDLE_SECONDS", 0.0)
    above, keep = tmp_path / "above", tmp_path / "keep"
    above.mkdir()
    with open_store(f"qdrant+edge://{above / 'private'}", wait=60) as store:
        store.create(SPEC)
        store.upsert(rows(0, 5))
        until(lambda: store._client is None)
        before = content(private)
        above.rename(keep)
        above.symlink_to(tmp_path)
        with pytest.raises(StoreError, match="leads to"):
            store.count()
        assert content(private) == before
        above.unlink()
        keep.rename(above)
        assert store.count() == 5


def test_a_folder_that_was_made_anew_is_opened(url, tmp_path):
    with open_store(url, wait=60) as store:
        assert store.count() == 5
        os.rename(tmp_path / "index", tmp_path / "gone")  # in one step: the idle holder may be closing its files
        assert (store.count(), store.spec) == (0, None)
        with open_store(url) as other:
            other.create(SPEC)
            other.upsert(rows(0, 3))
        assert store.count() == 3


# ---- lock files


@pytest.mark.skipif(os.name != "posix", reason="needs links and pipes")
@pytest.mark.parametrize("kind", ["link", "dangling", "pipe", "device"])
def test_a_lock_is_neither_a_link_nor_a_pipe(kind, tmp_path):
    lock, outside = tmp_path / "lock", tmp_path / "outside"
    if kind == "link":
        outside.write_text("kept")
    if kind == "pipe":
        os.mkfifo(lock)
    else:
        lock.symlink_to("/dev/null" if kind == "device" else outside)
    with pytest.raises(StoreError, match="a lock of ours"):
        FileLock(lock, "what")
    assert outside.exists() == (kind == "link")
    lock.unlink()
    FileLock(lock, "what").release()


def test_rows_are_read_in_turns_with_other_threads_and_processes(url, other):
    with open_store(url, wait=10) as store:
        found = store.scroll()
        first = next(found)
        with ThreadPoolExecutor(1) as thread:
            assert thread.submit(store.count).result(20) == 5
            assert other() == 5
            assert len([first, *thread.submit(list, found).result(20)]) == 5


def test_rows_of_a_collection_that_another_process_replaced_are_not_mixed(url, monkeypatch):
    monkeypatch.setattr(vector_store, "READ_ROWS", 2)
    monkeypatch.setattr(edge_store, "ROWS_PAGE", 2)
    with open_store(url, wait=10) as store, open_store(url, wait=10) as writer:
        found = store.scroll()
        next(found)
        with writer.successor() as successor:
            successor.create(SPEC)
            successor.upsert(rows(90, 5))
            writer.replace_by(successor)
        with pytest.raises(StoreError, match="was replaced while it was read"):
            list(found)


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="only Linux tells which files are open")
def test_a_forked_process_takes_turns_with_its_parent(url, other):
    with open_store(url, wait=20) as store:
        assert store.count() == asyncio.run(store.acount()) == 5
        wait, go = os.pipe()
        child = os.fork()
        if not child:
            right = False
            try:
                os.read(wait, 1)
                store.upsert(rows(5, 2))
                right = store.count() == asyncio.run(store.acount()) == 7
            finally:
                os._exit(not right)
        assert other() == 5  # for which this process gives way, while its child lives
        assert store.count() == 5
        os.write(go, b"x")
        assert os.waitpid(child, 0)[1] == 0
        store.upsert(rows(20, 3))
    with open_store(url) as again:
        assert (again.count(), len(list(again.rows()))) == (10, 10)
