"""The sides that `embedder_speed` compares: each computes in a process of its own, a run whenever it is told to.

    python -m benchmarks.speed_sides SIDE     (in: a line with its options, then one for each run; out: one for each)

A side is a function of `model` (a folder in the released layout, or nano), `texts`, `max_length` and `amount`. It
loads, warms up and returns a function that does one run and returns `amount` a second, or what its docstring says.
"""

from __future__ import annotations

import atexit
import base64
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.common import matmul_tflops, minilm_folder, own_peak_mb, seconds

if TYPE_CHECKING:
    import torch

    from c2llm_integrations.model.checkpoint import Checkpoint

Run = Callable[[], float]

SHAPE = {
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "vocab_size": 151936,
    "rope_theta": 1e6,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": True,
}
TOKENIZER = Path(__file__).parent.parent / "tests/data/golden/c2llm-tiny-tied/tokenizer.json"
# Texts of the 0.5B's warm-up: its weights are read once and its kernels built.
WARM_UP = 4
CALLERS, ROUNDS = 64, 10


def make_checkpoint(folder: Path, tokenizer: Path, dtype: str, shape: Mapping[str, object] = SHAPE) -> None:
    """The 0.5B shape, or another, with random weights in the released layout."""
    import torch

    from c2llm_integrations.model.hf_model import C2LLMConfig, C2LLMModel

    torch.manual_seed(0)
    with torch.device("meta"):
        model = C2LLMModel(C2LLMConfig(**{"compressed_dim": 896, "pma_num_heads": 32, **shape}))
    model = model.to(getattr(torch, dtype)).to_empty(device="cpu")
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    model.save_pretrained(folder)
    (folder / "tokenizer.json").write_bytes(tokenizer.read_bytes())


def embedder(model: str, texts: list[str], max_length: int, amount: float) -> Run:
    """Ours: all texts in one call."""
    from c2llm_integrations.model.embedder import C2LLMEmbedder

    loaded = C2LLMEmbedder.from_pretrained(model, max_length=max_length)
    loaded.encode(texts[:WARM_UP])
    return lambda: amount / seconds(lambda: loaded.encode(texts))


def offline(model: str, texts: list[str], max_length: int, amount: float) -> Run:
    """Ours: all texts in one call, with the document prompt in front of each, as the server computes them."""
    from c2llm_integrations.model.embedder import C2LLMEmbedder

    loaded = C2LLMEmbedder.from_pretrained(model, max_length=max_length)
    loaded.encode_documents(texts[:WARM_UP])
    return lambda: amount / seconds(lambda: loaded.encode_documents(texts))


def released(model: str, texts: list[str], max_length: int, amount: float) -> Run:
    """The way the released code computes, float32: all logits, hidden states kept, padded 32s in input order."""
    import torch

    from c2llm_integrations.model.checkpoint import load_checkpoint

    checkpoint = load_checkpoint(model)
    work = released_work(checkpoint, torch.float32, torch.device("cpu"))
    found = checkpoint.tokenizer().encode_batch(texts, add_special_tokens=False)
    rows = [encoding.ids[:max_length] for encoding in found]
    work([row[:32] for row in rows[:WARM_UP]])
    return lambda: amount / seconds(lambda: work(rows))


