"""A head in the place of a checkpoint's own PMA."""

import errno
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from c2llm_integrations.errors import CheckpointError, InputError
from c2llm_integrations.model.checkpoint import HEAD_FILE, NANO, load_checkpoint, save_checkpoint
from c2llm_integrations.model.embedder import C2LLMEmbedder
from c2llm_integrations.model.fingerprint import options_of
from c2llm_integrations.model.heads_and_projections import Head, Projection, remember
from c2llm_integrations.model.hf_model import C2LLMConfig, C2LLMModel
from c2llm_integrations.model.pma import PMA
from tests.golden import COMPRESSED, TIED, cosines

TEXTS = ["def add(a, b): return a + b", "", "class Cart: pass", "x" * 300]


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.setenv(name, str(tmp_path / "cache"))


def make(folder=TIED, width=16, heads=4, seed=0) -> Head:
    """A head of random weights for a golden checkpoint."""
    torch.manual_seed(seed)
    checkpoint = load_checkpoint(str(folder))
    pma = PMA(checkpoint.sizes.hidden_size, width, heads)
    tensors = {f"pma.{name}": tensor.detach() for name, tensor in pma.state_dict().items()}
    return Head(tensors, heads, True, checkpoint.name, None, checkpoint.digest(), "by chance")


@pytest.fixture
def file(tmp_path):
    make().save(tmp_path / "head.safetensors")
    return tmp_path / "head.safetensors"


def test_a_head_is_read_as_it_was_written(file):
    head, again = make(), Head.load(file)
    assert (again.digest, again.output_dim, again.num_heads) == (head.digest, 16, 4)
    assert (again.base, again.revision, again.weights, again.training) == (str(TIED), None, head.weights, "by chance")
    assert [f.name for f in file.parent.glob("head*")] == ["head.safetensors"]
    assert make(seed=1).digest != head.digest != make(heads=2).digest


def test_vectors_are_those_of_the_whole_model_with_this_pooling(file):
    embedder = C2LLMEmbedder.from_pretrained(str(TIED), head=file, dtype="float32", output_dim=16)
    checkpoint = load_checkpoint(str(TIED)).with_head(Head.load(file))
    model = C2LLMModel(C2LLMConfig(**checkpoint.config)).eval()
    names = {"backbone": "plm_model.model", "pma": "mha_pma"}
    state = {names[name.split(".")[0]] + name[name.index(".") :]: t for name, t in checkpoint.tensors().items()}
    model.load_state_dict({name: tensor.float() for name, tensor in state.items()})
    tokenizer = checkpoint.tokenizer()
    for text, vector in zip(TEXTS[::2], embedder.encode(TEXTS[::2]), strict=True):
        ids = torch.tensor([tokenizer.encode(text, add_special_tokens=False).ids])
        expected = model(ids).pooler_output.detach().numpy()[0]
        assert cosines(vector, expected) > 0.99999
    assert embedder.encode(TEXTS).shape == (4, embedder.output_dim) == (4, 16)


def test_the_fingerprint_names_the_head_and_leads_back_to_it(file):
    embedder = C2LLMEmbedder.from_pretrained(str(TIED), head=file)
    plain = C2LLMEmbedder.from_pretrained(str(TIED))
    head = Head.load(file)
    assert embedder.fingerprint == {**plain.fingerprint, "output_dim": 16, "head": head.digest}
    with pytest.raises(InputError, match=f"made with head {head.digest}.*--head FILE"):
        options_of(embedder.fingerprint)
    remember(head)
    again = C2LLMEmbedder.from_options(options_of(embedder.fingerprint))
    np.testing.assert_array_equal(again.encode(TEXTS), embedder.encode(TEXTS))
    assert options_of(embedder.fingerprint, head=file).head == str(file)


def test_a_head_for_another_model_is_named_with_both(file):
    with pytest.raises(CheckpointError, match=f"trained on {TIED} .weights [0-9a-f]+., .*{COMPRESSED.name} has"):
        C2LLMEmbedder.from_pretrained(str(COMPRESSED), head=file)


@pytest.mark.parametrize("other", [{"truncate_dim": 8}, {"projection": "p.safetensors"}, {"output_dim": 64}])
def test_a_head_decides_the_dimensions_alone(other, file):
    with pytest.raises(InputError, match=r"choose one|gives 16 dimensions, asked for 64"):
        C2LLMEmbedder.from_pretrained(str(TIED), head=file, **other)


def test_an_interrupted_save_leaves_the_good_head(file, tmp_path, monkeypatch):
    kept = tmp_path / "kept.safetensors"
    kept.write_bytes(file.read_bytes())

    def interrupt(tensors, partial, about):
        partial.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr("safetensors.torch.save_file", interrupt)
    with pytest.raises(KeyboardInterrupt):
        Head.load(file).save(kept)
    assert kept.read_bytes() == file.read_bytes()


def test_what_is_no_head_is_refused_by_name(tmp_path):
    about = {"format": "c2llm-head-1", "base": "", "revision": "", "weights": "", "training": "", "layer_norm": "1"}
    (tmp_path / "text").write_text("no safetensors")
    save_file({"matrix": torch.zeros(2, 2)}, tmp_path / "other", {"format": "c2llm-projection-1"})
    save_file({"pma.S": torch.zeros(1, 1, 9)}, tmp_path / "uneven", {**about, "num_heads": "4"})
    save_file({"x": torch.zeros(1)}, tmp_path / "empty", {**about, "num_heads": "4"})
    save_file({"pma.S": torch.zeros(1, 1, 8)}, tmp_path / "unsaid", about)
    for name in ("text", "other", "uneven", "empty", "unsaid", "absent"):
        with pytest.raises(CheckpointError, match=rf"{name} (is not|has format|cannot be read)"):
            Head.load(tmp_path / name)
    save_file({"pma.S": torch.zeros(1, 1, 8)}, tmp_path / "part", {**about, "num_heads": "4"})
    head = Head.load(tmp_path / "part")
    whole = Head(head.tensors, 4, True, "", None, load_checkpoint(str(TIED)).digest())
    whole.save(tmp_path / "part")
    with pytest.raises(CheckpointError, match="missing tensors: pma"):
        C2LLMEmbedder.from_pretrained(str(TIED), head=tmp_path / "part")


