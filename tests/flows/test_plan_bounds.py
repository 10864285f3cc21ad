"""What a plan is held to, and what it says where it cannot be."""

import gc
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.flows.conftest import MakeRecipe
from tests.flows.test_plan import recipe

from tunesmith.core.errors import MemoryNeeded
from tunesmith.core.plan import Machine
from tunesmith.flows import judging, planning
from tunesmith.flows import plan as module
from tunesmith.flows.finetune import finetune
from tunesmith.flows.plan import Asked, plan
from tunesmith.flows.prepare import Prepared, prepare
from tunesmith.generate import sampler
from tunesmith.generate.slots import Slots
from tunesmith.models import load as loading
from tunesmith.models.model import Model
from tunesmith.plan import memory
from tunesmith.plan.devices import find
from tunesmith.plan.families import shape_like
from tunesmith.plan.rates import of_device


@pytest.mark.parametrize("probed", [False, True])
def test_bounds_that_nothing_is_known_for_are_told(monkeypatch: pytest.MonkeyPatch, probed: bool) -> None:
    """Of a processor at hand no cost is known, and before a probe no time."""
    rates = of_device(find("Intel Xeon Platinum 8480+")) if probed else None
    monkeypatch.setattr(module, "here", lambda _: (Machine("cpu", 64 << 30, False), None, rates, []))
    told = plan(recipe(budget={"time": "10m"}), Asked(rows=100, tokens=100, usd=5.0, fit=True)).assumed
    name = rates.name if rates else "cpu"
    assert any(f"No cost and no energy is foreseen: {name} has no row" in one and "--device" in one for one in told)
    assert "--usd is 5 and was not checked for 1 of 1 choices: no cost is known." in told
    assert (f"budget.time is 600 s and was not checked for {name}: no time is foreseen." in told) != probed
    bounded = plan(recipe(budget={"time": "10m"}), Asked("h100", rows=100, tokens=100, usd=5.0, fit=True)).assumed
    assert not any("not checked" in one or "No cost" in one for one in bounded)


def test_answers_that_need_more_than_training_count_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Long answers of a model whose training needs little; ``budget.memory`` is for training alone."""
    asked = recipe(evaluate={"max_new_tokens": 400, "baselines": ["few_shot"]}, method={"name": "lora"})
    found = plan(asked)
    assert found.answering_peak_bytes > found.peak_bytes
    between = (2 * found.peak_bytes + found.answering_peak_bytes) // 3

    def held(*_: object) -> tuple[Machine, None, None, list[str]]:
        return Machine("cpu", between, False), None, None, []

    monkeypatch.setattr(module, "here", held)
    tight = plan(asked, Asked(fit=True))
    assert tight.peak_bytes <= between and not tight.fits
    assert "while answers are written, there are" in tight.choices[0].why
    assert any("while answers are written" in told for told in tight.assumed)
    monkeypatch.undo()
    assert plan(asked.model_copy(update={"budget": asked.budget.model_copy(update={"memory": between})})).fits
    monkeypatch.setattr(planning, "machine", lambda: Machine("cpu", int(found.answering_peak_bytes / 1.2), False))
    with pytest.raises(MemoryNeeded, match=r"writing answers to [\d,]+ test rows needs about .* Lower evaluate"):
        prepare(asked)
    short = asked.model_copy(update={"evaluate": asked.evaluate.model_copy(update={"max_new_tokens": 8, "limit": 20})})
    assert prepare(short).plan.steps


def test_long_rows_shown_before_a_prompt_may_be_what_does_not_fit() -> None:
    asked = Asked(device="a100", rows=1000, tokens=60_000)
    large = {"model": "meta-llama/Llama-3.1-70B", "method": {"name": "qlora"}, "train": {"max_length": 7500}}
    found = plan(recipe(**large), asked)
    assert not found.fits and found.peak_bytes < (found.limit or 0) < found.answering_peak_bytes
    assert any("while answers are written" in told and "few_shot" in told for told in found.assumed)
    assert plan(recipe(**large, evaluate={"baselines": ["zero_shot"]}), asked).fits


def test_the_sampler_holds_as_many_keys_and_values(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, made = loading.load(str(store / "llama"), precision="float32"), list[Slots]()

    def kept(*given: Any) -> Slots:
        made.append(Slots(*given))
        return made[-1]

    monkeypatch.setattr(sampler, "Slots", kept)
    sampler.sample(model, [[5, 6, 7], [8, 9]], sampler.Sampling(4, ()))
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in made[0]._held)
    assert held == memory.answering(shape_like(model.card, model.network.config.to_dict()), 4, 2, 3 + 4)


def test_answers_are_written_when_what_training_held_is_gone(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So a plan takes the larger of the two, and not their sum."""
    left = list[object]()
    tuned = judging.tuned

    def looked(model: Model, prepared: Prepared) -> Any:
        gc.collect()
        left.extend(one for one in gc.get_objects() if issubclass(type(one), torch.optim.Optimizer))
        left.extend(name for name, parameter in model.trainable() if parameter.grad is not None)
        return tuned(model, prepared)

    monkeypatch.setattr(judging, "tuned", looked)
    run = finetune(make_recipe(evaluate={"baselines": ["majority"], "max_new_tokens": 4}), workspace=tmp_path)
    assert (run.status, left) == ("done", [])


def test_where_nothing_is_written_nothing_is_held_for_it() -> None:
    sizes = Asked(device="l4", rows=1000, tokens=300)
    assert plan(recipe(), sizes).answering_peak_bytes > 0
    found = plan(recipe(task="prefer", objective="dpo"), sizes)
    assert (found.answering_bytes, found.answering_peak_bytes) == (0, 0)
