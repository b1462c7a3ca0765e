from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from socket import create_connection, socket

import numpy as np
import pytest
from pymilvus import MilvusClient

from c2llm_integrations.code.chunk import CodeChunk, chunk_id
from c2llm_integrations.stores.base import CollectionSpec, Row, VectorStore
from c2llm_integrations.stores.milvus import CONNECTION

WIDTH = 16


@pytest.fixture
def store(open_: Callable[..., VectorStore], spec: CollectionSpec) -> VectorStore:
    """An empty collection of the database that `open_` opens."""
    opened = open_()
    opened.create(spec)
    return opened


@pytest.fixture(scope="session")
def milvus_lite_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The http:// address of Milvus Lite in a process of its own, over gRPC."""
    with socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("milvus-lite")
    command = (sys.executable, "-m", "milvus_lite", "server", "--host", "127.0.0.1")
    process = subprocess.Popen(
        [*command, "--data-dir", str(folder / "data"), "--port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for(port, process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            return create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            assert process.poll() is None, "the server ended"
            assert time.monotonic() < deadline, "the server does not listen"
            time.sleep(0.1)


def empty_milvus(address: str) -> None:
    """Drop every collection of a test server."""
    client = MilvusClient(address, **CONNECTION)
    for name in client.list_collections():
        client.drop_collection(name)
    client.close()


@pytest.fixture
def spec() -> CollectionSpec:
    return CollectionSpec(WIDTH, {"model": "somewhere/nano", "weights": "abc", "normalize": True, "projection": None})


@pytest.fixture
def make_row() -> Callable[..., Row]:
    """Return a row whose id and vector follow from its path, text and ordinal."""

    def make(path: str = "src/a.py", text: str = "x = 1\n", ordinal: int = 0, **fields: object) -> Row:
        repository = str(fields.get("repository", "repo"))
        known: dict[str, object] = {
            "language": "python",
            "symbol": f"f{ordinal}",
            "kind": "function",
            "start_line": 1 + ordinal,
            "end_line": 2 + ordinal,
        }
        row_id = chunk_id(repository, path, text, ordinal)
        vector = np.random.default_rng(int(row_id[:8], 16)).standard_normal(WIDTH).astype(np.float32)
        chunk = CodeChunk(id=row_id, path=path, text=text, **{**known, "repository": repository, **fields})  # type: ignore[arg-type]
        return Row(chunk, vector)

    return make


@pytest.fixture
def make_rows(make_row: Callable[..., Row]) -> Callable[..., list[Row]]:
    """Return `n` rows, ten to a file."""

    def make(n: int, **fields: object) -> list[Row]:
        return [make_row(f"src/file{i // 10}.py", f"def f{i}():\n    return {i}\n", i, **fields) for i in range(n)]

    return make
