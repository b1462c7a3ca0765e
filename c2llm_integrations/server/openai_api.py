"""`c2llm serve`: an OpenAI-compatible embedding server over one loaded model.

Requests that wait at the same time are computed together. A request that would wait too long gets 429 at once;
accepted requests are answered even while the server shuts down.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import ipaddress
import os
import re
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from c2llm_integrations._utils.json_lines import parse_json
from c2llm_integrations.errors import InputError, MissingExtra, ServerError
from c2llm_integrations.model.embedder import C2LLMEmbedder

try:
    import orjson
    from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.middleware import Middleware
    from starlette.middleware.cors import CORSMiddleware
    from starlette.requests import ClientDisconnect, Request
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route
    from uvicorn.protocols.http.h11_impl import H11Protocol
except ImportError as error:
    raise MissingExtra(error.name or "starlette", "serve") from error

# How long a client may take to send its body.
BODY_SECONDS = 30.0
# How long a client may take to send the head of a request, which is at most 64 KiB, or to read a part of an answer.
HEAD_SECONDS = 10.0
# Processes may often have no more than 1,024 open files; without a free one, nobody is answered.
MAX_CONNECTIONS = 512
RETRY_SECONDS = 1
# Whoever fills the server with large bodies does not keep it from answering questions.
SMALL_BODY_BYTES = 2**18

_ORIGIN = re.compile(r"https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?|https?://\[[0-9A-Fa-f:]+\](:[0-9]{1,5})?")


@dataclass(frozen=True)
class Limits:
    """Limits of the server: `texts` waiting in all, `requests` at once, `body_bytes` and `inputs` of one request.

    `held_bytes`: of the bodies of all requests that are not answered yet; beyond, only small ones are taken.
    """

    texts: int = 8192
    requests: int = 128  # each occupies a thread, which only waits
    body_bytes: int = 32 * 2**20
    held_bytes: int = 256 * 2**20
    inputs: int = 2048  # as OpenAI


class Refused(HTTPException):
    """An answer other than 200: its status, what is wrong, the parameter at fault, and OpenAI's name for the error."""

    def __init__(self, status: int, message: str, parameter: str | None = None, code: str | None = None) -> None:
        super().__init__(status, message, {"Retry-After": str(RETRY_SECONDS)} if status == 429 else None)
        self.parameter, self.code = parameter, code


@dataclass(frozen=True)
class EmbeddingRequest:
    """A request body, checked."""

    texts: list[str]
    kind: str
    as_base64: bool
    model: str | None = None

    @classmethod
    def read(cls, body: bytes, width: int, limits: Limits) -> EmbeddingRequest:
        """Read a body; raises Refused (400) naming the parameter that cannot be honored."""
        try:
            data = parse_json(body)
        except ValueError:
            raise Refused(400, "the body is not valid JSON") from None
        if not isinstance(data, dict):
            raise Refused(400, f"the body is a JSON {type(data).__name__}, expected an object")
        texts = [data["input"]] if isinstance(data.get("input"), str) else data.get("input")
        if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
            raise Refused(400, "input must be a string or a list of strings; tokens are not taken", "input")
        if len(texts) > limits.inputs:
            raise Refused(400, f"input has {len(texts)} texts, at most {limits.inputs} go into one request", "input")
        if data.get("dimensions") not in (None, width):
            why = f"this model gives {width}; serve it with --output-dim N for another width"
            raise Refused(400, f"dimensions is {data['dimensions']!r:.200}, {why}", "dimensions")
        kind = _choice(data, "input_type", ("document", "query", "text"))
        as_base64 = _choice(data, "encoding_format", ("float", "base64")) == "base64"
        model = data.get("model")
        if model is not None and not isinstance(model, str):
            raise Refused(400, f"model is a JSON {type(model).__name__}, expected a string", "model")
        return cls(texts, kind, as_base64, model)


def create_app(
    embedder: C2LLMEmbedder, *, api_key: str | None = None, limits: Limits = Limits(), origins: Sequence[str] = ()
) -> Starlette:
    """Return the ASGI application.

    Args:
        embedder: Computes the vectors.
        api_key: The bearer token that embedding then needs.
        limits: The limits of one request, and of all that wait.
        origins: Pages that may ask from a browser, such as https://app.example.org; "*" allows every page.

    Raises:
        InputError: For a value in `origins` that is not an origin.

    """
    for origin in origins:
        if origin != "*" and not _ORIGIN.fullmatch(origin):
            raise InputError(f"{origin!r} is not an origin; write it like https://app.example.org:8443, or '*' for all")
    server = _Server(embedder, api_key, limits, origins)
    headers = ["*"]  # the OpenAI clients send some of their own
    cors = Middleware(CORSMiddleware, allow_origins=origins, allow_methods=["GET", "POST"], allow_headers=headers)
    return Starlette(
        routes=[
            Route("/v1/embeddings", server.embeddings, methods=["POST"]),
            Route("/v1/models", server.models),
            Route("/v1/models/{name:path}", server.model),
            Route("/health", server.health),
            Route("/metrics", server.metrics),
        ],
        exception_handlers={HTTPException: _refusal},
        middleware=[cors] if origins else [],
    )


