"""The schedule's numbers, and what each optimiser decays and moves."""

import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from tunesmith.train.optimiser import NamedParameters, adamw, adamw_8bit, muon, set_factor, warmup_cosine


def named(*shapes: tuple[str, tuple[int, ...]]) -> NamedParameters:
    return [(name, nn.Parameter(torch.ones(shape))) for name, shape in shapes]


def test_the_schedule_by_hand() -> None:
    rate = warmup_cosine(0.2)
    expected = {
        0.0: 0.0,
        0.05: 0.25,
        0.1: 0.5,
        0.2: 1.0,
        0.4: 0.5 * (1 + math.cos(math.pi / 4)),
        0.6: 0.5,
        0.8: 0.5 * (1 - math.cos(math.pi / 4)),
        1.0: 0.0,
    }
    assert {p: rate(p) for p in expected} == pytest.approx(expected, abs=1e-12)


def test_the_schedule_rises_then_falls_to_its_floor_and_stays() -> None:
    rate = warmup_cosine(0.1, floor=0.2)
    values = [rate(p / 100) for p in range(101)]
    assert all(a < b for a, b in pairwise(values[:11]))
    assert all(a > b for a, b in pairwise(values[10:]))
    assert values[-1] == pytest.approx(0.2)
    assert rate(1.7) == pytest.approx(0.2)


@pytest.mark.parametrize("warmup", [0.0, 0.5, 1.0])
def test_the_schedule_is_finite_for_every_warm_up(warmup: float) -> None:
    assert all(0 <= warmup_cosine(warmup)(p / 10) <= 1 for p in range(11))
    assert warmup_cosine(0.0)(0.0) == 1.0


def test_the_factor_scales_the_peak_and_never_compounds() -> None:
    optimisers = adamw(named(("w", (2, 2)), ("b", (2,))), learning_rate=0.5, weight_decay=0.0)
    for factor in (0.1, 1.0, 0.5, 0.5):
        set_factor(optimisers, factor)
        assert [g["lr"] for o in optimisers for g in o.param_groups] == [0.5 * factor] * 2


def test_adamw_decays_matrices_alone() -> None:
    parameters = named(("w", (3, 3)), ("norm.weight", (3,)), ("bias", (3,)))
    (optimiser,) = adamw(parameters, learning_rate=0.1, weight_decay=0.5)
    for _, parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    optimiser.step()
    values = {name: float(p.detach().mean()) for name, p in parameters}
    assert values == pytest.approx({"w": 1 - 0.1 * 0.5, "norm.weight": 1.0, "bias": 1.0})


def test_adamw_by_hand() -> None:
    """After one step m / sqrt(v) is the sign of the gradient; after two it follows the moments."""
    parameters = named(("w", (1, 2)))
    (optimiser,) = adamw(parameters, learning_rate=0.1, weight_decay=0.0)
    m, v, expected = torch.zeros(1, 2), torch.zeros(1, 2), torch.ones(1, 2)
    for step, gradient in enumerate((torch.tensor([[3.0, -0.01]]), torch.tensor([[-1.0, 0.04]])), 1):
        parameters[0][1].grad = gradient
        optimiser.step()
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        expected = expected - 0.1 * (m / (1 - 0.9**step)) / ((v / (1 - 0.999**step)).sqrt() + 1e-8)
        torch.testing.assert_close(parameters[0][1].detach(), expected)


def test_muon_takes_the_matrices_inside_and_adamw_the_rest() -> None:
    parameters = named(
        ("model.embed_tokens.weight", (8, 4)),
        ("model.layers.0.mlp.up_proj.weight", (4, 4)),
        ("model.norm.weight", (4,)),
        ("lm_head.weight", (8, 4)),
    )
    inner, outer = muon(parameters, learning_rate=0.1, weight_decay=0.0)
    held = [{id(p) for g in o.param_groups for p in g["params"]} for o in (inner, outer)]
    assert held[0] == {id(parameters[1][1])}
    assert held[1] == {id(parameters[i][1]) for i in (0, 2, 3)}
    for _, parameter in parameters:
        parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
    for optimiser in (inner, outer):
        optimiser.step()
    assert not [name for name, p in parameters if torch.equal(p.detach(), torch.ones(p.shape))]


def test_eight_bit_moments_follow_float32_ones_and_take_a_quarter_of_their_memory() -> None:
    """A noisy quadratic: both optimisers see the same gradients and come out at nearly the same weights."""
    shape = (64, 128)
    goal = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    ends, sizes = [], []
    for make in (adamw, adamw_8bit):
        draw = torch.Generator().manual_seed(1)
        parameters = [("layers.0.w", nn.Parameter(torch.zeros(shape))), ("embed.w", nn.Parameter(torch.zeros(shape)))]
        optimisers = make(parameters, learning_rate=0.02, weight_decay=0.0)
        for _ in range(150):
            for _, p in parameters:
                p.grad = p.detach() - goal + 0.3 * torch.randn(shape, generator=draw)
            for one in optimisers:
                one.step()
        ends.append(parameters[0][1].detach())
        held = next(o.state[parameters[0][1]] for o in optimisers if parameters[0][1] in o.state)
        sizes.append(sum(t.nbytes for t in held.values() if isinstance(t, torch.Tensor) and t.numel() >= 64))
        assert all(torch.isfinite(p).all() for _, p in parameters)
    start = float(goal.square().mean())
    assert float((ends[0] - goal).square().mean()) < 0.02 * start
    assert float((ends[1] - goal).square().mean()) < 0.03 * start
    assert sizes[1] < 0.35 * sizes[0]


def test_eight_bit_moments_leave_embeddings_and_vectors_in_float32() -> None:
    parameters = named(("layers.0.w", (64, 128)), ("embed_tokens.weight", (64, 128)), ("layers.0.norm", (128,)))
    narrow, wide = adamw_8bit(parameters, learning_rate=0.1, weight_decay=0.1)
    assert [id(p) for g in narrow.param_groups for p in g["params"]] == [id(parameters[0][1])]
    assert {id(p) for g in wide.param_groups for p in g["params"]} == {id(p) for _, p in parameters[1:]}
    assert [g["weight_decay"] for g in wide.param_groups] == [0.1, 0.0]
