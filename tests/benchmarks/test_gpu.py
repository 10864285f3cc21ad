"""benchmarks/gpu.py without a GPU: its arithmetic against real networks, its refusals, our own side at tiny shapes."""

import doctest
import importlib
import json
import re
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parent.parent.parent / "benchmarks"


@pytest.fixture(scope="module")
def gpu() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield importlib.import_module("gpu")


@pytest.fixture(scope="module")
def cell(gpu: ModuleType) -> ModuleType:
    return importlib.import_module("gpu_cell")


@pytest.fixture(scope="module")
def shapes(gpu: ModuleType) -> ModuleType:
    return importlib.import_module("gpu_shapes")


@pytest.fixture
def bench(gpu: ModuleType, tmp_path: Path) -> Any:
    return gpu.Bench(Namespace(smoke=True, work=tmp_path, repeats=2, side=None, peer_python="python"))


def run(side: str, seconds: list[float], held: int = 2**30, **more: Any) -> dict[str, Any]:
    told = {"step_seconds": seconds, "first_step_seconds": 9.0, "losses": [4.0, 3.0], "peak_allocated": 1}
    return {"side": side, "peak_reserved": held, **told, **more}


def test_the_examples_in_its_documentation_hold(shapes: ModuleType) -> None:
    assert doctest.testmod(shapes) == (0, doctest.testmod(shapes).attempted)
    assert doctest.testmod(shapes).attempted >= 3


@pytest.mark.parametrize("name", ["llama-3.1-8b", "qwen3-1.7b"])
def test_weights_are_counted_as_the_network_has_them(
    bench: Any, cell: ModuleType, shapes: ModuleType, name: str
) -> None:
    spec = bench.spec(name, "lora", "tunesmith")
    made = cell.network(spec)
    assert made.config.model_type == shapes.SHAPES[name]["model_type"]
    assert shapes.matrix_weights(spec.shape) == cell.matrix_weights(made)
    norms = sum(p.numel() for n, p in made.named_parameters() if "norm" in n)
    assert shapes.parameters(spec.shape) == sum(p.numel() for p in made.parameters()) - norms


def test_flops_are_worked_by_hand(shapes: ModuleType) -> None:
    shape = {"hidden_size": 2, "intermediate_size": 3, "head_dim": 1, "num_attention_heads": 2} | {
        "num_key_value_heads": 1,
        "num_hidden_layers": 5,
        "vocab_size": 7,
    }
    weights = 5 * (2 * (2 + 1 + 1 + 2) + 3 * 2 * 3) + 7 * 2
    attention = 5 * 2 * 2 * (10 / 2) * 2 * 3  # layers x products x FLOPs x places seen x width, forward and twice back
    assert shapes.flops_per_token(shape, "lora", 10) == 4 * weights + attention
    assert shapes.flops_per_token(shape, "full", 10) == 6 * weights + attention


def test_what_cannot_fit_is_said_with_its_sum(shapes: ModuleType) -> None:
    large, small = shapes.SHAPES["llama-3.1-8b"], shapes.SHAPES["qwen3-1.7b"]
    told = shapes.does_not_fit(large, "full", 80 * 10**9)
    assert told.startswith("does not fit: 8.03e9 weights take 145 GB (bf16 weight 2 bytes, float32 master 4")
    assert told.endswith("the device has 80 GB. train.memory: least takes about half")
    assert shapes.does_not_fit(large, "lora", 80 * 10**9) is shapes.does_not_fit(small, "full", 80 * 10**9) is None
    assert shapes.does_not_fit(large, "full", 0) is None  # no device: a smoke run


def test_without_a_cuda_device_it_says_so_and_ends_with_2(
    gpu: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu, "_has_cuda", lambda: False)
    monkeypatch.setattr("sys.argv", ["gpu.py"])
    assert gpu.main() == 2
    assert "gpu.py needs a CUDA device" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("method", "side"),
    [("lora", "tunesmith"), ("qlora", "tunesmith"), ("full", "tunesmith"), ("full", "tunesmith_least")],
)
def test_our_sides_train_at_a_tiny_shape(bench: Any, cell: ModuleType, method: str, side: str) -> None:
    spec = bench.spec("qwen3-1.7b", method, side)
    found = cell.run(spec)
    assert len(found["step_seconds"]) == spec.steps
    assert len(found["losses"]) == spec.steps + spec.warmup
    assert all(8 < loss < 10.5 for loss in found["losses"])  # random ids: the logarithm of 9,000 is 9.1
    assert found["packs"]


