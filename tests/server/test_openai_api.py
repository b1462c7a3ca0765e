"""The embedding server over real sockets: the clients people use, bad input, overload, shutdown."""

import asyncio
import base64
import json
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from functools import partial

import httpx
import numpy as np
import openai
import pytest
from langchain_openai import OpenAIEmbeddings

from c2llm_integrations.cli.main import run
from c2llm_integrations.errors import InputError
from c2llm_integrations.model.embedder import C2LLMEmbedder
from c2llm_integrations.server import openai_api as module
from c2llm_integrations.server.openai_api import Limits, create_app
from tests.golden import TIED
from tests.serving import served
from tests.waiting import free_port, until, until_listening

pytestmark = pytest.mark.slow

TEXTS = ["def add(a, b):\n    return a + b", "class Stack: pass", ""]
KEY = "correct-horse"


@pytest.fixture(scope="module")
def embedder():
    return C2LLMEmbedder.from_pretrained(str(TIED), dtype="float32")


@pytest.fixture(scope="module")
def url(embedder):
    with served(embedder) as address:
        yield address


def post(url, body, **options):
    return httpx.post(f"{url}/v1/embeddings", json=body, timeout=60, **options)


def test_each_text_is_tokenised_once(url, embedder, monkeypatch):
    seen = []
    tokens = embedder._tokens
    monkeypatch.setattr(embedder, "_tokens", lambda texts: seen.extend(texts) or tokens(texts))
    assert post(url, {"input": ["def once(): pass", "x", "x"]}).status_code == 200
    assert len(seen) == len(set(seen)) == 2


@pytest.mark.parametrize("form", ["float", "base64"])
def test_the_openai_client_gets_the_embedders_vectors(url, embedder, form):
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="unused")
    for kind, encode in (("document", embedder.encode_documents), ("query", embedder.encode_queries)):
        before = embedder.tokens_seen
        answer = client.embeddings.create(
            model=str(TIED), input=TEXTS, encoding_format=form, dimensions=64, extra_body={"input_type": kind}
        )
        computed = embedder.tokens_seen - before
        vectors = [
            np.frombuffer(base64.b64decode(one.embedding), "<f4") if isinstance(one.embedding, str) else one.embedding
            for one in answer.data
        ]
        np.testing.assert_allclose(vectors, encode(TEXTS), atol=1e-5)
        assert [one.index for one in answer.data] == [0, 1, 2]
        assert answer.usage.total_tokens == computed > 0  # the prompt's too
    assert [one.id for one in client.models.list()] == [answer.model] == [TIED.name]


def test_nobody_is_told_where_the_models_folder_lies(url):
    said = httpx.get(f"{url}/v1/models").json()["data"][0]
    assert said["fingerprint"]["model"] == TIED.name
    assert str(TIED.parent) not in json.dumps(said)


def test_a_server_behind_this_one_that_fails_is_named(embedder, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with ExitStack() as outer:
        with served(embedder) as inner:
            url = outer.enter_context(served(C2LLMEmbedder.from_pretrained(f"{inner}/v1")))
            assert post(url, {"input": "x"}).status_code == 200
        answer = post(url, {"input": "x"})
    assert answer.status_code == 502
    assert f"{inner}/v1 cannot be reached" in answer.json()["error"]["message"]


def test_langchains_openai_embeddings(url, embedder):
    ours = OpenAIEmbeddings(base_url=f"{url}/v1", api_key="unused", model=str(TIED), check_embedding_ctx_length=False)
    np.testing.assert_allclose(ours.embed_documents(TEXTS), embedder.encode_documents(TEXTS), atol=1e-5)
    np.testing.assert_allclose(ours.embed_query("x"), embedder.encode_documents(["x"])[0], atol=1e-5)


def test_only_its_own_model_is_there(url):
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="unused")
    for name in (TIED.name, str(TIED)):
        assert client.models.retrieve(name).id == client.models.list().data[0].id == TIED.name
    for name in ("text-embedding-3-small", str(TIED).upper(), "", "../models", "\ud83d", "a" * 10_000):
        answer = httpx.post(f"{url}/v1/embeddings", content=json.dumps({"input": "x", "model": name}))
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
        assert answer.json()["error"]["param"] == "model"
    with pytest.raises(openai.NotFoundError, match="'gpt-4' does not exist"):
        client.models.retrieve("gpt-4")
    assert post(url, {"input": "x", "model": 5}).status_code == 400
    for method, path, status in (
        ("GET", "/v1/chat", 404),
        ("GET", "/v1/embeddings", 405),
        ("POST", "/v1/models/x", 405),
    ):
        answer = httpx.request(method, url + path)
        assert (answer.status_code, answer.json()["error"]["type"]) == (status, "invalid_request_error")


