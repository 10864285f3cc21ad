"""A loaded model against the network's own logits, row by row and in padded batches."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor

import small
from tunesmith.core.batch import Batch
from tunesmith.core.errors import ModelError
from tunesmith.data.batches import collate
from tunesmith.models import load as loading
from tunesmith.models.model import Model, adapters_off, pooled
from tunesmith.objectives.sft import PART as SFT

ROWS = small.rows(5)


def own_logp(model: Model, batch: Batch) -> Tensor:
    """The network's logits, row by row without padding."""
    out_BT = torch.zeros(batch.ids_BT.shape)
    for b, n in enumerate(batch.length_B.tolist()):
        logits_TV = model.network(input_ids=batch.ids_BT[b : b + 1, :n]).logits[0].float()
        out_BT[b, :n] = logits_TV.log_softmax(-1).gather(1, batch.target_BT[b, :n, None])[:, 0]
    return out_BT * (batch.weight_BT != 0)


@pytest.mark.parametrize(("folder", "plain"), [("llama", True), ("untied", True), ("gemma2", False)])
def test_token_logp_equals_the_networks_own_logits(folder: str, plain: bool, request: pytest.FixtureRequest) -> None:
    model = loading.load(str(request.getfixturevalue(folder)))
    batch = collate(ROWS, 0)
    assert model.head_is_linear is plain
    found_BT, expected_BT = model.token_logp(batch), own_logp(model, batch)
    assert float((found_BT - expected_BT).detach().abs().max()) <= 1e-5
    assert float(expected_BT.detach().abs().max()) > 1
    assert not found_BT[batch.weight_BT == 0].any()
    found, expected = (
        torch.autograd.grad((batch.weight_BT * logp_BT).sum(), [p for _, p in model.trainable()])
        for logp_BT in (found_BT, expected_BT)
    )
    for f, e in zip(found, expected, strict=True):
        torch.testing.assert_close(f, e, rtol=1e-4, atol=1e-4 * float(e.abs().max()))


def test_a_soft_cap_is_seen_even_where_it_hardly_bends_the_logits(tmp_path: Path) -> None:
    model = loading.load(str(small.gemma2(tmp_path / "base", cap=500.0)))
    batch = collate(ROWS, 0)
    with torch.no_grad():
        assert float(model.network(input_ids=batch.ids_BT).logits.abs().max()) < 50
        assert not model.head_is_linear
        assert float((model.token_logp(batch) - own_logp(model, batch)).abs().max()) <= 1e-5


def test_a_scaled_head_takes_the_networks_own_path(tmp_path: Path) -> None:
    from transformers import CohereConfig, CohereForCausalLM

    torch.manual_seed(0)
    folder = small.save(CohereForCausalLM(CohereConfig(**small.SHAPE, logit_scale=0.25)), tmp_path / "base")
    model = loading.load(str(folder))
    batch = collate(ROWS, 0)
    assert not model.head_is_linear
    with torch.no_grad():
        assert float((model.token_logp(batch) - own_logp(model, batch)).abs().max()) <= 1e-5


def test_the_probe_leaves_no_hook_and_no_mode_behind(llama: Path) -> None:
    model = loading.load(str(llama))
    assert not model.network.training
    assert not model.network.get_output_embeddings()._forward_hooks


@pytest.mark.parametrize("folder", ["llama", "gemma2", "bert"])
def test_right_padding_does_not_change_real_positions(folder: str, request: pytest.FixtureRequest) -> None:
    model = loading.load(str(request.getfixturevalue(folder)))
    together = small.states(model, ROWS)
    alone = torch.cat([small.states(model, [row]) for row in ROWS])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("folder", ["llama", "bert"])
def test_what_stands_in_the_padding_changes_nothing(folder: str, request: pytest.FixtureRequest) -> None:
    model = loading.load(str(request.getfixturevalue(folder)))
    model.add_head(["a", "b", "c"], seed=0)
    first, second = collate(ROWS, 0), collate(ROWS, 77)
    assert not torch.equal(first.ids_BT, second.ids_BT)
    assert torch.equal(model.class_logp(first), model.class_logp(second))


