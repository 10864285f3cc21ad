"""Whole runs of the main flow on tiny models: what lies on disk, what it says, and that it can be repeated."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from tests.flows.conftest import TOPICS, MakeRecipe, asked, labelled, write_jsonl

from tunesmith.core import files, recipe_file
from tunesmith.core.errors import DataError, Diverged, RecipeError
from tunesmith.core.plan import Plan
from tunesmith.core.report import CurvePoint, DataReport, Prediction, Report
from tunesmith.core.run import Run
from tunesmith.evaluate.forgetting import passages
from tunesmith.flows import judging
from tunesmith.flows.chat import open_adapter, open_chat
from tunesmith.flows.finetune import finetune
from tunesmith.flows.prepare import prepare
from tunesmith.models import artefact
from tunesmith.models.model import Model, adapters_off
from tunesmith.records.folder import read_jsonl
from tunesmith.records.index import Index

QUICK: dict[str, Any] = {"baselines": ["majority"], "max_new_tokens": 6}


class Told:
    """A watcher that remembers."""

    def __init__(self) -> None:
        self.stages: list[str] = []
        self.steps: list[tuple[int, int]] = []
        self.notes: list[str] = []

    def stage(self, name: str, detail: str = "") -> None:
        self.stages.append(name)

    def step(self, point: CurvePoint, total_steps: int, tokens_per_second: float) -> None:
        assert tokens_per_second > 0
        self.steps.append((point.step, total_steps))

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture(scope="module")
def told() -> Told:
    return Told()


@pytest.fixture(scope="module")
def written(make_recipe: MakeRecipe, tmp_path_factory: pytest.TempPathFactory, told: Told) -> Run:
    """A run that writes JSON answers, with every baseline."""
    return finetune(make_recipe(), workspace=tmp_path_factory.mktemp("written"), watch=told)


@pytest.fixture(scope="module")
def report(written: Run) -> Report:
    return Report.load(Path(written.folder) / "report.json")


def weights(run: Run, part: str = "adapter") -> bytes:
    name = {"adapter": "adapter_model.safetensors", "model": "model.safetensors"}[part]
    return (Path(run.folder) / part / name).read_bytes()


# -- what lies on disk ------------------------------------------------------------------------------------------------


def test_every_file_of_the_design_is_there_and_parses(written: Run, report: Report) -> None:
    folder = Path(written.folder)
    recipe = recipe_file.load(folder / "recipe.yaml")
    assert recipe == report.recipe
    assert Plan.load(folder / "resolved.json") == report.plan
    assert DataReport.load(folder / "data" / "report.json") == report.data
    assert (folder / "data" / "quarantine.jsonl").read_text() == ""
    locked = json.loads((folder / "data" / "splits.json").read_text())
    assert locked["test_hash"] == report.test_hash == written.data_hash
    assert {n: len(locked[n]) for n in ("train", "dev", "test")} == report.split_sizes
    assert (folder / "run.lock").is_file()
    assert Run.load(folder / "run.json").status == "done"
    files.verify(folder / "adapter")
    card = (folder / "adapter" / "README.md").read_text()
    assert card.startswith("---\n")
    assert not [p for p in folder.rglob("*") if p.name.startswith(files.TEMPORARY)]


def test_the_page_holds_the_verdict_and_the_report_speaks_of_this_run(written: Run, report: Report) -> None:
    html = (Path(written.folder) / "report.html").read_text()
    assert report.verdict.decision in html
    assert "<script" not in html
    assert report.run_id == written.id
    assert {s.name for s in report.systems} == {"majority", "zero_shot", "few_shot", "nearest_neighbour", "tuned"}
    assert all(e.n == report.split_sizes["test"] for s in report.systems for e in s.metrics.values())
    assert (written.score, written.verdict) == (
        report.systems[-1].metrics[report.primary].value,
        report.verdict.decision,
    )
    assert set(report.seconds) == {"Read and check", "Load", "Baselines", "Train", "Evaluate", "Verdict"}
    assert {"torch", "tunesmith", "python"} <= set(report.environment)


def test_every_system_has_an_answer_for_every_test_row(written: Run, report: Report) -> None:
    folder = Path(written.folder)
    test = json.loads((folder / "data" / "splits.json").read_text())["test"]
    assert len(test) == report.split_sizes["test"] > 8
    for system in report.systems:
        rows = [Prediction.model_validate(r) for r in read_jsonl(folder / "predictions" / f"{system.name}.jsonl")]
        assert [r.id for r in rows] == test, system.name
    kept = {p.name for p in (folder / "predictions").iterdir()}
    assert kept == {f"{s.name}.jsonl" for s in report.systems} | {"systems.json", "MANIFEST.json"}


def test_the_log_holds_every_step_and_the_watcher_saw_the_same(written: Run, report: Report, told: Told) -> None:
    points = [CurvePoint.model_validate(r) for r in read_jsonl(Path(written.folder) / "metrics.jsonl")]
    assert [p.step for p in points] == list(range(1, report.plan.steps + 1))
    assert all(p.loss is not None and p.learning_rate is not None for p in points)
    assert sum(p.dev_loss is not None for p in points) >= 2
    assert tuple(points) == report.fit.curve
    assert told.steps == [(p.step, report.plan.steps) for p in points]
    assert told.stages == ["Read and check", "Load", "Baselines", "Train", "Evaluate", "Verdict"]
    first, last = points[0].loss, points[-1].loss
    assert first is not None
    assert last is not None
    assert last < first


def test_the_run_stands_in_the_index(written: Run) -> None:
    workspace = Path(written.folder).parent.parent
    found = Index.open(workspace).get(written.id)
    assert (found.status, found.verdict, found.metric) == ("done", written.verdict, "json_field_accuracy")
    assert found.pid is None
    assert found.baseline == 1.0  # nearest_neighbour finds the topic's words


def test_the_saved_adapter_gives_the_same_answers_again(written: Run, report: Report) -> None:
    model = artefact.load(Path(written.folder) / report.adapter)
    again = judging.answer(model, prepare(report.recipe), prepare(report.recipe).test)
    told = [r["answer"] for r in read_jsonl(Path(written.folder) / "predictions" / "tuned.jsonl")]
    assert [p.answer for p in again] == told
    assert any(told)


def test_forgetting_is_that_of_the_tuned_model_against_the_untouched_base(report: Report, written: Run) -> None:
    base = artefact.load(Path(written.folder) / report.adapter)
    assert report.forgetting is not None
    texts = passages(report.card.context)
    size = sum(map(len, texts))
    assert report.forgetting.after.value == pytest.approx(sum(judging.general_bits(base)) / size, rel=1e-6)
    with adapters_off(base):
        assert report.forgetting.before.value == pytest.approx(sum(judging.general_bits(base)) / size, rel=1e-6)
    assert report.forgetting.before.value != report.forgetting.after.value
    assert report.forgetting.before.n == len(texts)


def test_the_memory_of_the_training_is_counted(report: Report) -> None:
    assert report.fit.peak_bytes is not None
    assert 100 << 20 < report.fit.peak_bytes < 32 << 30
    assert report.fit.peak_of


# -- the other kinds of run -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("model", "method", "objective"), [
    ("bert", "full", "auto"), ("bert", "lora", "auto"), ("llama", "lora", "classify"), ("llama", "full", "auto"),
    ("llama", "lora", "sft"),
])  # fmt: skip
def test_labels_are_chosen_by_a_head_or_by_likelihood(
    make_recipe: MakeRecipe, tmp_path: Path, model: str, method: str, objective: str
) -> None:
    recipe = make_recipe(
        "labelled", model, objective=objective, method={"name": method}, evaluate={"baselines": ["nearest_neighbour"]}
    )
    run = finetune(recipe, workspace=tmp_path)
    report = Report.load(Path(run.folder) / "report.json")
    assert (run.status, run.metric, report.adapter) == ("done", "accuracy", "adapter" if method == "lora" else "model")
    assert (report.forgetting is None) == (model == "bert")  # no language model
    rows = read_jsonl(Path(run.folder) / "predictions" / "tuned.jsonl")
    assert {r["answer"] for r in rows} <= set(TOPICS)
    assert all(r["prompt_tokens"] > 0 for r in rows)
    assert (Path(run.folder) / report.adapter / "head.safetensors").exists() == (objective != "sft")
    again = artefact.load(Path(run.folder) / report.adapter, report.card.path)
    prepared = prepare(recipe)
    assert [p.answer for p in judging.answer(again, prepared, prepared.test)] == [r["answer"] for r in rows]


def test_a_small_encoder_learns_what_three_labels_mean(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = make_recipe(
        "labelled", "bert", method={"name": "full"}, train={"epochs": 12}, evaluate={"baselines": ["majority"]}
    )
    run = finetune(recipe, workspace=tmp_path)
    assert run.score is not None
    assert run.baseline is not None
    assert run.score >= 0.8 > run.baseline


def test_plain_text_is_trained_on_every_token_and_judged_by_perplexity(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = make_recipe("plain", method={"name": "full"}, train={"epochs": 4, "learning_rate": 5e-3})
    prepared = prepare(recipe)
    assert all(set(r.weight) == {1.0} for r in prepared.train_rows)
    run = finetune(recipe, workspace=tmp_path)
    report = Report.load(Path(run.folder) / "report.json")
    assert run.metric == "perplexity"
    assert run.score is not None
    assert run.baseline is not None
    assert run.score < 0.5 * run.baseline
    rows = read_jsonl(Path(run.folder) / "predictions" / "tuned.jsonl")
    sizes = [len(prepared.tokenizer(e.text).input_ids) for e in prepared.test]
    assert [r["nll_tokens"] for r in rows] == sizes
    assert report.data.trained_share == pytest.approx(1 - 1 / (sum(map(len, (r.ids for r in prepared.train_rows))) /
                                                               len(prepared.train_rows)), abs=0.01)  # fmt: skip


@pytest.mark.shared
def test_stories260k_is_fine_tuned(shared_folder: Path, make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = make_recipe(
        model=str(shared_folder / "models" / "stories260K"),
        evaluate={**QUICK, "limit": 4},
        train={"epochs": 1, "max_length": 400},
    )
    run = finetune(recipe, workspace=tmp_path)
    losses = [r["loss"] for r in read_jsonl(Path(run.folder) / "metrics.jsonl")]
    assert run.status == "done"
    assert losses[-1] < losses[0]


# -- the same again, and nothing from the test ------------------------------------------------------------------------


@pytest.mark.parametrize(("data", "model", "method"), [("asked", "llama", "lora"), ("labelled", "bert", "full")])
def test_the_same_recipe_and_seed_give_the_same_bits(
    make_recipe: MakeRecipe, tmp_path: Path, data: str, model: str, method: str
) -> None:
    def run(seed: int) -> Run:
        changes = {"dropout": 0.1} if method == "lora" else {}
        recipe = make_recipe(
            data,
            model,
            method={"name": method, **changes},
            train={"epochs": 1, "seed": seed},
            evaluate={"baselines": ["majority"], "limit": 4},
        )
        return finetune(recipe, workspace=tmp_path)

    part = "adapter" if method == "lora" else "model"
    first, second, other = run(0), run(0), run(1)
    assert first.id != second.id
    assert weights(first, part) == weights(second, part)
    assert weights(first, part) != weights(other, part)
    told = [(Path(r.folder) / "predictions" / "tuned.jsonl").read_bytes() for r in (first, second)]
    assert told[0] == told[1]


def test_test_answers_do_not_reach_the_weights(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    held, other = asked(24, seed=9), asked(24, seed=9)
    for row in other:
        row["completion"] = json.dumps({"topic": "none", "urgent": None, "new": "x" * 80})
    runs = []
    for name, rows in (("one", held), ("two", other)):
        path = write_jsonl(tmp_path / f"{name}.jsonl", rows)
        recipe = make_recipe(data={"test": str(path)}, train={"epochs": 1}, evaluate={**QUICK, "limit": 4})
        runs.append(finetune(recipe, workspace=tmp_path / name))
    assert weights(runs[0]) == weights(runs[1])
    assert runs[0].data_hash != runs[1].data_hash
    assert (runs[0].baseline or 0) > 0
    assert runs[1].baseline == 0.0


# -- runs that end early ----------------------------------------------------------------------------------------------


def only(workspace: Path) -> Run:
    (run,) = Index.open(workspace).all()
    return run


def test_overrides_are_laid_over_a_recipe_and_over_a_file(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(recipe_file.dump(make_recipe(evaluate={**QUICK, "limit": 2})))
    for recipe in (path, str(path), recipe_file.load(path)):
        run = finetune(recipe, overrides=["train.epochs=1", "method.rank=2"], workspace=tmp_path / "w")
        report = Report.load(Path(run.folder) / "report.json")
        assert (report.plan.epochs, report.recipe.method.rank) == (1, 2)
        shape = load_file(Path(run.folder) / "adapter" / "adapter_model.safetensors")
        assert {t.shape[0] for n, t in shape.items() if "lora_A" in n} == {2}


@pytest.mark.parametrize("at", ["Baselines", "Train", "Evaluate"])
def test_ctrl_c_leaves_a_run_that_says_interrupted(make_recipe: MakeRecipe, tmp_path: Path, at: str) -> None:
    class Stops(Told):
        def stage(self, name: str, detail: str = "") -> None:
            if name == at != "Train":
                raise KeyboardInterrupt

        def step(self, *_: object) -> None:
            if at == "Train":
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finetune(make_recipe(evaluate=QUICK), workspace=tmp_path, watch=Stops())
    run = only(tmp_path)
    told = f"interrupted; go on with: tunesmith resume {run.id} --runs {tmp_path}"
    assert (run.status, run.error, run.pid) == ("interrupted", told, None)
    assert not (Path(run.folder) / "adapter").exists()
    assert not (Path(run.folder) / "report.json").exists()


def test_a_stop_in_the_moment_in_which_a_run_is_listed_is_recorded(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, seen = Index.put, []

    def put(self: Index, run: Run) -> None:
        seen.append(run.status)
        if len(seen) == 1:
            raise KeyboardInterrupt
        own(self, run)

    monkeypatch.setattr(Index, "put", put)
    with pytest.raises(KeyboardInterrupt):
        finetune(make_recipe(), workspace=tmp_path)
    (folder,) = (tmp_path / "runs").iterdir()
    assert Run.load(folder / "run.json").status == "interrupted"
    assert seen == ["running", "interrupted"]


def test_a_loss_that_is_not_finite_ends_as_diverged(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = Model.token_logp
    monkeypatch.setattr(
        Model, "token_logp", lambda model, batch: own(model, batch) * (math.nan if model.network.training else 1.0)
    )
    with pytest.raises(Diverged, match="not finite in 2 of 2 steps"):
        finetune(make_recipe(evaluate=QUICK), workspace=tmp_path)
    assert only(tmp_path).status == "diverged"
    assert "not finite" in (only(tmp_path).error or "")


def test_an_unforeseen_error_leaves_a_run_that_says_failed(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    class Breaks(Told):
        def step(self, *_: object) -> None:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        finetune(make_recipe(evaluate=QUICK), workspace=tmp_path, watch=Breaks())
    assert only(tmp_path).status == "failed"


def test_a_rank_that_does_not_fit_is_refused_before_the_baselines(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    told = Told()
    with pytest.raises(RecipeError, match=r"^method.rank is 64; model\.layers\.0\.self_attn\.k_proj of llama has 16 "):
        finetune(make_recipe(method={"rank": 64}), workspace=tmp_path, watch=told)
    assert "Baselines" not in told.stages
    assert not (tmp_path / "runs").exists()


def test_baselines_that_lack_the_primary_metric_are_refused_before_training(
    make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    told = Told()
    with pytest.raises(RecipeError, match=r"^evaluate.baselines: none of majority has perplexity.*Add zero_shot"):
        finetune(
            make_recipe(evaluate={"metrics": ["perplexity"], "baselines": ["majority"], "limit": 2}),
            workspace=tmp_path,
            watch=told,
        )
    assert "Train" not in told.stages


# -- chat -------------------------------------------------------------------------------------------------------------


def test_chat_gives_the_bases_answer_and_the_tuned_one(written: Run, report: Report) -> None:
    from tunesmith.core.example import Message
    from tunesmith.generate.local import LocalModel
    from tunesmith.models import load as loading

    pair = open_chat(Path(written.folder))
    question = (Message(role="user", content=asked(1)[0]["prompt"]),)
    base, tuned = pair.answer(question, max_new_tokens=12)
    untouched = LocalModel(loading.load(report.card.path)).complete([question], max_new_tokens=12)[0].text
    assert base == untouched
    assert tuned != base
    assert pair.answer(question, max_new_tokens=12) == (base, tuned)


def test_an_adapter_made_elsewhere_is_talked_to_on_the_base_that_is_named(written: Run, report: Report) -> None:
    from tunesmith.core.example import Message

    question = (Message(role="user", content=asked(1)[0]["prompt"]),)
    pair, unproven = open_adapter(Path(written.folder) / "adapter", report.card.path)
    assert pair.answer(question, max_new_tokens=12) == open_chat(Path(written.folder)).answer(
        question, max_new_tokens=12
    )
    assert "names no fingerprint" in unproven


def test_chat_with_a_classifier_names_the_label(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    from tunesmith.core.example import Message

    recipe = make_recipe("labelled", "bert", method={"name": "full"}, evaluate={"baselines": ["majority"]})
    run = finetune(recipe, workspace=tmp_path)
    base, tuned = open_chat(Path(run.folder)).answer([Message(role="user", content=labelled(1)[0]["text"])])
    assert "no classification head" in base
    assert tuned.split(" ")[0] in TOPICS


def test_chat_with_a_fully_tuned_model_keeps_the_base_beside_it(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    from tunesmith.core.example import Message

    recipe = make_recipe(method={"name": "full"}, train={"epochs": 1, "learning_rate": 5e-3}, evaluate=QUICK)
    run = finetune(recipe, workspace=tmp_path)
    base, tuned = open_chat(Path(run.folder)).answer([Message(role="user", content="Hello?")], max_new_tokens=8)
    assert base != tuned


Damage = Callable[[Path], object]


@pytest.mark.parametrize(("damage", "said"), [
    (lambda f: (f / "report.json").unlink(), "has no report.json: the run did not finish"),
    (lambda f: (f / "adapter" / "adapter_model.safetensors").write_bytes(b"x"), "is damaged"),
    (lambda f: shutil.rmtree(f / "adapter"), "holds no model trained by Tunesmith"),
])  # fmt: skip
def test_chat_with_what_is_left_of_a_run_is_a_sentence(written: Run, tmp_path: Path, damage: Damage, said: str) -> None:
    folder = Path(shutil.copytree(written.folder, tmp_path / "copy"))
    damage(folder)
    with pytest.raises(ValueError, match=said):
        open_chat(folder)


# -- the locked test --------------------------------------------------------------------------------------------------


def test_a_second_verdict_on_the_same_test_is_told_whatever_the_seed_of_the_training(
    make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    recipe = recipe_file.override(make_recipe(evaluate={**QUICK, "limit": 5}), ["train.epochs=0.1"])
    first = finetune(recipe, workspace=tmp_path)
    again = finetune(recipe_file.override(recipe, ["train.seed=1"]), workspace=tmp_path)
    assert first.data_hash == again.data_hash
    warnings = [Report.load(Path(run.folder) / "report.json").warnings for run in (first, again)]
    assert not any("has given a verdict" in w for w in warnings[0])
    assert any("has given a verdict once before" in w for w in warnings[1])


def test_a_lock_that_was_changed_during_the_run_stops_it_before_the_test_is_answered(
    make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    class Tampering(Told):
        def step(self, point: CurvePoint, total_steps: int, tokens_per_second: float) -> None:
            (path,) = tmp_path.glob("runs/*/data/splits.json")
            path.write_text(path.read_text().replace('"test": "', '"test": "0'))

    told = Tampering()
    with pytest.raises(DataError, match="test differ from the rows locked when this run began"):
        finetune(make_recipe(evaluate=QUICK), workspace=tmp_path, watch=told)
    assert told.stages[-1] == "Evaluate"


@pytest.mark.parametrize("setting", ["method.rank=70000", "method.target_modules=[nope]", "evaluate.baselines=[]"])
def test_a_recipe_that_is_refused_leaves_no_run(make_recipe: MakeRecipe, tmp_path: Path, setting: str) -> None:
    with pytest.raises(RecipeError):
        finetune(recipe_file.override(make_recipe(), [setting]), workspace=tmp_path)
    assert not (tmp_path / "runs").exists()
