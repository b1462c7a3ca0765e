"""The contrastive loop: (query, code) pairs → a C2LLM encoder; repeatable by its seed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.nano_recipe.data import TokenizedPairs
from c2llm_integrations.model.hf_model import C2LLMModel

TEMPERATURE = 0.05  # as published for C2LLM
REPORT_SECONDS = 300  # a report saves and measures the model, which takes 20 of them


@dataclass(frozen=True)
class Recipe:
    """What decides a training run; `minutes` only cuts it short, so a run that `steps` ended can be repeated."""

    steps: int = 1400
    minutes: float = math.inf
    batch: int = 256
    lr: float = 3e-4
    pma_lr: float = 1e-3
    warmup: int = 150
    grouped: float = 0.4
    seed: int = 0
    query_length: int = 48
    lengths: tuple[int, ...] = (96, 96, 128, 128, 256)
    budget: int = 1536


def info_nce(queries: Tensor, documents: Tensor) -> Tensor:
    """Symmetric InfoNCE over in-batch negatives of (n, d) unnormalised vectors, row i of each belonging together."""
    scores = F.normalize(queries.float(), dim=1) @ F.normalize(documents.float(), dim=1).T / TEMPERATURE
    target = torch.arange(len(scores), device=scores.device)
    return (F.cross_entropy(scores, target) + F.cross_entropy(scores.T, target)) / 2


def plan(lengths: Sequence[int], budget: int) -> list[np.ndarray]:
    """Row numbers in batches of like length, each of at most `budget` padded tokens (or one row), longest first."""
    order = np.argsort([-length for length in lengths], kind="stable")
    parts, start = [], 0
    while start < len(order):
        size = max(1, budget // max(1, lengths[order[start]]))
        parts.append(order[start : start + size])
        start += size
    return parts


def encode(model: C2LLMModel, texts: Sequence[np.ndarray]) -> Tensor:
    """(n, d) vectors of token-id arrays, in one padded batch."""
    longest = max(1, max(map(len, texts)))
    ids = torch.zeros(len(texts), longest, dtype=torch.long)
    mask = torch.zeros(len(texts), longest, dtype=torch.long)
    for row, text in enumerate(texts):
        ids[row, : len(text)] = torch.from_numpy(text.astype(np.int64))
        mask[row, : max(1, len(text))] = 1
    vectors: Tensor = model(ids, mask).pooler_output
    return vectors


def contrast(
    model: C2LLMModel, queries: list[np.ndarray], documents: list[np.ndarray], budget: int, pool: Executor
) -> float:
    """Add the gradients of one batch and return its loss.

    Small batches run beside each other on single-threaded kernels: on a busy machine that is several times faster
    than two threads that wait for each other in every kernel.
    """
    texts = queries + documents
    parts = plan([len(text) for text in texts], budget)
    outputs = list(pool.map(lambda rows: encode(model, [texts[row] for row in rows]), parts))
    vectors = torch.empty(len(texts), outputs[0].shape[1])
    for rows, output in zip(parts, outputs, strict=True):
        vectors[torch.from_numpy(rows)] = output.detach().float()
    vectors.requires_grad_()
    loss = info_nce(vectors[: len(queries)], vectors[len(queries) :])
    loss.backward()
    assert vectors.grad is not None
    slopes = [vectors.grad[torch.from_numpy(rows)].to(outputs[0].dtype) for rows in parts]
    list(pool.map(lambda output, slope: output.backward(slope), outputs, slopes))
    return loss.item()


def batches(packages: np.ndarray, recipe: Recipe, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Endless batches of row numbers, each row once an epoch; a share of them of one or few packages (harder)."""
    while True:
        yield from epoch(rng.permutation(len(packages)), packages, recipe.batch, recipe.grouped, rng)


def epoch(rows: np.ndarray, packages: np.ndarray, batch: int, share: float, rng: np.random.Generator) -> np.ndarray:
    """(batches, batch): rows in batches, a share of them package by package; those that fill no batch are left out."""
    grouped = rng.random(len(rows)) < share
    shuffled = rng.permutation(packages.max() + 1)
    together = rows[grouped][np.argsort(shuffled[packages[rows[grouped]]], kind="stable")]
    whole = [part[: len(part) // batch * batch] for part in (rows[~grouped], together)]
    stacked = np.concatenate(whole).reshape(-1, batch)
    return stacked[rng.permutation(len(stacked))]


class MixedAdamW:
    """AdamW on float32 masters of a bfloat16 model, without which small updates would round to nothing."""

    def __init__(self, groups: Sequence[tuple[list[nn.Parameter], float, float]]) -> None:
        """`groups`: parameters, peak rate, weight decay."""
        self.live = [one for parameters, _, _ in groups for one in parameters]
        self.masters = [one.detach().float().clone() for one in self.live]
        copies = iter(self.masters)
        made = [
            {"params": [next(copies) for _ in parameters], "lr": lr, "peak": lr, "weight_decay": decay}
            for parameters, lr, decay in groups
        ]
        self.adamw = torch.optim.AdamW(made, betas=(0.9, 0.98))

    def step(self, scale: float) -> None:
        """One update at `scale` times the peak rates, gradients clipped to norm 1."""
        for master, parameter in zip(self.masters, self.live, strict=True):
            master.grad = None if parameter.grad is None else parameter.grad.float()
            parameter.grad = None
        nn.utils.clip_grad_norm_(self.masters, 1.0)
        for group in self.adamw.param_groups:
            group["lr"] = group["peak"] * scale
        self.adamw.step()
        with torch.no_grad():
            torch._foreach_copy_(self.live, self.masters)


def train(
    model: C2LLMModel,
    pairs: TokenizedPairs,
    recipe: Recipe,
    report: Callable[[int, float, float], None],
    threads: int = 2,
) -> int:
    """Train `model` (bfloat16) in place; `report(step, mean loss, tokens a second)` is called about every five minutes.

    Returns the number of steps done: fewer than asked for where the recipe's minutes ran out first.
    """
    torch.manual_seed(recipe.seed)
    rng = np.random.default_rng(recipe.seed)
    sides: dict[bool, list[nn.Parameter]] = {False: [], True: []}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            sides["mha_pma" in name].append(parameter)
    optimiser = MixedAdamW([(sides[False], recipe.lr, 0.01), (sides[True], recipe.pma_lr, 0.01)])
    draws = batches(pairs.packages, recipe, rng)
    started = last = time.monotonic()
    losses: list[float] = []
    tokens = 0
    model.train()
    pool = ThreadPoolExecutor(threads)
    step = 0
    while (progress := max(step / recipe.steps, (time.monotonic() - started) / (60 * recipe.minutes))) < 1:
        step += 1
        queries, documents = pairs.draw(next(draws), recipe.query_length, int(rng.choice(recipe.lengths)), rng)
        losses.append(contrast(model, queries, documents, recipe.budget, pool))
        optimiser.step(min(1.0, step / recipe.warmup) * 0.5 * (1 + math.cos(math.pi * progress)))
        tokens += sum(map(len, queries)) + sum(map(len, documents))
        if time.monotonic() - last > REPORT_SECONDS:
            report(step, float(np.mean(losses)), tokens / (time.monotonic() - last))
            losses, tokens, last = [], 0, time.monotonic()
            model.train()
    pool.shutdown()
    model.train(False)
    return step
