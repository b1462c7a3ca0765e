"""How the benchmark of output dimensions scores what is stored."""

import numpy as np
import pytest

from benchmarks.output_dimensions import STORAGES, gains, rows_of, scores


@pytest.fixture
def vectors():
    """1,000 questions, each a little beside its own answer; unit length."""
    rng = np.random.default_rng(0)
    documents = rng.standard_normal((1000, 64)).astype(np.float32)
    queries = documents + 1.5 * rng.standard_normal((1000, 64)).astype(np.float32)
    both = np.concatenate([queries, documents])
    return both / np.linalg.norm(both, axis=1, keepdims=True)


def test_codes_lose_little_and_rescoring_ranks_by_full_vectors(vectors):
    full = gains(vectors, "float32").mean()
    assert 0.5 < full < 0.99
    assert gains(vectors, "int8").mean() == pytest.approx(full, rel=0.02)
    assert full * 0.8 < gains(vectors, "binary").mean() <= full
    exact, found = scores(vectors, "float32"), scores(vectors, "binary")
    compared = found > -2
    assert compared.sum(1).min() >= 100
    np.testing.assert_array_equal(found[compared], exact[compared])


def test_a_table_row_has_the_bytes_that_are_searched_and_the_loss(vectors):
    best = gains(vectors, "float32")
    rows = rows_of("full width", 64, [vectors], best)
    assert [row["bytes"] for row in rows] == [256, 64, 8]
    assert [row["storage"] for row in rows] == list(STORAGES)
    assert rows[0]["loss %"] == 0
    assert rows[0]["interval"] == "0.00-0.00"
