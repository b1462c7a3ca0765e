"""An embedder over a server: our own gives the vectors of the loaded model, others are checked, faults are told."""

import base64
import gzip
import json
import re
import socket
import threading
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from c2llm_integrations._utils import retry
from c2llm_integrations.cli.main import run
from c2llm_integrations.errors import InputError, ServerError, SpecMismatch
from c2llm_integrations.langchain import C2LLMEmbeddings
from c2llm_integrations.llama_index import C2LLMEmbedding
from c2llm_integrations.model import remote
from c2llm_integrations.model.embedder import C2LLMEmbedder
from c2llm_integrations.model.fingerprint import is_same_probe, options_of, probe_of
from c2llm_integrations.model.options import KEY_VARIABLE, ModelOptions, remember_model
from c2llm_integrations.model.prompts import DOCUMENT, query_prompt
from c2llm_integrations.model.remote import RemoteEmbedder, _address, _vectors
from c2llm_integrations.server.openai_api import Limits
from c2llm_integrations.stores.spec import CollectionSpec
from tests.golden import TIED
from tests.serving import served
from tests.waiting import free_port

pytestmark = pytest.mark.slow

TEXTS = ["def add(a, b):\n    return a + b", "class Stack: pass", "", "  x  ", "long " * 3000, "class Stack: pass"]
KEY = "correct-horse"


@pytest.fixture(scope="module")
def local():
    return C2LLMEmbedder.from_pretrained(str(TIED), dtype="float32")


@pytest.fixture(scope="module")
def url(local):
    with served(local) as address:
        yield f"{address}/v1"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.delenv(KEY_VARIABLE, raising=False)


class Other:
    """A server of somebody else's, as vLLM answers; `faults` are sent first, each instead of one answer's vectors."""

    def __init__(self, local, **about):
        self.local, self.about = local, {"id": "c2llm", "object": "model", "owned_by": "vllm", **about}
        self.faults, self.bodies, self.keys = [], [], []

    def answer(self, handler):
        self.keys.append(handler.headers.get("Authorization"))
        if handler.command == "GET":
            return self.send(handler, 200, json.dumps({"data": [self.about]}).encode())
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        self.bodies.append(body)
        if self.faults:
            return self.faults.pop(0)(self, handler, body)
        return self.send(handler, 200, json.dumps(self.vectors(body)).encode())

    def vectors(self, body):
        rows = self.local.encode(body["input"])[:, : body.get("dimensions")]
        data = [{"index": n, "embedding": base64.b64encode(row.tobytes()).decode()} for n, row in enumerate(rows)]
        return {"data": data[::-1], "usage": {"total_tokens": 7}}

    def send(self, handler, status, content, **headers):
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(content)


@contextmanager
def listening(other):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            other.answer(self)

        do_GET = do_POST

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def closed(other, handler, body):
    handler.close_connection = True
    handler.connection.shutdown(socket.SHUT_RDWR)


