"""What Milvus and Milvus Lite add to the contract."""

from __future__ import annotations

import base64
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymilvus import MilvusClient

from c2llm_integrations.errors import InputError, RowsRefused, StoreBusy, StoreError
from c2llm_integrations.stores import open_store
from c2llm_integrations.stores.base import CollectionSpec, Filter, Row, VectorStore
from c2llm_integrations.stores.milvus import MilvusStore
from c2llm_integrations.stores.milvus_collections import CONNECTION
from c2llm_integrations.stores.milvus_filter import expression, literal
from c2llm_integrations.stores.milvus_schema import MAX_VARCHAR_BYTES

MakeRow = Callable[..., Row]


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"milvus+lite://{tmp_path / 'folder' / 'store.db'}"


@pytest.fixture
def lite(url: str, spec: CollectionSpec) -> Iterator[VectorStore]:
    with open_store(url) as store:
        store.create(spec)
        yield store


# ---- Milvus Lite's folder


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
    with pytest.raises(StoreError, match="is no folder"):
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
        with pytest.raises(StoreBusy, match="another process"):
            open_store(url)
        process.stdin.close()
    with open_store(url) as store:
        assert store.spec == spec
    assert capfd.readouterr().err == ""


UPSERT_AND_DIE = """
import os, signal, sys
import numpy as np
from c2llm_integrations.code.chunk import CodeChunk, chunk_id
from c2llm_integrations.stores import open_store
from c2llm_integrations.stores.base import CollectionSpec, Row
store = open_store(sys.argv[1])
store.create(CollectionSpec(4, {}))
for batch in range(3):
    ids = [chunk_id("r", "p", str(batch), i) for i in range(500)]
    store.upsert([Row(CodeChunk(id, "r", "p", "", "", "", 1, 1, "x"), np.eye(4, dtype=np.float32)[0]) for id in ids])
    store.delete(ids[:100])
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_lite_keeps_what_it_acknowledged_before_a_kill(url: str) -> None:
    killed = subprocess.run([sys.executable, "-c", UPSERT_AND_DIE, url], capture_output=True)
    assert killed.returncode == -9
    with open_store(url) as store:
        assert (store.count(), len(list(store.scan("r")))) == (1_200, 1_200)


# ---- collections


@pytest.mark.parametrize("name", ["my-repo", "v1.0", "1st"])
def test_names_that_milvus_does_not_take_are_refused(tmp_path: Path, name: str) -> None:
    for url in (f"milvus+lite://{tmp_path / 'x.db'}", "milvus+http://localhost:1"):
        with pytest.raises(InputError, match=r"no usable name for Milvus; use 1 to 128 letters"):
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


def test_a_half_made_collection_is_finished_at_the_next_opening(
    url: str, spec: CollectionSpec, make_row: MakeRow, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(_: MilvusStore) -> None:
        raise KeyboardInterrupt

    with open_store(url) as store, monkeypatch.context() as patched:
        patched.setattr(MilvusStore, "_make_searchable", killed)
        with pytest.raises(KeyboardInterrupt):
            store.create(spec)
    with open_store(url) as store:
        store.upsert([make_row()])
        assert len(store.search(make_row().vector, 1)) == 1


# ---- rows and filters


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_literal_is_one_line_that_reads_back(value: str) -> None:
    written = literal(value)
    assert "\n" not in written
    assert "\r" not in written
    escapes = {'"': '"', "\\": "\\", "n": "\n", "r": "\r", "t": "\t"}
    characters = iter(written[1:-1])
    read = "".join(escapes[next(characters)] if one == "\\" else one for one in characters)
    assert (read, written[0], written[-1]) == (value, '"', '"')


def test_expressions_quote_every_value() -> None:
    assert expression(Filter()) == ""
    where = Filter(repositories=["a"], paths=['x" or 1==1', "é\\"])
    assert expression(where) == 'repository in ["a"] and path in ["x\\" or 1==1", "é\\\\"]'


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


# ---- keys and failures


@pytest.fixture
def refusing_server() -> Iterator[tuple[str, list[str]]]:
    """A gRPC server that refuses every call, and the authorization values it was sent."""
    seen: list[str] = []

    class Refuse(grpc.GenericRpcHandler):
        def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
            seen.extend(str(value) for key, value in details.invocation_metadata if key == "authorization")

            def refuse(request: bytes, context: grpc.ServicerContext) -> bytes:
                context.abort(grpc.StatusCode.UNAUTHENTICATED, "auth check failure")

            return grpc.unary_unary_rpc_method_handler(refuse)

    server = grpc.server(futures.ThreadPoolExecutor(1), handlers=[Refuse()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"milvus+http://127.0.0.1:{port}", seen
    server.stop(None)


@pytest.mark.parametrize("source", ["argument", "environment"])
def test_the_key_is_sent_and_never_shown(
    refusing_server: tuple[str, list[str]], source: str, monkeypatch: pytest.MonkeyPatch, capfd: Any, caplog: Any
) -> None:
    url, seen = refusing_server
    if source == "environment":
        monkeypatch.setenv("MILVUS_TOKEN", "root:s3cret\n")
    with pytest.raises(StoreError, match="is the server up, and the key right") as caught:
        open_store(url, api_key="root:s3cret" if source == "argument" else None)
    encoded = base64.b64encode(b"root:s3cret").decode()
    assert encoded in seen
    shown = str(caught.value) + caplog.text + "".join(capfd.readouterr())
    assert "s3cret" not in shown
    assert encoded not in shown
    assert "\n" not in str(caught.value)


def test_an_open_store_does_not_show_its_key(milvus_lite_address: str, capfd: Any) -> None:
    with open_store(f"milvus+{milvus_lite_address}", "nothing", api_key="s3cret") as store:
        with pytest.raises(StoreError) as caught:
            store.optimize()
        assert "s3cret" not in f"{store!r} {store.url} {vars(store)} {caught.value}"
    assert capfd.readouterr() == ("", "")


def test_a_failed_call_is_one_line_and_prints_nothing(
    lite: VectorStore, make_row: MakeRow, capfd: Any, url: str
) -> None:
    with open_store(url) as second:
        second.drop()
    with pytest.raises(StoreError) as caught:
        lite.upsert([make_row()])
    assert "\n" not in str(caught.value)
    assert "'code'" in str(caught.value)
    assert capfd.readouterr().err == ""


def test_a_server_that_is_not_there_is_named() -> None:
    with pytest.raises(StoreError, match=r"milvus\+http://127\.0\.0\.1:9 cannot be opened"):
        open_store("milvus+http://127.0.0.1:9")


@pytest.mark.parametrize(
    ("missing", "url"), [("pymilvus", "milvus+http://localhost"), ("milvus_lite.server_manager", "milvus+lite://x.db")]
)
def test_a_missing_client_names_the_extra(missing: str, url: str) -> None:
    code = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        "from c2llm_integrations.errors import MissingExtra\n"
        "from c2llm_integrations.stores import open_store\n"
        f"try: open_store({url!r})\n"
        "except MissingExtra as error: print(error)\n"
    )
    shown = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert 'pip install "c2llm-integrations[milvus]"' in shown
