"""Bytes by part, by hand, and the levels that give way one by one."""

from dataclasses import replace

import pytest
import torch
from tests.plan.saved import kept

from tunesmith.core.errors import MemoryNeeded
from tunesmith.core.plan import Technique
from tunesmith.models import few_bits, linear_logp, packing
from tunesmith.plan import activations, memory
from tunesmith.plan.activations import FUSED, NORMS, SCORES, Device, Held, packed_attention
from tunesmith.plan.families import shape_of
from tunesmith.plan.memory import HEADROOM, LEVELS, choose, needed, peak, refuse
from tunesmith.plan.resolve import Data
from tunesmith.plan.work import Level, Precision, Rollouts, Rows, Scorer, Work

TINY = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 1000,
    "tie_word_embeddings": True,
}
SHAPE = shape_of(TINY)
FULL = Technique(True, SHAPE.parameters, 1.0)
LORA = Technique(False, 16 * sum(o + i for o, i in SHAPE.linear_layers().values()), 10.0)
ROWS = Rows(1000, 256_000, 128_000, 256, 256)
WHOLE = Work(SHAPE, FULL, ROWS, "float32", micro_tokens=1024, batch_tokens=4096, steps=60)
THIN = replace(WHOLE, technique=LORA)


def test_what_lasts_by_hand() -> None:
    count = SHAPE.parameters
    full, lora = needed(WHOLE), needed(THIN)
    assert full["weights"] == lora["weights"] == 4 * count
    assert full["moments"] == 8 * count
    assert full["best"] == 4 * count
    assert lora["adapter"] == lora["best"] == 4 * LORA.trained
    assert lora["moments"] == 8 * LORA.trained
    assert "best" not in needed(replace(WHOLE, looks=False))
    assert "best" not in needed(WHOLE, "cuda")  # where it lies in the memory of the processor
    narrow = needed(replace(WHOLE, precision="bfloat16"))
    assert (narrow["weights"], narrow["masters"], narrow["moments"]) == (2 * count, 4 * count, 8 * count)
    assert "masters" not in needed(replace(THIN, precision="bfloat16"))