def cut_short(other, handler, body):
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"data": [')
    handler.close_connection = True


def endless(code):
    def fault(other, handler, body):
        handler.send_response(code)
        handler.end_headers()
        handler.close_connection = True
        with suppress(OSError):
            for _ in range(100):
                handler.wfile.write(b" " * 2**20)

    return fault


def dripping(other, handler, body):
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.close_connection = True
    with suppress(OSError):
        for _ in range(1000):
            handler.wfile.write(b" ")
            other.waited.wait(0.05)


def status(code, message="no", **headers):
    content = json.dumps({"error": {"message": message}}).encode()
    return lambda other, handler, body: other.send(handler, code, content, **headers)


def body_of(change):
    def fault(other, handler, body):
        answer = other.vectors(body)
        other.send(handler, 200, json.dumps(change(answer)).encode())

    return fault


def test_our_own_servers_vectors_are_those_of_the_loaded_model(url, local):
    asking = C2LLMEmbedder.from_pretrained(url)
    assert isinstance(asking, RemoteEmbedder)
    np.testing.assert_allclose(asking.encode_documents(TEXTS), local.encode_documents(TEXTS), atol=1e-5)
    np.testing.assert_allclose(asking.encode(TEXTS), local.encode(TEXTS), atol=1e-5)
    for task in (None, "CosQA"):
        np.testing.assert_allclose(asking.encode_queries(TEXTS, task), local.encode_queries(TEXTS, task), atol=1e-5)
    assert asking.encode([]).shape == (0, 64)
    assert asking.tokens_seen > 0
    assert dict(asking.fingerprint) == {**local.fingerprint, "model": url}
    spec = CollectionSpec.for_embedder(local)
    spec.require_model(asking.output_dim, asking.fingerprint)


def test_first_dimensions_are_those_of_the_loaded_model(url):
    here = C2LLMEmbedder.from_pretrained(str(TIED), dtype="float32", truncate_dim=16)
    asking = C2LLMEmbedder.from_pretrained(url, truncate_dim=16)
    np.testing.assert_allclose(asking.encode(TEXTS), here.encode(TEXTS), atol=1e-5)
    CollectionSpec.for_embedder(here).require_model(16, asking.fingerprint)
    assert options_of(asking.fingerprint) == ModelOptions(name=url, output_dim=16, truncate_dim=16)
    assert C2LLMEmbedder.from_options(options_of(asking.fingerprint)).output_dim == 16


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=40), max_size=30), st.integers(1, 60))
@settings(max_examples=15)
def test_requests_of_any_size_give_each_text_its_vector(url, local, texts, budget):
    seen = []
    asking = C2LLMEmbedder.from_pretrained(url, batch_tokens=budget)
    found = asking.encode(texts, progress=lambda done, total, _: seen.append((done, total)))
    np.testing.assert_allclose(found, local.encode(texts), atol=1e-5)
    assert seen[-1:] == ([(len(texts), len(texts))] if texts else [])


def test_another_server_gets_prompted_texts_and_its_probe_stands_for_its_weights(local):
    local = C2LLMEmbedder.from_pretrained(str(TIED), dtype="float32", max_length=512)
    other = Other(local, max_model_len=512)
    with listening(other) as address:
        asking = C2LLMEmbedder.from_pretrained(address)
        np.testing.assert_allclose(asking.encode_documents(["x"]), local.encode_documents(["x"]), atol=1e-5)
        assert other.bodies[-1]["input"] == [f"{DOCUMENT}x"]
        assert asking.encode_queries(["x"]).shape == (1, 64)
        assert other.bodies[-1]["input"] == [query_prompt({}) + "x"]
        assert other.bodies[-1]["truncate_prompt_tokens"] == asking.max_length == 512
        assert "input_type" not in other.bodies[-1]
        CollectionSpec.for_embedder(asking).require_model(64, C2LLMEmbedder.from_pretrained(address).fingerprint)
        asking = C2LLMEmbedder.from_pretrained(f"{address}#c2llm", max_length=512)
        with pytest.raises(SpecMismatch, match=r"fingerprint\.weights"):
            CollectionSpec.for_embedder(local).require_model(64, asking.fingerprint)
        narrow = C2LLMEmbedder.from_pretrained(address, output_dim=32)
        assert narrow.encode(["x"]).shape == (1, 32)
        with pytest.raises(InputError, match="truncate_dim is 99"):
            C2LLMEmbedder.from_pretrained(address, truncate_dim=99)


def test_a_probe_is_of_its_weights_in_any_precision_and_of_no_others(local):
    nano = C2LLMEmbedder.from_pretrained("nano", output_dim=64)
    rough = C2LLMEmbedder.from_pretrained(str(TIED), dtype="bfloat16")
    texts = list(remote.PROBES)
    probe = probe_of(local.encode(texts))
    assert is_same_probe(probe, probe_of(rough.encode(texts)))
    assert not is_same_probe(probe, probe_of(nano.encode(texts)))
    for damaged in (probe[:-8], "probe:!", "", None, 5, probe.removeprefix("probe:")):
        assert not is_same_probe(probe, damaged)


