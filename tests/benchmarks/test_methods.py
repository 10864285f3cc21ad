"""The pure parts of the benchmark of methods: what is asked can be run, and what is found is written."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

import methods
import sample_comparison as sample
from tunesmith.flows.compare import planned


@pytest.mark.shared
@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("name", list(methods.TASKS))
def test_every_task_can_be_asked_with_every_method(name: str, quick: bool, tmp_path: Path) -> None:
    bench = methods.Bench(tmp_path, methods.METHODS, 3, quick)
    path, settings = bench.asked(name)
    grid = planned(path, methods.METHODS, 3, settings, tmp_path)
    assert len(grid.variants) == len(methods.METHODS) >= 8
    assert grid.recipe.train.learning_rate == "auto"  # else methods that need another one look bad
    assert grid.recipe.evaluate.baselines == (methods.BASELINES[name],)
    assert Path(grid.recipe.data.train).is_file()
    if methods.TASKS[name].rows is not None:
        assert len(Path(grid.recipe.data.train).read_text(encoding="utf-8").splitlines()) <= 1200


def document(work: Path) -> methods.Part:
    comparison = sample.build().model_dump(mode="json", exclude={"recipe"})
    points = [
        {
            "method": name, "times": times, "learning_rate": 1e-3 * times, "metric": "exact_match",
            "score": {"value": 0.5, "low": 0.4, "high": 0.6, "n": 80}, "dev_loss": times,
            "forgetting": {"value": 0.1 * times, "low": 0.0, "high": 0.2, "n": 64}, "trainable_parameters": 10,
        }
        for name in ("full", "lora")
        for times in (1.0, 30.0)
    ]  # fmt: skip
    points.append({"method": "lora", "times": 30.0, "error": f"diverged in {work}/x"})
    about = {
        "created": "2026-01-01T00:00:00", "command": "python x", "machine": "a machine", "environment": {"torch": "2"},
        "load_before": 0.1, "seconds": 60.0,
    }  # fmt: skip
    svg = methods.stacked([c for c in methods.charts(sample.build()).values() if c], methods.SCATTER)
    parts = {
        "helpdesk": {"about": "tickets", "comparison": comparison, "svg": svg},
        "rates": methods.grid("rates", points, "times"),
    }
    cleaned = {name: methods._clean(part, work) | about for name, part in parts.items()}
    return {"quick": False, "findings": "It shows this.", "parts": cleaned}


def test_the_page_and_the_pictures_hold_what_was_found(tmp_path: Path) -> None:
    methods.write(document(tmp_path / "work"), tmp_path)
    text = (tmp_path / "methods.md").read_text()
    assert "## What it shows\n\nIt shows this." in text
    assert all(f"\n| {name} | " in text for name in sample.METHODS)
    assert "nearest_neighbour |" in text
    assert "| full | 30 | 3.0e-02 | Exact match 50.0% (40.0% to 60.0%) | 30.000 | +3.000 (+0.000 to +0.200) |" in text
    assert "diverged in WORK/x" in text
    assert str(tmp_path) not in (tmp_path / "methods.json").read_text()
    for name, number in (("helpdesk", 2), ("rates", 2)):
        drawn = ElementTree.parse(tmp_path / f"methods_{name}.svg").getroot()
        assert len(drawn.findall("{http://www.w3.org/2000/svg}svg")) == number
    assert "svg" not in json.loads((tmp_path / "methods.json").read_text())["parts"]["rates"]
