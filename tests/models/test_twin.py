"""Two models on the same tensors: nothing is held twice, and what is done to the one is not done to the other."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import small
from tunesmith.core import parts
from tunesmith.core.errors import ModelError
from tunesmith.data.batches import collate
from tunesmith.models import load as loading
from tunesmith.models.model import Model
from tunesmith.models.twin import reference, twin
from tunesmith.plan.here import has_bitsandbytes

ADAPTERS = [n for n in parts.names("models.adapters") if parts.find("models.adapters", n).is_adapter]
ROWS = small.rows(5)


def held(model: Model) -> dict[str, int]:
    """Where each tensor of the network lies."""
    named = [*model.network.named_parameters(remove_duplicate=False), *model.network.named_buffers()]
    return {name: tensor.data_ptr() for name, tensor in named}


def logp(model: Model) -> Tensor:
    model.train(False)
    with torch.no_grad():
        return model.token_logp(collate(ROWS, 0))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("folder", ["llama", "untied", "gemma2", "bert"])
def test_a_twin_shares_every_tensor_and_no_module(folder: str, precision: Any, request: pytest.FixtureRequest) -> None:
    model = loading.load(str(request.getfixturevalue(folder)), precision=precision)
    model.train(True)
    before = held(model)
    other = twin(model)
    assert held(other) == held(model) == before
    assert len(before) > 10
    assert not {id(m) for m in model.network.modules()} & {id(m) for m in other.network.modules()}
    assert (other.packs, other.head_is_linear) == (model.packs, model.head_is_linear)
    assert model.network.training and not other.network.training
    assert torch.equal(small.states(other, ROWS), small.states(model, ROWS))
    if folder == "llama":  # whose output matrix is the embedding, in the twin too
        assert other.network.get_output_embeddings().weight is other.network.get_input_embeddings().weight


@pytest.mark.parametrize("method", ADAPTERS)
def test_a_method_on_the_one_leaves_the_other_as_it_was(method: str, llama: Path) -> None:
    if method == "qlora" and not has_bitsandbytes():
        pytest.skip("bitsandbytes is not installed")
    model = small.base(llama, method)
    other = twin(model)
    before = small.states(other, ROWS)
    score = parts.find("models.adapters", method).score
    if score is not None:
        model.scores = small.scores(model, score)
    small.stir(small.attach(model, method))
    tuned = small.states(model, ROWS)
    assert not torch.equal(tuned, before)
    assert torch.equal(small.states(other, ROWS), before)
    assert not other.adapted and other.soft is None
    assert not torch.equal(small.states(small.stir(small.attach(other, "lora"), seed=1), ROWS), before)
    assert torch.equal(small.states(model, ROWS), tuned)
    assert not {id(p) for _, p in model.trainable()} & {id(p) for _, p in other.trainable()}


@pytest.mark.parametrize("folder", ["llama", "untied", "gemma2"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_twins_train_at_once_and_apart(folder: str, precision: Any, request: pytest.FixtureRequest) -> None:
    """A backward pass of the one brings gradients to its own adapter alone."""
    model = loading.load(str(request.getfixturevalue(folder)), precision=precision)
    first = small.stir(small.attach(twin(model), "lora"))
    second = small.stir(small.attach(model, "lora"), seed=1)
    for own, other in ((first, second), (second, first)):
        own.token_logp(collate(ROWS, 0)).sum().backward()  # type: ignore[no-untyped-call]
        assert small.gradient_norm(own) > 0
        assert all(p.grad is None for _, p in other.trainable())


def test_a_head_on_the_one_is_none_on_the_other(bert: Path) -> None:
    model = loading.load(str(bert))
    other = twin(model)
    other.add_head(("a", "b"), seed=0)
    small.stir(small.attach(other, "lora"))
    assert model.head is None and model.labels == ()
    assert torch.equal(small.states(model), small.states(loading.load(str(bert))))
    assert not torch.equal(small.states(model), small.states(other))


def test_four_bits_are_held_once(llama: Path) -> None:
    pytest.importorskip("bitsandbytes")
    model = small.base(llama, "qlora")
    other = twin(model)
    assert held(other) == held(model)
    bits = [
        (name, part.weight.quant_state.absmax.data_ptr())
        for one in (model, other)
        for name, part in one.network.named_modules()
        if hasattr(getattr(part, "weight", None), "quant_state")
    ]
    assert len(bits) == 2 * len(set(bits)) > 0
    assert torch.equal(logp(other), logp(model))


@pytest.mark.parametrize("method", ["lora", "prompt", "shira"])
def test_what_has_a_method_has_no_twin(method: str, llama: Path) -> None:
    model = small.decoder(llama, method)
    with pytest.raises(ModelError, match="untouched base; this model has a method or a head"):
        twin(model)


def test_what_has_a_head_has_no_twin(llama: Path) -> None:
    model = small.base(llama)
    model.add_head(("a",), seed=0)
    with pytest.raises(ModelError, match="untouched base"):
        twin(model)


@pytest.mark.parametrize("options", [{"modules_to_save": ("norm",)}, {"new_tokens": ("<call>",)}])
@pytest.mark.parametrize("who", [0, 1])
def test_weights_of_the_base_are_not_trained_under_a_twin(llama: Path, options: dict[str, Any], who: int) -> None:
    model = small.base(llama)
    pair = (model, twin(model))
    with pytest.raises(ModelError, match=r"method\.modules_to_save and method\.new_tokens .* is shared here"):
        small.attach(pair[who], "lora", **options)
    small.attach(small.base(llama), "lora", **options)


@pytest.mark.parametrize("folder", ["llama", "gemma2"])
def test_the_reference_is_the_base_or_what_training_goes_on_from(folder: str, request: pytest.FixtureRequest) -> None:
    path = request.getfixturevalue(folder)
    base = logp(loading.load(str(path)))
    model = loading.load(str(path))
    before = small.stir(small.attach(twin(model), "lora"))
    small.stir(small.attach(model, "lora"), seed=1)
    tuned = logp(model)
    with reference(model, None) as found:
        assert torch.equal(logp(found), base)
    assert torch.equal(logp(model), tuned)
    with reference(model, before) as found:
        assert found is before
        assert torch.equal(logp(model), tuned)
    assert not torch.equal(logp(before), base) and not torch.equal(tuned, base)


# -- a score at each token ---------------------------------------------------------------------------------------------


def scoring(folder: Path, method: str) -> Model:
    model = small.base(folder)
    model.add_head(("value",), seed=0)
    assert model.head is not None
    model.head.score.weight.data *= 50
    return small.stir(small.attach(model, method))


def naive(model: Model, ids_BT: Tensor, length_B: Tensor, weight_BT: Tensor) -> Tensor:
    """Row by row: the head on the state before each target."""
    assert model.head is not None
    found = torch.zeros(weight_BT.shape)
    for b, n in enumerate(length_B.tolist()):
        states_ND = model.hidden(ids_BT[b : b + 1, :n], torch.tensor([n]))
        found[b, :n] = model.head.score(states_ND.float())[:, 0]
    return found * (weight_BT != 0)


@pytest.mark.parametrize("method", ["lora", "prompt", "prefix"])
@pytest.mark.parametrize("folder", ["llama", "untied", "gemma2"])
def test_a_token_is_scored_by_the_state_before_it(folder: str, method: str, request: pytest.FixtureRequest) -> None:
    """Soft tokens stand before every row and move no score to another place."""
    model = scoring(request.getfixturevalue(folder), method)
    model.train(False)
    batch = collate(ROWS, 0)
    with torch.no_grad():
        found_BT = model.token_score(batch)
        expected_BT = naive(model, batch.ids_BT, batch.length_B, batch.weight_BT)
    torch.testing.assert_close(found_BT, expected_BT, rtol=1e-4, atol=1e-4)
    assert float(expected_BT.abs().max()) > 0.5
    assert (found_BT[batch.weight_BT == 0] == 0).all()


@pytest.mark.parametrize("method", ["lora", "prompt", "prefix"])
def test_what_rows_begin_with_alike_changes_no_score_and_no_gradient(method: str, llama: Path) -> None:
    model = scoring(llama, method)
    model.train(False)
    rows = small.answers_to_one_prompt(6)
    alone, together = collate(rows, 0), collate([small.unit(rows[:3], 5), small.unit(rows[3:], 5)], 0)
    assert together.prefix_B is not None and together.unit == 3
    found = []
    for batch in (alone, together):
        score_BT = model.token_score(batch)
        score_BT.square().sum().backward()  # type: ignore[no-untyped-call]
        found.append((score_BT.detach(), [p.grad for _, p in model.trainable() if p.grad is not None]))
        small.gradient_norm(model)
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-4, atol=1e-4)
    for one, two in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-3 * float(one.abs().max()))


def test_scores_need_a_head(llama: Path) -> None:
    with pytest.raises(ModelError, match="has no head"):
        small.base(llama).token_score(collate(ROWS, 0))
