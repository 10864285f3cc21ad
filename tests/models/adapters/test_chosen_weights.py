"""Methods that choose what they train: layers by lot (LISA), directions (AdaLoRA), single weights (SHiRA)."""

from pathlib import Path

import pytest
import torch

import small
from tunesmith.core.errors import RecipeError
from tunesmith.models.adapters import lisa
from tunesmith.models.adapters.adalora import FINAL
from tunesmith.models.model import Model
from tunesmith.objectives.sft import PART as SFT
from tunesmith.train.loop import Hooks, fit


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small.llama(tmp_path_factory.mktemp("deep") / "base", num_hidden_layers=5)


def trained_layers(model: Model) -> set[int]:
    names = (n for n, p in model.network.named_parameters() if p.requires_grad)
    return {int(n.split("layers.")[1].split(".")[0]) for n in names if "layers." in n}


def test_lisa_trains_two_layers_at_a_time_and_all_of_them_in_the_end(deep: Path) -> None:
    model, drawn, moments = small.decoder(deep, "lisa", seed=7), [], []
    everything = len(model.trainable())

    def look(_step: int, _last: bool, snapshot: object) -> None:
        drawn.append(trained_layers(model))
        held = snapshot(False).tensors  # type: ignore[operator]
        moments.append({n.split("/")[1] for n in held if n.startswith("moment/")})

    before = small.weights(model)
    plan = small.plan(steps=8 * lisa.EVERY, learning_rate=1e-3, warmup_steps=1)
    fit(model, SFT, small.Passes(small.rows(8), step=2, micro=2), plan, Hooks(after_step=look))
    assert all(len(layers) == lisa.LAYERS for layers in drawn)
    assert [len({frozenset(x) for x in drawn[i : i + lisa.EVERY]}) for i in range(0, len(drawn), lisa.EVERY)] == [1] * 8
    assert set().union(*drawn) == set(range(5))
    for layers, held in zip(drawn, moments, strict=True):  # moments of a layer at rest are let go
        assert {int(n.split("layers.")[1].split(".")[0]) for n in held if "layers." in n} == layers
        assert any("embed" in n for n in held)
    assert len(model.trainable()) == everything
    assert not [n for n, p in model.trainable() if torch.equal(p, before[n])]


def test_lisa_draws_by_its_seed_and_the_step_alone(deep: Path) -> None:
    def draws(seed: int, steps: range) -> list[set[int]]:
        model = small.decoder(deep, "lisa", seed=seed)
        found = []
        for step in steps:
            model.schedule.before(step)
            found.append(trained_layers(model))
        return found

    assert draws(1, range(40))[30:] == draws(1, range(30, 40))
    assert draws(1, range(40)) != draws(2, range(40))


def test_adalora_ends_with_the_wanted_rank_on_average_and_not_everywhere(llama: Path) -> None:
    model = small.decoder(llama, "adalora", rank=4)
    kept = {n: t for n, t in model.schedule.state.items() if n.startswith("kept/")}
    assert {len(t) for t in kept.values()} == {6} and all(bool(t.all()) for t in kept.values())
    steps, falls = 40, []  # type: ignore[var-annotated]

    def look(_step: int, _last: bool, _snapshot: object) -> None:
        falls.append(sum(int(t.sum()) for t in kept.values()))

    plan = small.plan(steps=steps, learning_rate=1e-2)
    fit(model, SFT, small.Passes(small.rows(12), step=4, micro=4), plan, Hooks(after_step=look))
    ranks = {n: int(t.sum()) for n, t in kept.items()}
    assert sum(ranks.values()) == 4 * len(ranks) and len(set(ranks.values())) > 1
    assert falls == sorted(falls, reverse=True) and falls[0] == 6 * len(ranks)
    final = round((1 - FINAL) * steps)
    assert set(falls[final + 1 :]) == {4 * len(ranks)}
    half_way = int(2 * len(ranks) * (1 - (16 - 4) / (28 - 4)) ** 3 + 4 * len(ranks))  # from step 4 to 28, cubic
    assert falls[16] == half_way
    weights = dict(model.network.named_parameters())
    for name, alive in kept.items():
        values = next(p for n, p in weights.items() if n.endswith(name.removeprefix("kept/")))
        assert torch.equal(values[:, 0] != 0, alive)


def test_adalora_holds_its_factors_near_orthogonal(llama: Path) -> None:
    model = small.decoder(llama, "adalora", rank=4)
    before = float(model.schedule.penalty().detach())  # type: ignore[union-attr]
    fit(model, SFT, small.Passes(small.rows(12), step=4, micro=4), small.plan(steps=30, learning_rate=1e-2))
    assert float(model.schedule.penalty().detach()) < before / 2  # type: ignore[union-attr]


@pytest.mark.parametrize("score", ["gradient", "fisher"])
def test_shira_trains_the_weights_with_the_largest_score(score: str, llama: Path) -> None:
    name = "model.layers.1.mlp.down_proj"
    model = small.base(llama)
    wanted = small.scores(model, score)[name].flatten()  # type: ignore[arg-type]
    assert all(p.grad is None and not p.requires_grad for p in model.network.parameters())
    adapted = small.decoder(llama, f"shira_{score}", rank=2)
    layer = adapted.network.get_submodule(name)
    places = layer.shira_indices["default"]
    chosen = (places[0].long() * 64 + places[1].long()).sort().values
    count = 2 * (32 + 64)
    assert len(chosen) == count and set(chosen.tolist()) == set(wanted.topk(count).indices.tolist())


def test_a_fisher_value_is_the_sum_of_squared_gradients(llama: Path) -> None:
    model = small.base(llama)
    name = "model.layers.0.self_attn.q_proj"
    weight = model.network.get_submodule(name).weight.requires_grad_(True)
    total, square = torch.zeros_like(weight), torch.zeros_like(weight)
    for batch in small.split(small.rows(4), 2):
        loss = model.hidden(batch.ids_BT, batch.length_B).float().square().mean()
        (gradient,) = torch.autograd.grad(loss, weight)
        total, square = total + gradient, square + gradient.square()
    assert torch.allclose(small.scores(model, "gradient")[name], total.abs(), rtol=1e-4, atol=1e-8)
    assert torch.allclose(small.scores(model, "fisher")[name], square, rtol=1e-4, atol=1e-8)


def test_adalora_of_too_few_steps_or_too_high_a_rank(llama: Path) -> None:
    for steps in (1, 2):
        model = small.decoder(llama, "adalora", rank=4)
        fit(model, SFT, small.Passes(small.rows(12), step=4, micro=4), small.plan(steps=steps, warmup_steps=1))
    with pytest.raises(RecipeError, match=r"method\.rank is 18; .* has 16 dimensions"):
        small.decoder(llama, "adalora", rank=12)
