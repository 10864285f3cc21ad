"""Bad input through the real command line: a sentence, exit code 2, and nothing that looks like a finished run."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.flows.conftest import asked, labelled, write_jsonl
from typer.testing import CliRunner, Result

from tunesmith.cli.main import app
from tunesmith.core.run import Run

ROWS = asked(60)
Make = Callable[[Path], object]


def run(folder: Path, *words: str) -> Result:
    return CliRunner().invoke(app, ["run", str(folder / "r.yaml"), "--runs", str(folder), *words])


def recipe(folder: Path, store: Path, **keys: Any) -> Path:
    """A recipe beside ``rows.jsonl``; ``keys`` are laid over it."""
    raw: dict[str, Any] = {
        "model": str(store / "llama"),
        "data": {"train": "rows.jsonl"},
        "method": {"name": "lora", "rank": 4},
        "train": {"epochs": 1, "precision": "float32"},
        "evaluate": {"baselines": ["majority"], "max_new_tokens": 4},
    }
    for key, value in keys.items():
        raw[key] = {**raw[key], **value} if isinstance(value, dict) and key in raw else value
    if raw.get("task") == "classify":
        del raw["evaluate"]["max_new_tokens"]  # nothing is written there
    path = folder / "r.yaml"
    path.write_text(json.dumps(raw))  # JSON is YAML
    return path


def rows(*found: dict[str, Any]) -> Make:
    return lambda folder: write_jsonl(folder / "rows.jsonl", list(found or ROWS))


def raw(data: bytes) -> Make:
    return lambda folder: (folder / "rows.jsonl").write_bytes(data)


GOOD = "".join(json.dumps(r) + "\n" for r in ROWS).encode()
LONG = {"prompt": "Where?", "completion": "word " * 2000}

# what the folder holds, the recipe's keys, and what the sentence says
FILES: dict[str, tuple[Make, dict[str, Any], tuple[str, ...]]] = {
    "empty file": (raw(b""), {}, ("rows.jsonl", "empty")),
    "one row": (rows(ROWS[0]), {}, ("There is one row", "Add rows")),
    "wrong encoding": (raw(GOOD + '{"prompt": "Größe"}\n'.encode("latin-1")), {}, ("line 61", "UTF-8")),
    "utf-16": (raw(GOOD.decode().encode("utf-16")), {}, ("rows.jsonl", "UTF-16", "UTF-8")),
    "malformed line": (raw(GOOD + b'{"prompt": "a", "completion": }\n'), {}, ("rows.jsonl line 61", "data.on_bad_row")),
    "missing path": (lambda _: None, {}, ("rows.jsonl", "does not exist")),
    "a folder": (lambda f: (f / "rows.jsonl").mkdir(), {}, ("rows.jsonl", "folder")),
    "binary": (raw(bytes(range(256)) * 40), {}, ("rows.jsonl",)),
    "no known column": (rows({"foo": 1}, {"foo": 2}), {}, ("rows.jsonl", "foo")),
    "empty answers": (rows(*ROWS, {"prompt": "And?", "completion": " "}), {}, ("empty answer",)),
    "all rows equal": (rows(*[ROWS[0]] * 40), {}, ("same row",)),
    "answer beyond the context": (rows(*ROWS, LONG), {}, ("longer than the 256 tokens that fit",)),
    "prompt beyond the context": (
        rows(*ROWS, {"prompt": "word " * 2000, "completion": "x"}), {}, ("line 61", "lies beyond the first 256"),
    ),
    "max_length below every prompt": (rows(), {"train": {"max_length": 8}}, ("line 1:", "Raise train.max_length")),
    "unknown key": (rows(), {"train": {"epoch": 2}}, ("train.epoch is an unknown key", 'Did you mean "epochs"?')),
    "unknown method": (rows(), {"method": {"name": "lorra"}}, ('No adapter called "lorra"', 'Did you mean "lora"?')),
    "unknown metric": (rows(), {"evaluate": {"metrics": ["chrff"]}}, ('Did you mean "chrf"?',)),
    "unknown baseline": (rows(), {"evaluate": {"baselines": ["magic"]}}, ('No baseline called "magic"', "few_shot")),
    "unknown objective": (rows(), {"objective": "dpoo"}, ("No objective called",)),
    "rank 0": (rows(), {"method": {"rank": 0}}, ("method.rank is 0", "at least 1")),
    "missing dev file": (rows(), {"data": {"dev": "gone.jsonl"}}, ("gone.jsonl", "does not exist")),
    "empty test file": (
        lambda f: (rows()(f), (f / "held.jsonl").write_text("")), {"data": {"test": "held.jsonl"}}, ("held.jsonl",),
    ),
    "train repeats test": (
        lambda f: (rows()(f), write_jsonl(f / "held.jsonl", ROWS)), {"data": {"test": "held.jsonl"}}, ("held-out row",),
    ),
    "encoder asked to write": (rows(), {"model": "bert"}, ("encoder", "task: classify")),
}  # fmt: skip


def assert_refused(done: Result, folder: Path, said: tuple[str, ...]) -> None:
    assert done.exit_code == 2, (done.output, done.exception)
    assert done.stderr.count("error: ") == 1
    assert "Traceback" not in done.output + done.stderr
    for text in said:
        assert text in done.stderr, done.stderr
    assert not (folder / "runs").exists()
    assert done.stdout == ""


@pytest.mark.parametrize("case", FILES)
def test_a_bad_file_or_key_is_a_sentence_and_leaves_no_run(store: Path, tmp_path: Path, case: str) -> None:
    make, keys, said = FILES[case]
    make(tmp_path)
    if keys.get("model") == "bert":
        keys = {**keys, "model": str(store / "bert")}
    recipe(tmp_path, store, **keys)
    assert_refused(run(tmp_path), tmp_path, said)


def test_a_label_in_the_test_only_is_named(store: Path, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", labelled(60))
    write_jsonl(tmp_path / "held.jsonl", [*labelled(20, seed=9), {"text": "an odd one out", "label": "spam", "who": 1}])
    recipe(tmp_path, store, task="classify", data={"test": "held.jsonl"})
    assert_refused(run(tmp_path), tmp_path, ("held.jsonl line 21", "label 'spam'", "not in train"))


# -- models -----------------------------------------------------------------------------------------------------------


def without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def pickle_only(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def truncated(folder: Path) -> None:
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])


def runs_code(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModel": "evil.Evil"}}))


MODELS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no weights": (without_weights, "has no weights (*.safetensors)"),
    "pickle only": (pickle_only, "has its weights as a pickle only (pytorch_model.bin)"),
    "truncated weights": (truncated, "is damaged, or no safetensors file"),
    "no config": (lambda f: (f / "config.json").unlink(), "has no config.json"),
    "broken config": (lambda f: (f / "config.json").write_text("{"), "is not valid JSON"),
    "code of its own": (runs_code, "Tunesmith never runs a model's code"),
    "broken tokenizer": (lambda f: (f / "tokenizer.json").write_text("{"), "cannot be read"),
    "gone": (shutil.rmtree, "model: "),
}


@pytest.mark.parametrize("case", MODELS)
def test_a_bad_model_folder_is_a_sentence_and_leaves_no_run(store: Path, tmp_path: Path, case: str) -> None:
    spoil, said = MODELS[case]
    shutil.copytree(store / "llama", tmp_path / "model")
    spoil(tmp_path / "model")
    write_jsonl(tmp_path / "rows.jsonl", ROWS)
    recipe(tmp_path, store, model="./model")
    assert_refused(run(tmp_path), tmp_path, (said,))


# -- what only the loaded weights can tell ----------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "said"), [
    ({"target_modules": ["q_prj"]}, 'method.target_modules: "q_prj" matches no linear layer of llama. Did you mean'),
    ({"target_modules": []}, "method.target_modules"),
    ({"rank": 64}, "method.rank is 64; model.layers.0.self_attn.k_proj of llama has 16 dimensions"),
])  # fmt: skip
def test_a_method_that_does_not_fit_the_model_is_refused_and_leaves_nothing(
    store: Path, tmp_path: Path, method: dict[str, Any], said: str
) -> None:
    write_jsonl(tmp_path / "rows.jsonl", ROWS)
    recipe(tmp_path, store, method=method)
    assert_refused(run(tmp_path), tmp_path, (said,))


# -- the process itself -----------------------------------------------------------------------------------------------


def command(folder: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "tunesmith", "run", str(folder / "r.yaml"), "--runs", str(folder), *words]


def test_as_a_process_a_bad_row_gives_one_sentence_and_exit_code_2(store: Path, tmp_path: Path) -> None:
    FILES["malformed line"][0](tmp_path)
    recipe(tmp_path, store)
    done = subprocess.run(command(tmp_path), capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stdout) == (2, "")
    assert "error: " in done.stderr
    assert "rows.jsonl line 61" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_during_training_leaves_an_interrupted_run(
    store: Path, tmp_path: Path, sent: signal.Signals, code: int
) -> None:
    write_jsonl(tmp_path / "rows.jsonl", ROWS)
    recipe(tmp_path, store, train={"epochs": 1000, "patience": 1000})
    with subprocess.Popen(command(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 120
        while not list(tmp_path.glob("runs/*/metrics.jsonl")):
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.1)
        os.kill(process.pid, sent)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (code, ""), err
    assert "Traceback" not in err
    (path,) = tmp_path.glob("runs/*/run.json")
    assert Run.load(path).status == "interrupted"
    assert not (path.parent / "adapter").exists()
