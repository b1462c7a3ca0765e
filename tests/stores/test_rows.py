"""How rows are cut into calls."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from c2llm_integrations.stores.rows import runs


@given(sizes=st.lists(st.integers(0, 50)), most=st.integers(1, 100))
def test_runs_hold_everything_once_in_order_and_are_as_large_as_they_may_be(sizes, most):
    found = [sizes[run] for run in runs(sizes, most)]
    assert [size for run in found for size in run] == sizes
    assert all(run and (len(run) == 1 or sum(run) <= most) for run in found)
    assert all(sum(run) + following[0] > most for run, following in pairwise(found))
