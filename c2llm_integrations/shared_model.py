"""One loaded model for all framework objects of equal settings, and threads that event loops await."""

from __future__ import annotations

import asyncio
import os
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from c2llm_integrations.embedder import C2LLMEmbedder
from c2llm_integrations.errors import InputError
from c2llm_integrations.progress import silent

Floats = list[float]
_T = TypeVar("_T")

# Calls for documents that are computed side by side; more wait. Each keeps its texts and their tokens in memory.
DOCUMENT_THREADS = 4


@dataclass(frozen=True)
class Settings:
    """The arguments of `C2LLMEmbedder.from_pretrained`; equal settings share one model."""

    name: str = "nano"
    revision: str | None = None
    output_dim: int | None = None
    dtype: str = "auto"
    device: str = "auto"
    max_length: int = 2048
    normalize: bool = True
    head: str | None = None
    projection: str | None = None
    truncate: int | None = None
    batch_tokens: int | None = None


def settings_of(framework_object: Any) -> Settings:
    """The settings that a framework's object holds as fields of the same names, the model's as `model_name`."""
    shared = (field.name for field in fields(Settings) if field.name != "name")
    return Settings(framework_object.model_name, **{name: getattr(framework_object, name) for name in shared})


class Awaited:
    """Something that threads of its own serve, for any number of event loops."""

    def __init__(self, threads: int = 1) -> None:
        """`threads`: calls that run at the same time."""
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(threads, "c2llm")

    async def hand_over(self, function: Callable[..., _T], *args: Any, **kwargs: Any) -> _T:
        """Call `function` in a thread and await its result."""
        return await asyncio.wrap_future(self._threads.submit(function, *args, **kwargs))


class SharedModel(Awaited):
    """A model, loaded on first use. Vectors are lists of Python floats; errors are `C2LLMEmbedder`'s.

    Pickled and copied as its settings: a copy shares what is loaded, another process loads its own.
    """

    def __init__(self, settings: Settings) -> None:
        """Call `shared_model` instead, or nothing is shared."""
        super().__init__(DOCUMENT_THREADS)
        self._asking = ThreadPoolExecutor(1, "c2llm-queries")  # so that no question waits for documents
        self.settings = settings
        self._embedder: C2LLMEmbedder | None = None
        self._waiting: deque[tuple[str, str | None, Future[Floats]]] = deque()

    def __reduce__(self) -> tuple[Any, ...]:
        return shared_model, (self.settings,)

    @property
    def embedder(self) -> C2LLMEmbedder:
        """The loaded model; the first call loads it."""
        with self._lock:
            if self._embedder is None:
                options = asdict(self.settings)
                self._embedder = C2LLMEmbedder.from_pretrained(options.pop("name"), **options)
            return self._embedder

    def documents(self, texts: Sequence[str], *, show_progress: bool = False) -> list[Floats]:
        """Embed documents; `show_progress` lets the embedder's bar show, on a terminal and for long work."""
        return _floats(self.embedder.encode_documents(texts, progress=None if show_progress else silent))

    def queries(self, texts: Sequence[str], task: str | None = None) -> list[Floats]:
        """Embed questions with the prompt of `task`."""
        return _floats(self.embedder.encode_queries(texts, task, progress=silent))

    async def aquery(self, text: str, task: str | None = None) -> Floats:
        """Embed one question, in one batch with all that wait at the same time."""
        answer: Future[Floats] = Future()
        self._waiting.append((text, task, answer))
        self._asking.submit(self._answer)
        return await asyncio.wrap_future(answer)

    def _answer(self) -> None:
        groups: defaultdict[str | None, list[tuple[str, Future[Floats]]]] = defaultdict(list)
        for _ in range(len(self._waiting)):
            text, task, answer = self._waiting.popleft()
            if answer.set_running_or_notify_cancel():
                groups[task].append((text, answer))
        for task, group in groups.items():
            self._answer_group(task, group)

    def _answer_group(self, task: str | None, group: list[tuple[str, Future[Floats]]]) -> None:
        try:
            vectors = self.queries([text for text, _ in group], task)
        except Exception as error:
            if isinstance(error, InputError) and len(group) > 1:
                for one in group:  # a text that cannot be embedded must fail alone
                    self._answer_group(task, [one])
                return
            for _, answer in group:
                answer.set_exception(error)
        else:
            for (_, answer), vector in zip(group, vectors, strict=True):
                answer.set_result(vector)


# Keyed by process too: a forked one inherits the handles, but not their threads.
_models: WeakValueDictionary[tuple[int, Settings], SharedModel] = WeakValueDictionary()
_models_lock = threading.Lock()


def shared_model(settings: Settings) -> SharedModel:
    """Return this process's model of these settings; it is freed when nothing refers to it any more."""
    with _models_lock:
        return _models.setdefault((os.getpid(), settings), SharedModel(settings))


def _floats(vectors: NDArray[np.float32]) -> list[Floats]:
    # Row by row: converting a whole matrix in one call would keep every other thread waiting.
    return [row.tolist() for row in vectors]
