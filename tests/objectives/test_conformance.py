"""What any objective must do: a sum with the right gradient, divided by nothing, blind to what has no weight.

Notable: clipping has kinks, at which no gradient exists; ``make`` stays between them, and ``far`` beyond.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tunesmith import objectives
from tunesmith.core import parts
from tunesmith.core.batch import Batch
from tunesmith.core.errors import RecipeError
from tunesmith.objectives._objective import Objective
from tunesmith.objectives._policy import Drawn

NAMES = parts.names("objectives")
ROWS = [name for name in NAMES if parts.find("objectives", name).unit == "row"]
WRITTEN = [name for name in NAMES if parts.find("objectives", name).unit == "answer"]
COMPARED = [name for name in NAMES if name not in (*ROWS, *WRITTEN)]
B, T, C = 4, 6, 5
SETTINGS = {
    "beta": 0.7,
    "label_smoothing": 0.2,
    "target_margin": 0.3,
    "sft_weight": 0.4,
    "unwanted_weight": 1.7,
    "clip": 0.4,
    "clip_high": 0.5,
    "value_clip": 0.6,
    "value_weight": 0.9,
    "entropy": 0.3,
    "kl_target": 3.0,
    "gamma": 0.8,
    "lam": 0.7,
}
Given = Tensor | tuple[Tensor, Tensor]


def find(name: str) -> Objective:
    return parts.find("objectives", name)  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", [*ROWS, *COMPARED])
def test_an_objective_is_one_short_file(name: str) -> None:
    path = Path(objectives.__path__[0], f"{name}.py")
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 80


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
    if objective.unit == "answer":
        return Batch(ids_BT, target_BT, answered(length_B), length_B, label_B, **tracks(objective, seed))
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


def answered(length_B: Tensor) -> Tensor:
    """Of each row, all but the first token is the answer, and the last token has no target."""
    place_T = torch.arange(T)
    return ((place_T >= 1) & (place_T < length_B[:, None])).double()


def tracks(objective: Objective, seed: int, *, far: float = 0.0) -> dict[str, Tensor]:
    """What is known of tokens that a policy wrote. It has hardly changed since: no ratio and no value is clipped,
    unless ``far`` takes all of them beyond the bounds, every second one above and the others below."""
    draw = torch.Generator().manual_seed(200 + seed)
    logp_BT, value_BT = pair(seed)
    side_BT = far * (1.0 - 2.0 * (torch.arange(B * T).view(B, T) % 2))
    near_BT, valued_BT = (0.15 * (2 * torch.rand(B, T, generator=draw, dtype=torch.float64) - 1) for _ in range(2))
    base_BT, advantage_BT, missed_BT = (torch.randn(B, T, generator=draw, dtype=torch.float64) for _ in range(3))
    return {
        "old_BT": logp_BT + near_BT - side_BT,
        "base_BT": logp_BT + 0.5 * base_BT,
        "advantage_BT": advantage_BT,
        "value_BT": value_BT + valued_BT - side_BT,
        "return_BT": value_BT + missed_BT,
    }


def pair(seed: int) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(100 + seed)
    logp_BT = -3 * torch.rand(B, T, generator=draw, dtype=torch.float64)
    return logp_BT, torch.randn(B, T, generator=draw, dtype=torch.float64)


def drawn(group: int = 2) -> Drawn:
    """Answers to two prompts, all rewarded."""
    held, mask_BT = tracks(find("ppo"), 0), answered(torch.tensor([6, 2, 4, 3]))
    reward_B = torch.tensor([1.0, 0.0, 0.5, 2.0]).double()
    return Drawn(reward_B, mask_BT, held["old_BT"], held["base_BT"], held["value_BT"], group)


def given(function: Callable[[Tensor], Tensor], logp: Given) -> Given:
    """``function`` of one tensor or of both."""
    return (function(logp[0]), function(logp[1])) if isinstance(logp, tuple) else function(logp)


def tensors(logp: Given) -> tuple[Tensor, ...]:
    return logp if isinstance(logp, tuple) else (logp,)


def logp_for(objective: Objective, seed: int = 0) -> Given:
    """Log-probabilities [B, T] of target tokens, with values [B, T] of a critic or without; or [B, C] of classes, or
    scores [B]."""
    draw = torch.Generator().manual_seed(100 + seed)
    if objective.needs == "token_logp_value":
        return pair(seed)
    if objective.needs == "token_logp":
        return pair(seed)[0]
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
    inputs = tensors(given(Tensor.requires_grad_, logp_for(objective)))
    single = not isinstance(logp_for(objective), tuple)
    assert torch.autograd.gradcheck(lambda *logp: objective.loss(logp[0] if single else logp, batch), inputs)


@pytest.mark.parametrize("name", NAMES)
def test_loss_and_weight_are_sums_over_units(name: str) -> None:
    objective = find(name)
    batch, logp = make(objective), logp_for(objective)
    size = batch.unit
    cuts = [[slice(0, B)], [slice(b, b + size) for b in range(0, B, size)]]
    for measure in (objective.loss, lambda _logp, part: objective.weight(part)):
        whole = float(measure(logp, batch))
        for cut in cuts:
            found = sum(float(measure(_cut(batch, part, logp), rows(batch, part))) for part in cut)
            assert found == pytest.approx(whole, rel=1e-12)
        assert abs(whole) > 1e-3
    assert float(objective.weight(batch)) > 0


def _cut(batch: Batch, part: slice, logp: Given) -> Given:
    """Log-probabilities and values of tokens are cut as a part of a batch is."""
    wide = int(batch.length_B[part].max())
    return given(lambda x: x[part][..., :wide] if x.shape == batch.weight_BT.shape else x[part], logp)


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
    assert float(objective.loss(given(torch.zeros_like, logp_for(objective)), make(objective))) == 0.0


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_is_one_number_and_the_inputs_are_left_as_they_were(name: str) -> None:
    objective = find(name)
    batch, logp = make(objective), logp_for(objective)
    held = (*tensors(logp), *dict(batch._tensors()).values())
    before = [t.clone() for t in held]
    assert objective.loss(logp, batch).shape == ()
    assert objective.weight(batch).shape == ()
    assert all(torch.equal(a, b) for a, b in zip(before, held, strict=True))


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


@pytest.mark.parametrize("name", [*COMPARED, *WRITTEN])
def test_tokens_without_weight_have_no_gradient(name: str) -> None:
    objective = find(name)
    if objective.needs == "score":
        pytest.skip("a score is of the whole row")
    batch, logp = make(objective), given(Tensor.requires_grad_, logp_for(objective))
    objective.loss(logp, batch).backward()  # type: ignore[no-untyped-call]
    for one in tensors(logp):
        assert one.grad is not None
        assert (one.grad[batch.weight_BT == 0] == 0).all()
        assert one.grad.any()


@pytest.mark.parametrize("name", WRITTEN)
def test_what_stands_at_tokens_without_weight_changes_nothing(name: str) -> None:
    objective = find(name)
    batch, logp = make(objective), logp_for(objective)
    idle_BT = batch.weight_BT == 0
    held = {k: t.masked_fill(idle_BT, 7.0) for k, t in batch._tensors() if k in tracks(objective, 0)}
    other = objective.loss(given(lambda x: x.masked_fill(idle_BT, -5.0), logp), dataclasses.replace(batch, **held))
    assert float(other) == float(objective.loss(logp, batch))


@pytest.mark.parametrize("name", WRITTEN)
def test_a_token_is_pulled_up_by_its_advantage_and_pushed_down_where_that_is_negative(name: str) -> None:
    objective = find(name)
    objective = objective.with_settings({"beta": 0.0} if "clip" in objective.settings else {})
    batch, logp = make(objective), given(Tensor.requires_grad_, logp_for(objective))
    objective.loss(logp, batch).backward()  # type: ignore[no-untyped-call]
    slope_BT, on_BT = tensors(logp)[0].grad, batch.weight_BT > 0
    assert slope_BT is not None and batch.advantage_BT is not None
    assert torch.equal(slope_BT[on_BT].sign(), -batch.advantage_BT[on_BT].sign())


@pytest.mark.parametrize("name", WRITTEN)
def test_beyond_the_clip_there_is_no_gradient_where_the_advantage_pushes_on(name: str) -> None:
    objective = find(name)
    objective = objective.with_settings({"beta": 0.0})
    batch, logp = dataclasses.replace(make(objective), **tracks(objective, 0, far=0.8)), logp_for(objective)
    logp = given(Tensor.requires_grad_, logp)
    objective.loss(logp, batch).backward()  # type: ignore[no-untyped-call]
    slope_BT, on_BT = tensors(logp)[0].grad, batch.weight_BT > 0
    assert slope_BT is not None and batch.advantage_BT is not None and batch.old_BT is not None
    pushed_BT = (tensors(logp)[0].detach() > batch.old_BT) == (batch.advantage_BT > 0)
    assert (slope_BT[on_BT & pushed_BT] == 0).all()
    assert (slope_BT[on_BT & ~pushed_BT] != 0).all()
    assert (on_BT & pushed_BT).sum() >= 3 and (on_BT & ~pushed_BT).sum() >= 3


@pytest.mark.parametrize("name", WRITTEN)
def test_without_what_the_policy_gave_then_the_ratio_is_one(name: str) -> None:
    objective = find(name)
    objective = objective.with_settings({"beta": 0.0})
    batch, logp = make(objective), logp_for(objective)
    now = dataclasses.replace(batch, old_BT=tensors(logp)[0].clone())
    found = []
    for one in (now, dataclasses.replace(now, old_BT=None)):
        own = given(lambda x: x.clone().requires_grad_(), logp)
        loss = objective.loss(own, one)
        loss.backward()
        found.append((loss.detach(), tensors(own)[0].grad))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])
    assert found[1][1].any()


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
    assert set(objective.settings) <= set(SETTINGS)
    for setting, value in SETTINGS.items():
        if setting in objective.settings:
            assert objective.settings[setting] != value
            other = objective.with_settings({setting: value})
            assert other.settings == objective.settings | {setting: value}
            assert told(other) != told(objective), setting
        else:
            with pytest.raises(RecipeError, match=rf"objective\.{setting} has no effect with objective.name: {name}"):
                objective.with_settings({setting: value})


def told(objective: Objective) -> list[float]:
    """What it makes of answers that the policy wrote, ratios beyond the clip among them, and of their rewards."""
    batch = make(objective)
    if objective.unit == "answer":
        batch = dataclasses.replace(batch, **tracks(objective, 0, far=0.35))
    found = [float(objective.loss(logp_for(objective), batch))]
    if objective.credit is None:
        return found
    credit = objective.credit(drawn())
    returns = [] if credit.return_BT is None else credit.return_BT.flatten().tolist()
    return [*found, *credit.advantage_BT.flatten().tolist(), *returns, credit.coefficient]


@pytest.mark.parametrize("name", WRITTEN)
def test_what_makes_a_family_is_no_setting(name: str) -> None:
    objective = find(name)
    for setting in ("a_token", "spread", "others"):
        with pytest.raises(RecipeError, match=rf"objective\.{setting} has no effect"):
            objective.with_settings({setting: 1.0})


@pytest.mark.parametrize("name", WRITTEN)
def test_credit_lies_on_the_tokens_of_answers_alone(name: str) -> None:
    objective = find(name)
    assert objective.credit is not None
    mask_BT = drawn().mask_BT
    credit = objective.credit(drawn())
    held = [credit.advantage_BT] + ([] if credit.return_BT is None else [credit.return_BT])
    assert len(held) == (2 if objective.needs == "token_logp_value" else 1)
    for values_BT in held:
        assert (values_BT[mask_BT == 0] == 0).all()
        assert (values_BT[mask_BT == 1] != 0).all()


def test_a_tie_draws_both_answers_together() -> None:
    objective = find("dpo")
    batch = dataclasses.replace(make(objective), sure_B=torch.full((B,), 0.5), reference_B=torch.zeros(B).double())
    level, apart = torch.zeros(B, T).double(), torch.zeros(B, T).double()
    apart[0::2] = -1.0
    assert float(objective.loss(level, batch)) < float(objective.loss(apart, batch))
