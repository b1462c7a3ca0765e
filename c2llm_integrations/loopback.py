"""The page's server: this machine's loopback address only, for its own page only, and nothing from anywhere else."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any

from c2llm_integrations.browse import Browser
from c2llm_integrations.errors import C2LLMError

HOST = "127.0.0.1"
# Bytes of a request: a question may be a pasted file.
MAX_BODY = 4 * 2**20
# Seconds after which a connection that says nothing is closed.
TIMEOUT = 30
PAGES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


def make_server(browser: Browser, port: int = 0) -> ThreadingHTTPServer:
    """Return a server on the loopback address, at a free port if `port` is 0; raises OSError if it is taken."""
    folder = files("c2llm_integrations") / "browse_page"
    pages = {path: ((folder / name).read_bytes(), kind) for path, (name, kind) in PAGES.items()}
    return _Server((HOST, port), partial(_Handler, browser, pages))


class _Server(ThreadingHTTPServer):
    request_queue_size = 128  # connections that wait; more are made to try again after a second

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print what went wrong, unless it is only that a reader has gone away."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    timeout = TIMEOUT
    server_version, sys_version = "c2llm", ""

    def __init__(self, browser: Browser, pages: dict[str, tuple[bytes, str]], *args: Any) -> None:
        self._browser = browser
        self._pages = pages
        super().__init__(*args)

    def do_GET(self) -> None:
        """Give the page's own files, and what it says of itself."""
        if not self._is_ours():
            return
        path = self.path.partition("?")[0]
        if path in self._pages:
            self._send(200, *self._pages[path])
        elif path == "/favicon.ico":
            self._send(204, b"", "image/x-icon")
        elif path == "/api/about":
            self._answer(lambda _: self._browser.about(), {})
        else:
            self._refuse(404, "there is nothing here; the page is at /")

    def do_POST(self) -> None:
        """Answer a question, or a look at the attention within a hit."""
        if not self._is_ours():
            return
        answers = {"/api/search": self._browser.search, "/api/attention": self._browser.attention}
        answer = answers.get(self.path.partition("?")[0])
        if answer is None:
            self._refuse(404, "there is nothing here; the page is at /")
        elif (asked := self._body()) is not None:
            self._answer(answer, asked)

    def _is_ours(self) -> bool:
        """Refuse what another site sends through the browser: by a name that leads here, or from its own page."""
        port = self.connection.getsockname()[1]
        hosts = [f"{host}:{port}" for host in (HOST, "localhost")]
        if self.headers.get("Host") not in hosts:
            self._refuse(403, f"this page is at http://{hosts[0]}/ only")
            return False
        origin = self.headers.get("Origin")
        if origin not in (None, *(f"http://{host}" for host in hosts)):
            self._refuse(403, "asked from another site's page")
            return False
        return True

    def _body(self) -> dict[str, Any] | None:
        length = self.headers.get("Content-Length", "")
        asked = None
        if not (length.isascii() and length.isdigit()):
            self._refuse(411, "the request does not say how long it is")
        elif len(length) > 12 or int(length) > MAX_BODY:
            self._refuse(413, f"the request has {length[:20]} bytes, at most {MAX_BODY} are read")
        elif self.headers.get_content_type() != "application/json":
            self._refuse(415, "the request is no JSON")
        else:
            with suppress(ValueError, RecursionError):
                asked = json.loads(self.rfile.read(int(length)))
            if isinstance(asked, dict):
                return asked
            self._refuse(400, "the request is no JSON object")
        return None

    def _answer(self, answer: Callable[[Mapping[str, Any]], dict[str, Any]], asked: Mapping[str, Any]) -> None:
        try:
            self._send_json(200, answer(asked))
        except C2LLMError as error:
            self._refuse(400, str(error))
        except (BrokenPipeError, ConnectionResetError):
            raise
        except Exception as error:
            traceback.print_exception(error, file=sys.stderr)
            self._refuse(500, f"unexpected {type(error).__name__}; the terminal shows where")

    def _refuse(self, status: int, why: str) -> None:
        self.close_connection = True  # what is left of the request is not read
        self._send_json(status, {"error": why})

    def _send_json(self, status: int, document: dict[str, Any]) -> None:
        self._send(status, json.dumps(document).encode(), "application/json")

    def _send(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        for name, value in {**HEADERS, "Content-Type": kind, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: questions are nobody's business, and the terminal belongs to its user."""
