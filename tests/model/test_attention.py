"""Where PMA looks: the weights are those of the published formula, and stand where their tokens stand."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from c2llm_integrations.errors import InputError
from c2llm_integrations.model.checkpoint import load_checkpoint
from c2llm_integrations.model.embedder import C2LLMEmbedder
from c2llm_integrations.model.encoder import PackedEncoder, PaddedEncoder, load_encoder
from tests.golden import FOLDER, NAMES, TIED

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
CODE = "def add(first, second):\n    return first + second\n"


@pytest.fixture(scope="module")
def tiny() -> C2LLMEmbedder:
    return C2LLMEmbedder.from_pretrained(str(TIED), dtype="float32")


@pytest.mark.parametrize("name", NAMES)
def test_the_published_formula(name):
    """Softmax of q·K over the full width's root, each head on its own, from the model's own states."""
    checkpoint = load_checkpoint(str(FOLDER / name))
    packed = load_encoder(checkpoint, torch.float32, CPU)
    padded = PaddedEncoder(checkpoint, checkpoint.tensors(), torch.float32, CPU)
    assert isinstance(packed, PackedEncoder)
    ids = list(range(3, 40))
    weights = {name: tensor.float().numpy() for name, tensor in checkpoint.tensors().items()}
    with torch.inference_mode():
        states = padded.model(input_ids=torch.tensor([ids]), attention_mask=None).last_hidden_state[0].numpy()
    seed = weights["pma.S"][0, 0]
    width, heads = len(seed), checkpoint.config["pma_num_heads"]
    query = weights["pma.mab.fc_q.weight"] @ seed + weights["pma.mab.fc_q.bias"]
    keys = states @ weights["pma.mab.fc_k.weight"].T + weights["pma.mab.fc_k.bias"]
    for head in range(heads):
        part = slice(head * width // heads, (head + 1) * width // heads)
        scores = np.exp(keys[:, part] @ query[part] / np.sqrt(width))
        for encoder in (packed, padded):
            np.testing.assert_allclose(encoder.attention(ids)[:, head], scores / scores.sum(), atol=1e-5, rtol=0)


def test_a_backbone_that_is_padded(tiny):
    checkpoint = load_checkpoint(str(TIED))
    padded = PaddedEncoder(checkpoint, checkpoint.tensors(), torch.float32, CPU)
    np.testing.assert_allclose(padded.attention([1, 2, 3]).sum(0), 1, atol=1e-5)


def test_tokens_stand_where_they_stand_in_the_text(tiny):
    found = tiny.attention(CODE)
    assert found[0][0] == 0
    assert found[-1][1] == len(CODE.rstrip())
    starts, ends, weights = zip(*found, strict=True)
    assert list(starts) == sorted(starts)
    assert all(start < end for start, end, _ in found)
    assert set(range(len(CODE.rstrip()))) - {place for start, end, _ in found for place in range(start, end)} == set()
    assert all(weight > 0 for weight in weights)
    assert 0.1 < sum(weights) < 1  # the rest lies on the prompt
    assert ends[0] > 0


def test_what_is_stripped_moves_no_token(tiny):
    """The prompt stands in front of the text, so blanks at its start are embedded and those at its end are not."""
    found = tiny.attention("\n\n" + CODE + "\n\n")
    assert found[-1][1] == len(CODE.rstrip()) + 2


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=80))
@settings(max_examples=40)
def test_any_text_has_its_weights_inside(tiny, text):
    found = tiny.attention(text)
    assert all(0 <= start <= end <= len(text) for start, end, _ in found)
    assert sum(weight for *_, weight in found) <= 1 + 1e-4


def test_what_is_not_read_has_no_weight():
    short = C2LLMEmbedder.from_pretrained(str(TIED), dtype="float32", max_length=64)
    found = short.attention(CODE * 20)
    assert 0 < found[-1][1] < len(CODE * 10)
    assert len(found) < 64


def test_a_lone_surrogate_is_refused(tiny):
    with pytest.raises(InputError, match="surrogate"):
        tiny.attention("\ud800")


def test_without_a_prompt_all_the_weight_lies_on_the_text():
    nano = C2LLMEmbedder.from_pretrained("nano", dtype="float32")
    nano.checkpoint.prompts["document"] = ""
    assert nano.attention("") == []
    assert abs(sum(weight for *_, weight in nano.attention(CODE)) - 1) < 1e-4
