"""Plans measured on vectors of one's own."""

import numpy as np
import pytest

from c2llm_integrations.errors import InputError
from c2llm_integrations.stores.qdrant.measure_plans import PLANS, MeasuredPlan, choose_plan, measure_plans
from c2llm_integrations.stores.spec import CompactPlan


def clusters(count, width=32):
    random = np.random.default_rng(0)
    centers = random.standard_normal((20, width))
    return (centers[random.integers(0, 20, count)] + 0.5 * random.standard_normal((count, width))).astype(np.float32)


def test_each_plan_is_measured_against_exact_search():
    plans = [CompactPlan(), CompactPlan(datatype="turbo4"), CompactPlan(quantization="binary", rescore=0)]
    exact, rounded, codes = measure_plans(clusters(600), plans)
    assert exact.recall == 1
    assert 0.5 < rounded.recall < 1
    assert codes.recall < rounded.recall
    assert [one.plan.bytes_per_vector for one in (exact, rounded, codes)] == [128, 16, 132]


def test_too_few_vectors_are_refused():
    with pytest.raises(InputError, match=r"199 vectors are too few .* at least 200"):
        next(measure_plans(clusters(199)))


def test_codes_have_fewer_bits_than_what_they_stand_for():
    assert len(PLANS) == len(set(PLANS))
    for plan in PLANS:
        one = CompactPlan(64, plan.datatype, plan.quantization)
        assert one.code_bytes < one.bytes_per_vector - one.code_bytes


MEASURED = [
    MeasuredPlan(CompactPlan(256), 1.0),
    MeasuredPlan(CompactPlan(256, "turbo4", "binary2"), 0.985),
    MeasuredPlan(CompactPlan(256, "turbo4"), 0.95),
]


def test_the_smallest_plan_that_is_good_enough_is_chosen():
    assert choose_plan(MEASURED, 10_000_000, 2e9, 0.98).plan == CompactPlan(256, "turbo4", "binary2")
    assert choose_plan(MEASURED, 10_000_000, 2e9, 0.9).plan == CompactPlan(256, "turbo4")
    assert choose_plan(MEASURED, 1_000_000, 2e9, 0.99).plan == CompactPlan(256)


@pytest.mark.parametrize(
    ("recall", "message"),
    [
        (0.99, r"10,000,000 vectors .* take 10\.24 GB, the budget is 2\.00"),
        (1.1, r"no plan keeps .*1\.1, the best .*1\.000"),
    ],
)
def test_what_no_plan_can_keep_is_said(recall, message):
    with pytest.raises(InputError, match=message):
        choose_plan(MEASURED, 10_000_000, 2e9, recall)


def test_what_cannot_be_measured_or_chosen_from_is_one_line():
    with pytest.raises(InputError, match=r"shape \(300,\), expected \(number, width\)"):
        list(measure_plans(np.ones(300, np.float32)))
    with pytest.raises(InputError, match="no measured plan is given"):
        choose_plan([], 1000, 1e9, 0.9)
    with pytest.raises(InputError, match="expected rows as a number, got '10M'"):
        choose_plan(MEASURED, "10M", 1e9, 0.9)
    with pytest.raises(InputError, match="rescore is '2', must be a number"):
        CompactPlan(quantization="int8", rescore="2")
    with pytest.raises(InputError, match=r"output_dim is \[64\], must be a number"):
        CompactPlan(output_dim=[64])
