"""Many callers, one or several encoders: texts that wait at the same time are computed together.

Each encoder has a thread that computes. What fits into one batch (a question) is merged with all else that waits and
fits; larger jobs take turns with those and with each other, so none of them keeps a question waiting. While more waits
than one batch, an encoder's batches go side by side in lanes, and many questions are shared out among these, so that
some callers ask their next one while the others' are computed. An encoder that raises gets no more batches, and the
others redo what it had taken. Where none is left, the batches themselves are to blame: their callers get the error, and
every encoder is used again.
"""

from __future__ import annotations

import threading
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from c2llm_integrations.batching import batches
from c2llm_integrations.encoding.encoder import Encoder, Texts
from c2llm_integrations.encoding.lanes import lane_count, lanes

SHARE = 288  # tokens: fewer are not shared out among lanes
WINDOW = 0.002  # seconds in which a lane that ran out of work, beside one that computes, lets questions gather


class Job:
    """The texts of one caller; `vectors` (len(tokens), width) float32 fills as batches end."""

    def __init__(self, tokens: Texts, width: int, batches: Sequence[list[int]], lock: threading.RLock) -> None:
        self.tokens = tokens
        self.vectors: NDArray[np.float32] = np.empty((len(tokens), width), np.float32)
        self.batches = deque(batches)
        self.done = 0
        self.error: BaseException | None = None
        self.changed = threading.Condition(lock)


Batch = list[tuple[Job, int]]  # texts computed together, each as its job and its place there; longest first


class Worker:
    """An encoder, where it computes, and the thread that calls it or lets its lanes do so; `working` until it raised.

    `awake`: the thread will look for batches again; `busy`: how many lanes compute.
    """

    def __init__(self, encoder: Encoder, device: torch.device) -> None:
        self.encoder = encoder
        self.device = device
        self.lanes = lane_count(device)
        self.thread = ThreadPoolExecutor(1, "c2llm-encoder")
        self.working = True
        self.awake = False
        self.busy = 0

    @cached_property
    def threads(self) -> ThreadPoolExecutor:
        """The lanes' threads, begun when they are first needed."""
        return lanes(self.device)


class Coalescer:
    """Computes the jobs of any number of threads on encoders of one model."""

    def __init__(self, encoders: Sequence[tuple[Encoder, torch.device]], width: int, budget: int) -> None:
        """`width`: of the encoders' vectors; `budget`: tokens in one batch, halved when a device's memory ends."""
        self.workers = [Worker(encoder, device) for encoder, device in encoders]
        self.width = width
        self.budget = budget
        self._padded = encoders[0][0].padded
        self._lock = threading.RLock()
        self._arrived = threading.Condition(self._lock)
        self._jobs: list[Job] = []
        self._again: deque[Batch] = deque()  # taken by workers that raised
        self._large_is_next = False
        self._told = False

    def submit(self, tokens: Texts) -> Job:
        """Begin to compute texts of at least one token each; `wait` for the result or `cancel` it."""
        planned = list(batches([len(ids) for ids in tokens], self.budget, padded=self._padded))
        job = Job(tokens, self.width, planned, self._lock)
        with self._lock:
            self._jobs.append(job)
            self._start()
        return job

    def wait(self, job: Job, report: Callable[[int], None]) -> NDArray[np.float32]:
        """Return the job's vectors; `report(texts done)` is called in this thread. Raises what the encoder raised."""
        seen = 0
        while seen < len(job.tokens):
            with self._lock:
                job.changed.wait_for(lambda: job.error is not None or job.done > seen)  # noqa: B023
                if job.error is not None:
                    raise job.error
                seen = job.done
            report(seen)
        return job.vectors

    def cancel(self, job: Job) -> None:
        """Compute no further batch of a job that nobody waits for; cancelling a finished one does nothing."""
        with self._lock:
            job.batches.clear()

    def _start(self) -> None:
        """Wake who could compute what waits; the caller holds the lock."""
        self._arrived.notify_all()
        for worker in self.workers:
            if not worker.awake:
                worker.awake = True
                worker.thread.submit(self._drain, worker)

    def _drain(self, worker: Worker) -> None:
        while first := self._first(worker):
            if len(first) == 1:
                self._compute(worker, first[0])
            else:
                worker.busy = worker.lanes
                idle: list[Batch] = [[]] * (worker.lanes - len(first))
                list(worker.threads.map(lambda batch: self._lane(worker, batch), first + idle))

    def _first(self, worker: Worker) -> list[Batch]:
        """Return a batch to compute alone, or two to begin with side by side; none when nothing waits."""
        with self._lock:
            found = [batch for _ in range(min(worker.lanes, 2)) if (batch := self._next(worker))]
            worker.awake = bool(found)
            return found

    def _lane(self, worker: Worker, batch: Batch) -> None:
        while batch or (batch := self._next_beside(worker)):
            self._compute(worker, batch)
            batch = []

    def _next_beside(self, worker: Worker) -> Batch:
        """Return a lane's next batch, which it waits for while other lanes compute; none when no lane does."""
        with self._lock:
            batch = self._next(worker)
            worker.busy -= not batch
            while worker.busy and not batch:
                self._arrived.wait()
                self._arrived.wait_for(lambda: not worker.busy, WINDOW)
                batch = self._next(worker)
                worker.busy += bool(batch)
            if not worker.busy:
                self._arrived.notify_all()
            return batch

    def _compute(self, worker: Worker, batch: Batch) -> None:
        try:
            found = self._within_memory(worker, [job.tokens[index] for job, index in batch]).numpy()
        except BaseException as error:
            self._give_up(worker, batch, error)
            return
        with self._lock:
            for (job, index), vector in zip(batch, found, strict=True):
                job.vectors[index] = vector
                job.done += 1
            for job in {job for job, _ in batch}:
                job.changed.notify_all()

    def _give_up(self, worker: Worker, taken: Batch, error: BaseException) -> None:
        """Leave a batch on which a worker raised to the others; where none is left, to the callers, with its error."""
        with self._lock:
            first, worker.working = worker.working, False
            others = [other for other in self.workers if other.working]
            if others:
                self._again.append(taken)
            else:
                for job in {job for job, _ in taken}:
                    job.error = error
                    job.batches.clear()
                    job.changed.notify_all()
                for other in self.workers:
                    other.working = True
            self._start()
        if others and first:  # its lanes may all raise
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            left = ", ".join(str(other.device) for other in others)
            warnings.warn(f"{worker.device} failed ({reason}); its batches go to {left}", stacklevel=2)

    def _next(self, worker: Worker) -> Batch:
        """Return the texts that this worker has to compute next, none when nothing waits; the caller holds the lock."""
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
        return self._merged(small, worker.lanes)

    def _merged(self, small: Sequence[Job], lanes: int) -> Batch:
        """Take the first jobs that fit into a batch; of many no more than one lane's share."""
        waiting = sum(len(job.tokens[index]) for job in small for index in job.batches[0])
        limit = min(self.budget, max(SHARE, -(-waiting // lanes)))
        lengths: list[int] = []
        merged: Batch = []
        for job in small:
            more = [len(job.tokens[index]) for index in job.batches[0]]
            if not merged or self._cost(lengths + more) <= limit:
                lengths += more
                merged += [(job, index) for index in job.batches.popleft()]
        return sorted(merged, key=lambda one: -len(one[0].tokens[one[1]]))

    def _cost(self, lengths: Sequence[int]) -> int:
        return max(lengths) * len(lengths) if self._padded else sum(lengths)

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