@pytest.mark.parametrize("host", ["evil.example.org:8000", "localhost.evil.org", "", "[::1", "127.0.0.1.nip.io"])
def test_a_name_that_was_led_here_is_not_answered_without_a_key(embedder, url, host):
    for address in (f"{url}/v1/embeddings", f"{url}/v1/models"):
        method = "POST" if address.endswith("embeddings") else "GET"
        answer = httpx.request(method, address, json={"input": "x"}, headers={"Host": host})
        assert answer.status_code in (400, 403)
    for known in ("localhost:1", "127.0.0.1", "[::1]:8000"):
        assert httpx.get(f"{url}/v1/models", headers={"Host": known}).status_code == 200
    with served(embedder, api_key=KEY) as guarded:
        headers = {"Host": "embed.example.org", "Authorization": f"Bearer {KEY}"}
        assert httpx.get(f"{guarded}/v1/models", headers=headers).status_code == 200


@pytest.mark.parametrize("origin", ["https://evil.example.org", "http://localhost:3000", "null", ""])
def test_a_page_that_was_not_allowed_gets_nothing_without_a_key(embedder, url, origin):
    page = {"Origin": origin}
    # What a page may send to any address without asking the server first.
    assert post(url, {"input": "x"}, headers={**page, "Content-Type": "text/plain"}).status_code == 403
    for address in ("v1/models", "v1/models/tied", "health", "metrics"):
        for headers in (page, {"Host": "evil.example.org"}):
            assert httpx.get(f"{url}/{address}", headers=headers).status_code == 403
    with served(embedder, origins=["https://app.example.org"]) as address:
        assert post(address, {"input": "x"}, headers=page).status_code == 403
        assert post(address, {"input": "x"}, headers={"Origin": "https://app.example.org"}).status_code == 200
    with served(embedder, api_key=KEY) as guarded:
        asked = {**page, "Authorization": f"Bearer {KEY}", "Host": "embed.example.org"}
        assert post(guarded, {"input": "x"}, headers=asked).status_code == 200
        assert httpx.get(f"{guarded}/health", headers={"Host": "embed.example.org"}).status_code == 200


def test_a_page_may_ask_only_where_it_was_allowed(embedder, url):
    page = {"Origin": "https://app.example.org"}
    asked = {**page, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-stainless-os"}
    allowed = "access-control-allow-origin"
    assert allowed not in post(url, {"input": "x"}, headers=page).headers
    with served(embedder, origins=["https://app.example.org"], api_key=KEY) as address:
        before = httpx.options(f"{address}/v1/embeddings", headers=asked)
        assert (before.status_code, before.headers[allowed]) == (200, page["Origin"])
        refused = post(address, {"input": "x"}, headers=page)
        assert (refused.status_code, refused.headers[allowed]) == (401, page["Origin"])
        for other in ("https://app.example.org.evil.net", "http://app.example.org", "null"):
            assert allowed not in post(address, {"input": "x"}, headers={"Origin": other}).headers
    with served(embedder, origins=["*"]) as address:
        assert post(address, {"input": "x"}, headers=page).headers[allowed] == "*"
    for wrong in ("app.example.org", "https://app.example.org/", "https://*.example.org", "null", ""):
        with pytest.raises(InputError, match="is not an origin"):
            create_app(embedder, origins=[wrong])


@pytest.mark.parametrize(
    ("body", "parameter", "words"),
    [
        ({}, "input", "a string or a list of strings"),
        ({"input": []}, "input", "a string or a list of strings"),
        ({"input": [1, 2]}, "input", "tokens are not taken"),
        ({"input": ["x"] * 9}, "input", "has 9 texts, at most 8"),
        ({"input": "\ud800"}, "input", "lone surrogate"),
        ({"input": "x", "dimensions": 8}, "dimensions", "is 8, this model gives 64"),
        ({"input": "x", "encoding_format": "hex"}, "encoding_format", "expected one of float, base64"),
        ({"input": "x", "input_type": "poem"}, "input_type", "expected one of document, query, text"),
        ({"input": "x", "input_type": "p" * 10**6}, "input_type", "p, expected one of"),
        ({"input": "x", "dimensions": "8" * 10**6}, "dimensions", "8, this model gives 64"),
    ],
)
def test_a_wrong_request_names_its_parameter(embedder, body, parameter, words):
    with served(embedder, limits=Limits(inputs=8)) as address:
        answer = httpx.post(f"{address}/v1/embeddings", content=json.dumps(body).encode())
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == parameter
    assert words in answer.json()["error"]["message"]


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"[" * 100_000, b"\xff\xfe"])
def test_a_malformed_body_is_answered(url, content):
    answer = httpx.post(f"{url}/v1/embeddings", content=content)
    assert answer.status_code == 400
    assert "body" in answer.json()["error"]["message"]


