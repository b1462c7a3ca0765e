"""The embedder's speed beside what else computes the same, each row with what it should reach at least.

    python -m benchmarks.embedder_speed [--only ROW…] [--texts N] [--runs 5] [--minutes 5] [--tokenizer TOKENIZER.JSON]

The 0.5B has random weights, the texts are real code with its real mix of lengths. Both sides of a row run in turn, each
in a process of its own, so that a slow minute of the machine hits both and peak memory is each one's own. A figure is
the median of `--runs` turns, or of those that fit into `--minutes`; a ratio is the median of the turns' ratios. Rows
that are not asked for keep what the result file says of them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.common import RESULTS, report
from benchmarks.drawing import bars
from benchmarks.speed_sides import TOKENIZER, make_checkpoint

if TYPE_CHECKING:
    from c2llm_integrations.model.checkpoint import ModelConfig

# Tokens of a text that are read, where the other side needs a limit: the released path's logits fill the memory
# otherwise, and all-MiniLM-L6-v2 was made for 256.
CUT, MINILM_CUT, UNCUT = 512, 256, 2048


@dataclass(frozen=True)
class Row:
    """Two sides and the ratio wanted of them; without an `other`, the value that `ours` may at most have."""

    name: str
    what: str
    half_billion: bool
    ours: str
    other: str | None
    unit: str
    target: float
    texts: int
    max_length: int = UNCUT


ROWS = [
    Row("released", "0.5B: the released path, float32", True, "embedder", "released", "tokens/s", 10, 32, CUT),
    Row("library", "0.5B: sentence-transformers", True, "embedder", "sentence_transformers", "tokens/s", 1.3, 96),
    Row("mfu", "0.5B: the bfloat16 matrix product", True, "embedder", "product", "TFLOP/s", 0.5, 96),
    Row("minilm", "nano: all-MiniLM-L6-v2", False, "embedder", "minilm", "texts/s", 10, 512, MINILM_CUT),
    Row("query", "nano: one question alone", False, "query", None, "ms", 5, 200),
    Row("concurrent", "nano: 64 askers, a batch of 64", False, "concurrent", "batch", "texts/s", 0.7, 64),
    Row("served", "0.5B: c2llm serve, offline", True, "served", "offline", "tokens/s", 0.85, 96),
    Row("served_nano", "nano: c2llm serve, offline", False, "served_base64", "offline", "texts/s", 0.6, 2048),
    Row("remote", "nano: an embedder over c2llm serve, offline", False, "remote", "offline", "texts/s", 0.9, 2000),
]


def code_texts(count: int) -> list[str]:
    """Real chunks with their real mix of lengths, no two alike: every so-many-th of the installed networkx."""
    import importlib.util

    from c2llm_integrations.code.chunking import chunk_source
    from c2llm_integrations.code.repository import iter_sources, open_tree

    tree = open_tree(Path(importlib.util.find_spec("networkx").origin).parent)  # type: ignore[union-attr,arg-type]
    chunks = (chunk for s in iter_sources(tree) for chunk in chunk_source(tree.name, s.path, s.text))
    texts = list(dict.fromkeys(chunk.text for chunk in chunks))
    return texts[:: max(1, len(texts) // count)][:count]


def amount(row: Row, model: str, texts: Sequence[str]) -> float:
    """How much of the row's unit one run computes."""
    if row.unit not in ("tokens/s", "TFLOP/s"):
        return float(len(texts))
    from c2llm_integrations.model.checkpoint import load_checkpoint

    checkpoint = load_checkpoint(model)
    found = checkpoint.tokenizer().encode_batch(list(texts), add_special_tokens=False)
    lengths = [min(len(encoding.ids), row.max_length) for encoding in found]
    if row.unit == "tokens/s":
        return float(sum(lengths))
    return flop(checkpoint.sizes, lengths) / 1e12


