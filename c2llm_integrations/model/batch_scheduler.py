"""Share encoders among many callers: texts that wait at the same time are computed together.

Each encoder has a thread that computes. A job that fits into one batch (a question) is merged with all others that wait
and fit; larger jobs take turns with those and with each other, so a question never waits for a whole job. While more
than one batch waits, an encoder runs several at once in lanes, and many questions are shared out among the lanes, so
that some callers ask their next one while the rest are computed. An encoder that raises gets no more batches, and the
other encoders redo the ones it had. If all of them raise, the batches themselves are to blame: their callers get the
error, and every encoder is used again.

`plan_batches`, `choose` and `Budget` decide; `BatchScheduler` holds the threads and the lock.
"""

from __future__ import annotations

import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from enum import Enum, auto
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from c2llm_integrations.model.encoder import Encoder, Texts, is_out_of_memory
from c2llm_integrations.model.parallel_batches import lane_count, lanes

SHARE_TOKENS = 288  # fewer are not shared out among lanes
LEAST_TOKENS = 256  # the budget never falls below, however often a device runs out of memory
GROW_AFTER, GROW_AFTER_MOST = 16, 1024  # batches that fit before the budget doubles again; twice as many each time
GATHER_SECONDS = 0.002  # for which an idle lane lets questions gather while another one computes


def plan_batches(lengths: Sequence[int], budget: int, *, padded: bool = False) -> Iterator[list[int]]:
    """Yield lists of indices of texts by their `lengths`, longest first, each at most `budget` tokens.

    A longer text stands alone, like lengths come together, and every index is yielded exactly once. `padded`: a batch
    costs its size times its longest text, not the sum.
    """
    batch: list[int] = []
    used = 0
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        cost = lengths[batch[0]] if padded and batch else lengths[index]
        if batch and used + cost > budget:
            yield batch
            batch, used = [], 0
            cost = lengths[index]
        batch.append(index)
        used += cost
    if batch:
        yield batch


def cost_of(lengths: Sequence[int], padded: bool) -> int:
    """Return the tokens computed for texts of these lengths."""
    return max(lengths) * len(lengths) if padded else sum(lengths)


class Turn(Enum):
    """The kind of job that the next batch is taken from, if both kinds wait."""

    SMALL = auto()  # jobs with one batch left; several are computed together
    LARGE = auto()  # jobs with more batches


class Planned(NamedTuple):
    """One batch of a job: the places of its texts there and their lengths, longest first."""

    rows: list[int]
    lengths: list[int]


