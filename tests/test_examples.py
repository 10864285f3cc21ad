"""The recipes of examples/: each can be read and names what exists; on the real sets they find their rows."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

import sample_report
from tunesmith.core import parts, recipe_file
from tunesmith.core.recipe import Recipe
from tunesmith.flows import stages
from tunesmith.flows.check_recipe import check_parts
from tunesmith.flows.prepare import prepare

ROOT = Path(__file__).resolve().parent.parent
RECIPES = sorted((ROOT / "examples").glob("*.yaml"))
TICKETS = ROOT / "src" / "tunesmith" / "assets" / "helpdesk"
SINGLE = [path for path in RECIPES if not recipe_file.stages(path)]
each_recipe = pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)


def read(path: Path) -> tuple[Recipe, ...]:
    """The recipe, or that of each of its stages."""
    return stages.recipes(path) or (recipe_file.load(path),)


def files_of(path: Path) -> set[str]:
    return {file for r in read(path) for file in (r.data.train, r.data.dev, r.data.test) if file}


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("real_tasks", ROOT / "benchmarks" / "real_tasks.py")
    assert spec is not None and spec.loader is not None
    module = sys.modules["real_tasks"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@each_recipe
def test_it_parses_and_names_parts_that_exist(path: Path) -> None:
    staged = [stage.name for stage in recipe_file.stages(path)]
    found = read(path)
    assert [check_parts(r).name for r in found] == (staged or ["classify" if found[0].task == "classify" else "sft"])
    for recipe in found:
        assert set(recipe.data.allow) <= set(parts.names("data.checks"))
        assert recipe.evaluate.metrics or len(found) > 1, "an example says what decides"


def test_an_example_learns_from_preferences_in_three_stages() -> None:
    assert [r.objective.name for r in read(ROOT / "examples" / "three_stages.yaml")] == ["sft", "reward", "ppo"]


@each_recipe
def test_it_says_what_it_is_about_and_where_its_data_lie(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# ") and "relative to this file" in " ".join(text.replace("\n#", "").split())
    inside = ((ROOT.parent / "shared" / "data").resolve(), TICKETS.resolve())
    for file in files_of(path):
        assert any(Path(file).resolve().is_relative_to(folder) for folder in inside), file


def test_the_helpdesk_example_is_the_recipe_of_the_demo() -> None:
    example, demo = (
        recipe_file.load(ROOT / "examples" / "helpdesk_base.yaml"),
        recipe_file.load(TICKETS / "recipe.yaml"),
    )
    assert Path(example.data.train).resolve() == Path(demo.data.train).resolve()
    assert example.model_copy(update={"data": demo.data}) == demo
    assert example.data.model_copy(update={"train": demo.data.train}) == demo.data


def test_the_helpdesk_example_can_be_prepared() -> None:
    ready = prepare(recipe_file.load(ROOT / "examples" / "helpdesk_base.yaml"))
    assert ready.metrics[0] == "json_field_accuracy"
    assert len(ready.test) >= 150
    assert not {e.group for e in ready.splits.test} & {e.group for e in ready.splits.train}


@pytest.mark.shared
@each_recipe
def test_its_data_files_exist(path: Path, shared_folder: Path) -> None:
    assert [file for file in files_of(path) if not Path(file).is_file()] == []


@pytest.mark.shared
def test_banking77_can_be_prepared_on_all_its_test_rows(shared_folder: Path) -> None:
    ready = prepare(recipe_file.load(ROOT / "examples" / "banking77_minilm.yaml"))
    assert (len(ready.test), len(ready.labels), ready.uses_head) == (3080, 77, True)
    assert ready.splits.moved > 0  # train gave way where it nearly repeats the test


@pytest.mark.shared
def test_cuad_needs_what_it_allows_and_keeps_contracts_apart(shared_folder: Path) -> None:
    ready = prepare(recipe_file.load(ROOT / "examples" / "cuad_minilm.yaml"))
    assert (len(ready.test), len(ready.labels)) == (2318, 41)
    accepted = [f.check for f in ready.data.findings if f.message.endswith("(Accepted by data.allow.)")]
    assert accepted == ["contradictions"] * 2  # in the training file and in the test file it would have stopped the run
    contracts = [{e.group for e in rows} for rows in (ready.splits.train, ready.splits.dev, ready.splits.test)]
    assert sum(map(len, contracts)) == len(set.union(*contracts))


@pytest.mark.shared
def test_each_stage_can_be_prepared_and_says_what_decides(shared_folder: Path) -> None:
    found = [prepare(recipe) for recipe in read(ROOT / "examples" / "three_stages.yaml")]
    assert [(p.data.rows, p.data.quarantined, len(p.test)) for p in found] == [
        (1100, 0, 100),
        (1094, 6, 100),
        (1100, 0, 100),
    ]
    assert [p.metrics[0] for p in found] == ["token_f1", "accuracy", "reward"]


def test_the_benchmark_runs_every_example_that_is_one_run(benchmark: ModuleType) -> None:
    """Preferences and rewards are measured by ``benchmarks/rlhf.py``."""
    assert sorted(benchmark.BY_NAME) == [path.stem for path in SINGLE]


@pytest.mark.shared
def test_the_benchmark_leaves_out_test_rows_whose_label_is_not_in_train(
    benchmark: ModuleType, shared_folder: Path, tmp_path: Path
) -> None:
    task = benchmark.BY_NAME["icd10_minilm"]
    recipe = recipe_file.load(ROOT / "examples" / "icd10_minilm.yaml")
    (setting,), (fact,) = benchmark._known_labels(task, recipe, tmp_path)
    assert fact.startswith("5 of the 2,000 test rows left out")
    rows = [json.loads(line) for line in Path(setting.removeprefix("data.test=")).read_text("utf-8").splitlines()]
    assert len(rows) == 1995
    assert not {"D71", "F39", "J90", "K30", "R99"} & {row["code"] for row in rows}


def test_the_page_of_results_holds_every_system_with_its_interval(benchmark: ModuleType) -> None:
    report = sample_report.build()
    entry = {
        "task": "some_task",
        "about": "a task",
        "command": "tunesmith run examples/some_task.yaml",
        "created": "2026-03-01T14:18:40+00:00",
        "machine": "two cores",
        "load_before": 0.1,
        "total_seconds": 301.0,
        "peak_bytes": 2**30,
        "moved": 12,
        "facts": ["5 of 20 left out"],
        "goals": benchmark._goals(benchmark.Task("some_task", "a task", 5), report, 301.0),
    } | json.loads(json.dumps(benchmark._of_report(report)))
    broken = {key: entry[key] for key in ("task", "about", "command", "created")} | {"error": "exit code 4: no memory"}
    page = benchmark.markdown([entry, broken | {"task": "other_task"}], "python x.py", smoke=False)

    rows = [line for line in page.splitlines() if line.startswith("|")]
    summary, systems = rows[:3], rows[3:]
    assert len({row.count("|") for row in summary}) == 1 and len({row.count("|") for row in systems}) == 1
    assert summary[2].startswith("| some_task | SHIP | Exact match |") and "1.00 GiB" in summary[2]
    assert [row.split(" | ")[0] for row in systems[2:]] == [f"| {system.name}" for system in report.systems]
    for text in ("at most 5 minutes in all. Reached: 5 min 01 s, missed.", "- 5 of 20 left out.", "held-out rows: 12."):
        assert text in page
    assert "## other_task" in page and "**No result.** exit code 4: no memory" in page
