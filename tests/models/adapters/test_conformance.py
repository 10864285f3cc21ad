"""What any method must do: begin as the base, train what it says, leave the rest, come back, repeat itself, merge."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoModel, AutoModelForCausalLM

import small
from tunesmith.core import parts
from tunesmith.core.errors import RecipeError
from tunesmith.core.recipe import MethodRecipe
from tunesmith.models import load as loading
from tunesmith.models.adapters._method import Method
from tunesmith.models.merge import merged, on_dense_weights
from tunesmith.models.model import Model, adapters_off
from tunesmith.models.skeleton import skeleton
from tunesmith.objectives.sft import PART as SFT

METHODS = parts.names("models.adapters")
TURNED = ("hra", "oft")  # begin with a rotation by nothing, which is not free of rounding
UNDRAWN = (
    "fourierft",
    "ia3",
    "oft",
    "olora",
    "shira",
    "shira_fisher",
    "shira_gradient",
    "vera",
)  # what they train begins the same whatever the seed
BATCH = small.split(small.rows(4), 4)[0]


def find(name: str) -> Method:
    return parts.find("models.adapters", name)  # type: ignore[no-any-return]


def attached(folder: Path, name: str, *, seed: int = 0) -> Model:
    return small.attach(small.base(folder, name), name, seed=seed)


def one_step(model: Model) -> None:
    """A plain gradient step; whatever has a gradient moves."""
    model.train()
    (SFT.loss(model.token_logp(BATCH), BATCH) / SFT.weight(BATCH)).backward()  # type: ignore[no-untyped-call]
    with torch.no_grad():
        for _, parameter in model.trainable():
            assert parameter.grad is not None
            parameter -= 0.1 * parameter.grad
            parameter.grad = None
    model.train(False)


def frozen(model: Model) -> dict[str, Tensor]:
    return {n: p.detach().clone() for n, p in model.network.named_parameters() if not p.requires_grad}


@pytest.mark.parametrize("name", METHODS)
def test_it_is_called_by_its_file(name: str) -> None:
    assert find(name).name == name


@pytest.mark.parametrize("folder", ["llama", "gemma2", "bert"])
@pytest.mark.parametrize("name", METHODS)
def test_it_begins_as_the_base_bit_for_bit(name: str, folder: str, request: pytest.FixtureRequest) -> None:
    base: Path = request.getfixturevalue(folder)
    model = attached(base, name)
    assert model.trainable()
    own, theirs = small.states(model), small.states(small.base(base, name))
    if find(name).soft:  # what stands before a row is seen by it
        assert not torch.allclose(own, theirs, rtol=1e-2)
        return
    assert torch.allclose(own, theirs, rtol=1e-4, atol=1e-5) if name in TURNED else torch.equal(own, theirs)


@pytest.mark.parametrize("name", METHODS)
def test_training_moves_what_is_trainable_and_nothing_else(name: str, llama: Path) -> None:
    model = attached(llama, name)
    before, still, states = small.weights(model), frozen(model), small.states(model)
    for _ in range(2):  # LoRA's A waits for B
        one_step(model)
    assert not [n for n, p in model.trainable() if torch.equal(p, before[n])]
    assert all(torch.equal(p, still[n]) for n, p in model.network.named_parameters() if n in still)
    assert not torch.equal(small.states(model), states)


@pytest.mark.parametrize("name", METHODS)
def test_an_adapter_switched_off_is_the_base(name: str, llama: Path) -> None:
    model = attached(llama, name)
    small.stir(model)
    base = small.states(small.base(llama, name))
    with adapters_off(model):
        assert torch.equal(small.states(model), base) is find(name).is_adapter
    assert not torch.equal(small.states(model), base)


@pytest.mark.parametrize("folder", ["llama", "untied", "gemma2", "bert"])
@pytest.mark.parametrize("name", METHODS)
def test_saved_and_loaded_is_equal(name: str, folder: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    base: Path = request.getfixturevalue(folder)
    model = small.stir(attached(base, name))
    find(name).save(model, tmp_path)
    back = small.base(base, name)
    find(name).load(back, tmp_path)
    assert small.comes_back(name, small.states(back), small.states(model))
    assert not list(tmp_path.glob("*.bin")) + list(tmp_path.glob("*.pt"))


@pytest.mark.parametrize("folder", ["llama", "untied", "bert"])
@pytest.mark.parametrize("name", METHODS)
def test_the_plan_counts_what_is_trained(name: str, folder: str, request: pytest.FixtureRequest) -> None:
    base: Path = request.getfixturevalue(folder)
    model = attached(base, name)
    options = {"rank": 4} if "rank" in find(name).reads else {}
    card, config, _ = loading.card_of(str(base))
    counted = find(name).count(skeleton(card, config, head=False), MethodRecipe(name=name, **options))
    assert counted == sum(p.numel() for _, p in model.trainable()) > 0


@pytest.mark.parametrize("name", [n for n in METHODS if find(n).is_adapter])
def test_two_adapters_on_one_copy_of_the_base_do_not_disturb_each_other(name: str, llama: Path) -> None:
    first, second = (small.base(llama, name) for _ in range(2))
    for mine, theirs in zip(first.network.parameters(), second.network.parameters(), strict=True):
        theirs.data = mine.data
    for seed, model in enumerate((first, second)):
        small.stir(small.attach(model, name, seed=seed), seed=seed)
    before = [small.states(model) for model in (first, second)]
    assert not torch.equal(*before)
    one_step(first)
    assert torch.equal(small.states(second), before[1]) and not torch.equal(small.states(first), before[0])
    with adapters_off(first):
        assert torch.equal(small.states(second), before[1])
        base = small.states(first)
    with adapters_off(second):
        assert torch.equal(small.states(second), base)


@pytest.mark.parametrize(("name", "folder"), [
    *((name, "llama") for name in METHODS if not find(name).unmergeable),
    *((name, folder) for name in ("dora", "oft", "qlora") for folder in ("untied", "bert")),
])  # fmt: skip
def test_merged_is_equal_and_comes_apart_bit_for_bit(
    name: str, folder: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    model = small.stir(attached(request.getfixturevalue(folder), name))
    on_dense_weights(model)
    before, states = frozen(model), small.states(model)
    with merged(model) as network:
        assert not [k for k in network.state_dict() if "base" in k or "lora" in k]
        assert torch.allclose(small.states(model), states, rtol=1e-4, atol=1e-4)
        network.save_pretrained(tmp_path)
        family = AutoModelForCausalLM if folder != "bert" else AutoModel
        fresh, ids_1T = family.from_pretrained(tmp_path).eval(), torch.arange(5, 25)[None]
        with torch.no_grad():
            assert torch.allclose(fresh(ids_1T)[0], network(ids_1T)[0], rtol=1e-4, atol=1e-5)
    assert torch.equal(small.states(model), states)
    assert all(torch.equal(p, before[n]) for n, p in model.network.named_parameters() if n in before)
    config = json.loads((tmp_path / "config.json").read_text())
    assert "tunesmith" not in json.dumps(config)
    assert "quantization_config" not in config
    if folder != "bert":
        assert config["tie_word_embeddings"] is (folder == "llama")


@pytest.mark.parametrize("name", METHODS)
def test_its_own_seed_alone_draws_the_start(name: str, llama: Path) -> None:
    starts = []
    for noise in (1, 2):
        torch.manual_seed(noise)
        starts.append(small.weights(attached(llama, name, seed=3)))
    assert all(torch.equal(starts[0][n], starts[1][n]) for n in starts[0])
    if find(name).is_adapter and name not in UNDRAWN:
        other = small.weights(attached(llama, name, seed=4))
        assert any(not torch.equal(starts[0][n], other[n]) for n in other)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("partial", {"target_modules": ()}, ("[] hold no weights", "last-N")),
        ("partial", {"target_modules": ("act_fn",)}, ('"act_fn" matches no module with weights',)),
        ("partial", {"target_modules": ("layrs",)}, ('"layrs" matches no module', 'Did you mean "layers"?')),
        ("partial", {"target_modules": ("last-0",)}, ("last-0", "Name last-1 to last-2")),
        ("partial", {"target_modules": ("last-9",)}, ("last-9", "has 2 layers")),
        ("ia3", {"target_modules": ("nope",)}, ('"nope" matches no linear layer', "q_proj")),
        ("oft", {"rank": 5}, ("method.rank is 5", "has 32 inputs", "2, 4, 8, 16")),
        ("loha", {"rank": 17}, ("method.rank is 17", "k_proj", "has 16 dimensions")),
        ("hra", {"rank": 17}, ("method.rank is 17", "has 16 dimensions")),
        ("shira", {"rank": 17}, ("method.name: shira", "rank 17", "allowed. Change")),
        ("fourierft", {"rank": 17}, ("method.name: fourierft", "n_frequency")),
    ],
)
def test_what_does_not_fit_is_a_sentence(
    name: str, options: dict[str, object], words: tuple[str, ...], llama: Path
) -> None:
    with pytest.raises(RecipeError) as caught:
        small.attach(small.base(llama, name), name, **options)
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize(
    ("wanted", "trained"),
    [
        (("last-1",), {"layers.1"}),
        (("norm",), {"norm"}),
        (("layers.0.mlp", "embed_tokens"), {"layers.0", "embed_tokens"}),
    ],
)
def test_partial_trains_what_is_named_and_nothing_else(wanted: tuple[str, ...], trained: set[str], llama: Path) -> None:
    model = small.decoder(llama, "partial", target_modules=wanted)
    found = {n.removeprefix("model.") for n, _ in model.trainable()}
    assert found and all(any(n.startswith(t) for t in trained) for n in found)
    assert {t for t in trained if any(n.startswith(t) for n in found)} == trained
