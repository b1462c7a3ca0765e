"""What Milvus and Milvus Lite add to the contract."""

from __future__ import annotations

import errno
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock, patch

import grpc
import pytest
from pymilvus import MilvusClient
from pymilvus.exceptions import MilvusException

from c2llm_integrations._utils import retry
from c2llm_integrations.code.lexical_terms import ANALYZER
from c2llm_integrations.errors import BatchRefused, InputError, RowsRefused, SpecMismatch, StoreBusy, StoreError
from c2llm_integrations.stores import list_collections, open_store
from c2llm_integrations.stores.bulk_loader import load
from c2llm_integrations.stores.milvus import collections
from c2llm_integrations.stores.milvus.collections import CONNECTION
from c2llm_integrations.stores.milvus.errors import reason
from c2llm_integrations.stores.milvus.schema import MAX_VARCHAR_BYTES, Server
from c2llm_integrations.stores.milvus.store import MilvusStore
from c2llm_integrations.stores.records import Row
from c2llm_integrations.stores.spec import CollectionSpec
from c2llm_integrations.stores.vector_store import VectorStore
from tests.conftest import ON_MILVUS
from tests.stores.conftest import empty_milvus
from tests.stores.test_contract_records import a_row, found

pytestmark = pytest.mark.slow

MakeRow = Callable[..., Row]
MakeRows = Callable[..., list[Row]]


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"milvus+lite://{tmp_path / 'folder' / 'store.db'}"


@pytest.fixture
def lite(url: str, spec: CollectionSpec) -> Iterator[VectorStore]:
    with open_store(url) as store:
        store.create(spec)
        yield store


# ---- Milvus Lite's folder


