"""Steps and runs worked out by hand on a toy, and what must hold on real networks whatever the constants are."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import pytest

from plan import toy
from tunesmith.core.plan import Technique
from tunesmith.plan import time
from tunesmith.plan.calibrate import Correction, Earlier, correction
from tunesmith.plan.devices import find
from tunesmith.plan.known import find as find_model
from tunesmith.plan.published import technique
from tunesmith.plan.rates import of_device
from tunesmith.plan.work import Rollouts, Rows, Scorer, Work

SHAPE = find_model("SmolLM2-135M").shape()
LAPTOP, A100 = of_device(find("laptop")), of_device(find("a100-80gb"))
EVEN = Rows(1000, 256_000, 128_000, 256, 256)


def work(method: str = "lora", **changes: Any) -> Work:
    told = Work(SHAPE, technique(SHAPE, method), EVEN, "float32", 1024, 4096, 100)
    return replace(told, **changes)


# -- by hand -----------------------------------------------------------------------------------------------------------


def test_a_step_of_full_fine_tuning_by_hand() -> None:
    found = time.step(toy.work(), toy.rates())
    # 16 tokens: products 2.048 forward, 4.096 back; attention 4.096 and 8.192; head: 8 tokens, 3 x 0.64
    assert found.parts["products"] == pytest.approx(6.144)
    assert found.parts["attention"] == pytest.approx(12.288)
    assert found.parts["head"] == pytest.approx(1.92)
    assert found.total == pytest.approx(6.144 + 12.288 + 1.92)


def test_a_step_of_lora_by_hand() -> None:
    found = time.step(toy.work(technique=toy.LORA), toy.rates())
    assert found.parts["products"] == pytest.approx(4.096)
    assert found.parts["adapters"] == pytest.approx(4.608)
    assert found.parts["head"] == pytest.approx(1.28)


def test_micro_batches_do_the_same_work_and_recomputing_adds_a_forward_pass() -> None:
    whole = time.step(toy.work(), toy.rates())
    assert time.step(toy.work(micro_tokens=8), toy.rates()).total == pytest.approx(whole.total)
    ahead = 2.048 + 4.096
    for level, share in (("selective", 0.5), ("checkpoint", 1.0), ("least", 1.0)):
        found = time.step(toy.work(level=level), toy.rates())
        assert found.total - whole.total == pytest.approx(share * ahead)


def test_the_optimisers_bytes_by_hand() -> None:
    slow = toy.rates(products={"float32": ((1, 1e30), (2, 1e30))}, bandwidth=1e6)
    assert time.step(toy.work(), slow).parts["optimiser"] == pytest.approx(112 * 40 / 1e6)
    assert time.step(toy.work(small_moments=True), slow).parts["optimiser"] == pytest.approx(112 * 28 / 1e6)
    narrow = time.step(toy.work(precision="bfloat16"), slow)
    assert narrow.parts["optimiser"] == pytest.approx(112 * 46 / 1e6)  # masters, which are copied down
    two = time.step(toy.work(micro_tokens=8), slow)
    assert two.parts["gradients"] == pytest.approx((112 * 12 + 2 * 4 * 40) / 1e6)


def test_a_step_has_whole_rows_only() -> None:
    assert time.tokens_of_step(toy.work(batch_tokens=23)) == 16  # two rows of 8
    assert time.tokens_of_step(toy.work(batch_tokens=5)) == 8  # at least one
    assert time.tokens_of_step(toy.work(batch_tokens=1000)) == 80  # all there are
    uneven = Rows(10, 80, 40, 20, 10)
    assert time.tokens_of_step(toy.work(rows=uneven, batch_tokens=24)) == 20  # half a row less


def test_a_run_is_its_steps_and_what_stands_around_them() -> None:
    rates, step = toy.rates(), time.step(toy.work(), toy.rates()).total
    assert time.run(toy.work(), rates).total == pytest.approx(5 * step)
    once = 2.048 / 16 + 4.096 / 16  # forward, of a token
    looks = time.run(toy.work(), rates, looks=3, dev_tokens=32)
    assert looks.parts["looks at dev"] == pytest.approx(3 * (32 * once + 16 * 0.08))  # half of the tokens have a loss
    assert "looks at dev" not in time.run(toy.work(looks=False), rates, looks=3, dev_tokens=32).parts
    reference = time.run(toy.work(reference=True), rates).parts["reference"]
    assert reference == pytest.approx(80 * once + 40 * 0.08)
    classes = time.run(toy.work(outputs=3), rates)
    assert classes.parts["head's start"] == pytest.approx(80 * once)
    assert "head" not in classes.parts


def test_a_critic_is_a_second_pass_with_its_own_half_of_the_adapters() -> None:
    rollouts = Rollouts(2, 2, 4, 4, 1)
    alone = toy.work(technique=toy.LORA, rollouts=rollouts)
    both = Technique(False, 2 * toy.LORA.trained, 10.0)
    with_critic = replace(alone, technique=both, rollouts=replace(rollouts, critic=True))
    one, two = (time.step(w, toy.rates()) for w in (alone, with_critic))
    assert two.parts["adapters"] == pytest.approx(2 * one.parts["adapters"])
    assert two.parts["products"] == pytest.approx(2 * one.parts["products"])
    assert two.parts["head"] == pytest.approx(one.parts["head"])  # the critic's has one output


def test_devices_share_the_tokens_and_send_weights() -> None:
    alone = time.step(toy.work(), toy.rates())
    two = time.step(toy.work(), toy.rates(link=1e30), ranks=2)
    assert two.total == pytest.approx(alone.total / 2)
    # gathered twice and scattered once: 3 x 4 bytes x 112 weights x 1/2
    slow = time.step(toy.work(), toy.rates(link=672.0), ranks=2)
    assert slow.parts["between devices"] == pytest.approx(1.0)


# -- ranges ------------------------------------------------------------------------------------------------------------


def test_the_range_narrows_with_what_is_known() -> None:
    table = time.step(work(), LAPTOP)
    probe = time.step(work(), replace(LAPTOP, source="probe"))
    runs = time.step(work(), replace(LAPTOP, source="probe"), Correction(1.2, 1.15, 5, "lora"))
    widths = [found.high / found.low for found in (table, probe, runs)]
    assert widths == sorted(widths, reverse=True)
    assert widths[2] == pytest.approx(1.15**2)
    assert runs.total == pytest.approx(1.2 * probe.total)
    for found in (table, probe, runs):
        assert found.low < found.total < found.high
    assert "data sheet" in table.basis
    assert "probe" in probe.basis
    assert "5 earlier lora runs took 1.2 times as long as predicted" in runs.basis


def ratios() -> list[float]:
    """Measured over foreseen by the probe alone, of the benchmark's runs."""
    path = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "plan_accuracy.json"
    steps = [run["step"] for run in json.loads(path.read_text(encoding="utf-8"))["runs"].values()]
    timed = [step for step in steps if step["foreseen"] and step["measured"]]
    return [step["measured"] / step["foreseen"] for step in timed]


