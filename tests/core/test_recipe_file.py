"""Recipes on disk: three formats, the traps of YAML, paths, overrides, and the way back to text."""

import json
import os
from pathlib import Path

import pytest

from tunesmith.core import recipe_file, strict_yaml
from tunesmith.core.errors import RecipeError
from tunesmith.core.recipe import Recipe

DATA = "data: {train: a.jsonl}\n"


def written(folder: Path, text: str | bytes, name: str = "r.yaml") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def sentence(path: Path, *overrides: str) -> str:
    with pytest.raises(RecipeError) as caught:
        recipe_file.load(path, overrides)
    return str(caught.value).replace(f"{path.parent}{os.sep}", "")


def test_three_formats_give_the_same_recipe(tmp_path: Path) -> None:
    raw = {
        "data": {"train": "a.jsonl"},
        "train": {"learning_rate": 2e-4, "epochs": 2},
        "evaluate": {"metrics": ["chrf"]},
    }
    toml = '[data]\ntrain = "a.jsonl"\n[train]\nlearning_rate = 2e-4\nepochs = 2\n[evaluate]\nmetrics = ["chrf"]\n'
    recipes = [
        recipe_file.load(written(tmp_path, json.dumps(raw), "r.json")),
        recipe_file.load(written(tmp_path, toml, "r.toml")),
        recipe_file.load(
            written(tmp_path, DATA + "train: {learning_rate: 2e-4, epochs: 2}\nevaluate: {metrics: [chrf]}")
        ),
    ]
    assert recipes[0] == recipes[1] == recipes[2]
    assert recipes[0].train.learning_rate == 2e-4


@pytest.mark.parametrize(("text", "value"), [
    ("2e-4", 2e-4), ("1e5", 1e5), ("1.", 1.0), (".5", 0.5), ("-3", -3), ("010", 10), ("0o17", 15), ("0x1F", 31),
    ("no", "no"), ("yes", "yes"), ("on", "on"), ("off", "off"), ("y", "y"), ("1:30", "1:30"), ("1_000", "1_000"),
    ("2026-01-01", "2026-01-01"), ("true", True), ("null", None), ("~", None), ("", None), ("'1'", "1"), ("<<", "<<"),
])  # fmt: skip
def test_scalars_follow_yaml_1_2(text: str, value: object) -> None:
    found = strict_yaml.load(f"a: {text}", "x")[0]["a"]
    assert (found, type(found)) == (value, type(value))


BAD_YAML = [
    ("", "r.yaml is empty; expected keys"),
    ("# only a comment\n", "r.yaml is empty; expected keys"),
    (DATA + "task: generate\ntask: classify", "r.yaml line 3: task stands twice (first on line 2)."),
    (DATA + "train:\n  seed: 1\n  seed: 2", "r.yaml line 4: train.seed stands twice (first on line 3)."),
    ("a: &x [1]\nb: [*x, *x]", "r.yaml line 1: found &x; anchors and aliases are refused."),
    ("a: *x", "r.yaml line 1: found *x; anchors and aliases are refused."),
    (
        DATA + "train: !!python/object/apply:os.system [ls]",
        "r.yaml line 2: found the tag tag:yaml.org,2002:python/object",
    ),
    ("!mine {a: 1}", "r.yaml line 1: found the tag !mine;"),
    (DATA + "train:\n\tseed: 1", "r.yaml line 3, column 1: a tab; YAML is indented with spaces."),
    (DATA + "---\n" + DATA, "r.yaml line 2, column 1: a second document starts here"),
    ("a: [" * 20_000, "r.yaml: nested too deeply to be a recipe."),
    ("data: {train: a.jsonl", "r.yaml line 1, column 22: not YAML:"),
    ("data: train: a", "r.yaml line 1, column 12: not YAML: mapping values are not allowed here."),
    ("a: \x07", "r.yaml line 1: character '\\x07' is not allowed in YAML."),
    ("1: 2", "r.yaml line 1: the key 1 is no text;"),
    ("? [a]\n: 2", "r.yaml line 1: the key ['a'] is no text;"),
    (DATA + "train: {seed: " + "9" * 5000 + "}", "r.yaml line 2: a number of 5,000 digits;"),
    ("- a\n- b", "r.yaml: found list; expected keys such as model and data."),
    (DATA + "train:\n  epochs: 3\n  lr: 2e-4", "r.yaml line 4: train.lr is an unknown key."),
    (DATA + "method:\n  rank: no", "r.yaml line 3: method.rank is 'no'; expected a whole number"),
    (DATA + "<<: {task: classify}", "r.yaml line 2: << is an unknown key."),
    (
        "data: {train: 'https://example.org/x'}",
        "r.yaml: data.train is https://example.org/x, an address; expected a local",
    ),
    ('data: {train: "a\\0"}', "r.yaml: data.train is 'a\\x00'; expected the path of a file."),
    ("data: {train: ''}", "r.yaml: data.train is ''; expected the path of a file."),
]