class _Server:
    def __init__(
        self, embedder: C2LLMEmbedder, api_key: str | None, limits: Limits, origins: Sequence[str] = ()
    ) -> None:
        self.embedder = embedder
        given = str(embedder.fingerprint["model"])
        # A folder's path is private, so answers have only its name; a client that knows the path may use it.
        self.name = Path(given).name if os.path.isabs(given) else given
        self._names = (None, given, self.name)
        self.limits = limits
        self._about = {"id": self.name, "object": "model", "created": 0, "owned_by": "c2llm"}
        # Enough for an embedder that asks this server to give the vectors of one that loads the model.
        self._about |= {"fingerprint": {**embedder.fingerprint, "model": self.name}, "prompts": dict(embedder.prompts)}
        self._expected = None if api_key is None else f"Bearer {api_key}".encode()
        self._origins = frozenset(origins)
        self._threads = ThreadPoolExecutor(limits.requests, "c2llm-serve")
        self._waiting = 0  # texts accepted and not answered
        self._running = 0  # requests
        self._held: dict[Request, int] = {}  # bytes of the bodies of requests that are not answered
        registry = self._registry = CollectorRegistry()
        self._answers = Counter("c2llm_requests", "Answered requests", ["status"], registry=registry)
        self._texts = Counter("c2llm_texts", "Embedded texts", registry=registry)
        self._tokens = Counter("c2llm_tokens", "Computed tokens", registry=registry)
        self._seconds = Histogram("c2llm_request_seconds", "Time to answer a request", registry=registry)
        Gauge("c2llm_texts_waiting", "Accepted texts not yet answered", registry=registry).set_function(
            lambda: self._waiting
        )

    async def embeddings(self, request: Request) -> Response:
        """POST /v1/embeddings."""
        begin, status = perf_counter(), 500
        try:
            response = await self._embed(request)
            status = response.status_code
            return response
        except Refused as refusal:
            status = refusal.status_code
            raise
        finally:
            self._held.pop(request, None)
            self._answers.labels(str(status)).inc()
            self._seconds.observe(perf_counter() - begin)

    async def _embed(self, request: Request) -> Response:
        self._require_key(request)
        body = await _body(request, self.limits, self._held)
        asked = EmbeddingRequest.read(body, self.embedder.output_dim, self.limits)
        del body  # its texts are kept until they are answered
        self._require_model(asked.model)
        full = self._waiting > 0 and self._waiting + len(asked.texts) > self.limits.texts
        if full or self._running >= self.limits.requests:
            raise Refused(429, f"{self._waiting} texts wait already; try again in {RETRY_SECONDS} s")
        self._waiting += len(asked.texts)
        self._running += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads, self._answer, asked)
        except InputError as error:
            raise Refused(400, str(error), "input") from None
        except ServerError as error:  # of the server that this one asks
            raise Refused(502, str(error)) from None
        finally:
            self._waiting -= len(asked.texts)
            self._running -= 1

    def _answer(self, asked: EmbeddingRequest) -> Response:
        vectors, counts = self.embedder.encode_and_count(asked.texts, asked.kind)
        tokens = int(counts.sum())
        self._texts.inc(len(asked.texts))
        self._tokens.inc(tokens)
        rows: Any = np.ascontiguousarray(vectors)
        if asked.as_base64:
            rows = [base64.b64encode(vector.astype("<f4").tobytes()).decode() for vector in vectors]
        data = [{"object": "embedding", "index": i, "embedding": row} for i, row in enumerate(rows)]
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        body = {"object": "list", "data": data, "model": self.name, "usage": usage}
        # Python's own JSON writer takes 15 times as long, and would limit the server.
        return Response(orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY), media_type="application/json")

    def _require_key(self, request: Request) -> None:
        """Raise Refused without the key; if the server has no key, see `_require_no_page`."""
        self._require_no_page(request)
        given = request.headers.get("authorization", "").encode()
        if self._expected is not None and not hmac.compare_digest(given, self._expected):
            raise Refused(401, "the API key is missing or wrong")

    def _require_no_page(self, request: Request) -> None:
        """On a server without a key, raise Refused for requests of web pages: by a rebound DNS name, or an origin."""
        if self._expected is not None:
            return
        if not _is_local(request.headers.get("host", "")):
            raise Refused(403, "without an API key this server answers to localhost and addresses only")
        origin = request.headers.get("origin")
        if origin is not None and not self._origins & {origin, "*"}:
            raise Refused(403, f"web pages of {origin[:200]!r} may not ask; allow it with --cors, or set an API key")

    def _require_model(self, name: str | None) -> None:
        if name is not None and name not in self._names:
            why = f"the model {name[:200]!r} does not exist, this server has {self.name!r}"
            raise Refused(404, why, "model", "model_not_found")

    async def models(self, request: Request) -> Response:
        """GET /v1/models."""
        self._require_key(request)
        return JSONResponse({"object": "list", "data": [self._about]})

    async def model(self, request: Request) -> Response:
        """GET /v1/models/NAME."""
        self._require_key(request)
        self._require_model(request.path_params["name"])
        return JSONResponse(self._about)

    async def health(self, request: Request) -> Response:
        """GET /health."""
        self._require_no_page(request)
        return JSONResponse({"status": "ok", "model": self.name, "dimensions": self.embedder.output_dim})

    async def metrics(self, request: Request) -> Response:
        """GET /metrics, as Prometheus reads it."""
        self._require_no_page(request)
        return Response(generate_latest(self._registry), media_type="text/plain; version=0.0.4")


