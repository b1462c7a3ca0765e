"""Milvus Lite as a server that can be killed, and a proxy between a client and a Milvus that lets calls fail."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
from typing_extensions import Self

from tests.waiting import free_port, until_listening

KINDS = ("unavailable", "lost", "internal", "hang")
LARGE = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


class Faults:
    """Which calls fail: a share `rate` of all; `seen` counts them by kind.

    unavailable  refused before the server sees it, as while it restarts
    lost         the server does it, the answer never arrives
    internal     an error without a reason
    hang         the server does it, the answer comes too late
    """

    def __init__(self, kinds: Sequence[str] = KINDS, seed: int = 0) -> None:
        self.rate = 0.0
        self.seen: Counter[str] = Counter()
        self._kinds = kinds
        self._random = random.Random(seed)

    def next(self) -> str:
        """The kind of failure of one call, "" for none."""
        kind = self._random.choice(self._kinds) if self._random.random() < self.rate else ""
        self.seen[kind] += 1
        return kind


class _Proxy(grpc.GenericRpcHandler):
    def __init__(self, channel: grpc.Channel, faults: Faults) -> None:
        self._channel, self._faults = channel, faults

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        passed_on = self._channel.unary_unary(details.method)

        def handle(request: bytes, context: grpc.ServicerContext) -> Any:
            kind = self._faults.next()
            if kind == "unavailable":
                context.abort(grpc.StatusCode.UNAVAILABLE, "the server restarts")
            if kind == "internal":
                context.abort(grpc.StatusCode.INTERNAL, "something went wrong")
            answer = passed_on(request, metadata=context.invocation_metadata())
            if kind == "lost":
                context.abort(grpc.StatusCode.UNAVAILABLE, "connection reset by peer")
            if kind == "hang":
                time.sleep(max(0.0, min(context.time_remaining() or 0, 30)))
            return answer

        return grpc.unary_unary_rpc_method_handler(handle)


@contextmanager
def _served(handler: grpc.GenericRpcHandler) -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(8), handlers=[handler], options=LARGE)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.stop(None)


@contextmanager
def between(address: str, faults: Faults) -> Iterator[str]:
    """The http:// address of a proxy to the Milvus at `address`."""
    with (
        grpc.insecure_channel(address.removeprefix("http://"), LARGE) as channel,
        _served(_Proxy(channel, faults)) as proxy,
    ):
        yield proxy


class _Fake(grpc.GenericRpcHandler):
    def __init__(self, answer: Callable[[str], bytes]) -> None:
        self._answer = answer

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        method = details.method.rpartition("/")[2]
        return grpc.unary_unary_rpc_method_handler(lambda request, context: self._answer(method))


@contextmanager
def faked(answer: Callable[[str], bytes]) -> Iterator[str]:
    """The http:// address of a server that answers each method, by its name, with these bytes; b"" is an empty one."""
    with _served(_Fake(answer)) as address:
        yield address


class LiteServer:
    """Milvus Lite in a process of its own, over gRPC."""

    def __init__(self, folder: Path) -> None:
        self._port = free_port()
        self._command = [sys.executable, "-m", "milvus_lite", "server", "--host", "127.0.0.1"]
        self._command += ["--data-dir", str(folder / "data"), "--port", str(self._port)]
        self.address = f"http://127.0.0.1:{self._port}"

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()
        self._process.wait()

    def start(self) -> None:
        """Start it on its folder; returns when it listens."""
        quiet = subprocess.DEVNULL
        self._process = subprocess.Popen(self._command, stdout=quiet, stderr=quiet)
        until_listening(self._port, self._process)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