@pytest.mark.parametrize(("text", "expected"), BAD_YAML, ids=range(len(BAD_YAML)))
def test_bad_yaml_gives_a_sentence_with_its_line(tmp_path: Path, text: str, expected: str) -> None:
    assert sentence(written(tmp_path, text)).startswith(expected)


def test_a_bomb_of_aliases_is_refused_at_its_first_anchor(tmp_path: Path) -> None:
    lines = ["a0: &a0 [lol]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    assert sentence(written(tmp_path, "\n".join(lines))).startswith("r.yaml line 1: found &a0;")


@pytest.mark.parametrize(("name", "text", "expected"), [
    ("r.json", '{"a": 1, "a": 2}', "r.json: the key a stands twice"),
    ("r.json", '{"a": NaN}', "r.json: found NaN; expected a finite number."),
    ("r.json", '{"a": 1,}', "r.json line 1, column"),
    ("r.json", "[" * 200_000, "r.json: nested too deeply"),
    ("r.json", "  ", "r.json is empty;"),
    ("r.json", '{"a": ' + "9" * 5000 + "}", "r.json: a number that cannot be read"),
    ("r.toml", "a = 1\na = 2", "r.toml: not TOML: Cannot overwrite a value (at"),
    ("r.toml", "a = " + "[" * 50_000, "r.toml: nested too deeply"),
    ("r.toml", "", "r.toml is empty;"),
    ("r.txt", "a: 1", "r.txt is no recipe by its name; expected a file ending in .yaml, .yml, .json, .toml."),
    ("r.yaml", b"task: \xe9", "r.yaml line 1: found the byte 0xe9; expected UTF-8."),
    ("r.yaml", DATA.encode("utf-16"), "r.yaml line 1: found UTF-16; expected UTF-8."),
    ("r.yaml", b"#" * 1_000_001, "r.yaml has 1,000,001 bytes; a recipe has at most 1,000,000."),
], ids=range(13))  # fmt: skip
def test_bad_files_give_a_sentence(tmp_path: Path, name: str, text: str | bytes, expected: str) -> None:
    assert sentence(written(tmp_path, text, name)).startswith(expected)


def test_paths_that_are_no_file(tmp_path: Path) -> None:
    written(tmp_path, DATA, "support.yaml")
    assert sentence(tmp_path / "suport.yaml").startswith('suport.yaml does not exist. Did you mean "support.yaml"?')
    (tmp_path / "folder.yaml").mkdir()
    assert sentence(tmp_path / "folder.yaml") == "folder.yaml is a folder; expected a recipe file."
    os.mkfifo(tmp_path / "pipe.yaml")
    assert sentence(tmp_path / "pipe.yaml") == "pipe.yaml is no regular file; expected a recipe file."
    assert "File name too long" in sentence(tmp_path / f"{'x' * 300}.yaml")
    assert sentence(tmp_path / "a\0.yaml").startswith("a\0.yaml does not exist.")


def test_byte_order_mark_and_windows_line_ends_are_read(tmp_path: Path) -> None:
    path = written(tmp_path, b"\xef\xbb\xbfdata:\r\n  train: a.jsonl\r\n")
    assert recipe_file.load(path).data.train == str(tmp_path / "a.jsonl")


def test_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "base").mkdir()
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "sub")
    path = Path("../r.yaml")
    written(tmp_path, "model: base\ndata: {train: sub/a.jsonl, test: /data/t.jsonl}")
    recipe = recipe_file.load(path)
    assert Path(recipe.model).samefile(tmp_path / "base")
    assert Path(recipe.data.train).resolve() == tmp_path / "sub" / "a.jsonl"
    assert (recipe.data.dev, recipe.data.test) == (None, "/data/t.jsonl")
    for model in ("bundled", "some/hub-id", "x" * 400):
        assert recipe_file.load(path, [f"model={model}"]).model == model
    assert Path(recipe_file.load(path, ["model=./gone"]).model).is_absolute()