@pytest.mark.parametrize(
    "faults",
    [
        [closed],
        [cut_short],
        [status(429, Retry_After="0"), status(503), closed],
        [endless(500), lambda o, h, b: o.send(h, 502, gzip.compress(b" " * 2**26), Content_Encoding="gzip")],
        [status(413)],
        [body_of(lambda answer: {"data": [{**d, "embedding": [0.0] * 64} for d in answer["data"]]})],
    ],
    ids=["closed", "cut short", "busy", "broken proxy", "too large", "numbers"],
)
def test_what_another_try_may_mend_is_tried_again(local, faults, monkeypatch):
    monkeypatch.setattr(retry, "FIRST_SECONDS", 0.001)
    other = Other(local)
    with listening(other) as address:
        asking = C2LLMEmbedder.from_pretrained(address)
        other.faults = list(faults)
        vectors = asking.encode(["one", "two"])
        assert not other.faults
    zero = np.zeros_like(vectors)
    np.testing.assert_allclose(vectors, zero if len(other.bodies) == 2 else local.encode(["one", "two"]), atol=1e-5)


@pytest.mark.parametrize(
    ("fault", "error", "words"),
    [
        (status(400, "bad text"), InputError, "refused the texts: bad text"),
        (status(401), ServerError, f"refused the API key .401: no.; set {KEY_VARIABLE}"),
        (status(404, "no model"), ServerError, "has no such thing .no model.; check the address"),
        (status(413), ServerError, "too large .no.; raise its limit"),
        (status(302, Location="http://example.org/"), ServerError, "answered 302"),
        (lambda o, h, b: o.send(h, 200, b"<html>"), ServerError, "'<html>', expected a JSON object"),
        (lambda o, h, b: o.send(h, 200, b"[1]"), ServerError, "expected a JSON object"),
        (lambda o, h, b: o.send(h, 200, b"[" * 10**6), ServerError, "expected a JSON object"),
        (lambda o, h, b: o.send(h, 401, b"[" * 10**6), ServerError, "refused the API key"),
        (body_of(lambda a: {"data": []}), ServerError, "0 vectors for 1 texts"),
        (body_of(lambda a: {"data": "no"}), ServerError, "did not answer with a list of vectors"),
        (body_of(lambda a: {"data": [{"embedding": "%%"}]}), ServerError, "did not answer with a list of vectors"),
        (body_of(lambda a: {"data": [{"embedding": [1.0, float("nan")]}]}), ServerError, "or with NaN"),
        (body_of(lambda a: {"data": [{"embedding": [1.0] * 8}]}), ServerError, "gave 8 dimensions, expected 64"),
        (body_of(lambda a: {"data": [{"embedding": [1.0], "index": 4}]}), ServerError, "1 vectors for 1 texts"),
        (body_of(lambda a: {"data": [{"embedding": [10**400]}]}), ServerError, "did not answer with a list of vectors"),
        (endless(200), ServerError, "over 4,196,864 bytes"),
        (
            lambda o, h, b: o.send(h, 200, gzip.compress(b" " * 2**26), Content_Encoding="gzip"),
            ServerError,
            "answered in 'gzip', which it was not asked for",
        ),
        (lambda o, h, b: o.send(h, 200, b"no", Content_Type="text/x; charset=bz2"), ServerError, "'no', expected"),
        (lambda o, h, b: o.send(h, 401, b"no", Content_Type="text/x; charset=hex"), ServerError, "refused the API key"),
    ],
)
def test_what_no_try_mends_is_told_at_once(local, fault, error, words):
    other = Other(local)
    with listening(other) as address:
        asking = C2LLMEmbedder.from_pretrained(address)
        other.faults = [fault]
        with pytest.raises(error, match=words):
            asking.encode(["one"])
        assert asking.encode(["one"]).shape == (1, 64)


