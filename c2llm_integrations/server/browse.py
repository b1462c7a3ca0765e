"""A web page for the same search: a question, its hits, and where in them the model looked.

It is served on the loopback address only, answers its own page only, and loads nothing from elsewhere.
"""

from __future__ import annotations

import json
import socket
import sys
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from math import inf
from time import monotonic
from typing import TYPE_CHECKING, Any

from c2llm_integrations._utils.json_lines import parse_json
from c2llm_integrations._utils.printable import shortened
from c2llm_integrations.code.chunk import KINDS
from c2llm_integrations.code.lexical_terms import query_terms
from c2llm_integrations.code.path_filter import MAX_FILTER_CHARS
from c2llm_integrations.errors import C2LLMError, InputError
from c2llm_integrations.retrieval.options import SearchOptions
from c2llm_integrations.retrieval.search import answer, require_comparable, spec_of
from c2llm_integrations.server.highlight import MAX_HIT_CHARS, highlighted, weighted
from c2llm_integrations.stores.records import Hit
from c2llm_integrations.stores.vector_store import VectorStore

if TYPE_CHECKING:
    from c2llm_integrations.model.embedder import C2LLMEmbedder

HOST = "127.0.0.1"
# A question may be a pasted file.
MAX_BODY_BYTES = 4 * 2**20
# How long a connection may be silent, take for its request, and take to read the answer.
TIMEOUT_SECONDS = 30
# A process may often have no more than 1,024 open files, and without a free one the server listens in vain.
MAX_CONNECTIONS = 512
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

MAX_HITS = 100
# Characters shown of a path, and of a kind, a symbol and a repository together: a row may hold longer ones.
MAX_SHOWN = 1_000


