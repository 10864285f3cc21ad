"""What any objective must do: a sum with the right gradient, divided by nothing, blind to what has no weight."""

import pytest
import torch
from torch import Tensor

from tunesmith.core import parts
from tunesmith.core.batch import Batch
from tunesmith.objectives._objective import Objective

NAMES = parts.names("objectives")
B, T, C = 4, 6, 5


def find(name: str) -> Objective:
    return parts.find("objectives", name)  # type: ignore[no-any-return]


def make(seed: int = 0) -> Batch:
    """Rows of unequal length; a third of the weights is zero, the others are uneven."""
    draw = torch.Generator().manual_seed(seed)
    length_B = torch.tensor([6, 2, 4, 3])
    real_BT = torch.arange(T) < length_B[:, None]
    weight_BT = torch.rand(B, T, generator=draw, dtype=torch.float64) * real_BT
    weight_BT[weight_BT < 0.3] = 0.0
    ids_BT, target_BT = (torch.randint(0, 9, (B, T), generator=draw) for _ in range(2))
    return Batch(ids_BT, target_BT, weight_BT, length_B, torch.randint(0, C, (B,), generator=draw))


def logp_for(objective: Objective, seed: int = 0) -> Tensor:
    """Log-probabilities [B, T] of target tokens, or [B, C] of classes."""
    draw = torch.Generator().manual_seed(100 + seed)
    if objective.needs == "token_logp":
        return -3 * torch.rand(B, T, generator=draw, dtype=torch.float64)
    return torch.randn(B, C, generator=draw, dtype=torch.float64).log_softmax(-1)


def rows(batch: Batch, chosen: slice) -> Batch:
    return Batch(
        batch.ids_BT[chosen],
        batch.target_BT[chosen],
        batch.weight_BT[chosen],
        batch.length_B[chosen],
        batch.label_B[chosen],
    )


def reweighted(batch: Batch, weight_BT: Tensor) -> Batch:
    return Batch(batch.ids_BT, batch.target_BT, weight_BT, batch.length_B, batch.label_B)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_called_by_its_file(name: str) -> None:
    assert find(name).name == name


@pytest.mark.parametrize("name", NAMES)
def test_the_gradient_equals_finite_differences(name: str) -> None:
    objective, batch = find(name), make()
    assert torch.autograd.gradcheck(lambda logp: objective.loss(logp, batch), logp_for(objective).requires_grad_())


@pytest.mark.parametrize("name", NAMES)
def test_loss_and_weight_are_sums_over_rows(name: str) -> None:
    objective, batch = find(name), make()
    logp = logp_for(objective)
    for measure in (objective.loss, lambda _logp, part: objective.weight(part)):
        whole = float(measure(logp, batch))
        cuts = [[slice(0, B)], [slice(b, b + 1) for b in range(B)], [slice(0, 3), slice(3, B)]]
        for cut in cuts:
            assert sum(float(measure(logp[part], rows(batch, part))) for part in cut) == pytest.approx(whole, rel=1e-12)
        assert whole > 0


@pytest.mark.parametrize("name", NAMES)
def test_token_weights_act_in_proportion_and_class_losses_know_none(name: str) -> None:
    objective, batch = find(name), make()
    logp = logp_for(objective)
    factor = 2.5 if objective.needs == "token_logp" else 1.0
    scaled = reweighted(batch, batch.weight_BT * 2.5)
    assert float(objective.loss(logp, scaled)) == pytest.approx(factor * float(objective.loss(logp, batch)), rel=1e-12)
    assert float(objective.weight(scaled)) == pytest.approx(factor * float(objective.weight(batch)), rel=1e-12)
    other = make(seed=1).weight_BT
    parts_sum = float(objective.loss(logp, batch)) + float(objective.loss(logp, reweighted(batch, other)))
    both = float(objective.loss(logp, reweighted(batch, batch.weight_BT + other)))
    assert both == pytest.approx(parts_sum if factor != 1 else parts_sum / 2, rel=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_the_gradient_lies_where_the_loss_looks(name: str) -> None:
    objective, batch = find(name), make()
    logp = logp_for(objective).requires_grad_()
    objective.loss(logp, batch).backward()  # type: ignore[no-untyped-call]
    assert logp.grad is not None
    looked = (
        batch.weight_BT != 0
        if objective.needs == "token_logp"
        else torch.nn.functional.one_hot(batch.label_B, C).bool()
    )
    assert torch.equal(logp.grad != 0, looked)
    assert (logp.grad[looked] < 0).all()  # more probability, less loss


@pytest.mark.parametrize("name", NAMES)
def test_certainty_costs_nothing_and_the_loss_is_one_number(name: str) -> None:
    objective, batch = find(name), make()
    loss = objective.loss(torch.zeros_like(logp_for(objective)), batch)
    assert loss.shape == ()
    assert float(loss) == 0.0


@pytest.mark.parametrize("name", NAMES)
def test_the_inputs_are_left_as_they_were(name: str) -> None:
    objective, batch = find(name), make()
    logp = logp_for(objective)
    before = [t.clone() for t in (logp, batch.weight_BT, batch.label_B)]
    objective.loss(logp, batch)
    objective.weight(batch)
    assert all(torch.equal(a, b) for a, b in zip(before, (logp, batch.weight_BT, batch.label_B), strict=True))
