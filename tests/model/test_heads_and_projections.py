"""Projections keep dot products, belong to one model, and change the fingerprint."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from c2llm_integrations.errors import CheckpointError, InputError
from c2llm_integrations.model.embedder import C2LLMEmbedder
from c2llm_integrations.model.heads_and_projections import Projection, fit_projection
from tests.golden import COMPRESSED, TIED

TEXTS = [f"def function_{n}(x):\n    return x * {n} + offset_{n % 7}\n" for n in range(200)]


@pytest.fixture(scope="module")
def full() -> C2LLMEmbedder:
    return C2LLMEmbedder.from_pretrained(str(TIED), dtype="float32")


@pytest.fixture(scope="module")
def file(full, tmp_path_factory):
    path = tmp_path_factory.mktemp("projection") / "p.safetensors"
    fit_projection(full.encode(TEXTS), 16, str(full.fingerprint["weights"])).save(path)
    return path


@given(st.integers(1, 11), st.integers(0, 3))
@settings(max_examples=20)
def test_no_other_map_of_that_width_keeps_dot_products_better(width, seed):
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((60, 12)) * np.linspace(1, 4, 12) + 1  # uneven and off centre
    matrix = fit_projection(vectors, width, "w", seed=seed).matrix.astype(np.float64)
    np.testing.assert_allclose(matrix.T @ matrix, np.eye(width), atol=1e-5)

    def error(map_):
        return np.square((vectors @ map_) @ (vectors @ map_).T - vectors @ vectors.T).sum()

    best = error(matrix)
    values = np.linalg.eigvalsh(vectors.T @ vectors)
    assert best == pytest.approx(np.square(values[:-width]).sum(), rel=1e-3)
    for _ in range(5):
        other, _ = np.linalg.qr(rng.standard_normal((12, width)))
        assert error(other) >= best * (1 - 1e-6)


def test_the_rotation_evens_out_the_variance():
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((500, 32)) * np.geomspace(1, 50, 32)
    spread = (vectors @ fit_projection(vectors, 16, "w").matrix).var(0)
    assert spread.max() / spread.min() < 100 < 50**2 / 7


def test_a_projection_is_the_same_every_time(full):
    vectors = full.encode(TEXTS)
    one, two = (fit_projection(vectors, 8, "w", seed=5) for _ in range(2))
    assert one.digest == two.digest != fit_projection(vectors, 8, "w", seed=6).digest


def test_loading_with_a_projection(full, file):
    small = C2LLMEmbedder.from_pretrained(str(TIED), dtype="float32", projection=file, output_dim=16)
    vectors = small.encode(TEXTS[:20])
    assert vectors.shape == (20, 16)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    exact = full.encode(TEXTS[:20])
    assert np.abs(vectors @ vectors.T - exact @ exact.T).mean() < 0.05
    assert small.fingerprint["projection"] == Projection.load(file).digest
    assert small.fingerprint["output_dim"] == 16


def test_truncation_only_by_name(full):
    small = C2LLMEmbedder.from_pretrained(str(TIED), dtype="float32", truncate_dim=16)
    want = full.encode(TEXTS[:3])[:, :16]
    np.testing.assert_allclose(small.encode(TEXTS[:3]), want / np.linalg.norm(want, axis=1, keepdims=True), atol=1e-5)
    assert small.fingerprint["truncate_dim"] == 16


def test_a_projection_of_another_model_is_refused(file):
    with pytest.raises(CheckpointError, match=r"64 dimensions.*gives 32"):
        C2LLMEmbedder.from_pretrained(str(COMPRESSED), projection=file)


def test_both_ways_at_once_are_refused(file):
    with pytest.raises(InputError, match="choose one"):
        C2LLMEmbedder.from_pretrained(str(TIED), projection=file, truncate_dim=8)


@pytest.mark.parametrize("shape", [(5, 16), (100, 8)])
def test_too_few_vectors_or_dimensions(shape):
    with pytest.raises(InputError, match=f"cannot fit 8 dimensions.*{shape[0]}"):
        fit_projection(np.ones(shape), 8, "w")


def test_nan_is_refused():
    with pytest.raises(InputError, match="NaN"):
        fit_projection(np.full((20, 16), np.nan), 8, "w")


@pytest.mark.parametrize("content", [b"", b"garbage that is no safetensors", None])
def test_another_file_is_no_projection(tmp_path, content):
    path = TIED / "model.safetensors" if content is None else tmp_path / "x.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match="projection"):
        Projection.load(path)


@pytest.mark.parametrize(
    "matrix",
    [torch.full((64, 8), torch.nan), torch.zeros(64, 0), torch.zeros(64, 8, dtype=torch.int64), torch.zeros(())],
)
def test_a_map_that_is_no_numbers_is_no_projection(tmp_path, matrix):
    save_file({"matrix": matrix}, tmp_path / "odd", {"format": "c2llm-projection-1", "weights": "w"})
    with pytest.raises(CheckpointError, match="odd is not"):
        Projection.load(tmp_path / "odd")


def test_a_projection_in_half_precision_is_read(tmp_path):
    matrix = torch.ones(64, 8, dtype=torch.bfloat16)
    save_file({"matrix": matrix}, tmp_path / "half", {"format": "c2llm-projection-1", "weights": "w"})
    assert Projection.load(tmp_path / "half").matrix.dtype == np.float32


def test_a_projection_can_be_read_by_others_of_its_machine(tmp_path):
    Projection(np.eye(4, 2, dtype=np.float32), "weights").save(tmp_path / "map.safetensors")
    assert (tmp_path / "map.safetensors").stat().st_mode & 0o777 == 0o644
    assert [file.name for file in tmp_path.iterdir()] == ["map.safetensors"]
