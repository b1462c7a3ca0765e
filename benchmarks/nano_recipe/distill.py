"""For the next nano: students of six and of three layers learn from pairs and from teachers, on one large GPU.

    python -m benchmarks.nano_recipe.distill TOKENS --base MINILM --out FOLDER [--minutes 3]

`TOKENS` is what `benchmarks.nano_recipe.shards` made of the pairs that `benchmarks.nano_recipe.nano` mines. The student
of six layers begins as all of the base model under nano's vocabulary, that of three as nano. Both learn by InfoNCE over
the pairs of a batch, and by the divergence from a weighted sum of the cosines of nano, of the mean of its states and of
the base model, which finds more than each; the smaller one then more and more from the larger. Narrower heads learn
beside them from states that they do not change. Not run to its end yet: docs/experiments.md.
"""

from __future__ import annotations

import argparse
import copy
import gzip
import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.bert import BertConfig, BertModel

from benchmarks.docstring_retrieval import VALIDATION
from benchmarks.nano_recipe.nano import build_model, save
from benchmarks.nano_recipe.packed import Packed, bert, cosines, entropy, mean, pack, pool
from benchmarks.nano_recipe.pieces import KINDS
from benchmarks.nano_recipe.shards import Corpus, load_corpus
from benchmarks.nano_recipe.train import MixedAdamW, epoch
from c2llm_integrations.model.checkpoint import NANO
from c2llm_integrations.model.hf_model import C2LLMModel
from c2llm_integrations.model.pma import PMA

CLS, SEP = 101, 102  # what the base model's texts are put between
TEMPERATURE = 0.05  # of InfoNCE, as published for C2LLM
SHARPNESS = 30  # what a student's cosines are multiplied by before they are held against the teachers' sum
WIDTHS = (128, 64, 32)


@dataclass(frozen=True)
class Recipe:
    """What decides a run; its schedule follows `minutes` or `steps`, whichever ends first.

    `grouped`: the share of batches drawn from few packages; `python`: the share of Python's pairs in an epoch.
    """

    minutes: float = 3.0
    steps: int = 10**9
    batch: int = 1024
    lr: float = 2e-4
    six_lr: float = 3e-4
    pma_lr: float = 1e-3
    head_lr: float = 3e-3
    warmup: int = 60
    grouped: float = 0.5
    python: float = 0.6
    query_length: int = 48
    lengths: tuple[int, ...] = (128, 256, 256, 512)
    seed: int = 0


