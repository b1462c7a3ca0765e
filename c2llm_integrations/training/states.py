"""Texts → the backbone's token states, computed once and kept in a file, so that many heads can be trained on them."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from c2llm_integrations.batching import batches
from c2llm_integrations.checkpoint import Checkpoint
from c2llm_integrations.encoder import cpu_dtype, load_encoder, run
from c2llm_integrations.errors import InputError

BUDGET = 2048  # tokens in one forward pass, as for embedding on a CPU
WINDOW = 4096  # texts tokenised and sorted by length at once


@dataclass(frozen=True)
class TokenStates:
    """Last hidden states of texts, end to end: `states` (tokens, D) float16 on disk, `ends` (texts,) in tokens.

    `cut` is how many texts were longer than the limit.
    """

    states: NDArray[np.float16]
    ends: NDArray[np.int64]
    cut: int

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each text."""
        return np.diff(self.ends, prepend=0)

    def padded(self, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Of some texts, states (n, T, D) float32 and mask (n, T), true where a token is."""
        parts = [torch.from_numpy(self.states[self.ends[r - 1] if r else 0 : self.ends[r]].astype("f4")) for r in rows]
        lengths = torch.tensor([len(part) for part in parts])
        padded = torch.nn.utils.rnn.pad_sequence(parts, batch_first=True)
        return padded, torch.arange(padded.shape[1]) < lengths[:, None]


def cache_states(
    checkpoint: Checkpoint,
    texts: Sequence[str],
    folder: Path,
    *,
    max_length: int = 512,
    progress: Callable[[int, int | None, str], None] | None = None,
) -> TokenStates:
    """Compute the states of texts (prompt included) into `folder`, or find them there from an earlier run.

    Raises InputError where the disk has no room for them, or where a state is NaN or too large for float16.
    """
    tokens, cut = _tokens(checkpoint, texts, max_length)
    ends = np.cumsum([len(ids) for ids in tokens], dtype=np.int64)
    shape = (int(ends[-1]), int(checkpoint.backbone["hidden_size"]))
    key = hashlib.sha256(f"{checkpoint.digest()} {max_length}".encode())
    for text in texts:
        key.update(len(text).to_bytes(8, "big") + text.encode())
    file = folder / f"states-{key.hexdigest()[:32]}.npy"
    if not file.exists():
        needed, free = 2 * shape[0] * shape[1], shutil.disk_usage(folder).free
        if needed > free:
            raise InputError(
                f"the token states take {needed:,} bytes, {folder} has {free:,} free; "
                "take fewer texts, a smaller maximum length, or another folder for them"
            )
        partial = file.with_suffix(".partial")
        opened = np.lib.format.open_memmap(partial, "w+", np.float16, shape)
        for done, begin, states in _computed(checkpoint, tokens, ends):
            half = states.astype(np.float16)
            if not np.isfinite(half).all():
                raise InputError(f"a token state of {checkpoint.name} is NaN or above 65,504, what float16 holds")
            opened[begin : begin + len(half)] = half
            if progress:
                progress(done, len(tokens), "computing token states")
        opened.flush()
        partial.replace(file)
    return TokenStates(np.load(file, mmap_mode="r"), ends, cut)


def _tokens(checkpoint: Checkpoint, texts: Sequence[str], max_length: int) -> tuple[list[list[int]], int]:
    """Token ids, at least one and at most `max_length` of each text, and how many texts were cut for it."""
    tokenizer = checkpoint.tokenizer()
    blank = checkpoint.blank_token(tokenizer)
    longest = min(max_length, int(checkpoint.backbone.get("max_position_embeddings") or max_length))
    tokens: list[list[int]] = []
    cut = 0
    for begin in range(0, len(texts), WINDOW):
        for found in tokenizer.encode_batch_fast(list(texts[begin : begin + WINDOW]), add_special_tokens=False):
            cut += len(found.ids) > longest
            tokens.append(found.ids[:longest] or [blank])
    return tokens, cut


def _computed(
    checkpoint: Checkpoint, tokens: list[list[int]], ends: NDArray[np.int64]
) -> Iterator[tuple[int, int, NDArray[np.float32]]]:
    """Yield, text by text in no order: texts done, the text's first token, its states (tokens, D)."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    encoder = load_encoder(checkpoint, torch.bfloat16 if device.type == "cuda" else cpu_dtype(), device)
    done = 0
    for begin in range(0, len(tokens), WINDOW):
        window = tokens[begin : begin + WINDOW]
        parts = list(batches([len(ids) for ids in window], BUDGET, padded=encoder.padded))
        computed = run(encoder.states, ([window[row] for row in rows] for rows in parts), device)
        for rows, states in zip(parts, computed, strict=True):
            start = 0
            for row in rows:
                done += 1
                size = len(window[row])
                yield done, int(ends[begin + row]) - size, states[start : start + size].float().numpy()
                start += size
