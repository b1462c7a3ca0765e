"""Get vectors from a server with OpenAI's /v1/embeddings: vLLM with our plugin, `c2llm serve`, or another.

    C2LLMEmbedder.from_pretrained("http://localhost:8000/v1")

Prompts, widths and unit length are made on this side; the server only embeds. `c2llm serve` sends its fingerprint.
Any other server is asked for the vectors of a few known texts, which identify its weights.
"""

from __future__ import annotations

import base64
import binascii
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import httpx
import numpy as np
from numpy.typing import NDArray

from c2llm_integrations._utils.json_lines import parse_json
from c2llm_integrations._utils.progress import Progress
from c2llm_integrations._utils.retry import retrying, seconds_of
from c2llm_integrations.errors import InputError, ServerError, did_you_mean
from c2llm_integrations.model import prompts
from c2llm_integrations.model.batch_scheduler import plan_batches
from c2llm_integrations.model.embedder import C2LLMEmbedder, checked, progress_bar, unit_rows
from c2llm_integrations.model.fingerprint import probe_of
from c2llm_integrations.model.options import KEY_VARIABLE, ModelOptions, is_loopback, remember_model
from c2llm_integrations.model.parallel_batches import run

# Write this in place of http:// to ask a server on another machine without encryption.
INSECURE = "http+insecure"
# Requests under way at the same time, the limits of one, and how long it may take.
CONCURRENT = 8
REQUEST_TOKENS, REQUEST_TEXTS = 16384, 256
TIMEOUT_SECONDS = 120.0
# The most bytes of an answer: without its vectors, and for each number of a vector. The most numbers of the first
# vector. Nested lists take 24 times as much memory as bytes.
MAX_ANSWER_BYTES, MAX_NUMBER_BYTES, MAX_WIDTH = 2**22, 40, 2**16
MAX_REFUSAL_BYTES = 2**16
# The most tokens that a server may report for a request.
MAX_TOKENS = 2**40
# Bytes of a token, to make requests of about the same work: code has 3 to 4.
BYTES_PER_TOKEN = 3
# Options that the server has decided.
_DECIDED_THERE = ("revision", "dtype", "device", "head", "projection")
# Answers that another try may change.
TRANSIENT = frozenset({408, 429, 500, 502, 503, 504})
# Their vectors identify the weights of a server without a fingerprint. Never change them.
PROBES = (
    "def add(first, second):\n    return first + second",
    "SELECT name FROM users WHERE id = 7",
    "retry with backoff",
)

Vectors = NDArray[np.float32]


