"""Many callers of few encoders: right vectors for each, batches together, no caller starved, errors kept apart."""

import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from c2llm_integrations.model.batch_scheduler import (
    GROW_AFTER,
    GROW_AFTER_MOST,
    LEAST_TOKENS,
    SHARE_TOKENS,
    BatchScheduler,
    Budget,
    Planned,
    State,
    Turn,
    choose,
    cost_of,
    plan_batches,
)
from c2llm_integrations.model.parallel_batches import GPU_LANES

CPU = torch.device("cpu")


class Summing:
    """Gives each text the sum and the length of its ids; remembers its batches; waits for `gate` before each."""

    padded = False

    def __init__(self, gate=None):
        self.batches = []
        self.gate = gate
        self.entered = threading.Event()

    def __call__(self, texts):
        self.entered.set()
        if self.gate is not None:
            self.gate.acquire()
        self.batches.append([list(text) for text in texts])
        return torch.tensor([[float(sum(text)), float(len(text))] for text in texts])


def silent(_done):
    pass


def expected(tokens):
    return np.array([[sum(text), len(text)] for text in tokens], np.float32).reshape(-1, 2)


def at_once(scheduler, *many):
    """Submit jobs that arrive at the same time."""
    with scheduler._lock:
        return [scheduler.submit(tokens) for tokens in many]


texts = st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=12), max_size=12)


@given(st.lists(texts, max_size=8), st.integers(1, 30), st.booleans())
@settings(max_examples=40)
def test_every_caller_gets_its_own_vectors_whatever_else_waits(jobs, budget, padded):
    encoder = Summing()
    encoder.padded = padded
    scheduler = BatchScheduler([(encoder, CPU)], 2, budget)
    started = at_once(scheduler, *jobs)
    for tokens, job in zip(jobs, started, strict=True):
        np.testing.assert_array_equal(scheduler.wait(job, silent), expected(tokens))
    computed = sum(len(batch) for batch in encoder.batches)
    assert computed == sum(map(len, jobs))
    for batch in encoder.batches:
        cost = max(map(len, batch)) * len(batch) if padded else sum(map(len, batch))
        assert cost <= budget or len(batch) == 1


class Breaking(Summing):
    """Raises from its `good`-th batch on, as a device does that is lost."""

    def __init__(self, good=0, gate=None):
        super().__init__(gate)
        self.good = good
        self.failures = 0

    def __call__(self, texts):
        if len(self.batches) >= self.good:
            self.failures += 1
            self.entered.set()
            raise RuntimeError("device lost")
        return super().__call__(texts)


@given(st.lists(texts, min_size=1, max_size=6), st.integers(1, 30), st.integers(0, 3))
@settings(max_examples=40)
@pytest.mark.filterwarnings("ignore:cpu failed")
def test_several_encoders_share_the_work_and_one_may_break(jobs, budget, good):
    encoders = [Breaking(good), Summing(), Summing()]
    scheduler = BatchScheduler([(encoder, CPU) for encoder in encoders], 2, budget)
    started = at_once(scheduler, *jobs)
    for tokens, job in zip(jobs, started, strict=True):
        np.testing.assert_array_equal(scheduler.wait(job, silent), expected(tokens))
    assert sum(len(batch) for one in encoders for batch in one.batches) >= sum(map(len, jobs))


def test_work_goes_to_every_encoder():
    both = threading.Barrier(2)

    class Meeting(Summing):
        def __call__(self, texts):
            with self.own:  # of its lanes one waits for the other encoder
                if len(self.batches) < 20:
                    both.wait()  # passes only while both encoders compute
                return super().__call__(texts)

    encoders = [Meeting(), Meeting()]
    for encoder in encoders:
        encoder.own = threading.Lock()
    scheduler = BatchScheduler([(encoder, CPU) for encoder in encoders], 2, 4)
    tokens = [[n, 1, 1, 1] for n in range(100)]
    np.testing.assert_array_equal(scheduler.wait(scheduler.submit(tokens), silent), expected(tokens))
    assert min(len(encoder.batches) for encoder in encoders) >= 20


