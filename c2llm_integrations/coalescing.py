"""Many callers, one or several encoders: texts that wait at the same time are computed together.

Each encoder has a thread that computes, batch after batch. What fits into one batch (a question) is merged with all
else that waits and fits; larger jobs take turns with those and with each other, so none of them keeps a question
waiting. An encoder that raises gets no more batches, and the others redo what it had taken. Where none is left, the
batches themselves are to blame: their callers get the error, and every encoder is used again.
"""

from __future__ import annotations

import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from c2llm_integrations.batching import batches
from c2llm_integrations.encoding.encoder import Encoder, Texts, run


class Job:
    """The texts of one caller; `vectors` (len(tokens), width) float32 fills as batches end."""

    def __init__(self, tokens: Texts, width: int, budget: int, padded: bool) -> None:
        self.tokens = tokens
        self.vectors: NDArray[np.float32] = np.empty((len(tokens), width), np.float32)
        self.done = 0
        self.error: BaseException | None = None
        self.batches = deque(batches([len(ids) for ids in tokens], budget, padded=padded))


Batch = list[tuple[Job, int]]  # texts computed together, each as its job and its place there; longest first


class Worker:
    """An encoder, where it computes, and the thread that calls it; `working` until it raised."""

    def __init__(self, encoder: Encoder, device: torch.device) -> None:
        self.encoder = encoder
        self.device = device
        self.working = True
        self.thread = ThreadPoolExecutor(1, "c2llm-encoder")


class Coalescer:
    """Computes the jobs of any number of threads on encoders of one model."""

    def __init__(self, encoders: Sequence[tuple[Encoder, torch.device]], width: int, budget: int) -> None:
        """`width`: of the encoders' vectors; `budget`: tokens in one batch, halved when a device's memory ends."""
        self.workers = [Worker(encoder, device) for encoder, device in encoders]
        self.width = width
        self.budget = budget
        self._padded = encoders[0][0].padded
        self._changed = threading.Condition()
        self._jobs: list[Job] = []
        self._again: deque[Batch] = deque()  # taken by workers that raised
        self._large_is_next = False
        self._told = False

    def submit(self, tokens: Texts) -> Job:
        """Begin to compute texts of at least one token each; `wait` for the result or `cancel` it."""
        job = Job(tokens, self.width, self.budget, self._padded)
        with self._changed:
            self._jobs.append(job)
        self._start()
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

    def _start(self) -> None:
        for worker in self.workers:
            worker.thread.submit(self._drain, worker)

    def _drain(self, worker: Worker) -> None:
        taken: deque[Batch] = deque()

        def work() -> Iterator[list[Sequence[int]]]:
            while batch := self._next(worker):
                taken.append(batch)
                yield [job.tokens[index] for job, index in batch]

        try:
            for vectors in run(partial(self._within_memory, worker), work(), worker.device):
                self._scatter(taken.popleft(), vectors.numpy())
        except BaseException as error:
            self._give_up(worker, taken, error)

    def _give_up(self, worker: Worker, taken: Sequence[Batch], error: BaseException) -> None:
        """Leave what a worker had taken to the others; where none is left, to the callers, with its error."""
        with self._changed:
            worker.working = False
            others = [other for other in self.workers if other.working]
            if others:
                self._again.extend(taken)
            else:
                for job in {job for batch in taken for job, _ in batch}:
                    job.error = error
                    job.batches.clear()
                for other in self.workers:
                    other.working = True
                self._changed.notify_all()
        self._start()
        if others:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            left = ", ".join(str(other.device) for other in others)
            warnings.warn(f"{worker.device} failed ({reason}); its batches go to {left}", stacklevel=2)

    def _next(self, worker: Worker) -> Batch:
        """Return the texts that this worker has to compute next; none when it has none to do."""
        with self._changed:
            if not worker.working:
                return []
            if self._again:
                return self._again.popleft()
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
            merged: Batch = []
            for job in small:
                more = [len(job.tokens[index]) for index in job.batches[0]]
                if not merged or self._cost(lengths + more) <= self.budget:
                    lengths += more
                    merged += [(job, index) for index in job.batches.popleft()]
            return sorted(merged, key=lambda one: -len(one[0].tokens[one[1]]))

    def _cost(self, lengths: Sequence[int]) -> int:
        return max(lengths) * len(lengths) if self._padded else sum(lengths)

    def _scatter(self, batch: Batch, vectors: NDArray[np.float32]) -> None:
        with self._changed:
            for (job, index), vector in zip(batch, vectors, strict=True):
                job.vectors[index] = vector
                job.done += 1
            self._changed.notify_all()

    def _within_memory(self, worker: Worker, texts: Texts) -> torch.Tensor:
        """Encode a batch; where it does not fit the device's memory, in halves, and smaller batches from then on."""
        try:
            return worker.encoder(texts)
        except torch.OutOfMemoryError:
            if len(texts) == 1:
                raise
        if not self._told:
            self._told = True
            warnings.warn(f"{worker.device} has no memory for {sum(map(len, texts))} tokens at once", stacklevel=2)
        self.budget = max(1, min(self.budget, self._cost([len(text) for text in texts])) // 2)
        middle = len(texts) // 2
        return torch.cat([self._within_memory(worker, half) for half in (texts[:middle], texts[middle:])])