@pytest.mark.parametrize(
    "about",
    [
        {"max_model_len": "many"},
        {"owned_by": "c2llm", "fingerprint": {}, "prompts": {}},
        {"owned_by": "c2llm", "fingerprint": {"max_length": "x", "normalize": True}, "prompts": {}},
        {"owned_by": "c2llm", "fingerprint": {"max_length": -5, "normalize": True}, "prompts": {}},
        {"owned_by": "c2llm", "fingerprint": {"max_length": 512, "normalize": True, "head": {}}, "prompts": {}},
        {"owned_by": "c2llm", "fingerprint": {"max_length": 512, "normalize": True}, "prompts": [1]},
        {"owned_by": "c2llm", "fingerprint": {"max_length": 512, "normalize": True}, "prompts": {"query": 1}},
    ],
)
def test_a_server_that_says_nonsense_about_itself_is_asked_for_known_texts(local, about):
    with listening(Other(local, **about)) as address:
        asking = C2LLMEmbedder.from_pretrained(address)
        np.testing.assert_allclose(asking.encode_queries(["one"]), local.encode_queries(["one"]), atol=1e-5)
        assert asking.fingerprint["weights"].startswith("probe:")
        assert asking.max_length == 2048


@pytest.mark.parametrize("tokens", [10**30, -5, "many"])
def test_tokens_that_cannot_be_are_not_counted(local, tokens):
    other = Other(local)
    with listening(other) as address:
        asking = C2LLMEmbedder.from_pretrained(address)
        other.faults = [body_of(lambda answer: {**answer, "usage": {"total_tokens": tokens}})]
        assert asking.encode(["one"]).shape == (1, 64)
        assert asking.tokens_seen == 0


def test_a_server_that_stays_busy_or_silent_is_given_up(local, monkeypatch):
    monkeypatch.setattr(remote, "retrying", lambda call, pause: retry.retrying(call, pause, limit=0.0))
    monkeypatch.setattr(remote, "TIMEOUT_SECONDS", 0.3)
    other, waited = Other(local), threading.Event()
    with listening(other) as address:
        asking = C2LLMEmbedder.from_pretrained(address)
        other.faults = [status(429, "later", Retry_After="9")]
        with pytest.raises(ServerError, match="answered 429: later"):
            asking.encode(["one"])
        other.waited = waited
        try:
            for silent in (lambda *_: waited.wait(60), dripping):
                other.faults = [silent]
                with pytest.raises(ServerError, match="did not answer within"):
                    asking.encode(["one"])
        finally:
            waited.set()
    with pytest.raises(ServerError, match="cannot be reached"):
        C2LLMEmbedder.from_pretrained(f"http://127.0.0.1:{free_port()}/v1")


def test_more_texts_than_a_server_takes_at_once(local):
    with served(local, limits=Limits(body_bytes=2000, requests=2, texts=40)) as address:
        asking = C2LLMEmbedder.from_pretrained(f"{address}/v1")
        texts = [f"text {n} " + "x" * (n % 90) for n in range(300)]
        np.testing.assert_allclose(asking.encode(texts), local.encode(texts), atol=1e-5)


