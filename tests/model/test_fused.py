"""The small steps of a layer: compiled for any number of rows, and computed as they are where that fails."""

import warnings

import pytest
import torch
from torch._dynamo.exc import BackendCompilerFailed, TorchDynamoException
from torch.nn import functional as F

from c2llm_integrations.model import fused
from c2llm_integrations.model.fused import Fused, add_norm, rotate, swiglu

pytestmark = pytest.mark.slow


def arguments(rows):
    torch.manual_seed(rows)
    x, more, weight = torch.randn(rows, 24), torch.randn(rows, 24), torch.rand(24)
    cos, sin = torch.randn(rows, 1, 8), torch.randn(rows, 1, 8)
    return {add_norm: (x, more, weight, 1e-6), swiglu: (x,), rotate: (x.view(rows, 3, 8)[:, :2], cos, sin)}


@pytest.mark.parametrize("step", [add_norm, swiglu, rotate], ids=lambda step: step.function.__name__)
def test_one_graph_serves_every_number_of_rows(step):
    compiled = torch.compile(step.function, dynamic=True, fullgraph=True, backend="aot_eager")
    with torch.inference_mode():
        torch.testing.assert_close(compiled(*arguments(32)[step]), step(*arguments(32)[step]))
        with torch.compiler.set_stance("fail_on_recompile"):
            for rows in (64, 96, 2048):
                torch.testing.assert_close(compiled(*arguments(rows)[step]), step(*arguments(rows)[step]))


def test_the_steps_compute_what_their_names_say():
    x, more, weight, epsilon = arguments(5)[add_norm]
    total, normed = add_norm(x, more, weight, epsilon)
    torch.testing.assert_close(total, x + more)
    torch.testing.assert_close(normed, total * (total.square().mean(-1, keepdim=True) + epsilon).rsqrt() * weight)
    torch.testing.assert_close(swiglu(x.clone()), F.silu(x[:, :12]) * x[:, 12:])
    turned, cos, sin = arguments(5)[rotate]
    found = rotate(turned, cos, sin)
    for place in range(4):
        left, right = turned[..., place], turned[..., place + 4]
        torch.testing.assert_close(found[..., place], left * cos[..., place] - right * sin[..., place])
        torch.testing.assert_close(found[..., place + 4], right * cos[..., place + 4] + left * sin[..., place + 4])


class OnGPU(torch.Tensor):
    """Says that it is on a GPU, as no tensor of this machine may."""

    is_cuda = True


def test_a_kernel_that_cannot_be_compiled_is_told_once_and_done_without(monkeypatch):
    monkeypatch.setattr(Fused, "enabled", True)

    def fails(*_):
        raise BackendCompilerFailed(lambda: None, RuntimeError("no Triton"), None)

    monkeypatch.setattr(torch, "compile", lambda *_, **__: fails)
    step = Fused(lambda x: x + 1)
    rows = torch.zeros(3).as_subclass(OnGPU)
    with pytest.warns(UserWarning, match="could not be compiled .*no Triton"):
        assert step(rows).tolist() == [1, 1, 1]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert step(rows).tolist() == [1, 1, 1]


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("full"), RuntimeError("CUDA error")])
def test_a_device_that_fails_is_not_taken_for_the_compiler(error, monkeypatch):
    def fails(*_):
        raise error

    monkeypatch.setattr(torch, "compile", lambda *_, **__: fails)
    with pytest.raises(type(error), match=str(error)):
        Fused(lambda x: x)(torch.zeros(1).as_subclass(OnGPU))
    assert Fused.enabled
    assert not fused._is_from_compiler(error)
    assert fused._is_from_compiler(TorchDynamoException("unsupported"))


@pytest.mark.gpu
def test_a_gpu_computes_the_compiled_steps_alike():
    for step, given in arguments(64).items():
        on_gpu = [part.cuda() if isinstance(part, torch.Tensor) else part for part in given]
        wanted = step(*given)
        with torch.inference_mode():
            torch.testing.assert_close(
                step(*on_gpu), tuple(one.cuda() for one in wanted) if isinstance(wanted, tuple) else wanted.cuda()
            )
    assert Fused.enabled
