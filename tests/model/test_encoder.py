"""The packed computation agrees with the padded one and with the golden vectors."""

import dataclasses
import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from c2llm_integrations.errors import CheckpointError
from c2llm_integrations.model.checkpoint import Checkpoint, ModelConfig, load_checkpoint, save_checkpoint
from c2llm_integrations.model.encoder import PackedEncoder, PaddedEncoder, gpu_budget, load_encoder
from c2llm_integrations.model.hf_model import C2LLMConfig, C2LLMModel
from c2llm_integrations.model.parallel_batches import lane_count, lanes, run
from tests.golden import COMPRESSED, TIED

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
BERT = {
    "model_type": "bert",
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
}


@pytest.fixture(scope="module")
def bert(tmp_path_factory) -> Checkpoint:
    """A random BERT under a PMA, saved in the released layout."""
    torch.manual_seed(1)
    config = {"model_type": "c2llm", "compressed_dim": 16, "pma_num_heads": 4, "backbone_config": BERT}
    model = C2LLMModel(C2LLMConfig(**{k: v for k, v in config.items() if k != "model_type"}))
    folder = tmp_path_factory.mktemp("bert")
    names = {
        name.replace("plm_model.model.", "backbone.").replace("mha_pma.", "pma."): tensor
        for name, tensor in model.state_dict().items()
    }
    source = Checkpoint("bert", folder, config, {})
    save_checkpoint(source, names, folder)
    return source


@pytest.fixture(scope="module")
def pairs(bert):
    """(packed, padded) encoders of three checkpoints."""
    checkpoints = [load_checkpoint(str(TIED)), load_checkpoint(str(COMPRESSED)), bert]
    return [
        (load_encoder(c, torch.float32, CPU), PaddedEncoder(c, c.tensors(), torch.float32, CPU)) for c in checkpoints
    ]


@given(st.lists(st.lists(st.integers(0, 59), min_size=1, max_size=40), min_size=1, max_size=12))
@settings(max_examples=25)
def test_packed_equals_padded_for_any_batch(pairs, texts):
    for packed, padded in pairs:
        assert isinstance(packed, PackedEncoder)
        np.testing.assert_allclose(packed(texts), padded(texts), atol=1e-4, rtol=0)


def test_a_vector_does_not_depend_on_its_batch(pairs):
    texts = [[1, 2, 3], [4] * 30, [5, 6, 7], list(range(20)), [8]]
    for packed, _ in pairs:
        together = packed(texts)
        for row, text in enumerate(texts):
            np.testing.assert_allclose(packed([text])[0], together[row], atol=1e-5, rtol=0)
        np.testing.assert_allclose(packed(texts[::-1]).numpy()[::-1], together, atol=1e-5, rtol=0)


def test_bfloat16_stays_close(pairs):
    checkpoint = load_checkpoint(str(TIED))
    exact, rough = pairs[0][0], load_encoder(checkpoint, torch.bfloat16, CPU)
    texts = [[1, 2, 3, 4], list(range(50))]
    assert torch.cosine_similarity(exact(texts), rough(texts)).min() >= 0.999


def test_a_backbone_that_is_not_computed_here_goes_padded(bert):
    odd = dataclasses.replace(bert, config={**bert.config, "backbone_config": {**BERT, "hidden_act": "relu"}})
    assert isinstance(load_encoder(odd, torch.float32, CPU), PaddedEncoder)


@pytest.mark.parametrize("change", [{"num_hidden_layers": 3}, {"num_hidden_layers": 1}])
def test_missing_and_left_over_tensors_are_listed(bert, change):
    odd = dataclasses.replace(bert, config={**bert.config, "backbone_config": {**BERT, **change}})
    with pytest.raises(CheckpointError, match=r"encoder\.layer\.[12]\."):
        load_encoder(odd, torch.float32, CPU)


def test_a_tensor_of_another_shape_is_named_not_broadcast():
    checkpoint = load_checkpoint(str(TIED))
    tensors = checkpoint.tensors()
    tensors["pma.mab.fc_o.bias"] = tensors["pma.mab.fc_o.bias"][:1]

    class Changed(Checkpoint):
        def tensors(self):
            return dict(tensors)

    odd = Changed(checkpoint.name, checkpoint.folder, checkpoint.config, {})
    with pytest.raises(CheckpointError, match=r"fc_o\.bias is \(1,\), config\.json says \(64,\)"):
        load_encoder(odd, torch.float32, CPU)


