"""The fused LoRA layer against plain operations: values, gradients, what it keeps."""

import pytest
import torch
from torch import Tensor, nn

from tunesmith.models import lora_linear as module

N, INPUTS, OUTPUTS, RANK = 9, 6, 5, 3


def inputs(dtype: torch.dtype = torch.float64, bias: bool = True) -> list[Tensor]:
    """x, W, bias, A, B."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(N, INPUTS), (OUTPUTS, INPUTS), (OUTPUTS,), (RANK, INPUTS), (OUTPUTS, RANK)]
    made = [torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]
    for place in (0, 3, 4):
        made[place].requires_grad_()
    return made if bias else [*made[:2], torch.zeros(OUTPUTS, dtype=dtype), *made[3:]]


def lora_linear(x: Tensor, w: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float) -> Tensor:
    base = nn.Linear(0, 0, bias=bias is not None)
    base.weight = nn.Parameter(w, requires_grad=False)
    base.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
    return module.lora_linear(x, base, a, b, scale)


def plain(x: Tensor, w: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float) -> Tensor:
    return nn.functional.linear(x, w, bias) + scale * (x @ a.T @ b.T)


@pytest.mark.parametrize("compiling", [False, True])
@pytest.mark.parametrize("bias", [True, False])
def test_values_and_gradients_equal_plain_operations(
    monkeypatch: pytest.MonkeyPatch, bias: bool, compiling: bool
) -> None:
    """While it is compiled no output is changed in place: PyTorch 2.11 would give such a one no gradient."""
    if compiling:
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
        monkeypatch.setattr(Tensor, "addmm_", None)
    x, w, c, a, b = inputs(bias=bias)
    weight = torch.randn(N, OUTPUTS, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found, expected = lora_linear(x, w, c if bias else None, a, b, 0.7), plain(x, w, c, a, b, 0.7)
    torch.testing.assert_close(found, expected)
    monkeypatch.undo()  # a backward pass may
    for ours, theirs in zip(
        torch.autograd.grad((found * weight).sum(), (x, a, b)),
        torch.autograd.grad((expected * weight).sum(), (x, a, b)),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


def test_gradients_equal_finite_differences() -> None:
    x, w, c, a, b = inputs()
    assert torch.autograd.gradcheck(lambda x, a, b: lora_linear(x, w, c, a, b, 0.7), (x, a, b))


def test_nothing_of_the_size_of_the_output_is_kept() -> None:
    x, w, c, a, b = inputs(torch.float32)
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        lora_linear(x, w, c, a, b, 0.7)
    own = {t.data_ptr() for t in (x, w, a, b)}
    assert [tuple(t.shape) for t in kept if t.data_ptr() not in own] == [(N, RANK)]


def test_narrow_states_keep_float32_gradients_for_the_update() -> None:
    x, w, c, a, b = inputs(torch.float32)
    out = lora_linear(x.bfloat16(), w.bfloat16(), c.bfloat16(), a, b, 0.7)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), plain(x, w, c, a, b, 0.7), rtol=0.05, atol=0.1)
    out.sum().backward()
    assert a.grad is not None and a.grad.dtype == torch.float32
    assert b.grad is not None and b.grad.dtype == torch.float32
