"""What a CUDA device does beside the processor: the same losses, answers, log-probabilities, four bits, whole runs.

Notable: the other tests hide CUDA devices (``tests/conftest.py``), for they are about numbers and not about devices;
these show the device again and run in a process of their own: ``make gpu``. Networks are small and in float32, so that
both devices agree closely.
"""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from tests import small
from tests.flows.conftest import WORDS

from tunesmith.core.batch import TokenRow
from tunesmith.core.recipe import Recipe
from tunesmith.core.report import Report
from tunesmith.data.batches import Steps, collate
from tunesmith.flows.finetune import finetune
from tunesmith.flows.training import compile_layers
from tunesmith.generate import sampler
from tunesmith.generate.sampler import Sampling, answers
from tunesmith.models import load as loading
from tunesmith.models.model import Model
from tunesmith.objectives.sft import PART as SFT
from tunesmith.train.loop import Hooks, fit
from tunesmith.train.state import Progress, Snapshot

pytestmark = pytest.mark.skipif("TUNESMITH_TEST_GPU" not in os.environ, reason="make gpu runs it")
NEVER = (8191,)
ROWS = small.rows(24)
PLAN = small.plan(steps=8, learning_rate=5e-3)
DEVICES = ("cpu", "cuda")


def model_on(device: str, folder: Path, method: str = "lora", **options: Any) -> Model:
    return small.attach(loading.load(str(folder), device=device, **options), method)


def trained(model: Model, resume: Snapshot | None = None) -> tuple[Progress, list[Snapshot]]:
    taken: list[Snapshot] = []
    torch.manual_seed(5)
    source = Steps(ROWS, batch_tokens=90, micro_tokens=40, pad_id=0, seed=3)
    after = lambda _step, _last, snapshot: taken.append(small.through_json(snapshot(True)))  # noqa: E731
    return fit(model, SFT, source, PLAN, Hooks(after_step=after, resume=resume)), taken


def losses(progress: Progress) -> list[float]:
    return [float(point.loss or 0) for point in progress.curve]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small.llama(tmp_path_factory.mktemp("llama"))


@pytest.mark.parametrize("method", ["lora", "dora", "full"])
def test_a_training_has_the_losses_of_the_processor(folder: Path, method: str) -> None:
    found = [losses(trained(model_on(device, folder, method))[0]) for device in DEVICES]
    assert found[1] == pytest.approx(found[0], rel=1e-3)
    assert found[0][-1] < found[0][0]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_rows_pack_in_a_deep_network(tmp_path: Path, precision: Any) -> None:
    wide = {"hidden_size": 128, "intermediate_size": 384, "num_attention_heads": 8, "num_key_value_heads": 4}
    deep = small.llama(tmp_path / "deep", num_hidden_layers=32, head_dim=16, initializer_range=0.1, **wide)
    assert loading.load(str(deep), device="cuda", precision=precision).packs


def test_bf16_weights_learn_as_float32_ones_do(folder: Path) -> None:
    wide, narrow = (
        losses(trained(model_on("cuda", folder, "full", precision=precision))[0])
        for precision in ("float32", "bfloat16")
    )
    assert narrow == pytest.approx(wide, rel=0.05)
    assert narrow != wide


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_answers_are_those_of_the_processor_whatever_the_batch(
    folder: Path, monkeypatch: pytest.MonkeyPatch, temperature: float
) -> None:
    asked = [list(row.ids) for row in small.rows(9, seed=4)]
    how = Sampling(12, NEVER, temperature=temperature)
    here, there = (answers(loading.load(str(folder), device=device), asked, how) for device in DEVICES)
    assert [a.ids for a in there] == [a.ids for a in here]
    for one, other in zip(here, there, strict=True):
        assert other.logp == pytest.approx(one.logp, abs=1e-4)
    monkeypatch.setattr(sampler, "_slots", lambda *_: 2)
    alone = answers(loading.load(str(folder), device="cuda"), asked, how)
    assert [a.ids for a in alone] == [a.ids for a in there]


