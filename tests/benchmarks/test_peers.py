"""The pure parts of the benchmark beside the peers: what is timed, compared, refused and written.

Notable: no peer is imported. The chat template is proven to give both sides the same ids and the same trained tokens.
"""

import doctest
import json
import mmap
import signal
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

import small
from peers import (
    bench,
    common,
    configurations,
    figures,
    generating,
    goals,
    growth,
    memory,
    owned,
    page,
    policies,
    processes,
    qlora,
    sft,
)
from peers.material import CHATML
from tunesmith.core.example import Example, Message, Place
from tunesmith.data.render import Renderer
from tunesmith.models import load as loading

STEPS = 8


def run(name: str, side: str, *, speed: float, peak: int = 100, loss: float = 2.0, **more: Any) -> dict[str, Any]:
    """A result whose warm-up steps are ten times slower than the rest."""
    seconds = [100 / speed] * STEPS
    seconds[0] *= 10
    return {
        "name": name,
        "side": side,
        "tokens": [100] * STEPS,
        "trained": [60] * STEPS,
        "rows": [4] * STEPS,
        "step_seconds": seconds,
        "losses": [9.0] * (STEPS - figures.LAST) + [loss] * figures.LAST,
        "peak_bytes": peak,
        "ready_seconds": 3.0,
        "digest": "same",
        "versions": {"torch": "2"},
        "detail": {"precision": "float32"},
        **more,
    }


@pytest.mark.parametrize("module", [figures, page, common, generating, goals, policies, processes])
def test_examples_in_docstrings(module: Any) -> None:
    assert doctest.testmod(module).failed == 0


def test_flops_of_the_shape_in_the_issue() -> None:
    flops = figures.flops_a_token(configurations.SHAPES["135M"], "lora", 16, 0.59)
    inside, lora, head = 30 * (960 * 576 + 576 * 576 + 3072 * 576 + 1536 * 576), 4_884_480, 49_152 * 576
    assert flops == 4 * inside + 6 * lora + 4 * head * 0.59
    assert figures.lora_weights(configurations.SHAPES["135M"], 16) == lora  # what our loader counts as trained


@pytest.mark.parametrize(("name", "millions"), [("10M", 10), ("38M", 38), ("135M", 135), ("360M", 360)])
def test_shapes_have_the_size_of_their_name(name: str, millions: int) -> None:
    assert growth.weights(configurations.SHAPES[name]) / 1e6 == pytest.approx(millions, rel=0.07)


def test_the_fastest_and_the_leanest_peer_are_compared_and_warm_up_is_left_out() -> None:
    table = figures.summary(
        [
            run("ours", "ours", speed=300, peak=50, loss=2.0),
            run("ours", "ours", speed=500, peak=60, loss=2.0),
            run("slow", "peer", speed=10, peak=100, loss=1.0),
            run("fast", "peer", speed=100, peak=400, loss=2.1),
        ]
    )
    found = figures.compared(table)
    assert found["speed"] == 4.0
    assert (found["best_peer"], found["leanest_peer"]) == ("fast", "slow")
    assert (found["peak_memory"], found["peak_memory_of_fastest"]) == (0.6, 0.15)
    assert found["loss_ratio"] == pytest.approx(2 / 2.1, abs=1e-4)
    packed = figures.summary([run("ours", "ours", speed=2), run("packed", "peer", speed=1, loss=1.0, digest=None)])
    assert figures.compared(packed)["loss_ratio"] == pytest.approx((3 * 9 + 5 * 2) / (3 * 9 + 5), abs=1e-4)
    assert table["fast"]["warmup_extra_seconds"] == pytest.approx(9.0)


def test_later_rounds_take_turns(tmp_path: Path) -> None:
    whole = bench.Bench(configurations.QUICK_SIZES, tmp_path, tmp_path, repeats=3)
    ours, peer = run("ours", "ours", speed=9), run("peer", "peer", speed=1)
    first = [ours, peer, run("other", "peer", speed=1)]
    found = whole.again(lambda: ours, lambda: peer, first)
    assert [r["name"] for r in found] == ["ours", "peer", "other", "ours", "peer", "ours", "peer"]
    assert [r["name"] for r in whole.again(lambda: ours, lambda: peer)] == ["ours", "peer"] * 3


class Fake:
    """A harness whose processes need ``speeds[name]`` tokens a second; it asks every second whether to go on."""

    def __init__(self, speeds: dict[str, float]) -> None:
        self.speeds = speeds
        self.asked: list[str] = []

    def go(self, module: str, name: str, _spec: Any, hopeless: processes.Hopeless | None = None) -> dict[str, Any]:
        self.asked.append(name)
        found = run(name, "ours" if module == "ours" else "peer", speed=self.speeds[name])
        step = 100 / self.speeds[name]
        for second in range(1, round(STEPS * step)) if hopeless else ():
            if hopeless(second, int(second / step)):
                return {"name": name, "stopped_after": second, "steps_done": int(second / step), "peak_bytes": 7}
        return found


