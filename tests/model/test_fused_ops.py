"""The small steps of a layer: kernels where they run, and PyTorch's operations where these fail."""

import importlib
import os
import re
import subprocess
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import update_wrapper
from importlib.util import find_spec

import pytest
import torch
from torch.nn import functional as F

from c2llm_integrations.model.fused_ops import Fused, add_norm, rotate, swiglu
from tests.conftest import ROOT

pytestmark = pytest.mark.slow

STEPS = [add_norm, swiglu, rotate]
TRITON = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed; PyTorch for CPUs has none")
# Rows, hidden width, inner width, heads, width of a head: some of a model's own, and some that fill no block.
SIZES = [(3, 896, 4864, 16, 64), (2, 3584, 18944, 32, 128), (5, 24, 12, 3, 8), (1, 8, 1030, 5, 6), (7, 1500, 20, 7, 96)]


def arguments(rows, width=24, inner=12, heads=2, head=8, dtype=torch.float32, device="cpu"):
    """Of each step; what is rotated lies within the rows of a larger product."""
    torch.manual_seed(rows)

    def drawn(*shape):
        return torch.randn(shape).to(device, dtype)

    turned = drawn(rows, heads + 1, head)[:, :heads]
    return {
        add_norm: (drawn(rows, width), drawn(rows, width), drawn(width), 1e-6),
        swiglu: (3 * drawn(rows, 2 * inner),),
        rotate: (turned, drawn(rows, 1, head), drawn(rows, 1, head)),
    }


def kernels_agree(device):
    """Every kernel against PyTorch's operations: alike to the last bit but few, in every dtype and size."""
    kernels = importlib.import_module("c2llm_integrations.model.fused_kernels")
    for dtype, close in ((torch.bfloat16, 2**-6), (torch.float16, 2**-9), (torch.float32, 1e-5)):
        rounded = dtype == torch.float16 or (dtype == torch.bfloat16 and device == "cuda")
        if dtype == torch.bfloat16 and not rounded:
            close = 2**-5  # Triton's interpreter cuts off where a GPU rounds, in up to three steps
        for sizes in SIZES:
            for step, given in arguments(*sizes, dtype=dtype, device=device).items():
                wanted = step.function(*given)
                if step is add_norm:  # PyTorch on a CPU rounds twice
                    wanted = wanted[0], F.rms_norm(wanted[0].float(), sizes[1:2], given[2].float(), 1e-6).to(dtype)
                beside = given[0]._base[:, -1].clone() if step is rotate else None
                found = getattr(kernels, step.__name__)(*given)
                for one, other in zip(*((x,) if torch.is_tensor(x) else x for x in (found, wanted)), strict=True):
                    assert (one.dtype, one.shape) == (other.dtype, other.shape)
                    torch.testing.assert_close(
                        one, other, rtol=close, atol=close, msg=f"{step.__name__} {dtype} {sizes}"
                    )
                    assert not rounded or (one == other).float().mean() > 0.9  # most to the last bit
                if step is rotate:
                    assert found.data_ptr() == given[0].data_ptr()
                    assert torch.equal(given[0]._base[:, -1], beside)


def test_the_steps_compute_what_their_names_say():
    x, more, weight, epsilon = arguments(5)[add_norm]
    total, normed = add_norm(x, more, weight, epsilon)
    torch.testing.assert_close(total, x + more)
    torch.testing.assert_close(normed, total * (total.square().mean(-1, keepdim=True) + epsilon).rsqrt() * weight)
    torch.testing.assert_close(swiglu(x.clone()), F.silu(x[:, :12]) * x[:, 12:])
    turned, cos, sin = arguments(5)[rotate]
    found = rotate(turned.clone(), cos, sin)
    for place in range(4):
        left, right = turned[..., place], turned[..., place + 4]
        torch.testing.assert_close(found[..., place], left * cos[..., place] - right * sin[..., place])
        torch.testing.assert_close(found[..., place + 4], right * cos[..., place + 4] + left * sin[..., place + 4])


