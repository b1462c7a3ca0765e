"""Measure a model on this machine: tokens a second, share of the peak of the matrix products, memory.

The work of one token is 2·N + 2·L·n·d floating-point operations: N weights of the backbone's layers, L layers, texts
of n tokens, width d (twice the second part where attention looks both ways).
"""

from __future__ import annotations

import gc
import statistics
import sys
import sysconfig
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from timeit import repeat

import numpy as np
import torch
from torch.nn import functional as F

from c2llm_integrations.code.chunking import chunk_source
from c2llm_integrations.errors import InputError
from c2llm_integrations.model.checkpoint import load_checkpoint
from c2llm_integrations.model.dtype_choice import cpu_times, fastest, float_dtype, why_not_int8
from c2llm_integrations.model.embedder import C2LLMEmbedder

# Rows of the products that are timed and how many of them a GPU gets at once, tokens in a batch that are tried, and
# chunks read at most.
ROWS = {"cpu": 2048, "cuda": 16384}
QUEUED = 20
BUDGETS = {"cpu": (1024, 2048, 4096), "cuda": (16384, 32768, 65536)}
MOST_CHUNKS = 20_000

Shapes = list[tuple[int, int]]


@dataclass(frozen=True)
class Measured:
    """One setting: `mfu` is the share of `peak_tflops` that the encoder reaches, None where its work is not known."""

    dtype: str
    batch_tokens: int
    tokens_per_second: float
    texts_per_second: float
    peak_tflops: float
    mfu: float | None
    query_ms: float
    memory_mb: float


def measure(
    name: str, seconds: float = 120.0, device: str = "auto", say: Callable[[str], None] = print
) -> list[Measured]:
    """Measure a model on real code for about `seconds`; best setting first. `say` gets a line for each setting.

    Raises what `C2LLMEmbedder.from_pretrained` raises, and InputError for less than 5 seconds.
    """
    if seconds < 5:
        raise InputError(f"{seconds:g} s are too short for a figure, give at least 5")
    texts = _texts()
    where = "cuda" if device.startswith("cuda") or (device == "auto" and torch.cuda.is_available()) else "cpu"
    kinds = kinds_to_measure(name, torch.device(where))
    if where == "cpu":
        figures = cpu_times(load_checkpoint(name))
        chosen = str(fastest(figures)).removeprefix("torch.")
        each = ", ".join(f"{kind} {ms:g} ms" for kind, ms in figures.items())
        say(f"one product on one thread, as measured for dtype 'auto', which takes {chosen}: {each}")
    turn = seconds / (len(kinds) * (len(BUDGETS[where]) + 1))
    found = []
    for kind in kinds:
        model = C2LLMEmbedder.from_pretrained(name, dtype=kind, device=device)
        shapes = product_shapes(model)
        peak = peak_of(model, shapes, turn)
        for budget in BUDGETS[where]:
            found.append(_run(model, texts, budget, shapes, peak, turn))
            say(f"{kind}, batches of {budget} tokens: {found[-1].tokens_per_second:,.0f} tokens/s")
        del model
        gc.collect()
    return sorted(found, key=lambda one: -one.tokens_per_second)


