"""Each objective on numbers worked by hand."""

import math

import pytest
import torch

from tunesmith.core.batch import Batch
from tunesmith.objectives import cpo
from tunesmith.objectives.classify import PART as CLASSIFY
from tunesmith.objectives.kto import PART as KTO
from tunesmith.objectives.sft import PART as SFT


def test_sft() -> None:
    zeros_BT = torch.zeros(2, 3, dtype=torch.long)
    weight_BT = torch.tensor([[0.0, 1.0, 0.5], [1.0, 0.0, 0.0]])
    batch = Batch(zeros_BT, zeros_BT, weight_BT, torch.tensor([3, 1]), torch.tensor([-1, -1]))
    logp_BT = torch.tensor([[-9.0, -2.0, -4.0], [-0.25, -7.0, -7.0]])
    assert float(SFT.loss(logp_BT, batch)) == 1.0 * 2.0 + 0.5 * 4.0 + 1.0 * 0.25
    assert float(SFT.weight(batch)) == 2.5
    assert SFT.needs == "token_logp"


def test_sft_of_rows_that_are_all_prompt_is_zero_over_zero() -> None:
    zeros_BT = torch.zeros(1, 2, dtype=torch.long)
    batch = Batch(zeros_BT, zeros_BT, torch.zeros(1, 2), torch.tensor([2]), torch.tensor([-1]))
    assert float(SFT.loss(torch.full((1, 2), -3.0), batch)) == 0.0
    assert float(SFT.weight(batch)) == 0.0


def test_classify() -> None:
    logp_BC = torch.tensor([[0.25, 0.75], [0.5, 0.5], [0.9, 0.1]]).log()
    zeros_BT = torch.zeros(3, 1, dtype=torch.long)
    batch = Batch(zeros_BT, zeros_BT, torch.zeros(3, 1), torch.tensor([1, 1, 1]), torch.tensor([1, 0, 1]))
    expected = math.log(4 / 3) + math.log(2) + math.log(10)
    assert float(CLASSIFY.loss(logp_BC, batch)) == pytest.approx(expected, rel=1e-6)
    assert float(CLASSIFY.weight(batch)) == 3.0
    assert CLASSIFY.needs == "class_logp"


def test_kto_measures_a_gain_from_what_mismatched_answers_have_gained() -> None:
    """Gains 3 and 3; mismatched ones 1 and 3, so z0 = 2: a lead of 1 for the wanted row, of -1 for the other."""
    weight_BT = torch.ones(4, 1)
    logp_BT = torch.tensor([[-1.0], [-2.0], [-3.0], [-1.0]]).requires_grad_()
    batch = Batch(
        weight_BT.long(),
        weight_BT.long(),
        weight_BT,
        torch.ones(4),
        torch.tensor([1, 1, 0, 0]),
        unit=2,
        reference_B=torch.tensor([-4.0, -3.0, -6.0, -4.0]),
    )
    loss = KTO.loss(logp_BT, batch, beta=1.0)
    assert float(loss.detach()) == pytest.approx(2 - 1 / (1 + math.exp(-1)) - 1 / (1 + math.exp(1)), rel=1e-6)
    loss.backward()  # type: ignore[no-untyped-call]
    assert logp_BT.grad is not None
    assert logp_BT.grad[1::2].abs().max() == 0  # z0 has no gradient


@pytest.mark.parametrize("label", [-1, 2])
def test_a_class_that_does_not_exist_is_an_error(label: int) -> None:
    zeros_BT = torch.zeros(1, 1, dtype=torch.long)
    batch = Batch(zeros_BT, zeros_BT, torch.zeros(1, 1), torch.tensor([1]), torch.tensor([label]))
    with pytest.raises(RuntimeError, match="out of bounds"):
        CLASSIFY.loss(torch.tensor([[0.5, 0.5]]).log(), batch)


def test_cpo_learns_from_both_answers_of_a_tie_alike() -> None:
    logp = torch.tensor([[-5.0], [-15.0]], requires_grad=True)
    tie = Batch(*[torch.ones(2, 1, dtype=torch.long)] * 2, torch.ones(2, 1), *[torch.ones(2)] * 2, unit=2,
                sure_B=torch.full((2,), 0.5))  # fmt: skip
    loss = cpo.loss(logp, tie, beta=0.0)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == pytest.approx(math.log(2) + 10.0)
    assert logp.grad is not None and logp.grad.flatten().tolist() == [-0.5, -0.5]