def flop(sizes: ModelConfig, lengths: Sequence[int]) -> float:
    """Floating-point operations of a Qwen2's layers for texts of so many tokens."""
    width, layers = sizes.hidden_size, sizes.num_hidden_layers
    keys = width // sizes.num_attention_heads * sizes.key_heads
    weights = layers * (2 * width * width + 2 * keys * width + 3 * width * sizes.intermediate_size)
    return float(sum(n * (2 * weights + 2 * layers * n * width) for n in lengths))


class Side:
    """A side in its process; `run` waits for one run of it."""

    def __init__(self, name: str, options: dict[str, Any], module: str = "benchmarks.speed_sides") -> None:
        command = [sys.executable, "-m", module, name]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.name = name
        self._ask(json.dumps(options))

    def run(self) -> dict[str, float]:
        return json.loads(self._ask("run"))  # type: ignore[no-any-return]

    def _ask(self, line: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(line, file=self._process.stdin, flush=True)
        answer = self._process.stdout.readline()
        if not answer:
            raise SystemExit(f"the side {self.name} ended with {self._process.wait()}")
        return answer

    def __enter__(self) -> Side:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()


def measure(row: Row, model: str, texts: Sequence[str], runs: int, limit: float) -> dict[str, Any]:
    """One line of the table; no turn begins later than `limit` seconds after the start."""
    work = amount(row, model, texts)
    options = {"model": model, "texts": list(texts), "max_length": row.max_length, "amount": work}
    begin, turns = time.perf_counter(), []
    with ExitStack() as stack:
        sides = [stack.enter_context(Side(name, options)) for name in (row.ours, row.other) if name]
        while len(turns) < runs and (not turns or time.perf_counter() - begin < limit):
            turns.append([side.run() for side in sides])
    values = [statistics.median(turn[n]["value"] for turn in turns) for n in range(len(sides))]
    ratio = statistics.median(turn[0]["value"] / turn[-1]["value"] for turn in turns) if row.other else None
    return {
        "row": row.name,
        "against": row.what,
        "unit": row.unit,
        "ours": values[0],
        "other": values[1] if row.other else "",
        "ratio": "" if ratio is None else ratio,
        "target": row.target,
        "reached": values[0] <= row.target if ratio is None else ratio >= row.target,
        "runs": len(turns),
        "texts": len(texts),
        "ours MB": "" if row.ours.startswith(("served", "remote")) else turns[-1][0]["peak_mb"],
        "other MB": turns[-1][1]["peak_mb"] if row.other else "",
        "date": time.strftime("%Y-%m-%d"),
    }


def picture(rows: Sequence[dict[str, Any]]) -> str:
    """Each row's share of its target."""
    shares = [
        (row["against"], row["target"] / row["ours"] if row["ratio"] == "" else row["ratio"] / row["target"])
        for row in rows
    ]
    return bars(shares, "The embedder's speed as a multiple of its target", target=1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=[row.name for row in ROWS], default=[row.name for row in ROWS])
    parser.add_argument("--texts", type=int, help="texts of a run, instead of each row's own number")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=5, help="of each row; at least one turn is taken")
    parser.add_argument("--tokenizer", type=Path, default=TOKENIZER, help="of the 0.5B")
    options = parser.parse_args()
    chosen, found = [row for row in ROWS if row.name in options.only], []
    with tempfile.TemporaryDirectory() as folder:
        if any(row.half_billion for row in chosen):
            make_checkpoint(Path(folder), options.tokenizer, "bfloat16")
        for row in chosen:
            texts = code_texts(options.texts or row.texts)
            model = folder if row.half_billion else "nano"
            found.append(measure(row, model, texts, options.runs, 60 * options.minutes))
            print(json.dumps(found[-1]), flush=True)
    rows = report("embedder_speed", found, keep="row")
    (RESULTS / "embedder_speed.svg").write_text(picture(rows))


if __name__ == "__main__":
    main()
