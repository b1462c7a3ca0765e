"""C2LLM as a sentence-transformers model."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

from c2llm_integrations.errors import CheckpointError, InputError
from c2llm_integrations.model.embedder import C2LLMEmbedder
from c2llm_integrations.sentence_transformers import C2LLMPooling, load
from tests.golden import COMPRESSED, TIED, expected

TEXTS = ["def f(x):\n    return x\n", "", "  indented\n\n", "word " * 3000, "Ünïcode 字"]


@pytest.fixture(scope="module", params=[TIED, COMPRESSED], ids=lambda folder: folder.name)
def folder(request):
    return request.param


@pytest.fixture(scope="module")
def model(folder):
    return load(str(folder), device="cpu")


@pytest.fixture(scope="module")
def embedder(folder):
    return C2LLMEmbedder.from_pretrained(str(folder), dtype="float32", device="cpu")


def test_vectors_are_the_embedders(model, embedder):
    np.testing.assert_allclose(model.encode(TEXTS), embedder.encode(TEXTS), atol=1e-5)
    np.testing.assert_allclose(model.encode_query(TEXTS), embedder.encode_queries(TEXTS), atol=1e-5)
    np.testing.assert_allclose(model.encode_document(TEXTS), embedder.encode_documents(TEXTS), atol=1e-5)
    np.testing.assert_allclose(
        model.encode(TEXTS, prompt_name="CosQA"), embedder.encode_queries(TEXTS, "CosQA"), atol=1e-5
    )
    assert model.get_embedding_dimension() == embedder.output_dim
    assert model.max_seq_length == embedder.max_length


def test_raw_vectors_are_the_golden_ones(folder):
    texts, raw, _ = expected(folder)
    np.testing.assert_allclose(load(str(folder), device="cpu", normalize=False).encode(texts), raw, atol=1e-4)


def test_a_saved_model_is_a_c2llm_folder(model, tmp_path):
    model.save_pretrained(str(tmp_path))
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "c2llm"
    again = C2LLMEmbedder.from_pretrained(str(tmp_path), dtype="float32", device="cpu")
    np.testing.assert_allclose(again.encode_queries(TEXTS), model.encode_query(TEXTS), atol=1e-5)
    np.testing.assert_array_equal(load(str(tmp_path), device="cpu").encode(TEXTS), model.encode(TEXTS))


def test_what_is_saved_as_it_was_loaded_searches_the_same_collections(tmp_path):
    load("nano", device="cpu").save_pretrained(str(tmp_path))  # nano's weights are float16, those of the model float32
    made, again = (C2LLMEmbedder.from_pretrained(name).fingerprint["weights"] for name in ("nano", str(tmp_path)))
    assert made == again


def test_the_pooling_alone_is_read_back_as_it_was_saved(model, tmp_path):
    model[1].save(str(tmp_path))
    again = C2LLMPooling.load(str(tmp_path))
    for name, value in model[1].state_dict().items():
        assert torch.equal(again.state_dict()[name], value)


def test_it_can_be_trained_with_the_librarys_losses_and_the_training_is_saved(tmp_path):
    model = load(str(TIED), device="cpu")
    loss = MultipleNegativesRankingLoss(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    queries, codes = ["add numbers", "say hello"], ["a + b", "print('hello')"]
    losses = []
    for _ in range(5):
        optimizer.zero_grad()
        value = loss([model.preprocess(queries), model.preprocess(codes)], None)
        value.backward()
        assert model[1].pma.S.grad.abs().sum() > 0
        optimizer.step()
        losses.append(value.item())
    assert losses[-1] < losses[0]
    model.save_pretrained(str(tmp_path))
    trained = C2LLMEmbedder.from_pretrained(str(tmp_path), dtype="float32", device="cpu")
    np.testing.assert_allclose(trained.encode(codes), model.encode(codes), atol=1e-5)
    assert not np.allclose(trained.encode(codes), load(str(TIED), device="cpu").encode(codes), atol=1e-3)


def test_the_librarys_evaluator_takes_it(model):
    evaluate = InformationRetrievalEvaluator(
        queries={"q": "def f(x):\n    return x\n"},
        corpus={"a": "def f(x):\n    return x\n", "b": "SELECT 1", "c": "# nothing"},
        relevant_docs={"q": {"a"}},
        mrr_at_k=[3],
        ndcg_at_k=[3],
        accuracy_at_k=[3],
        precision_recall_at_k=[3],
        map_at_k=[3],
    )
    assert evaluate(model)["cosine_accuracy@3"] == 1.0


def test_bad_input_and_bad_folders_are_our_own_errors(model, tmp_path):
    with pytest.raises(InputError, match="no model folder"):
        load("nowhere at all")
    with pytest.raises(CheckpointError, match=r"config\.json"):
        load(str(tmp_path))
    with pytest.raises(InputError, match="text 1 is a tuple"):
        model[0].preprocess(["fine", ("a", "b")])


def test_a_missing_tensor_is_named(tmp_path):
    from safetensors.torch import load_file, save_file

    for file in TIED.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    tensors = load_file(tmp_path / "model.safetensors")
    lost = next(name for name in tensors if name.endswith("mab.fc_o.bias"))
    del tensors[lost]
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"missing tensors: mha_pma\.mab\.fc_o\.bias; left over: none"):
        load(str(tmp_path))


def test_without_the_library_the_extra_is_named():
    code = """
import sys
sys.modules["sentence_transformers"] = None
import c2llm_integrations.sentence_transformers
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.splitlines()[-1].endswith('run: pip install "c2llm-integrations[sentence-transformers]"')