def test_what_is_not_installed_is_skipped_with_the_reason(
    bench: Any, cell: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cell.importlib.util, "find_spec", lambda name: None if "liger" in name else name)
    assert cell.run(bench.spec("qwen3-1.7b", "lora", "trl_liger")) == {"skipped": "not installed: liger_kernel"}


def test_rows_at_once_are_halved_until_they_fit(bench: Any, gpu: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def cell(spec: Any, name: str) -> dict[str, Any]:
        asked.append((spec.side, spec.micro))
        fits = spec.side != "trl" or spec.micro == 1
        return {"spec": {"micro": spec.micro, "rows": 4, "length": 64}} | (
            run(spec.side, [1.0]) if fits else {"out_of_memory": "CUDA out of memory"}
        )

    monkeypatch.setattr(bench, "cell", cell)
    bench.options.side = ["tunesmith", "trl"]
    runs = list(bench.measure("qwen3-1.7b", "lora", 0))
    assert asked == [("tunesmith", 2), ("trl", 2), ("trl", 1), ("tunesmith", 2), ("trl", 1)]
    assert [r["side"] for r in runs] == ["tunesmith", "trl"] * 2
    asked.clear()
    monkeypatch.setattr(bench, "cell", lambda spec, name: {"out_of_memory": "no"})
    assert [r["side"] for r in bench.measure("qwen3-1.7b", "lora", 0)] == ["tunesmith", "trl"]


def test_a_page_tells_medians_shares_ratios_and_reasons(bench: Any, gpu: ModuleType, shapes: ModuleType) -> None:
    spec = vars(bench.spec("qwen3-1.7b", "lora", "tunesmith"))
    runs = [
        run("tunesmith", [1.0, 2.0, 4.0], spec=spec),
        run("trl", [4.0], 2**31, spec=spec),
        {"side": "trl_liger", "skipped": "not installed: liger_kernel"},
        {"side": "unsloth", "error": "exit code 1: boom"},
        run("tunesmith", [2.0, 2.0], spec=spec),
    ]
    speed = 4 * 64 / 2.0
    flops = speed * shapes.flops_per_token(spec["shape"], "lora", 64)
    entries = gpu.summary(runs, 2 * flops, 4 * flops)
    ours = entries[0]
    assert (ours["tokens_per_second"], ours["share_of_peak"], ours["share_of_measured_products"]) == (speed, 0.5, 0.25)
    assert ours["runs"] == 2
    assert [e.get("why") for e in entries[2:]] == ["not installed: liger_kernel", "error: exit code 1: boom"]
    assert gpu.ratios(entries) == {"speed against trl": 2.0, "peak memory against trl": 0.5}
    assert gpu.summary(runs, None, flops)[0]["share_of_peak"] is None
    where = {"device": "NVIDIA H200", "device_bytes": 2**37, "peak": 989.4e12, "measured": 7e14}
    part = {
        "machine": where,
        "rows": 4,
        "length": 64,
        "created": "2025-01-01T00:00",
        "commit": "abc1234",
        "command": "python benchmarks/gpu.py",
    }
    part |= {"sides": entries, "ratios": gpu.ratios(entries)}
    goals = "\n".join(gpu.goals(part | {"ratios": {"speed against trl_liger": 1.2}}))
    assert goals == (
        "- Goal: share of peak at least 0.45. Reached: 0.50, met.\n"
        "- Goal: times TRL with Liger at least 1.3. Reached: 1.20, missed."
    )
    text = gpu.page({"smoke": False, "parts": {"qwen3-1.7b/lora": part}})
    assert "Goal" not in text
    assert "- Goal: times TRL with Liger at least 1.3. Reached: not run." in gpu.page(
        {"smoke": False, "parts": {gpu.AIMED_AT: part}}
    )
    assert "| tunesmith | 128 | 50.0% | 25.0% | 1.0 GiB | 2 | 9.0 s | 4.000 to 3.000 |" in text
    assert "| trl_liger | not installed: liger_kernel |" in text
    assert "- speed against trl: 2.00" in text
    assert "NVIDIA H200, 128 GiB; peak: 989 TFLOP/s" in text
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in table}) == 1
    json.dumps(part)


def test_the_page_of_the_results_is_what_they_give(gpu: ModuleType) -> None:
    stored = BENCHMARKS / "results" / "gpu.json"
    document = json.loads(stored.read_text())
    assert stored.with_suffix(".md").read_text() == gpu.page(document)
    for name, part in document["parts"].items():
        sides = re.findall(r"--side[ =](\S+)", part["command"]) or gpu.SIDES[name.partition("/")[2]]
        assert {entry["side"] for entry in part["sides"]} == set(sides)  # what broke stands there too
