"""The data type is chosen by what the machine does, kept for it, and never taken from another machine."""

import json
import os
import platform
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch

from c2llm_integrations.model import dtype_choice
from c2llm_integrations.model.checkpoint import load_checkpoint
from c2llm_integrations.model.dtype_choice import (
    FIRST_TURNS,
    best_dtype,
    compared,
    cpu_times,
    fastest,
    product_times,
    this_machine,
)
from c2llm_integrations.model.encoder import load_encoder
from tests.golden import TIED

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("milliseconds", "chosen"),
    [
        ({"float32": 1.0, "bfloat16": 40.0, "int8": 1.2}, torch.float32),
        ({"float32": 1.0, "bfloat16": 0.3}, torch.bfloat16),
        ({"float32": 1.0, "bfloat16": 0.3, "int8": 0.2}, torch.int8),
        ({"float32": 1.0, "bfloat16": 0.3, "int8": 0.29}, torch.bfloat16),  # no gain worth fewer bits
        ({"float32": 1.0, "bfloat16": 0.95, "int8": 0.5}, torch.int8),
        ({"float32": 1.0}, torch.float32),
    ],
)
def test_fewer_bits_must_gain_something(milliseconds, chosen):
    assert fastest(milliseconds) == chosen


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(dtype_choice, "user_cache", lambda: tmp_path / "cache")
    product_times.cache_clear()
    yield tmp_path / "cache" / "cpu.json"
    product_times.cache_clear()


def test_it_is_measured_once_for_a_machine(cache, monkeypatch):
    first = product_times(64, 96)
    assert {"float32", "bfloat16"} <= first.keys()
    assert all(ms > 0 for ms in first.values())
    monkeypatch.setattr(dtype_choice, "_measured", lambda *_: pytest.fail("measured again"))
    product_times.cache_clear()  # as in another process
    assert product_times(64, 96) == first


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_in_its_place_is_not_waited_for(cache, monkeypatch):
    monkeypatch.setattr(dtype_choice, "_measured", lambda *_: {"float32": 1.0})
    cache.parent.mkdir()
    os.mkfifo(cache)
    waiting = threading.Thread(target=product_times, args=(64, 96), daemon=True)
    waiting.start()
    waiting.join(20)
    assert cache.is_file()


def timers(load, costs):
    """A way's time under a load on the machine that changes from turn to turn, and now and then within one."""
    turn = iter(range(10**6))
    state = {}

    def timer(name):
        if name == "float32":
            state["load"] = load(next(turn))
        return costs[name] * state["load"]

    return {name: lambda name=name: timer(name) for name in costs}


COSTS = {"float32": 1.0, "bfloat16": 0.5, "int8": 0.3}


@pytest.mark.parametrize(
    "load",
    [lambda turn: 1, lambda turn: 20, lambda turn: 1 + turn % 7, lambda turn: 50 if turn < 3 else 1],
    ids=["quiet", "busy throughout", "changing", "busy at first"],
)
def test_what_else_runs_does_not_change_the_choice(load):
    found = compared(timers(load, COSTS))
    assert fastest(found) == torch.int8
    assert found["bfloat16"] / found["float32"] == pytest.approx(0.5, abs=1e-3)


def test_single_turns_that_were_disturbed_do_not_count():
    calls = iter(range(10**6))
    disturbed = {"float32": lambda: 1.0, "bfloat16": lambda: 30.0 if next(calls) % 4 == 1 else 0.5}
    found = compared(disturbed)
    assert found["bfloat16"] == 0.5


def test_a_hopeless_type_is_soon_left_out():
    calls = []
    found = compared({"float32": lambda: 1.0, "bfloat16": lambda: calls.append(1) or 100.0})
    assert (len(calls), found["bfloat16"]) == (FIRST_TURNS, 100.0)


def test_a_machine_without_a_name_of_its_cpu_is_described(monkeypatch):
    monkeypatch.delattr(os, "uname", raising=False)  # as on Windows
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict, raising=False)
    assert platform.machine() in this_machine()


@pytest.mark.parametrize("damage", ["", "[]", "{", '{"x": 1}', "\x00"])
def test_a_damaged_or_foreign_record_is_measured_anew(cache, damage):
    cache.parent.mkdir()
    cache.write_text(damage)
    assert product_times(64, 96)["float32"] > 0
    assert product_times(64, 96) in json.loads(cache.read_text()).values()