def test_four_bits_by_hand() -> None:
    linear = SHAPE.count("linear")
    found = needed(replace(THIN, technique=replace(LORA, four_bits=True)))
    assert found["weights"] == 4 * (SHAPE.parameters - linear)
    assert found["four bits"] == pytest.approx(0.5 * linear, abs=1)
    assert found["quantisation constants"] == pytest.approx((1 / 64 + 4 / 64 / 256) * linear, abs=1)
    whole = int((0.5 + 1 / 64 + 4 / 64 / 256) * linear)
    assert found["four bits"] + found["quantisation constants"] == whole
    shared = needed(replace(THIN, technique=replace(LORA, four_bits=True)), ranks=7)
    assert shared["four bits"] + shared["quantisation constants"] == -(-whole // 7)
    assert "quantisation constants" not in needed(THIN)


def test_the_largest_weight_of_four_bits_is_made_dense() -> None:
    held = replace(THIN, technique=replace(LORA, four_bits=True))
    assert needed(held)["dense weight"] == 6 * 128 * 64
    assert needed(replace(held, precision="bfloat16"))["dense weight"] == 8 * 128 * 64
    assert needed(replace(held, precision="bfloat16"), "cuda")["dense weight"] == 2 * 128 * 64
    assert needed(held, "cuda", ranks=8)["dense weight"] == 4 * 128 * 64  # whole on each
    assert "dense weight" not in needed(THIN)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_processor_makes_it_in_as_many_bytes(dtype: torch.dtype) -> None:
    functional = pytest.importorskip("bitsandbytes.functional")
    weight = torch.randn(128, 64).to(dtype)
    bits, state = functional.quantize_4bit(weight, quant_type="nf4", compress_statistics=True)
    scratch = few_bits.Scratch()
    assert scratch.dense(bits, state).dtype == dtype
    bytes_held = sum(held.numel() * held.element_size() for held in scratch.held.values())
    assert bytes_held == weight.numel() * (memory.LOOKED_UP + (2 if dtype == torch.bfloat16 else 0))


def test_activations_are_the_layers_that_are_kept() -> None:
    held = Held(1024, 1024, 256)
    freed = 0.78 * 1.4 * 1.7 * 1024 * (6 * 64 + 5 * 64 + 4.5 * 32)  # long rows, and several micro-batches
    a_layer = 4 * (kept(SHAPE, held, "float32", "cpu", 7 * 16) + freed)
    states = 4 * (3 * 1024 + 2 * 512) * 64
    assert needed(THIN)["activations"] == pytest.approx(4 * a_layer + states, rel=1e-3)
    assert needed(THIN)["logits"] == 1000 * (4 * 512 + 8 * 512)
    on_gpu = needed(replace(THIN, batch_tokens=1024), "cuda")["activations"]
    assert on_gpu == pytest.approx(16 * kept(SHAPE, held, "float32", "cuda", 7 * 16) + states, rel=1e-3)


def test_gradients_stand_beside_activations_only_where_a_step_is_more_than_one_micro_batch() -> None:
    assert needed(THIN)["gradients"] == 4 * LORA.trained
    assert "gradients" not in needed(replace(THIN, batch_tokens=1024))
    few = replace(WHOLE, micro_tokens=8, batch_tokens=8, rows=replace(ROWS, longest=8))
    assert needed(few, "cuda")["gradients"] >= 4 * SHAPE.parameters  # at the end of the backward pass


def test_what_a_method_keeps_beside_its_layers_and_a_critic_beside_its_policy() -> None:
    outputs = 64 + 32 + 32 + 64 + 128 + 128 + 64
    more = needed(replace(THIN, technique=replace(LORA, keeps=0.5)))["activations"] - needed(THIN)["activations"]
    assert more == pytest.approx(4 * 4 * 1024 * 0.5 * outputs, rel=1e-3)
    alone = replace(THIN, rollouts=Rollouts(16, 8, 100, 50, 2))
    both = replace(alone, rollouts=Rollouts(16, 8, 100, 50, 2, critic=True))
    assert needed(both)["activations"] > 1.5 * needed(alone)["activations"]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("level", LEVELS)
def test_activations_by_kind_of_layer_are_all_of_them(level: Level, device: Device) -> None:
    """Whichever moment is the worst: a step of several micro-batches, of one, where gradients come last, or a look."""
    fewer = replace(WHOLE, technique=replace(FULL, keeps=-0.55))  # bitfit
    whole = replace(WHOLE, level=level)
    for work in (THIN, whole, replace(whole, batch_tokens=1024), replace(THIN, level="checkpoint"), fewer):
        found = memory.activations(work, device)
        assert sum(found.values()) == needed(work, device)["activations"]
        assert all(size > 0 for size in found.values())
        assert {"feed-forward", NORMS} <= set(found)
        assert any(name in found for name in (FUSED, SCORES)) or set(found) == {"feed-forward", NORMS}  # a look


def test_kinds_of_layers_by_hand() -> None:
    """Of llama with LoRA, a token and layer: gate, up, silu and their product; two norms' inputs and outputs; queries,
    keys, values, the result and one number a head; the seven adapters' inner numbers."""
    found = memory.activations(replace(THIN, batch_tokens=1024), "cuda")
    all_of_them = 4 * 4 * 1024  # layers, bytes, tokens
    assert found["feed-forward"] == all_of_them * 4 * 128
    assert found[NORMS] == all_of_them * (4 * 64 + 2)
    assert found[FUSED] == all_of_them * (2 * 64 + 2 * 32 + 4)
    assert found["adapters"] == pytest.approx(all_of_them * 7 * 16, rel=1e-6)
    assert found["final hidden states"] == 4 * (3 * 1024 + 2 * 512) * 64
    again = memory.activations(replace(THIN, batch_tokens=1024, look_tokens=256, level="checkpoint"), "cuda")
    assert again["checkpointed inputs"] == all_of_them * 64
    assert again["feed-forward"] == found["feed-forward"] / 4


def test_where_heads_have_the_width_of_the_layer_the_rest_is_not_called_attention() -> None:
    bert = shape_of({"model_type": "bert", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4,
                     "num_attention_heads": 4, "vocab_size": 1000})  # fmt: skip
    found = activations.kept_by_kind(bert, Held(100, 100, 100), "float32", "cpu", None)
    assert found[SCORES] == 100 * (2 * 64 + 2 * 64 + 4 * 100) + 100 * 3 * 4 * 100  # ours, and what dropout keeps
    assert found[NORMS] == 100 * (6 * 64 - 4 + 4)


def test_attention_is_counted_by_the_path_it_takes() -> None:
    short = replace(THIN, rows=replace(ROWS, longest=128))
    paths = [{name for name in memory.activations(one, d) if "attention" in name} for one in (short, THIN)
             for d in ("cpu", "cuda")]  # fmt: skip
    assert paths == [{SCORES}, {FUSED}, {FUSED}, {FUSED}]
    shares = 4 * 4 * 128 * 4 * 1024  # of each token in the 128 of its row: layers, heads, bytes
    ours = memory.activations(replace(short, batch_tokens=1024))[SCORES]
    assert ours == pytest.approx(shares + 4 * 4 * 1024 * (2 * 64 + 2 * 32), rel=1e-3)


def test_recomputed_layers_leave_holes_on_a_processor_and_layer_norms_fewer() -> None:
    again, short = replace(THIN, level="checkpoint"), replace(THIN, rows=replace(ROWS, longest=128))
    inputs = 4 * 4 * 1024 * 64
    assert needed(again)["activations"] > needed(again, "cuda")["activations"] + inputs
    assert needed(again)["activations"] < needed(THIN)["activations"]
    plain = replace(SHAPE, weights=tuple(replace(w, bias=64) if w.kind == "norm" else w for w in SHAPE.weights))
    assert needed(replace(short, shape=plain))["activations"] < 0.9 * needed(short)["activations"]


def test_a_policy_holds_its_reward_model_too() -> None:
    rollouts = Rollouts(16, 8, 100, 50, 2, reward=Scorer(SHAPE))
    assert needed(replace(THIN, rollouts=rollouts))["reward model"] == 4 * SHAPE.parameters


def test_each_level_needs_less_than_the_one_before() -> None:
    deep = replace(WHOLE, shape=shape_of({**TINY, "num_hidden_layers": 40}), rows=replace(ROWS, longest=64))
    deep = replace(deep, technique=Technique(True, deep.shape.parameters, 1.0), micro_tokens=512)
    for device in ("cpu", "cuda"):
        sums = [peak(replace(deep, level=level), device) for level in LEVELS]  # type: ignore[arg-type]
        assert sums == sorted(sums, reverse=True)
        assert len(set(sums)) == len(LEVELS)
    assert peak(replace(deep, technique=LORA)) < peak(deep)
    assert peak(replace(THIN, micro_tokens=2048)) > peak(THIN)


def test_the_constants_are_those_of_the_engine() -> None:
    assert memory.CHUNK == linear_logp.CHUNK_ELEMENTS
    assert memory.WIDE == linear_logp.WIDE_ELEMENTS
    assert {str(k).removeprefix("torch."): n for k, n in packing.SHORT_ROW.items()} == activations.SHORT_ROW


def test_pads_cost_attention_alone() -> None:
    even, uneven = Held(400, 400, 200), Held(300, 400, 200)
    assert packed_attention(SHAPE, even, "float32", "cpu") == 400 * (2 * 64 + 2 * 32 + 4)
    assert packed_attention(SHAPE, uneven, "float32", "cpu") == 300 * 64 + 400 * (2 * 64 + 2 * 32 + 4)
    assert packed_attention(SHAPE, Held(100, 100, 100), "float32", "cpu") == 100 * (2 * 64 + 2 * 32 + 4 * 100)


def tail(*units: tuple[int, int]) -> Rows:
    """Rows of so many tokens, and how many of them."""
    lengths = [n for n, count in units for _ in range(count)]
    return Data(lengths, lambda *_: 1, 0, sum(lengths) // 2, max(lengths)).rows


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_one_long_row_does_not_make_micro_batches_small(device: Device, precision: Precision) -> None:
    """Which hold three of 340 tokens as before; and shares of short rows, where attention keeps these."""
    even = replace(THIN, precision=precision, rows=tail((340, 500)))
    assert peak(replace(even, rows=tail((600, 1), (340, 500))), device) >= peak(even, device)


def test_pads_count_where_the_network_reads_them() -> None:
    bert = shape_of({"model_type": "bert", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4,
                     "num_attention_heads": 4, "vocab_size": 1000})  # fmt: skip
    for shape, least in ((SHAPE, 1.0), (bert, 3.0)):
        technique = Technique(True, shape.parameters, 1.0)
        even = replace(WHOLE, shape=shape, technique=technique, outputs=2, rows=tail((60, 80)))
        padded = replace(even, rows=tail((300, 1), (60, 80)))  # beside twelve of 60 tokens
        assert needed(padded, "cuda")["activations"] > least * needed(even, "cuda")["activations"]


def chosen(limit: float, work: Work) -> tuple[str, int, str]:
    return choose(int(limit / HEADROOM) + 1, work, "cpu")


DEEP = replace(WHOLE, rows=replace(ROWS, longest=100), micro_tokens=36_000, batch_tokens=36_000)


def total(level: str, tokens: int) -> int:
    return peak(replace(DEEP, level=level, micro_tokens=tokens))  # type: ignore[arg-type]


def test_smaller_micro_batches_come_before_recomputing() -> None:
    for tokens in (36_000, 18_000, 9_000):
        level, found, reason = chosen(total("fast", tokens), DEEP)
        assert (level, found) == ("fast", tokens)
        assert f"with {tokens} tokens at once" in reason
    assert chosen(total("fast", 9_000) - 2, DEEP)[:2] == ("selective", 9_000)


def test_the_first_level_that_fits_is_taken_and_the_reason_names_all_that_were_tried() -> None:
    level, _, reason = chosen(total("checkpoint", 9000), DEEP)
    assert level == "checkpoint"
    assert all(name in reason for name in ("fast", "selective", "checkpoint"))
    assert "least" not in reason


def test_what_fits_nowhere_is_refused() -> None:
    with pytest.raises(MemoryNeeded, match=r"nothing fits 90% of 0\.098 GiB.*lower train\.batch_tokens"):
        choose(100 << 20, DEEP, "cpu")


def test_a_gpu_halves_micro_batches_so_only_what_one_unit_needs_is_refused() -> None:
    wide = replace(WHOLE, micro_tokens=16_384, batch_tokens=16_384)
    one = peak(replace(wide, micro_tokens=256, look_tokens=2 * 16_384), "cuda")  # looks are not halved
    assert peak(replace(wide, micro_tokens=256), "cuda") < one < peak(wide, "cuda")
    refuse(one, wide, "cuda")
    with pytest.raises(MemoryNeeded, match="with 256 tokens at once"):
        refuse(int(one / 1.2), wide, "cuda")


def test_a_level_that_was_asked_for_is_refused_only_where_it_surely_cannot_fit() -> None:
    need = peak(WHOLE)
    refuse(None, WHOLE, "cpu")
    refuse(int(need / 1.1), WHOLE, "cpu")
    with pytest.raises(MemoryNeeded, match=r"train\.memory: fast needs about .* there are"):
        refuse(int(need / 1.2), WHOLE, "cpu")
