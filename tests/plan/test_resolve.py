"""Every ``auto`` becomes a number with a reason; what is set wins; no torch is imported."""

import subprocess
import sys
from collections.abc import Sequence
from typing import Any, Literal

import pytest

from tunesmith.core.card import ModelCard
from tunesmith.core.errors import MemoryNeeded
from tunesmith.core.plan import Machine, Plan, Technique
from tunesmith.core.recipe import Recipe
from tunesmith.plan import resolve as module
from tunesmith.plan.families import shape_like
from tunesmith.plan.resolve import Data, resolve

LENGTHS = tuple(range(10, 210))  # 200 rows, 21,900 tokens


def card(**changes: Any) -> ModelCard:
    fields: dict[str, Any] = {
        "name": "base",
        "path": "/base",
        "kind": "decoder",
        "architecture": "LlamaForCausalLM",
        "parameters": 10_000_000,
        "layers": 4,
        "width": 384,
        "vocabulary": 8192,
        "context": 1024,
        "fingerprint": "f",
        "tokenizer_hash": "t",
        "template_hash": "h",
    }
    return ModelCard(**{**fields, **changes})


def plan(
    lengths: Sequence[int] = LENGTHS,
    *,
    of: ModelCard | None = None,
    fast: bool = False,
    device: Literal["cpu", "cuda"] = "cpu",
    memory: int | None = 1 << 50,
    passes: int = 40,
    dev_tokens: int = 1000,
    eight_bit: bool = False,
    answers: Sequence[tuple[int, int]] = (),
    **recipe: Any,
) -> Plan:
    parsed = Recipe.parse({"data": {"train": "rows.jsonl"}, **recipe})
    data = Data(
        lengths,
        lambda _batch, _longest: passes,
        dev_tokens,
        trained=sum(lengths) // 2,
        longest=max(lengths, default=1),
        answers=answers,
    )
    where = Machine(device, memory, fast, eight_bit)
    full = parsed.method.name == "full"
    of = of or card()
    technique = Technique(full=full, trained=of.parameters if full else 1000, rate=1.0 if full else 10.0)
    shape = shape_like(of, {})
    made, work = resolve(parsed, of, data, shape=shape, machine=where, technique=technique)
    assert (work.level, work.micro_tokens, work.steps) == (made.memory, made.micro_tokens, made.steps)
    return made


def test_every_number_that_was_auto_has_a_reason() -> None:
    made = plan()
    derived = ("learning_rate", "max_length", "batch_tokens", "micro_tokens", "steps", "warmup_steps", "eval_every")
    for name in (*derived, "precision"):
        assert len(made.reasons[name]) > 10, name
        assert made.reasons[name] != "set in the recipe", name
    assert set(made.reasons) <= set(Plan.model_fields)


@pytest.mark.parametrize(
    ("name", "value"),
    [("learning_rate", 3e-4), ("batch_tokens", 700), ("max_length", 64), ("precision", "bfloat16")],
)
def test_what_is_set_wins_and_says_so(name: str, value: object) -> None:
    made = plan(train={name: value})
    assert getattr(made, name) == value
    assert "set in the recipe" in made.reasons[name]
    assert getattr(plan(), name) != value


def test_plain_settings_pass_through() -> None:
    train = {"weight_decay": 0.1, "clip_norm": 0.7, "patience": 9, "seed": 5, "epochs": 2}
    made = plan(train=train, budget={"time": "2m"})
    assert {name: getattr(made, name) for name in train} == train
    assert made.seconds == 120.0
    assert "budget.time" in made.reasons["seconds"]
    assert plan().seconds is None


def test_steps_by_hand() -> None:
    made = plan(passes=40, train={"epochs": 2.5, "warmup": 0.1})
    assert (made.steps, made.warmup_steps, made.eval_every) == (100, 10, 10)
    assert "2.5 epochs of 40 steps" in made.reasons["steps"]
    assert plan(passes=40, train={"warmup": 0}).warmup_steps == 0
    assert plan(passes=40, train={"epochs": 0.001}).steps == 1
    assert plan(passes=3, train={"epochs": 100}).eval_every == 3  # at least once an epoch
    assert plan(passes=1, train={"epochs": 1}).eval_every == 1