async def _body(request: Request, limits: Limits, held: dict[Request, int]) -> bytes:
    """Read the body within the limits, for at most `BODY_SECONDS`; `held` is kept up to date."""

    async def read() -> bytes:
        body = bytearray()
        async for part in request.stream():
            body += part
            held[request] = len(body)
            if len(body) > limits.body_bytes:
                raise Refused(413, f"the body has over {limits.body_bytes} bytes; send fewer texts at once")
            if len(body) > SMALL_BODY_BYTES and sum(held.values()) > limits.held_bytes:
                why = f"unanswered requests hold {limits.held_bytes} bytes already"
                raise Refused(429, f"{why}; send fewer texts at once, or try again in {RETRY_SECONDS} s")
        return bytes(body)

    try:
        return await asyncio.wait_for(read(), BODY_SECONDS)
    except asyncio.TimeoutError:
        raise Refused(408, f"the body did not arrive within {BODY_SECONDS:.0f} s") from None
    except ClientDisconnect:
        raise Refused(400, "the client went away") from None


def _is_local(host: str) -> bool:
    """Return whether a Host header is localhost or an IP address, which DNS cannot point elsewhere."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or bool(ipaddress.ip_address(name))
    except ValueError:
        return False


def _choice(data: dict[str, Any], name: str, values: tuple[str, ...]) -> str:
    value = data.get(name) or values[0]
    if value not in values:
        raise Refused(400, f"{name} is {value!r:.200}, expected one of {', '.join(values)}", name)
    return str(value)


async def _refusal(request: Request, error: Exception) -> Response:
    """Answer as OpenAI does; Starlette itself refuses what has no route."""
    assert isinstance(error, HTTPException)
    where = "" if isinstance(error, Refused) else f"{request.method} {request.url.path[:200]}: "
    kind = {401: "authentication_error", 429: "rate_limit_error"}.get(error.status_code, "invalid_request_error")
    about: dict[str, Any] = {"message": where + error.detail, "type": kind}
    about |= {"param": getattr(error, "parameter", None), "code": getattr(error, "code", None)}
    return JSONResponse({"error": about}, error.status_code, error.headers)


class BoundedConnection(H11Protocol):
    """A connection that closes if no request arrives in time, or if there are too many connections.

    It is aborted if the client stops reading an answer.
    """

    _unread = 0  # bytes of answers at the last look, if the client has read nothing since

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See `asyncio.Protocol`."""
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            transport.close()
        else:
            self.loop.call_later(HEAD_SECONDS, self._look, None)

    def resume_writing(self) -> None:
        """See `asyncio.Protocol`: the client has read what waited."""
        super().resume_writing()
        self._unread = 0

    def _look(self, last: object) -> None:
        """Close the connection if it is idle and its latest request is still `last`, that of the look before."""
        is_busy = self.cycle is not None and not self.cycle.response_complete
        latest = object() if is_busy else self.cycle  # a new object: at the next look it is not the latest one
        unread = self.transport.get_write_buffer_size()
        if 0 < self._unread <= unread:
            self.transport.abort()  # closing would wait for the client
            return
        if latest is last:
            self.transport.close()
        if unread or not self.transport.is_closing():
            self._unread = unread if self.flow.write_paused or self.transport.is_closing() else 0
            self.loop.call_later(HEAD_SECONDS, self._look, latest)


def require_free(host: str, port: int) -> None:
    """Raise InputError if the address cannot be listened on: uvicorn would log its own line and exit with code 3."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        socket.create_server(address, family=family).close()
    except OSError as error:
        raise InputError(f"{host}:{port} cannot be listened on ({error.strerror}); name another --port") from error


def run_server(app: Starlette, host: str, port: int) -> None:
    """Serve until the process is told to stop; requests accepted by then are still answered."""
    import uvicorn

    uvicorn.run(app, host=host, port=port, log_level="warning", access_log=False, backlog=4096, http=BoundedConnection)
