"""vLLM gives the vectors that our embedder gives; with default options, in one process."""

import numpy as np
import pytest
from vllm import LLM
from vllm.exceptions import VLLMValidationError

from c2llm_integrations import C2LLMEmbedder
from c2llm_integrations.model.prompts import DOCUMENT

NEAR = 1e-4


@pytest.fixture(scope="module")
def embedder(model):
    return C2LLMEmbedder.from_pretrained(str(model), dtype="float32", device="cpu", max_length=8192)


@pytest.fixture(scope="module")
def llm(model):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        yield LLM(str(model), runner="pooling", dtype="float32", enforce_eager=True, max_model_len=8192)


def embed(llm, texts):
    return np.array([output.outputs.embedding for output in llm.embed(texts, use_tqdm=False)])


def test_mixed_texts_get_the_embedders_vectors(llm, embedder, texts):
    found = embed(llm, texts)
    assert found.shape == (500, 96)
    np.testing.assert_allclose(found, embedder.encode(texts), atol=NEAR)


def test_a_vector_does_not_depend_on_its_batch(llm, texts):
    alone = np.concatenate([embed(llm, [text]) for text in texts[:10]])
    np.testing.assert_allclose(alone, embed(llm, texts[:100])[:10], atol=NEAR)


def test_long_texts_get_the_embedders_vectors(llm, embedder, texts):
    long = ["".join(texts)[start : start + size] for start, size in ((0, 12_000), (7, 7_000), (0, 3))]
    assert max(embedder.count_tokens(long)) > 4096
    np.testing.assert_allclose(embed(llm, long), embedder.encode(long), atol=NEAR)


def test_an_empty_document_has_a_prompt_to_embed(llm, embedder):
    np.testing.assert_allclose(embed(llm, [DOCUMENT]), embedder.encode_documents([""]), atol=NEAR)


def test_nothing_at_all_is_refused_by_vllm_and_can_be_sent_as_the_padding_token(llm, embedder):
    with pytest.raises(VLLMValidationError, match="cannot be empty"):
        llm.embed([""], use_tqdm=False)
    blank = embedder.checkpoint.blank_token(embedder.checkpoint.tokenizer())
    np.testing.assert_allclose(embed(llm, [{"prompt_token_ids": [blank]}]), embedder.encode([""]), atol=NEAR)
