"""Where a GPU's time goes: the steps of a decoder layer one by one, and the kernels of a whole run.

Parts of `benchmarks.gpu`. Each step of a full batch's shape is computed in every way there is: by PyTorch's own
operations, by our kernel (as it is set, and with other blocks and warps), and by `torch.compile`. The bytes are those
that must move at least: each number read once and written once.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.autograd import DeviceType
from torch.nn import functional as F
from torch.profiler import ProfilerActivity
from torch.profiler import profile as recording

from benchmarks.common import seconds
from c2llm_integrations.model import attention
from c2llm_integrations.model.checkpoint import ModelConfig
from c2llm_integrations.model.embedder import C2LLMEmbedder
from c2llm_integrations.model.encoder import ROW_MULTIPLE
from c2llm_integrations.model.fused_ops import Fused, add_norm, rotate, swiglu

Row = dict[str, Any]
ROWS, MINI_ROWS = 32768, 64
RUNS, WARM_UP, LAUNCHES = 20, 3, 200
NAMED = 14  # kernels of a run that get a row of their own
ONE_KERNEL = ("128x128x64", "128x128x64 deep", "128x64x64", "256x64x64")  # of `gpu_product`
TEXT_TOKENS = 256  # of each text that attention sees
# Blocks and warps to try beside those that are set.
SWIGLU = [
    {"block": 512, "warps": 2},
    {"block": 2048, "warps": 4},
    {"block": 2048, "warps": 8},
    {"block": 4096, "warps": 8},
]
WARPS = [{"warps": warps} for warps in (2, 4, 8)]


@dataclass(frozen=True)
class Step:
    """One step at one model's shape; `bytes_` must move at least, or `flop` be computed."""

    name: str
    given: tuple[Any, ...]
    ways: dict[str, Callable[..., Any]]
    bytes_: float = 0
    flop: float = 0


def measure(shapes: dict[str, ModelConfig], device: torch.device, dtype: torch.dtype, mini: bool) -> Iterator[Row]:
    """Rows of all steps at each model's sizes; what fails is a row, too."""
    rows = MINI_ROWS if mini else ROWS
    if device.type != "cuda":
        yield {"what": f"kernels on {device.type}; they need an NVIDIA GPU", "value": 0, "unit": "kernels"}
    for name, sizes in shapes.items():
        for step in _steps(sizes, rows, device, dtype):
            yield from _measured(f"{name} {step.name}", step, device, step.ways)
    if device.type == "cuda":
        for step in _steps(next(iter(shapes.values())), ROW_MULTIPLE, device, dtype):
            if step.bytes_:
                yield from _launch(step)
        for name, sizes in shapes.items():  # an experiment, behind what it could take down
            step = _gated(sizes, rows, device, dtype)
            yield from _measured(f"{name} {step.name}", step, device, step.ways)
    for name, sizes in shapes.items():  # compiling takes longest
        for step in _steps(sizes, rows, device, dtype):
            yield from _measured(f"{name} {step.name}", step, device, _compiled(step, device))


