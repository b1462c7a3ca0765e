"""Token states → a head: only a PMA of a new width is trained, on a backbone that stays as it is.

It learns to see texts as the checkpoint's own PMA does (distillation: the softmax of each text's cosines with the
others of its batch is to be the same; where pairs say which are questions, only of questions with documents) and, from
pairs, a little to find the positive among the batch (InfoNCE). Measured with nano and one seed on the validation pairs
of `benchmarks.docstring_retrieval`, 64 of 256 dimensions, loss of nDCG@10 after 500 steps: all texts with all others
6.1 %, questions with documents 5.2 % (the sum of both 5.2 %), at a learning rate of 1e-2 instead of 3e-3 4.9 %, with a
tenth of InfoNCE besides 4.6 %; 1,500 steps at 3e-3 without it 4.6 % too. With the weights of nano that followed, at
1e-2 with that tenth, seed 0: 2,000 steps 2.8 %, 3,000 steps 2.9 %; 2,000 steps at 2e-2 2.8 %, with three tenths 2.9 %;
1,000 steps of twice the batch 3.0 %. Over three seeds 1,000 and 2,000 steps are alike: 3.2 and 3.3 %.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from c2llm_integrations.batching import batches
from c2llm_integrations.checkpoint import Checkpoint
from c2llm_integrations.errors import InputError
from c2llm_integrations.heads import Head
from c2llm_integrations.model.pma import PMA
from c2llm_integrations.progress import Progress
from c2llm_integrations.training.states import TokenStates

TEMPERATURE = 0.05  # as published for C2LLM's InfoNCE; distillation at 0.1 was no better
PART = 8192  # padded tokens pooled at once: bounds memory
SAMPLE = 512  # texts that decide the directions a head begins with


@dataclass(frozen=True)
class Recipe:
    """What decides a head's training; `contrast` weighs InfoNCE beside distillation, where there are pairs."""

    output_dim: int
    steps: int = 1000
    batch: int = 256
    lr: float = 1e-2
    warmup: int = 50
    contrast: float = 0.1
    seed: int = 0


def train_head(
    checkpoint: Checkpoint,
    states: TokenStates,
    groups: Sequence[Sequence[int]],
    recipe: Recipe,
    progress: Progress | None = None,
) -> tuple[Head, list[float]]:
    """Train a head on the cached states of texts and return it with the loss of each step.

    `groups`: rows of `states` that belong together: a text alone, or a query, its positive, and negatives. The same
    seed gives the same head. Raises InputError for fewer than two texts, a width the heads cannot share, or a loss
    that is NaN.
    """
    check_width(checkpoint, recipe.output_dim)
    if len(states.ends) < 2 or not groups:
        raise InputError(f"a head cannot be trained on {len(states.ends)} texts; give more code, or more pairs")
    with torch.no_grad():
        wanted = encode(pma_of(checkpoint), states, range(len(states.ends)))
    some = np.random.default_rng(recipe.seed).permutation(len(states.ends))[:SAMPLE].tolist()
    pma = start(checkpoint, recipe.output_dim, states, some, recipe.seed)
    optimiser = torch.optim.AdamW(pma.parameters(), lr=recipe.lr, weight_decay=0.01, betas=(0.9, 0.98))
    losses: list[float] = []
    for step, batch in zip(range(recipe.steps), _batches(groups, recipe), strict=False):
        loss = _loss(pma, states, batch, wanted, recipe)
        losses.append(loss.item())
        if not math.isfinite(losses[-1]):
            raise InputError(f"the loss is {losses[-1]} at step {step}; lower the learning rate from {recipe.lr}")
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(pma.parameters(), 1.0)
        falling = 0.5 * (1 + math.cos(math.pi * step / recipe.steps))
        optimiser.param_groups[0]["lr"] = recipe.lr * min(1.0, (step + 1) / recipe.warmup) * falling
        optimiser.step()
        if progress:
            progress(step + 1, recipe.steps, f"loss {losses[-1]:.4f}")
    about = {**asdict(recipe), "texts": len(states.ends), "groups": len(groups)}
    tensors = {f"pma.{name}": tensor.detach().clone() for name, tensor in pma.state_dict().items()}
    layer_norm = isinstance(pma.mab.ln0, torch.nn.LayerNorm)
    names = (checkpoint.name, checkpoint.revision, checkpoint.digest())
    return Head(tensors, pma.mab.num_heads, layer_norm, *names, json.dumps(about)), losses