def test_a_body_over_the_limit_is_refused_before_it_is_read_whole(embedder):
    with served(embedder, limits=Limits(body_bytes=1000)) as address:
        assert post(address, {"input": "x" * 5000}).status_code == 413


def test_large_bodies_of_many_clients_are_bounded_together_and_questions_are_still_answered(embedder):
    """[40 clients without a key that sent 31 MB each, and all but the end of it: 1.6 GB]."""
    head = b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2000000\r\n\r\n"
    with served(embedder, limits=Limits(held_bytes=2**22)) as address:
        host, port = address.removeprefix("http://").split(":")
        with ExitStack() as opened:
            for _ in range(2):
                one = opened.enter_context(socket.create_connection((host, int(port)), timeout=30))
                one.sendall(head + b" " * 1_900_000)
            until(lambda: post(address, {"input": "x" * 10**6}).status_code == 429)
            assert post(address, {"input": "x"}).status_code == 200
        until(lambda: post(address, {"input": "x" * 10**6}).status_code == 200)


def test_the_key_is_asked_for_and_shown_nowhere(embedder):
    with served(embedder, api_key=KEY) as address:
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": KEY}):
            answer = post(address, {"input": "x"}, headers=headers)
            assert answer.status_code == 401
            assert KEY not in answer.text
        good = {"Authorization": f"Bearer {KEY}"}
        assert post(address, {"input": "x"}, headers=good).status_code == 200
        assert KEY not in httpx.get(f"{address}/metrics").text
        assert httpx.get(f"{address}/health").json()["status"] == "ok"


def test_what_would_wait_too_long_is_told_to_come_again_and_nothing_accepted_is_lost(embedder):
    """Ten times what fits at once: every answer is a vector or 429 with Retry-After, and all is served in the end."""
    with served(embedder, limits=Limits(texts=8, requests=8)) as address, ThreadPoolExecutor(40) as pool:
        first = list(pool.map(lambda n: post(address, {"input": [f"text {n}"] * 2}), range(400)))
        assert {answer.status_code for answer in first} == {200, 429}
        for answer in first:
            if answer.status_code == 200:
                assert len(answer.json()["data"]) == 2
            else:
                assert int(answer.headers["Retry-After"]) >= 1
        metrics = httpx.get(f"{address}/metrics").text
        counted = sum(answer.status_code == 200 for answer in first)
        assert f'c2llm_requests_total{{status="200"}} {counted}.0' in metrics
        assert "c2llm_texts_waiting 0.0" in metrics


def test_many_single_questions_are_computed_together(embedder):
    batches = []
    inner = embedder.scheduler.workers[0].encoder

    class Watching:
        padded = inner.padded

        def __call__(self, texts):
            batches.append(len(texts))
            time.sleep(0.02)
            return inner(texts)

    embedder.scheduler.workers[0].encoder = Watching()
    try:
        with served(embedder) as address, ThreadPoolExecutor(32) as pool:
            answers = list(pool.map(lambda n: post(address, {"input": f"q {n}"}), range(64)))
    finally:
        embedder.scheduler.workers[0].encoder = inner
    got = [answer.json()["data"][0]["embedding"] for answer in answers]
    np.testing.assert_allclose(got, embedder.encode_documents([f"q {n}" for n in range(64)]), atol=1e-5)
    assert max(batches) > 4


