"""What many tests share: small checkpoints, a small project, and no way to a model hub."""

import os
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# Set before any test imports a library that would read it.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.pop("C2LLM_DEBUG", None)
# A shell starts what runs in the background with SIGINT ignored, and the commands under test would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# How long one example takes says more about the machine's other work than about the code.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "tests" / "data" / "golden"

PROJECT = {
    "README.md": "# Shop\n\nA small shop: prices, carts and orders.\n",
    "shop/__init__.py": "",
    "shop/prices.py": '''"""Prices in cents."""


def with_tax(cents: int, rate: float) -> int:
    """Add the tax to a net price and round to whole cents."""
    return round(cents * (1 + rate))


class Cart:
    """What a customer wants to buy."""

    def __init__(self) -> None:
        self.items: list[int] = []

    def total(self) -> int:
        """Sum up the prices of all items."""
        return sum(self.items)
''',
    "web/retry.js": """// Waits longer after each failure.
export function retryDelay(attempt) {
  return Math.min(1000 * 2 ** attempt, 30000);
}
""",
    ".env": "PASSWORD=hunter2\n",
}


STARTS_A_SERVER = {"milvus_server", "milvus_address", "milvus_lite_address"}
# Of the workers of `pytest -n`, one has that server. What asks for its address only as it runs is marked by hand.
ON_MILVUS = [pytest.mark.server, pytest.mark.xdist_group("milvus")]


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs a server by its fixtures."""
    for item in items:
        needed = STARTS_A_SERVER & set(getattr(item, "fixturenames", ()))
        for mark in ON_MILVUS if needed - {"milvus_lite_address"} else [pytest.mark.server] if needed else []:
            item.add_marker(mark)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs a GPU where there is none."""
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs an NVIDIA GPU")


@pytest.fixture(scope="session")
def tiny_model() -> Path:
    """The folder of a checkpoint with random weights and the real layout."""
    return GOLDEN / "c2llm-tiny-tied"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with a little source code, a secret and no git."""
    return write_project(tmp_path / "shop-project")


def write_project(folder: Path) -> Path:
    """Write the files of PROJECT into a new folder."""
    for name, text in PROJECT.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8", newline="\n")
    return folder


@pytest.fixture(scope="session")
def milvus_address(milvus_server: Any) -> str:
    """The http:// address of a real Milvus server."""
    return f"http://127.0.0.1:{milvus_server.listen_port}"


@pytest.fixture(scope="session")
def milvus_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A real Milvus server, of which a machine runs one at a time: PyPI's milvus 2.3.5."""
    milvus = pytest.importorskip("milvus", reason="PyPI has no Milvus server for this platform")
    if "PYTEST_XDIST_WORKER" in os.environ:
        try:
            (tmp_path_factory.getbasetemp().parent / "milvus").mkdir()
        except FileExistsError:
            pytest.fail("another worker of this run has the Milvus server; mark what asks for it with ON_MILVUS")
    _wait_until_free(2379)  # the server's own etcd takes no other port
    folder = tmp_path_factory.mktemp("milvus")
    server = milvus.MilvusServer(data_dir=str(folder), wait_for_started=False)
    server.listen_port = 0
    try:
        server.start()
        server.wait_started(timeout=60_000)
    except (OSError, RuntimeError, TimeoutError) as error:
        server.stop()
        pytest.skip(f"the Milvus server of PyPI does not run here: {error}")
    yield server
    server.stop()
    shutil.rmtree(folder, ignore_errors=True)  # half a gigabyte


@pytest.fixture(scope="session")
def milvus_lite_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The http:// address of Milvus Lite in a process of its own, over gRPC."""
    from tests.milvus_proxy import LiteServer  # here, because gRPC is an extra

    with LiteServer(tmp_path_factory.mktemp("milvus-lite")) as server:
        yield server.address


def _wait_until_free(port: int) -> None:
    for _ in range(60):
        with socket.socket() as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                return trial.bind(("127.0.0.1", port))
            except OSError:
                time.sleep(1)
    pytest.skip(f"port {port} is taken: another Milvus server or etcd runs on this machine")