def batches(corpus: Corpus, recipe: Recipe, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield rows of pairs without end."""
    while True:
        rows = rng.permutation(len(corpus.packages))
        rows = rows[~corpus.python[rows] | (rng.random(len(rows)) < recipe.python)]
        yield from epoch(rows, corpus.packages, recipe.batch, recipe.grouped, rng)


def contrast(scores: Tensor, same: Tensor) -> Tensor:
    """Symmetric InfoNCE of (n, n) scores; what is `same`, beside the diagonal, is no negative."""
    target = torch.arange(len(scores), device=scores.device)
    hidden = scores.masked_fill(same, -1e9)
    return (F.cross_entropy(hidden, target) + F.cross_entropy(hidden.T, target)) / 2


def divergence(own: Tensor, wanted: Tensor) -> Tensor:
    """Kullback-Leibler divergence of each question's softmax over the texts, and each text's over the questions."""
    ways = [
        F.kl_div(found.log_softmax(1), aim.log_softmax(1), reduction="batchmean", log_target=True)
        for found, aim in ((own, wanted), (own.T, wanted.T))
    ]
    return (ways[0] + ways[1]) / 2


class Teachers:
    """nano, the mean of its states, and the base model: for packed texts (n, n) logits."""

    def __init__(self, base: Path, device: torch.device) -> None:
        self.nano = C2LLMModel.from_pretrained(NANO, dtype=torch.bfloat16).to(device)
        whole = BertModel(BertConfig.from_json_file(base / "config.json"), add_pooling_layer=False)
        whole.load_state_dict(load_file(base / "model.safetensors"), strict=False)
        self.base = whole.to(device, torch.bfloat16)

    @torch.no_grad()
    def __call__(self, own: Packed, other: Packed) -> Tensor:
        """The same texts by nano's tokens and by the base model's."""
        states = bert(self.nano.backbone, own)
        found = 13 * cosines(pool(self.nano.mha_pma, states, own)) + 14 * cosines(mean(states, own))
        return found + 10 * cosines(mean(bert(self.base, other), other))


class Student:
    """A model and the narrower heads that learn beside it, in bfloat16."""

    def __init__(self, name: str, base: Path, recipe: Recipe, device: torch.device) -> None:
        torch.manual_seed(recipe.seed)
        self.name = name
        self.model = three_layers() if name == "three" else six_layers(base)
        with torch.no_grad():  # scores, which are divided by the full width, begin where a gradient moves them
            self.model.mha_pma.mab.fc_k.weight.mul_(8)
        self.heads = nn.ModuleList(new_head(self.model, width) for width in WIDTHS)
        self.model.to(device, torch.bfloat16)
        self.heads.to(device, torch.bfloat16)
        rest, pma, seed = [], [], []
        for key, one in self.model.named_parameters():
            is_seed = key.startswith(("mha_pma.S", "mha_pma.mab.fc_q"))
            (seed if is_seed else pma if key.startswith("mha_pma") else rest).append(one)
        lr = recipe.lr if name == "three" else recipe.six_lr
        self.own = MixedAdamW([(rest, lr, 0.01), (pma, recipe.pma_lr, 0.01), (seed, recipe.pma_lr, 0.0)])
        self.narrow = MixedAdamW([(list(self.heads.parameters()), recipe.head_lr, 0.01)])

    def learn(self, texts: Packed, wanted: Tensor, same: Tensor, scale: float) -> tuple[Tensor, Tensor]:
        """One step; return InfoNCE and divergence, (2,), and the cosines, (n, n)."""
        states = bert(self.model.backbone, texts)
        found = cosines(pool(self.model.mha_pma, states, texts))
        losses = torch.stack([contrast(found / TEMPERATURE, same), divergence(found * SHARPNESS, wanted)])
        total, kept, aim = losses.sum(), states.detach(), found.detach() / TEMPERATURE
        for head in self.heads:
            narrow = cosines(pool(head, kept, texts)) / TEMPERATURE
            total = total + divergence(narrow, aim) + 0.1 * contrast(narrow, same)
        total.backward()
        self.own.step(scale)
        self.narrow.step(scale)
        return losses.detach(), found.detach()

    @torch.no_grad()
    def look(self, texts: Packed) -> tuple[list[float], float]:
        """nDCG@10 of pairs, by the model and by each head, and how evenly the model attends (see `entropy`)."""
        states = bert(self.model.backbone, texts)
        return [ndcg(pool(pma, states, texts)) for pma in (self.model.mha_pma, *self.heads)], entropy(
            self.model.mha_pma, states, texts
        )

    def write(self, folder: Path) -> None:
        """Write the released layout, and the heads' bare tensors beside it."""
        masters = dict(
            zip(map(id, self.own.live + self.narrow.live), self.own.masters + self.narrow.masters, strict=True)
        )
        model = copy.deepcopy(self.model).float().cpu()
        for copied, live in zip(model.parameters(), self.model.parameters(), strict=True):
            copied.data = masters[id(live)].detach().cpu()
        save(model, nano_tokenizer(), folder)
        for width, head in zip(WIDTHS, self.heads, strict=True):
            tensors = {f"pma.{name}": masters[id(one)].detach().half().cpu() for name, one in head.named_parameters()}
            save_file(tensors, folder / f"pma-{width}.safetensors")


def three_layers() -> C2LLMModel:
    """Return nano as it is."""
    return C2LLMModel.from_pretrained(NANO, dtype=torch.float32)  # type: ignore[no-any-return]


def six_layers(base: Path) -> C2LLMModel:
    """Return all layers of the base model under nano's vocabulary."""
    model = build_model(nano_tokenizer(), base, range(6))
    nn.init.normal_(model.mha_pma.S, std=0.1)
    return model


def new_head(model: C2LLMModel, width: int) -> PMA:
    """Return a narrower PMA that begins as a random projection of the mean."""
    full = model.mha_pma.mab
    head = PMA(full.fc_k.in_features, width, full.num_heads)
    nn.init.normal_(head.S, std=0.1)
    for linear in (head.mab.fc_q, head.mab.fc_k, head.mab.fc_v, head.mab.fc_o):
        nn.init.orthogonal_(linear.weight)
        nn.init.zeros_(linear.bias)
    nn.init.normal_(head.mab.fc_o.weight, std=0.01)
    return head


def nano_tokenizer() -> Tokenizer:
    """Return the tokenizer that both students keep."""
    return Tokenizer.from_file(str(NANO / "tokenizer.json"))


def held_out(file: Path, device: torch.device) -> Packed:
    """Return pairs of packages that training never sees, questions first."""
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    found = nano_tokenizer().encode_batch_fast(
        [row[side] for side in ("doc", "bare") for row in rows], add_special_tokens=False
    )
    ids = [encoding.ids[:512] or [0] for encoding in found]
    lengths = np.array(list(map(len, ids)))
    parts = np.zeros((len(ids), 4), np.int64)
    parts[:, 0], parts[:, 1] = np.cumsum(lengths) - lengths, lengths
    return pack(torch.from_numpy(np.concatenate(ids)).to(device), parts)


def ndcg(vectors: Tensor) -> float:
    """nDCG@10 of (2n, d) vectors, questions first, each with one right answer."""
    found = cosines(vectors)
    rank = (found >= found.diagonal()[:, None]).sum(1)
    return round(float(torch.where(rank <= 10, 1 / (rank + 1.0).log2(), 0).mean()), 4)


def train(corpus: Corpus, students: Sequence[Student], teachers: Teachers, recipe: Recipe, watch: Watch) -> None:
    """Train all students on the same batches."""
    rng = np.random.default_rng(recipe.seed)
    flats = [torch.from_numpy(table.flat.astype(np.int32)).to(watch.device) for table in (corpus.own, corpus.other)]
    kinds, shares = list(KINDS), np.array(list(KINDS.values()))
    start, step = time.monotonic(), 0
    for rows in batches(corpus, recipe, rng):
        progress = max(step / recipe.steps, (time.monotonic() - start) / (60 * recipe.minutes))
        if progress >= 1:
            break
        step += 1
        kind, length = kinds[rng.choice(len(kinds), p=shares)], int(rng.choice(recipe.lengths))
        if "body" in kind:
            rows = rows[corpus.own.heads[rows] > 0]
        own = pack(flats[0], corpus.own.draw(kind, rows, recipe.query_length, length))
        other = corpus.other.draw(kind, rows, recipe.query_length, length - 2)
        wanted = teachers(own, pack(flats[1], other, (CLS, SEP)))
        group = torch.from_numpy(corpus.names[rows] if kind == "name" else rows).to(watch.device)
        same = (group[:, None] == group).fill_diagonal_(False)
        scale = min(1.0, step / recipe.warmup) * 0.5 * (1 + math.cos(math.pi * progress))
        for student in students:
            losses, found = student.learn(own, wanted, same, scale)
            watch.add(student.name, losses)
            if student.name == "six":
                wanted = (1 - progress / 2) * wanted + progress / 2 * SHARPNESS * found
        watch.report(step, students, len(own.ids))
    print(f"{step} steps in {time.monotonic() - start:.1f} s", flush=True)


class Watch:
    """Prints how a run goes, every so many seconds."""

    def __init__(self, every: float, pairs: Packed) -> None:
        self.every, self.pairs, self.device = every, pairs, pairs.ids.device
        self.last, self.tokens = time.monotonic(), 0
        self.losses: dict[str, list[Tensor]] = {}

    def add(self, name: str, losses: Tensor) -> None:
        """Keep a step's losses, on their device."""
        self.losses.setdefault(name, []).append(losses)

    def report(self, step: int, students: Sequence[Student], tokens: int, now: bool = False) -> None:
        """Print, if it is time."""
        self.tokens += tokens
        took = time.monotonic() - self.last
        if not now and took < self.every:
            return
        for student in students:
            scores, even = student.look(self.pairs)
            means = [round(one, 3) for one in torch.stack(self.losses[student.name]).mean(0).tolist()]
            print(f"{step} {student.name}: nDCG@10 {scores}, losses {means}, entropy {even:.4f}", flush=True)
        print(f"{self.tokens / took:,.0f} tokens/s", flush=True)
        self.losses, self.tokens, self.last = {}, 0, time.monotonic()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tokens", type=Path)
    parser.add_argument("--base", type=Path, required=True, help="folder of all-MiniLM-L6-v2")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=Recipe.minutes)
    parser.add_argument("--steps", type=int, default=Recipe.steps)
    parser.add_argument("--batch", type=int, default=Recipe.batch)
    parser.add_argument("--report", type=float, default=20, help="seconds between two looks at the validation pairs")
    parser.add_argument("--validation", type=Path, default=VALIDATION)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--students", nargs="+", choices=("six", "three"), default=["six", "three"])
    options = parser.parse_args()
    device = torch.device(options.device)
    recipe = Recipe(minutes=options.minutes, steps=options.steps, batch=options.batch)
    corpus = load_corpus(options.tokens)
    print(f"{len(corpus.names):,} pairs, {len(corpus.own.flat):,} tokens; {recipe}", flush=True)
    students = [Student(name, options.base, recipe, device) for name in options.students]
    watch = Watch(options.report, held_out(options.validation, device))
    for student in students:
        print(f"{student.name} at first: {student.look(watch.pairs)}", flush=True)
    train(corpus, students, Teachers(options.base, device), recipe, watch)
    for student in students:
        student.write(options.out / student.name)
        print(f"{student.name}: {student.look(watch.pairs)}", flush=True)


if __name__ == "__main__":
    main()