def released_work(
    checkpoint: Checkpoint, dtype: torch.dtype, device: torch.device
) -> Callable[[list[list[int]]], None]:
    """Return what computes texts' tokens as the released code does, with random weights of the checkpoint's shape."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    with torch.device("meta"):
        config = {**checkpoint.config, "model_type": "qwen2", "attn_implementation": "sdpa"}
        network = Qwen2ForCausalLM(Qwen2Config(**config))
    network = network.to(dtype).to_empty(device=device).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter.data, std=0.02)
    network.model.rotary_emb = type(network.model.rotary_emb)(network.config).to(device)

    @torch.inference_mode()
    def work(rows: list[list[int]]) -> None:
        for start in range(0, len(rows), 32):
            batch = rows[start : start + 32]
            longest = max(map(len, batch))
            ids = torch.tensor([[0] * (longest - len(row)) + row for row in batch], device=device)
            mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in batch], device=device)
            last = network(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states[-1]
            last[:, -1].cpu()  # waits for it

    return work


def sentence_transformers(model: str, texts: list[str], max_length: int, amount: float) -> Run:
    """sentence-transformers with our pooling module, bfloat16, sorted by length as that library does."""
    import torch

    from c2llm_integrations.sentence_transformers import load

    loaded = load(model, dtype=torch.bfloat16, device="cpu", max_length=max_length)
    loaded.encode(texts[:WARM_UP])
    return lambda: amount / seconds(lambda: loaded.encode(texts, batch_size=32))


def vllm(model: str, texts: list[str], max_length: int, amount: float) -> Run:
    """vLLM with our plugin: all cores, and the precision that ours chooses on this CPU."""
    import torch
    from vllm import LLM

    from c2llm_integrations.model.checkpoint import load_checkpoint
    from c2llm_integrations.model.dtype_choice import float_dtype

    os.environ |= {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": f"0-{(os.cpu_count() or 1) - 1}"}
    dtype = str(float_dtype(load_checkpoint(model), torch.device("cpu"))).removeprefix("torch.")
    loaded = LLM(model, runner="pooling", dtype=dtype, max_model_len=max_length)
    loaded.embed(texts[:WARM_UP], use_tqdm=False)
    return lambda: amount / seconds(lambda: loaded.embed(texts, use_tqdm=False))


def minilm(model: str, texts: list[str], max_length: int, amount: float) -> Run:
    """all-MiniLM-L6-v2 from PyPI through sentence-transformers, as it comes (float32)."""
    from sentence_transformers import SentenceTransformer

    loaded = SentenceTransformer(str(minilm_folder()), device="cpu")
    loaded.max_seq_length = max_length
    loaded.encode(texts[:32])
    return lambda: amount / seconds(lambda: loaded.encode(texts, batch_size=32, normalize_embeddings=True))


def product(model: str, texts: list[str], max_length: int, amount: float) -> Run:
    """10^12 floating-point operations a second of the best of the model's own matrix products, in bfloat16."""
    import torch

    from c2llm_integrations.model.checkpoint import load_checkpoint

    sizes = load_checkpoint(model).sizes
    width, inner = sizes.hidden_size, sizes.intermediate_size
    keys = width // sizes.num_attention_heads * sizes.key_heads
    shapes = [(width, width + 2 * keys), (width, width), (width, 2 * inner), (inner, width)]
    return lambda: max(matmul_tflops(torch.bfloat16, 4096, *shape) for shape in shapes)


def query(model: str, texts: list[str], max_length: int, amount: float) -> Run:
    """Milliseconds of one question alone, median of `amount`."""
    from c2llm_integrations.model.embedder import C2LLMEmbedder

    loaded = C2LLMEmbedder.from_pretrained(model, max_length=max_length)
    questions = [f"where is graph number {n} read from a file?" for n in range(int(amount))]
    loaded.encode_queries(questions[:WARM_UP])
    return lambda: 1000 * statistics.median(seconds(lambda q=q: loaded.encode_queries([q])) for q in questions)  # type: ignore[misc]


def batch(model: str, texts: list[str], max_length: int, amount: float) -> Run:
    """Questions a second, 64 in a call."""
    from c2llm_integrations.model.embedder import C2LLMEmbedder

    loaded = C2LLMEmbedder.from_pretrained(model, max_length=max_length)

    def work() -> None:
        for turn in range(ROUNDS):
            loaded.encode_queries([f"where is graph {turn} of {n} read from a file?" for n in range(CALLERS)])

    work()
    return lambda: ROUNDS * CALLERS / seconds(work)


