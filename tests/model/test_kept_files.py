"""Projections kept by digest."""

import numpy as np
import pytest

from c2llm_integrations.model.heads_and_projections import Projection, fit_projection, remember, remembered


@pytest.fixture
def projection(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "cache"))
    return fit_projection(np.random.default_rng(0).standard_normal((20, 8)), 4, "abc")


def test_a_projection_is_found_by_its_digest_once_it_was_used(projection):
    assert remembered(projection.digest) is None
    remember(projection)
    remember(projection)
    assert Projection.load(remembered(projection.digest)).digest == projection.digest


@pytest.mark.parametrize("digest", ["", "first 8", "../../x", "a" * 31, "A" * 32, "a" * 32])
def test_a_digest_is_data(digest, projection):
    assert remembered(digest) is None


def test_a_cache_that_cannot_be_written_is_no_error(projection, tmp_path):
    (tmp_path / "cache").write_text("a file")
    remember(projection)
    assert remembered(projection.digest) is None
