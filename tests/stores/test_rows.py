"""How rows are cut into calls, and the payload of one."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from c2llm_integrations.stores.qdrant.payload import payload_of, written_fields
from c2llm_integrations.stores.records import Record
from c2llm_integrations.stores.rows import runs


@given(sizes=st.lists(st.integers(0, 50)), most=st.integers(1, 100))
def test_runs_hold_everything_once_in_order_and_are_as_large_as_they_may_be(sizes, most):
    found = [sizes[run] for run in runs(sizes, most)]
    assert [size for run in found for size in run] == sizes
    assert all(run and (len(run) == 1 or sum(run) <= most) for run in found)
    assert all(sum(run) + following[0] > most for run, following in pairwise(found))


@pytest.mark.parametrize("names", [[], ["a"], ["a", "b, c", "größe"]])
def test_the_fields_that_we_wrote_are_read_back(names):
    payload = payload_of(Record("doc", "x", dict.fromkeys(names, 1), "answers"))
    assert list(written_fields(payload)) == names
    assert list(written_fields({"c2llm_fields": names})) == names  # as they were kept before
