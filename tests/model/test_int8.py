"""Products in 8 bits: right to the last unit, close to float32 where it matters, and refused where they cannot be."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from c2llm_integrations.errors import CheckpointError, InputError
from c2llm_integrations.model import dtype_choice, encoder, int8
from c2llm_integrations.model.backbones import Linear
from c2llm_integrations.model.benchmark import kinds_to_measure, peak_of, product_shapes
from c2llm_integrations.model.checkpoint import NANO, RANGES, load_checkpoint, save_checkpoint
from c2llm_integrations.model.dtype_choice import float_dtype, why_not_int8
from c2llm_integrations.model.embedder import C2LLMEmbedder
from c2llm_integrations.model.encoder import load_encoder
from c2llm_integrations.model.int8 import LOWEST_GELU, Int8Bert, Product, range_shapes, read_ranges
from c2llm_integrations.training.int8_ranges import RangeWatch, main, measure_ranges
from tests.golden import TIED

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
vnni = pytest.mark.skipif(int8.weight_steps() is None, reason="this CPU or PyTorch has no products of bytes")
TEXTS = [
    "how is a request retried after a timeout?",
    "def add(a, b):\n    return a + b\n",
    "\n".join(f"    self.value_{n} = parse(line[{n}])" for n in range(60)),
    "x",
    "for (int i = 0; i < n; ++i) { total += weights[i] * inputs[i]; }",
]


@pytest.fixture
def folder(tmp_path):
    """A copy of nano, to be damaged."""
    return shutil.copytree(NANO, tmp_path / "copy")


def random_product(rows, columns, **more):
    torch.manual_seed(rows)
    weight, bias = torch.randn(rows, columns) * 0.1, torch.randn(rows)
    return weight, bias, Product(weight, bias, torch.linspace(0.5, 8, columns), **more)


@vnni
@pytest.mark.parametrize("rows", [96, 32])
def test_a_product_is_that_of_the_rounded_numbers(rows):
    weight, bias, product = random_product(rows, 64)
    highest = torch.linspace(0.5, 8, 64)
    x, steps = (torch.rand(40, 64) * 2 - 1) * highest, highest / 127
    bytes_ = product.rounded(x)
    np.testing.assert_allclose((bytes_.float() - 128) * steps, x, atol=float(steps.max()) / 2 + 1e-5)
    scales = (weight * steps).abs().amax(1, keepdim=True) / int8.weight_steps()
    rounded = (weight * steps / scales).round() * scales
    np.testing.assert_allclose(
        product(bytes_, torch.float32), F.linear(bytes_.float() - 128, rounded, bias), atol=1e-3, rtol=1e-4
    )
    np.testing.assert_allclose(product(bytes_, torch.float32), F.linear(x, weight, bias), atol=0.2)


@vnni
def test_what_lies_beyond_its_range_is_cut_and_never_wraps_around():
    _, _, product = random_product(32, 64)
    beyond = torch.full((1, 64), 1e6)
    assert product.rounded(beyond).tolist() == [[255] * 64]
    assert product.rounded(-beyond).tolist() == [[0] * 64]


@vnni
def test_gelu_and_residual_are_part_of_their_products():
    _, _, wide = random_product(128, 64)
    step = (6 + LOWEST_GELU) / 255
    narrow_weight, narrow_bias = torch.randn(64, 128) * 0.1, torch.randn(64)
    narrow = Product(narrow_weight, narrow_bias, None, step, round(LOWEST_GELU / step))
    x = torch.randn(40, 64)
    want = F.gelu(wide(wide.rounded(x), torch.float32))
    inner = wide.gelu(wide.rounded(x), narrow)
    np.testing.assert_allclose((inner.float() - narrow.zero) * step, want.clamp_max(6), atol=0.51 * step + 1e-4)
    rows = torch.randn(40, 64)
    want = rows + F.linear((inner.float() - narrow.zero) * step, narrow_weight, narrow_bias)
    np.testing.assert_allclose(narrow.added_to(rows.clone(), inner), want, atol=0.1)


@vnni
def test_nano_is_computed_in_8_bits_and_stays_close():
    exact, rounded = (
        C2LLMEmbedder.from_pretrained("nano", dtype="float32"),
        C2LLMEmbedder.from_pretrained("nano", dtype="int8"),
    )
    assert rounded.dtype == torch.int8
    assert isinstance(load_encoder(load_checkpoint("nano"), torch.int8, CPU).backbone, Int8Bert)
    assert rounded.fingerprint == exact.fingerprint
    cosines = (rounded.encode(TEXTS) * exact.encode(TEXTS)).sum(1)
    assert cosines.min() > 0.997
    assert cosines.max() < 0.99999  # so it is not the float32 computation under another name


@vnni
def test_a_vector_does_not_depend_on_its_batch():
    embedder = C2LLMEmbedder.from_pretrained("nano", dtype="int8")
    together = embedder.encode(TEXTS)
    for row, text in enumerate(TEXTS):
        np.testing.assert_allclose(embedder.encode([text])[0], together[row], atol=5e-4)


@vnni
def test_what_bench_compares_it_with_are_products_of_bytes():
    embedder = C2LLMEmbedder.from_pretrained("nano", dtype="int8")
    assert peak_of(embedder, product_shapes(embedder), 0.1) > 0


@vnni
def test_a_cpu_without_bfloat16_attends_in_float32(monkeypatch):
    monkeypatch.setattr(encoder, "float_dtype", lambda *_: torch.float32)
    states = load_encoder(load_checkpoint("nano"), torch.int8, CPU).states([[5, 6, 7]])
    assert states.dtype == torch.float32


@vnni
@pytest.mark.parametrize(
    "damage",
    [
        lambda ranges: ranges | {"layers.0.qkv": torch.ones(8)},
        lambda ranges: ranges | {"layers.0.wide": torch.full((384,), torch.nan)},
        lambda ranges: ranges | {"layers.1.narrow": torch.tensor([-1.0])},
        lambda ranges: {name: value.double() for name, value in ranges.items()},
        lambda ranges: {name: value.int() for name, value in ranges.items()},
        lambda ranges: {name: value for name, value in ranges.items() if "2" not in name},
    ],
)
def test_ranges_that_do_not_fit_are_refused(folder, damage):
    weights = {"weights": load_checkpoint(str(folder)).digest()}
    save_file(damage(load_file(folder / RANGES)), folder / RANGES, metadata=weights)
    with pytest.raises(CheckpointError, match="does not hold the ranges"):
        C2LLMEmbedder.from_pretrained(str(folder), dtype="int8")


@vnni
def test_half_a_range_file_is_refused(folder):
    (folder / RANGES).write_bytes(b"half a file")
    with pytest.raises(CheckpointError, match="not a valid safetensors file"):
        C2LLMEmbedder.from_pretrained(str(folder), dtype="int8")


@vnni
def test_ranges_of_other_weights_are_refused_and_go_when_others_are_saved(folder):
    weights = load_file(folder / "model.safetensors")
    other = {name: tensor * (0.9 if "layer.1" in name else 1) for name, tensor in weights.items()}
    save_file(other, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match="measured on weights"):
        C2LLMEmbedder.from_pretrained(str(folder), dtype="int8")
    source = load_checkpoint(str(folder))
    save_checkpoint(source, source.tensors(), folder)
    assert C2LLMEmbedder.from_pretrained(str(folder)).dtype == float_dtype(source, CPU)


@vnni
def test_a_broken_weight_is_not_rounded_away(folder):
    weights = load_file(folder / "model.safetensors")
    broken = next(name for name in weights if name.endswith("layer.1.intermediate.dense.weight"))
    weights[broken][3, 5] = torch.nan
    save_file(weights, folder / "model.safetensors")
    checkpoint = load_checkpoint(str(folder))
    save_file(load_file(folder / RANGES), folder / RANGES, metadata={"weights": checkpoint.digest()})
    with pytest.raises(CheckpointError, match="NaN or infinite"):
        C2LLMEmbedder.from_pretrained(str(folder), dtype="int8")


def test_without_the_instructions_nano_is_computed_as_before(monkeypatch):
    monkeypatch.setattr(dtype_choice, "weight_steps", lambda: None)
    assert C2LLMEmbedder.from_pretrained("nano").dtype == float_dtype(load_checkpoint("nano"), CPU)
    assert "int8" not in kinds_to_measure("nano", CPU)
    with pytest.raises(InputError, match="no right products of bytes"):
        C2LLMEmbedder.from_pretrained("nano", dtype="int8")


def test_8_bits_are_refused_where_nothing_was_measured(monkeypatch, folder):
    monkeypatch.setattr(dtype_choice, "weight_steps", lambda: 127)
    (folder / RANGES).unlink()
    for name in (str(folder), str(TIED)):
        with pytest.raises(InputError, match=f"has no {RANGES}"):
            C2LLMEmbedder.from_pretrained(name, dtype="int8")
        with pytest.raises(InputError, match=f"has no {RANGES}"):
            load_encoder(load_checkpoint(name), torch.int8, CPU)
        assert C2LLMEmbedder.from_pretrained(name).dtype == float_dtype(load_checkpoint(name), CPU)
        assert "int8" not in kinds_to_measure(name, CPU)
    assert kinds_to_measure("nano", CPU)[0] == "int8"
    assert "for CPUs" in (why_not_int8(load_checkpoint("nano"), torch.device("cuda")) or "")


def test_ranges_are_of_real_tokens_only():
    nano = load_checkpoint("nano")
    tokenizer = nano.tokenizer()
    found = measure_ranges(nano, TEXTS)
    bert = load_encoder(nano, torch.float32, CPU).backbone
    want = torch.zeros(384)
    for text in TEXTS:  # the spare rows of a batch would be padding tokens
        ids = torch.tensor(tokenizer.encode(text, add_special_tokens=False).ids[:512])
        want = torch.maximum(want, bert.embed(ids, torch.arange(len(ids))).abs().amax(0))
    np.testing.assert_allclose(found["layers.0.qkv"], want, rtol=1e-5)


def test_the_bundled_ranges_are_those_of_the_bundled_weights():
    shipped, found = load_file(NANO / RANGES), measure_ranges(load_checkpoint("nano"), TEXTS)
    assert {name: value.shape for name, value in shipped.items()} == {n: value.shape for n, value in found.items()}
    for name, value in found.items():  # 2,000 texts hold nearly all that five show, and little more
        assert (value <= 1.1 * shipped[name]).float().mean() > 0.97, name
        assert float((shipped[name] / value).median()) < 4, name


def test_the_command_measures_a_folder_for_the_weights_it_has(folder, tmp_path):
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("".join(json.dumps({"doc": text, "bare": text}) + "\n" for text in TEXTS))
    (folder / RANGES).unlink()
    main(["--model", str(folder), "--pairs", str(pairs)])
    checkpoint = load_checkpoint(str(folder))
    found = read_ranges(checkpoint, dict(range_shapes(3, 384)))
    want = measure_ranges(checkpoint, TEXTS)
    for name, value in found.items():
        np.testing.assert_allclose(value, want[name], rtol=1e-5)
    assert not list(folder.glob("*.partial"))


def test_only_bert_is_measured_and_on_texts_only():
    with pytest.raises(InputError, match="no BERT backbone"):
        measure_ranges(load_checkpoint(str(TIED)), ["x"])
    with pytest.raises(InputError, match="no texts"):
        measure_ranges(load_checkpoint("nano"), [])


def test_a_model_that_computes_nan_gets_no_ranges(folder):
    weights = load_file(folder / "model.safetensors")
    broken = next(name for name in weights if name.endswith("layer.1.intermediate.dense.weight"))
    weights[broken][3, 5] = torch.nan
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(InputError, match="computes NaN or infinity"):
        measure_ranges(load_checkpoint(str(folder)), TEXTS)


def test_of_a_million_values_behind_gelu_one_is_cut_and_of_fewer_none():
    bert = load_encoder(load_checkpoint("nano"), torch.float32, CPU).backbone
    watch = RangeWatch(bert)
    values = torch.arange(2_000_000.0).view(2, 1_000_000)
    weights = torch.zeros(1, 1_000_000), torch.zeros(1)
    for rows, highest in ((values[:1, :1000], 999), (values, 1_999_997)):
        watch.largest, watch.tokens, watch.names = {}, 0, ["layers.0.narrow"]
        watch.begin(len(rows))
        bert.product(rows, Linear(weights[0][:, : rows.shape[1]], weights[1]))
        assert watch.ranges()["layers.0.narrow"].tolist() == [highest]


def test_the_command_says_what_it_cannot_do_in_one_line(folder, tmp_path, capsys):
    (tmp_path / "none.jsonl").touch()
    for model, pairs, said in (
        (str(folder), tmp_path / "missing.jsonl", "missing.jsonl"),
        (str(tmp_path / "nowhere"), tmp_path / "none.jsonl", "nowhere"),
        (str(folder), tmp_path / "none.jsonl", "no texts"),
    ):
        with pytest.raises(SystemExit):
            main(["--model", model, "--pairs", str(pairs)])
        assert said in capsys.readouterr().err.splitlines()[-1]