def check_width(checkpoint: Checkpoint, output_dim: int) -> None:
    """Raise InputError for a width that the checkpoint's heads cannot share, or that is not below its own."""
    heads, width = int(checkpoint.config.get("pma_num_heads", 32)), checkpoint.output_dim
    if not 0 < output_dim < width or output_dim % heads:
        raise InputError(
            f"a head of {output_dim} dimensions cannot be trained for {checkpoint.name}; "
            f"choose a multiple of its {heads} heads below its {width}"
        )


def _loss(pma: PMA, states: TokenStates, batch: list[Sequence[int]], wanted: Tensor, recipe: Recipe) -> Tensor:
    rows = list(dict.fromkeys(row for group in batch for row in group))
    place = {row: number for number, row in enumerate(rows)}
    own = encode(pma, states, rows)
    pairs = [[place[row] for row in group] for group in batch if len(group) > 1]
    if not pairs:
        return distillation(own, wanted[rows])
    documents = list(dict.fromkeys(row for group in pairs for row in group[1:]))
    loss = ranking_distillation(own, wanted[rows], [group[0] for group in pairs], documents)
    return loss + recipe.contrast * contrast(own, pairs) if recipe.contrast else loss


def _batches(groups: Sequence[Sequence[int]], recipe: Recipe) -> Iterator[list[Sequence[int]]]:
    """Endless batches of about `recipe.batch` queries with their texts, or twice as many texts, each once an epoch."""
    rng = np.random.default_rng(recipe.seed)
    size = recipe.batch if any(len(group) > 1 for group in groups) else 2 * recipe.batch
    waiting: list[int] = []
    while True:
        while len(waiting) < min(size, max(2, len(groups))):
            waiting += rng.permutation(len(groups)).tolist()
        yield [groups[number] for number in waiting[:size]]
        waiting = waiting[size:]


def pooled(pma: PMA, states: Tensor, mask: Tensor) -> Tensor:
    """`pma(states, mask)`, (n, T, D) and (n, T) → (n, d), without ever building keys and values.

    The query is the same for all texts, so scores need one vector of D numbers a head, and values only the mixed
    states: `num_heads` columns of work for each token instead of twice the width.
    """
    scorer, query, values = folded(pma)
    block = pma.mab
    added = torch.einsum("nhd,hwd->nhw", mix(scorer, states, mask), values).flatten(1) + block.fc_v.bias
    first = block.ln0(query + added)
    return block.ln1(first + F.relu(block.fc_o(first)))  # type: ignore[no-any-return]