def test_the_key_comes_from_the_environment_and_is_shown_nowhere(local, monkeypatch, caplog):
    caplog.set_level("DEBUG")
    with served(local, api_key=KEY) as address:
        with pytest.raises(ServerError, match="refused the API key"):
            C2LLMEmbedder.from_pretrained(f"{address}/v1")
        monkeypatch.setenv(KEY_VARIABLE, KEY)
        asking = C2LLMEmbedder.from_pretrained(f"{address}/v1")
        assert asking.encode(["x"]).shape == (1, 64)
    shown = caplog.text + repr(asking) + str(vars(asking)) + str(asking.fingerprint) + repr(asking.options)
    assert KEY not in shown


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("http://10.0.0.7:8000/v1", "in the clear; use https://, or write http.insecure://"),
        ("http://localhost.example.org/v1", "in the clear"),
        ("https://user:secret@host/v1", "nothing secret"),
        ("https://host/v1?key=secret", "nothing secret"),
        ("https:///v1", "needs a host"),
        ("http://[::1/v1", "not valid"),
        ("https://host:99999/v1", "not valid"),
        ("https://user:s3cret/v1", "not valid"),
        ("ftp://host/v1", "ftp:// is not a scheme"),
    ],
)
def test_addresses_that_must_not_be_asked(name, words):
    with pytest.raises(InputError, match=words) as told:
        C2LLMEmbedder.from_pretrained(name)
    assert "user:secret" not in str(told.value)
    assert "s3cret" not in str(told.value)


def test_addresses_that_may_be_asked():
    assert _address("http+insecure://gpu:8000/v1/#big") == ("http://gpu:8000/v1", "big")
    for name in ("http://localhost:8000/v1", "http://127.0.0.1/v1", "http://[::1]:80/v1", "https://host/v1"):
        assert _address(name) == (name, "")


def test_options_that_a_server_decides_are_refused(url):
    for options in ({"device": "cpu"}, {"dtype": "float32"}, {"revision": "main"}, {"head": "x"}, {"projection": "x"}):
        with pytest.raises(InputError, match=f"{next(iter(options))} cannot be chosen"):
            C2LLMEmbedder.from_pretrained(url, **options)
    for options, words in (
        ({"max_length": 9}, "max_length is 9"),
        ({"normalize": False}, "normalize=False is given"),
        ({"output_dim": 8}, "this model gives 64"),
    ):
        with pytest.raises(InputError, match=words):
            C2LLMEmbedder.from_pretrained(url, **options)
    with pytest.raises(InputError, match=r"has no model 'gpt'.*there are: "):
        C2LLMEmbedder.from_pretrained(f"{url}#gpt")
    asking = C2LLMEmbedder.from_pretrained(url)
    for ask in (lambda: asking.attention("x"), lambda: asking.count_tokens(["x"])):
        with pytest.raises(InputError, match="load the model here"):
            ask()


def test_a_collection_alone_sends_nothing_to_a_server(url):
    stored = {"model": url, "max_length": 2048, "normalize": True, "output_dim": 64}
    with pytest.raises(InputError, match=f"^the collection's vectors come from {url}.*--model {url}"):
        options_of(stored)
    remember_model(url)
    assert options_of(stored) == ModelOptions(name=url, output_dim=64)


def test_frameworks_and_the_command_line_ask_a_server(url, local, project, monkeypatch, capsys):
    wanted = local.encode_documents(["x"])
    np.testing.assert_allclose(C2LLMEmbeddings(model=url).embed_documents(["x"]), wanted, atol=1e-5)
    np.testing.assert_allclose([C2LLMEmbedding(model_name=url).get_text_embedding("x")], wanted, atol=1e-5)
    monkeypatch.chdir(project)
    assert run(["index", "--model", url]) == 0
    assert run(["search", "add the tax to a price"]) == 0
    assert "with_tax" in capsys.readouterr().out
    assert run(["search", "add the tax", "--model", str(TIED)]) == 0  # the same weights, loaded here


def test_the_page_about_servers_fills_a_collection(url, capsys):
    page = (Path(__file__).parents[2] / "docs/vllm.md").read_text(encoding="utf-8")
    [code] = re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    exec(compile(code.replace("http://localhost:8000/v1", url), "docs/vllm.md", "exec"), {})
    assert {line.split()[1] for line in capsys.readouterr().out.splitlines()} == {"retry", "total"}


def test_widths_that_differ_in_one_answer_are_refused():
    with pytest.raises(ServerError, match="did not answer with a list of vectors"):
        _vectors({"data": [{"embedding": [1.0]}, {"embedding": [1.0, 2.0]}]}, 2, "here")