def test_log_probabilities_of_answers_are_the_trainers(folder: Path) -> None:
    model = model_on("cuda", folder)
    for _, parameter in model.trainable():
        torch.nn.init.normal_(parameter, std=0.05)
    (asked,) = small.rows(1, seed=9)
    (answer,) = answers(model, [list(asked.ids)], Sampling(10, NEVER, temperature=1.0))
    weight = (0.0,) * len(asked.ids) + (1.0,) * len(answer.ids)
    batch = collate([TokenRow((*asked.ids, *answer.ids), weight)], 0)
    with torch.no_grad():
        logp_T = model.token_logp(batch)[0]
    assert [x for x in logp_T.tolist() if x != 0.0] == pytest.approx(answer.logp, abs=1e-4)


def test_a_training_that_was_stopped_goes_on(folder: Path) -> None:
    whole, taken = trained(model_on("cuda", folder))
    rest, _ = trained(model_on("cuda", folder), resume=taken[3])
    assert losses(rest) == pytest.approx(losses(whole), rel=1e-5)


def test_four_bits_learn_and_keep_the_base(folder: Path) -> None:
    pytest.importorskip("bitsandbytes")
    model = small.decoder(folder, "qlora")
    assert model.device.startswith("cuda")
    before = {n: p.detach().clone() for n, p in model.network.named_parameters() if not p.requires_grad}
    found = losses(trained(model)[0])
    assert found[-1] < found[0]
    assert before
    assert all(torch.equal(p, before[n]) for n, p in model.network.named_parameters() if n in before)


def test_compiled_layers_are_proven(folder: Path) -> None:
    model = model_on("cuda", folder)
    assert compile_layers(model, SFT, collate(ROWS[:8], 0)) is None
    assert losses(trained(model)[0]) == pytest.approx(losses(trained(model_on("cuda", folder))[0]), rel=1e-3)


OBJECTIVES: dict[str, dict[str, Any]] = {
    "sft": {},
    "dpo": {"task": "prefer"},
    "reward": {"task": "prefer"},
    "grpo": {"reward": {"rules": {"rouge_l": 1}}, "rollout": {"prompts": 8, "answers": 4}},
    "ppo": {"reward": {"rules": {"rouge_l": 1}}, "rollout": {"prompts": 8, "answers": 4}},
}


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_whole_runs_with_the_bundled_base(objective: str, tmp_path: Path) -> None:
    """A report tells the device, and its peak is the device's."""
    prefers, rows = OBJECTIVES[objective].get("task") == "prefer", []
    for n in range(60):
        prompt = f"Say {WORDS[n % 14]} and {WORDS[(n * 5 + 3) % 14]} {n}"
        chosen, rejected = f"{WORDS[n % 14]}, {WORDS[(n * 5 + 3) % 14]} and {n}", f"no {WORDS[(n + 7) % 14]} {n * 3}"
        answer = {"chosen": chosen, "rejected": rejected} if prefers else {"completion": chosen}
        rows.append({"prompt": prompt} | answer)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    told: dict[str, Any] = {
        "model": "bundled",
        "data": {"train": str(tmp_path / "rows.jsonl"), "split": {"dev": 0.1, "test": 0.2}},
        "objective": {"name": objective},
        "method": {"name": "lora", "rank": 4},
        "train": {"epochs": 1},
        "evaluate": {"limit": 4} | ({} if prefers else {"max_new_tokens": 8, "baselines": ["zero_shot"]}),
    }
    done = finetune(Recipe.parse(told | OBJECTIVES[objective], "gpu"), workspace=tmp_path)
    report = Report.load(Path(done.folder) / "report.json")
    assert report.environment["device"] == torch.cuda.get_device_name()
    assert report.fit.peak_bytes and report.fit.peak_of == "GPU memory while training"
    assert all(point.loss is not None for point in report.fit.curve)