def test_an_encoder_that_breaks_is_told_of_once_and_used_no_more():
    broken, sound = Breaking(), Summing(threading.Semaphore(0))
    scheduler = BatchScheduler([(broken, torch.device("meta")), (sound, CPU)], 2, 4)
    tokens = [[n, n] for n in range(40)]

    def work():
        job = scheduler.submit(tokens)
        broken.entered.wait()
        sound.gate.release(1000)
        return scheduler.wait(job, silent)

    with pytest.warns(UserWarning, match="meta failed .RuntimeError: device lost.; its batches go to cpu") as told:
        vectors = work()
    np.testing.assert_array_equal(vectors, expected(tokens))
    assert len(told) == 1
    failures = broken.failures  # of the batches begun side by side
    np.testing.assert_array_equal(scheduler.wait(scheduler.submit(tokens), silent), expected(tokens))
    assert broken.failures == failures <= GPU_LANES + 1


@pytest.mark.filterwarnings("ignore:cpu failed")
def test_where_every_encoder_raises_the_caller_gets_the_error_and_all_are_used_again():
    encoders = [Breaking(), Breaking()]
    scheduler = BatchScheduler([(encoder, CPU) for encoder in encoders], 2, 4)
    with pytest.raises(RuntimeError, match="device lost"):
        scheduler.wait(scheduler.submit([[1, 2]]), silent)
    for encoder in encoders:
        encoder.good = 1000
    tokens = [[n] for n in range(20)]
    np.testing.assert_array_equal(scheduler.wait(scheduler.submit(tokens), silent), expected(tokens))
    assert all(worker.state is not State.FAILED for worker in scheduler.workers)


def test_what_waits_at_the_same_time_is_one_batch():
    gate = threading.Semaphore(0)
    encoder = Summing(gate)
    scheduler = BatchScheduler([(encoder, CPU)], 2, 1000)
    first = scheduler.submit([[1]])
    encoder.entered.wait()
    others = at_once(scheduler, *([[n, n]] for n in range(20)))
    gate.release(100)
    for n, job in enumerate(others):
        np.testing.assert_array_equal(scheduler.wait(job, silent), [[2 * n, 2]])
    scheduler.wait(first, silent)
    assert len(encoder.batches) <= 3


def test_a_giant_job_keeps_no_question_waiting():
    gate = threading.Semaphore(0)
    encoder = Summing(gate)
    scheduler = BatchScheduler([(encoder, CPU)], 2, 4)
    giant = scheduler.submit([[1, 1, 1, 1]] * 200)
    question = scheduler.submit([[7]])
    gate.release(12)  # a few batches of the 200
    np.testing.assert_array_equal(scheduler.wait(question, silent), [[7, 1]])
    assert giant.done < 200
    gate.release(1000)
    np.testing.assert_array_equal(scheduler.wait(giant, silent), expected(giant.tokens))


def test_two_giants_share_the_time():
    encoder = Summing()
    scheduler = BatchScheduler([(encoder, CPU)], 2, 4)
    one, two = at_once(scheduler, [[1, 1, 1]] * 50, [[2, 2, 2]] * 50)
    scheduler.wait(one, silent)
    scheduler.wait(two, silent)
    middle = [batch[0][0] for batch in encoder.batches[20:60]]
    assert 10 <= middle.count(1) <= 30


def test_an_error_reaches_its_caller_and_nobody_else_later():
    class Failing(Summing):
        def __call__(self, texts):
            if any(text == [13] for text in texts):
                raise RuntimeError("unlucky")
            return super().__call__(texts)

    scheduler = BatchScheduler([(Failing(), CPU)], 2, 4)
    bad = scheduler.submit([[13]])
    with pytest.raises(RuntimeError, match="unlucky"):
        scheduler.wait(bad, silent)
    good = [[1, 2], [3]]
    np.testing.assert_array_equal(scheduler.wait(scheduler.submit(good), silent), expected(good))


