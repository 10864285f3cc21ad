"""Rows packed into one: the same states as each row alone, on each attention path, and no way from row to row."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

import small
from tunesmith.core.batch import Batch, TokenRow
from tunesmith.data.batches import collate
from tunesmith.models import load as loading
from tunesmith.models import packing
from tunesmith.models.model import Model

ROWS = [TokenRow((4, *r.ids[1:]), r.weight) for r in small.rows(7, longest=40)]  # 1 is a pad to RoBERTa
ALIKE = [TokenRow((4, *range(9 + n, 26 + n)), (1.0,) * 18) for n in range(5)]  # rows of one length take no pads at all
SETS = pytest.mark.parametrize("rows", [ROWS, ALIKE, ROWS[:1]], ids=["mixed", "alike", "one"])


def mistral(folder: Path) -> Path:
    """Attention within a window of 6 tokens."""
    torch.manual_seed(0)
    shape = {**small.SHAPE, "num_key_value_heads": 2, "head_dim": 8, "sliding_window": 6}
    return small.save(MistralForCausalLM(MistralConfig(**shape)), folder)


def roberta(folder: Path) -> Path:
    return small.roberta(folder)


BASES = {"llama": small.llama, "mistral": mistral, "bert": small.bert, "roberta": roberta}


@pytest.fixture(params=sorted(BASES))
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Model:
    return loading.load(str(BASES[request.param](tmp_path / "base")))


@pytest.fixture(params=["products", "sdpa"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Which attention is used: batched products, or PyTorch's own."""
    monkeypatch.setattr(packing, "SHORT_ROW", {torch.float32: 10**6 if request.param == "products" else 0})
    return str(request.param)


def alone(model: Model, row: TokenRow) -> Tensor:
    """States of one row by transformers' own call: no pack, no pad, no attention of ours."""
    own = model.network.config._attn_implementation
    model.network.set_attn_implementation("eager")
    states: Tensor = model.backbone(input_ids=torch.tensor([row.ids])).last_hidden_state[0]
    model.network.set_attn_implementation(own)
    return states


@SETS
@pytest.mark.usefixtures("path")
def test_packed_states_equal_each_row_alone(model: Model, rows: list[TokenRow]) -> None:
    assert model.packs
    batch = collate(rows, 0)
    expected = torch.cat([alone(model, row) for row in rows])
    found = model.hidden(batch.ids_BT, batch.length_B)
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@SETS
@pytest.mark.usefixtures("path")
def test_packed_gradients_equal_the_sum_of_each_row_alone(model: Model, rows: list[TokenRow]) -> None:
    small.attach(model, "full")
    batch = collate(rows, 0)
    weight_ND = torch.randn(int(batch.length_B.sum()), model.card.width, generator=torch.Generator().manual_seed(0))

    def gradients(states: Tensor) -> dict[str, Tensor]:
        (states * weight_ND).sum().backward()
        found = {n: p.grad.clone() for n, p in model.trainable() if p.grad is not None}
        model.network.zero_grad()
        return found

    expected = gradients(torch.cat([alone(model, row) for row in rows]))
    found = gradients(model.hidden(batch.ids_BT, batch.length_B))
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert float((found[name] - value).abs().max()) <= 1e-4 * max(1.0, float(value.abs().max())), name