def test_looks_at_dev_cost_a_tenth_of_the_training_at_most() -> None:
    """2.5 passes over 21,900 tokens against a dev set of 4,000, each of which costs a third of a trained token."""
    made = plan(passes=40, dev_tokens=4000, train={"epochs": 2.5})
    assert made.eval_every == 25  # 4 looks in 100 steps: 4 x 4,000 / 3 is a tenth of 54,750
    assert "4 looks" in made.reasons["eval_every"]
    assert plan(passes=40, dev_tokens=10**9, train={"epochs": 2.5}).eval_every == 40  # never less than once an epoch


def test_the_batch_follows_the_data_within_bounds() -> None:
    assert plan().batch_tokens == module.SMALLEST_BATCH
    assert plan([100] * 600).batch_tokens == 60_000 // 60
    assert plan([100] * 100_000).batch_tokens == module.LARGEST_BATCH
    assert plan([]).batch_tokens == module.SMALLEST_BATCH


def test_a_micro_batch_holds_the_longest_row_and_at_most_the_batch() -> None:
    assert plan().micro_tokens == 512
    assert plan([100] * 100_000).micro_tokens == module.MICRO_TOKENS["cpu"]
    assert plan([30_000], of=card(context=32_768)).micro_tokens == 30_000


def test_max_length_is_bounded_by_rows_and_context() -> None:
    assert plan().max_length == 209
    assert plan(of=card(context=128)).max_length == 128
    assert plan(of=card(context=128), train={"max_length": 500}).max_length == 128
    assert "128" in plan(of=card(context=128)).reasons["max_length"]


def test_steps_are_counted_for_the_batch_and_length_that_are_planned() -> None:
    asked = []

    def per_epoch(batch: int, longest: int) -> int:
        asked.append((batch, longest))
        return 7

    recipe = Recipe.parse({"data": {"train": "x"}, "train": {"batch_tokens": 900, "max_length": 99, "epochs": 1}})
    made, _ = resolve(
        recipe,
        card(),
        Data(LENGTHS, per_epoch, dev_tokens=2000, trained=9000, longest=209),
        shape=shape_like(card(), {}),
        machine=Machine("cpu", None, False),
        technique=Technique(full=False, trained=1000, rate=10.0),
    )
    assert asked == [(900, 99)]
    assert made.steps == 7


def test_precision_follows_the_machine() -> None:
    assert plan(fast=True).precision == "bfloat16"
    assert plan(fast=False).precision == "float32"
    assert plan(fast=True, train={"precision": "float32"}).precision == "float32"
    assert "has no bf16" in plan(fast=False).reasons["precision"]


def rate(parameters: float, method: str, kind: str = "decoder") -> float:
    return plan(of=card(parameters=int(parameters), kind=kind), method={"name": method}).learning_rate


def test_the_rate_falls_with_the_length_of_answers_where_they_add_up() -> None:
    usual = plan().learning_rate
    assert plan(answers=[(9, 10), (9, 30)]).learning_rate == usual
    longer = plan(answers=[(9, 10), (9, 70)])
    assert longer.learning_rate == pytest.approx(usual / 2, rel=0.05)
    assert "times 20 over 40" in longer.reasons["learning_rate"]
    assert plan(answers=[(9, 40)], train={"learning_rate": 3e-4}).learning_rate == 3e-4


def test_rows_that_are_cut_lose_the_end_of_their_answers_or_are_left_out() -> None:
    data = Data([100] * 3, lambda *_: 1, 0, trained=0, longest=100, answers=[(10, 60), (40, 30), (50, 50)])
    assert data.answer_tokens == pytest.approx(140 / 3)
    assert data.cut(50).answers == [(10, 40), (40, 10)]
    assert data.cut(5).answer_tokens == 0


@pytest.mark.parametrize("method", ["full", "lora"])
def test_the_rate_falls_with_the_size_of_the_model(method: str) -> None:
    rates = [rate(size, method) for size in (1e6, 1e7, 1e8, 1e9, 8e9, 7e10)]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] <= (1e-3 if method == "full" else 2e-3)
    assert 1e-6 < rates[-1] < rates[2]


