"""`c2llm mine-pairs`: code → pairs; `c2llm train`: a better checkpoint; `c2llm train-head`: another width."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from c2llm_integrations._utils.files import require_output, require_output_folder
from c2llm_integrations._utils.option_field import option
from c2llm_integrations._utils.progress import shown
from c2llm_integrations.cli import terminal
from c2llm_integrations.cli.options import command, require_new
from c2llm_integrations.errors import InputError
from c2llm_integrations.training.options import FinetuneOptions, HeadOptions

if TYPE_CHECKING:
    from collections import Counter

    from c2llm_integrations.model.checkpoint import Checkpoint
    from c2llm_integrations.model.heads_and_projections import Head
    from c2llm_integrations.training.token_state_cache import TokenStates

# Texts kept out of the training to measure it, at most.
HELD_OUT = 512

Base = Annotated[str, typer.Argument(metavar="BASE", help="nano, a folder or a hub id.")]


@dataclass(frozen=True)
class HeadData:
    """The texts that a head learns from."""

    texts: int = option(20_000, "Maximum number of texts to learn from.", metavar="N", min=2)
    max_length: int = option(512, "Tokens read of each of these texts.", metavar="N", min=1)
    states: Path | None = option(None, "Keep the token states here for another head.", metavar="DIR")


@command
def train_head(
    base: Base,
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATH...",
            help="Folders of code; or .jsonl, .jsonl.gz and .parquet of query, positive and negatives.",
        ),
    ],
    options: HeadOptions,
    data: HeadData,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="What to write.  [default: c2llm-head-N.safetensors]")
    ] = None,
) -> int:
    """Train the pooling of BASE to another width; the rest of the model stays as it is, and is run only once.

    From folders of code it learns to rank texts as the full width does; from pairs, also what answers what. Use it
    by: c2llm index --replace --model BASE --head FILE.
    """
    from c2llm_integrations.model.checkpoint import lasting_name, load_checkpoint
    from c2llm_integrations.model.heads_and_projections import remember
    from c2llm_integrations.training.head import check_width
    from c2llm_integrations.training.head import train_head as train
    from c2llm_integrations.training.token_state_cache import cache_states

    file = out or Path(f"c2llm-head-{options.output_dim}.safetensors")
    require_new(file)
    if data.states is not None:
        require_output_folder(data.states)
    checkpoint = load_checkpoint(lasting_name(base))
    check_width(checkpoint, options.output_dim)
    found, groups = _texts(checkpoint, paths, data.texts, options.seed)
    with tempfile.TemporaryDirectory() as temporary, shown() as progress:
        folder = data.states or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        cached = cache_states(checkpoint, found, folder, max_length=data.max_length, progress=progress)
        kept = groups[min(HELD_OUT, len(groups) // 10) :]
        head, losses = train(checkpoint, cached, kept, options, progress)
        head.save(file)
        held_out = sorted({row for group in groups for row in group} - {row for group in kept for row in group})
        agreement = _agreement(checkpoint, head, cached, held_out)
    remember(head)
    terminal.write(str(file))
    widths = f"{checkpoint.output_dim} → {options.output_dim}"
    terminal.say(f"trained {widths} dimensions on {len(found):,} texts, {options.steps:,} steps")
    _say_cut(cached.cut, data.max_length)
    terminal.say(f"loss {losses[0]:.4f} → {losses[-1]:.4f}" + agreement)
    return 0


@command
def mine_pairs(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Repositories, or folders of code.")],
    out: Annotated[Path, typer.Option(metavar="FILE.jsonl", help="File to write.")],
    held_out: Annotated[
        float, typer.Option(metavar="S", min=0, max=1, help="Keep this share of the repositories apart.")
    ] = 0.0,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Random seed that decides which are kept apart.")] = 0,
) -> int:
    """Write training pairs: documentation → code without it, words of a name → code without the name.

    No pair repeats. With --held-out some repositories go to FILE-held-out.jsonl instead, as a whole.
    """
    from c2llm_integrations.training.mine_pairs import mine_repositories

    apart = out.with_name(f"{out.stem}-held-out{out.suffix}")
    require_output(out)
    require_output(apart)
    if out.suffix != ".jsonl":
        raise InputError(f"{out} does not end in .jsonl, but pairs are written as JSON lines; name another --out")
    mined = mine_repositories(paths, held_out, seed)
    _write_lines(out, mined.training)
    terminal.write(str(out))
    if mined.held_out:
        _write_lines(apart, mined.held_out)
        terminal.write(str(apart))
    found = f"{len(mined.training):,} pairs to train on, {len(mined.held_out):,} held out"
    terminal.say(f"{found}, of {len(mined.repositories):,} repositories; {mined.repeated:,} definitions came twice")
    return 0


@command
def train(
    base: Base,
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...",
            help=".jsonl, .jsonl.gz or .parquet of query, positive, and perhaps negatives, dataset and language.",
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="The checkpoint folder to write.")],
    options: FinetuneOptions,
    full: Annotated[bool, typer.Option("--full", help="Train all of the backbone, not LoRA on it.")] = False,
    held_out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Pairs, in such a file, to measure before and after.")
    ] = None,
) -> int:
    """Train BASE to find each query's positive among a batch and write the better checkpoint.

    The pooling is always trained, the backbone by LoRA. Repeat the command to continue a run that was stopped.
    """
    from c2llm_integrations.model.checkpoint import lasting_name, load_checkpoint
    from c2llm_integrations.model.embedder import C2LLMEmbedder
    from c2llm_integrations.training.evaluation import MAIN_SCORE, evaluate, pairs_task
    from c2llm_integrations.training.mine_pairs import texts_of
    from c2llm_integrations.training.pair_files import read_examples
    from c2llm_integrations.training.token_state_cache import count_cut

    task = None if held_out is None else pairs_task(held_out)  # now: training may take hours
    examples, left_out = read_examples(files)
    _say_left_out(left_out)
    from c2llm_integrations.training.finetune import train as run  # takes seconds, which a wrong file need not wait for

    base = lasting_name(base)
    options = replace(options, lora=not full)
    with shown() as progress:
        losses = run(base, examples, out, options, progress=progress)
    terminal.write(str(out))
    terminal.say(f"trained on {len(examples):,} pairs, {len(losses):,} steps; loss {losses[0]:.4f} → {losses[-1]:.4f}")
    checkpoint, length = load_checkpoint(base), options.max_length
    _say_cut(count_cut(checkpoint, chain.from_iterable(texts_of(checkpoint, examples)), length), length)
    if task is not None:
        # One after the other: nothing keeps the first model while the second is loaded.
        before, after = (evaluate(C2LLMEmbedder.from_pretrained(one), task)[MAIN_SCORE] for one in (base, str(out)))
        terminal.say(f"nDCG@10 of {len(task.queries):,} held-out pairs: {before:.4f} → {after:.4f}")
    return 0


def _write_lines(file: Path, rows: list[dict[str, str]]) -> None:
    from c2llm_integrations._utils.files import write_atomically

    write_atomically(file, "".join(json.dumps(row) + "\n" for row in rows))


def _texts(checkpoint: Checkpoint, paths: list[Path], limit: int, seed: int) -> tuple[list[str], list[list[int]]]:
    """Return the texts of files of pairs, or of folders of code, and which of them belong together."""
    from c2llm_integrations.training.mine_pairs import grouped_texts, own_texts
    from c2llm_integrations.training.pair_files import is_pair_file, read_examples

    files = [path for path in paths if is_pair_file(path)]
    if files and len(files) < len(paths):
        raise InputError("both files of pairs and folders of code are given; choose one")
    if files:
        examples, left_out = read_examples(files)
        _say_left_out(left_out)
        return grouped_texts(checkpoint, examples, limit, seed)
    texts = own_texts(checkpoint, paths, limit, seed)
    if not texts:
        raise InputError(f"no code was found in {', '.join(map(str, paths))}")
    return texts, [[row] for row in range(len(texts))]


def _say_left_out(left_out: Counter[str]) -> None:
    """Print how many pairs were left out and why, if any."""
    found = [f"{count:,} {reason}" for reason, count in sorted(left_out.items()) if count]
    if found:
        terminal.say(f"left out: {', '.join(found)}")


def _say_cut(texts: int, max_length: int) -> None:
    if texts:
        terminal.say(f"{texts:,} texts were cut at {max_length} tokens")


def _agreement(checkpoint: Checkpoint, head: Head, states: TokenStates, rows: list[int]) -> str:
    """Return how many neighbors of held-out texts stay the same, as text; "" for too few texts."""
    import torch

    from c2llm_integrations.cli.plan import NEIGHBORS, recall_kept
    from c2llm_integrations.training.head import encode, pma_of

    if len(rows) <= 2 * NEIGHBORS:
        return ""
    with torch.inference_mode():
        before, after = (encode(pma_of(one), states, rows).numpy() for one in (checkpoint, checkpoint.with_head(head)))
    kept = recall_kept(before, after, len(rows))
    return f"; of the {NEIGHBORS} nearest of {len(rows):,} other texts, {kept:.1%} stay the same"
