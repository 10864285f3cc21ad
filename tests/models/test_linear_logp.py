"""``linear_logp`` against ``log_softmax`` and ``gather``, forward and backward."""

import pytest
import torch
from torch import Tensor

from tunesmith.models import linear_logp as module
from tunesmith.models.linear_logp import linear_logp

N, D, V = 23, 16, 101


def reference(hidden_ND: Tensor, weight_VD: Tensor, target_N: Tensor) -> Tensor:
    return (hidden_ND @ weight_VD.T).log_softmax(-1).gather(1, target_N[:, None])[:, 0]


def inputs(dtype: torch.dtype = torch.float32, *, n: int = N, size: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden_ND = (size * torch.randn(n, D, generator=generator, dtype=dtype)).requires_grad_()
    weight_VD = torch.randn(V, D, generator=generator, dtype=dtype).requires_grad_()
    return hidden_ND, weight_VD, torch.randint(0, V, (n,), generator=generator)


def both_ways(function: object, *given: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Value and the gradients of a weighted sum."""
    hidden_ND, weight_VD, target_N = given
    logp_N = function(hidden_ND, weight_VD, target_N)  # type: ignore[operator]
    share_N = torch.linspace(-1, 2, len(target_N), dtype=logp_N.dtype)
    return logp_N, *torch.autograd.grad((share_N * logp_N).sum(), (hidden_ND, weight_VD))


@pytest.mark.parametrize("elements", [1, V, 2 * V, 7 * V + 5, N * V, 1 << 22])
def test_equals_log_softmax_and_gather_whatever_the_chunk(elements: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK_ELEMENTS", {"cpu": elements})
    given = inputs()
    wider = [t.detach().double().requires_grad_() if t.is_floating_point() else t for t in given]
    for found, plain, exact in zip(
        both_ways(linear_logp, *given), both_ways(reference, *given), both_ways(reference, *wider), strict=True
    ):
        assert found.dtype == torch.float32
        size = float(exact.detach().abs().max())
        assert float((found - exact).detach().abs().max()) <= 1e-6 * size
        assert float((found - plain).detach().abs().max()) <= 1e-6 * size


@pytest.mark.parametrize("elements", [2 * V, 1 << 22])
def test_gradients_equal_finite_differences_in_float64(elements: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK_ELEMENTS", {"cpu": elements})
    hidden_ND, weight_VD, target_N = inputs(torch.float64, n=5)
    hidden_ND, weight_VD = (t.detach()[..., :3].requires_grad_() for t in (hidden_ND, weight_VD))
    assert linear_logp(hidden_ND, weight_VD, target_N).dtype == torch.float64
    assert torch.autograd.gradcheck(linear_logp, (hidden_ND, weight_VD, target_N))


def test_large_logits_stay_finite() -> None:
    hidden_ND, weight_VD, target_N = inputs(size=1e3)
    logp_N, *gradients = both_ways(linear_logp, hidden_ND, weight_VD, target_N)
    assert torch.isfinite(logp_N).all()
    assert all(torch.isfinite(g).all() for g in gradients)
    torch.testing.assert_close(logp_N, reference(hidden_ND, weight_VD, target_N), rtol=1e-5, atol=1e-2)


def test_no_position_gives_no_value_and_no_gradient() -> None:
    hidden_ND, weight_VD, target_N = inputs(n=0)
    logp_N = linear_logp(hidden_ND, weight_VD, target_N)
    assert logp_N.shape == (0,)
    logp_N.sum().backward()
    assert hidden_ND.grad is not None and hidden_ND.grad.shape == (0, D)


def test_a_frozen_head_gets_no_gradient_and_hidden_states_still_do() -> None:
    hidden_ND, weight_VD, target_N = inputs()
    expected = both_ways(reference, hidden_ND, weight_VD, target_N)[1]
    weight_VD.requires_grad_(False)
    share_N = torch.linspace(-1, 2, N)
    (share_N * linear_logp(hidden_ND, weight_VD, target_N)).sum().backward()
    assert weight_VD.grad is None
    torch.testing.assert_close(hidden_ND.grad, expected, rtol=1e-5, atol=1e-5)


def test_bf16_states_meet_a_bf16_head_and_give_float32() -> None:
    hidden_ND, weight_VD, target_N = inputs()
    logp_N = linear_logp(hidden_ND.bfloat16(), weight_VD, target_N)
    assert logp_N.dtype == torch.float32
    assert not torch.equal(logp_N, linear_logp(hidden_ND, weight_VD, target_N))
    torch.testing.assert_close(logp_N, reference(hidden_ND, weight_VD, target_N), rtol=0.02, atol=0.1)


@pytest.mark.parametrize("elements", [V, 5 * V])
def test_float32_passes_over_parts_of_a_chunk_change_nothing(elements: int, monkeypatch: pytest.MonkeyPatch) -> None:
    given = inputs()
    whole = both_ways(linear_logp, *given)
    monkeypatch.setattr(module, "WIDE_ELEMENTS", {"cpu": elements})
    for found, expected in zip(both_ways(linear_logp, *given), whole, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_without_gradients_none_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look at dev while the head is trained must not pay for the head's gradient."""
    made: list[bool] = []
    own = module._logp
    monkeypatch.setattr(
        module, "_logp", lambda *args, to_gradient: (made.append(to_gradient), own(*args, to_gradient=to_gradient))[1]
    )
    hidden, weight = torch.randn(5, 4), torch.randn(9, 4, requires_grad=True)
    target = torch.arange(5)
    with torch.no_grad():
        without = linear_logp(hidden, weight, target)
    torch.testing.assert_close(linear_logp(hidden, weight, target), without)
    assert made == [False, True]
