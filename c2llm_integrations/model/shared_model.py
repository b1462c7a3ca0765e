"""One loaded model for all framework objects of equal options, and threads that event loops await.

Imports no torch: a framework's adapter loads it with the first text.
"""

from __future__ import annotations

import asyncio
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakSet, WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from c2llm_integrations._utils.fork import watched
from c2llm_integrations.errors import InputError
from c2llm_integrations.model.options import ModelOptions

if TYPE_CHECKING:
    from c2llm_integrations.model.embedder import C2LLMEmbedder

Floats = list[float]
_T = TypeVar("_T")

# Calls for documents that are computed side by side; more wait. Each keeps its texts and their tokens in memory.
DOCUMENT_THREADS = 4


class Awaited:
    """An object served by its own threads, for any number of event loops; in a forked process it begins anew."""

    def __init__(self, threads: int = 1) -> None:
        """Take the number of calls that run at the same time."""
        self._thread_count = threads
        self._begin()
        _awaited.add(self)

    def _begin(self) -> None:
        """Forget all that a fork does not take along: threads, and what waits for them or was made with them."""
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(self._thread_count, "c2llm")

    async def hand_over(self, function: Callable[..., _T], *args: Any, **kwargs: Any) -> _T:
        """Call `function` in a thread and await its result."""
        return await asyncio.wrap_future(self._threads.submit(function, *args, **kwargs))


_awaited: WeakSet[Awaited] = watched(lambda one: one._begin())


class SharedModel(Awaited):
    """A model, loaded on first use. Vectors are lists of Python floats; errors are `C2LLMEmbedder`'s.

    Pickled and copied as its options: a copy shares the loaded model, another process loads its own.
    """

    def __init__(self, options: ModelOptions) -> None:
        """Call `shared_model` instead, or nothing is shared."""
        super().__init__(DOCUMENT_THREADS)
        self.options = options

    def _begin(self) -> None:
        super()._begin()
        self._asking = ThreadPoolExecutor(1, "c2llm-queries")  # so that no question waits for documents
        self._embedder: C2LLMEmbedder | None = None
        self._waiting: deque[tuple[str, str | None, Future[Floats]]] = deque()

    def __reduce__(self) -> tuple[Any, ...]:
        return shared_model, (self.options,)

    @property
    def embedder(self) -> C2LLMEmbedder:
        """The loaded model; the first call loads it."""
        from c2llm_integrations.model.embedder import C2LLMEmbedder  # here, because it brings torch

        with self._lock:
            if self._embedder is None:
                self._embedder = C2LLMEmbedder.from_options(self.options)
            return self._embedder

    def documents(self, texts: Sequence[str], *, progress: bool = False) -> list[Floats]:
        """Embed documents; `progress` lets the embedder's bar show, on a terminal and for long work."""
        return _floats(self.embedder.encode_documents(texts, progress=progress))

    def queries(self, texts: Sequence[str], task: str | None = None) -> list[Floats]:
        """Embed questions with the prompt of `task`."""
        return _floats(self.embedder.encode_queries(texts, task))

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
        except BaseException as error:  # a tokenizer in Rust panics with one, and whoever awaits must be told
            if isinstance(error, InputError) and len(group) > 1:
                for one in group:  # a text that cannot be embedded must fail alone
                    self._answer_group(task, [one])
                return
            for _, answer in group:
                answer.set_exception(error)
        else:
            for (_, answer), vector in zip(group, vectors, strict=True):
                answer.set_result(vector)


_models: WeakValueDictionary[ModelOptions, SharedModel] = WeakValueDictionary()
_models_lock = threading.Lock()


def shared_model(options: ModelOptions) -> SharedModel:
    """Return this process's model of these options; it is freed when nothing refers to it any more."""
    with _models_lock:
        return _models.setdefault(options, SharedModel(options))


def _floats(vectors: NDArray[np.float32]) -> list[Floats]:
    # Row by row: converting a whole matrix in one call would keep every other thread waiting.
    return [row.tolist() for row in vectors]
