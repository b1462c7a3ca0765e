"""Train a head on token states: a PMA of a new width, on a backbone that stays as it is.

It learns by distillation from the checkpoint's own PMA: the softmax of each text's cosines with the rest of its batch
shall be the same. With pairs, only the cosines of questions with documents count, which loses less than all with all,
and the head also learns a little to find the positive among the batch (InfoNCE).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from c2llm_integrations._utils.progress import Progress
from c2llm_integrations.errors import InputError
from c2llm_integrations.model.batch_scheduler import plan_batches
from c2llm_integrations.model.checkpoint import Checkpoint
from c2llm_integrations.model.heads_and_projections import Head
from c2llm_integrations.model.pma import PMA, FoldedPMA
from c2llm_integrations.training.options import HeadOptions
from c2llm_integrations.training.token_state_cache import TokenStates

TEMPERATURE = 0.05  # as published for C2LLM's InfoNCE; distillation at 0.1 was no better
PART_TOKENS = 8192  # pooled at once, padding included: bounds memory
SAMPLE_TEXTS = 512  # texts that decide the directions a head begins with


def train_head(
    checkpoint: Checkpoint,
    states: TokenStates,
    groups: Sequence[Sequence[int]],
    options: HeadOptions,
    progress: Progress | None = None,
) -> tuple[Head, list[float]]:
    """Train a head on the cached states of texts and return it with the loss of each step.

    Args:
        checkpoint: The model whose pooling is trained anew.
        states: The backbone's states of the texts.
        groups: Rows of `states` that belong together: a text alone, or a query, its positive, and negatives.
        options: How to train; the same seed gives the same head.
        progress: Called with (steps done, steps, loss).

    Raises:
        InputError: There are fewer than two texts, the heads cannot share the width, or the loss is NaN.

    """
    check_width(checkpoint, options.output_dim)
    if len(states.ends) < 2 or not groups:
        raise InputError(f"a head cannot be trained on {len(states.ends)} texts; give more code, or more pairs")
    with torch.no_grad():
        wanted = encode(pma_of(checkpoint), states, range(len(states.ends)))
    some = np.random.default_rng(options.seed).permutation(len(states.ends))[:SAMPLE_TEXTS].tolist()
    pma = start(checkpoint, options.output_dim, states, some, options.seed)
    optimizer = torch.optim.AdamW(pma.parameters(), lr=options.lr, weight_decay=0.01, betas=(0.9, 0.98))
    losses: list[float] = []
    for step, batch in zip(range(options.steps), _batches(groups, options), strict=False):
        loss = _loss(pma, states, batch, wanted, options)
        losses.append(loss.item())
        if not math.isfinite(losses[-1]):
            raise InputError(f"the loss is {losses[-1]} at step {step}; lower the learning rate from {options.lr}")
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(pma.parameters(), 1.0)
        falling = 0.5 * (1 + math.cos(math.pi * step / options.steps))
        optimizer.param_groups[0]["lr"] = options.lr * min(1.0, (step + 1) / options.warmup) * falling
        optimizer.step()
        if progress:
            progress(step + 1, options.steps, f"loss {losses[-1]:.4f}")
    about = {**asdict(options), "texts": len(states.ends), "groups": len(groups)}
    tensors = {f"pma.{name}": tensor.detach().clone() for name, tensor in pma.state_dict().items()}
    layer_norm = isinstance(pma.mab.ln0, torch.nn.LayerNorm)
    names = (checkpoint.name, checkpoint.revision, checkpoint.digest())
    return Head(tensors, pma.mab.num_heads, layer_norm, *names, json.dumps(about)), losses


def check_width(checkpoint: Checkpoint, output_dim: int) -> None:
    """Raise InputError for a width that the checkpoint's heads cannot share, or that is not below its own."""
    heads, width = checkpoint.sizes.pma_num_heads, checkpoint.output_dim
    if not 0 < output_dim < width or output_dim % heads:
        raise InputError(
            f"a head of {output_dim} dimensions cannot be trained for {checkpoint.name}; "
            f"choose a multiple of its {heads} heads, below its width of {width}"
        )


def _loss(pma: PMA, states: TokenStates, batch: list[Sequence[int]], wanted: Tensor, options: HeadOptions) -> Tensor:
    rows = list(dict.fromkeys(row for group in batch for row in group))
    place = {row: number for number, row in enumerate(rows)}
    own = encode(pma, states, rows)
    pairs = [[place[row] for row in group] for group in batch if len(group) > 1]
    if not pairs:
        return distillation(own, wanted[rows])
    documents = list(dict.fromkeys(row for group in pairs for row in group[1:]))
    loss = ranking_distillation(own, wanted[rows], [group[0] for group in pairs], documents)
    return loss + options.contrast * contrast(own, pairs) if options.contrast else loss


def _batches(groups: Sequence[Sequence[int]], options: HeadOptions) -> Iterator[list[Sequence[int]]]:
    """Yield batches of about `options.batch` queries with their texts, or of twice as many texts, without end."""
    rng = np.random.default_rng(options.seed)
    size = options.batch if any(len(group) > 1 for group in groups) else 2 * options.batch
    waiting: list[int] = []
    while True:
        while len(waiting) < min(size, max(2, len(groups))):
            waiting += rng.permutation(len(groups)).tolist()
        yield [groups[number] for number in waiting[:size]]
        waiting = waiting[size:]


