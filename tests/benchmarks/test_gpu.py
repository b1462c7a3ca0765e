"""The benchmark for GPUs runs on a CPU with small shapes, so that no time on a GPU goes into typing errors."""

import json
import threading
import time

import pytest
import torch

from benchmarks import gpu, gpu_kernels
from benchmarks.gpu import PARTS, Settings, functions, line, run_part, run_parts

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    return Settings("cpu", True, tmp_path_factory.mktemp("gpu"))


def rows_of(name, settings):
    rows = list(PARTS[name].measure(settings))
    assert [row for row in rows if "error" in row] == []
    return {row["what"]: row["value"] for row in rows}


def test_golden_vectors_are_compared(settings):
    assert min(rows_of("golden", settings).values()) > 0.99999


@pytest.mark.parametrize("name", ["speed_half", pytest.param("speed_seven", marks=pytest.mark.stress)])
def test_every_side_has_a_speed_and_its_share_of_the_peak(name, settings):
    rows = rows_of(name, settings)
    slower = ("ours, nothing fused", "released way") if name == "speed_half" else ()
    for side in ("ours", "sentence-transformers", *slower):
        assert rows[f"{side}: share of the peak"] > 0
        assert rows[side] > 0


def test_a_side_that_fails_leaves_the_others(settings, monkeypatch):
    monkeypatch.setattr(gpu, "_released", lambda *_: 1 / 0)
    monkeypatch.setattr(gpu, "_library", lambda *_: 1 / 0)
    rows = list(PARTS["speed_half"].measure(settings))
    assert [row["what"] for row in rows if "error" in row] == ["sentence-transformers", "released way"]


def test_the_shares_of_a_run_sum_to_one(settings):
    rows = list(PARTS["profile"].measure(settings))
    shares = {row["what"]: row["value"] for row in rows if row["unit"] == "share"}
    assert sum(shares.values()) == pytest.approx(1)
    assert sum(value for what, value in shares.items() if what.startswith("aten::")) > 0.5


def test_time_that_two_kernels_share_counts_once():
    assert gpu_kernels.covered([(0, 4), (1, 2), (3, 6), (8, 9)]) == 7
    assert gpu_kernels.covered([]) == 0


def test_parts_that_measure_no_time_run_first_and_at_the_same_time(settings, monkeypatch):
    both, order = threading.Barrier(2, timeout=30), []

    def run(name, _, left):
        if name in ("tests", "golden"):
            both.wait()
        order.append(name)
        return [{"part": name, "what": "time left", "value": left, "unit": "s"}]

    monkeypatch.setattr(gpu, "run_part", run)
    found = list(run_parts(["profile", "tests", "golden"], settings, time.perf_counter() + 60))
    assert [rows[0]["part"] for rows in found] == ["tests", "golden", "profile"]
    assert order[-1] == "profile"
    [[late]] = run_parts(["profile"], settings, time.perf_counter() + 1)
    assert late["error"] == "no time was left"


def test_every_step_is_measured_at_both_shapes(settings):
    rows = rows_of("kernels", settings)
    for name in ("0.5B", "7B"):
        for step in ("swiglu", "add_norm", "rotate"):
            assert rows[f"{name} {step}, PyTorch: bandwidth"] > 0
            assert rows[f"{name} {step}, torch.compile: largest difference"] < 1e-5
        assert rows[f"{name} product gate_up: rate"] > 0
    if not torch.cuda.is_available():
        assert rows["kernels on cpu; they need an NVIDIA GPU"] == 0


def test_a_step_that_cannot_run_is_a_row(settings):
    def broken(_):
        raise RuntimeError("no such kernel")

    step = gpu_kernels.Step("step", (torch.ones(3),), {}, bytes_=12)
    ways = {"PyTorch": torch.neg, "Triton": broken, "again": torch.neg}
    rows = list(gpu_kernels._measured("step", step, torch.device("cpu"), ways))
    assert [row["what"] for row in rows if "error" in row] == ["step, Triton"]
    assert rows[-1] == {"what": "step, again: largest difference", "value": 0.0, "unit": "of the number and the mean"}


def test_memory_that_ran_out_changes_no_vector(settings):
    rows = rows_of("memory", settings)
    assert rows["warnings of memory"] == 1
    assert rows["worst cosine to the vectors before"] > 0.99999
    assert rows["batch after it"] < rows["batch when it was over"]


def test_the_model_is_asked_and_served(settings):
    assert set(rows_of("questions", settings)) == {"query", "batch", "concurrent"}
    assert set(rows_of("serve", settings)) == {"offline", "served_base64"}


@pytest.mark.stress
def test_the_tests_for_gpus_are_counted(settings):
    counts = rows_of("tests", settings)
    assert counts["failures"] == counts["errors"] == 0
    assert counts["passed" if torch.cuda.is_available() else "skipped"] >= 12


def test_a_part_that_dies_leaves_its_rows_and_a_reason(settings, tmp_path):
    missing = Settings("no-such-device", True, tmp_path)
    (tmp_path / "memory.jsonl").write_text(json.dumps({"what": "before", "value": 1.0, "unit": "s"}) + "\n")
    rows = run_part("memory", missing, 300)
    assert [row["what"] for row in rows] == ["before", "this part", "time of this part"]
    assert "no-such-device" in rows[1]["error"]
    assert "FAILED  ended with 1" in line(rows[1])


def test_a_part_that_takes_too_long_is_ended(tmp_path):
    rows = run_part("golden", Settings("cpu", True, tmp_path), 0.2)
    assert rows[0]["error"].startswith("ended after 0 s")


def test_texts_are_functions_of_unlike_lengths():
    texts = functions()
    assert len(texts) == len(set(texts)) > 3000
    assert all(text.lstrip().startswith("def ") for text in texts)
    assert len({len(text) for text in texts}) > 1000