def test_what_cannot_be_the_fastest_is_stopped() -> None:
    peers = configurations.FULL_PEERS  # float32 and bf16 weights, with and without checkpointing
    speeds = {"ours_full": 50.0, "trl_float32": 10.0, "trl_float32_no_checkpointing": 12.0, "trl_bf16_weights": 1.0}
    fake = Fake(speeds)
    runs, stopped = sft.first_round(fake, {"method": "full", "steps": STEPS}, peers)  # type: ignore[arg-type]
    assert [r["name"] for r in runs] == ["ours_full", "trl_float32", "trl_float32_no_checkpointing"]
    assert [told["name"] for told in stopped] == ["trl_bf16_weights", "trl_bf16_weights_no_checkpointing"]
    assert stopped[0] == {"name": "trl_bf16_weights", "tokens_per_s_below": 1.7, "peak_bytes_at_least": 7}
    assert "because" in stopped[1]
    assert fake.asked == list(speeds)
    lean = figures.compared(figures.summary(runs), stopped=stopped)
    assert (lean["leanest_peer"], lean["best_peer"]) == ("trl_bf16_weights", "trl_float32_no_checkpointing")


def test_what_is_slow_but_not_hopeless_goes_on() -> None:
    speeds = {"ours_full": 50.0, **dict.fromkeys((p.name for p in configurations.FULL_PEERS), 10.0)}
    runs, stopped = sft.first_round(Fake(speeds), {"method": "full", "steps": STEPS}, configurations.FULL_PEERS)  # type: ignore[arg-type]
    assert len(runs) == 5
    assert stopped == []


def test_different_rows_are_refused() -> None:
    ours, peer = run("ours", "ours", speed=1), run("peer", "peer", speed=1)
    packed = run("packed", "peer", speed=1, digest=None)
    sft.check_same_rows([ours, peer, packed])
    with pytest.raises(processes.Failed, match="same rows"):
        sft.check_same_rows([ours, peer | {"digest": "other"}])
    with pytest.raises(processes.Failed, match="packed trained 720 tokens"):
        sft.check_same_rows([ours, packed | {"tokens": [90] * STEPS}])


def test_a_process_is_measured_alone_and_its_failure_is_told(tmp_path: Path) -> None:
    found = processes.run("products", {"shapes": [[8, 16, 16, 2]]}, tmp_path, "products")
    assert found["float32"]["gflops"] > 0
    assert 50 << 20 < found["peak_bytes"] < 8 << 30
    with pytest.raises(processes.Failed, match=r"no_such_module"):
        processes.run("no_such_module", {}, tmp_path, "broken")


def test_a_hopeless_process_is_ended(tmp_path: Path) -> None:
    clock = common.Clock({"out": str(tmp_path / "slow.json")})
    clock.begin()
    clock.step()
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    process = subprocess.Popen(command)
    code, _peak, stopped = processes._watched(process, clock.told, lambda seconds, _done: seconds > 1)
    assert code == -signal.SIGKILL
    assert stopped is not None
    assert stopped[1] == 1
    assert 1 < stopped[0] < 30


def test_the_template_gives_both_sides_the_same_tokens(tmp_path: Path) -> None:
    _card, _config, tokenizer = loading.card_of(str(small.llama(tmp_path / "llama")))
    tokenizer.chat_template = CHATML
    turns = [("user", "How many?"), ("assistant", "4 and 5.\n#### 9"), ("user", "Sure?"), ("assistant", "Yes")]
    chat = [{"role": role, "content": text} for role, text in turns]
    theirs = tokenizer.apply_chat_template(chat, return_assistant_tokens_mask=True, return_dict=True)
    example = Example(place=Place(file="x", line=1), messages=tuple(Message(**m) for m in chat))
    (ours,) = Renderer(tokenizer).rows(example).rows
    assert list(ours.ids) == theirs["input_ids"]
    assert [w > 0 for w in ours.weight] == [bool(m) for m in theirs["assistant_masks"]]


