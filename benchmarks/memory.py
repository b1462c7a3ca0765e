"""Peak memory of `c2llm index` with `nano` on generated repositories of growing size, and what a chunk adds.

python -m benchmarks.memory [--chunks 20000 100000 150000] [--model nano]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from benchmarks.common import process, report

PER_FILE = 50


def generate(root: Path, chunks: int) -> None:
    """Write functions of about 250 characters, each a chunk of its own and no two alike."""
    for number in range(0, chunks, PER_FILE):
        folder = root / f"part_{number // 5000}"
        folder.mkdir(parents=True, exist_ok=True)
        functions = (
            f"def merge_{n}(left_{n}, right_{n}):\n"
            f'    """Join the rows of table {n} with those of table {n * 7 % 1000}."""\n'
            f"    keys = sorted(set(left_{n}) & set(right_{n}))\n"
            f"    rows = [(key, left_{n}[key], right_{n}[key]) for key in keys if key != {n}]\n"
            f"    return rows\n\n\n"
            for n in range(number, min(number + PER_FILE, chunks))
        )
        (folder / f"file_{number}.py").write_text("".join(functions))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chunks", type=int, nargs="+", default=[20_000, 100_000, 150_000])
    parser.add_argument("--model", default="nano")
    options = parser.parse_args()
    rows: list[dict[str, object]] = []
    for chunks in options.chunks:
        with tempfile.TemporaryDirectory() as folder:
            generate(Path(folder) / "repository", chunks)
            command = [sys.executable, "-m", "c2llm_integrations", "index", f"{folder}/repository"]
            done = process(*command, "--store", f"qdrant+edge://{folder}/store", "--model", options.model)
        row = {"chunks": chunks, "seconds": done["seconds"], "peak MB": done["peak_mb"], "KB more a chunk": ""}
        if rows:
            more = done["peak_mb"] - float(str(rows[-1]["peak MB"]))
            row["KB more a chunk"] = 1024 * more / (chunks - int(str(rows[-1]["chunks"])))
        rows.append(row)
        print(row, flush=True)
    report("memory", rows)


if __name__ == "__main__":
    main()
