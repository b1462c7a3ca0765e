"""Texts → vectors."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from c2llm_integrations import prompts
from c2llm_integrations.checkpoint import Checkpoint, load_checkpoint
from c2llm_integrations.coalescing import Coalescer, Job
from c2llm_integrations.compression import Projection
from c2llm_integrations.encoding.encoder import best_dtype, load_encoder
from c2llm_integrations.errors import CheckpointError, InputError
from c2llm_integrations.heads import Head
from c2llm_integrations.projections import remembered

Progress = Callable[[int, int], None]

# Tokens in one forward pass. On CPU the activations of a batch should stay in cache (`c2llm bench` tries);
# a GPU wants enough rows to fill it.
CPU_BUDGET, GPU_BUDGET = 2048, 32768
# Texts tokenised at once: bounds memory, and is enough to sort like lengths together.
WINDOW = 4096
# Characters a token that are tokenised of a long text at first (code has 3 to 4), and spare tokens at the cut.
CHARS_READ, CUT_MARGIN = 16, 64
# A progress bar shows for more texts than this, on a terminal only.
PROGRESS_FROM = 2000

# How a fingerprint names, where a projection's digest would stand, plain truncation and a head; the width and the
# head's digest follow.
TRUNCATED, HEADED = "first ", "head "


class C2LLMEmbedder:
    """A loaded model. Safe to call from many threads: what waits at the same time is computed together.

    Attributes: `devices`, where it is loaded; `output_dim`, vector width; `max_length`, tokens read of each text;
    `fingerprint`, all that decides what a vector means; `tokens_seen` and `texts_cut`, running totals since loading.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        dtype: torch.dtype,
        devices: Sequence[torch.device],
        max_length: int = 2048,
        normalize: bool = True,
        projection: Projection | None = None,
        truncate: int | None = None,
        batch_tokens: int | None = None,
    ) -> None:
        """See `from_pretrained`, which finds the parts by name."""
        self.checkpoint = checkpoint
        self.normalize = normalize
        self.dtype = dtype
        self.devices = list(devices)
        self.projection = projection
        self.output_dim = truncate or (checkpoint.output_dim if projection is None else projection.matrix.shape[1])
        self.max_length = min(max_length, int(checkpoint.backbone.get("max_position_embeddings") or max_length))
        self.tokens_seen = 0
        self.texts_cut = 0
        self._tokenizer = checkpoint.tokenizer()
        self._blank_token = checkpoint.blank_token(self._tokenizer)
        encoders = [(load_encoder(checkpoint, dtype, device), device) for device in devices]
        budget = batch_tokens or (CPU_BUDGET if devices[0].type == "cpu" else GPU_BUDGET)
        self._coalescer = Coalescer(encoders, checkpoint.output_dim, budget)
        self._counting = threading.Lock()
        self._process = os.getpid()
        self._fingerprint: dict[str, str | int | bool | None] | None = None

    @classmethod
    def from_pretrained(
        cls,
        name: str,
        *,
        revision: str | None = None,
        output_dim: int | None = None,
        dtype: str = "auto",
        device: str | Sequence[str] = "auto",
        max_length: int = 2048,
        normalize: bool = True,
        head: str | os.PathLike[str] | None = None,
        projection: str | os.PathLike[str] | None = None,
        truncate: int | None = None,
        batch_tokens: int | None = None,
    ) -> C2LLMEmbedder:
        """Load "nano", a folder in the released layout, or a hub id such as "codefuse-ai/C2LLM-0.5B".

        `dtype`: "auto" (bfloat16 on CUDA and on a CPU with AMX or AVX512-BF16, else float32; for a checkpoint with
        measured ranges, such as nano, int8 on a CPU with VNNI), "float32", "bfloat16", "float16" or "int8";
        `device`: "auto", "cpu", "cuda", "cuda:1", …, or several of a kind, ["cuda:0", "cuda:1"] or "cuda:0,cuda:1",
        each of which gets a model and a share of the batches (one that fails is told of in a warning, and the others
        redo its batches); `max_length`: tokens; longer texts are cut at the end; `head`: a file that
        `c2llm train-head` made for this checkpoint, whose width the vectors then have; `projection`: a file that
        `fit_projection` made for this checkpoint; `truncate`: keep only so many of the first dimensions, which loses
        most; `batch_tokens`: tokens computed at once, by default what suits the device, fewer where memory is short.
        `output_dim` only states what is expected.
        Raises CheckpointError for a bad checkpoint or projection, InputError for a bad option.
        """
        if max_length < 1:
            raise InputError(f"max_length is {max_length}, must be at least 1")
        if batch_tokens is not None and batch_tokens < 1:
            raise InputError(f"batch_tokens is {batch_tokens}, must be at least 1, or None for what suits the device")
        checkpoint = load_checkpoint(str(name), revision)
        if head is not None:
            if projection is not None or truncate is not None:
                raise InputError("a head decides the dimensions; give it without a projection or truncate")
            checkpoint = checkpoint.with_head(Head.load(Path(head)))
        fitted = None if projection is None else Projection.load(Path(projection))
        _check_width(checkpoint, output_dim, fitted, truncate)
        where = _devices(device)
        return cls(
            checkpoint,
            dtype=_dtype(dtype, checkpoint, where[0]),
            devices=where,
            max_length=max_length,
            normalize=normalize,
            projection=fitted,
            truncate=truncate,
            batch_tokens=batch_tokens,
        )

    @property
    def fingerprint(self) -> Mapping[str, str | int | bool | None]:
        """Everything that decides what a document vector means, plus the model's name."""
        if self._fingerprint is None:
            self._fingerprint = {
                "model": self.checkpoint.name,
                "weights": self.checkpoint.digest(),
                "output_dim": self.output_dim,
                "projection": self._projection_name(),
                "document_prompt": prompts.document_prompt(self.checkpoint.prompts),
                "max_length": self.max_length,
                "normalize": self.normalize,
            }
        return self._fingerprint

    def encode(
        self, texts: Sequence[str], prompt: str = "", *, progress: Progress | None = None
    ) -> NDArray[np.float32]:
        """Embed texts exactly as they are, `prompt` in front of each: (n, output_dim) float32. One string is one text.

        Unit length unless the embedder was loaded with `normalize=False`. A text without tokens gets the vector of one
        padding token. `progress(done, total)` is called after each batch; without it a bar shows on a terminal when
        the work is long. Raises InputError naming the item that is not a string, holds a lone surrogate, or gives NaN.
        """
        self._require_own_process()
        texts = _checked([texts] if isinstance(texts, str) else list(texts), prompt)
        places = {text: place for place, text in enumerate(dict.fromkeys(texts))}
        known = len(texts) - len(places)
        with _progress_bar(len(texts), progress) as report:
            vectors = self._compute(list(places), lambda done: report(known + done))
        if known:
            vectors = vectors[[places[text] for text in texts]]
        if not np.isfinite(vectors).all():
            bad = int(np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0])
            raise InputError(f"text {bad} gives a vector with NaN or infinity in {self.dtype}; try dtype='float32'")
        if self.projection is not None:
            vectors = vectors @ self.projection.matrix
        vectors = vectors[:, : self.output_dim]
        if self.normalize:
            vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.finfo(np.float32).tiny)
        return vectors

    def encode_queries(
        self, texts: Sequence[str], task: str | None = None, *, progress: Progress | None = None
    ) -> NDArray[np.float32]:
        """Embed questions: the task's prompt in front, the whole stripped at both ends, as published."""
        return self.encode(_prompted(texts, prompts.query_prompt(self.checkpoint.prompts, task)), progress=progress)

    def encode_documents(self, texts: Sequence[str], *, progress: Progress | None = None) -> NDArray[np.float32]:
        """Embed documents: the document prompt in front, the whole stripped at both ends, as published."""
        return self.encode(_prompted(texts, prompts.document_prompt(self.checkpoint.prompts)), progress=progress)

    def attention(self, text: str) -> list[tuple[int, int, float]]:
        """Say where the model looks in a document: start, end (characters) and weight of each token that it reads.

        The weight is what PMA takes of the token, the mean of its heads. All weights sum to at most 1: the rest lies
        on the document prompt. Raises InputError for a text that `encode` refuses.
        """
        self._require_own_process()
        prompt = prompts.document_prompt(self.checkpoint.prompts)
        [whole] = _checked([text], prompt)
        moved = len(whole) - len(whole.lstrip()) - len(prompt)  # from the embedded text's characters to the given one's
        tokens = self._tokenizer.encode(whole.strip(), add_special_tokens=False)
        ids = tokens.ids[: self.max_length]
        weights = self._coalescer.workers[0].encoder.attention(ids).mean(1).tolist() if ids else []
        places = [(start + moved, end + moved) for start, end in tokens.offsets[: len(ids)]]
        return [(max(0, start), end, weight) for (start, end), weight in zip(places, weights, strict=True) if end > 0]

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return how many tokens of each text are read, without a prompt: at most `max_length`."""
        counts = map(len, self._tokens(_checked(list(texts), "")))
        return [min(count, self.max_length) for count in counts]

    def _require_own_process(self) -> None:
        if self._process != os.getpid():
            # The computing threads did not survive the fork, and waiting for them would never end.
            raise InputError("this embedder was loaded before the process was forked; load one in each process")

    def _compute(self, texts: list[str], report: Callable[[int], None]) -> NDArray[np.float32]:
        """Texts → (n, trained width); while one window of them is computed, the next is tokenised."""
        vectors = np.empty((len(texts), self.checkpoint.output_dim), np.float32)
        jobs: list[Job] = []

        def collect(number: int) -> None:
            begin = number * WINDOW
            found = self._coalescer.wait(jobs[number], lambda done: report(begin + done))
            vectors[begin : begin + WINDOW] = found

        try:
            for begin in range(0, len(texts), WINDOW):
                jobs.append(self._coalescer.submit(self._counted(texts[begin : begin + WINDOW])))
                if len(jobs) > 1:
                    collect(len(jobs) - 2)
            if jobs:
                collect(len(jobs) - 1)
        finally:
            for job in jobs[-2:]:
                self._coalescer.cancel(job)
        return vectors

    def _tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """Return each text's token ids; of a long text at least the first `max_length`, but not all."""
        size = CHARS_READ * self.max_length
        found = self._tokenizer.encode_batch_fast([text[:size] for text in texts], add_special_tokens=False)
        tokens = [encoding.ids for encoding in found]
        for index, text in enumerate(texts):
            read = size
            # The last tokens of a cut text may be others than those of the whole one.
            while len(text) > read and len(tokens[index]) < self.max_length + CUT_MARGIN:
                read *= 8
                tokens[index] = self._tokenizer.encode(text[:read], add_special_tokens=False).ids
        return tokens

    def _counted(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids that are computed of each text: at least one, at most `max_length`."""
        tokens = self._tokens(texts)
        with self._counting:
            self.texts_cut += sum(len(ids) > self.max_length for ids in tokens)
            tokens = [ids[: self.max_length] or [self._blank_token] for ids in tokens]
            self.tokens_seen += sum(map(len, tokens))
        return tokens

    def _projection_name(self) -> str | None:
        if self.projection is not None:
            return self.projection.digest
        if self.checkpoint.head is not None:
            return f"{HEADED}{self.checkpoint.head.digest}"
        return f"{TRUNCATED}{self.output_dim}" if self.output_dim < self.checkpoint.output_dim else None


def options_of(
    fingerprint: Mapping[str, str | int | bool | None],
    projection: str | os.PathLike[str] | None = None,
    head: str | os.PathLike[str] | None = None,
) -> dict[str, Any]:
    """The arguments of `from_pretrained` that give the vectors a fingerprint describes.

    `projection`, `head`: where the file of such a one is, if it was never used on this machine. Raises InputError
    where that must be said, and for a fingerprint that no embedder wrote.
    """
    try:
        projected = str(fingerprint["projection"] or "")
        options: dict[str, Any] = {
            "name": str(fingerprint["model"]),
            "max_length": int(fingerprint["max_length"] or 0),
            "normalize": bool(fingerprint["normalize"]),
        }
        if projected.startswith(TRUNCATED):
            options["truncate"] = int(projected.removeprefix(TRUNCATED))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"the collection's fingerprint is damaged ({error!r}); index again with --replace") from error
    if projected and "truncate" not in options:
        kind, given = ("head", head) if projected.startswith(HEADED) else ("projection", projection)
        digest = projected.removeprefix(HEADED)
        file = given or remembered(digest)
        if file is None:
            raise InputError(
                f"the collection was made with {kind} {digest}, never used on this machine; "
                f"name its file with --{kind} FILE, from Python with {kind}=FILE"
            )
        options[kind] = os.fspath(file)
    return options


def _checked(texts: list[str], prompt: str) -> list[str]:
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise InputError(f"text {index} is a {type(text).__name__}, expected str")
        if not text.isascii():
            try:
                text.encode()
            except UnicodeEncodeError as error:
                raise InputError(
                    f"text {index} holds a lone surrogate at character {error.start}; "
                    "decode its bytes with errors='replace' first"
                ) from None
    return [prompt + text for text in texts] if prompt else texts


def _prompted(texts: Sequence[str], prompt: str) -> list[str]:
    texts = [texts] if isinstance(texts, str) else list(texts)
    # What is no string is left for encode() to name.
    return [(prompt + text).strip() if isinstance(text, str) else text for text in texts]


@contextmanager
def _progress_bar(total: int, progress: Progress | None) -> Iterator[Callable[[int], None]]:
    if progress is not None:
        yield lambda done: progress(done, total)
    elif total < PROGRESS_FROM or not sys.stderr.isatty():
        yield lambda done: None
    else:
        from rich.console import Console
        from rich.progress import Progress as Bar

        with Bar(console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("embedding", total=total)
            yield lambda done: bar.update(task, completed=done)


def _check_width(
    checkpoint: Checkpoint, wanted: int | None, projection: Projection | None, truncate: int | None
) -> None:
    trained, digest = checkpoint.output_dim, checkpoint.digest() if projection else None
    if projection is not None and truncate is not None:
        raise InputError(f"both a projection and truncate={truncate} are given; choose one")
    if projection is not None and (projection.weights, projection.matrix.shape[0]) != (digest, trained):
        raise CheckpointError(
            f"the projection was fitted on {projection.matrix.shape[0]} dimensions of weights {projection.weights}, "
            f"{checkpoint.name} gives {trained} of {digest}; fit one on this model's vectors"
        )
    if truncate is not None and not 1 <= truncate < trained:
        raise InputError(f"truncate is {truncate}, must be at least 1 and less than the trained {trained}")
    given = truncate or (trained if projection is None else projection.matrix.shape[1])
    if wanted is not None and wanted != given:
        raise InputError(
            f"{checkpoint.name} gives {given} dimensions, asked for {wanted}; say how to get there, best first: "
            "a PMA trained at that width (another checkpoint, or head=FILE), projection=FILE fitted on your vectors, "
            "or truncate=N"
        )


def _devices(names: str | Sequence[str]) -> list[torch.device]:
    devices = [_device(name.strip()) for name in (names.split(",") if isinstance(names, str) else names)]
    if len({device.type for device in devices}) != 1:
        raise InputError(f"device is {names!r}, expected one device or several of one kind, such as 'cuda:0,cuda:1'")
    return devices


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"unknown device {name!r}; use 'auto', 'cpu', 'cuda' or 'cuda:N'") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device {name!r} asked for, but this PyTorch sees no CUDA GPU; use device='cpu'")
    return device


def _dtype(name: str, checkpoint: Checkpoint, device: torch.device) -> torch.dtype:
    kinds = (torch.float32, torch.bfloat16, torch.float16, torch.int8)
    known = {str(kind).removeprefix("torch."): kind for kind in kinds}
    if name == "auto":
        return best_dtype(checkpoint, device)
    if name not in known:
        raise InputError(f"unknown dtype {name!r}; use 'auto' or one of {', '.join(known)}")
    return known[name]
