"""Attention and pooling as a GPU does them: every way that runs here agrees with one text at a time."""

import inspect
import threading

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from c2llm_integrations.model import attention
from c2llm_integrations.model.attention import attend, attend_padded, attend_varlen, packed_layout, pool, to_device
from c2llm_integrations.model.checkpoint import load_checkpoint
from c2llm_integrations.model.embedder import C2LLMEmbedder
from c2llm_integrations.model.encoder import PaddedEncoder, load_encoder, pool_packed
from c2llm_integrations.model.parallel_batches import lane_count, lanes, run
from tests.golden import FOLDER, NAMES, cosines, expected

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
lengths_of_texts = st.lists(st.integers(1, 70), min_size=1, max_size=12)


def groups_of(lengths):
    """Each text is a group of its own, which is as good as runs of equal ones."""
    starts = [sum(lengths[:index]) for index in range(len(lengths))]
    return [(start, 1, length) for start, length in zip(starts, lengths, strict=True)]


def packed(lengths, heads, key_heads, spare, device=CPU, dtype=torch.float32):
    torch.manual_seed(len(lengths))
    tokens = sum(lengths) + spare
    return [torch.randn(tokens, n, 8).to(device, dtype) for n in (heads, key_heads, key_heads)]


def one_by_one(query, key, value, groups, causal):
    mixed = torch.zeros_like(query)
    for start, _, length in groups:
        q, k, v = (part[start : start + length].transpose(0, 1)[None] for part in (query, key, value))
        out = F.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=True)
        mixed[start : start + length] = out[0].transpose(0, 1)
    return mixed.flatten(1)


@given(lengths_of_texts, st.booleans(), st.sampled_from([(4, 4), (4, 2), (6, 1)]), st.integers(0, 5), st.booleans())
@settings(max_examples=60)
def test_padded_blocks_attend_as_one_text_at_a_time(lengths, causal, heads, spare, ordered):
    lengths = sorted(lengths, reverse=True) if ordered else lengths
    rows, groups = packed(lengths, *heads, spare), groups_of(lengths)
    torch.testing.assert_close(
        attend(*rows, packed_layout(lengths, rows[0].device), causal=causal), one_by_one(*rows, groups, causal)
    )


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("heads", [(4, 4), (14, 2)])
def test_a_gpu_attends_as_one_text_at_a_time(dtype, causal, heads):
    lengths = [700, 300, 300, 299, 40, 3, 1, 1]
    groups, rows = groups_of(lengths), packed(lengths, *heads, 7, torch.device("cuda"), dtype)
    wanted = one_by_one(*(part.float() for part in rows), groups, causal)
    close = {"atol": 2e-2, "rtol": 2e-2} if dtype == torch.bfloat16 else {"atol": 1e-4, "rtol": 1e-4}
    torch.testing.assert_close(
        attend(*rows, packed_layout(lengths, rows[0].device), causal=causal).float(), wanted, **close
    )


@pytest.mark.parametrize("causal", [True, False])
def test_the_variable_length_kernel_takes_what_it_is_given(causal):
    """No CPU has the kernel; on the `meta` device PyTorch checks the call and gives the shape."""
    varlen = pytest.importorskip("torch.nn.attention.varlen")
    if "enable_gqa" not in inspect.signature(varlen.varlen_attn).parameters:
        pytest.skip("this PyTorch has no grouped queries there")
    lengths = [9, 4, 4]
    rows = packed(lengths, 14, 2, 15, torch.device("meta"), torch.bfloat16)
    mixed = attend_varlen(*rows, packed_layout(lengths, torch.device("meta")), causal=causal)
    assert (mixed.shape, mixed.dtype) == ((32, 14, 8), torch.bfloat16)


@pytest.fixture
def older_kernel(monkeypatch):
    """A function that sets what stands in for the kernel of PyTorch before 2.13, which documents no grouped queries."""
    varlen = pytest.importorskip("torch.nn.attention.varlen")

    def set_kernel(kernel):
        monkeypatch.setattr(varlen, "varlen_attn", kernel)
        attention._varlen_options.cache_clear()
        attention._takes_grouped.cache_clear()

    yield set_kernel
    attention._varlen_options.cache_clear()
    attention._takes_grouped.cache_clear()


@pytest.mark.parametrize("way", ["takes", "refuses", "confuses"])
def test_an_older_kernel_gets_each_key_head_as_often_as_it_must(way, older_kernel):
    """Its kernel is stood in for by the padded way: it takes grouped queries, refuses them, or gives wrong numbers."""
    calls = []

    def varlen_attn(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, scale=None, window_size=(-1, -1)):
        calls.append((key.shape[1], cu_seq_q.tolist(), max_q, window_size))
        grouped = query.shape[1] != key.shape[1]
        if grouped and way == "refuses":
            raise RuntimeError("as many heads of keys as of queries are needed")
        mixed = attend_padded(query, key, value, packed_layout(cu_seq_q.diff().tolist(), CPU), causal=True)
        return mixed.flip(1) if grouped and way == "confuses" else mixed

    older_kernel(varlen_attn)
    rows, lengths = packed([9, 4, 4], 14, 2, 15), [9, 4, 4]
    for _ in range(2):
        found = attend_varlen(*rows, packed_layout(lengths, CPU), causal=True).flatten(1)
        torch.testing.assert_close(found, one_by_one(*rows, groups_of(lengths), True))
    tried, *asked = calls
    assert tried[0] == 2
    assert asked == 2 * [(2 if way == "takes" else 14, [0, 9, 13, 17], 9, (-1, 0))]