def test_the_anchors_of_the_rate_curve() -> None:
    assert rate(1e7, "full") == 1e-3
    assert rate(8e9, "full") == pytest.approx(1.5e-5, rel=0.05)
    assert rate(8e9, "lora") == pytest.approx(1.5e-4, rel=0.05)
    assert rate(2.27e7, "full", "encoder") == pytest.approx(rate(2.27e7, "full") / 2, rel=0.05)


def test_a_plan_comes_back_from_json() -> None:
    made = plan(budget={"time": 5})
    assert Plan.model_validate_json(made.model_dump_json()) == made


def test_no_torch_is_imported() -> None:
    code = "import sys, tunesmith.plan.resolve; sys.exit(bool({'torch', 'transformers', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


def test_memory_gives_way_level_by_level() -> None:
    """A 1.1B base trained whole: weights, gradients, moments and the best copy alone take 22 GB."""
    large = card(parameters=1_100_000_000, layers=22, width=2048, vocabulary=32_000)
    full: dict[str, Any] = {"method": {"name": "full"}, "train": {"max_length": 2048, "batch_tokens": 2048}}
    made = [plan([100] * 500, of=large, memory=m << 28, **full) for m in range(200, 86, -1)]
    ways = list(dict.fromkeys((p.memory, p.micro_tokens) for p in made))
    assert ways[:3] == [("fast", 1024), ("fast", 512), ("fast", 256)]
    assert [level for level, _ in ways[3:]] == ["selective", "checkpoint", "least"]
    assert ways[-1][1] == made[0].batch_tokens
    assert plan(of=large, memory=80 << 30, budget={"memory": "23GiB"}, **full).memory == "least"
    with pytest.raises(MemoryNeeded, match=r"nothing fits 90% of 1 GiB: .* checkpoint"):
        plan(of=large, memory=1 << 30)
    with pytest.raises(MemoryNeeded, match=r"nothing fits 90% of 1 GiB"):  # a budget does not add any
        plan(of=large, memory=1 << 30, budget={"memory": "80GiB"})
    assert plan(of=large, memory=None, budget={"memory": "23GiB"}, **full).memory == "least"
    assert "not known" in plan(memory=None).reasons["memory"]


def test_least_takes_its_step_in_one_micro_batch() -> None:
    rows = [100] * 10_000
    whole = plan(rows, method={"name": "full"}, train={"memory": "least"})
    assert whole.micro_tokens == whole.batch_tokens == 16_384
    assert plan(rows).micro_tokens == 1024
    assert plan(rows, device="cuda").micro_tokens == 16_384


def test_layers_are_compiled_where_that_pays_within_the_run() -> None:
    """10M weights, 3 passes of 21,900 tokens by LoRA: 2.6e12 operations. 8B weights: 2.1e15."""
    small, large = card(), card(parameters=8_000_000_000)
    assert not plan(of=small, device="cuda", fast=True).compiled
    long = plan(LENGTHS * 400, of=large, device="cuda", fast=True)
    assert long.compiled
    assert "it pays" in long.reasons["compiled"]
    assert plan(LENGTHS * 40, of=large, fast=True).compiled  # a processor with bf16
    slow = plan(LENGTHS * 40, of=large, fast=False)
    assert not slow.compiled
    assert "slower compiled" in slow.reasons["compiled"]
    assert plan(of=small, train={"compile": "always"}).compiled
    assert not plan(LENGTHS * 400, of=large, device="cuda", fast=True, train={"compile": "never"}).compiled


def test_the_least_level_takes_eight_bit_moments_where_it_can() -> None:
    least = {"method": {"name": "full"}, "train": {"memory": "least"}}
    assert plan(eight_bit=True, **least).moments == "int8"
    assert "bitsandbytes" in plan(eight_bit=True, **least).reasons["moments"]
    assert plan(**least).moments == "float32"
    assert plan(eight_bit=True).moments == "float32"
