"""The heads that ship with nano: 128, 64 and 32 dimensions, trained on pairs of nano's own corpus.

    nice python -m benchmarks.nano_recipe.heads --pairs pairs.jsonl [--number 120000] [--steps 1500] [--seed 0]

`pairs.jsonl` is what `benchmarks.nano_recipe.nano` mines: nothing that must never be trained on, nothing that the
docstring benchmark holds. nano's attention weighs all tokens of a text nearly alike, so the heads attend to all alike
and learn from the mean of each text's token states, which makes batches of 1,024 pairs cheap.
Score the result with `python -m benchmarks.docstring_retrieval`, an embedder of each `output_dim`.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.nano_recipe.data import read_pairs
from c2llm_integrations.model.checkpoint import Checkpoint, load_checkpoint
from c2llm_integrations.model.dtype_choice import best_dtype
from c2llm_integrations.model.encoder import load_encoder, token_budget
from c2llm_integrations.training.head import train_head
from c2llm_integrations.training.options import HeadOptions
from c2llm_integrations.training.token_state_cache import TokenStates, states_of, token_ids

WIDTHS = (128, 64, 32)
BATCH = 1024
TOKENS_READ = 256


def mean_states(checkpoint: Checkpoint, texts: Sequence[str], file: Path) -> TokenStates:
    """Compute the mean state of each text, as if it were its only token, or find them in `file`."""
    if not file.exists():
        device = torch.device("cpu")
        dtype = best_dtype(checkpoint, [device])
        encoder = load_encoder(checkpoint, dtype, device)
        tokens = [ids for ids, _ in token_ids(checkpoint, texts, TOKENS_READ)]
        found = np.empty((len(texts), checkpoint.sizes.hidden_size), np.float16)
        budget = token_budget(checkpoint.sizes, dtype, device)
        for text, states in states_of(tokens, range(len(tokens)), encoder, budget, device):
            found[text] = states.float().mean(0).numpy()
        np.save(file, found)
    means = np.load(file)
    return TokenStates(means, np.arange(1, len(means) + 1), 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument("--number", type=int, default=120_000)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--widths", type=int, nargs="+", default=WIDTHS)
    parser.add_argument("--work", type=Path, default=Path("work"))
    parser.add_argument("--out", type=Path, default=Path("c2llm_integrations/model/nano"))
    options = parser.parse_args()
    for folder in (options.work, options.out):
        folder.mkdir(parents=True, exist_ok=True)
    checkpoint = load_checkpoint("nano")
    pairs = [(row["doc"], row["bare"]) for row in read_pairs(options.pairs)]
    random.Random(options.seed).shuffle(pairs)
    texts = [text for pair in pairs[: options.number] for text in pair]
    states = mean_states(checkpoint, texts, options.work / f"means-{len(texts)}-{options.seed}.npy")
    groups = [[row, row + 1] for row in range(0, len(texts), 2)]
    for width in options.widths:
        recipe = HeadOptions(width, options.steps, batch=BATCH, seed=options.seed)
        head, losses = train_head(checkpoint, states, groups, recipe)
        tensors = {name: tensor.half() for name, tensor in head.tensors.items()}  # as nano's own
        tensors["pma.mab.fc_k.weight"].zero_()  # all tokens get the same weight, as in the means
        replace(head, tensors=tensors).save(options.out / f"head-{width}.safetensors")
        print(f"{width}: loss {losses[0]:.4f} → {np.mean(losses[-20:]):.4f}", flush=True)


if __name__ == "__main__":
    main()