def test_a_probe_is_as_good_as_it_was_for_runs_that_were_measured() -> None:
    found = time.step(work(), replace(LAPTOP, source="probe"))
    plain = time.step(work(), LAPTOP).total
    low, *_, high = quantiles(ratios(), n=10, method="inclusive")
    assert found.total / plain == pytest.approx(median(ratios()), abs=0.02)
    assert found.low / plain == pytest.approx(low, abs=0.02)
    assert found.high / plain == pytest.approx(high, abs=0.02)
    inside = [found.low <= ratio * plain <= found.high for ratio in ratios()]
    assert sum(inside) / len(inside) == pytest.approx(0.8, abs=0.05)
    assert "times 1.26" in found.basis


def test_no_run_on_a_gpu_has_tried_a_probe() -> None:
    found = time.step(work(), replace(A100, source="probe"))
    table = time.step(work(), A100)
    assert (found.low, found.total, found.high) == pytest.approx((table.low, table.total, table.high))
    assert "no run on a GPU has tried" in found.basis


def test_earlier_runs_correct_what_a_plan_foresaw_by_its_probe() -> None:
    """Runs that took as long as was foreseen change nothing: what a probe is off by is in the forecast already."""
    probed = replace(LAPTOP, source="probe")
    foreseen = time.step(work(), probed).total
    right = correction([Earlier(foreseen, foreseen, "it", "lora")] * 9, "it", "lora")
    assert time.step(work(), probed, right).total == pytest.approx(foreseen)


