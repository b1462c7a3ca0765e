"""The options of training a model or a head, declared once. Imports no torch."""

from __future__ import annotations

from dataclasses import MISSING, dataclass

from c2llm_integrations._utils.option_field import option


@dataclass(frozen=True)
class FinetuneOptions:
    """Options of a run; the defaults are the published values, if any.

    `lora`: train LoRA on the backbone, or all of the backbone. PMA is always trained.
    """

    epochs: float = option(3.0, "Times that each pair is seen.", metavar="N", min=0)
    batch: int = option(64, "Pairs in a batch, each other's negatives.", metavar="N", min=2)
    part: int | None = option(
        None, "Pairs computed at once, by gradient caching, where memory is short.", metavar="N", min=1
    )
    lr: float = option(1e-4, "Learning rate at its peak.", metavar="R", min=0)
    negatives: int = option(7, "Maximum number of hard negatives per pair.", metavar="N", min=0)
    mined: int = option(0, "How many of these BASE finds among the other positives.", flag="--mine", metavar="N", min=0)
    lora: bool = True
    max_length: int = option(1024, "Tokens read of each text.", metavar="N", min=1)
    save_every: int = option(200, "Steps between two checkpoints.", metavar="N", min=1)
    averaged: int = option(
        1, "Merge the last N checkpoints, the later the more weight.", flag="--average", metavar="N", min=1
    )
    seed: int = option(0, "Random seed; the same seed gives the same result.", metavar="N", min=0)


@dataclass(frozen=True)
class HeadOptions:
    """Options of a head's training; `contrast`: the weight of InfoNCE beside distillation, with pairs only."""

    output_dim: int = option(MISSING, "How many dimensions the head gives.", metavar="N", min=1)
    steps: int = option(1000, "Steps of training.", metavar="N", min=1)
    batch: int = 256
    lr: float = option(1e-2, "Learning rate of the head at its peak.", metavar="R", min=0)
    warmup: int = 50
    contrast: float = 0.1
    seed: int = option(0, "Random seed; the same seed gives the same head.", metavar="N", min=0)