def pma_of(checkpoint: Checkpoint) -> PMA:
    """Return the PMA of a checkpoint, or of the head in its place; float32."""
    sizes = checkpoint.sizes
    return PMA.from_tensors(checkpoint.tensors(), sizes.pma_num_heads, sizes.pma_layer_norm)


def encode(pma: PMA, states: TokenStates, rows: Sequence[int]) -> Tensor:
    """Return the unit vectors of some texts, (len(rows), d)."""
    return F.normalize(_by_parts(states, rows, FoldedPMA(pma)), dim=1)


def _by_parts(states: TokenStates, rows: Sequence[int], compute: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Return what `compute` returns for the states and mask of some texts; few are padded at once."""
    parts = list(plan_batches(states.lengths[np.asarray(rows)].tolist(), PART_TOKENS, padded=True))
    found = torch.cat([compute(*states.padded([rows[place] for place in part])) for part in parts])
    return found[torch.tensor([place for part in parts for place in part]).argsort()]


def distillation(own: Tensor, wanted: Tensor) -> Tensor:
    """Return the mean Kullback-Leibler divergence of each text's softmax of cosines with all other texts.

    The rows, (n, d) and (n, D), have unit length. Zero if and only if all differences of a
    text's cosines are those of `wanted`.
    """
    itself = torch.eye(len(own), dtype=torch.bool)
    return _divergence(*((rows @ rows.T).masked_fill(itself, -1e9) for rows in (own, wanted)))


def ranking_distillation(own: Tensor, wanted: Tensor, questions: Sequence[int], documents: Sequence[int]) -> Tensor:
    """Return that divergence for each question's cosines with the documents, and each document's with the questions.

    Cosines among questions, or among documents, never decide an answer, so no dimensions are spent on them.
    """
    found, aim = (rows[list(questions)] @ rows[list(documents)].T for rows in (own, wanted))
    return (_divergence(found, aim) + _divergence(found.T, aim.T)) / 2


def _divergence(cosines: Tensor, wanted: Tensor) -> Tensor:
    own, aim = ((rows / TEMPERATURE).log_softmax(1) for rows in (cosines, wanted))
    return F.kl_div(own, aim, reduction="batchmean", log_target=True)


def contrast(own: Tensor, groups: Sequence[Sequence[int]]) -> Tensor:
    """Return the InfoNCE of each group's first row (the query) with its second, against the batch's documents."""
    rows = torch.tensor([group[1] for group in groups] + [row for group in groups for row in group[2:]])
    scores = own[[group[0] for group in groups]] @ own[rows].T / TEMPERATURE
    target = torch.arange(len(groups))
    also = rows == rows[target][:, None]  # a positive that answers several queries of the batch is not a negative
    also[target, target] = False
    return F.cross_entropy(scores.masked_fill(also, -1e9), target)


def start(checkpoint: Checkpoint, output_dim: int, states: TokenStates, rows: Sequence[int], seed: int) -> PMA:
    """Return a PMA with the checkpoint's attention and, of each head's values, the directions that vary most.

    `rows`: the texts that decide the directions.
    """
    torch.manual_seed(seed)
    full = pma_of(checkpoint)
    folded = FoldedPMA(full)
    heads = full.mab.num_heads
    pma = PMA(full.mab.fc_k.in_features, output_dim, heads, isinstance(full.mab.ln0, torch.nn.LayerNorm))
    outputs = folded.head_values(_by_parts(states, rows, folded.mix)).transpose(0, 1)  # (h, n, w)
    outputs = outputs - outputs.mean(1, keepdim=True)
    _, directions = torch.linalg.eigh(outputs.transpose(1, 2) @ outputs)  # ascending: the last vary most
    kept = directions[:, :, -(output_dim // heads) :].transpose(1, 2)  # (h, output_dim / h, w)
    bias = full.mab.fc_v.bias.view(heads, -1)
    own_query = torch.einsum("hkw,hw->hk", kept, folded.query.view(heads, -1)) + 1e-3
    with torch.no_grad():
        block = pma.mab
        torch.nn.init.orthogonal_(block.fc_q.weight)
        pma.S.copy_((own_query.flatten() @ block.fc_q.weight).view(1, 1, -1))
        # Change the keys so that this query gets the scores of the full head's.
        keys = own_query[:, :, None] * folded.scorer[:, None, :] / own_query.square().sum(1)[:, None, None]
        block.fc_k.weight.copy_(keys.flatten(0, 1) * output_dim**0.5)
        block.fc_v.weight.copy_(torch.einsum("hkw,hwd->hkd", kept, folded.values).flatten(0, 1))
        block.fc_v.bias.copy_(torch.einsum("hkw,hw->hk", kept, bias).flatten())
        torch.nn.init.normal_(block.fc_o.weight, std=0.01)
        for linear in (block.fc_q, block.fc_k, block.fc_o):
            torch.nn.init.zeros_(linear.bias)
    return pma