def test_the_page_says_what_was_missed() -> None:
    runs = [run("ours_lora", "ours", speed=500, peak=1 << 30), run("trl", "peer", speed=100, peak=4 << 30)]
    table = figures.summary(runs)
    part = {
        "created": "2026-01-01T00:00:00",
        "command": "python x",
        "machine": "a machine",
        "load_before": 0.1,
        "seconds": 60,
        "versions": {"torch": "2"},
        "data": {"rows_per_step": 4},
        "settings": {"rank": 16},
        "summary": table,
        "compared": figures.compared(table),
        "runs": runs,
    }
    ratios = dict.fromkeys(page.GOALS) | {"lora_tokens_per_s": 5.0, "peak_memory": 0.25}
    text = page.of({"quick": False, "ratios": ratios, "parts": {"lora": part}})
    assert "| 5 | 6 | 10 | missed |" in text
    assert "| 0.25 | 0.45 | 0.25 | goal |" in text
    assert "not run" in text
    assert "| ours_lora | 500.0 | 500.0 | 1.00 GiB |" in text


def test_growth_is_drawn_as_one_picture() -> None:
    points = [
        {"side": side, "shape": shape, "weights": size, "length": length, "peak_bytes": 1 << 30, "tokens_per_s": 50.0}
        for side in ("ours", "peer")
        for shape, size, length in (("135M", 135_000_000, 128), ("135M", 135_000_000, 512), ("10M", 10_000_000, 512))
    ]
    drawn = ElementTree.fromstring(growth.drawn({"points": json.loads(json.dumps(points))}))
    charts = drawn.findall("{http://www.w3.org/2000/svg}svg")
    assert len(charts) == 4
    assert all(len(chart.findall("{http://www.w3.org/2000/svg}polyline")) == 2 for chart in charts)


def test_losses_on_the_same_four_bits_must_agree() -> None:
    ours, cast = run("ours_qlora", "ours", speed=4), run(configurations.QLORA_CAST.name, "peer", speed=3)
    narrow = run("trl_bf16", "peer", speed=1) | {"losses": [8.0] * STEPS}
    close = run("trl_float32", "peer", speed=2) | {"losses": [9.0005, 9.0, *[5.0] * (STEPS - 2)]}
    assert qlora.check_same_losses([ours, cast, narrow, close]) == pytest.approx(0.0005)
    for odd in (9.01, float("nan")):
        with pytest.raises(processes.Failed, match="trl_float32: a loss of the first 2 steps"):
            qlora.check_same_losses([ours, close | {"losses": [9.0, odd, *[5.0] * (STEPS - 2)]}])
    table = figures.summary([ours, cast, close])
    assert figures.compared(table)["speed"] == pytest.approx(1.33)
    assert figures.compared(qlora.uncast(table))["speed"] == 2.0


def lean(method: str, precision: str, weights: int, loading: int, training: int) -> dict[str, Any]:
    marks = {"imports": 300, "loading": 300 + loading, "training": 300 + training}
    owned = {name: {"most": value << 20, "now": value << 20, "resident": 999 << 20} for name, value in marks.items()}
    told = {"shape": "135M", "method": method, "precision": precision, "versions": {"torch": "2"}}
    return told | {"detail": {"owned": owned, "weights": weights << 20}}


def test_memory_is_compared_beyond_the_imports() -> None:
    runs = [lean("qlora", "bfloat16", 50, 60, 80), lean("lora", "bfloat16", 150, 160, 200)]
    runs += [lean("qlora", "float32", 75, 90, 100), lean("lora", "float32", 300, 10, 50)]
    points = [memory.row(one) for one in runs]
    found = memory.compared(points, "135M", "bfloat16")
    assert found == {
        "weights": 0.333,
        "training": 0.4,
        "training_with_imports": 0.76,
        "loading_beyond_weights_mib": 10.0,
    }
    part = {"settings": {"rank": 16}, "points": points, "compared": {"135M_bfloat16": found}, "created": "2026-01-01"}
    part |= {"command": "x", "machine": "m", "load_before": 0.1, "seconds": 60, "versions": {"torch": "2"}}
    text = page.of({"quick": False, "ratios": {"qlora_memory": 0.4}, "parts": {"memory": part}})
    assert "| 135M | qlora | bfloat16 | 300 | 50 | 60 | 80 | 999 | 999 |" in text
    assert "| 0.4 | 0.5 | 0.5 | goal |" in text


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="what a process owns is in /proc")
def test_the_most_between_two_marks_is_seen() -> None:
    size = 256 << 20
    with owned.Owned() as seen:
        with mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE) as block:  # which no allocator keeps
            for start in range(0, size, mmap.PAGESIZE):
                block[start] = 1
            seen.mark("held")
        seen.mark("freed")
    before = seen.marks["imports"]["now"]
    assert seen.marks["held"]["now"] - before > 0.9 * size
    assert seen.marks["freed"]["most"] - before > 0.9 * size
    assert seen.marks["freed"]["now"] - before < 0.1 * size
