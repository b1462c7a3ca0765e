"""Batches cover every text once, within the budget, like lengths together."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from c2llm_integrations.batching import batches

LENGTHS = st.lists(st.integers(1, 500), max_size=60)


@given(LENGTHS, st.integers(1, 600), st.booleans())
def test_every_index_once_and_within_budget(lengths, budget, padded):
    made = list(batches(lengths, budget, padded=padded))
    assert sorted(index for batch in made for index in batch) == list(range(len(lengths)))
    for batch in made:
        sizes = [lengths[index] for index in batch]
        cost = len(sizes) * max(sizes) if padded else sum(sizes)
        assert cost <= budget or len(batch) == 1
        assert sizes == sorted(sizes, reverse=True)


@given(LENGTHS, st.integers(1, 600))
def test_no_batch_could_have_taken_the_next_text(lengths, budget):
    made = list(batches(lengths, budget))
    for batch, following in pairwise(made):
        assert sum(lengths[index] for index in batch) + lengths[following[0]] > budget