class Browser:
    """Answers to the page's requests. Safe to call from many threads."""

    def __init__(self, store: VectorStore, embedder: C2LLMEmbedder, look: Callable[[], list[str]] = list) -> None:
        """Take a store, its model, and `look`, which returns lines about the freshness of the answers.

        Raises StoreError while nothing is indexed, SpecMismatch if the collection was made with another model.
        """
        require_comparable(spec_of(store), embedder.output_dim, embedder.fingerprint)
        self._store = store
        self._embedder = embedder
        self._look = look

    def about(self) -> dict[str, Any]:
        """Return the repositories there are, and a line about the collection."""
        names = sorted(self._store.claims())
        rows, model = self._store.count(), self._embedder.fingerprint["model"]
        return {
            "repositories": names,
            "kinds": sorted(KINDS),
            "text": f"{rows:,} rows in {self._store.url}, model {model}",
        }

    def search(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Return the hits of a question, ready to be shown; raises InputError for one that cannot be answered."""
        question = _text(asked, "query")
        filters: dict[str, Any] = {
            name: _text(asked, name).strip() or None for name in ("language", "path", "repository", "kind")
        }
        for name, value in filters.items():
            if value is not None and len(value) > MAX_FILTER_CHARS:
                raise InputError(f"{name} has {len(value)} characters, at most {MAX_FILTER_CHARS} are read")
        mode: Any = _text(asked, "mode") or "hybrid"
        options = SearchOptions(limit=_limit(_text(asked, "limit") or "10"), mode=mode, **filters)
        found = answer(question, self._embedder, self._store, options)
        terms = query_terms(question)
        notes = [*self._look(), *found.notes]
        if found.unmatched:
            notes.append(f"nothing indexed has the {found.unmatched} {filters[found.unmatched]!r}")
        return {"hits": [_hit(hit, terms) for hit in found.hits], "notes": notes}

    def attention(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Return the lines of a hit's text, each token by the weight that PMA gives it."""
        text = _text(asked, "text")[:MAX_HIT_CHARS]
        weights = self._embedder.attention(text)
        return {"lines": weighted(text, weights), "share": _share([weight for *_, weight in weights])}


def _hit(hit: Hit, terms: list[str]) -> dict[str, Any]:
    chunk = hit.chunk
    return {
        "place": f"{shortened(chunk.path, MAX_SHOWN)}:{chunk.start_line}-{chunk.end_line}",
        "what": shortened(
            " ".join(part for part in (chunk.kind, chunk.symbol, f"· {chunk.repository}") if part), MAX_SHOWN
        ),
        "score": f"{hit.score:.3f}",
        "explanation": [(name, f"{value:+.4f}") for name, value in hit.explanation.items()],
        "start_line": chunk.start_line,
        "lines": highlighted(chunk.path, chunk.text, terms),
        "text": chunk.text[:MAX_HIT_CHARS],  # as it is, for the page to ask for its attention
    }


def _share(weights: list[float]) -> str:
    if not weights:
        return "nothing of it was read"
    total = sum(weights)
    least, most = (len(weights) * edge / total for edge in (min(weights), max(weights)))
    return f"tokens weigh {least:.2f} to {most:.2f} of an even share; {total:.0%} of all weight lies on this code"


def _limit(text: str) -> int:
    # Whatever has more digits is out of bounds, or written by no page; Python refuses to read some of it.
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
    if not 1 <= number <= MAX_HITS:
        raise InputError(f"the number of hits is {text[:20]!r}, must be 1 to {MAX_HITS}")
    return number


def _text(asked: Mapping[str, Any], name: str) -> str:
    value = asked.get(name, "")
    if not isinstance(value, str):
        raise InputError(f"{name} is a {type(value).__name__}, expected text")
    return value


# ---- the server


def make_server(browser: Browser, port: int = 0) -> ThreadingHTTPServer:
    """Return a server on the loopback address, at a free port if `port` is 0; raises OSError if it is taken."""
    folder = files("c2llm_integrations.server") / "page"
    pages = {path: ((folder / name).read_bytes(), kind) for path, (name, kind) in PAGES.items()}
    return _Server((HOST, port), partial(_Handler, browser, pages))


class _Server(ThreadingHTTPServer):
    request_queue_size = 128  # connections that wait; more are made to try again after a second

    def __init__(self, *args: Any) -> None:
        # Of each connection, until when its request must have arrived; infinite once it has.
        self.deadlines: dict[socket.socket, float] = {}
        super().__init__(*args)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread of its own; close what is beyond the bound."""
        if len(self.deadlines) >= MAX_CONNECTIONS:
            self.shutdown_request(request)
        else:
            self.deadlines[request] = monotonic() + TIMEOUT_SECONDS
            super().process_request(request, client_address)

    def service_actions(self) -> None:
        """End requests that arrive a byte at a time; called every half a second."""
        for request, deadline in self.deadlines.copy().items():
            if monotonic() > deadline:
                with suppress(OSError):
                    request.shutdown(socket.SHUT_RDWR)

    def shutdown_request(self, request: Any) -> None:
        """Close a connection."""
        self.deadlines.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print what went wrong, unless it is only that a reader has gone away."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = TIMEOUT_SECONDS
    server_version, sys_version = "c2llm", ""

    def __init__(self, browser: Browser, pages: dict[str, tuple[bytes, str]], *args: Any) -> None:
        self._browser = browser
        self._pages = pages
        super().__init__(*args)

    def do_GET(self) -> None:
        """Serve the page's own files, and the facts about the collection."""
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
        """Refuse requests that another site sends through the browser: by a rebound DNS name, or from its own page."""
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
        elif len(length) > 12 or int(length) > MAX_BODY_BYTES:
            self._refuse(413, f"the request has {length[:20]} bytes, at most {MAX_BODY_BYTES} are read")
        elif self.headers.get_content_type() != "application/json":
            self._refuse(415, "the request is not JSON")
        else:
            with suppress(ValueError):
                asked = parse_json(self.rfile.read(int(length)))
            if isinstance(asked, dict):
                return asked
            self._refuse(400, "the request is not a JSON object")
        return None

    def _answer(self, answer: Callable[[Mapping[str, Any]], dict[str, Any]], asked: Mapping[str, Any]) -> None:
        self.server.deadlines[self.connection] = inf
        try:
            self._send_json(200, answer(asked))
        except C2LLMError as error:
            self._refuse(400, str(error))
        except (BrokenPipeError, ConnectionResetError):
            raise
        except Exception as error:
            traceback.print_exception(error, file=sys.stderr)
            self._refuse(500, f"unexpected {type(error).__name__}; the terminal shows where")

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer a request that is not HTTP, or of another method, with the same headers."""
        self._refuse(code, message or "this is not a request that the page makes")

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
        """Log nothing: a question is private, and the terminal is the user's."""
