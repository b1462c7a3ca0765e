"""The pooler, step by step, as vLLM's workers call it."""

import numpy as np
import torch
from vllm import PoolingParams
from vllm.v1.pool.metadata import PoolingMetadata, PoolingStates

from c2llm_integrations.server.vllm import ServedConfig
from c2llm_integrations.server.vllm.model import PMAPooler

LENGTH = 10


def pooler():
    torch.manual_seed(0)
    config = ServedConfig(hidden_size=64, num_attention_heads=1, compressed_dim=32, pma_num_heads=4)
    config.c2llm_dimensions = [8]
    return PMAPooler(config)


def step(pooler, states, parts, wanted, requests):
    """Pool one part, begin and end, of each text; a text is LENGTH of the states."""
    params = [PoolingParams(task="embed", use_activation=True, dimensions=width) for width in wanted]
    lengths = torch.full((len(parts),), LENGTH)
    metadata = PoolingMetadata(lengths, None, None, params, requests)
    counts = np.array([end - begin for begin, end in parts], dtype=np.int32)
    metadata.build_pooling_cursor(counts, torch.tensor([end for _, end in parts]), torch.device("cpu"))
    packed = torch.cat([text[begin:end] for text, (begin, end) in zip(states, parts, strict=True)])
    return pooler(packed, metadata)


def test_a_text_in_parts_among_others_gets_its_whole_vector():
    loaded, states = pooler(), torch.randn(3, LENGTH, 64)
    whole = step(loaded, states, [(0, LENGTH)] * 3, [None] * 3, [PoolingStates() for _ in states])
    requests = [PoolingStates() for _ in states]
    first = step(loaded, states, [(0, 3), (0, LENGTH), (0, 7)], [None, 8, None], requests)
    assert [vector is None for vector in first] == [True, False, True]
    torch.testing.assert_close(first[1], torch.nn.functional.normalize(whole[1][:8], dim=0))
    second = step(loaded, states[[0, 2]], [(3, LENGTH), (7, LENGTH)], [None, None], [requests[0], requests[2]])
    torch.testing.assert_close(second, [whole[0], whole[2]])


def test_a_text_that_is_begun_again_is_not_pooled_twice():
    loaded, states, request = pooler(), torch.randn(1, LENGTH, 64), [PoolingStates()]
    [whole] = step(loaded, states, [(0, LENGTH)], [None], request)
    for part in ((0, 4), (4, 6), (0, 5)):
        assert step(loaded, states, [part], [None], request) == [None]
    [found] = step(loaded, states, [(5, LENGTH)], [None], request)
    torch.testing.assert_close(found, whole)
