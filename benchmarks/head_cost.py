"""What a head for C2LLM-0.5B costs on a CPU: time and memory of `c2llm train-head` at 20,000 texts and 1,000 steps.

    python -m benchmarks.head_cost [--tokenizer TOKENIZER.JSON] [--computed 48] [--steps 10]

The checkpoint has the 0.5B's shape in the released layout and random weights; the texts are chunks and docstrings of
the installed `transformers`, cut at 512 tokens. Token states are really computed of some texts only, and the time for
all is theirs by tokens. Training runs for some steps only, but on a file of states (random numbers) of all texts, so
that its memory is that of the whole run; the time for all steps is the median step's. Each part is a process of its
own. Pages of the file of states count as its memory, although the system may take them back at any time; "own GB" is
without them. Results: results/head_cost.json.
"""

from __future__ import annotations

import argparse
import json
import sys
import sysconfig
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import process, report
from benchmarks.load_speed import Watch
from benchmarks.speed_sides import TOKENIZER, make_checkpoint

TEXTS, STEPS, WIDTH, LENGTH = 20_000, 1_000, 128, 512
AT_ONCE = 2**20  # random numbers made at once


def prepare(folder: Path, tokenizer: str) -> int:
    """Write the checkpoint, the texts and a file of states of them all; return the tokens."""
    from c2llm_integrations.model.checkpoint import load_checkpoint
    from c2llm_integrations.training.mine_pairs import own_texts
    from c2llm_integrations.training.token_state_cache import token_ids

    make_checkpoint(folder / "model", Path(tokenizer), "bfloat16")
    checkpoint = load_checkpoint(str(folder / "model"))
    texts = own_texts(checkpoint, [Path(sysconfig.get_paths()["purelib"]) / "transformers"], TEXTS)
    (folder / "texts.json").write_text(json.dumps(texts))
    ends = np.cumsum([len(ids) for ids, _ in token_ids(checkpoint, texts, LENGTH)])
    np.save(folder / "ends.npy", ends)
    shape = (int(ends[-1]), checkpoint.sizes.hidden_size)
    states = np.lib.format.open_memmap(folder / "states.npy", "w+", np.float16, shape).reshape(-1)
    some = np.random.default_rng(0).standard_normal(AT_ONCE).astype(np.float16)
    for begin in range(0, len(states), AT_ONCE):
        states[begin : begin + AT_ONCE] = some[: len(states) - begin]
    return shape[0]


def compute(folder: Path, count: str) -> dict[str, float]:
    """Token states of `count` texts, drawn evenly."""
    from c2llm_integrations.model.checkpoint import load_checkpoint
    from c2llm_integrations.training.token_state_cache import cache_states

    texts = json.loads((folder / "texts.json").read_text())[:: TEXTS // int(count)]
    begin = time.perf_counter()
    with Watch() as watch:
        states = cache_states(load_checkpoint(str(folder / "model")), texts, folder, max_length=LENGTH)
    return {"tokens": int(states.ends[-1]), "seconds": time.perf_counter() - begin, "own GB": watch.peak / 2**10}


def train(folder: Path, steps: str) -> dict[str, float]:
    """`steps` steps on all texts, and what comes before the first."""
    from c2llm_integrations.model.checkpoint import load_checkpoint
    from c2llm_integrations.training.head import train_head
    from c2llm_integrations.training.options import HeadOptions
    from c2llm_integrations.training.token_state_cache import TokenStates

    states = TokenStates(np.load(folder / "states.npy", mmap_mode="r"), np.load(folder / "ends.npy"), 0)
    times = [time.perf_counter()]
    groups, recipe = [[row] for row in range(len(states.ends))], HeadOptions(WIDTH, int(steps))
    checkpoint = load_checkpoint(str(folder / "model"))
    with Watch() as watch:
        train_head(checkpoint, states, groups, recipe, lambda *_: times.append(time.perf_counter()))
    each = float(np.median(np.diff(times[1:])))
    return {"before": times[1] - times[0] - each, "each": each, "own GB": watch.peak / 2**10}


def part(name: str, folder: str, value: object) -> tuple[Any, float]:
    """Run one part in a process of its own, which begins with no memory of another's; what it found and its peak GB."""
    done = process(sys.executable, "-m", "benchmarks.head_cost", "--part", name, folder, str(value))
    found = json.loads(done["output"].splitlines()[-1])
    print(name, found, f"{done['peak_mb'] / 1024:.2f} GB", flush=True)
    return found, done["peak_mb"] / 1024


def rows_of(folder: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """What all texts and all steps cost."""
    tokens, _ = part("prepare", folder, options.tokenizer)
    computed, highest = part("compute", folder, options.computed)
    speed = computed["tokens"] / computed["seconds"]
    states = {
        "part": f"token states of {TEXTS:,} texts, {tokens:,} tokens",
        "measured": f"{options.computed} texts, {speed:.0f} tokens/s",
        "hours": tokens / speed / 3600,
        "peak GB": highest,
        "own GB": computed["own GB"],
    }
    trained, highest = part("train", folder, options.steps)
    steps = {
        "part": f"{STEPS:,} steps to {WIDTH} dimensions",
        "measured": f"{options.steps} steps",
        "hours": (trained["before"] + STEPS * trained["each"]) / 3600,
        "peak GB": highest,
        "own GB": trained["own GB"],
    }
    return [states, steps]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", type=Path, default=TOKENIZER, help="of the 0.5B")
    parser.add_argument("--computed", type=int, default=48, help="texts whose states are computed")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--part", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        name, folder, value = options.part
        print(json.dumps({"prepare": prepare, "compute": compute, "train": train}[name](Path(folder), value)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        report("head_cost", rows_of(temporary, options))


if __name__ == "__main__":
    main()