def test_a_limit_of_the_environment_is_another_machine(cache, monkeypatch):
    names = [this_machine()]
    for name in ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA"):
        monkeypatch.setenv(name, "avx2")
        names.append(this_machine())
    assert len(set(names)) == 3


def test_a_cache_that_cannot_be_written_is_no_error(cache):
    cache.parent.write_text("a file where the folder would be")
    assert product_times(64, 96)["float32"] > 0


def test_only_what_the_checkpoint_allows_is_chosen(monkeypatch):
    monkeypatch.setattr(dtype_choice, "product_times", lambda *_: {"float32": 1.0, "bfloat16": 9.0, "int8": 0.1})
    assert best_dtype(load_checkpoint(str(TIED)), [CPU]) == torch.float32
    assert "int8" not in cpu_times(load_checkpoint(str(TIED)))


@pytest.mark.parametrize(
    ("capabilities", "chosen"),
    [
        ([(9, 0)], torch.bfloat16),
        ([(8, 0)], torch.bfloat16),
        ([(7, 5)], torch.float32),  # Turing
        ([(7, 0)], torch.float32),  # Volta
        ([(9, 0), (7, 5)], torch.float32),
    ],
)
def test_a_gpu_that_emulates_bfloat16_computes_float32(capabilities, chosen, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capabilities[device.index])
    devices = [torch.device("cuda", number) for number in range(len(capabilities))]
    assert best_dtype(load_checkpoint(str(TIED)), devices) == chosen
    assert best_dtype(load_checkpoint(str(TIED)), [torch.device("mps")]) == torch.float32


VECTORS = """
import sys, numpy as np, torch
from c2llm_integrations.model.checkpoint import load_checkpoint
from c2llm_integrations.model.encoder import load_encoder
for dtype in sys.argv[3].split(","):
    encoder = load_encoder(load_checkpoint(sys.argv[1]), getattr(torch, dtype), torch.device("cpu"))
    np.save(f"{sys.argv[2]}/{dtype}.npy", encoder([list(range(5, 45)), [7], [9, 8, 7] * 7]).numpy())
"""
TEXTS = [list(range(5, 45)), [7], [9, 8, 7] * 7]


def vectors_of(command, model, folder, dtypes, **environment):
    subprocess.run(
        [*command, "-c", VECTORS, model, str(folder), ",".join(dtypes)],
        check=True,
        capture_output=True,
        env={**os.environ, **environment},
    )
    return {dtype: np.load(folder / f"{dtype}.npy") for dtype in dtypes}


def check(found, model):
    wanted = load_encoder(load_checkpoint(model), torch.float32, CPU)(TEXTS).numpy()
    for dtype, vectors in found.items():
        cosines = (vectors * wanted).sum(1) / np.linalg.norm(vectors, axis=1) / np.linalg.norm(wanted, axis=1)
        assert cosines.min() > {"float32": 0.999999, "bfloat16": 0.999, "int8": 0.99}[dtype], dtype


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the names of x86 instruction sets")
@pytest.mark.parametrize("level", ["default", "avx2"])
def test_lesser_instructions_give_the_same_vectors(level, tmp_path):
    limits = {"ATEN_CPU_CAPABILITY": level, "ONEDNN_MAX_CPU_ISA": "SSE41" if level == "default" else "AVX2"}
    check(vectors_of([sys.executable], str(TIED), tmp_path, ["float32", "bfloat16"], **limits), str(TIED))


@pytest.mark.skipif(shutil.which("qemu-x86_64") is None, reason="needs qemu-user")
@pytest.mark.parametrize("cpu", ["Haswell", "Nehalem"])
def test_an_emulated_cpu_gives_the_same_vectors(cpu, tmp_path):
    """The real instructions of an older CPU, which raises where one is used that it does not have."""
    dtypes = ["float32", "bfloat16", *(["int8"] if cpu == "Haswell" else [])]
    path = os.pathsep.join(filter(None, sys.path))
    command = ["qemu-x86_64", "-cpu", cpu, os.path.realpath(sys.executable)]
    check(vectors_of(command, "nano", tmp_path, dtypes, PYTHONPATH=path), "nano")
