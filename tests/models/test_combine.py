"""Several adapters become one."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

import small
from tunesmith.core.errors import ModelError, RecipeError
from tunesmith.models import artefact
from tunesmith.models import load as loading
from tunesmith.models.combine import Way, check, combine
from tunesmith.models.lora_layer import LoraLinear
from tunesmith.models.model import Model


def made(base: Path, folder: Path, method: str = "lora", seed: int = 0, **options: object) -> tuple[Path, Model]:
    model = small.stir(small.decoder(base, method, seed=seed, **options), seed=seed)
    artefact.publish(model, method, folder, {})
    return folder, model


def updates(model: Model) -> dict[str, Tensor]:
    layers = ((n, m) for n, m in model.network.named_modules() if isinstance(m, LoraLinear))
    return {n: m.scale * m.plain()[1] @ m.plain()[0] for n, m in layers}


@pytest.fixture(scope="module")
def two(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Path, Model]]:
    folder = tmp_path_factory.mktemp("two")
    return [made(llama, folder / "a", seed=1), made(llama, folder / "b", "rslora", seed=2, rank=3)]


def test_linear_is_the_weighted_sum_of_the_updates(two: list[tuple[Path, Model]], tmp_path: Path) -> None:
    (a, first), (b, second) = two
    found = updates(combine([a, b], [0.75, -0.5], Way(), tmp_path / "sum"))
    back = updates(artefact.load(tmp_path / "sum"))
    one, other = updates(first), updates(second)
    assert found and set(found) == set(one) == set(back)
    for name, update in found.items():
        assert torch.allclose(update, 0.75 * one[name] - 0.5 * other[name], atol=1e-5)
        assert torch.equal(update, back[name])


def test_adapters_of_a_bf16_base_are_added_as_well(llama: Path, tmp_path: Path) -> None:
    """Of many layers, whose rounding in bf16 is beyond what the proof allows."""
    deep, made_so = small.llama(tmp_path / "deep", num_hidden_layers=16), []
    for seed in (1, 2):
        model = small.attach(loading.load(str(deep), precision="bfloat16"), "lora", seed=seed)
        artefact.publish(small.stir(model, seed=seed), "lora", tmp_path / str(seed), {})
        made_so.append(updates(model))
    found = updates(combine([tmp_path / "1", tmp_path / "2"], [0.75, -0.5], Way(), tmp_path / "sum"))
    for name, update in found.items():
        assert torch.allclose(update, 0.75 * made_so[0][name] - 0.5 * made_so[1][name], atol=1e-5)
    assert artefact.load(tmp_path / "sum").precision == "bfloat16"


def test_svd_is_the_best_sum_of_its_rank(two: list[tuple[Path, Model]], tmp_path: Path) -> None:
    (a, first), (b, second) = two
    found = updates(combine([a, b], [0.5, 0.5], Way("svd", rank=2), tmp_path / "sum"))
    one, other = updates(first), updates(second)
    for name, update in found.items():
        u, s, vh = torch.linalg.svd(0.5 * one[name] + 0.5 * other[name], full_matrices=False)
        assert torch.allclose(update, (u[:, :2] * s[:2]) @ vh[:2], atol=1e-4)


def test_ties_keeps_what_most_agree_on(two: list[tuple[Path, Model]], tmp_path: Path) -> None:
    """At a density of 1, by hand: entries of the sign that has more mass, averaged over those that have it."""
    (a, first), (b, second) = two
    found = updates(combine([a, b], [1.0, 1.0], Way("ties", rank=16, density=1.0), tmp_path / "sum"))
    one, other = updates(first), updates(second)
    name = "model.layers.0.self_attn.k_proj"  # 16 outputs: rank 16 loses nothing
    both = torch.stack([one[name], other[name]])
    agrees = both.sign() == both.sum(0).sign()
    assert torch.allclose(found[name], (both * agrees).sum(0) / agrees.sum(0).clamp(min=1), atol=1e-4)


def test_dare_keeps_a_share_and_its_seed_draws_it(two: list[tuple[Path, Model]], tmp_path: Path) -> None:
    folders = [two[0][0], two[1][0]]

    def drawn(seed: int, name: str) -> Tensor:
        way = Way("dare", rank=16, density=0.3, seed=seed)
        return updates(combine(folders, [1.0, 0.0], way, tmp_path / name))["model.layers.0.self_attn.k_proj"]

    first, again, other = drawn(1, "first"), drawn(1, "again"), drawn(2, "other")
    assert torch.equal(first, again) and not torch.equal(first, other)
    whole = updates(two[0][1])["model.layers.0.self_attn.k_proj"]
    kept = first.abs() > 1e-4
    assert 0.2 < kept.float().mean() < 0.4
    assert torch.allclose(first[kept], whole[kept] / 0.3, atol=1e-3)


@pytest.mark.parametrize(
    ("way", "weights", "words"),
    [
        (Way("tise"), [1.0, 1.0], ('--by is "tise"', 'Did you mean "ties"?', "linear, svd, ties, dare")),
        (Way(), [1.0], ("2 adapters and 1 weights",)),
        (Way(), [float("nan"), 1.0], ("--weights are nan, 1",)),
        (Way("svd", rank=1000), [1.0, 1.0], ("--rank is 1000", "has 16 dimensions")),
        (Way("ties", density=0.0), [1.0, 1.0], ("density is 0",)),
        (Way("svd", rank=0), [1.0, 1.0], ("rank 0",)),
    ],
)
def test_what_cannot_be_asked(
    way: Way, weights: list[float], words: tuple[str, ...], two: list[tuple[Path, Model]]
) -> None:
    with pytest.raises(RecipeError) as caught:
        check([folder for folder, _ in two], weights, way)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_what_cannot_be_added(two: list[tuple[Path, Model]], llama: Path, other_llama: Path, tmp_path: Path) -> None:
    (a, _), _ = two
    (alien, _), (dora, _) = made(other_llama, tmp_path / "alien"), made(llama, tmp_path / "dora", "dora")
    (ia3, _), (beside, _) = made(llama, tmp_path / "ia3", "ia3"), made(llama, tmp_path / "b", modules_to_save=("norm",))
    for folder, words in (
        (alien, "they were trained on different models"),
        (dora, "was trained with dora, which is no plain LoRA"),
        (llama, "holds no adapter trained by Tunesmith"),
        (ia3, "was trained with ia3, which is no plain LoRA"),
        (beside, "trained weights beside its adapter"),
    ):
        with pytest.raises(ModelError, match=words):
            combine([a, folder], [0.5, 0.5], Way(), tmp_path / "sum")
    assert not (tmp_path / "sum").exists()


def test_a_sum_that_does_nothing_is_not_written(two: list[tuple[Path, Model]], tmp_path: Path) -> None:
    folder, _ = two[0]
    same = small.copy(folder, tmp_path / "same")
    for way, weights in ((Way(), [0.0, 0.0]), (Way(), [1.0, -1.0]), (Way("svd", rank=4), [1.0, -1.0])):
        with pytest.raises(ModelError, match=r"The sum does nothing"):
            combine([folder, same], weights, way, tmp_path / "sum")
    with pytest.raises(RecipeError, match=r"a is named twice\. Leave one out"):
        combine([folder, folder], [0.5, 0.5], Way(), tmp_path / "sum")
    assert not (tmp_path / "sum").exists()