@SETS
@pytest.mark.parametrize("short", [0, 10**6], ids=["sdpa", "products"])
def test_packed_logits_equal_those_of_each_row_alone_in_bf16(
    rows: list[TokenRow], short: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within bf16's rounding, of which each row alone has as much: both lie about as far from float32."""
    monkeypatch.setattr(packing, "SHORT_ROW", {torch.bfloat16: short})
    folder = str(small.llama(tmp_path / "base"))
    narrow, wide = loading.load(folder, precision="bfloat16"), loading.load(folder)
    batch = collate(rows, 0)

    def logits(states: Tensor) -> Tensor:
        return narrow.network.get_output_embeddings()(states.to(torch.bfloat16)).float()

    with torch.no_grad():
        exact = logits(torch.cat([alone(wide, row) for row in rows]))
        own = logits(torch.cat([alone(narrow, row) for row in rows]))
        packed = logits(narrow.hidden(batch.ids_BT, batch.length_B))
    assert narrow.packs
    usual = float((own - exact).abs().mean())
    assert float((packed - exact).abs().mean()) <= 1.5 * usual
    assert usual < 0.05 * float(exact.abs().mean())


@pytest.mark.usefixtures("path")
def test_a_changed_row_leaves_the_others_as_they_are_bit_for_bit(model: Model) -> None:
    batch = collate(ROWS, 0)
    before = model.hidden(batch.ids_BT, batch.length_B).split(batch.length_B.tolist())
    changed = batch.ids_BT.clone()
    changed[3, : int(batch.length_B[3])] = 9
    after = model.hidden(changed, batch.length_B).split(batch.length_B.tolist())
    for n, (old, new) in enumerate(zip(before, after, strict=True)):
        assert torch.equal(old, new) == (n != 3)


@pytest.mark.usefixtures("path")
def test_what_stands_in_the_pads_never_matters(model: Model) -> None:
    batch = collate(ROWS, 0)
    other = collate(ROWS, 77)
    assert not torch.equal(batch.ids_BT, other.ids_BT)
    assert torch.equal(model.hidden(batch.ids_BT, batch.length_B), model.hidden(other.ids_BT, other.length_B))


@pytest.mark.usefixtures("path")
def test_the_window_of_a_sliding_model_is_kept(tmp_path: Path) -> None:
    model = loading.load(str(mistral(tmp_path / "base")))
    row = next(r for r in ROWS if len(r.ids) > 20)
    far = TokenRow((1, 55, *row.ids[2:]), row.weight)
    near, moved = (model.hidden(collate([r], 0).ids_BT, torch.tensor([len(r.ids)])) for r in (row, far))
    reach = 1 + 2 * (6 - 1)  # two layers, each looking five tokens back
    assert not torch.equal(near[reach], moved[reach])
    assert torch.equal(near[reach + 1 :], moved[reach + 1 :])


def test_no_pad_reaches_the_linear_layers(model: Model) -> None:
    batch = collate(ROWS, 0)
    seen = []
    linear = next(m for m in model.backbone.modules() if isinstance(m, torch.nn.Linear))
    linear.register_forward_hook(lambda _m, inputs, _o: seen.append(inputs[0].shape))
    model.hidden(batch.ids_BT, batch.length_B)
    assert seen == [(1, sum(len(r.ids) for r in ROWS), model.card.width)]


def test_a_family_with_scores_of_its_own_runs_padded_with_the_same_result(tmp_path: Path) -> None:
    model = loading.load(str(small.gemma2(tmp_path / "base")))
    assert not model.packs
    assert model.network.config._attn_implementation != packing.NAME
    batch = collate(ROWS, 0)
    expected = torch.cat([alone(model, row) for row in ROWS])
    found = model.hidden(batch.ids_BT, batch.length_B)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=3e-4)  # 1.1e-4 apart with transformers 5.17