def test_a_backbone_that_needs_code_of_its_own_is_refused_without_asking(bert, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked on standard input"))
    nested = {"model_type": "trocr", "hidden_size": 32, "vocab_size": 60, "auto_map": {"AutoModel": "evil/repo--m.X"}}
    odd = dataclasses.replace(bert, config={**bert.config, "backbone_config": nested})
    with pytest.raises(CheckpointError, match="'trocr'"):
        load_encoder(odd, torch.float32, CPU)


def test_rope_theta_beside_rope_parameters():
    checkpoint = load_checkpoint(str(TIED))
    both = dataclasses.replace(checkpoint, config={**checkpoint.config, "rope_parameters": {"rope_type": "default"}})
    texts = [list(range(30))]
    want = load_encoder(checkpoint, torch.float32, CPU)(texts)
    np.testing.assert_allclose(load_encoder(both, torch.float32, CPU)(texts), want, atol=1e-6)


def test_a_qwen2_that_is_computed_padded_says_so():
    checkpoint = load_checkpoint(str(TIED))
    scaled = {"rope_scaling": {"rope_type": "linear", "factor": 2.0}}
    with pytest.warns(UserWarning, match="rope scaling or a sliding window, which is computed padded"):
        encoder = load_encoder(
            dataclasses.replace(checkpoint, config={**checkpoint.config, **scaled}), torch.float32, CPU
        )
    assert encoder.padded


def side_by_side(encode, batches):
    with lanes(CPU) as threads:
        return list(run(threads, encode, batches, lane_count(CPU)))


@pytest.mark.parametrize("threads", [1, 3])
def test_batches_side_by_side_come_with_their_vectors_and_keep_the_callers_threads(pairs, threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        encoder = pairs[0][0]
        batches = [[[n + 1] * (n % 5 + 1)] * (n % 3 + 1) for n in range(20)]
        got = side_by_side(encoder, batches)
        assert torch.get_num_threads() == threads
        assert sorted(batch for batch, _ in got) == sorted(batches)
        for batch, vectors in got:
            np.testing.assert_allclose(vectors, encoder(batch), atol=1e-5)
        assert side_by_side(encoder, []) == []
    finally:
        torch.set_num_threads(before)


def test_a_failing_batch_raises_where_its_vectors_are_awaited(pairs):
    batches = [[[1]], [[10**6]], [[2]]]
    with pytest.raises(IndexError):
        side_by_side(pairs[0][0], batches)


def test_lanes_that_begin_at_the_same_time_leave_the_callers_threads():
    before, counts = torch.get_num_threads(), []
    torch.set_num_threads(3)
    try:
        for _ in range(50):
            together = threading.Barrier(4)

            def begin(together=together):
                together.wait()
                lanes(CPU).shutdown()
                counts.append(lane_count(CPU))

            begun = [threading.Thread(target=begin) for _ in range(4)]
            for thread in begun:
                thread.start()
            for thread in begun:
                thread.join()
            fresh = threading.Thread(target=lambda: counts.append(torch.get_num_threads()))
            fresh.start()
            fresh.join()
        assert set(counts) == {3}
    finally:
        torch.set_num_threads(before)


def test_each_lane_of_a_cpu_computes_on_one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with lanes(CPU) as threads:
            assert list(threads.map(lambda _: torch.ones(2).sum() and torch.get_num_threads(), range(4))) == [1] * 4
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_gpu_gets_batches_that_fit_its_free_memory():
    small = ModelConfig(output_dim=896, hidden_size=896, intermediate_size=4864)
    large = ModelConfig(output_dim=3584, hidden_size=3584, intermediate_size=18944)
    gib = 2**30
    assert gpu_budget(small, 2, 120 * gib) == 32768
    assert 2048 <= gpu_budget(large, 2, 2 * gib) < gpu_budget(large, 2, 8 * gib) < 32768
    assert gpu_budget(large, 2, 0) == 2048
    assert gpu_budget(small, 4, gib) <= gpu_budget(small, 2, gib)
