"""Qdrant's REST interface, as far as our store uses it, over the real engine: Qdrant Edge, one shard a collection.

So filters, quantization, sparse vectors and their IDF are the engine's own. It checks the API key, refuses bodies over
the server's 32 MiB and whatever it does not know, and fails on purpose:

    faults = Faults(rate=0.05)                      # 5 % of the requests, each kind in turn; see `Faults`
    with serve(folder, faults=faults) as address:   # in a thread; faults may be changed at any time
        store = open_store(f"qdrant+{address}")

    server = ServerProcess(folder)                  # in a process of its own
    server.start(); server.kill(); server.start()   # SIGKILL; then the same port and folder again

It stays for what neither Edge nor a real server shows on demand, and PyPI has no real server: `test_qdrant_faults` and
`test_ingest_faults` need faults, kills and counted requests; `test_qdrant_server` keys, old versions and limits;
`test_distributed` one server for many processes; the contract on "http", `test_export_import` and `test_collections`
the REST client itself. Where QDRANT_URL names a real server, the contract runs on it too.

A client only notices a hung request by its own time-out: set `TIMEOUT_SECONDS` of `stores.qdrant.store`
low before opening the store.
"""

from __future__ import annotations

import gzip
import itertools
import json
import random
import re
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.qdrant_engine import Collections, Refused
from tests.waiting import free_port, until_listening

MAX_BODY = 32 * 2**20
KINDS = ("429", "500", "hang", "reset", "late reset")
# Answers that fill memory or time: their encoding, what is sent again and again, how often, and the seconds between.
NONSENSE = {
    "endless": ("identity", b" " * 2**20, sys.maxsize, 0.0),
    "unpacks": ("gzip", gzip.compress(bytes(2**28), 9), sys.maxsize, 0.0),
    "unasked": ("br", b" ", sys.maxsize, 0.0),
    "lists": ("identity", b"[]," * 2**10, 1, 0.0),
    "slow": ("identity", b" ", sys.maxsize, 0.01),
}
NEWEST = "1.18.0"


@dataclass
class Faults:
    """What goes wrong: a share `rate` of the requests whose "METHOD /path" matches `only`, each of `kinds` in turn.

    "429" carries `retry_after` (None: no such header), "hang" is applied and not answered for `hang_seconds`, "reset"
    breaks the connection before and "late reset" after applying the request. An upsert of a point that has `poison`
    in its text is refused (400). After `most` faults all is well. For more kinds see `NONSENSE`. `seen` counts what was
    done, `requests` all there were by their method and what follows the collection ("PUT points").
    """

    rate: float = 0.0
    kinds: Sequence[str] = KINDS
    only: str = ""
    retry_after: str | None = "0"
    hang_seconds: float = 30.0
    poison: str = ""
    most: int = sys.maxsize
    seed: int = 0
    seen: Counter[str] = field(default_factory=Counter)
    requests: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._random, self._turn = random.Random(self.seed), itertools.count()

    def draw(self, request: str) -> str | None:
        """Return what is to go wrong with a request."""
        self.requests[re.sub("/collections/[^/]+/?", "", request)] += 1
        if not re.search(self.only, request) or self.seen.total() >= self.most or self._random.random() >= self.rate:
            return None
        kind = self.kinds[next(self._turn) % len(self.kinds)]
        self.seen[kind] += 1
        return kind

    def refuses(self, text: str) -> bool:
        """Return whether a point with this text is to be refused."""
        return bool(self.poison) and self.poison in text


class Handler(BaseHTTPRequestHandler):
    """One connection; the class `serve` makes of it knows the collections, their lock and the key."""

    protocol_version = "HTTP/1.1"
    collections: Collections
    faults: Faults
    lock: threading.Lock
    key: str | None

    def do(self) -> None:
        path = self.path.partition("?")[0]
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        faults = self.faults
        with self.lock:
            kind = faults.draw(f"{self.command} {path}")
        if kind == "reset":
            return self.reset()
        if kind == "429":
            retry = {"Retry-After": faults.retry_after} if faults.retry_after is not None else {}
            return self.send(429, _error("too many requests"), retry)
        if kind == "500":
            return self.send(500, _error("Service internal error: on purpose"))
        if kind in NONSENSE:
            return self.send_nonsense(*NONSENSE[kind])
        status, answer = self.answer(path, body)
        if kind == "hang":
            time.sleep(faults.hang_seconds)
        if kind in ("hang", "late reset"):
            return self.reset()
        return self.send(status, answer)

    do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = do

    def answer(self, path: str, body: bytes) -> tuple[int, dict[str, Any]]:
        try:
            if self.key is not None and self.headers.get("api-key") != self.key:
                raise Refused(401, "Must provide an API key or an Authorization bearer token")
            if len(body) > MAX_BODY:
                raise Refused(413, f"JSON payload ({len(body)} bytes) is larger than allowed (limit: {MAX_BODY} bytes)")
            with self.lock:
                result = self.collections.answer(self.command, path, json.loads(body or b"{}"))
        except Refused as refused:
            return refused.args[0], _error(refused.args[1])
        except Exception as error:
            return 422, _error(f"the façade cannot do this: {error!r}")
        if path == "/":
            return 200, {"title": "qdrant", "version": self.collections.version}
        return 200, {"result": result, "status": "ok", "time": 0.0}

    def send(self, status: int, answer: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        body = json.dumps(answer).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def send_nonsense(self, encoding: str, part: bytes, times: int, pause: float) -> None:
        self.close_connection = True
        self.send_response(200)
        self.send_header("Content-Encoding", encoding)
        self.end_headers()
        with suppress(ConnectionError):
            for _ in range(times):
                self.wfile.write(part)
                time.sleep(pause)

    def reset(self) -> None:
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def _error(text: str) -> dict[str, Any]:
    return {"status": {"error": text}, "time": 0.0}


class Server(ThreadingHTTPServer):
    """The HTTP server, silent about connections that its clients gave up."""

    daemon_threads = True
    block_on_close = False

    def handle_error(self, *_: Any) -> None:
        """Say nothing."""


def _server(folder: Path, port: int, key: str | None, version: str, faults: Faults) -> tuple[Server, Collections]:
    collections = Collections(folder, version, faults.refuses)
    known = {"collections": collections, "faults": faults, "lock": threading.Lock(), "key": key}
    handler = type("Bound", (Handler,), known)
    return Server(("127.0.0.1", port), handler), collections


@contextmanager
def serve(
    folder: Path, key: str | None = None, version: str = NEWEST, faults: Faults | None = None, port: int = 0
) -> Iterator[str]:
    """Yield the http:// address of a server that keeps its shards under `folder`."""
    server, collections = _server(folder, port, key, version, faults or Faults())
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
        collections.close()


class ServerProcess:
    """A server in a process of its own, which can be killed and started again with what it had acknowledged."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.folder, self.address = folder, f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = (sys.executable, "-m", __name__, str(self.folder), str(self.port))
        self.process = subprocess.Popen(command, cwd=Path(__file__).parents[1])
        until_listening(self.port, self.process)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()


if __name__ == "__main__":
    _server(Path(sys.argv[1]), int(sys.argv[2]), None, NEWEST, Faults())[0].serve_forever()