def said_by(call, *, interpreted):
    """Return what a function of this file prints in a process of its own, which must end well."""
    done = subprocess.run(
        [sys.executable, "-c", f"from tests.model import test_fused_ops; test_fused_ops.{call}"],
        cwd=ROOT,
        env={**os.environ, "TRITON_INTERPRET": str(int(interpreted))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@TRITON
def test_the_kernels_compute_what_the_operations_do():
    """Read by Triton's interpreter, which must be chosen before Triton is imported: in a process of its own."""
    said_by("kernels_agree('cpu')", interpreted=True)


@TRITON
def test_numbers_are_loaded_sixteen_bytes_at_once():
    """Compiled for a GPU that need not be there; 2 bytes at a time would take several times as long."""
    kernels = [line.split() for line in said_by("print_loads()", interpreted=False).splitlines()]
    assert sorted({name for name, *_ in kernels}) == ["_add_norm", "_rotate", "_swiglu"]
    assert {move for _, *moves in kernels for move in moves} == {"ld.global.v4.b32", "st.global.v4.b32"}


def print_loads():
    """Print each kernel's instructions for memory, at the sizes of the released models."""
    from triton.backends.compiler import GPUTarget
    from triton.runtime import driver
    from triton.runtime.jit import JITFunction

    class Absent:
        """Says which GPU to compile for."""

        def get_current_target(self):
            return GPUTarget("cuda", 90, 32)

        def get_current_device(self):
            return 0

        def get_current_stream(self, device):
            return 0

    def compiled(kernel, *args, warmup, **kwargs):
        moves = re.findall(r"(?:ld|st)\.global[\w.]*", run(kernel, *args, warmup=True, **kwargs).asm["ptx"])
        print(kernel.fn.__name__, *sorted(set(moves)))

    run, JITFunction.run = JITFunction.run, compiled
    driver.set_active(Absent())
    kernels = importlib.import_module("c2llm_integrations.model.fused_kernels")
    for sizes in SIZES[:2]:
        for step, given in arguments(*sizes, dtype=torch.bfloat16).items():
            getattr(kernels, step.__name__)(*given)


class OnGPU(torch.Tensor):
    """Says that it is on a GPU, as no tensor of this machine may."""

    is_cuda = True


def on_gpu(tensor):
    return tensor.as_subclass(OnGPU)


class Kernels:
    """Stands in for the module of kernels: each raises."""

    def __init__(self, error):
        self.error = error

    def swiglu(self, gate_up):
        raise self.error


@pytest.fixture
def failing(monkeypatch):
    """A function that has every kernel raise."""
    monkeypatch.setattr(Fused, "enabled", True)
    for step in STEPS:
        monkeypatch.setattr(step, "proven", set())

    def fail(error):
        monkeypatch.setitem(sys.modules, "c2llm_integrations.model.fused_kernels", Kernels(error))
        monkeypatch.setattr(sys.modules["c2llm_integrations.model"], "fused_kernels", Kernels(error), raising=False)

    return fail


def test_a_kernel_that_fails_is_told_once_and_done_without(failing):
    failing(RuntimeError("Failed to find C compiler"))
    [rows] = arguments(3)[swiglu]
    with pytest.warns(UserWarning, match="could not be used .*Failed to find C compiler"):
        torch.testing.assert_close(swiglu(on_gpu(rows)), on_gpu(swiglu(rows)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torch.testing.assert_close(swiglu(on_gpu(rows)), on_gpu(swiglu(rows)))


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (torch.OutOfMemoryError("full"), torch.OutOfMemoryError),
        (RuntimeError("Triton Error [CUDA]: out of memory"), torch.OutOfMemoryError),
        (RuntimeError("CUDA error: unspecified launch failure"), RuntimeError),
    ],
)
def test_a_device_that_fails_is_not_taken_for_its_kernels(error, raised, failing):
    failing(error)
    with pytest.raises(raised, match=str(error)[-20:]):
        swiglu(on_gpu(arguments(3)[swiglu][0]))
    assert Fused.enabled


def test_a_kernel_that_computes_something_else_is_found_by_its_first_result(monkeypatch):
    monkeypatch.setattr(Fused, "enabled", True)
    monkeypatch.setattr(rotate, "proven", set())

    class Wrong:
        def rotate(self, x, cos, sin):
            return x.mul_(2)  # in place, as the true one

    monkeypatch.setitem(sys.modules, "c2llm_integrations.model.fused_kernels", Wrong())
    monkeypatch.setattr(sys.modules["c2llm_integrations.model"], "fused_kernels", Wrong(), raising=False)
    turned, cos, sin = arguments(3)[rotate]
    wanted = rotate(turned.clone(), cos, sin)
    with pytest.warns(UserWarning, match="rotate differs from PyTorch's result"):
        torch.testing.assert_close(rotate(on_gpu(turned.clone()), cos, sin), on_gpu(wanted))
    assert not Fused.enabled


def test_a_kernel_is_trusted_after_its_first_right_result_and_nan_is_one(monkeypatch):
    monkeypatch.setattr(Fused, "enabled", True)
    monkeypatch.setattr(swiglu, "proven", set())
    asked = []

    class Right:
        def swiglu(self, gate_up):
            asked.append(len(gate_up))
            gate, up = gate_up.chunk(2, -1)
            return F.silu(gate) * up

    monkeypatch.setitem(sys.modules, "c2llm_integrations.model.fused_kernels", Right())
    monkeypatch.setattr(sys.modules["c2llm_integrations.model"], "fused_kernels", Right(), raising=False)
    [rows] = arguments(3)[swiglu]
    rows[0, 0], rows[1, 1], rows[2] = torch.nan, torch.inf, 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        swiglu(on_gpu(rows))
        function = swiglu.function
        monkeypatch.setattr(swiglu, "function", update_wrapper(lambda _: pytest.fail("computed twice"), function))
        monkeypatch.setattr(Right, "swiglu", lambda self, gate_up: asked.append(len(gate_up)))
        swiglu(on_gpu(rows))
    assert asked == [3, 3]


def test_a_trace_in_another_thread_stops_no_step(monkeypatch):
    """While any thread traces, PyTorch refuses every call of what `torch.compile` made, in all threads."""
    monkeypatch.setattr(Fused, "enabled", True)
    compiled = torch.compile(lambda x: x + 1, backend="eager")
    compiled(torch.zeros(1))
    tracing, done = threading.Event(), threading.Event()

    def traced(x):
        tracing.set()
        assert done.wait(60)
        return x

    with ThreadPoolExecutor(1) as thread, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trace = thread.submit(torch.fx.symbolic_trace, traced)
        try:
            assert tracing.wait(60)
            with pytest.raises(RuntimeError, match="symbolically trace"):  # so it is this state that is looked at
                compiled(torch.zeros(1))
            for step, given in arguments(3).items():
                step(on_gpu(given[0].clone()), *given[1:])
        finally:
            done.set()
        trace.result()


@pytest.mark.gpu
def test_a_gpu_computes_the_steps_alike():
    kernels_agree("cuda")
    for step, given in arguments(64, device="cuda").items():
        step(*given)
    assert Fused.enabled


@pytest.mark.gpu
def test_lanes_may_call_a_kernel_for_the_first_time_at_once():
    given = arguments(9, 40, 56, 3, 10, device="cuda")
    both = threading.Barrier(2, timeout=60)

    def first(_):
        own = {step: (parts[0].clone(), *parts[1:]) for step, parts in given.items()}
        both.wait()
        return [step(*parts) for step, parts in own.items()]

    with ThreadPoolExecutor(2) as threads:
        one, other = threads.map(first, range(2))
    torch.testing.assert_close(one, other, rtol=0, atol=0)
    torch.testing.assert_close(one, [step.function(*parts) for step, parts in given.items()], rtol=1e-5, atol=1e-5)
    assert Fused.enabled