def test_overrides(tmp_path: Path) -> None:
    path = written(tmp_path, DATA + "train:\n  epochs: 3\n")
    words = [
        "train.epochs=5",
        "data.split.test=0.2",
        "evaluate.metrics=[chrf, exact_match]",
        "train.learning_rate=2e-4",
    ]
    recipe = recipe_file.load(path, [*words, "evaluate.prompt=Answer: yes # or no", "budget.time=30m"])
    assert (recipe.train.epochs, recipe.data.split.test, recipe.train.learning_rate) == (5, 0.2, 2e-4)
    assert recipe.evaluate.metrics == ("chrf", "exact_match")
    assert recipe.evaluate.prompt == "Answer: yes # or no"
    assert recipe.budget.time == 1800
    assert recipe_file.override(recipe, ["train.seed=4"]) == recipe_file.load(
        path, [*words, "evaluate.prompt=Answer: yes # or no", "budget.time=30m", "train.seed=4"]
    )


def test_an_override_reaches_into_an_objective_that_is_written_as_its_name(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text("objective: dpo\ntask: prefer\ndata: {train: rows.jsonl}\n")
    found = recipe_file.load(path, ["objective.beta=0.3"]).objective
    assert (found.name, found.beta) == ("dpo", 0.3)
    with pytest.raises(RecipeError, match=r"-s objective.bta=0.3: objective.bta is an unknown key. Did you mean"):
        recipe_file.load(path, ["objective.bta=0.3"])


@pytest.mark.parametrize(("override", "expected"), [
    ("train.epoch=5", '-s train.epoch=5: train.epoch is an unknown key. Did you mean "epochs"?'),
    ("a.b.c=3", "-s a.b.c=3: a is an unknown key."),
    ("train.epochs.x=5", "-s train.epochs.x=5: train.epochs holds 3, so there is no train.epochs.x."),
    ("train.epochs=0", "-s train.epochs=0: train.epochs is 0; expected a number above 0"),
    ("train.epochs", "-s train.epochs: expected key=value"),
    ("=3", "-s =3: expected key=value"),
    ("train..x=3", "-s train..x=3: expected key=value"),
    ("evaluate.metrics=[a", "-s evaluate.metrics=[a line 1"),
    ("task=", "-s task=: task is empty; expected generate, classify or prefer"),
])  # fmt: skip
def test_bad_overrides_name_themselves(tmp_path: Path, override: str, expected: str) -> None:
    assert sentence(written(tmp_path, DATA + "train:\n  epochs: 3\n"), override).startswith(expected)


ODD = ["no", "1e5", "2e-4", "1:30", "null", "", "~", " a ", "a\nb", "a\tb", "é😀", "\x85\u2028\ufeff", "# x", "- x",
       "a: b", "&a", "*b", "!x", "=", "<<", "2026-01-01", "x" * 300, "{a}", "'", '"', "y", "a #b", "..."]  # fmt: skip


@pytest.mark.parametrize("text", ODD)
def test_dump_and_commented_come_back_equal(text: str) -> None:
    raw = {
        "model": text or "m",
        "data": {"train": f"a{text}", "columns": {"text": text}, "split": {"dev": 0.05}},
        "method": {"alpha": 32},
        "train": {"learning_rate": 2e-4},
        "evaluate": {"prompt": text, "metrics": [text, "chrf"]},
        "budget": {"time": "30m"},
    }
    recipe = Recipe.parse(raw)
    for write in (recipe_file.dump, recipe_file.commented):
        assert Recipe.parse(recipe_file.parse_text(write(recipe), ".yaml", "back")) == recipe


def test_commented_says_what_each_key_means() -> None:
    recipe = Recipe.parse({"data": {"train": "a.jsonl"}})
    text = recipe_file.commented(recipe)
    for field in ("passes over the training rows", "share of the rows for the locked test", "longest training time"):
        assert field in text
    assert "# budget:" in text
    assert Recipe.parse(recipe_file.parse_text(text, ".yaml", "back")) == recipe
