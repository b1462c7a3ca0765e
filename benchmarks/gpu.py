"""What one GPU shows, in one call of some minutes: right vectors, speed beside others, where the time goes.

    python -m benchmarks.gpu [--minutes 4] [--only PART…] [--device cuda] [--mini] [--out results/gpu.json]

It runs on a bare machine: this repository, PyTorch with CUDA and what of our wheel's own needs is there. Nothing is
fetched: weights are random and of the true shapes, texts are the functions of the installed networkx, cut into tokens
by nano's tokenizer. sentence-transformers and the serving extra are measured where they are installed.

Each part is a process of its own with a time limit, so none takes another down; rows are kept as they are measured.
Those that measure no time run first, side by side. A row is one figure, or what went wrong. `--mini` takes small
shapes, so that a CPU shows in a minute that all of it runs.
"""

from __future__ import annotations

import argparse
import ast
import gc
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from benchmarks import gpu_kernels
from benchmarks.common import RESULTS, matmul_tflops, parts, seconds
from benchmarks.embedder_speed import flop
from benchmarks.speed_sides import SHAPE, SIDES, released_work
from c2llm_integrations.model.backbones import Qwen2
from c2llm_integrations.model.checkpoint import NANO, Checkpoint, ModelConfig, long_name
from c2llm_integrations.model.embedder import C2LLMEmbedder
from c2llm_integrations.model.encoder import pma_shapes
from c2llm_integrations.model.fused_ops import Fused
from c2llm_integrations.model.options import ModelOptions
from c2llm_integrations.model.safetensors_files import write_tensors

ROOT = Path(__file__).parents[1]
Row = dict[str, Any]
# Dense bfloat16 products, as the maker states them.
PEAK_TFLOPS = {"H100": 989.0, "H200": 989.0}
SHAPES: dict[str, dict[str, Any]] = {
    "0.5B": {**SHAPE, "compressed_dim": 896},
    "7B": {
        **SHAPE,
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "vocab_size": 152064,
        "compressed_dim": 3584,
        "tie_word_embeddings": False,
    },
}
MINI = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
MINI |= {"num_key_value_heads": 2, "vocab_size": 16384, "compressed_dim": 64}
MAX_LENGTH = 2048
# Texts of one run: one or two seconds of a large GPU. The others are slower and get every so-many-th of them.
TEXTS = {"0.5B": 4096, "7B": 512}
LIBRARY_SHARE, RELEASED_SHARE = 8, 32
SERVED_SHARE = 2
RUNS = 3
LEAST_SECONDS = 5  # a part does not begin with less
# Memory that is left beside the weights where it is made to run out.
ROOM_BYTES = 256 * 2**20


