"""A run does what its plan says, checks what it promises to check, and tells what it did instead."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests import small
from tests.flows.conftest import MakeRecipe

from tunesmith.core.errors import ModelError
from tunesmith.core.recipe import Recipe
from tunesmith.core.report import Report
from tunesmith.flows import training
from tunesmith.flows.finetune import finetune
from tunesmith.models.model import Model
from tunesmith.train.optimiser import adamw

Make = Callable[..., Recipe]
FEW: dict[str, Any] = {"evaluate": {"baselines": ["majority"], "limit": 4, "max_new_tokens": 4}}


@pytest.fixture
def make(make_recipe: MakeRecipe) -> Make:
    def short(*names: str, train: dict[str, Any] | None = None, **groups: Any) -> Recipe:
        return make_recipe(*names, train={"epochs": 1, **(train or {})}, **{**FEW, **groups})

    return short


def report(recipe: Recipe, workspace: Path) -> Report:
    run = finetune(recipe, workspace=workspace)
    assert run.status == "done"
    return Report.load(Path(run.folder) / "report.json")


@pytest.mark.parametrize(("level", "every"), [("fast", None), ("selective", 2), ("checkpoint", 1)])
def test_activations_are_recomputed_as_the_plan_has_it(
    level: str, every: int | None, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    own = Model.recompute
    monkeypatch.setattr(Model, "recompute", lambda self, n: (asked.append(n), own(self, n))[1])
    assert report(make(train={"memory": level}), tmp_path).plan.memory == level
    assert asked == ([] if every is None else [every])


@pytest.mark.parametrize("moments", ["int8", "float32"])
def test_moments_are_of_the_width_that_the_plan_has(
    moments: str, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []

    def kind(name: str) -> Callable[..., Any]:
        return lambda *args, **options: (made.append(name), adamw(*args, **options))[1]

    monkeypatch.setattr(training, "adamw_8bit", kind("int8"))
    monkeypatch.setattr(training, "adamw", kind("float32"))
    train = {"memory": "least" if moments == "int8" else "fast"}
    assert report(make(train=train, method={"name": "full"}), tmp_path).plan.moments == moments
    assert set(made) == {moments}


def test_the_network_is_loaded_in_the_precision_of_the_plan(make: Make, tmp_path: Path) -> None:
    found = report(make(train={"precision": "bfloat16"}), tmp_path)
    note = (tmp_path / "runs" / found.run_id / found.adapter / "tunesmith.json").read_text()
    assert '"precision": "bfloat16"' in note


def test_a_network_that_mixes_its_rows_on_the_first_batch_runs_padded_and_the_report_says_so(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = report(make(), tmp_path / "a")
    assert not any("pack" in note for note in plain.fit.notes)
    own = Model.packs_exactly
    monkeypatch.setattr(
        Model, "packs_exactly", lambda self, ids_BT, length_B, *_: own(self, ids_BT, length_B) and len(ids_BT) == 3
    )  # the probe's rows
    told = report(make(), tmp_path / "b")
    assert "LlamaForCausalLM does not pack: rows run padded, and slower." in told.fit.notes
    assert "rows run padded" in (tmp_path / "b" / "runs" / told.run_id / "report.html").read_text()


def test_layers_that_cannot_be_compiled_run_plain_and_the_report_says_so(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("no C++ compiler")

    monkeypatch.setattr(torch, "compile", broken)
    found = report(make(train={"compile": "always"}), tmp_path)
    assert found.plan.compiled
    assert "Layers run uncompiled: RuntimeError: no C++ compiler." in found.fit.notes


def test_a_base_that_moved_under_its_adapter_ends_the_run(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = training.fit

    def leaky(model: Model, *args: Any) -> Any:
        progress = own(model, *args)
        with torch.no_grad():
            next(p for p in model.network.parameters() if not p.requires_grad).add_(1e-3)
        return progress

    monkeypatch.setattr(training, "fit", leaky)
    with pytest.raises(ModelError, match="frozen weights have moved"):
        finetune(make(), workspace=tmp_path)


@pytest.mark.parametrize("method", ["full", "lora", "dora", "bitfit", "partial", "ia3"])
def test_a_decoder_whose_output_matrix_is_its_own_learns_labels(method: str, make: Make, tmp_path: Path) -> None:
    """The matrix takes no part below a head: it must not wait for a gradient that never comes."""
    base = small.llama(tmp_path / "base", max_position_embeddings=256, tie_word_embeddings=False)
    recipe = make(
        "labelled", str(base), method={"name": method}, objective="classify", evaluate={"baselines": ["majority"]}
    )
    found = report(recipe, tmp_path)
    assert found.fit.steps == found.plan.steps