def test_a_failed_write_is_one_line_and_no_traceback_of_the_engine(
    lite: VectorStore, make_rows: MakeRows, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    full = Mock(side_effect=OSError(errno.ENOSPC, "No space left on device"))
    monkeypatch.setattr("milvus_lite.engine.collection.Collection.upsert", full)
    with pytest.raises(StoreError, match="No space left on device"):
        lite.upsert(make_rows(3))
    assert caplog.records == []


def test_lite_makes_nothing_before_create(url: str, tmp_path: Path, spec: CollectionSpec) -> None:
    with open_store(url) as store:
        assert (store.spec, store.count()) == (None, 0)
        store.drop()
        assert list(tmp_path.iterdir()) == []
        store.create(spec)
    assert (tmp_path / "folder" / "store.db").is_dir()


def test_lite_takes_only_names_that_milvus_knows_for_local(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"does not end in \.db"):
        open_store(f"milvus+lite://{tmp_path / 'store'}")
    (tmp_path / "old.db").write_text("SQLite format 3")
    with pytest.raises(StoreError, match="is not a folder"):
        open_store(f"milvus+lite://{tmp_path / 'old.db'}")


OPEN_AND_WAIT = """
import sys
from c2llm_integrations.stores import open_store
with open_store(sys.argv[1]) as store:
    print(store.count(), flush=True)
    sys.stdin.read()
"""


def test_lite_is_open_in_one_process_and_free_after_closing(url: str, spec: CollectionSpec, capfd: Any) -> None:
    with open_store(url) as store, open_store(url, "other") as other:
        store.create(spec)
        other.create(spec)
        busy = subprocess.run([sys.executable, "-c", OPEN_AND_WAIT, url], input="", capture_output=True, text=True)
        assert busy.stderr.strip().splitlines()[-1].startswith("c2llm_integrations.errors.StoreBusy")
        store.close()
        assert other.count() == 0
    command = [sys.executable, "-c", OPEN_AND_WAIT, url]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "0\n"
        with pytest.raises(StoreBusy, match=r"another process.*use a server"):
            open_store(url)
        process.stdin.close()
    with open_store(url) as store:
        assert store.spec == spec
    assert capfd.readouterr().err == ""


def test_lite_reads_no_row_twice_that_a_killed_flush_had_stored(
    url: str, tmp_path: Path, spec: CollectionSpec, make_rows: MakeRows
) -> None:
    rows, folder = make_rows(50), tmp_path / "folder" / "store.db" / "collections" / "code__1"
    with open_store(url) as store:
        store.create(spec)
        store.upsert(rows)
        [logs] = [shutil.copytree(folder / "wal", tmp_path / "wal")]
        store.optimize()
    for log in logs.iterdir():  # stored, but the run was killed before it removed them
        shutil.copy(log, folder / "wal")
    with open_store(url) as store:
        assert (store.count(), len(list(store.scan()))) == (50, 50)


def test_lite_opens_after_a_kill_amid_an_index(
    url: str, tmp_path: Path, spec: CollectionSpec, make_rows: MakeRows
) -> None:
    rows = make_rows(50)
    with open_store(url) as store:
        store.create(spec)
        store.upsert(rows)
        store.optimize()
    [index] = (tmp_path / "folder").glob("**/*.idx")
    (tmp_path / "folder" / "store.db" / "c2llm.seal").unlink()  # a killed run leaves none
    whole = index.read_bytes()
    for held in (b"", whole[:200], whole[:-100], bytes(len(whole))):
        index.write_bytes(held)
        with open_store(url) as store:
            assert store.search(rows[7].vector, 1)[0].chunk == rows[7].chunk
        (tmp_path / "folder" / "store.db" / "c2llm.seal").unlink()


def test_lite_makes_a_collection_whose_making_was_killed(url: str, tmp_path: Path, spec: CollectionSpec) -> None:
    with open_store(url, "other") as store:
        store.create(spec)
    (tmp_path / "folder" / "store.db" / "collections" / "code__1").mkdir()
    with open_store(url) as store:
        store.create(spec)
        assert store.count() == 0


# ---- collections


@pytest.mark.parametrize("name", ["my-repo", "v1.0", "1st", "code__1"])
def test_names_that_milvus_does_not_take_are_refused(tmp_path: Path, name: str) -> None:
    for url in (f"milvus+lite://{tmp_path / 'x.db'}", "milvus+http://localhost:1"):
        with pytest.raises(InputError, match=r"not a name that Milvus takes; use 1 to 128 letters"):
            open_store(url, name)
    assert list(tmp_path.iterdir()) == []


def test_a_collection_of_somebody_else_is_refused_and_kept(milvus_lite_address: str) -> None:
    client = MilvusClient(milvus_lite_address, **CONNECTION)
    client.create_collection("theirs", dimension=4)
    store = MilvusStore.from_client(client, "theirs")
    for call in (lambda: store.spec, store.drop, lambda: store.create(CollectionSpec(4, {}))):
        with pytest.raises(StoreError, match="not made by this package"):
            call()
    store.close()
    assert client.has_collection("theirs")  # and the client is still open
    client.drop_collection("theirs")
    client.close()


def names(store: VectorStore) -> list[str]:
    assert isinstance(store, MilvusStore)
    return sorted(store.client.list_collections())


@contextmanager
def killed_at(method: str) -> Iterator[None]:
    """Whoever calls this method of a client ends, as if killed."""

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(MilvusClient, method, killed)
        yield


@pytest.mark.parametrize("method", ["create_collection", "create_index", "create_alias"])
@pytest.mark.parametrize("again", ["same", "other"])
def test_a_killed_creation_is_made_good(
    url: str, spec: CollectionSpec, make_row: MakeRow, method: str, again: str
) -> None:
    with open_store(url, "other") as store:
        store.create(spec)
        with killed_at(method), pytest.raises(KeyboardInterrupt):
            open_store(url).create(spec)
        with open_store(url) as created:
            assert created.spec is None
            wanted = spec if again == "same" else replace(spec, analyzer=ANALYZER)
            created.create(wanted)
            created.upsert([make_row()])
            assert (created.spec, len(created.search(make_row().vector, 1))) == (wanted, 1)
            assert [name for name in names(created) if name.startswith("code")] == [
                "code__2" if method != "create_collection" and again == "other" else "code__1"
            ]


@pytest.mark.parametrize("method", ["alter_alias", "drop_collection"])
def test_a_killed_replacement_is_made_good(url: str, spec: CollectionSpec, make_rows: MakeRows, method: str) -> None:
    with open_store(url) as store:
        store.create(spec)
        store.upsert(make_rows(5))
        successor = store.successor()
        successor.create(spec)
        successor.upsert(make_rows(7))
        with killed_at(method), pytest.raises(KeyboardInterrupt):
            store.replace_by(successor)
    with open_store(url) as store:
        assert store.count() == (5 if method == "alter_alias" else 7)
        successor = store.successor()
        successor.create(spec)
        successor.upsert(make_rows(9))
        store.replace_by(successor)
        assert store.count() == 9
        assert len(names(store)) == 1
        store.drop()
        assert names(store) == []


def test_a_killed_drop_is_no_collection_any_more(url: str, spec: CollectionSpec, make_rows: MakeRows) -> None:
    with open_store(url) as store:
        store.create(spec)
        store.upsert(make_rows(5))
        with killed_at("drop_collection"), pytest.raises(KeyboardInterrupt):
            store.drop()
    with open_store(url) as store:
        assert (store.spec, list_collections(url)) == (None, [])
        store.create(spec)
        assert store.count() == 0
        assert len(names(store)) == 1


def test_a_collection_from_before_there_were_aliases_opens_and_is_replaced(
    milvus_lite_address: str, spec: CollectionSpec, make_rows: MakeRows
) -> None:
    client = MilvusClient(milvus_lite_address, **CONNECTION)
    collections.make(client, "code", spec, Server("lite", (3, 2)))
    rows = make_rows(5)
    with open_store(f"milvus+{milvus_lite_address}") as store:
        store.create(spec)
        store.upsert(rows)
        assert (store.spec, store.count()) == (spec, 5)
        assert list_collections(f"milvus+{milvus_lite_address}") == ["code"]
        successor = store.successor()
        assert successor.spec is None
        successor.create(spec)
        successor.upsert(rows[:3])
        store.replace_by(successor)
        assert store.count() == 3
        assert client.list_collections() == ["code__1"]
    empty_milvus(milvus_lite_address)
    client.close()


@pytest.mark.parametrize("place", ["url", pytest.param("milvus_address", marks=ON_MILVUS)])
def test_a_tenant_is_found_where_an_earlier_release_made_no_column(
    request: pytest.FixtureRequest, spec: CollectionSpec, place: str
) -> None:
    url = request.getfixturevalue(place)
    url = f"milvus+{url}" if url.startswith("http") else url
    module = "c2llm_integrations.stores.milvus.schema"
    with patch(f"{module}.tenant_column", return_value=None), open_store(url) as store:
        store.create(replace(spec, fields={"customer": "tenant"}))
        store.upsert([a_row(number, customer=name) for number, name in enumerate("ab")])
        assert "customer" not in collections.columns_of(collections.described(store.client, store.collection))
    with open_store(url) as store:
        store.upsert([a_row(2, customer="b")])
        store.update([a_row(0, customer="b").record])
        store.optimize()
        assert (found(store, {"customer": "b"}), found(store, {"customer": "a"})) == ([0, 1, 2], [])
        store.drop()


def test_a_collection_with_a_name_like_ours_is_left_alone(milvus_lite_address: str, spec: CollectionSpec) -> None:
    client = MilvusClient(milvus_lite_address, **CONNECTION)
    client.create_collection("code__1", dimension=4)
    with open_store(f"milvus+{milvus_lite_address}") as store:
        store.create(spec)
        assert sorted(client.list_collections()) == ["code__1", "code__2"]
        store.drop()
    assert client.list_collections() == ["code__1"]
    client.drop_collection("code__1")
    client.close()


def test_a_store_notices_that_another_model_has_taken_the_place(
    milvus_lite_address: str, spec: CollectionSpec, make_rows: MakeRows, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, rows = f"milvus+{milvus_lite_address}", make_rows(5)
    other = replace(spec, fingerprint={**spec.fingerprint, "weights": "xyz"})
    with open_store(url) as store, open_store(url) as reader:
        store.create(spec)
        store.upsert(rows)
        assert reader.count() == 5
        successor = store.successor()
        successor.create(other)
        store.replace_by(successor)
        with pytest.raises(SpecMismatch, match="weights 'xyz'"):
            reader.search(rows[0].vector, 1)
        assert (reader.spec, reader.count()) == (other, 0)
        successor = store.successor()
        successor.create(spec)
        store.replace_by(successor)
        later = time.monotonic() + collections.FRESH_SECONDS
        monkeypatch.setattr("c2llm_integrations.stores.milvus.store.monotonic", lambda: later)
        assert reader.spec == spec
    empty_milvus(milvus_lite_address)


# ---- rows and filters


def test_text_is_measured_in_bytes(lite: VectorStore, make_row: MakeRow) -> None:
    fits, over = make_row(text="é" * 32_767), make_row(text="é" * 32_768)
    lite.upsert([fits])
    assert lite.search(fits.vector, 1)[0].chunk == fits.chunk
    with pytest.raises(RowsRefused, match=f"text has 65536 bytes, the store takes {MAX_VARCHAR_BYTES}"):
        lite.upsert([over])
    with pytest.raises(RowsRefused, match="symbol has 65536 bytes"):
        lite.upsert([make_row(symbol="x" * 65_536)])
    assert lite.count() == 1


def test_more_hits_than_milvus_returns_are_refused(lite: VectorStore, make_row: MakeRow) -> None:
    with pytest.raises(InputError, match="16384"):
        lite.search(make_row().vector, 16_385)


def test_a_refused_write_is_cut_until_the_bad_row_is_alone(lite: VectorStore, make_rows: MakeRows) -> None:
    # [a batch with one bad row losing the others]
    rows = make_rows(40)
    bad = replace(rows[17].chunk, start_line=2**70)
    with pytest.raises(BatchRefused, match="refused 1 rows"):
        lite.upsert([Row(bad, rows[17].vector)])
    rows[17] = Row(bad, rows[17].vector)
    report = load([rows], lite)
    assert (report.written, set(report.refused), lite.count()) == (39, {bad.id}, 39)


class Failed(grpc.RpcError):
    """What gRPC raises."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        self.code, self.details = lambda: code, lambda: details


@pytest.mark.parametrize(
    "error",
    [
        Failed(grpc.StatusCode.RESOURCE_EXHAUSTED, "grpc: received message larger than max (71556093 vs. 67108864)"),
        Failed(grpc.StatusCode.RESOURCE_EXHAUSTED, "out of memory"),
        Failed(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded"),
        MilvusException(65535, "rpc error: code = DeadlineExceeded desc = context deadline exceeded"),
    ],
)
def test_pages_that_are_too_much_are_halved(
    lite: VectorStore, make_rows: MakeRows, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    rows, sizes, open_pages = make_rows(600), [], MilvusClient.query_iterator

    def limited(client: MilvusClient, *arguments: Any, **options: Any) -> Any:
        sizes.append(options["batch_size"])
        pages = open_pages(client, *arguments, **options)
        if sizes[-1] > 250:
            pages.next = Mock(side_effect=error)
        elif sizes[-1] > 125:  # its second page fails
            pages.next = Mock(side_effect=[pages.next(), error])
        return pages

    lite.upsert(rows)
    monkeypatch.setattr(MilvusClient, "query_iterator", limited)
    # Only for retries: what other threads wait for is no matter of this test.
    wait = Mock(side_effect=AssertionError("a page that can be halved was waited for"))
    monkeypatch.setattr(retry, "time", Mock(monotonic=time.monotonic, sleep=wait))
    read = list(lite.rows())
    assert len(read) == 600
    assert {row.chunk.id: row.chunk for row in read} == {row.chunk.id: row.chunk for row in rows}
    assert sizes == [16_000, 8_000, 4_000, 2_000, 1_000, 500, 250, 125]


@pytest.mark.parametrize(
    ("error", "least"),
    [
        (Failed(grpc.StatusCode.RESOURCE_EXHAUSTED, "received message larger than max"), 1),
        (Failed(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded"), 62),
    ],
)
def test_a_page_of_few_rows_that_is_still_too_much_is_an_error(
    lite: VectorStore, monkeypatch: pytest.MonkeyPatch, error: Exception, least: int
) -> None:
    sizes = []

    def failing(client: MilvusClient, *arguments: Any, **options: Any) -> Mock:
        sizes.append(options["batch_size"])
        return Mock(next=Mock(side_effect=error))

    monkeypatch.setattr(MilvusClient, "query_iterator", failing)
    monkeypatch.setattr(retry, "FIRST_SECONDS", 0.01)
    monkeypatch.setattr(retry.retrying, "__kwdefaults__", {"limit": 0.0})
    with pytest.raises(StoreError, match=reason(error)):
        list(lite.scan())
    assert sizes[-1] == least