@dataclass(frozen=True)
class Settings:
    """Where the parts compute and how much; `folder` holds the 0.5B's checkpoint, for the parts that serve it."""

    device: str
    mini: bool
    folder: Path

    @property
    def dtype(self) -> torch.dtype:
        """bfloat16; a CPU may only emulate it."""
        return torch.bfloat16 if self.device.startswith("cuda") else torch.float32

    def checkpoint(self, name: str) -> Checkpoint:
        """A model of this shape with random weights."""
        return random_checkpoint(self.shape(name), self.dtype, self.device)

    def embedder(self, checkpoint: Checkpoint) -> C2LLMEmbedder:
        """Ours, loaded."""
        return C2LLMEmbedder(checkpoint, ModelOptions(max_length=MAX_LENGTH), [torch.device(self.device)], self.dtype)

    def shape(self, name: str) -> dict[str, Any]:
        """A model's sizes."""
        return {**SHAPES[name], **(MINI if self.mini else {})}

    def texts(self, name: str) -> list[str]:
        """Functions of networkx, with their real mix of lengths."""
        found = functions()
        if self.mini:
            return [text[:300] for text in found[:8]]
        return found[:: max(1, len(found) // TEXTS[name])][: TEXTS[name]]


def functions() -> list[str]:
    """Every function of the installed networkx, no two alike."""
    found: dict[str, None] = {}
    for file in sorted(Path(find_spec("networkx").origin).parent.rglob("*.py")):  # type: ignore[union-attr,arg-type]
        text = file.read_text(encoding="utf-8")
        lines = text.splitlines(keepends=True)
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                found["".join(lines[node.lineno - 1 : node.end_lineno])] = None
    return list(found)


def random_checkpoint(shape: dict[str, Any], dtype: torch.dtype, device: str) -> Checkpoint:
    """A checkpoint of this shape whose weights are drawn on the device when they are asked for, and never stored."""

    class Random(Checkpoint):
        def tensors(self) -> dict[str, torch.Tensor]:
            torch.manual_seed(0)
            drawn = {}
            for name, size in (*Qwen2.shapes(self.sizes), *pma_shapes(self.sizes)):
                mean = 1.0 if "norm" in name or ".ln" in name else 0.0
                drawn[name] = torch.empty(size, dtype=dtype, device=device).normal_(mean, 0.02)
            return drawn

    config = {"model_type": "c2llm", "pma_num_heads": 32, "max_position_embeddings": 32768, **shape}
    return Random("random", NANO, config, {})


def tests(settings: Settings) -> Iterator[Row]:
    """The tests marked for a GPU: all must pass, none may be skipped on one."""
    file = settings.folder / "tests.xml"
    # The machine may lack the plugins that pyproject.toml sets up.
    command = [sys.executable, "-m", "pytest", "-q", "-c", os.devnull, f"--rootdir={ROOT}", "-p", "no:cacheprovider"]
    command += ["-W", "ignore", "-m", "gpu", f"--junitxml={file}"]
    # Not the folder: importing every other test takes longer than these.
    command += [str(file) for file in (ROOT / "tests/model").glob("test_*.py") if "mark.gpu" in file.read_text()]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if not file.exists():
        raise RuntimeError(f"pytest ended with {done.returncode}: {(done.stdout + done.stderr)[-800:]}")
    [suite] = ElementTree.parse(file).getroot().iter("testsuite")
    counts = {name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")}
    yield {"what": "passed", "value": counts.pop("tests") - sum(counts.values()), "unit": "tests"}
    for name, count in counts.items():
        yield {"what": name, "value": count, "unit": "tests"}
    for case in suite.iter("testcase"):
        for fault in (*case.iter("failure"), *case.iter("error")):
            yield {"what": case.get("name"), "error": " ".join(str(fault.get("message")).split())[:300]}


def golden(settings: Settings) -> Iterator[Row]:
    """The golden vectors, and nano beside the CPU's float32: the worst cosine of each."""
    from tests.golden import FOLDER, NAMES, cosines, expected

    texts = settings.texts("0.5B")[: 4 if settings.mini else 64]
    exact = C2LLMEmbedder.from_pretrained("nano", device="cpu", dtype="float32").encode(texts)
    for kind in dict.fromkeys((torch.float32, settings.dtype)):
        dtype = str(kind).removeprefix("torch.")
        for name in NAMES:
            cases, raw, _ = expected(FOLDER / name)
            model = C2LLMEmbedder.from_pretrained(str(FOLDER / name), dtype=dtype, device=settings.device)
            yield {"what": f"{name} {dtype}", "value": float(cosines(model.encode(cases), raw).min()), "unit": "cosine"}
        vectors = C2LLMEmbedder.from_pretrained("nano", dtype=dtype, device=settings.device).encode(texts)
        yield {"what": f"nano {dtype}", "value": float(cosines(vectors, exact).min()), "unit": "cosine"}


def speed_half(settings: Settings) -> Iterator[Row]:
    """The 0.5B's shape beside sentence-transformers and the released way."""
    yield from _speed(settings, "0.5B", ("ours", "ours, nothing fused", "sentence-transformers", "released way"))


def speed_seven(settings: Settings) -> Iterator[Row]:
    """The 7B's shape beside sentence-transformers."""
    yield from _speed(settings, "7B", ("ours", "sentence-transformers"))


def _speed(settings: Settings, name: str, compared: Sequence[str]) -> Iterator[Row]:
    checkpoint, texts, device = settings.checkpoint(name), settings.texts(name), torch.device(settings.device)
    found = checkpoint.tokenizer().encode_batch_fast(texts, add_special_tokens=False)
    rows = [encoding.ids[:MAX_LENGTH] for encoding in found]
    yield {"what": "tokens of a text, mean", "value": sum(map(len, rows)) / len(rows), "unit": "tokens"}
    peak = _peak_tflops(checkpoint.sizes, device)
    yield {"what": "peak that the shares are of", "value": peak, "unit": "TFLOP/s"}
    some, few = texts[::LIBRARY_SHARE], rows[::RELEASED_SHARE]
    sides: list[tuple[str, Callable[[], Callable[[], object]], list[list[int]]]] = [
        ("ours", lambda: _ours(settings, checkpoint, texts), rows),
        ("ours, nothing fused", lambda: _unfused(settings, checkpoint, texts), rows),
        ("sentence-transformers", lambda: _library(settings, checkpoint, some), rows[::LIBRARY_SHARE]),
        ("released way", lambda: _released(settings, checkpoint, few), few),
    ]
    for side, make, done in sides:
        if side not in compared:
            continue
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        try:
            work = make()
            begin = time.perf_counter()
            work()  # builds kernels, grows the allocator
            yield {"what": f"{side}: first run", "value": time.perf_counter() - begin, "unit": "s"}
            took = statistics.median(seconds(work) for _ in range(1 if settings.mini else RUNS))
        except Exception as error:
            yield {"what": side, "error": _told(error)}
        else:
            yield {"what": side, "value": sum(map(len, done)) / took, "unit": "tokens/s"}
            share = flop(checkpoint.sizes, list(map(len, done))) / took / 1e12 / peak
            yield {"what": f"{side}: share of the peak", "value": share, "unit": "MFU"}
            if device.type == "cuda":
                peak_bytes = torch.cuda.max_memory_allocated()
                yield {"what": f"{side}: peak memory", "value": peak_bytes / 2**30, "unit": "GB"}
        work = None  # type: ignore[assignment]  # or the next side has no room
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()


def _ours(settings: Settings, checkpoint: Checkpoint, texts: list[str]) -> Callable[[], object]:
    embedder = settings.embedder(checkpoint)
    return lambda: embedder.encode(texts)


def _unfused(settings: Settings, checkpoint: Checkpoint, texts: list[str]) -> Callable[[], object]:
    embedder = settings.embedder(checkpoint)

    def work() -> None:
        before, Fused.enabled = Fused.enabled, False
        try:
            embedder.encode(texts)
        finally:
            Fused.enabled = before

    return work


def _library(settings: Settings, checkpoint: Checkpoint, texts: list[str]) -> Callable[[], object]:
    from c2llm_integrations.sentence_transformers import from_checkpoint

    where: dict[str, Any] = {"device": settings.device, "dtype": settings.dtype}
    loaded = from_checkpoint(checkpoint, **where, max_length=MAX_LENGTH, normalize=True)
    return lambda: loaded.encode(texts, batch_size=32, show_progress_bar=False)


def _released(settings: Settings, checkpoint: Checkpoint, rows: list[list[int]]) -> Callable[[], object]:
    work = released_work(checkpoint, settings.dtype, torch.device(settings.device))
    return lambda: work(rows)


def _peak_tflops(sizes: ModelConfig, device: torch.device) -> float:
    """A known GPU's own figure, else what a product of the model reaches on the CPU."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        for kind, peak in PEAK_TFLOPS.items():
            if kind in name:
                return peak
    return matmul_tflops(torch.float32, 1024, sizes.hidden_size, sizes.intermediate_size)


def profile(settings: Settings) -> Iterator[Row]:
    """Where the time of a run of the 0.5B goes: the share of each kernel, and how much of the run the GPU computes."""
    embedder = settings.embedder(settings.checkpoint("0.5B"))
    yield from gpu_kernels.profiled(embedder, settings.texts("0.5B"), settings.device.startswith("cuda"))


def kernels(settings: Settings) -> Iterator[Row]:
    """The small steps of a layer, each by PyTorch, by our kernel and by `torch.compile`; and the products beside."""
    shapes = {name: settings.checkpoint(name).sizes for name in SHAPES}
    yield from gpu_kernels.measure(shapes, torch.device(settings.device), settings.dtype, settings.mini)


def memory(settings: Settings) -> Iterator[Row]:
    """Memory that runs out in the middle of a job: the vectors stay right, and the batches grow again after."""
    from tests.golden import cosines

    embedder = settings.embedder(settings.checkpoint("0.5B"))
    texts, scheduler = settings.texts("0.5B"), embedder.scheduler
    if settings.mini:
        scheduler.limit(512)
    wanted, full = embedder.encode(texts), embedder.scheduler.budget.full
    with warnings.catch_warnings(record=True) as told, _little_memory(scheduler, torch.device(settings.device)):
        warnings.simplefilter("always")
        found = embedder.encode(texts)
    yield {"what": "warnings of memory", "value": sum("no memory" in str(one.message) for one in told), "unit": "times"}
    yield {"what": "worst cosine to the vectors before", "value": float(cosines(found, wanted).min()), "unit": "cosine"}
    yield {"what": "batch after it", "value": scheduler.budget.tokens, "unit": f"tokens of {full}"}
    begin = time.perf_counter()
    while scheduler.budget.tokens < full and time.perf_counter() - begin < 20:
        embedder.encode(texts)
    yield {"what": "batch when it was over", "value": scheduler.budget.tokens, "unit": f"tokens of {full}"}


class _little_memory:  # a context manager
    """Leaves a GPU little memory beside the weights; a CPU, which has no such limit, refuses batches instead."""

    def __init__(self, scheduler: Any, device: Any) -> None:
        self.worker, self.device, self.budget = scheduler.workers[0], device, scheduler.budget.full

    def __enter__(self) -> None:
        self.encoder = self.worker.encoder
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            total = torch.cuda.get_device_properties(self.device).total_memory
            torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + ROOM_BYTES) / total)
            return
        encoder, most = self.encoder, self.budget // 2

        def cramped(texts: Any) -> Any:
            if sum(map(len, texts)) > most:
                raise torch.OutOfMemoryError("made up")
            return encoder(texts)

        self.worker.encoder = cramped

    def __exit__(self, *_: object) -> None:
        self.worker.encoder = self.encoder
        if self.device.type == "cuda":
            torch.cuda.set_per_process_memory_fraction(1.0)


def questions(settings: Settings) -> Iterator[Row]:
    """The 0.5B asked one question after the other, and by 64 threads beside one call of 64."""
    yield from _sides(settings, {"query": "ms", "batch": "questions/s", "concurrent": "questions/s"})


def serve(settings: Settings) -> Iterator[Row]:
    """`c2llm serve` of the 0.5B at saturation, beside the same texts in one call."""
    yield from _sides(settings, {"offline": "texts/s", "served_base64": "texts/s"})


def _sides(settings: Settings, units: dict[str, str]) -> Iterator[Row]:
    model = str(_folder(settings))
    texts = settings.texts("0.5B")
    for name, unit in units.items():
        if unit == "texts/s":
            texts = texts[::SERVED_SHARE]
        amount = (20 if settings.mini else 200) if unit == "ms" else len(texts)
        try:
            run = SIDES[name](model, texts, MAX_LENGTH, float(amount))
            run()
            yield {"what": name, "value": statistics.median(run() for _ in range(3)), "unit": unit}
        except (Exception, SystemExit) as error:
            yield {"what": name, "error": _told(error)}


def _folder(settings: Settings) -> Path:
    """The 0.5B's checkpoint on disk, made by whichever part needs it first."""
    folder = settings.folder / "model"
    if not (folder / "tokenizer.json").exists():
        folder.mkdir(exist_ok=True)
        checkpoint = settings.checkpoint("0.5B")
        weights = {long_name(name): tensor.cpu() for name, tensor in checkpoint.tensors().items()}
        write_tensors(weights, folder / "model.safetensors", {"format": "pt"})
        (folder / "config.json").write_text(json.dumps(checkpoint.config))
        (folder / "tokenizer.json").write_bytes((NANO / "tokenizer.json").read_bytes())
    return folder


@dataclass(frozen=True)
class Part:
    """What is measured in a process of its own, and after how many seconds that is ended."""

    measure: Callable[[Settings], Iterator[Row]]
    limit: float
    timed: bool = True


# In this order: what matters most is measured before the time is over.
PARTS = {
    "tests": Part(tests, 60, timed=False),
    "golden": Part(golden, 60, timed=False),
    "memory": Part(memory, 60, timed=False),
    "kernels": Part(kernels, 60),
    "speed_half": Part(speed_half, 70),
    "profile": Part(profile, 35),
    "speed_seven": Part(speed_seven, 60),
    "serve": Part(serve, 50),
    "questions": Part(questions, 40),
}


def run_parts(names: Sequence[str], settings: Settings, deadline: float) -> Iterator[list[Row]]:
    """Rows of each part; those that measure no time run side by side, before the others."""

    def run(name: str) -> list[Row]:
        left = deadline - time.perf_counter()
        if left < LEAST_SECONDS:
            return [{"part": name, "what": "this part", "error": "no time was left"}]
        return run_part(name, settings, left)

    with ThreadPoolExecutor() as together:
        yield from together.map(run, [name for name in names if not PARTS[name].timed])
    yield from map(run, [name for name in names if PARTS[name].timed])


def run_part(name: str, settings: Settings, seconds_left: float) -> list[Row]:
    """Measure a part in a process of its own; rows that it wrote before it failed stay."""
    rows, log = settings.folder / f"{name}.jsonl", settings.folder / f"{name}.log"
    command = [sys.executable, "-m", "benchmarks.gpu", "--part", name, "--device", settings.device]
    command += ["--folder", str(settings.folder), *(["--mini"] if settings.mini else [])]
    limit = seconds_left if settings.mini else min(PARTS[name].limit, seconds_left)
    begin = time.perf_counter()
    error = None
    with log.open("w") as said:
        running = subprocess.Popen(command, cwd=ROOT, stdout=said, stderr=said, start_new_session=True)
        try:
            if code := running.wait(limit):
                error = f"ended with {code}: {log.read_text()[-600:].strip()}"
        except subprocess.TimeoutExpired:
            error = f"ended after {limit:.0f} s: {log.read_text()[-300:].strip()}"
        finally:
            with suppress(ProcessLookupError):
                os.killpg(running.pid, signal.SIGKILL)  # a server that it started, too
            running.wait()
    found = [json.loads(line) for line in rows.read_text().splitlines()] if rows.exists() else []
    if error:
        found.append({"what": "this part", "error": error})
    found.append({"what": "time of this part", "value": time.perf_counter() - begin, "unit": "s"})
    return [{"part": name, **row} for row in found]


def measure_part(name: str, settings: Settings) -> None:
    """Write a part's rows as they come; in the part's process."""
    with (settings.folder / f"{name}.jsonl").open("a") as out:
        for row in PARTS[name].measure(settings):
            print(json.dumps(row), file=out, flush=True)


def line(row: Row) -> str:
    """A row of the table."""
    value = f"{row['value']:>14,.4g} {row['unit']}" if "value" in row else f"FAILED  {row['error']}"
    return f"{row['part']:<12} {row['what'] or '':<60} {value}"


def _told(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:400]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=4, help="of all parts together")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--mini", action="store_true", help="small shapes and few texts")
    parser.add_argument("--out", type=Path, default=RESULTS / "gpu.json")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        measure_part(options.part, Settings(options.device, options.mini, options.folder))
        return
    deadline = time.perf_counter() + 60 * options.minutes
    document: dict[str, Any] = {"date": time.strftime("%Y-%m-%d"), "mini": options.mini, "machine": parts(), "rows": []}
    print(json.dumps(document["machine"]), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(options.device, options.mini, Path(folder))
        for found in run_parts(options.only, settings, deadline):
            print("\n".join(map(line, found)), flush=True)
            document["rows"] += found
            options.out.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
