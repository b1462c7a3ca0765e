"""vLLM with our plugin beside our embedder: tokens of the 0.5B in a second, on this CPU.

    make test-vllm && .venv-vllm/bin/python -m benchmarks.vllm_throughput [--texts 48] [--runs 3] [--minutes 5]

Random weights, real code with its real lengths, both in turn in processes of their own (`embedder_speed`).
Results: results/vllm_throughput.json.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from benchmarks.common import report
from benchmarks.embedder_speed import Row, code_texts, measure
from benchmarks.speed_sides import TOKENIZER, make_checkpoint


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=48)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=5, help="no turn begins later than that")
    options = parser.parse_args()
    row = Row("vllm", "0.5B: vLLM with the plugin", True, "embedder", "vllm", "tokens/s", 1.0, options.texts)
    with tempfile.TemporaryDirectory() as folder:
        make_checkpoint(Path(folder), TOKENIZER, "bfloat16")
        found = measure(row, folder, code_texts(options.texts), options.runs, 60 * options.minutes)
    # There is no target, and vLLM computes in further processes, whose memory is not among what was measured.
    columns = ("against", "unit", "ours", "other", "ratio", "runs", "texts", "date")
    report("vllm_throughput", [{name: found[name] for name in columns}])


if __name__ == "__main__":
    main()
