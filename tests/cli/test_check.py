"""check: a file or a recipe, flags as settings, exit code 2 on what would stop a run."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from tunesmith.cli.check import is_recipe

Cli = Callable[..., Result]


def rows(path: Path, count: int, **changes: object) -> Path:
    lines = [
        {"question": f"Where is order {i} from week {i % 7}?", "reply": f"Order {i} left."} | changes
        for i in range(count)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.mark.parametrize(("name", "text", "expected"), [
    ("a.yaml", "", True), ("a.YML", "", True), ("a.toml", "", True), ("a.jsonl", "", False), ("a.csv", "", False),
    ("a.json", '{"data": {"train": "x"}}', True),
    ("a.json", '[{"data": {}}]', False), ("a.json", '{"data": []}', False),
    ("a.json", "{", False), ("a.json", "[" * 100_000, False),
])  # fmt: skip
def test_what_is_a_recipe(tmp_path: Path, name: str, text: str, expected: bool) -> None:
    (tmp_path / name).write_text(text)
    assert is_recipe(tmp_path / name) is expected


def test_a_sound_file(cli: Cli, tmp_path: Path) -> None:
    rows(tmp_path / "a.jsonl", 60)
    columns = ("--column", "prompt=question", "--column", "completion=reply")
    done = cli("check", "a.jsonl", *columns, "--json", "--show-mask", "--rows", 2)
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert (told["rows"], told["blocking"], len(told["masked"])) == (60, 0, 2)
    trained = "".join(text for text, is_trained in told["masked"][0]["pieces"] if is_trained)
    assert trained.startswith("Order 0 left.")
    table = cli("check", "a.jsonl", *columns, "--show-mask", "--rows", 1)
    assert table.exit_code == 0, table.output
    assert "⟦Order 0 left." in table.stdout
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.jsonl"]


def test_an_address_is_called_one(cli: Cli) -> None:
    done = cli("check", "https://example.org/a.jsonl")
    assert done.exit_code == 2
    assert "is an address, not a file" in done.output


def test_a_blocking_finding_leaves_with_2_and_is_told(cli: Cli, tmp_path: Path) -> None:
    rows(tmp_path / "a.jsonl", 60, reply="  ")
    done = cli("check", "a.jsonl", "--column", "prompt=question", "--column", "completion=reply", "--json")
    assert done.exit_code == 2, done.output


@pytest.mark.parametrize(("words", "said"), [
    (("gone.jsonl",), "gone.jsonl"),
    (("gone.yaml",), "gone.yaml does not exist."),
    (("a.jsonl", "--column", "prompt"), "--column prompt: expected ours=theirs"),
    (("a.jsonl", "--task", "clasify"), "task is 'clasify'; expected generate, classify or prefer"),
    (("a.jsonl", "--on-bad-row", "skip"), "data.on_bad_row is 'skip'; expected stop or quarantine"),
    (("a.jsonl", "--format", "chatt"), "chat"),
    (("empty.jsonl",), "empty.jsonl"),
])  # fmt: skip
def test_bad_input_is_a_sentence(cli: Cli, tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    rows(tmp_path / "a.jsonl", 20)
    (tmp_path / "empty.jsonl").write_text("")
    done = cli("check", *words)
    assert done.exit_code == 2, done.output
    assert said in done.stderr
    assert done.stderr.startswith("error: ")


def test_what_stands_in_the_data_cannot_steer_the_terminal(cli: Cli, tmp_path: Path) -> None:
    escape = "\x1b]0;PWNED\x07"
    (tmp_path / "column.jsonl").write_text(json.dumps({escape + "col": "a", "zz": "b"}) + "\n")
    refused = cli("check", "column.jsonl")
    assert refused.exit_code == 2 and "PWNED" in refused.stderr
    rows = [{"prompt": f"question {i} {escape}", "completion": f"answer {i} \x1b[2J"} for i in range(20)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    shown = cli("check", "rows.jsonl", "--show-mask", "--rows", "2")
    assert "PWNED" in shown.stdout
    for text in (refused.stderr, shown.stdout, shown.stderr):
        assert "\x1b" not in text and "\x07" not in text


def write(path: Path, rows: list[dict[str, object]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def turns(answer: str, *before: str) -> list[dict[str, str]]:
    return [*({"role": "user", "content": b} for b in before), {"role": "assistant", "content": answer}]


PAIRED: dict[str, Callable[[str, str, str], dict[str, object]]] = {
    "openai": lambda asked, better, worse: {
        "input": {"messages": [{"role": "user", "content": asked}]},
        "preferred_output": turns(better),
        "non_preferred_output": turns(worse),
    },
    "anthropic": lambda asked, better, worse: {
        "chosen": f"\n\nHuman: {asked}\n\nAssistant: {better}",
        "rejected": f"\n\nHuman: {asked}\n\nAssistant: {worse}",
    },
    "ultrafeedback": lambda asked, better, worse: {
        "prompt": asked,
        "chosen": turns(better, asked),
        "rejected": turns(worse, asked),
        "score_chosen": 8.0,
        "score_rejected": 3.0,
    },
}


@pytest.mark.parametrize("kind", PAIRED)
def test_a_file_of_pairs_is_checked_as_preferences_unless_another_task_is_named(
    cli: Cli, tmp_path: Path, kind: str
) -> None:
    rows = [PAIRED[kind](f"Where is order {i}?", f"Order {i} left.", f"I lost {i}.") for i in range(24)]
    write(tmp_path / "a.jsonl", rows)
    told = json.loads(cli("check", "a.jsonl", "--json").stdout)
    assert told["why"].endswith("; checked with task: prefer")
    write(tmp_path / "b.jsonl", [*rows, PAIRED[kind]("Where is mine?", "Gone.", "Gone.")])
    done = cli("check", "b.jsonl")
    assert done.exit_code == 2 and "b.jsonl line 25" in done.stderr and "once more" in done.stderr
    assert "Checked with task: prefer; --task names another task." in done.stderr
    named = cli("check", "b.jsonl", "--task", "prefer")
    assert "b.jsonl line 25" in named.stderr and "names another task" not in named.stderr
    assert cli("check", "b.jsonl", "--task", "generate").exit_code == 0


@pytest.mark.parametrize("words", [(), ("--task", "prefer")])
def test_a_file_of_judged_answers_is_checked_without_a_recipe(cli: Cli, tmp_path: Path, words: tuple[str, ...]) -> None:
    rows = [{"prompt": f"Where is order {i}?", "completion": f"Order {i} left.", "label": i < 9} for i in range(24)]
    write(tmp_path / "a.jsonl", rows)
    told = json.loads(cli("check", "a.jsonl", "--json", *words).stdout)
    assert told["why"].endswith("; checked with task: prefer, objective: kto")
    write(tmp_path / "a.jsonl", [row | {"label": True} for row in rows])
    assert "All 24 answers are judged wanted" in " ".join(cli("check", "a.jsonl", *words).stdout.split())


def test_each_stage_of_a_recipe_is_checked_with_what_it_learns_from(cli: Cli, tmp_path: Path) -> None:
    pairs: list[dict[str, object]] = [
        {"prompt": f"Where is order {i}?", "chosen": f"Order {i} left.", "rejected": f"I lost {i}."} for i in range(24)
    ]
    write(tmp_path / "pairs.jsonl", pairs)
    (tmp_path / "staged.yaml").write_text("data: {train: pairs.jsonl}\nstages: [sft, reward, ppo]\n")
    done = cli("check", "staged.yaml", "--json", "--show-mask", "--rows", 1)
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert [(s["stage"], s["rows"], s["blocking"]) for s in told["stages"]] == [
        ("sft", 24, 0), ("reward", 24, 0), ("ppo", 24, 0)
    ]  # fmt: skip
    assert told["blocking"] == 0
    assert [len(s["masked"]) for s in told["stages"]] == [1, 2, 1]  # of a pair both answers
    table = cli("check", "staged.yaml").stdout
    assert [line for line in table.splitlines() if line.startswith("Stage")] == [
        "Stage 1 of 3: sft", "Stage 2 of 3: reward", "Stage 3 of 3: ppo"
    ]  # fmt: skip
    assert sorted(p.name for p in tmp_path.iterdir()) == ["pairs.jsonl", "staged.yaml"]


def test_what_would_stop_one_stage_leaves_with_2(cli: Cli, tmp_path: Path) -> None:
    pairs = [PAIRED["ultrafeedback"](f"Where is order {i}?", f"Order {i} left.", f"I lost {i}.") for i in range(24)]
    write(tmp_path / "a.jsonl", pairs)
    write(tmp_path / "b.jsonl", [pair | {"score_chosen": 1.0} for pair in pairs])  # which contradicts their order
    stages = "[sft, {objective: reward, data: {train: b.jsonl}}]"
    (tmp_path / "staged.yaml").write_text(f"data: {{train: a.jsonl}}\nstages: {stages}\n")
    done = cli("check", "staged.yaml", "--json")
    assert done.exit_code == 2, done.output
    told = json.loads(done.stdout)
    assert ([s["blocking"] for s in told["stages"]], told["blocking"]) == ([0, 1], 1)
    assert "A run would stop here." in cli("check", "staged.yaml").stderr
