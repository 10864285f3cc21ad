"""What any objective must do: a sum with the right gradient, divided by nothing, blind to what has no weight."""

import dataclasses

import pytest
import torch
from torch import Tensor

from tunesmith.core import parts
from tunesmith.core.batch import Batch
from tunesmith.core.errors import RecipeError
from tunesmith.objectives._objective import Objective

NAMES = parts.names("objectives")
ROWS = [name for name in NAMES if parts.find("objectives", name).unit == "row"]
COMPARED = [name for name in NAMES if name not in ROWS]
B, T, C = 4, 6, 5
SETTINGS = {"beta": 0.7, "label_smoothing": 0.2, "target_margin": 0.3, "sft_weight": 0.4, "unwanted_weight": 1.7}


def find(name: str) -> Objective:
    return parts.find("objectives", name)  # type: ignore[no-any-return]


def make(objective: Objective, seed: int = 0) -> Batch:
    """Rows of unequal length; a third of the weights is zero, the others are uneven. Two units, where rows have some:
    a margin and a tie among them, and one wanted row and one that is not."""
    draw = torch.Generator().manual_seed(seed)
    length_B = torch.tensor([6, 2, 4, 3])
    real_BT = torch.arange(T) < length_B[:, None]
    weight_BT = torch.rand(B, T, generator=draw, dtype=torch.float64) * real_BT
    weight_BT[weight_BT < 0.3] = 0.0
    ids_BT, target_BT = (torch.randint(0, 9, (B, T), generator=draw) for _ in range(2))
    label_B = torch.randint(0, C, (B,), generator=draw)
    if objective.unit == "row":
        return Batch(ids_BT, target_BT, weight_BT, length_B, label_B)
    reference_B = -5 * torch.rand(B, generator=draw, dtype=torch.float64)
    if objective.unit == "judged":
        reference_B[1::2] = 0.0  # nothing mismatched has become likelier: z0, which has no gradient, is 0
    return Batch(
        ids_BT,
        target_BT,
        weight_BT,
        length_B,
        torch.tensor([1, 1, 0, 0]),
        unit=2,
        reference_B=reference_B,
        margin_B=torch.tensor([0.5, 0.5, 0.0, 0.0]),
        sure_B=torch.tensor([1.0, 1.0, 0.5, 0.5]),
    )


def logp_for(objective: Objective, seed: int = 0) -> Tensor:
    """Log-probabilities [B, T] of target tokens, or [B, C] of classes, or scores [B]."""
    draw = torch.Generator().manual_seed(100 + seed)
    if objective.needs == "token_logp":
        return -3 * torch.rand(B, T, generator=draw, dtype=torch.float64)
    if objective.needs == "score":
        return torch.randn(B, generator=draw, dtype=torch.float64)
    return torch.randn(B, C, generator=draw, dtype=torch.float64).log_softmax(-1)


def rows(batch: Batch, chosen: slice) -> Batch:
    return batch._part(chosen)


def reweighted(batch: Batch, weight_BT: Tensor) -> Batch:
    return dataclasses.replace(batch, weight_BT=weight_BT)


@pytest.mark.parametrize("name", NAMES)
def test_it_is_called_by_its_file(name: str) -> None:
    assert find(name).name == name


@pytest.mark.parametrize("name", NAMES)
def test_the_gradient_equals_finite_differences(name: str) -> None:
    objective = find(name)
    batch = make(objective)
    assert torch.autograd.gradcheck(lambda logp: objective.loss(logp, batch), logp_for(objective).requires_grad_())


@pytest.mark.parametrize("name", NAMES)
def test_loss_and_weight_are_sums_over_units(name: str) -> None:
    objective = find(name)
    batch, logp = make(objective), logp_for(objective)
    size = batch.unit
    cuts = [[slice(0, B)], [slice(b, b + size) for b in range(0, B, size)]]
    for measure in (objective.loss, lambda _logp, part: objective.weight(part)):
        whole = float(measure(logp, batch))
        for cut in cuts:
            found = sum(float(measure(logp[part][..., : _wide(batch, part, logp)], rows(batch, part))) for part in cut)
            assert found == pytest.approx(whole, rel=1e-12)
        assert whole > 0


def _wide(batch: Batch, part: slice, logp: Tensor) -> int | None:
    """Log-probabilities of tokens are cut as a part of a batch is."""
    return int(batch.length_B[part].max()) if logp.shape == batch.weight_BT.shape else None