@pytest.mark.parametrize(
    "tensor",
    [
        torch.tensor(1.0),
        torch.zeros(1, 1, 0),
        torch.zeros(1, 1, 16, dtype=torch.int64),
        torch.zeros(1, 1, 16, dtype=torch.complex64),
        torch.zeros(1, 1, 16).to(torch.float8_e4m3fn),
        torch.zeros([1] * 70),
    ],
)
def test_tensors_that_no_pooling_has_are_named(tmp_path, tensor):
    about = {"format": "c2llm-head-1", "base": "", "revision": "", "weights": "", "training": "", "layer_norm": "1"}
    save_file({"pma.S": tensor}, tmp_path / "odd", {**about, "num_heads": "4"})
    with pytest.raises(CheckpointError, match=r"'pma\.S' is .* of shape"):
        Head.load(tmp_path / "odd")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no pipes among its files")
@pytest.mark.parametrize("read", [Head.load, Projection.load])
def test_a_pipe_is_not_waited_for(tmp_path, read):
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path / "pipe", tmp_path, Path("/dev/null")):
        with pytest.raises(CheckpointError, match="cannot be read: it is not a file"):
            read(place)


@pytest.mark.parametrize(
    ("number", "way"),
    [(errno.ENOMEM, "free memory"), (errno.EACCES, "make it readable"), (errno.EIO, "make a head")],
)
def test_what_the_machine_refuses_is_no_damage_of_the_file(file, monkeypatch, number, way):
    def refuse(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("c2llm_integrations.model.safetensors_files.safe_open", refuse)
    with pytest.raises(CheckpointError, match=f"cannot be read: .*{os.strerror(number)}; (?:{way})"):
        Head.load(file)


def test_a_head_cannot_replace_the_backbone(file, tmp_path):
    head = Head.load(file)
    more = {**head.tensors, "backbone.embed_tokens.weight": torch.zeros(3, 3)}
    Head(more, 4, True, head.base, None, head.weights).save(tmp_path / "more")
    with pytest.raises(CheckpointError, match=r"holds 'backbone\.embed_tokens\.weight'"):
        Head.load(tmp_path / "more")


@pytest.fixture
def folder(tmp_path):
    """A golden checkpoint that brings heads of 16 and 8 dimensions with it."""
    copy = tmp_path / "model"
    shutil.copytree(TIED, copy)
    for width in (16, 8):
        make(copy, width).save(copy / HEAD_FILE.format(width))
    return copy


@pytest.mark.parametrize("width", [16, 8])
def test_a_bundled_head_is_found_by_its_width(folder, width):
    embedder = C2LLMEmbedder.from_pretrained(str(folder), output_dim=width, dtype="float32")
    named = C2LLMEmbedder.from_pretrained(str(folder), head=folder / HEAD_FILE.format(width), dtype="float32")
    assert embedder.encode(TEXTS).shape == (4, width)
    np.testing.assert_array_equal(embedder.encode(TEXTS), named.encode(TEXTS))
    assert embedder.fingerprint == named.fingerprint
    assert options_of(embedder.fingerprint).output_dim == width  # on a machine that never saw the file
    assert options_of(embedder.fingerprint).head is None


def test_a_width_without_a_head_names_the_bundled_ones_and_the_ways(folder):
    said = r"asked for 32; heads of 16, 8 are bundled.*train-head .*model FOLDER --output-dim 32.*truncate_dim=32"
    with pytest.raises(InputError, match=said):
        C2LLMEmbedder.from_pretrained(str(folder), output_dim=32)


def test_the_own_width_needs_no_head(folder):
    assert C2LLMEmbedder.from_pretrained(str(folder), output_dim=64).checkpoint.head is None


def test_new_weights_get_no_head_of_the_old_ones(folder, tmp_path):
    source = load_checkpoint(str(folder))
    save_checkpoint(source, source.tensors(), tmp_path / "new")
    assert load_checkpoint(str(tmp_path / "new")).bundled_widths() == []
    save_checkpoint(source, source.tensors(), folder)
    assert load_checkpoint(str(folder)).bundled_widths() == []


@pytest.mark.parametrize("width", [128, 64, 32])
def test_nano_brings_heads_of_fewer_dimensions(width):
    embedder = C2LLMEmbedder.from_pretrained("nano", output_dim=width)
    full = C2LLMEmbedder.from_pretrained("nano")
    questions = ["read a file", "sort numbers", "open a socket"]
    code = [
        "def read(path): return open(path).read()",
        "def order(xs): return sorted(xs)",
        "socket.socket().connect(a)",
    ]
    for one in (embedder, full):
        scores = one.encode_queries(questions) @ one.encode_documents(code).T
        assert scores.argmax(1).tolist() == [0, 1, 2]
    assert options_of(embedder.fingerprint).output_dim == width
    assert sum(file.stat().st_size for file in NANO.glob(HEAD_FILE.format("*"))) < 1_000_000
