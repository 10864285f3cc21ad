"""plan: a table, one JSON object, a page, and exit code 4 for what does not fit."""

import json
import re
from collections.abc import Callable
from pathlib import Path

from typer.testing import Result

Cli = Callable[..., Result]
SIZE = ("--rows", 1000, "--tokens", 300)


def recipe(folder: Path) -> Path:
    (folder / "a.jsonl").write_text(
        "".join(json.dumps({"prompt": f"{n}?", "completion": "x"}) + "\n" for n in range(9))
    )
    (folder / "a.yaml").write_text("model: meta-llama/Llama-2-7b-hf\ndata: {train: a.jsonl}\n")
    return folder / "a.yaml"


def test_a_plan_that_fits(cli: Cli, tmp_path: Path) -> None:
    recipe(tmp_path)
    done = cli("plan", "a.yaml", "--device", "h100", *SIZE, "--json", "--out", "page.html")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["fits"] is True
    assert sum(told["memory"].values()) == told["peak_bytes"]
    assert told["html"] == "page.html"
    page = (tmp_path / "page.html").read_text()
    assert "Llama-2-7b-hf: it fits" in page
    assert page.count("<svg") == 3  # memory, its activations, time
    assert "http" not in page.replace("http-equiv", "")


def test_what_does_not_fit_has_a_code_of_its_own_and_says_what_would(cli: Cli, tmp_path: Path) -> None:
    recipe(tmp_path)
    done = cli("plan", "a.yaml", "--device", "t4", *SIZE, "-s", "method.name=full", "--fit")
    assert done.exit_code == 4
    assert "it does not fit" in done.stdout
    told = json.loads(
        cli("plan", "a.yaml", "--device", "t4", *SIZE, "-s", "method.name=full", "--fit", "--json").stdout
    )
    assert told["choices"][-1]["settings"] == {"method.name": "qlora"}
    assert told["choices"][-1]["fits"] is True


def test_devices_and_a_file_of_ones_own(cli: Cli, tmp_path: Path) -> None:
    recipe(tmp_path)
    (tmp_path / "mine.json").write_text(json.dumps([{"name": "mine", "like": "NVIDIA H100 SXM", "memory_gib": 1000}]))
    done = cli("plan", "a.yaml", "--device", "mine", "--devices-file", "mine.json", *SIZE, "--devices")
    assert done.exit_code == 0, done.output
    assert "1,000" in done.stdout or "1000" in done.stdout
    assert "NVIDIA" in done.stdout
    missing = cli("plan", "a.yaml", "--device", "mine", *SIZE)
    assert missing.exit_code == 2
    assert "not among the" in missing.output


def test_a_recipe_with_stages_is_planned_stage_by_stage(cli: Cli, tmp_path: Path) -> None:
    recipe(tmp_path)
    (tmp_path / "three.yaml").write_text("data: {train: a.jsonl}\nstages: [sft, reward, ppo]\n")
    done = cli("plan", "three.yaml", "--device", "l4", *SIZE, "--json")
    assert done.exit_code == 0, done.output
    assert [stage["objective"] for stage in json.loads(done.stdout)["stages"]] == ["sft", "reward", "ppo"]
    written = cli("plan", "three.yaml", "--device", "l4", *SIZE, "--out", "page.html", "--json")
    assert json.loads(written.stdout)["html"] == "page.html"
    page = (tmp_path / "page.html").read_text()
    stages = [f"Stage {n} of 3: {name}" for n, name in enumerate(("sft", "reward", "ppo"), 1)]
    assert re.findall(r"Stage \d of \d: \w+", page) == stages
    assert "<h1>sft, reward, ppo on bundled: it fits</h1>" in page
    assert page.count("<svg") == 9
    ids = re.findall(r'id="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert cli("plan", "three.yaml", "--device", "l4", *SIZE, "--out", "page.html").stdout.count("Page: page.html") == 1
