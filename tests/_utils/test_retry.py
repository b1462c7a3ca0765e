from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from c2llm_integrations._utils import retry as module
from c2llm_integrations._utils.retry import retrying, seconds_of


class Busy(Exception):
    """Worth another try; `args[0]`: the seconds that the server asks to wait."""


def pause_after(error: Exception) -> float | None:
    return error.args[0] if isinstance(error, Busy) else None


class Clock:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module.time, "monotonic", clock.monotonic)
    monkeypatch.setattr(module.time, "sleep", clock.sleep)
    return clock


def failing(times: int, error: Exception) -> Callable[[], str]:
    left = [error] * times

    def call() -> str:
        if left:
            raise left.pop()
        return "done"

    return call


def test_what_fails_for_a_moment_is_tried_until_it_succeeds(clock: Clock) -> None:
    assert retrying(failing(9, Busy(0.0)), pause_after) == "done"
    assert len(clock.slept) == 9
    ceilings = [min(module.FIRST_SECONDS * 2**n, module.LONGEST_SECONDS) for n in range(9)]
    assert all(0 <= slept <= ceiling for slept, ceiling in zip(clock.slept, ceilings, strict=True))


def test_many_writers_do_not_come_back_at_once(clock: Clock) -> None:
    for _ in range(20):
        retrying(failing(1, Busy(0.0)), pause_after)
    assert len(set(clock.slept)) == 20


@given(asked=st.floats(0, 20))
def test_retry_after_is_obeyed(asked: float) -> None:
    with pytest.MonkeyPatch.context() as patch:
        clock = Clock()
        patch.setattr(module, "time", clock)
        assert retrying(failing(3, Busy(asked)), pause_after) == "done"
        assert all(slept >= asked for slept in clock.slept)


def test_what_would_fail_again_is_raised_at_once(clock: Clock) -> None:
    with pytest.raises(KeyError):
        retrying(failing(1, KeyError("x")), pause_after)
    assert clock.slept == []


def test_a_call_that_never_succeeds_is_never_reported_as_done(clock: Clock) -> None:
    # [max_retries=0 that reports success and stores nothing]
    for limit in (0.0, 30.0):
        begin = clock.now
        with pytest.raises(Busy):
            retrying(failing(1_000, Busy(0.0)), pause_after, limit=limit)
        assert clock.now - begin <= limit


def test_a_wait_beyond_the_limit_is_not_begun(clock: Clock) -> None:
    with pytest.raises(Busy):
        retrying(failing(1, Busy(3_600.0)), pause_after, limit=60)
    assert clock.slept == []


@pytest.mark.parametrize(
    ("header", "seconds"), [(None, 0), ("7", 7), ("0.5", 0.5), ("-1", 0), ("Fri, 31 Dec 1999 23:59:59 GMT", 0), ("", 0)]
)
def test_the_header_is_read(header: str | None, seconds: float) -> None:
    assert seconds_of(header) == seconds


def test_the_real_clock_is_used() -> None:
    begin = time.monotonic()
    assert retrying(failing(1, Busy(0.05)), pause_after) == "done"
    assert time.monotonic() - begin >= 0.05
