"""Measuring a machine: figures that can be true, and settings that were really tried."""

import math

import pytest

from c2llm_integrations.errors import InputError
from c2llm_integrations.model.benchmark import measure
from tests.golden import TIED

pytestmark = pytest.mark.slow


def test_every_setting_is_measured_and_the_best_comes_first():
    said = []
    found = measure(str(TIED), 5, "cpu", said.append)
    assert said[0].startswith("one product on one thread, as measured")
    assert len(said) - 1 == len(found) >= 3
    assert len({(one.dtype, one.batch_tokens) for one in found}) == len(found)
    rates = [one.tokens_per_second for one in found]
    assert rates == sorted(rates, reverse=True)
    for one in found:
        assert one.tokens_per_second > one.texts_per_second > 0
        assert one.mfu is not None
        assert 0 < one.mfu < 1.5
        assert one.query_ms > 0
        assert one.memory_mb > 50 or math.isnan(one.memory_mb)


def test_too_short_a_time_is_refused():
    with pytest.raises(InputError, match="1 s are too short"):
        measure(str(TIED), 1)
