"""`C2LLMEmbedder`: load a model, and embed questions and documents on one device or several."""

from __future__ import annotations

import os
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray

from c2llm_integrations._utils.progress import Progress, shown
from c2llm_integrations.errors import InputError
from c2llm_integrations.model import prompts
from c2llm_integrations.model.batch_scheduler import BatchScheduler, Job
from c2llm_integrations.model.checkpoint import Checkpoint, load_checkpoint
from c2llm_integrations.model.dtype_choice import best_dtype
from c2llm_integrations.model.encoder import load_encoder, longest_text, token_budget
from c2llm_integrations.model.heads_and_projections import Projection, of_width
from c2llm_integrations.model.options import ModelOptions, is_url

# Texts tokenized at once at most: bounds memory, and is enough to sort like lengths together. Nothing is computed while
# the first window is tokenized, so that one is small, and each of the next ones `WINDOW_GROWTH` times as large.
FIRST_TEXTS, WINDOW_GROWTH, WINDOW_TEXTS = 256, 4, 4096
# Characters a token that are tokenized of a long text at first (code has 3 to 4), and spare tokens at the cut.
CHARS_READ, CUT_MARGIN_TOKENS = 16, 64
# A progress bar shows for more texts than this, on a terminal only.
PROGRESS_FROM_TEXTS = 2000
DEVICES = ("cpu", "cuda", "mps")
_PROCESS = os.getpid()  # another one was forked from it