def _run(model: C2LLMEmbedder, texts: list[str], budget: int, shapes: Shapes, peak: float, seconds: float) -> Measured:
    """Embed new texts until the time is over; a slice at a time, so that small machines come to an end too."""
    model.scheduler.limit(budget)
    for device in set(model.devices) if model.devices[0].type == "cuda" else ():
        torch.cuda.reset_peak_memory_stats(device)
    size = start = budget // 64
    model.encode_documents(texts[:size])
    rates: list[float] = []
    counts: list[int] = []  # of tokens
    begin = time.perf_counter()
    while time.perf_counter() - begin < seconds or len(rates) < 3:
        before, at = model.tokens_seen, time.perf_counter()
        model.encode_documents([texts[(start + n) % len(texts)] for n in range(size)])
        counts.append(model.tokens_seen - before)
        rates.append(counts[-1] / (time.perf_counter() - at))
        start += size
        if time.perf_counter() - begin < seconds / 2:
            size = min(4096, 2 * size)
    rate, length = statistics.median(rates), sum(counts) / (start - budget // 64)
    work = _flop(model, shapes, length)
    return Measured(
        dtype=str(model.dtype).removeprefix("torch."),
        batch_tokens=budget,
        tokens_per_second=rate,
        texts_per_second=rate / length,
        peak_tflops=peak / 1e12,
        mfu=None if work is None else work * rate / peak,
        query_ms=1000
        * statistics.median(repeat(lambda: model.encode_queries(["how is a request retried?"]), number=1, repeat=20)),
        memory_mb=_memory_mb(model.devices),
    )


def peak_of(model: C2LLMEmbedder, shapes: Shapes, seconds: float) -> float:
    """Return the most floating-point operations a second of the products of the model's layers, on all its devices."""
    best, distinct = 0.0, sorted(set(shapes))
    for rows, columns in distinct:
        height = ROWS["cpu" if model.devices[0].type == "cpu" else "cuda"]
        x = torch.randn(height, columns, device=model.devices[0]).to(model.dtype)
        weight = torch.randn(rows, columns, device=model.devices[0]).to(model.dtype)

        def products(x: torch.Tensor = x, weight: torch.Tensor = weight) -> None:
            for _ in range(QUEUED if x.is_cuda else 1):  # a GPU that waits for Python after each would look slow
                torch._int_mm(x, weight.t()) if x.dtype == torch.int8 else F.linear(x, weight)
            if x.is_cuda:
                torch.cuda.synchronize(x.device)

        products()
        end = time.perf_counter() + seconds / len(distinct)
        while time.perf_counter() < end:
            work = 2 * height * rows * columns * (QUEUED if x.is_cuda else 1)
            best = max(best, work / min(repeat(products, number=1, repeat=5)))
    return best * len(set(model.devices))


def product_shapes(model: C2LLMEmbedder) -> Shapes:
    """Return the shapes of the matrices that every token is multiplied with."""
    return [
        (tensor.shape[0], tensor.shape[1])
        for name, tensor in model.checkpoint.tensors().items()
        if name.startswith("backbone.") and tensor.dim() == 2 and "embed" not in name
    ]


def _flop(model: C2LLMEmbedder, shapes: Shapes, length: float) -> float | None:
    sizes = model.checkpoint.sizes
    layers, width = sizes.num_hidden_layers, sizes.hidden_size
    if not layers or not width:
        return None
    ways = 2 if sizes.model_type == "bert" else 1
    return 2.0 * sum(rows * columns for rows, columns in shapes) + 2.0 * ways * layers * length * width


def _memory_mb(devices: Sequence[torch.device]) -> float:
    if devices[0].type == "cuda":
        return sum(torch.cuda.max_memory_allocated(device) for device in set(devices)) / 2**20
    try:
        import resource
    except ImportError:  # Windows keeps no such figure
        return float("nan")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def kinds_to_measure(name: str, device: torch.device) -> list[str]:
    """Return the data types worth measuring there, "float32" last."""
    checkpoint = load_checkpoint(name)
    kinds = [] if why_not_int8(checkpoint, device) else ["int8"]
    kinds += ["bfloat16"] if float_dtype(checkpoint, device) == torch.bfloat16 else []
    return [*kinds, "float32"]


def _texts() -> list[str]:
    """Return chunks of Python's own library, real code that is always there, with files and lengths mixed."""
    texts: list[str] = []
    for file in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        source = file.read_text(encoding="utf-8", errors="replace")
        texts += [chunk.text for chunk in chunk_source("python", file.name, source)]
    chosen = np.random.default_rng(0).permutation(len(texts))[:MOST_CHUNKS]
    return [texts[number] for number in chosen]