# -- what must hold whatever the constants are -------------------------------------------------------------------------


@pytest.mark.parametrize("rates", [LAPTOP, A100], ids=["laptop", "a100"])
@pytest.mark.parametrize("method", ["full", "lora"])
def test_more_takes_longer(rates: Any, method: str) -> None:
    def takes(**changes: Any) -> float:
        return time.run(work(method, **changes), rates).total

    for changes in ({"batch_tokens": n} for n in (4096, 8192, 16_384)):
        assert takes(**changes) <= takes(batch_tokens=2 * changes["batch_tokens"])
    assert takes(steps=100) < takes(steps=101)
    longer = (Rows(1000, n * 1000, n * 500, n, n) for n in (128, 256, 512, 1024))
    by_length = [time.run(work(method, rows=rows, batch_tokens=4096), rates).total for rows in longer]
    assert by_length == sorted(by_length)
    levels = [takes(level=level) for level in ("fast", "selective", "checkpoint")]
    assert levels == sorted(levels)
    trained = [takes(rows=replace(EVEN, trained=n)) for n in (1000, 100_000, 256_000)]
    assert trained == sorted(trained)


@pytest.mark.parametrize("rates", [LAPTOP, A100], ids=["laptop", "a100"])
def test_full_takes_longer_than_lora_and_qlora_longer_than_lora(rates: Any) -> None:
    big = replace(work(), batch_tokens=16_384, micro_tokens=16_384)
    full, lora, qlora = (
        time.step(replace(big, technique=technique(SHAPE, m)), rates).total for m in ("full", "lora", "qlora")
    )
    assert full > lora
    assert qlora > lora


def test_larger_networks_take_longer_and_faster_devices_shorter() -> None:
    names = ("SmolLM2-135M", "SmolLM2-360M", "Llama-3.2-1B", "Llama-3.2-3B", "Llama-3.1-8B", "Llama-3.1-405B")
    shapes = [find_model(name).shape() for name in names]
    took = [time.step(work(shape=s, technique=technique(s, "lora")), A100).total for s in shapes]
    assert took == sorted(took)
    big = replace(work("lora"), shape=shapes[4], technique=technique(shapes[4], "lora"), precision="bfloat16")
    big = replace(big, batch_tokens=65_536, micro_tokens=8192)
    for slow, fast in pairwise(("t4", "l4", "a100-80gb", "h100-sxm", "b200")):
        assert time.step(big, of_device(find(slow))).total > time.step(big, of_device(find(fast))).total


def test_compiled_layers_are_faster_and_compiling_takes_its_time() -> None:
    big = replace(work("full"), precision="bfloat16", batch_tokens=32_768, micro_tokens=16_384)
    compiled = replace(big, compiled=True)
    assert time.step(compiled, A100).total < time.step(big, A100).total
    assert time.run(compiled, A100).parts["compiling"] == 40


def test_a_small_network_on_a_gpu_waits_for_its_launches() -> None:
    found = time.step(work(precision="bfloat16", batch_tokens=512, micro_tokens=512), A100)
    assert found.parts["overhead"] > 0.5 * found.total
    assert time.step(replace(work(), batch_tokens=65_536, micro_tokens=65_536), A100).parts["overhead"] == 0


def test_parts_are_never_negative_and_sum_to_the_total() -> None:
    rollouts = Rollouts(8, 4, 100, 60, 2, critic=True, reward=Scorer(SHAPE))
    for rates in (LAPTOP, A100):
        for level in ("fast", "selective", "checkpoint", "least"):
            found = time.run(work(level=level, rollouts=rollouts), rates, dev_tokens=1000, looks=2)
            assert all(seconds >= 0 for seconds in found.parts.values())
            assert found.total == pytest.approx(sum(found.parts.values()))


def test_tokens_a_second() -> None:
    found = time.step(work(), LAPTOP)
    assert time.tokens_a_second(work(), found) == pytest.approx(4096 / found.total)