def _steps(sizes: ModelConfig, rows: int, device: torch.device, dtype: torch.dtype) -> Iterator[Step]:
    """Yield the steps one after the other, so that only one's numbers are held."""
    drawn = partial(torch.randn, device=device, dtype=dtype)
    width, inner = sizes.hidden_size, sizes.intermediate_size
    head = width // sizes.num_attention_heads
    turned = sizes.num_attention_heads + sizes.key_heads
    qkv = turned + sizes.key_heads
    item = dtype.itemsize * rows
    yield Step("swiglu", (drawn(rows, 2 * inner),), _ways(swiglu, SWIGLU, device), 3 * inner * item)
    given = (drawn(rows, width), drawn(rows, width), drawn(width), 1e-6)
    yield Step("add_norm", given, _ways(add_norm, WARPS, device), 4 * width * item)
    angles = torch.rand(rows, 1, head // 2, device=device).repeat(1, 1, 2)
    given = (drawn(rows, qkv, head)[:, :turned], angles.cos().to(dtype), angles.sin().to(dtype))
    yield Step("rotate", given, _ways(rotate, WARPS, device), 2 * (turned + 1) * head * item)
    products = {
        "qkv": (width, qkv * head),
        "out": (width, width),
        "gate_up": (width, 2 * inner),
        "down": (inner, width),
    }
    for name, (inputs, outputs) in products.items():
        given = (drawn(rows, inputs), drawn(outputs, inputs))
        yield Step(f"product {name}", given, {"": F.linear}, flop=2.0 * rows * inputs * outputs)
    if device.type == "cuda":
        yield _attention(drawn(rows, qkv, head), sizes, device)


def _ways(step: Fused[..., Any], options: list[dict[str, int]], device: torch.device) -> dict[str, Callable[..., Any]]:
    """Return a step by PyTorch, by its kernel as it is set, and with each of the other options."""
    ways: dict[str, Callable[..., Any]] = {"PyTorch": step.function}
    if device.type == "cuda":

        def kernel(*given: Any, **option: int) -> Any:
            from c2llm_integrations.model import fused_kernels

            return getattr(fused_kernels, step.__name__)(*given, **option)

        ways["Triton"] = kernel
        ways |= {
            f"Triton {' '.join(f'{k} {v}' for k, v in option.items())}": partial(kernel, **option) for option in options
        }
    return ways


def _compiled(step: Step, device: torch.device) -> dict[str, Callable[..., Any]]:
    """Return the way of `torch.compile`, beside PyTorch's own to compare with."""
    if "PyTorch" not in step.ways:
        return {}
    # A CPU may have no C++ compiler; there only the call is tried.
    backend = "inductor" if device.type == "cuda" else "aot_eager"
    plain = step.ways["PyTorch"]
    return {
        "PyTorch again": plain,
        "torch.compile": torch.compile(plain, dynamic=True, fullgraph=True, backend=backend),
    }


def _gated(sizes: ModelConfig, rows: int, device: torch.device, dtype: torch.dtype) -> Step:
    """The product of gate and up and `swiglu` of it: one after the other as in the package, and in one kernel."""

    def one(x: Tensor, weight: Tensor, shape: str) -> Tensor:
        from benchmarks.gpu_product import gate_up_swiglu

        return gate_up_swiglu(x, weight, shape)

    ways: dict[str, Callable[..., Any]] = {"one after the other": lambda x, weight: swiglu(F.linear(x, weight))}
    ways |= {f"in one, {shape}": partial(one, shape=shape) for shape in ONE_KERNEL}
    given = [torch.randn(n, sizes.hidden_size, device=device, dtype=dtype) for n in (rows, 2 * sizes.intermediate_size)]
    return Step("gate_up and swiglu", tuple(given), ways, flop=2.0 * given[0].numel() * len(given[1]))


def _attention(qkv: Tensor, sizes: ModelConfig, device: torch.device) -> Step:
    """Variable-length attention of texts of equal length, keys and values repeated for their queries or not."""
    from torch.nn.attention.varlen import varlen_attn

    rows, heads, keys = len(qkv), sizes.num_attention_heads, sizes.key_heads
    text = min(TEXT_TOKENS, rows)
    texts = attention.packed_layout([text] * (rows // text), device)
    options: Any = {"window_size": (-1, 0)}

    def varlen(query: Tensor, key: Tensor, value: Tensor, **more: Any) -> Tensor:
        lengths = (texts.offsets, texts.offsets, texts.longest, texts.longest)
        return varlen_attn(query, key, value, *lengths, **options, **more)  # type: ignore[return-value]

    def repeated(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        shared = query.shape[1] // key.shape[1]
        return varlen(query, key.repeat_interleave(shared, 1), value.repeat_interleave(shared, 1))

    ways: dict[str, Callable[..., Any]] = {"keys repeated": repeated, "keys grouped": varlen}
    if "enable_gqa" in attention._varlen_options():
        ways["keys grouped"] = partial(varlen, enable_gqa=True)
    ways["ours"] = partial(attention.attend_varlen, texts=texts, causal=True)
    return Step("attention", qkv.split([heads, keys, keys], 1), ways, flop=2.0 * rows * text * qkv.shape[2] * heads)


@torch.inference_mode()
def _measured(name: str, step: Step, device: torch.device, ways: dict[str, Callable[..., Any]]) -> Iterator[Row]:
    first = None
    for way, work in ways.items():
        what = f"{name}, {way}" if way else name
        try:
            found = _flat(work(*(_own(part) for part in step.given)))
            difference = None if first is None else max(map(_difference, found, first))
            first = first or found
            del found
            given = [_own(part) for part in step.given]
            taken = _milliseconds(lambda work=work, given=given: work(*given), device)  # type: ignore[misc]
        except Exception as error:
            yield {"what": what, "error": " ".join(f"{type(error).__name__}: {error}".split())[:300]}
            continue
        yield {"what": what, "value": taken, "unit": "ms"}
        if step.bytes_:
            yield {"what": f"{what}: bandwidth", "value": step.bytes_ / taken / 1e6, "unit": "GB/s"}
        if step.flop:
            yield {"what": f"{what}: rate", "value": step.flop / taken / 1e9, "unit": "TFLOP/s"}
        if difference is not None:
            yield {"what": f"{what}: largest difference", "value": difference, "unit": "of the number and the mean"}


def _launch(step: Step) -> Iterator[Row]:
    """What a call costs Python, with too few rows for the GPU to be busy."""
    for way in ("PyTorch", "Triton"):
        try:
            _milliseconds(lambda: step.ways[way](*step.given), torch.device("cuda"))  # noqa: B023
            begin = time.perf_counter()
            for _ in range(LAUNCHES):
                step.ways[way](*step.given)
            taken = (time.perf_counter() - begin) / LAUNCHES
            yield {"what": f"call of {step.name}, {way}", "value": 1e6 * taken, "unit": "us"}
        except Exception as error:
            yield {"what": f"call of {step.name}, {way}", "error": f"{type(error).__name__}: {error}"[:300]}


def _own(part: Any) -> Any:
    """A copy that a kernel may change, which lies in memory as the original does."""
    if not isinstance(part, Tensor) or part._base is None:
        return part
    return part._base.clone().as_strided(part.shape, part.stride(), part.storage_offset())


def _flat(found: Any) -> tuple[Tensor, ...]:
    return (found,) if isinstance(found, Tensor) else tuple(found)


def _difference(one: Tensor, other: Tensor) -> float:
    """The largest of all numbers' differences, each as a share of the number itself and the mean number."""
    worst = 0.0
    for part, beside in zip(one.split(4096), other.split(4096), strict=True):
        exact = beside.float().abs()
        worst = max(worst, float(((part.float() - beside.float()).abs() / (exact + exact.mean())).max()))
    return worst


def _milliseconds(work: Callable[[], object], device: torch.device) -> float:
    """Median of some runs; on a GPU by its own clock."""
    runs = RUNS if device.type == "cuda" else 3
    for _ in range(WARM_UP if device.type == "cuda" else 1):
        work()
    if device.type != "cuda":
        marks = [time.perf_counter()]
        for _ in range(runs):
            work()
            marks.append(time.perf_counter())
        return 1000 * statistics.median(end - begin for begin, end in pairwise(marks))
    events = [torch.cuda.Event(enable_timing=True) for _ in range(runs + 1)]
    torch.cuda._sleep(10_000_000)  # type: ignore[no-untyped-call]  # some milliseconds, in which all calls queue up
    events[0].record()
    for event in events[1:]:
        work()
        event.record()
    torch.cuda.synchronize()
    return statistics.median(begin.elapsed_time(end) for begin, end in pairwise(events))


def profiled(embedder: C2LLMEmbedder, texts: list[str], gpu: bool) -> Iterator[Row]:
    """The share of each kernel in the kernels' time of a run, and how much of the run the GPU computes."""

    def run() -> None:
        if gpu:
            embedder.encode(texts)
        else:  # of operators it sees those of this thread alone
            embedder.scheduler.workers[0].encoder(embedder._counted(texts))

    run()
    # Of a GPU its kernels alone: with the operators that started them, each would count twice.
    with recording(activities=[ProfilerActivity.CUDA if gpu else ProfilerActivity.CPU]) as found:
        took = seconds(run)
    here = DeviceType.CUDA if gpu else DeviceType.CPU
    spent = {
        one.key: one.self_device_time_total if gpu else one.self_cpu_time_total
        for one in found.key_averages()
        if one.device_type == here
    }
    total = sum(spent.values()) or 1
    yield {"what": "a run", "value": took, "unit": "s"}
    yield {"what": "all kernels of it, one after the other", "value": total / 1e6, "unit": "s"}
    largest = sorted(spent, key=lambda key: -spent[key])[:NAMED]
    for name in largest:
        yield {"what": name[:90], "value": spent[name] / total, "unit": "share"}
    others = total - sum(spent[name] for name in largest)
    yield {"what": f"{len(spent) - len(largest)} others", "value": others / total, "unit": "share"}
    if gpu:
        times = sorted((one.time_range.start, one.time_range.end) for one in found.events() if one.device_type == here)
        yield {"what": "GPU busy", "value": covered(times) / 1e6 / took, "unit": "share of the run"}


def covered(times: Sequence[tuple[float, float]]) -> float:
    """How much time these stretches cover that may overlap, in the order of their beginnings."""
    total, until = 0.0, float("-inf")
    for begin, end in times:
        total += max(0.0, end - max(begin, until))
        until = max(until, end)
    return total