def test_a_deep_network_in_bf16_packs_and_a_leak_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its rounding was once taken for a leak; this leak is a tenth of what other tokens hold."""
    wide = {"hidden_size": 128, "intermediate_size": 384, "num_attention_heads": 8, "num_key_value_heads": 4}
    folder = small.llama(tmp_path / "base", num_hidden_layers=32, head_dim=16, initializer_range=0.1, **wide)
    model, own = loading.load(str(folder), precision="bfloat16"), packing._attend
    assert model.packs

    def leaking(query: Tensor, key: Tensor, value: Tensor, *rest: Any, **options: Any) -> Tensor:
        others = value.mean((0, 2), keepdim=True).repeat_interleave(query.shape[1] // value.shape[1], 1)
        return own(query, key, value, *rest, **options) + 0.1 * others

    monkeypatch.setattr(packing, "_attend", leaking)
    assert not model.check_packing(collate(ROWS, 0))


def test_a_network_that_mixes_its_rows_is_found_by_the_probe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def leaking(query: Tensor, key: Tensor, value: Tensor, *_: object, **__: object) -> Tensor:
        return query + value.mean()

    monkeypatch.setattr(packing, "_attend", leaking)
    assert not loading.load(str(small.llama(tmp_path / "base"))).packs


def test_a_first_batch_that_mixes_its_rows_sends_the_run_to_the_padded_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, batch = loading.load(str(small.llama(tmp_path / "base"))), collate(ROWS, 0)
    assert model.check_packing(batch) and model.packs
    own = packing._attend

    def leaking(query: Tensor, key: Tensor, value: Tensor, *rest: Any, **options: Any) -> Tensor:
        return own(query, key, value, *rest, **options) + (value.mean() if query.shape[2] > 12 else 0)

    monkeypatch.setattr(packing, "_attend", leaking)  # long rows only: the probe at load does not see it
    assert not model.check_packing(batch) and not model.packs
    expected = torch.cat([alone(model, row) for row in ROWS])
    torch.testing.assert_close(model.hidden(batch.ids_BT, batch.length_B), expected, rtol=1e-4, atol=1e-5)


def test_the_name_of_our_attention_is_not_saved(tmp_path: Path) -> None:
    model = loading.load(str(small.llama(tmp_path / "base")))
    model.network.save_pretrained(tmp_path / "saved")
    assert packing.NAME not in (tmp_path / "saved" / "config.json").read_text()


@pytest.mark.parametrize("size", [3, 200, 700])
def test_bf16_attention_stays_near_float32_on_short_and_long_rows(size: int) -> None:
    """Errors of one bf16 rounding (2^-9) of values around 1, on both sides of the switch between the paths."""
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, heads, size, 16) for heads in (4, 2, 2))
    exact = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
    narrow = [x.bfloat16() for x in (query, key, value)]
    found = packing._attend(*narrow, None, causal=True, scaling=None, dropout=0.0)
    assert found.dtype == torch.bfloat16
    assert float((found.float() - exact).abs().max()) < 0.03


def test_a_frozen_llama_packs_in_bf16_too(tmp_path: Path) -> None:
    config = LlamaConfig(**{**small.SHAPE, "num_key_value_heads": 2, "num_hidden_layers": 4})
    torch.manual_seed(0)
    model = loading.load(str(small.save(LlamaForCausalLM(config), tmp_path / "base")), precision="bfloat16")
    assert model.packs
    batch: Batch = collate(ROWS, 0)
    assert model.hidden(batch.ids_BT, batch.length_B).dtype == torch.bfloat16
    assert model.packs_exactly(batch.ids_BT, batch.length_B)


def bare(row: TokenRow) -> TokenRow:
    return TokenRow(row.ids, row.weight)


def branches(count: int = 3) -> list[TokenRow]:
    """Units of two rows that begin alike, by one, five and nine tokens, and are of unequal length."""
    found = []
    for n in range(count):
        start = (4, *range(20, 20 + 4 * n))
        first = TokenRow((*start, 50, 51 + n, 52, 53), (0.0,) * len(start) + (1.0,) * 4)
        other = TokenRow((*start, 60, 61), (0.0,) * len(start) + (1.0,) * 2, prefix=len(start))
        found.append(dataclasses.replace(first, others=(other,)))
    return found


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("name", ["llama", "mistral", "gemma2"])
def test_rows_that_begin_alike_are_computed_once_and_give_what_each_gives_alone(name: str, tmp_path: Path) -> None:
    model = loading.load(str({**BASES, "gemma2": small.gemma2}[name](tmp_path / "base")))
    small.attach(model, "full")
    units = branches()
    together, apart = collate(units, 0), collate([bare(r) for u in units for r in u.unit], 0)
    assert apart.prefix_B is None
    assert together.tokens == sum(u.size for u in units) < int(apart.length_B.sum())
    factor_BT = torch.randn(apart.weight_BT.shape, generator=torch.Generator().manual_seed(0))

    def measured(batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        logp_BT = model.token_logp(batch)
        (logp_BT * factor_BT).sum().backward()
        found = {n: p.grad.clone() for n, p in model.trainable() if p.grad is not None}
        model.network.zero_grad()
        return logp_BT.detach(), found

    (logp, gradients), (expected, wanted) = measured(together), measured(apart)
    torch.testing.assert_close(logp, expected, rtol=1e-4, atol=1e-5)
    for parameter, value in wanted.items():
        error = float((gradients[parameter] - value).abs().max())
        assert error <= 1e-4 * max(1.0, float(value.abs().max())), parameter


def test_the_linear_layers_see_a_shared_beginning_once(tmp_path: Path) -> None:
    model = loading.load(str(small.llama(tmp_path / "base")))
    batch, seen = collate(branches(), 0), []
    linear = next(m for m in model.backbone.modules() if isinstance(m, torch.nn.Linear))
    linear.register_forward_hook(lambda _m, inputs, _o: seen.append(inputs[0].shape))
    model.token_logp(batch)
    assert seen == [(1, batch.tokens, model.card.width)]
    assert batch.tokens == int(batch.length_B.sum()) - sum(len(u.others[0].ids) - 2 for u in branches())


def test_a_row_does_not_see_the_other_answer_to_its_prompt(tmp_path: Path) -> None:
    model = loading.load(str(small.llama(tmp_path / "base")))
    (unit,) = branches(3)[2:]
    changed = dataclasses.replace(unit, ids=(*unit.ids[:-2], 99, 98))
    logp, other = (model.token_logp(collate([u], 0)) for u in (unit, changed))
    assert torch.equal(logp[1], other[1])
    assert not torch.equal(logp[0], other[0])


def test_a_first_batch_whose_shared_beginnings_leak_sends_the_run_to_the_padded_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, batch = loading.load(str(small.llama(tmp_path / "base"))), collate(branches(), 0)
    assert model.check_packing(batch) and model.packs
    own = packing.pack

    def wrong(ids_BT: Tensor, length_B: Tensor, prefix_B: Tensor | None = None, unit: int = 1) -> packing.Packed:
        found = own(ids_BT, length_B, prefix_B, unit)
        return found if prefix_B is None else dataclasses.replace(found, row_BT=found.row_BT.roll(1, 0))

    monkeypatch.setattr(packing, "pack", wrong)
    assert not model.check_packing(batch) and not model.packs


@pytest.mark.parametrize("kind", ["decoder", "encoder"])
def test_a_reward_is_that_of_the_row_alone(kind: str, tmp_path: Path) -> None:
    model = loading.load(str((small.llama if kind == "decoder" else small.bert)(tmp_path / "base")))
    model.add_head(("reward",), seed=0)
    units = branches() if kind == "decoder" else [dataclasses.replace(u, others=()) for u in branches()]
    found = model.score(collate(units, 0))
    alone_B = torch.cat([model.score(collate([bare(row)], 0)) for unit in units for row in unit.unit])
    torch.testing.assert_close(found, alone_B, rtol=1e-4, atol=1e-5)
    assert [n for n, _ in model.trainable() if "score" in n] == ["head.score.weight"]