def concurrent(model: str, texts: list[str], max_length: int, amount: float) -> Run:
    """Questions a second, 64 threads that ask one after the other."""
    from c2llm_integrations.model.embedder import C2LLMEmbedder

    loaded = C2LLMEmbedder.from_pretrained(model, max_length=max_length)
    threads = ThreadPoolExecutor(CALLERS)

    def ask(n: int) -> None:
        for turn in range(ROUNDS):
            loaded.encode_queries([f"where is graph {turn} of {n} read from a file?"])

    def work() -> None:
        list(threads.map(ask, range(CALLERS)))

    work()
    return lambda: ROUNDS * CALLERS / seconds(work)


def served(model: str, texts: list[str], max_length: int, amount: float) -> Run:
    """`c2llm serve`, asked by 8 clients for 8 texts at once; the vectors come as JSON numbers."""
    return _served(model, texts, amount, each=8, form="float")


def served_base64(model: str, texts: list[str], max_length: int, amount: float) -> Run:
    """`c2llm serve`, asked by 8 clients for 32 texts at once; the vectors come in base64."""
    return _served(model, texts, amount, each=32, form="base64")


def remote(model: str, texts: list[str], max_length: int, amount: float) -> Run:
    """Ours over `c2llm serve` on this machine: all texts in one call, as `offline` computes them."""
    from c2llm_integrations.model.embedder import C2LLMEmbedder

    loaded = C2LLMEmbedder.from_pretrained(f"http://127.0.0.1:{_server(model)}/v1", max_length=max_length)
    loaded.encode_documents(texts[:WARM_UP])
    return lambda: amount / seconds(lambda: loaded.encode_documents(texts))


def _server(model: str) -> int:
    """Start `c2llm serve`, which ends with this process; return its port once it listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    command = [sys.executable, "-m", "c2llm_integrations", "serve", "--model", model, "--port", str(port)]
    server = subprocess.Popen(command, stdout=sys.stderr)
    atexit.register(server.terminate)
    while server.poll() is None:
        with suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
            return port
        time.sleep(0.05)
    raise SystemExit(f"the server ended with {server.returncode}")


def _served(model: str, texts: list[str], amount: float, each: int, form: str) -> Run:
    port = _server(model)
    bodies = [
        json.dumps({"input": texts[begin : begin + each], "encoding_format": form}).encode()
        for begin in range(0, len(texts), each)
    ]

    def ask(body: bytes) -> bytes:
        connection = HTTPConnection("127.0.0.1", port, timeout=600)
        connection.request("POST", "/v1/embeddings", body, {"content-type": "application/json"})
        answer = connection.getresponse()
        if answer.status != 200:
            raise SystemExit(f"the server answered {answer.status}: {answer.read()[:200]!r}")
        return answer.read()

    _check(ask(bodies[0]), min(each, len(texts)))
    clients = ThreadPoolExecutor(8)
    return lambda: amount / seconds(lambda: list(clients.map(ask, bodies)))


def _check(answer: bytes, count: int) -> None:
    """Stop where an answer is not one vector of unit length for each text."""
    given = [one["embedding"] for one in json.loads(answer)["data"]]
    vectors = [np.frombuffer(base64.b64decode(v), "<f4") if isinstance(v, str) else v for v in given]
    if len(vectors) != count or not np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3):
        raise SystemExit(f"the server answered {len(vectors)} vectors of odd lengths for {count} texts")


SIDES: dict[str, Callable[..., Run]] = {
    side.__name__: side
    for side in (
        embedder,
        offline,
        released,
        sentence_transformers,
        vllm,
        minilm,
        product,
        query,
        batch,
        concurrent,
        served,
        served_base64,
        remote,
    )
}


def answer(side: Callable[..., Run]) -> None:
    """Be a side: read its options, then do a run for each line."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    run = side(**json.loads(sys.stdin.readline()))
    print("ready", file=answers, flush=True)
    for _ in sys.stdin:
        print(json.dumps({"value": run(), "peak_mb": own_peak_mb()}), file=answers, flush=True)


if __name__ == "__main__":
    answer(SIDES[sys.argv[1]])
