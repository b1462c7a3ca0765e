"""Measure the ranges of the activations of a BERT backbone on real texts, for products in 8 bits."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from c2llm_integrations._utils.json_lines import read_rows
from c2llm_integrations._utils.sampling import sample
from c2llm_integrations.errors import C2LLMError, InputError
from c2llm_integrations.model.backbones import Bert, Linear, linear
from c2llm_integrations.model.batch_scheduler import plan_batches
from c2llm_integrations.model.checkpoint import RANGES, Checkpoint, load_checkpoint
from c2llm_integrations.model.encoder import CPU_BUDGET, PackedEncoder, load_encoder
from c2llm_integrations.model.int8 import range_shapes
from c2llm_integrations.model.safetensors_files import write_tensors
from c2llm_integrations.training.pair_files import sides_of
from c2llm_integrations.training.token_state_cache import token_ids

PAIRS, MAX_TOKENS = 1000, 512
# One of a million values after gelu is clipped: finer steps for all others gain more than that loses.
CUT, MOST_CUT = 1e-6, 4096


def measure_ranges(checkpoint: Checkpoint, texts: Sequence[str]) -> dict[str, Tensor]:
    """Return the tensors of `range_shapes`, float32.

    Raises:
        InputError: The backbone is not BERT, there are no texts, or a value is NaN or infinite.

    """
    if not texts:
        raise InputError("no texts to measure ranges on; give some of what the model was trained on")
    encoder = load_encoder(checkpoint, torch.float32, torch.device("cpu"))
    if not isinstance(encoder, PackedEncoder) or not isinstance(encoder.backbone, Bert):
        raise InputError(f"{checkpoint.name} has no BERT backbone, the only one computed in 8 bits")
    watch = RangeWatch(encoder.backbone)
    tokens = [ids for ids, _ in token_ids(checkpoint, texts, MAX_TOKENS)]
    for rows in plan_batches([len(ids) for ids in tokens], CPU_BUDGET):
        watch.begin(sum(len(tokens[row]) for row in rows))
        encoder.states([tokens[row] for row in rows])
    found = watch.ranges()
    if not all(highest.isfinite().all() for highest in found.values()):
        raise InputError(f"{checkpoint.name} computes NaN or infinity, so its layers have no ranges; train it again")
    return found


class RangeWatch:
    """Record the largest magnitude of every column that goes into a backbone's products; behind gelu, the largest
    values.
    """

    def __init__(self, bert: Bert) -> None:
        bert.product = self._product
        self.names = [name for name, _ in range_shapes(len(bert.layers), 1)]
        self.largest: dict[str, Tensor] = {}
        self.tokens = self.real = 0

    def begin(self, tokens: int) -> None:
        """Expect a batch of this many tokens; rows after them are padding."""
        self.coming = iter(self.names)
        self.real = tokens
        self.tokens += tokens

    def _product(self, x: Tensor, layer: Linear) -> Tensor:
        """See `Bert.product`."""
        name, rows = next(self.coming), x[: self.real]
        if name.endswith("narrow"):
            values = torch.cat([rows.flatten(), self.largest.get(name, rows.new_empty(0))])
            self.largest[name] = values.topk(min(MOST_CUT, len(values))).values
            self.cut_of = rows.shape[1] * CUT
        else:
            new = rows.abs().amax(0)
            self.largest[name] = torch.maximum(new, self.largest.get(name, new))
        return linear(x, layer)

    def ranges(self) -> dict[str, Tensor]:
        """Return the ranges seen, as `measure_ranges` does."""
        cut = min(int(self.tokens * self.cut_of), MOST_CUT - 1)
        return {
            name: largest[cut : cut + 1].clone() if name.endswith("narrow") else largest
            for name, largest in self.largest.items()
        }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure a checkpoint's ranges and put them beside its weights; see --help."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="a checkpoint folder, which gets the file")
    parser.add_argument("--pairs", type=Path, required=True, help="the pairs.jsonl that it was trained on")
    options = parser.parse_args(arguments)
    try:
        write_ranges(load_checkpoint(options.model), options.pairs)
    except (C2LLMError, OSError) as error:
        parser.error(str(error))


def write_ranges(checkpoint: Checkpoint, pairs: Path) -> None:
    """Measure on documentation and code of `PAIRS` mined pairs and write the file, whole or not at all."""
    texts = [text for where, row in sample(read_rows(pairs), PAIRS) for text in sides_of(row, where)]
    found = measure_ranges(checkpoint, texts)
    write_tensors(found, checkpoint.folder / RANGES, {"weights": checkpoint.digest()})


if __name__ == "__main__":
    main()
