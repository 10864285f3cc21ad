"""Compiled layers: the numbers of plain ones while training, plain modules at every other time."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import small
from tunesmith.flows import training
from tunesmith.flows.training import compile_layers
from tunesmith.models import load as loading
from tunesmith.models.model import Model
from tunesmith.objectives.sft import PART as SFT
from tunesmith.train.loop import Hooks, fit

HELD = small.rows(12)
BATCH = small.split(HELD, 6)[0]


def lora(folder: Path, **options: Any) -> Model:
    return small.attach(loading.load(str(folder)), "lora", **options)


def plain(model: Model) -> bool:
    return not any("forward" in vars(m) for m in model.network.modules())


def trained(model: Model) -> tuple[list[float], list[bool]]:
    seen: list[bool] = []
    plan = small.plan(steps=6, learning_rate=1e-3)
    hooks = Hooks(on_step=lambda *_: seen.append(plain(model)))
    progress = fit(model, SFT, small.Passes(HELD, step=6, micro=3), plan, hooks)
    return [p.loss for p in progress.curve if p.loss is not None], seen


def test_compiled_layers_learn_as_plain_ones_and_step_aside_for_everything_else(llama: Path) -> None:
    losses, _ = trained(lora(llama))
    model = lora(llama)
    assert compile_layers(model, SFT, BATCH) is None
    assert all(p.grad is None for _, p in model.trainable())
    assert not plain(model)
    ours, seen = trained(model)
    assert seen == [False] * 6
    assert plain(model)  # fit ends in evaluation mode
    assert ours == pytest.approx(losses, abs=1e-5)
    assert losses[4] < losses[0]  # the same rows, two passes later


def broken(how: str) -> Callable[..., Any]:
    def compile(forward: Callable[..., Any], **_: Any) -> Callable[..., Any]:
        def run(*args: Any, **options: Any) -> Any:
            if how == "raises":
                raise RuntimeError("no C++ compiler\n  was found")
            found = forward(*args, **options)
            return found * 1.05 if how == "lies" else found.detach() + 0 * found  # the second has no gradient

        return run

    return compile


@pytest.mark.parametrize(("how", "told"), [("raises", "no C++ compiler was found"), ("lies", "where plain ones give")])
def test_what_cannot_be_compiled_runs_plain_and_says_so(
    llama: Path, monkeypatch: pytest.MonkeyPatch, how: str, told: str
) -> None:
    model = lora(llama)
    monkeypatch.setattr(torch, "compile", broken(how))
    reason = compile_layers(model, SFT, BATCH)
    assert reason is not None
    assert told in reason
    model.train(True)
    assert plain(model)


@pytest.mark.parametrize(("dropout", "noise"), [(0.0, 1e-7), (0.2, 0.0)])
def test_a_lost_gradient_is_found_where_no_two_passes_are_equal(
    llama: Path, monkeypatch: pytest.MonkeyPatch, dropout: float, noise: float
) -> None:
    """Rounding of a GPU, whose sums have no fixed order, and dropout."""
    trial, passes = training._trial, iter(range(9))

    def noisy(*asked: Any) -> tuple[float, float, float]:
        loss, norm, count = trial(*asked)
        more = noise * next(passes)
        return loss + more, norm + more, count

    monkeypatch.setattr(training, "_trial", noisy)
    monkeypatch.setattr(torch, "compile", lambda forward, **_: forward)
    assert compile_layers(lora(llama, dropout=dropout), SFT, BATCH) is None
    monkeypatch.setattr(torch, "compile", broken("forgets"))
    reason = compile_layers(lora(llama, dropout=dropout), SFT, BATCH)
    assert reason is not None
    assert "they give a gradient of" in reason


def test_a_network_without_a_list_of_layers_is_told(llama: Path) -> None:
    model = lora(llama)
    model.card = model.card.model_copy(update={"layers": 7})
    reason = compile_layers(model, SFT, BATCH)
    assert reason == "LlamaForCausalLM has no list of 7 layers of one kind"
    assert plain(model)


def test_one_lost_gradient_of_many_is_found(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = iter([(2.0, 1.0, 400.0), (2.0, 1.0, 400.0), (2.0, 1.0, 399.0)])
    monkeypatch.setattr(training, "_trial", lambda *_: next(told))
    monkeypatch.setattr(torch, "compile", lambda forward, **_: forward)
    reason = compile_layers(lora(llama), SFT, BATCH)
    assert reason == "compiled they give a number of gradients of 399 where plain ones give 400"