def test_a_cancelled_job_is_not_computed_on():
    gate = threading.Semaphore(0)
    encoder = Summing(gate)
    scheduler = BatchScheduler([(encoder, CPU)], 2, 4)
    giant = scheduler.submit([[1, 1, 1, 1]] * 500)
    scheduler.cancel(giant)
    gate.release(1000)
    np.testing.assert_array_equal(scheduler.wait(scheduler.submit([[5]]), silent), [[5, 1]])
    assert len(encoder.batches) < 20


def test_a_full_device_memory_halves_the_batches_and_says_so_once():
    class Small(Summing):
        def __call__(self, texts):
            if sum(map(len, texts)) > 10:
                raise torch.OutOfMemoryError("no memory")
            return super().__call__(texts)

    scheduler = BatchScheduler([(Small(), CPU)], 2, 4 * LEAST_TOKENS)
    tokens = [[n, n] for n in range(64)]
    with pytest.warns(UserWarning, match="no memory") as said:
        np.testing.assert_array_equal(scheduler.wait(scheduler.submit(tokens), silent), expected(tokens))
    assert scheduler.budget.tokens < 4 * LEAST_TOKENS
    assert len(said) == 1
    with pytest.raises(torch.OutOfMemoryError):
        scheduler.wait(scheduler.submit([[1] * 11]), silent)