class RemoteEmbedder(C2LLMEmbedder):
    """A `C2LLMEmbedder` whose vectors a server computes; made by `from_pretrained` and `from_options` for a URL.

    It keeps no texts and no key but in its connections.
    """

    def __init__(self, options: ModelOptions) -> None:
        """Ask the server for its models, and for a first vector.

        Raises:
            InputError: For a URL or an option that cannot be used.
            ServerError: For a server that cannot be reached, refuses, or answers without a vector.

        """
        fixed = [name for name in _DECIDED_THERE if getattr(options, name) != getattr(ModelOptions(), name)]
        if fixed:
            raise InputError(f"{' and '.join(fixed)} cannot be chosen for a server's model; leave it out")
        self.options = options
        self.url, name = _address(options.name)
        self._client = _client(self.url)
        self._dimensions: int | None = None
        served = _named(self._models(), name, self.url)
        self._model = str(served["id"])
        self._is_ours = _is_ours(served)
        self.normalize = options.normalize
        self.projection = self.head = None
        self.prompts = dict(served["prompts"]) if self._is_ours else {}
        self.tokens_seen = self.texts_cut = 0
        self._counting = threading.Lock()
        self._process = os.getpid()
        self.max_length = self._length(served)
        self._fingerprint = self._identify(served)
        remember_model(options.name)

    def _length(self, served: Mapping[str, Any]) -> int:
        """Return the tokens of a text that are read; only vLLM takes fewer than it has room for."""
        if not self._is_ours:
            most = served.get("max_model_len")
            return min(self.options.max_length, most) if isinstance(most, int) and most > 0 else self.options.max_length
        length: int = served["fingerprint"]["max_length"]
        if self.options.max_length < length:
            raise InputError(
                f"max_length is {self.options.max_length}, but {self.url} reads {length} tokens of a text; leave it out"
            )
        return length

    def _identify(self, served: Mapping[str, Any]) -> dict[str, str | int | bool | None]:
        """Find the width and the fingerprint: the server's own, else one made of the vectors of known texts."""
        vectors, _ = self._post(list(PROBES), None)
        wanted, cut = self.options.output_dim, self.options.truncate_dim
        if wanted not in (None, vectors.shape[1], cut):
            self._dimensions = wanted
            vectors, _ = self._post(list(PROBES), wanted)
        self._width = vectors.shape[1]
        if cut is not None and cut > self._width:
            raise InputError(f"truncate_dim is {cut}, but {self.url} gives {self._width} dimensions")
        self.output_dim = cut or self._width
        found: dict[str, str | int | bool | None] = {
            "weights": probe_of(vectors),
            "projection": None,
            "document_prompt": prompts.document_prompt(self.prompts),
            "max_length": self.max_length,
            **(served["fingerprint"] if self._is_ours else {"normalize": False}),
        }
        if found["normalize"] and not self.normalize:
            raise InputError(f"normalize=False is given, but {self.url} gives vectors of unit length")
        if cut is not None and cut < self._width:
            found["truncate_dim"] = cut
        return found | {"model": self.options.name, "normalize": self.normalize, "output_dim": self.output_dim}

    def attention(self, text: str) -> list[tuple[int, int, float]]:
        """Raise InputError: a server gives vectors only."""
        raise InputError(f"{self.url} gives vectors only, not where the model looks; load the model here for that")

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Raise InputError: a server has the tokenizer."""
        raise InputError(f"{self.url} has the tokenizer; load the model here to count tokens")

    def unknown_share(self, text: str) -> float:
        """Return 0.0: which letters the server's tokenizer knows is not known here."""
        return 0.0

    def _encode(
        self, texts: list[str], prompt: str, progress: Progress | bool | None = None
    ) -> tuple[Vectors, NDArray[np.int64]]:
        """See `C2LLMEmbedder._encode`; a request's tokens are shared out evenly among its texts."""
        self._require_own_process()
        texts = checked(texts, prompt)
        vectors = np.empty((len(texts), self._width), np.float32)
        counts = np.zeros(len(texts), np.int64)
        done = 0
        with progress_bar(len(texts), progress) as report:
            for rows, found, tokens in self._answers(texts):
                vectors[rows], counts[rows] = found, -(-tokens // len(rows))
                done += len(rows)
                report(done)
        vectors = vectors[:, : self.output_dim]
        return (unit_rows(vectors) if self.normalize else vectors), counts

    def _answers(self, texts: Sequence[str]) -> Iterator[tuple[list[int], Vectors, int]]:
        """Yield the rows of each request, their vectors and tokens, as they come."""
        lengths = [min(self.max_length, len(text.encode()) // BYTES_PER_TOKEN + 1) for text in texts]
        planned = plan_batches(lengths, self.options.batch_tokens or REQUEST_TOKENS)
        batches = (batch[at : at + REQUEST_TEXTS] for batch in planned for at in range(0, len(batch), REQUEST_TEXTS))
        with ThreadPoolExecutor(CONCURRENT, "c2llm-remote") as threads:
            answers = run(threads, lambda rows: self._split([texts[row] for row in rows]), batches, CONCURRENT)
            yield from ((rows, vectors, tokens) for rows, (vectors, tokens) in answers)

    def _split(self, texts: list[str]) -> tuple[Vectors, int]:
        """Embed texts, in halves if they are too large for one request."""
        try:
            vectors, tokens = self._post(texts, self._width)
        except _TooLarge:
            if len(texts) == 1:
                raise
            middle = len(texts) // 2
            (first, some), (second, others) = self._split(texts[:middle]), self._split(texts[middle:])
            return np.concatenate([first, second]), some + others
        with self._counting:
            self.tokens_seen += tokens
        return vectors, tokens

    def _post(self, texts: list[str], width: int | None) -> tuple[Vectors, int]:
        body: dict[str, Any] = {"model": self._model, "input": texts, "encoding_format": "base64"}
        if self._dimensions is not None:
            body["dimensions"] = self._dimensions
        body |= {"input_type": "text"} if self._is_ours else {"truncate_prompt_tokens": self.max_length}
        numbers = len(texts) * (width or MAX_WIDTH)
        answer = self._asked("POST", "/embeddings", body, numbers)
        vectors = _vectors(answer, len(texts), self.url)
        if width is not None and vectors.shape[1] != width:
            raise ServerError(
                f"{self.url} gave {vectors.shape[1]} dimensions, expected {width}; "
                "load the embedder again, or ask for another output_dim"
            )
        usage = answer.get("usage")
        tokens = usage.get("total_tokens") if isinstance(usage, Mapping) else 0
        return vectors, tokens if isinstance(tokens, int) and 0 <= tokens < MAX_TOKENS else 0

    def _models(self) -> list[Mapping[str, Any]]:
        found = self._asked("GET", "/models").get("data")
        if not isinstance(found, list) or not all(isinstance(one, Mapping) and one.get("id") for one in found):
            raise ServerError(f"{self.url}/models lists no models; check the address, which ends with /v1")
        return found

    def _asked(self, method: str, path: str, body: Mapping[str, Any] | None = None, numbers: int = 0) -> dict[str, Any]:
        """Return the JSON object of an answer with `numbers` in vectors; retry what may pass."""
        most = MAX_ANSWER_BYTES + MAX_NUMBER_BYTES * numbers

        def once() -> dict[str, Any]:
            with self._client.stream(method, path, json=body) as response:
                content = _content(response, self.url, most)
            if response.status_code != 200:
                raise _refusal(response, content, self.url)
            try:
                answer = parse_json(content)
            except ValueError:
                answer = None
            if not isinstance(answer, dict):
                shown = content[:80].decode("utf-8", "replace")
                raise ServerError(f"{self.url} answered with {shown!r}, expected a JSON object")
            return answer

        try:
            return retrying(once, _pause_after)
        except httpx.TimeoutException as error:
            raise ServerError(f"{self.url} did not answer within {TIMEOUT_SECONDS:.0f} s; ask it for less") from error
        except httpx.HTTPError as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ServerError(f"{self.url} cannot be reached ({reason}); start the server, or check the URL") from error


class _Refused(ServerError):
    """An answer other than 200; `pause`: the least seconds before another try, None if trying again is useless."""

    pause: float | None = None


class _TooLarge(_Refused):
    """The request was too large."""


def _content(response: httpx.Response, url: str, most: int) -> bytes:
    """Read an answer of at most `most` bytes; a compressed one could unpack to any length, so it is not unpacked.

    Of an answer with another status than 200 only the beginning is read.
    """
    if response.status_code != 200:
        return next(response.iter_raw(MAX_REFUSAL_BYTES), b"")
    encoding = response.headers.get("Content-Encoding", "").strip().lower() or "identity"
    if encoding != "identity":
        raise ServerError(f"{url} answered in {encoding[:40]!r}, which it was not asked for; turn its compression off")
    end = time.monotonic() + TIMEOUT_SECONDS
    content = bytearray()
    for part in response.iter_raw():
        content += part
        if len(content) > most:
            raise ServerError(f"{url} answered with over {most:,} bytes; none were used")
        if time.monotonic() > end:
            raise httpx.ReadTimeout("the answer did not end in time")
    return bytes(content)


def _refusal(response: httpx.Response, content: bytes, url: str) -> Exception:
    status, said = response.status_code, _message(response, content)
    if status == 400:
        return InputError(f"{url} refused the texts: {said}")
    if status in (401, 403):
        return _Refused(f"{url} refused the API key ({status}: {said}); set {KEY_VARIABLE} to the right one")
    if status == 404:
        return _Refused(f"{url} has no such thing ({said}); check the address, which ends with /v1, and the model")
    if status == 413:
        return _TooLarge(f"{url} refused a request as too large ({said}); raise its limit, or send shorter texts")
    refused = _Refused(f"{url} answered {status}: {said}")
    if status in TRANSIENT:
        refused.pause = seconds_of(response.headers.get("Retry-After"))
    return refused


def _message(response: httpx.Response, content: bytes) -> str:
    try:
        found = parse_json(content)
        found = found.get("error", found)
        said = found.get("message") if isinstance(found, Mapping) else found
    except (ValueError, AttributeError):
        said = content.decode("utf-8", "replace")
    return " ".join(str(said or response.reason_phrase).split())[:300]


def _pause_after(error: Exception) -> float | None:
    if isinstance(error, _Refused):
        return error.pause
    if isinstance(error, httpx.ConnectError):
        return None  # nobody listens there: said at once, not after two minutes
    lost = (httpx.TimeoutException, httpx.NetworkError, httpx.RemoteProtocolError)
    return 0.0 if isinstance(error, lost) else None


def _vectors(answer: Mapping[str, Any], count: int, url: str) -> Vectors:
    """Return (count, width) from an answer in base64 or numbers; raises ServerError for anything else."""
    data = answer.get("data")
    rows: dict[int, Vectors] = {}
    try:
        for place, one in enumerate(data or ()):
            given = one["embedding"]
            row = np.frombuffer(base64.b64decode(given, validate=True), "<f4") if isinstance(given, str) else given
            rows[one.get("index", place)] = np.asarray(row, np.float32)
        if sorted(rows) != list(range(count)):
            raise ServerError(f"{url} gave {len(rows)} vectors for {count} texts; none were used")
        vectors = np.stack([rows[place] for place in range(count)])
    except (TypeError, KeyError, AttributeError, ValueError, OverflowError, binascii.Error) as error:
        raise ServerError(f"{url} did not answer with a list of vectors ({error!r})") from error
    if vectors.ndim != 2 or not vectors.shape[1] or not np.isfinite(vectors).all():
        raise ServerError(f"{url} gave vectors of shape {vectors.shape} or with NaN; none were used")
    return vectors


def _named(served: Sequence[Mapping[str, Any]], name: str, url: str) -> Mapping[str, Any]:
    known = [str(one["id"]) for one in served]
    if name in known:
        return served[known.index(name)]
    if name or len(known) != 1:
        if name:
            raise InputError(f"{url} has no model {name!r}{did_you_mean(name, known)}")
        raise InputError(f"{url} has {len(known)} models{did_you_mean(name, known)}; name one as {url}#MODEL")
    return served[0]


def _is_ours(served: Mapping[str, Any]) -> bool:
    """Return whether a server sends a fingerprint, as `c2llm serve` does."""
    made, own = served.get("fingerprint"), served.get("prompts")
    return (
        (served.get("owned_by") == "c2llm" and isinstance(made, Mapping) and isinstance(own, Mapping))
        and (type(made.get("max_length")) is int and made["max_length"] > 0 and isinstance(made.get("normalize"), bool))
        and all(value is None or isinstance(value, (str, int)) for value in made.values())
        and all(isinstance(prompt, str) for prompt in own.values())
    )


def _address(name: str) -> tuple[str, str]:
    """Return the URL to ask and the model of URL[#MODEL]; raises InputError for a URL that must not be asked."""
    try:
        parts = urlsplit(name)
        host = parts.hostname or ""
        _ = parts.port
    except ValueError:  # whose message may hold a password
        raise InputError("the server's URL is not valid; write it like https://host:8000/v1") from None
    if parts.scheme not in ("http", "https", INSECURE):
        raise InputError(f"{parts.scheme}:// is not a scheme of model servers; write https://HOST:8000/v1")
    if not host or parts.username or parts.password or parts.query:
        raise InputError(
            "the server's URL needs a host and nothing secret; "
            f"write it like https://host:8000/v1, and put the key into {KEY_VARIABLE}"
        )
    if parts.scheme == "http" and not is_loopback(host):
        raise InputError(
            f"http://{host} would be sent your texts and key in the clear; use https://, "
            f"or write {INSECURE}:// if that network is yours"
        )
    scheme = "http" if parts.scheme == INSECURE else parts.scheme
    return f"{scheme}://{parts.netloc}{parts.path.rstrip('/')}", parts.fragment


def _client(url: str) -> httpx.Client:
    key = os.environ.get(KEY_VARIABLE, "").strip()
    return httpx.Client(
        base_url=url,
        headers={"Accept-Encoding": "identity", **({"Authorization": f"Bearer {key}"} if key else {})},
        timeout=httpx.Timeout(TIMEOUT_SECONDS, connect=10.0),
        limits=httpx.Limits(max_connections=CONCURRENT),
        trust_env=not is_loopback(urlsplit(url).hostname or ""),  # no proxy stands before this machine
    )