def choose(jobs: Sequence[Sequence[Planned]], turn: Turn, *, budget: int, lane_count: int, padded: bool) -> list[int]:
    """Return the places of the jobs whose next batches are computed together: one large job, or small ones that fit.

    At least one job is chosen if any waits. `jobs`: each one's batches, in the order of turns; a large one has several.
    `turn` decides if both kinds wait; `budget` tokens fit into one batch; of many small jobs only the share of one of
    `lane_count` lanes is taken.
    """
    large = [place for place, batches in enumerate(jobs) if len(batches) > 1]
    small = [place for place, batches in enumerate(jobs) if len(batches) == 1]
    if large and (turn is Turn.LARGE or not small):
        return large[:1]
    tokens = sum(sum(jobs[place][0].lengths) for place in small)
    limit = min(budget, max(SHARE_TOKENS, -(-tokens // lane_count)))
    chosen: list[int] = []
    lengths: list[int] = []
    for place in small:
        more = jobs[place][0].lengths
        if not chosen or cost_of([*lengths, *more], padded) <= limit:
            chosen.append(place)
            lengths += more
    return chosen


class Budget:
    """The tokens of one batch: fewer for a while after running out of memory, then up to `full` again."""

    def __init__(self, full: int) -> None:
        self.full = self.tokens = full
        self._fitted, self._grow_after = 0, GROW_AFTER

    def note_out_of_memory(self, cost: int) -> None:
        """Halve after a batch of this cost ran out of memory."""
        self.tokens = max(min(LEAST_TOKENS, self.full), min(self.tokens, cost) // 2)
        self._fitted, self._grow_after = 0, min(2 * self._grow_after, GROW_AFTER_MOST)

    def note_fit(self, cost: int) -> None:
        """Double again after enough batches of about the full size that fit: whatever took the memory may be gone."""
        if self.tokens < self.full and cost > self.tokens // 2:
            self._fitted += 1
        if self._fitted >= self._grow_after:
            self.tokens, self._fitted = min(self.full, 2 * self.tokens), 0


class Job:
    """The texts of one caller; `vectors` (len(tokens), width) float32 fills as batches end."""

    def __init__(self, tokens: Texts, width: int, batches: Sequence[list[int]], lock: threading.RLock) -> None:
        self.tokens = tokens
        self.vectors: NDArray[np.float32] = np.empty((len(tokens), width), np.float32)
        self.batches = deque(Planned(rows, [len(tokens[row]) for row in rows]) for rows in batches)
        self.done = 0
        self.error: BaseException | None = None
        self.changed = threading.Condition(lock)


class Text(NamedTuple):
    """One text of a job."""

    job: Job
    row: int

    @property
    def tokens(self) -> Sequence[int]:
        """The text's token ids."""
        return self.job.tokens[self.row]


Batch = list[Text]  # computed together, longest first


class State(Enum):
    """The state of a worker's thread."""

    ASLEEP = auto()  # ended: `_wake` starts it
    AWAKE = auto()  # computes, or will look for batches
    FAILED = auto()  # its encoder raised: it gets no batch while another one works


class Worker:
    """An encoder, its device, and the thread that calls it, itself or in lanes.

    `busy`: the number of lanes that compute.
    """

    def __init__(self, encoder: Encoder, device: torch.device) -> None:
        self.encoder = encoder
        self.device = device
        self.lane_count = lane_count(device)
        self.runner = ThreadPoolExecutor(1, "c2llm-encoder")
        self.state = State.ASLEEP
        self.busy = 0

    @cached_property
    def lane_pool(self) -> ThreadPoolExecutor:
        """The lanes' threads, started when they are first needed."""
        return lanes(self.device)


class BatchScheduler:
    """Compute the jobs of any number of threads on encoders of one model."""

    def __init__(self, encoders: Sequence[tuple[Encoder, torch.device]], width: int, budget: int) -> None:
        """Take the encoders, the `width` of their vectors, and the `budget`: the most tokens of one batch."""
        self.workers = [Worker(encoder, device) for encoder, device in encoders]
        self.width = width
        self.budget = Budget(budget)
        self._padded = encoders[0][0].padded
        self._lock = threading.RLock()
        self._arrived = threading.Condition(self._lock)
        self._jobs: list[Job] = []
        self._again: deque[Batch] = deque()  # taken by workers that raised
        self._turn = Turn.SMALL
        self._has_warned = False

    def limit(self, budget: int) -> None:
        """Compute at most `budget` tokens at once from now on."""
        self.budget = Budget(budget)

    def submit(self, tokens: Texts) -> Job:
        """Begin to compute texts of at least one token each; call `wait` for the result, or `cancel`."""
        planned = list(plan_batches([len(ids) for ids in tokens], self.budget.tokens, padded=self._padded))
        job = Job(tokens, self.width, planned, self._lock)
        with self._lock:
            self._jobs.append(job)
            self._wake()
        return job

    def wait(self, job: Job, report: Callable[[int], None]) -> NDArray[np.float32]:
        """Return the job's vectors; `report(texts done)` is called in this thread. Raises what the encoder raised."""
        seen = 0
        while seen < len(job.tokens):
            with self._lock:
                while job.error is None and job.done == seen:
                    job.changed.wait()
                if job.error is not None:
                    raise job.error
                seen = job.done
            report(seen)
        return job.vectors

    def cancel(self, job: Job) -> None:
        """Compute no further batch of a job that nobody waits for; canceling a finished one does nothing."""
        with self._lock:
            job.batches.clear()

    def _wake(self) -> None:
        """Wake the workers that could compute what waits; the caller holds the lock."""
        self._arrived.notify_all()
        for worker in self.workers:
            if worker.state is State.ASLEEP:
                worker.state = State.AWAKE
                worker.runner.submit(self._drain, worker)

    def _drain(self, worker: Worker) -> None:
        """Compute until nothing waits; runs in the worker's thread."""
        while True:
            with self._lock:
                first = [batch for _ in range(min(worker.lane_count, 2)) if (batch := self._next(worker))]
                if not first and worker.state is State.AWAKE:
                    worker.state = State.ASLEEP
            if not first:
                return
            if len(first) == 1:  # computed alone, on all cores of a CPU
                self._compute(worker, first[0])
                continue
            worker.busy = worker.lane_count
            idle: list[Batch] = [[]] * (worker.lane_count - len(first))
            list(worker.lane_pool.map(lambda batch: self._run_lane(worker, batch), first + idle))

    def _run_lane(self, worker: Worker, batch: Batch) -> None:
        """Compute this batch, if any, and then further ones, until no lane of the worker finds another."""
        while batch or (batch := self._next_beside(worker)):
            self._compute(worker, batch)
            batch = []

    def _next_beside(self, worker: Worker) -> Batch:
        """Return a lane's next batch; wait for one while other lanes compute, and return [] when all are idle."""
        with self._lock:
            if batch := self._next(worker):
                return batch
            worker.busy -= 1
            while worker.busy:
                self._arrived.wait()
                self._arrived.wait_for(lambda: not worker.busy, GATHER_SECONDS)
                if batch := self._next(worker):
                    worker.busy += 1
                    return batch
            self._arrived.notify_all()  # end the other lanes that wait
            return []

    def _compute(self, worker: Worker, batch: Batch) -> None:
        try:
            vectors = self._within_memory(worker, [text.tokens for text in batch]).numpy()
        except BaseException as error:
            self._give_up(worker, batch, error)
            return
        with self._lock:
            for text, vector in zip(batch, vectors, strict=True):
                text.job.vectors[text.row] = vector
                text.job.done += 1
            for job in {text.job for text in batch}:
                job.changed.notify_all()

    def _give_up(self, worker: Worker, taken: Batch, error: BaseException) -> None:
        """Requeue the batch of a worker that raised; if no worker is left, pass the error to the batch's callers."""
        with self._lock:
            is_first = worker.state is not State.FAILED  # its lanes may all raise
            worker.state = State.FAILED
            others = [other for other in self.workers if other.state is not State.FAILED]
            if others:
                self._again.append(taken)
            else:
                for job in {text.job for text in taken}:
                    job.error = error
                    job.batches.clear()
                    job.changed.notify_all()
                for other in self.workers:
                    other.state = State.ASLEEP
            self._wake()
        if others and is_first:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            left = ", ".join(str(other.device) for other in others)
            warnings.warn(f"{worker.device} failed ({reason}); its batches go to {left}", stacklevel=2)

    def _next(self, worker: Worker) -> Batch:
        """Return the texts that this worker computes next, [] if none wait; the caller holds the lock."""
        if worker.state is State.FAILED:
            return []
        if self._again:
            return self._again.popleft()
        self._jobs = [job for job in self._jobs if job.batches]
        waiting = [job.batches for job in self._jobs]
        budget = self.budget.tokens
        places = choose(waiting, self._turn, budget=budget, lane_count=worker.lane_count, padded=self._padded)
        if not places:
            return []
        is_large = len(waiting[places[0]]) > 1
        self._turn = Turn.SMALL if is_large else Turn.LARGE
        chosen = [self._jobs[place] for place in places]
        batch = [Text(job, row) for job in chosen for row in job.batches.popleft().rows]
        if is_large:  # it goes behind the others
            self._jobs.append(self._jobs.pop(places[0]))
        return sorted(batch, key=lambda text: -len(text.tokens))

    def _within_memory(self, worker: Worker, texts: Texts) -> torch.Tensor:
        """Encode a batch; if the device runs out of memory, encode its halves and shrink the budget for a while."""
        cost = cost_of([len(text) for text in texts], self._padded)
        try:
            vectors = worker.encoder(texts)
        except (RuntimeError, MemoryError) as error:
            if len(texts) == 1 or not is_out_of_memory(error):
                raise
        else:
            with self._lock:
                self.budget.note_fit(cost)
            return vectors
        if worker.device.type == "cuda":
            torch.cuda.empty_cache()  # its free blocks may lie in pieces
        with self._lock:
            warn, self._has_warned = not self._has_warned, True
            self.budget.note_out_of_memory(cost)
        if warn:
            warnings.warn(f"{worker.device} has no memory for {sum(map(len, texts))} tokens at once", stacklevel=2)
        middle = len(texts) // 2
        return torch.cat([self._within_memory(worker, half) for half in (texts[:middle], texts[middle:])])
