"""Compute the backbone's token states of texts once and keep them in a file, to train many heads on."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from c2llm_integrations._utils.files import write_atomically
from c2llm_integrations._utils.progress import Progress
from c2llm_integrations.errors import InputError
from c2llm_integrations.model.batch_scheduler import plan_batches
from c2llm_integrations.model.checkpoint import Checkpoint
from c2llm_integrations.model.dtype_choice import float_dtype
from c2llm_integrations.model.encoder import Encoder, load_encoder, longest_text, right_padded, token_budget
from c2llm_integrations.model.parallel_batches import lane_count, lanes, run

WINDOW_TEXTS = 1024  # sorted by length at once, and written before the next


@dataclass(frozen=True)
class TokenStates:
    """Last hidden states of texts, end to end: `states` (tokens, D) float16 on disk, `ends` (texts,) in tokens.

    `cut`: the number of texts longer than the limit.
    """

    states: NDArray[np.float16]
    ends: NDArray[np.int64]
    cut: int

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Return the tokens of each text."""
        return np.diff(self.ends, prepend=0)

    def padded(self, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return the states (n, T, D) float32 of some texts and their mask (n, T), true where a token is."""
        places = [slice(self.ends[row - 1] if row else 0, self.ends[row]) for row in rows]
        return right_padded([self.states[place].astype("f4") for place in places])


def cache_states(
    checkpoint: Checkpoint,
    texts: Sequence[str],
    folder: Path,
    *,
    max_length: int = 512,
    progress: Progress | None = None,
) -> TokenStates:
    """Compute the states of texts (prompt included) into `folder`, or find them there from an earlier run.

    A stopped run continues where it stopped.

    Raises:
        InputError: The disk has no room for them, or a state is NaN or too large for float16.

    """
    found = list(token_ids(checkpoint, texts, max_length))
    tokens, cut = [ids for ids, _ in found], sum(was_cut for _, was_cut in found)
    ends = np.cumsum([len(ids) for ids in tokens], dtype=np.int64)
    shape = (int(ends[-1]), checkpoint.sizes.hidden_size)
    key = hashlib.sha256(f"{checkpoint.digest()} {max_length}".encode())
    for text in texts:
        key.update(len(text).to_bytes(8, "big") + text.encode())
    file = folder / f"states-{key.hexdigest()[:32]}.npy"
    if not file.exists():
        partial = file.with_suffix(".partial")
        needed, free = 2 * shape[0] * shape[1], shutil.disk_usage(folder).free
        if needed > free and not partial.exists():
            raise InputError(
                f"the token states take {needed:,} bytes, {folder} has {free:,} free; "
                "take fewer texts, a smaller maximum length, or another folder for them"
            )
        _compute(checkpoint, tokens, ends, partial, progress)
        partial.replace(file)
        partial.with_suffix(".done").unlink()
    return TokenStates(np.load(file, mmap_mode="r"), ends, cut)


def _compute(
    checkpoint: Checkpoint, tokens: list[list[int]], ends: NDArray[np.int64], partial: Path, progress: Progress | None
) -> None:
    """Write all states to `partial`; the texts that an interrupted run wrote there are not computed again."""
    shape = (int(ends[-1]), checkpoint.sizes.hidden_size)
    starts = [0, *ends[:-1]]
    count_file = partial.with_suffix(".done")  # holds how many texts are written, in windows
    done = int(count_file.read_text()) if partial.exists() and count_file.exists() else 0
    states = np.lib.format.open_memmap(partial, "r+" if done else "w+", np.float16, None if done else shape)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = float_dtype(checkpoint, device)
    encoder = load_encoder(checkpoint, dtype, device)
    budget = token_budget(checkpoint.sizes, dtype, device)
    for begin in range(done, len(tokens), WINDOW_TEXTS):
        end = min(begin + WINDOW_TEXTS, len(tokens))
        for text, found in states_of(tokens, range(begin, end), encoder, budget, device):
            states[starts[text] : ends[text]] = found.to(torch.float16).numpy()
        if not np.isfinite(states[starts[begin] : ends[end - 1]]).all():
            raise InputError(f"a token state of {checkpoint.name} is NaN or above 65,504, what float16 holds")
        states.flush()
        write_atomically(count_file, str(end))
        if progress:
            progress(end, len(tokens), "computing token states")


def states_of(
    texts: list[list[int]], some: range, encoder: Encoder, budget: int, device: torch.device
) -> Iterator[tuple[int, Tensor]]:
    """Yield the number of some of the texts, and each one's states (tokens, D), in no order."""
    planned = plan_batches([len(texts[n]) for n in some], budget, padded=encoder.padded)
    batches = ([some[place] for place in batch] for batch in planned)
    with lanes(device) as threads:
        computed = run(threads, lambda batch: encoder.states([texts[n] for n in batch]), batches, lane_count(device))
        for batch, found in computed:
            yield from zip(batch, found.split([len(texts[n]) for n in batch]), strict=True)


def token_ids(checkpoint: Checkpoint, texts: Sequence[str], max_length: int) -> Iterator[tuple[list[int], bool]]:
    """Yield for each text between 1 and `max_length` token ids, and whether it was cut."""
    tokenizer = checkpoint.tokenizer()
    blank = checkpoint.blank_token(tokenizer)
    longest = _longest(checkpoint, max_length)
    for begin in range(0, len(texts), WINDOW_TEXTS):
        for found in tokenizer.encode_batch_fast(list(texts[begin : begin + WINDOW_TEXTS]), add_special_tokens=False):
            yield found.ids[:longest] or [blank], len(found.ids) > longest


def count_cut(checkpoint: Checkpoint, texts: Iterable[str], max_length: int) -> int:
    """Count the texts, each once, that `token_ids` would cut.

    A token stands for at least a byte, so a text of no more bytes than the limit is not even tokenized.
    """
    longest = _longest(checkpoint, max_length)
    long = {text for text in texts if len(text.encode(errors="surrogatepass")) > longest}
    return sum(was_cut for _, was_cut in token_ids(checkpoint, list(long), max_length))


def _longest(checkpoint: Checkpoint, max_length: int) -> int:
    return min(max_length, longest_text(checkpoint) or max_length)