@pytest.mark.parametrize(("folder", "pool"), [("llama", "last"), ("bert", "mean")])
def test_class_logp_of_a_batch_equals_each_row_alone(folder: str, pool: str, request: pytest.FixtureRequest) -> None:
    model = loading.load(str(request.getfixturevalue(folder)))
    model.add_head(["a", "b", "c"], seed=0)
    assert model.head is not None
    assert model.head.pool == pool
    model.head.score.weight.data *= 50
    together_BC = model.class_logp(collate(ROWS, 0))
    alone_BC = torch.cat([model.class_logp(collate([row], 0)) for row in ROWS])
    torch.testing.assert_close(together_BC, alone_BC, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(together_BC.exp().sum(-1), torch.ones(len(ROWS)))
    assert float(together_BC.detach().std()) > 0.1


def test_pooling_by_hand() -> None:
    hidden_ND = torch.tensor([[1.0, 2.0], [3.0, 6.0], [1.0, 0.0]])
    length_B = torch.tensor([2, 1])
    assert pooled(hidden_ND, length_B, "mean").tolist() == [[2.0, 4.0], [1.0, 0.0]]
    assert pooled(hidden_ND, length_B, "last").tolist() == [[3.0, 6.0], [1.0, 0.0]]


def test_a_head_is_drawn_from_its_own_seed(bert: Path) -> None:
    drawn = []
    for noise, seed in ((0, 5), (1, 5), (1, 6)):
        torch.manual_seed(noise)
        model = loading.load(str(bert))
        model.add_head(["a", "b"], seed=seed)
        assert model.head is not None
        drawn.append(model.head.score.weight.detach())
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[1], drawn[2])


def test_classes_without_a_head_are_refused(llama: Path) -> None:
    with pytest.raises(ModelError, match="has no head; objectives classify and reward need one"):
        loading.load(str(llama)).class_logp(collate(ROWS, 0))


def test_bf16_products_stay_near_float32_and_logp_is_float32(llama: Path) -> None:
    batch = collate(ROWS, 0)
    exact_BT = loading.load(str(llama)).token_logp(batch)
    found_BT = loading.load(str(llama), precision="bfloat16").token_logp(batch)
    assert found_BT.dtype == torch.float32
    assert not torch.equal(found_BT, exact_BT)
    torch.testing.assert_close(found_BT, exact_BT, rtol=0.05, atol=0.3)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_adapters_off_is_the_base_bit_for_bit(llama: Path, precision: str) -> None:
    model = loading.load(str(llama), precision=precision)  # type: ignore[arg-type]
    base = small.states(model)
    small.stir(small.attach(model, "lora"))
    with adapters_off(model):
        assert torch.equal(small.states(model), base)
    assert not torch.equal(small.states(model), base)


def test_adapters_come_back_after_an_error(llama: Path) -> None:
    model = small.stir(small.attach(loading.load(str(llama)), "lora"))
    tuned = small.states(model)
    with pytest.raises(KeyError), adapters_off(model):
        raise KeyError
    assert torch.equal(small.states(model), tuned)


@contextmanager
def counted_saves() -> Iterator[list[int]]:
    """The sizes of the tensors that autograd keeps for the backward pass."""
    kept: list[int] = []

    def save(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
        yield kept


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("every", [1, 2])
def test_recomputed_activations_give_the_same_gradients(llama: Path, method: str, every: int) -> None:
    batch = collate(small.rows(5), 0)
    found = []
    for recompute in (False, True):
        model = small.stir(small.decoder(llama, method))
        if recompute:
            model.recompute(every)
        model.train(True)
        with counted_saves() as kept:
            loss = SFT.loss(model.token_logp(batch), batch)
        loss.backward()
        found.append((sum(kept), {n: p.grad for n, p in model.trainable()}))
    assert found[1][0] < (0.8 if every == 1 else 0.95) * found[0][0]  # fewer are kept; weights count too
    for name, gradient in found[0][1].items():
        assert torch.equal(gradient, found[1][1][name]), name


def test_a_network_that_cannot_recompute_is_refused(llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = small.decoder(llama)
    monkeypatch.setattr(type(model.network), "supports_gradient_checkpointing", False)
    with pytest.raises(ModelError, match=r"LlamaForCausalLM cannot recompute.*train\.memory: fast"):
        model.recompute(1)
