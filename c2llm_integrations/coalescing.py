"""Many callers, one encoder: texts that wait at the same time are computed together.

A thread of its own computes, batch after batch. What fits into one batch (a question) is merged with all else that
waits and fits; larger jobs take turns with those and with each other, so none of them keeps a question waiting.
"""

from __future__ import annotations

import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray

from c2llm_integrations.batching import batches
from c2llm_integrations.encoder import Encoder, Texts, run


class Job:
    """The texts of one caller; `vectors` (len(tokens), width) float32 fills as batches end."""

    def __init__(self, tokens: Texts, width: int, budget: int, padded: bool) -> None:
        self.tokens = tokens
        self.vectors: NDArray[np.float32] = np.empty((len(tokens), width), np.float32)
        self.done = 0
        self.error: BaseException | None = None
        self.batches = deque(batches([len(ids) for ids in tokens], budget, padded=padded))


class Coalescer:
    """Computes the jobs of any number of threads on one encoder."""

    def __init__(self, encoder: Encoder, device: torch.device, width: int, budget: int) -> None:
        """`width`: of the encoder's vectors; `budget`: tokens in one batch, halved when the device's memory ends."""
        self.encoder = encoder
        self.device = device
        self.width = width
        self.budget = budget
        self._thread = ThreadPoolExecutor(1, "c2llm-encoder")
        self._changed = threading.Condition()
        self._jobs: list[Job] = []
        self._large_is_next = False
        self._told = False

    def submit(self, tokens: Texts) -> Job:
        """Begin to compute texts of at least one token each; `wait` for the result or `cancel` it."""
        job = Job(tokens, self.width, self.budget, self.encoder.padded)
        with self._changed:
            self._jobs.append(job)
        self._thread.submit(self._drain)
        return job

    def wait(self, job: Job, report: Callable[[int], None]) -> NDArray[np.float32]:
        """Return the job's vectors; `report(texts done)` is called in this thread. Raises what the encoder raised."""
        seen = 0
        while seen < len(job.tokens):
            with self._changed:
                self._changed.wait_for(lambda: job.error is not None or job.done > seen)  # noqa: B023
                if job.error is not None:
                    raise job.error
                seen = job.done
            report(seen)
        return job.vectors

    def cancel(self, job: Job) -> None:
        """Compute no further batch of a job that nobody waits for; cancelling a finished one does nothing."""
        with self._changed:
            job.batches.clear()

    def _drain(self) -> None:
        taken: deque[list[tuple[Job, int]]] = deque()

        def work() -> Iterator[list[Sequence[int]]]:
            while batch := self._next():
                taken.append(batch)
                yield [job.tokens[index] for job, index in batch]

        while True:
            try:
                for vectors in run(self._within_memory, work(), self.device):
                    self._scatter(taken.popleft(), vectors.numpy())
                return
            except BaseException as error:
                with self._changed:
                    for job in {job for batch in taken for job, _ in batch}:
                        job.error = error
                        job.batches.clear()
                    taken.clear()
                    self._changed.notify_all()

    def _next(self) -> list[tuple[Job, int]]:
        """Return the texts to compute next, each as its job and place in it; longest first."""
        with self._changed:
            self._jobs = [job for job in self._jobs if job.batches]
            large = [job for job in self._jobs if len(job.batches) > 1]
            small = [job for job in self._jobs if len(job.batches) == 1]
            if large and (self._large_is_next or not small):
                self._large_is_next = False
                self._jobs.remove(large[0])
                self._jobs.append(large[0])
                return [(large[0], index) for index in large[0].batches.popleft()]
            self._large_is_next = True
            lengths: list[int] = []
            merged: list[tuple[Job, int]] = []
            for job in small:
                more = [len(job.tokens[index]) for index in job.batches[0]]
                if not merged or self._cost(lengths + more) <= self.budget:
                    lengths += more
                    merged += [(job, index) for index in job.batches.popleft()]
            return sorted(merged, key=lambda one: -len(one[0].tokens[one[1]]))

    def _cost(self, lengths: Sequence[int]) -> int:
        return max(lengths) * len(lengths) if self.encoder.padded else sum(lengths)

    def _scatter(self, batch: Sequence[tuple[Job, int]], vectors: NDArray[np.float32]) -> None:
        with self._changed:
            for (job, index), vector in zip(batch, vectors, strict=True):
                job.vectors[index] = vector
                job.done += 1
            self._changed.notify_all()

    def _within_memory(self, texts: Texts) -> torch.Tensor:
        """Encode a batch; where it does not fit the device's memory, in halves, and smaller batches from then on."""
        try:
            return self.encoder(texts)
        except torch.OutOfMemoryError:
            if len(texts) == 1:
                raise
        if not self._told:
            self._told = True
            warnings.warn(f"{self.device} has no memory for {sum(map(len, texts))} tokens at once", stacklevel=2)
        self.budget = max(1, min(self.budget, self._cost([len(text) for text in texts])) // 2)
        middle = len(texts) // 2
        return torch.cat([self._within_memory(texts[:middle]), self._within_memory(texts[middle:])])