class C2LLMEmbedder:
    """A loaded model. Safe to call from many threads: texts that wait at the same time are computed together.

    Attributes: `devices`, where it is loaded; `output_dim`, vector width; `max_length`, tokens read of each text;
    `fingerprint`, all that decides what a vector means; `tokens_seen` and `texts_cut`, running totals since loading.
    """

    def __init__(
        self, checkpoint: Checkpoint, options: ModelOptions, devices: Sequence[torch.device], dtype: torch.dtype
    ) -> None:
        """Call `from_pretrained` or `from_options`, which find the parts by name."""
        self.options = options
        self.projection = None if options.projection is None else Projection.load(options.projection)
        self.checkpoint = of_width(checkpoint, options, self.projection)
        self.head = self.checkpoint.head
        self.prompts: Mapping[str, str] = checkpoint.prompts
        self.normalize = options.normalize
        self.dtype = dtype
        self.devices = list(devices)
        fitted = self.checkpoint.output_dim if self.projection is None else self.projection.matrix.shape[1]
        self.output_dim: int = options.truncate_dim or fitted
        self.tokens_seen = 0
        self.texts_cut = 0
        self._tokenizer = checkpoint.tokenizer()
        self._blank_token = checkpoint.blank_token(self._tokenizer)
        self.max_length = min(options.max_length, longest_text(checkpoint) or options.max_length)
        encoders = [(load_encoder(self.checkpoint, dtype, device), device) for device in devices]
        budget = options.batch_tokens or min(token_budget(checkpoint.sizes, dtype, device) for device in devices)
        self.scheduler = BatchScheduler(encoders, self.checkpoint.output_dim, budget)
        self._counting = threading.Lock()
        self._process = os.getpid()
        self._fingerprint: dict[str, str | int | bool | None] | None = None

    @classmethod
    def from_pretrained(
        cls,
        name: str = "nano",
        *,
        revision: str | None = None,
        output_dim: int | None = None,
        dtype: str = "auto",
        device: str | Sequence[str] = "auto",
        max_length: int = 2048,
        normalize: bool = True,
        head: str | os.PathLike[str] | None = None,
        projection: str | os.PathLike[str] | None = None,
        truncate_dim: int | None = None,
        batch_tokens: int | None = None,
    ) -> C2LLMEmbedder:
        """Load a model by name.

            embedder = C2LLMEmbedder.from_pretrained("nano", output_dim=128)

        Args:
            name: "nano", a folder in the released layout, a hub id such as "codefuse-ai/C2LLM-0.5B", or the address of
                a server such as "http://localhost:8000/v1#MODEL" (`#MODEL` where it has several), whose API key is read
                from C2LLM_API_KEY. The server decides `dtype` and `device`.
            revision: A branch, tag or commit of a hub id.
            output_dim: The width of the vectors: the checkpoint's own, that of a head bundled with it (nano: 128, 64
                and 32), or what the file in `head` or `projection` gives.
            dtype: "float32", "bfloat16", "float16", "int8" or "auto": on CUDA bfloat16 where the GPU computes it, else
                float32; on a CPU what a measurement of some milliseconds finds fastest, int8 only for a checkpoint
                with measured ranges, such as nano.
            device: "auto", "cpu", "cuda", "cuda:1", or several of a kind, ["cuda:0", "cuda:1"] or "cuda:0,cuda:1",
                each of which gets a model and a share of the batches. A warning names one that fails, and the rest
                redo its batches.
            max_length: Tokens read of each text; longer texts are cut at the end.
            normalize: Whether vectors have unit length.
            head: A file that `c2llm train-head` made for this checkpoint, which decides the width.
            projection: A file that `c2llm fit-projection` made for this checkpoint, which decides the width.
            truncate_dim: Keep only the first dimensions (lowest quality).
            batch_tokens: Tokens computed at once; by default what suits the device, fewer where memory is short.

        Raises:
            CheckpointError: For a checkpoint, head or projection that is damaged or does not fit.
            InputError: For an option that is wrong or not available here.
            ServerError: For a server that cannot be reached, or refuses.

        """
        return cls.from_options(
            ModelOptions(
                name=name,
                revision=revision,
                output_dim=output_dim,
                dtype=dtype,
                device=device,  # type: ignore[arg-type]  # several become one string
                max_length=max_length,
                normalize=normalize,
                head=head,  # type: ignore[arg-type]  # a path becomes a string
                projection=projection,  # type: ignore[arg-type]
                truncate_dim=truncate_dim,
                batch_tokens=batch_tokens,
            )
        )

    @classmethod
    def from_options(cls, options: ModelOptions) -> C2LLMEmbedder:
        """Load the model that `options` describe; see `from_pretrained`."""
        if is_url(options.name):
            from c2llm_integrations.model.remote import RemoteEmbedder

            return RemoteEmbedder(options)
        if os.getpid() == _PROCESS:
            return cls._loaded(options)
        # OpenMP's threads belong to the thread that first computed, and did not survive the fork: where that was this
        # one, it would wait for them for ever.
        with ThreadPoolExecutor(1, "c2llm-loading") as fresh:
            return fresh.submit(cls._loaded, options).result()

    @classmethod
    def _loaded(cls, options: ModelOptions) -> C2LLMEmbedder:
        devices = _devices(options.device)
        checkpoint = load_checkpoint(options.name, options.revision)
        return cls(checkpoint, options, devices, _dtype(options.dtype, checkpoint, devices))

    @property
    def fingerprint(self) -> Mapping[str, str | int | bool | None]:
        """Everything that decides what a document vector means, plus the model's name.

        Of "projection", "head" (digests) and "truncate_dim" at most one is there, for vectors of another width.
        """
        if self._fingerprint is None:
            self._fingerprint = {
                "model": self.checkpoint.name,
                "weights": self.checkpoint.digest(),
                "output_dim": self.output_dim,
                "projection": None if self.projection is None else self.projection.digest,
                "document_prompt": prompts.document_prompt(self.prompts),
                "max_length": self.max_length,
                "normalize": self.normalize,
            }
            if self.head is not None:
                self._fingerprint["head"] = self.head.digest
            if self.options.truncate_dim is not None:
                self._fingerprint["truncate_dim"] = self.options.truncate_dim
        return self._fingerprint

    def encode(
        self, texts: Sequence[str], prompt: str = "", *, progress: Progress | bool | None = None
    ) -> NDArray[np.float32]:
        """Embed texts exactly as they are, `prompt` in front of each.

        Args:
            texts: What to embed; one string is one text. A text without tokens gets the vector of a padding token.
            prompt: Put in front of each text.
            progress: Called with (texts done, texts, "embedding") after each batch; True draws a bar on a
                terminal, for long work.

        Returns:
            (n, output_dim) float32, of unit length unless the embedder was loaded with `normalize=False`.

        Raises:
            InputError: Naming the item that is not a string, holds a lone surrogate, or gives NaN.

        """
        return self._encode(_several(texts), prompt, progress)[0]

    def _encode(
        self, texts: list[str], prompt: str, progress: Progress | bool | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return what `encode` does, and the tokens computed of each text."""
        self._require_own_process()
        texts = checked(texts, prompt)
        places = {text: place for place, text in enumerate(dict.fromkeys(texts))}
        known = len(texts) - len(places)
        with progress_bar(len(texts), progress) as report:
            vectors, counts = self._compute(list(places), lambda done: report(known + done))
        if known:
            rows = [places[text] for text in texts]
            vectors, counts = vectors[rows], counts[rows]
        if not np.isfinite(vectors).all():
            bad = int(np.flatnonzero(~np.isfinite(vectors).all(axis=1))[0])
            raise InputError(f"text {bad} gives a vector with NaN or infinity in {self.dtype}; try dtype='float32'")
        if self.projection is not None:
            vectors = vectors @ self.projection.matrix
        vectors = vectors[:, : self.output_dim]
        return (unit_rows(vectors) if self.normalize else vectors), counts

    def encode_queries(
        self, texts: Sequence[str], task: str | None = None, *, progress: Progress | bool | None = None
    ) -> NDArray[np.float32]:
        """Embed questions: put the task's prompt in front and strip the whole at both ends, as published.

        `task`: a task of MTEB(Code, v1), whose published prompt is used; None for the checkpoint's own prompt, else
        that for code search. Everything else is as for `encode`.
        """
        prompted = _prompted(texts, prompts.query_prompt(self.prompts, task))
        return self.encode(prompted, progress=progress)

    def encode_documents(self, texts: Sequence[str], *, progress: Progress | bool | None = None) -> NDArray[np.float32]:
        """Embed documents: put the document prompt in front and strip the whole at both ends, as published.

        Everything else is as for `encode`.
        """
        prompted = _prompted(texts, prompts.document_prompt(self.prompts))
        return self.encode(prompted, progress=progress)

    def encode_and_count(
        self, texts: Sequence[str], kind: str = "document"
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Embed texts with the prompt of their `kind`, "document", "query" or "text" (none), and count their tokens.

        Return vectors as `encode` does, and (n,) the tokens computed of each text.
        """
        if kind == "text":
            return self._encode(_several(texts), "")
        prompt = prompts.query_prompt(self.prompts) if kind == "query" else prompts.document_prompt(self.prompts)
        return self._encode(_prompted(texts, prompt), "")

    def attention(self, text: str) -> list[tuple[int, int, float]]:
        """Return which tokens of a document the pooling weighs most.

        Returns:
            Start, end (in characters) and weight (0…1, the mean over PMA's heads) of each token that is read. The
            weights sum to at most 1; the rest lies on the document prompt.

        Raises:
            InputError: For a text that `encode` refuses.

        """
        self._require_own_process()
        prompt = prompts.document_prompt(self.prompts)
        [whole] = checked([text], prompt)
        moved = len(whole) - len(whole.lstrip()) - len(prompt)  # from the embedded text's characters to the given one's
        tokens = self._tokenizer.encode(whole.strip(), add_special_tokens=False)
        ids = tokens.ids[: self.max_length]
        weights = self.scheduler.workers[0].encoder.attention(ids).mean(1).tolist() if ids else []
        places = [(start + moved, end + moved) for start, end in tokens.offsets[: len(ids)]]
        return [(max(0, start), end, weight) for (start, end), weight in zip(places, weights, strict=True) if end > 0]

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return how many tokens of each text are read, without a prompt: at most `max_length`."""
        counts = map(len, self._tokens(checked(_several(texts), "")))
        return [min(count, self.max_length) for count in counts]

    def unknown_share(self, text: str) -> float:
        """Return the share of a text's letters, 0…1, that the tokenizer does not know."""
        unknown = getattr(self._tokenizer.model, "unk_token", None)
        [read] = checked([text[: CHARS_READ * self.max_length]], "")
        if unknown is None or read.isascii():
            return 0.0
        found = self._tokenizer.encode(read, add_special_tokens=False)
        sizes: Counter[bool] = Counter()
        for token, (start, end) in zip(found.tokens, found.offsets, strict=True):
            sizes[token == unknown] += end - start
        return sizes[True] / max(1, sizes.total())

    def _require_own_process(self) -> None:
        if self._process != os.getpid():
            # The computing threads did not survive the fork, and waiting for them would never end.
            raise InputError("this embedder was loaded before the process was forked; load one in each process")

    def _compute(
        self, texts: list[str], report: Callable[[int], None]
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return (n, trained width) and tokens; while one window of texts is computed, the next is tokenized."""
        vectors = np.empty((len(texts), self.checkpoint.output_dim), np.float32)
        counts = np.zeros(len(texts), np.int64)
        begun: deque[tuple[slice, Job]] = deque()

        def collect() -> None:
            window, job = begun[0]
            vectors[window] = self.scheduler.wait(job, lambda done: report(window.start + done))
            begun.popleft()

        try:
            for window in _windows(len(texts)):
                tokens = self._counted(texts[window])
                counts[window] = list(map(len, tokens))
                begun.append((window, self.scheduler.submit(tokens)))
                if len(begun) > 1:
                    collect()
            if begun:
                collect()
        finally:
            for _, job in begun:
                self.scheduler.cancel(job)
        return vectors, counts

    def _tokens(self, texts: Sequence[str]) -> list[list[int]]:
        """Return each text's token ids; of a long text at least the first `max_length`, but not all."""
        size = CHARS_READ * self.max_length
        found = self._tokenizer.encode_batch_fast([text[:size] for text in texts], add_special_tokens=False)
        tokens = [encoding.ids for encoding in found]
        for index, text in enumerate(texts):
            read = size
            # The last tokens of a cut text may differ from those of the whole one.
            while len(text) > read and len(tokens[index]) < self.max_length + CUT_MARGIN_TOKENS:
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


def _windows(texts: int) -> Iterator[slice]:
    """Yield the places of texts that are tokenized at once."""
    begin, size = 0, min(FIRST_TEXTS, WINDOW_TEXTS)
    while begin < texts:
        yield slice(begin, min(begin + size, texts))
        begin, size = begin + size, min(WINDOW_GROWTH * size, WINDOW_TEXTS)


def unit_rows(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return rows of unit length; a row of zeros stays."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.maximum(lengths, np.finfo(np.float32).tiny)  # type: ignore[no-any-return]


def checked(texts: list[str], prompt: str) -> list[str]:
    """Return texts with the prompt in front; raises InputError naming one that is not a string of whole characters."""
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
    # Anything but a string is left for encode() to name.
    return [(prompt + text).strip() if isinstance(text, str) else text for text in _several(texts)]


def _several(texts: Sequence[str]) -> list[str]:
    """Return texts as a list; one string is one text."""
    if not isinstance(texts, Iterable):
        raise InputError(f"expected a list of texts, got {texts!r:.60} ({type(texts).__name__})")
    return [texts] if isinstance(texts, str) else list(texts)


@contextmanager
def progress_bar(total: int, progress: Progress | bool | None) -> Iterator[Callable[[int], None]]:
    """Yield a callback for the number of texts done."""
    with shown(progress and total >= PROGRESS_FROM_TEXTS if isinstance(progress, bool) else progress) as report:
        yield lambda done: report(done, total, "embedding") if report else None


def _devices(names: str) -> list[torch.device]:
    each = [name.strip() for name in names.split(",")]
    if not all(each) or len({name.partition(":")[0] for name in each}) != 1:
        raise InputError(f"device is {names!r}, expected one device or several of one kind, such as 'cuda:0,cuda:1'")
    return [_device(name) for name in each]


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"unknown device {name!r}; use 'auto', 'cpu', 'cuda' or 'cuda:N'") from None
    if device.type not in DEVICES:
        raise InputError(f"device {name!r} is not supported; use 'auto' or one of {', '.join(DEVICES)}")
    backend = {"cuda": torch.cuda, "mps": torch.mps}.get(device.type)
    count = 1 if backend is None else backend.device_count()
    if not count:
        raise InputError(f"device {name!r} asked for, but this PyTorch sees no such GPU; use device='cpu'")
    if (device.index or 0) >= count:
        raise InputError(f"device {name!r} asked for, but there are {count} of its kind, counted from 0")
    return device


def _dtype(name: str, checkpoint: Checkpoint, devices: Sequence[torch.device]) -> torch.dtype:
    kinds = (torch.float32, torch.bfloat16, torch.float16, torch.int8)
    known = {str(kind).removeprefix("torch."): kind for kind in kinds}
    if name == "auto":
        return best_dtype(checkpoint, devices)
    if name not in known:
        raise InputError(f"unknown dtype {name!r}; use 'auto' or one of {', '.join(known)}")
    return known[name]
