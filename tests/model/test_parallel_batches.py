"""Lanes begin whatever their device does, and a batch takes no new memory where the one before freed enough."""

import os
import platform
import subprocess
import sys
import threading

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from c2llm_integrations.model.checkpoint import load_checkpoint
from c2llm_integrations.model.encoder import PaddedEncoder, load_encoder
from c2llm_integrations.model.parallel_batches import (
    GPU_LANES,
    KEPT_BYTES,
    M_MMAP_THRESHOLD,
    M_TRIM_THRESHOLD,
    _set_thresholds,
    lanes,
    settle_functions,
)
from tests.golden import TIED

# On one thread and in one arena: what several lanes hold at the same moment, and where, differs from run to run.
COUNT = """
import resource, sys, torch
from c2llm_integrations.model import parallel_batches
from c2llm_integrations.model.embedder import C2LLMEmbedder
if sys.argv[1] == "untouched":
    parallel_batches._set_thresholds = lambda mallopt: False
torch.set_num_threads(1)
nano = C2LLMEmbedder.from_pretrained("nano", dtype="float32", batch_tokens=1024)
texts = [f"def function_{n}(first, second): return first + second * {n}" for n in range(400)]
for _ in range(4):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    nano.encode(texts)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_a_lane_of_a_gpu_queues_behind_the_weights_on_a_stream_of_its_own(monkeypatch):
    """What is called, in which order; whether streams differ is a test for GPUs."""
    calls = []

    class Stream:
        def __init__(self, device):
            calls.append(("made for", str(device)))

        def wait_stream(self, other):
            calls.append(("waits for", other))

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "default_stream", lambda device: f"default of {device}")
    monkeypatch.setattr(torch.cuda, "set_stream", lambda stream: calls.append(("taken", threading.get_ident())))
    with lanes(torch.device("cuda:1")):
        pass
    taken = {thread for what, thread in calls if what == "taken"}
    assert len(taken) == GPU_LANES
    assert threading.get_ident() not in taken
    assert calls.count(("waits for", "default of cuda:1")) == calls.count(("made for", "cuda:1")) == GPU_LANES


def test_lanes_start_where_a_stream_cannot_be_had(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "Stream", lambda _: pytest.fail("no such device"))
    with lanes(torch.device("cuda")) as threads:
        assert list(threads.map(abs, [-1, 2])) == [1, 2]


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told to keep memory")
def test_pages_are_asked_for_once():
    later = {}
    # glibc raises its own threshold when it likes; named, it stays.
    for setting, more in (("kept", {}), ("untouched", {"MALLOC_MMAP_THRESHOLD_": "131072"})):
        command, environment = [sys.executable, "-c", COUNT, setting], {**os.environ, "MALLOC_ARENA_MAX": "1", **more}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        later[setting] = [int(line) for line in done.stdout.split()][1:]
    assert max(later["kept"]) < min(later["untouched"]) / 10


@pytest.mark.parametrize(
    ("most", "made"),
    [
        (2**40, [(M_MMAP_THRESHOLD, 64 * 2**20), (M_TRIM_THRESHOLD, KEPT_BYTES)]),
        (32 * 2**20, [(M_MMAP_THRESHOLD, 32 * 2**20), (M_TRIM_THRESHOLD, KEPT_BYTES)]),  # glibc 2.34
        (2**20, []),
    ],
)
def test_an_older_glibc_gets_a_threshold_it_takes_or_no_setting(most, made):
    taken = []

    def mallopt(name, size):
        if name == M_MMAP_THRESHOLD and size > most:
            return 0
        taken.append((name, size))
        return 1

    assert _set_thresholds(mallopt) == bool(made)
    assert taken == made


# What PyTorch computes with Intel's vector library (the names that its CPU library imports), by the names of operators.
VECTOR_FUNCTIONS = {"acos", "asin", "atan", "cos", "erf", "erfc", "erfinv", "exp", "log", "log10", "log2", "sin"}
VECTOR_FUNCTIONS |= {"sqrt", "tan", "tanh", "trunc"}


class Calls(TorchDispatchMode):
    """Notes which of those functions are called."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names |= VECTOR_FUNCTIONS & {func.overloadpacket.__name__.removesuffix("_")}
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("model", [str(TIED), "nano"])
def test_no_function_of_the_vector_library_is_called_first_by_several_threads(model):
    """Its first call chooses a kernel, and of several at once one may get a kernel of low precision."""
    checkpoint = load_checkpoint(model)
    settle_functions.cache_clear()
    with Calls() as loading:
        packed = load_encoder(checkpoint, torch.float32, torch.device("cpu"))
    padded = PaddedEncoder(checkpoint, checkpoint.tensors(), torch.float32, torch.device("cpu"))
    with Calls() as computing:
        for encoder in (packed, padded):
            encoder([[1, 2, 3], [4, 5]])
    assert computing.names <= loading.names != set()