@given(lengths_of_texts, st.booleans())
@settings(max_examples=60)
def test_pooling_weighs_each_text_on_its_own(lengths, ordered):
    lengths = sorted(lengths, reverse=True) if ordered else lengths
    torch.manual_seed(0)
    scores, states = torch.randn(sum(lengths) + 3, 4), torch.randn(sum(lengths) + 3, 6)
    texts = [slice(start, start + length) for start, _, length in groups_of(lengths)]
    wanted = torch.stack([scores[rows].softmax(0).T @ states[rows] for rows in texts])
    torch.testing.assert_close(pool(scores, states, packed_layout(lengths, CPU)), wanted)


@given(st.lists(st.integers(1, 2048), min_size=1, max_size=500))
@settings(max_examples=20)
def test_a_batch_is_few_blocks_of_little_padding(lengths):
    lengths.sort(reverse=True)
    texts = packed_layout(lengths, CPU)
    assert len(texts.blocks) <= 12
    assert sum(block.rows.numel() for block in texts.blocks) <= 2 * sum(lengths)
    assert [block.begin for block in texts.blocks] == [0, *(block.end for block in texts.blocks[:-1])]
    assert texts.offsets.tolist()[-1] == texts.tokens == sum(lengths)


def test_runs_of_equal_texts_are_as_good_as_one_by_one():
    rows = packed([5, 5, 5, 2], 4, 2, 1)
    together = attend(*rows, packed_layout([5, 5, 5, 2], CPU), causal=True)
    torch.testing.assert_close(together, one_by_one(*rows, groups_of([5, 5, 5, 2]), causal=True))


def test_a_copy_to_where_it_is_already():
    assert to_device(torch.arange(3), CPU).tolist() == [0, 1, 2]


@pytest.mark.parametrize("name", ["nano", *NAMES])
def test_the_whole_model_agrees_with_the_padded_one(name):
    checkpoint = load_checkpoint("nano" if name == "nano" else str(FOLDER / name))
    packed = load_encoder(checkpoint, torch.float32, CPU)
    padded = PaddedEncoder(checkpoint, checkpoint.tensors(), torch.float32, CPU)
    packed.as_gpu = True
    batch = [[n % 50 + 1] * n for n in (40, 33, 33, 20, 7, 1, 1)]
    torch.testing.assert_close(packed(batch), padded(batch), atol=2e-5, rtol=0)


@pytest.mark.parametrize("name", ["nano", *NAMES])
@pytest.mark.parametrize(("dtype", "varlen"), [(torch.bfloat16, True), (torch.bfloat16, False), (torch.float32, False)])
def test_the_whole_path_on_a_device_that_only_checks(name, dtype, varlen, monkeypatch):
    """PyTorch checks every call's shapes and data types, and that nothing was left on the CPU; nothing is computed."""
    monkeypatch.setattr(attention, "_takes_varlen", lambda _: varlen)
    checkpoint = load_checkpoint("nano" if name == "nano" else str(FOLDER / name))
    checked = load_encoder(checkpoint, dtype, torch.device("meta"))
    checked.as_gpu = True
    with torch.inference_mode():
        states, texts = checked._states([[3] * length for length in (40, 33, 33, 20, 7, 1, 1)])
        pooled = pool_packed(checked.pooling, states, texts)
    assert (states.device.type, states.dtype, states.shape[0]) == ("meta", dtype, 160)
    assert (pooled.device.type, pooled.dtype) == ("meta", torch.float32)
    assert pooled.shape == (7, checkpoint.output_dim)


def test_two_batches_are_begun_at_a_time_and_come_with_their_results():
    device, before = torch.device("cuda"), torch.get_num_threads()
    names, both = set(), threading.Barrier(2, timeout=30)

    def encode(batch):
        names.add(threading.get_ident())
        both.wait()  # which another batch does at the same time, or never
        return torch.tensor(batch)

    batches = [[[n]] for n in range(10)]
    with lanes(device) as threads:
        got = list(run(threads, encode, batches, lane_count(device)))
    assert sorted(batch for batch, _ in got) == batches
    assert all(one.tolist() == batch for batch, one in got)
    assert len(names) == 2
    assert torch.get_num_threads() == before


@pytest.mark.gpu
def test_lanes_of_a_gpu_have_streams_of_their_own():
    both = threading.Barrier(2, timeout=30)
    with lanes(torch.device("cuda")) as threads:
        streams = list(threads.map(lambda _: (both.wait(), torch.cuda.current_stream().cuda_stream)[1], range(2)))
    assert len({*streams, torch.cuda.current_stream().cuda_stream}) == 3


@pytest.mark.gpu
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_golden_vectors_on_a_gpu(name, dtype):
    texts, raw, _ = expected(FOLDER / name)
    vectors = C2LLMEmbedder.from_pretrained(str(FOLDER / name), dtype=dtype, device="cuda").encode(texts)
    assert cosines(vectors, raw).min() >= (0.999 if dtype == "bfloat16" else 0.999999)