@pytest.mark.slow
@pytest.mark.parametrize(
    "error",
    [
        *(torch.OutOfMemoryError("none"), MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")),
        *(RuntimeError("MPS backend out of memory"), RuntimeError("CUDA error: out of memory")),
    ],
)
@pytest.mark.filterwarnings("ignore:cpu has no memory")
def test_a_memory_that_ended_once_costs_no_speed_for_ever(error):
    class Once(Summing):
        full = True

        def __call__(self, texts):
            if self.full and len(texts) > 1:
                raise error
            return super().__call__(texts)

    encoder = Once()
    scheduler = BatchScheduler([(encoder, CPU)], 2, 8 * LEAST_TOKENS)
    tokens = [[n] * 8 for n in range(200)]
    scheduler.wait(scheduler.submit(tokens), silent)
    assert scheduler.budget.tokens == LEAST_TOKENS  # and not 1
    encoder.full = False
    for _ in range(3 * GROW_AFTER_MOST):  # three doublings, after so many batches each
        if scheduler.budget.tokens < 8 * LEAST_TOKENS:
            scheduler.wait(scheduler.submit(tokens), silent)
    assert scheduler.budget.tokens == 8 * LEAST_TOKENS


def test_a_budget_that_was_given_small_stays_as_it_is():
    class Never(Summing):
        def __call__(self, texts):
            if len(texts) > 1:
                raise torch.OutOfMemoryError("none")
            return super().__call__(texts)

    scheduler = BatchScheduler([(Never(), CPU)], 2, 10)
    with pytest.warns(UserWarning, match="no memory"):
        scheduler.wait(scheduler.submit([[1], [2], [3]]), silent)
    assert scheduler.budget.tokens == 10


def test_progress_is_told_in_the_callers_thread():
    scheduler = BatchScheduler([(Summing(), CPU)], 2, 4)
    seen = []
    scheduler.wait(scheduler.submit([[1, 1]] * 10), lambda done: seen.append((done, threading.get_ident())))
    assert seen[-1] == (10, threading.get_ident())
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_a_thousand_callers_at_once():
    encoder = Summing()
    scheduler = BatchScheduler([(encoder, CPU)], 2, 256)

    def ask(n):
        return scheduler.wait(scheduler.submit([[n, 1]]), silent).tolist()

    with ThreadPoolExecutor(64) as pool:
        assert list(pool.map(ask, range(1000))) == [[[n + 1, 2]] for n in range(1000)]


def test_many_questions_are_shared_out_among_the_lanes():
    two = threading.Barrier(2)

    class Meeting(Summing):
        def __call__(self, texts):
            if len(texts) > 1:
                two.wait(timeout=30)  # passes only while both lanes compute
            return super().__call__(texts)

    scheduler = BatchScheduler([(Meeting(), torch.device("cuda"))], 2, 10_000)  # two lanes on any machine
    jobs = at_once(scheduler, *([[n] * SHARE_TOKENS] for n in range(8)))
    for n, job in enumerate(jobs):
        np.testing.assert_array_equal(scheduler.wait(job, silent), [[n * SHARE_TOKENS, SHARE_TOKENS]])


LENGTHS = st.lists(st.integers(1, 500), max_size=60)


@given(LENGTHS, st.integers(1, 600), st.booleans())
def test_every_index_once_and_within_budget(lengths, budget, padded):
    made = list(plan_batches(lengths, budget, padded=padded))
    assert sorted(index for batch in made for index in batch) == list(range(len(lengths)))
    for batch in made:
        sizes = [lengths[index] for index in batch]
        cost = len(sizes) * max(sizes) if padded else sum(sizes)
        assert cost <= budget or len(batch) == 1
        assert sizes == sorted(sizes, reverse=True)


@given(LENGTHS, st.integers(1, 600))
def test_no_batch_could_have_taken_the_next_text(lengths, budget):
    made = list(plan_batches(lengths, budget))
    for batch, following in pairwise(made):
        assert sum(lengths[index] for index in batch) + lengths[following[0]] > budget


JOBS = st.builds(
    lambda lengths, has_more: [Planned([], lengths)] * (1 + has_more),
    st.lists(st.integers(1, 400), min_size=1, max_size=8),
    st.booleans(),
)
WAITING = st.lists(JOBS, max_size=20)


@given(WAITING, st.sampled_from(Turn), st.integers(1, 2000), st.integers(1, 4), st.booleans())
def test_the_policy_takes_one_large_job_or_small_ones_that_fit(waiting, turn, budget, lanes, padded):
    chosen = choose(waiting, turn, budget=budget, lane_count=lanes, padded=padded)
    assert bool(chosen) == bool(waiting)
    assert chosen == sorted(set(chosen))
    if not chosen:
        return
    kinds = {len(waiting[place]) > 1 for place in chosen}
    assert len(kinds) == 1
    if kinds == {True}:
        assert chosen == [next(place for place, job in enumerate(waiting) if len(job) > 1)]
        assert turn is Turn.LARGE or all(len(job) > 1 for job in waiting)
    else:
        assert turn is Turn.SMALL or not any(len(job) > 1 for job in waiting)
        lengths = [length for place in chosen for length in waiting[place][0].lengths]
        assert len(chosen) == 1 or cost_of(lengths, padded) <= budget


@pytest.mark.parametrize(("lanes", "jobs"), [(1, 8), (2, 4), (4, 2)])
def test_many_questions_are_split_evenly_over_the_lanes(lanes, jobs):
    waiting = [[Planned([0], [SHARE_TOKENS])]] * 8
    assert len(choose(waiting, Turn.SMALL, budget=10**6, lane_count=lanes, padded=False)) == jobs


def test_a_budget_grows_back_only_by_batches_of_about_its_size():
    budget = Budget(8 * LEAST_TOKENS)
    budget.note_out_of_memory(8 * LEAST_TOKENS)
    assert budget.tokens == 4 * LEAST_TOKENS
    for _ in range(10 * GROW_AFTER):
        budget.note_fit(LEAST_TOKENS)
    assert budget.tokens == 4 * LEAST_TOKENS
    for _ in range(2 * GROW_AFTER):
        budget.note_fit(4 * LEAST_TOKENS)
    assert budget.tokens == budget.full