def folded(pma: PMA) -> tuple[Tensor, Tensor, Tensor]:
    """What scores a state (h, D), the projected seed (d,), and each head's value matrix (h, d / h, D)."""
    block, width = pma.mab, pma.S.shape[-1]
    shape = (block.num_heads, width // block.num_heads, -1)
    query = block.fc_q(pma.S).flatten()
    scorer = torch.einsum("hwd,hw->hd", block.fc_k.weight.view(shape), query.view(shape[:2])) * width**-0.5
    return scorer, query, block.fc_v.weight.view(shape)


def mix(scorer: Tensor, states: Tensor, mask: Tensor) -> Tensor:
    """(h, D), (n, T, D), (n, T) → (n, h, D): the states as each head's attention mixes them."""
    scores = (states @ scorer.T).masked_fill(~mask[:, :, None], -math.inf)
    return scores.softmax(1).transpose(1, 2) @ states


def pma_of(checkpoint: Checkpoint) -> PMA:
    """The PMA of a checkpoint, or of the head in its place; float32."""
    layer_norm = bool(checkpoint.config.get("pma_ln", True))
    heads = int(checkpoint.config.get("pma_num_heads", 32))
    pma = PMA(int(checkpoint.backbone["hidden_size"]), checkpoint.output_dim, heads, layer_norm)
    tensors = checkpoint.tensors()
    pma.load_state_dict({name[4:]: tensor.float() for name, tensor in tensors.items() if name.startswith("pma.")})
    return pma


def encode(pma: PMA, states: TokenStates, rows: Sequence[int]) -> Tensor:
    """(len(rows), d) unit vectors of some texts."""
    return F.normalize(_by_parts(states, rows, lambda *part: pooled(pma, *part)), dim=1)


def _by_parts(states: TokenStates, rows: Sequence[int], compute: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """What `compute` gives for the states and mask of each of some texts; few are padded at once."""
    parts = list(batches(states.lengths[np.asarray(rows)].tolist(), PART, padded=True))
    found = torch.cat([compute(*states.padded([rows[place] for place in part])) for part in parts])
    order = torch.empty(len(rows), dtype=torch.long)
    order[torch.tensor([place for part in parts for place in part])] = torch.arange(len(rows))
    return found[order]


def distillation(own: Tensor, wanted: Tensor) -> Tensor:
    """Mean Kullback-Leibler divergence of each text's softmax of cosines with the others, (n, d) and (n, D) unit rows.

    Zero if and only if all differences of a text's cosines are those of `wanted`.
    """
    itself = torch.eye(len(own), dtype=torch.bool)
    return _divergence(*((rows @ rows.T).masked_fill(itself, -1e9) for rows in (own, wanted)))


def ranking_distillation(own: Tensor, wanted: Tensor, questions: Sequence[int], documents: Sequence[int]) -> Tensor:
    """The same of each question's cosines with the documents and each document's with the questions, their mean.

    How questions lie among themselves, and documents, never decides an answer, and few dimensions are spared for it.
    """
    found, aim = (rows[list(questions)] @ rows[list(documents)].T for rows in (own, wanted))
    return (_divergence(found, aim) + _divergence(found.T, aim.T)) / 2


def _divergence(cosines: Tensor, wanted: Tensor) -> Tensor:
    own, aim = ((rows / TEMPERATURE).log_softmax(1) for rows in (cosines, wanted))
    return F.kl_div(own, aim, reduction="batchmean", log_target=True)


def contrast(own: Tensor, groups: Sequence[Sequence[int]]) -> Tensor:
    """InfoNCE of each group's first row (the query) with its second, against all other documents of the batch."""
    rows = torch.tensor([group[1] for group in groups] + [row for group in groups for row in group[2:]])
    scores = own[[group[0] for group in groups]] @ own[rows].T / TEMPERATURE
    target = torch.arange(len(groups))
    also = rows == rows[target][:, None]  # a positive that answers several queries of the batch is no negative
    also[target, target] = False
    return F.cross_entropy(scores.masked_fill(also, -1e9), target)


def start(checkpoint: Checkpoint, output_dim: int, states: TokenStates, rows: Sequence[int], seed: int) -> PMA:
    """A PMA that begins with the checkpoint's attention and, of each head's values, the directions that vary most.

    `rows`: the texts that decide the directions.
    """
    torch.manual_seed(seed)
    full = pma_of(checkpoint)
    heads = full.mab.num_heads
    pma = PMA(full.mab.fc_k.in_features, output_dim, heads, isinstance(full.mab.ln0, torch.nn.LayerNorm))
    scorer, query, values = (part.detach() for part in folded(full))
    mixed = _by_parts(states, rows, lambda *part: mix(scorer, *part))
    outputs = torch.einsum("nhd,hwd->hnw", mixed, values)  # each head's values
    outputs = outputs - outputs.mean(1, keepdim=True)
    _, directions = torch.linalg.eigh(outputs.transpose(1, 2) @ outputs)  # ascending: the last vary most
    kept = directions[:, :, -(output_dim // heads) :].transpose(1, 2)  # (h, output_dim / h, w)
    bias = full.mab.fc_v.bias.view(heads, -1)
    own_query = torch.einsum("hkw,hw->hk", kept, query.view(heads, -1)) + 1e-3
    with torch.no_grad():
        block = pma.mab
        torch.nn.init.orthogonal_(block.fc_q.weight)
        pma.S.copy_((own_query.flatten() @ block.fc_q.weight).view(1, 1, -1))
        # The one change of the keys that gives this query the scores of the full head's.
        keys = own_query[:, :, None] * scorer[:, None, :] / own_query.square().sum(1)[:, None, None]
        block.fc_k.weight.copy_(keys.flatten(0, 1) * output_dim**0.5)
        block.fc_v.weight.copy_(torch.einsum("hkw,hwd->hkd", kept, values).flatten(0, 1))
        block.fc_v.bias.copy_(torch.einsum("hkw,hw->hk", kept, bias).flatten())
        torch.nn.init.normal_(block.fc_o.weight, std=0.01)
        for linear in (block.fc_q, block.fc_k, block.fc_o):
            torch.nn.init.zeros_(linear.bias)
    return pma
