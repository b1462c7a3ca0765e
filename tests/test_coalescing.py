"""Many callers of few encoders: right vectors for each, batches together, no caller starved, errors kept apart."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from c2llm_integrations.coalescing import SHARE, Coalescer
from c2llm_integrations.encoding.lanes import GPU_LANES

CPU = torch.device("cpu")


class Summing:
    """Gives each text the sum and the length of its ids; remembers its batches; waits for `gate` before each."""

    padded = False

    def __init__(self, gate=None):
        self.batches = []
        self.gate = gate

    def __call__(self, texts):
        if self.gate is not None:
            self.gate.acquire()
        self.batches.append([list(text) for text in texts])
        return torch.tensor([[float(sum(text)), float(len(text))] for text in texts])


def silent(_done):
    pass


def expected(tokens):
    return np.array([[sum(text), len(text)] for text in tokens], np.float32).reshape(-1, 2)


texts = st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=12), max_size=12)


@given(st.lists(texts, max_size=8), st.integers(1, 30), st.booleans())
@settings(max_examples=40, deadline=None)
def test_every_caller_gets_its_own_vectors_whatever_else_waits(jobs, budget, padded):
    encoder = Summing()
    encoder.padded = padded
    coalescer = Coalescer([(encoder, CPU)], 2, budget)
    started = [coalescer.submit(tokens) for tokens in jobs]
    for tokens, job in zip(jobs, started, strict=True):
        np.testing.assert_array_equal(coalescer.wait(job, silent), expected(tokens))
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
            raise RuntimeError("device lost")
        return super().__call__(texts)


@given(st.lists(texts, min_size=1, max_size=6), st.integers(1, 30), st.integers(0, 3))
@settings(max_examples=40, deadline=None)
@pytest.mark.filterwarnings("ignore:cpu failed")
def test_several_encoders_share_the_work_and_one_may_break(jobs, budget, good):
    encoders = [Breaking(good), Summing(), Summing()]
    coalescer = Coalescer([(encoder, CPU) for encoder in encoders], 2, budget)
    started = [coalescer.submit(tokens) for tokens in jobs]
    for tokens, job in zip(jobs, started, strict=True):
        np.testing.assert_array_equal(coalescer.wait(job, silent), expected(tokens))
    assert sum(len(batch) for one in encoders for batch in one.batches) >= sum(map(len, jobs))


def test_work_goes_to_every_encoder():
    class Slow(Summing):
        def __call__(self, texts):
            time.sleep(0.005)
            return super().__call__(texts)

    encoders = [Slow(), Slow()]
    coalescer = Coalescer([(encoder, CPU) for encoder in encoders], 2, 4)
    tokens = [[n, 1, 1, 1] for n in range(100)]
    np.testing.assert_array_equal(coalescer.wait(coalescer.submit(tokens), silent), expected(tokens))
    assert min(len(encoder.batches) for encoder in encoders) >= 20


def test_an_encoder_that_breaks_is_told_of_once_and_used_no_more():
    broken, sound = Breaking(), Summing(threading.Semaphore(0))
    coalescer = Coalescer([(broken, torch.device("meta")), (sound, CPU)], 2, 4)
    tokens = [[n, n] for n in range(40)]

    def work():
        job = coalescer.submit(tokens)
        while not broken.failures:
            time.sleep(0.001)
        sound.gate.release(1000)
        return coalescer.wait(job, silent)

    with pytest.warns(UserWarning, match="meta failed .RuntimeError: device lost.; its batches go to cpu") as told:
        vectors = work()
    np.testing.assert_array_equal(vectors, expected(tokens))
    assert len(told) == 1
    failures = broken.failures  # of the batches begun side by side
    np.testing.assert_array_equal(coalescer.wait(coalescer.submit(tokens), silent), expected(tokens))
    assert broken.failures == failures <= GPU_LANES + 1


@pytest.mark.filterwarnings("ignore:cpu failed")
def test_where_every_encoder_raises_the_caller_gets_the_error_and_all_are_used_again():
    encoders = [Breaking(), Breaking()]
    coalescer = Coalescer([(encoder, CPU) for encoder in encoders], 2, 4)
    with pytest.raises(RuntimeError, match="device lost"):
        coalescer.wait(coalescer.submit([[1, 2]]), silent)
    for encoder in encoders:
        encoder.good = 1000
    tokens = [[n] for n in range(20)]
    np.testing.assert_array_equal(coalescer.wait(coalescer.submit(tokens), silent), expected(tokens))
    assert all(worker.working for worker in coalescer.workers)


def test_what_waits_at_the_same_time_is_one_batch():
    gate = threading.Semaphore(0)
    encoder = Summing(gate)
    coalescer = Coalescer([(encoder, CPU)], 2, 1000)
    first = coalescer.submit([[1]])
    while first.batches:  # until its batch is taken
        time.sleep(0.001)
    others = [coalescer.submit([[n, n]]) for n in range(20)]
    gate.release(100)
    for n, job in enumerate(others):
        np.testing.assert_array_equal(coalescer.wait(job, silent), [[2 * n, 2]])
    coalescer.wait(first, silent)
    assert len(encoder.batches) <= 3


def test_a_giant_job_keeps_no_question_waiting():
    gate = threading.Semaphore(0)
    encoder = Summing(gate)
    coalescer = Coalescer([(encoder, CPU)], 2, 4)
    giant = coalescer.submit([[1, 1, 1, 1]] * 200)
    question = coalescer.submit([[7]])
    gate.release(12)  # a few batches of the 200
    np.testing.assert_array_equal(coalescer.wait(question, silent), [[7, 1]])
    assert giant.done < 200
    gate.release(1000)
    np.testing.assert_array_equal(coalescer.wait(giant, silent), expected(giant.tokens))


def test_two_giants_share_the_time():
    encoder = Summing()
    coalescer = Coalescer([(encoder, CPU)], 2, 4)
    with coalescer._lock:  # both wait before anything is computed
        one, two = coalescer.submit([[1, 1, 1]] * 50), coalescer.submit([[2, 2, 2]] * 50)
    coalescer.wait(one, silent)
    coalescer.wait(two, silent)
    middle = [batch[0][0] for batch in encoder.batches[20:60]]
    assert 10 <= middle.count(1) <= 30


def test_an_error_reaches_its_caller_and_nobody_else_later():
    class Failing(Summing):
        def __call__(self, texts):
            if any(text == [13] for text in texts):
                raise RuntimeError("unlucky")
            return super().__call__(texts)

    coalescer = Coalescer([(Failing(), CPU)], 2, 4)
    bad = coalescer.submit([[13]])
    with pytest.raises(RuntimeError, match="unlucky"):
        coalescer.wait(bad, silent)
    good = [[1, 2], [3]]
    np.testing.assert_array_equal(coalescer.wait(coalescer.submit(good), silent), expected(good))


def test_a_cancelled_job_is_not_computed_on():
    gate = threading.Semaphore(0)
    encoder = Summing(gate)
    coalescer = Coalescer([(encoder, CPU)], 2, 4)
    giant = coalescer.submit([[1, 1, 1, 1]] * 500)
    coalescer.cancel(giant)
    gate.release(1000)
    np.testing.assert_array_equal(coalescer.wait(coalescer.submit([[5]]), silent), [[5, 1]])
    assert len(encoder.batches) < 20


def test_a_full_device_memory_halves_the_batches_and_says_so_once():
    class Small(Summing):
        def __call__(self, texts):
            if sum(map(len, texts)) > 10:
                raise torch.OutOfMemoryError("no memory")
            return super().__call__(texts)

    coalescer = Coalescer([(Small(), CPU)], 2, 64)
    tokens = [[n, n] for n in range(64)]
    with pytest.warns(UserWarning, match="no memory") as said:
        np.testing.assert_array_equal(coalescer.wait(coalescer.submit(tokens), silent), expected(tokens))
    assert coalescer.budget < 64
    assert len(said) == 1
    with pytest.raises(torch.OutOfMemoryError):
        coalescer.wait(coalescer.submit([[1] * 11]), silent)


def test_progress_is_told_in_the_callers_thread():
    coalescer = Coalescer([(Summing(), CPU)], 2, 4)
    seen = []
    coalescer.wait(coalescer.submit([[1, 1]] * 10), lambda done: seen.append((done, threading.get_ident())))
    assert seen[-1] == (10, threading.get_ident())
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_a_thousand_callers_at_once():
    encoder = Summing()
    coalescer = Coalescer([(encoder, CPU)], 2, 256)

    def ask(n):
        return coalescer.wait(coalescer.submit([[n, 1]]), silent).tolist()

    with ThreadPoolExecutor(64) as pool:
        assert list(pool.map(ask, range(1000))) == [[[n + 1, 2]] for n in range(1000)]


def test_many_questions_are_shared_out_among_the_lanes():
    two = threading.Barrier(2)

    class Meeting(Summing):
        def __call__(self, texts):
            if len(texts) > 1:
                two.wait(timeout=30)  # passes only while both lanes compute
            return super().__call__(texts)

    coalescer = Coalescer([(Meeting(), torch.device("cuda"))], 2, 10_000)  # two lanes on any machine
    with coalescer._lock:
        jobs = [coalescer.submit([[n] * SHARE]) for n in range(8)]
    for n, job in enumerate(jobs):
        np.testing.assert_array_equal(coalescer.wait(job, silent), [[n * SHARE, SHARE]])