@pytest.mark.parametrize("name", ROWS)
def test_token_weights_act_in_proportion_and_class_losses_know_none(name: str) -> None:
    objective = find(name)
    batch, logp = make(objective), logp_for(objective)
    factor = 2.5 if objective.needs == "token_logp" else 1.0
    scaled = reweighted(batch, batch.weight_BT * 2.5)
    assert float(objective.loss(logp, scaled)) == pytest.approx(factor * float(objective.loss(logp, batch)), rel=1e-12)
    assert float(objective.weight(scaled)) == pytest.approx(factor * float(objective.weight(batch)), rel=1e-12)
    other = make(objective, seed=1).weight_BT
    parts_sum = float(objective.loss(logp, batch)) + float(objective.loss(logp, reweighted(batch, other)))
    both = float(objective.loss(logp, reweighted(batch, batch.weight_BT + other)))
    assert both == pytest.approx(parts_sum if factor != 1 else parts_sum / 2, rel=1e-12)


@pytest.mark.parametrize("name", ROWS)
def test_the_gradient_lies_where_the_loss_looks(name: str) -> None:
    objective = find(name)
    batch, logp = make(objective), logp_for(objective).requires_grad_()
    objective.loss(logp, batch).backward()  # type: ignore[no-untyped-call]
    assert logp.grad is not None
    looked = (
        batch.weight_BT != 0
        if objective.needs == "token_logp"
        else torch.nn.functional.one_hot(batch.label_B, C).bool()
    )
    assert torch.equal(logp.grad != 0, looked)
    assert (logp.grad[looked] < 0).all()  # more probability, less loss


@pytest.mark.parametrize("name", ROWS)
def test_certainty_costs_nothing(name: str) -> None:
    objective = find(name)
    assert float(objective.loss(torch.zeros_like(logp_for(objective)), make(objective))) == 0.0


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_is_one_number_and_the_inputs_are_left_as_they_were(name: str) -> None:
    objective = find(name)
    batch, logp = make(objective), logp_for(objective)
    before = [t.clone() for t in (logp, *dict(batch._tensors()).values())]
    assert objective.loss(logp, batch).shape == ()
    objective.weight(batch)
    assert all(torch.equal(a, b) for a, b in zip(before, (logp, *dict(batch._tensors()).values()), strict=True))


@pytest.mark.parametrize("name", COMPARED)
def test_the_better_answer_is_pulled_up_and_the_worse_one_pushed_down(name: str) -> None:
    objective = find(name)
    batch = make(objective)
    batch = dataclasses.replace(batch, sure_B=torch.ones(B))
    logp = logp_for(objective).requires_grad_()
    objective.loss(logp, batch).backward()  # type: ignore[no-untyped-call]
    assert logp.grad is not None
    slope_B = (logp.grad * batch.weight_BT).sum(1) if logp.ndim == 2 else logp.grad
    if objective.unit == "judged":  # a wanted row, its mismatch, one that is not wanted, its mismatch
        assert slope_B[0] < 0 < slope_B[2]
        assert slope_B[1] == slope_B[3] == 0
    else:
        assert (slope_B[0::2] < 0).all()
        assert (slope_B[1::2] > 0).all() or name == "ipo"  # which draws back from a lead that is long enough


@pytest.mark.parametrize("name", COMPARED)
def test_tokens_without_weight_have_no_gradient(name: str) -> None:
    objective = find(name)
    if objective.needs == "score":
        pytest.skip("a score is of the whole row")
    batch, logp = make(objective), logp_for(objective).requires_grad_()
    objective.loss(logp, batch).backward()  # type: ignore[no-untyped-call]
    assert logp.grad is not None
    assert (logp.grad[batch.weight_BT == 0] == 0).all()


@pytest.mark.parametrize("name", COMPARED)
def test_only_what_was_gained_over_the_reference_counts(name: str) -> None:
    objective = find(name)
    batch, logp = make(objective), logp_for(objective)
    assert batch.reference_B is not None
    moved = dataclasses.replace(batch, reference_B=batch.reference_B + 0.5 * torch.tensor([1.0, -1.0, 1.0, -1.0]))
    changes = float(objective.loss(logp, moved)) != float(objective.loss(logp, batch))
    assert changes == objective.reference


@pytest.mark.parametrize("name", NAMES)
def test_each_setting_acts_and_the_others_are_refused(name: str) -> None:
    objective = find(name)
    batch, logp = make(objective), logp_for(objective)
    for setting, value in SETTINGS.items():
        if setting in objective.settings:
            other = objective.with_settings({setting: value})
            assert float(other.loss(logp, batch)) != float(objective.loss(logp, batch)), setting
        else:
            with pytest.raises(RecipeError, match=rf"objective\.{setting} has no effect with objective.name: {name}"):
                objective.with_settings({setting: value})


def test_a_tie_draws_both_answers_together() -> None:
    objective = find("dpo")
    batch = dataclasses.replace(make(objective), sure_B=torch.full((B,), 0.5), reference_B=torch.zeros(B).double())
    level, apart = torch.zeros(B, T).double(), torch.zeros(B, T).double()
    apart[0::2] = -1.0
    assert float(objective.loss(level, batch)) < float(objective.loss(apart, batch))
