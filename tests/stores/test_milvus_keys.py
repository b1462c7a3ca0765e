"""Milvus: keys that are never shown, and calls that fail."""

from __future__ import annotations

import base64
import subprocess
import sys
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc
import pytest

from c2llm_integrations.errors import StoreError
from c2llm_integrations.stores import open_store
from c2llm_integrations.stores.vector_store import VectorStore
from tests.stores.test_milvus_store import MakeRow, lite, url

pytestmark = pytest.mark.slow
__all__ = ["lite", "url"]


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