def test_clients_that_hang_or_leave_hurt_nobody(embedder, monkeypatch):
    monkeypatch.setattr(module, "HEAD_SECONDS", 0.3)  # a body may take longer
    monkeypatch.setattr(module, "BODY_SECONDS", 1.0)
    with served(embedder) as address:
        host, port = address.removeprefix("http://").split(":")
        head = b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{"
        slow = socket.create_connection((host, int(port)))
        slow.sendall(head)
        for _ in range(20):
            left = socket.create_connection((host, int(port)))
            left.sendall(head)
            left.close()
        assert post(address, {"input": "x"}).status_code == 200
        slow.settimeout(10)
        assert b" 408 " in slow.recv(1000).split(b"\r\n")[0]
        slow.close()


@pytest.mark.parametrize(
    "said", [b"", b"GET /health HTTP/1.1\r\nHost: ", b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\nGET /"]
)
def test_a_connection_without_a_whole_head_is_closed(embedder, monkeypatch, said):
    monkeypatch.setattr(module, "HEAD_SECONDS", 0.2)
    with served(embedder) as address:
        host, port = address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=30) as slow:
            slow.sendall(said)
            answers = b"".join(iter(lambda: slow.recv(1000), b""))
    assert answers.count(b" 200 OK") == said.count(b"\r\n\r\n")


def test_silent_connections_leave_room_for_others(embedder, monkeypatch):
    monkeypatch.setattr(module, "HEAD_SECONDS", 0.2)
    monkeypatch.setattr(module, "MAX_CONNECTIONS", 4)
    with served(embedder) as address, ExitStack() as opened:
        host, port = address.removeprefix("http://").split(":")
        silent = [opened.enter_context(socket.create_connection((host, int(port)), timeout=30)) for _ in range(20)]
        assert [one.recv(1) for one in silent] == [b""] * 20
        assert post(address, {"input": "x"}).status_code == 200


def test_clients_that_take_no_answer_leave_room_for_others(embedder, monkeypatch):
    monkeypatch.setattr(module, "HEAD_SECONDS", 0.2)
    monkeypatch.setattr(module, "MAX_CONNECTIONS", 4)
    body = json.dumps({"input": ["x"] * 2048}).encode()
    head = b"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n%s\r\n"
    last = head % (len(body), b"Connection: close\r\n") + body
    asked = (head % (len(body), b"") + body) * 5 + last  # more than the system keeps for a client
    with served(embedder) as address, ExitStack() as opened:
        host, port = address.removeprefix("http://").split(":")

        def asking() -> socket.socket:
            client = opened.enter_context(socket.create_connection((host, int(port)), timeout=60))
            client.sendall(asked)
            return client

        answers = b"".join(iter(partial(asking().recv, 4096), b""))  # of a client that takes all of them
        assert answers.count(b" 200 OK") == 6
        assert answers.count(b'"embedding":[') == 6 * 2048
        silent = [asking() for _ in range(module.MAX_CONNECTIONS)]
        until(lambda: answers_at(address))
        assert len(silent) == 4


def answers_at(address):
    with suppress(httpx.TransportError):
        return httpx.get(f"{address}/health").status_code == 200
    return False


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM that a program may answer")
def test_a_server_that_is_told_to_stop_finishes_what_it_accepted():
    port = free_port()
    command = [sys.executable, "-m", "c2llm_integrations", "serve", "--model", str(TIED), "--port", str(port)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    url = f"http://127.0.0.1:{port}"
    until_listening(port, process)

    async def main():
        async with httpx.AsyncClient(timeout=60) as client:
            texts = [f"def f{n}(): return {n}\n" * 40 for n in range(600)]
            running = asyncio.create_task(client.post(f"{url}/v1/embeddings", json={"input": texts}))
            waiting = ""
            while "c2llm_texts_waiting 600.0" not in waiting:
                waiting = (await client.get(f"{url}/metrics")).text
            process.send_signal(signal.SIGTERM)
            return await running

    answer = asyncio.run(main())
    assert len(answer.json()["data"]) == 600
    assert process.wait(60) == 128 + signal.SIGTERM


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "example.org", "192.168.1.5"])
def test_without_a_key_only_this_machine_is_listened_to(host, monkeypatch, capsys):
    monkeypatch.delenv("C2LLM_API_KEY", raising=False)
    assert run(["serve", "--host", host]) == 1
    assert "set C2LLM_API_KEY, or listen on 127.0.0.1" in capsys.readouterr().err


@pytest.mark.parametrize(
    "model",
    ["https://other.example.org/v1", "http://localhost:9/v1", "http+insecure://10.0.0.1/v1#m", "https://a:pw1@host/v1"],
)
def test_the_key_of_clients_is_not_sent_to_the_server_of_a_model(model, monkeypatch, capsys):
    monkeypatch.setenv("C2LLM_API_KEY", "key-of-clients")
    monkeypatch.setattr("httpx.Client", None)  # nothing is asked
    assert run(["serve", "--model", model]) == 1
    said = capsys.readouterr().err
    assert "C2LLM_API_KEY would be asked of clients here and sent to the server that --model names" in said
    assert "key-of-clients" not in said
    assert "pw1" not in said


def test_a_port_that_is_taken_is_one_line(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        arguments = [sys.executable, "-m", "c2llm_integrations", "serve", "--model", str(TIED), "--port", str(port)]
        done = subprocess.run(arguments, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"c2llm: 127.0.0.1:{port} cannot be listened on (")
    assert line.endswith("); name another --port")
