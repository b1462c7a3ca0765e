"""Choose the data type of a computation: the fastest of the device that the checkpoint allows.

A GPU computes in bfloat16 if its hardware does, else in float32. A CPU's fastest type is measured once, for some
milliseconds, and kept for the machine, because no name or flag tells it: bfloat16 may be emulated (up to a hundred
times slower), and 8-bit products may be slower than float32, or overflow where pairs are summed in 16 bits (AVX2
without VNNI).
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache, partial

import torch
from torch.nn import functional as F

from c2llm_integrations._utils.files import user_cache, write_atomically
from c2llm_integrations._utils.json_lines import parse_json
from c2llm_integrations.model.backbones import Bert
from c2llm_integrations.model.checkpoint import RANGES, Checkpoint
from c2llm_integrations.model.int8 import Product, weight_steps
from c2llm_integrations.model.parallel_batches import lanes

# The products measured: rows of tokens, and the most columns and outputs of a layer.
ROWS, MOST_COLUMNS, MOST_OUTPUTS = 128, 512, 1024
# Turns in which every type is timed once, and after how many of them one is left out that takes over `HOPELESS` times
# as long as float32.
TURNS, FIRST_TURNS, HOPELESS = 25, 3, 5.0
# A type of fewer bits must win by this much.
GAIN = 1.15
_ENVIRONMENT = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")


def best_dtype(checkpoint: Checkpoint, devices: Sequence[torch.device]) -> torch.dtype:
    """Return the fastest type there that keeps the quality: 8 bits only on a CPU and with measured ranges."""
    if devices[0].type == "cpu":
        return fastest(cpu_times(checkpoint))
    return torch.bfloat16 if all(map(_has_bfloat16, devices)) else torch.float32


def float_dtype(checkpoint: Checkpoint, device: torch.device) -> torch.dtype:
    """Return the better of bfloat16 and float32 there."""
    if device.type != "cpu":
        return best_dtype(checkpoint, [device])
    return fastest({name: ms for name, ms in cpu_times(checkpoint).items() if name != "int8"})


def _has_bfloat16(device: torch.device) -> bool:
    """Return whether a GPU has bfloat16 in hardware: Turing, Volta and older emulate it, slower than float32."""
    if device.type != "cuda":
        return False
    return torch.version.hip is not None or torch.cuda.get_device_capability(device) >= (8, 0)


def why_not_int8(checkpoint: Checkpoint, device: torch.device) -> str | None:
    """Return why this checkpoint cannot be computed in 8 bits there; None if it can."""
    if device.type != "cpu":
        return f"it is for CPUs, the device is {device}"
    if weight_steps() is None:
        return "this CPU or this PyTorch has no right products of bytes"
    if not Bert.can_compute(checkpoint.sizes) or not (checkpoint.folder / RANGES).is_file():
        return f"{checkpoint.name} has no {RANGES}, the measured ranges of what its layers take"
    return None


def cpu_times(checkpoint: Checkpoint) -> dict[str, float]:
    """Return the milliseconds of a product of this checkpoint's shape on this CPU, by data type."""
    config = checkpoint.sizes
    width, inner = config.hidden_size or 768, config.intermediate_size or 3072
    found = product_times(min(width, MOST_COLUMNS), min(inner, MOST_OUTPUTS))
    is_left_out = why_not_int8(checkpoint, torch.device("cpu")) is not None
    return {name: ms for name, ms in found.items() if not (name == "int8" and is_left_out)}


def fastest(milliseconds: Mapping[str, float]) -> torch.dtype:
    """Return the data type to compute in; one of fewer bits where it is faster than those of more by `GAIN`."""
    chosen = "float32"
    for name in ("bfloat16", "int8"):
        if milliseconds.get(name, float("inf")) * GAIN < milliseconds[chosen]:
            chosen = name
    found: torch.dtype = getattr(torch, chosen)
    return found


@cache
def product_times(width: int, inner: int) -> Mapping[str, float]:
    """Return the milliseconds of a product of `width` columns and `inner` outputs on one thread, by data type.

    "int8" is missing where its products are not available. The first call on a machine measures, later ones read.
    """
    file = user_cache() / "cpu.json"
    kept: dict[str, dict[str, float]] = {}
    with suppress(OSError, ValueError):
        if file.is_file():  # a pipe would be waited for
            kept = parse_json(file.read_text(encoding="utf-8"))
    key = f"{this_machine()}, {width} x {inner}"
    found = kept.get(key) if isinstance(kept, dict) else None
    if isinstance(found, dict) and "float32" in found and all(isinstance(ms, float) for ms in found.values()):
        return found
    found = _measured(width, inner)
    with suppress(OSError):  # a home that cannot be written to: the next process measures again
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, json.dumps({**(kept if isinstance(kept, dict) else {}), key: found}))
    return found


def this_machine() -> str:
    """Describe everything that decides the figures: a home folder may be shared by unlike machines."""
    about: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    flags = sorted(name for name, value in about.items() if value is True)
    limits = [f"{name}={os.environ[name]}" for name in _ENVIRONMENT if name in os.environ]
    return " ".join([str(about.get("cpu_name", platform.machine())), torch.__version__, *flags, *limits])


def _measured(width: int, inner: int) -> dict[str, float]:
    with lanes(torch.device("cpu")) as threads:  # on one thread, as batches are computed
        return threads.submit(_by_type, width, inner).result()


@torch.inference_mode()
def _by_type(width: int, inner: int) -> dict[str, float]:
    x, weight = torch.rand(ROWS, width) - 0.5, torch.rand(inner, width) - 0.5
    rough_x, rough_weight = x.bfloat16(), weight.bfloat16()
    ways: dict[str, Callable[[], object]] = {
        "float32": lambda: F.linear(x, weight),
        "bfloat16": lambda: F.linear(rough_x, rough_weight),
    }
    if weight_steps():
        product = Product(weight, torch.zeros(inner), torch.full((width,), 0.5))
        ways["int8"] = lambda: product(product.rounded(x), torch.float32)
    for way in ways.values():
        way()  # the first time kernels are built
    return compared({name: partial(_milliseconds, way) for name, way in ways.items()})


def compared(timers: Mapping[str, Callable[[], float]]) -> dict[str, float]:
    """Return each type's milliseconds: the least of its turns, because other load on the machine only adds to it."""
    least = dict.fromkeys(timers, float("inf"))
    for turn in range(TURNS):
        if turn == FIRST_TURNS:
            timers = {name: timer for name, timer in timers.items() if least[name] <= HOPELESS * least["float32"]}
        for name, timer in timers.items():
            least[name] = min(least[name], timer())
    return {name: round(ms, 4) for name, ms in least.items()}


def _milliseconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - begin)
