"""The door: help at once and without torch, errors as sentences with their exit codes, signals, the unforeseen."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

import tunesmith
from tunesmith.cli.main import PANELS, Verbs, app
from tunesmith.core import errors

HEAVY = ("torch", "transformers", "numpy", "sklearn", "scipy", "pyarrow", "jinja2")
VERBS = [verb.__name__ for verbs in PANELS.values() for verb in verbs]


def python(*words: str, **keywords: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=60, check=False, **keywords)  # type: ignore[call-overload, no-any-return]


@pytest.mark.parametrize("words", [["--help"], ["run", "--help"], ["--version"]])
def test_help_imports_nothing_heavy(words: list[str]) -> None:
    heavy = (
        (*HEAVY, "pydantic", "yaml", "hashlib") if words[0] != "run" else HEAVY
    )  # typer itself reads lists with pydantic
    code = f"""
import sys
from tunesmith.cli.main import main
sys.argv = ["tunesmith", *{words!r}]
try:
    main()
except SystemExit as leave:
    assert not leave.code
print("LOADED", *[name for name in {heavy!r} if name in sys.modules])
"""
    assert python("-c", code).stdout.splitlines()[-1].split() == ["LOADED"]


def test_help_answers_as_soon_as_its_libraries_allow() -> None:
    """About 0.25 s where this was written; beside what typer and rich take, so that a slow machine changes nothing."""

    def processor_seconds(*arguments: str) -> float:
        before = os.times()
        assert python(*arguments).returncode == 0
        after = os.times()
        return after.children_user - before.children_user + after.children_system - before.children_system

    pairs = [
        (processor_seconds("-m", "tunesmith", "--help"), processor_seconds("-c", "import typer, typer.rich_utils"))
        for _ in range(4)
    ]
    assert min(ours for ours, _ in pairs) < 2.0 * min(bare for _, bare in pairs)


def test_the_package_imports_no_torch_and_finds_its_flows_when_asked() -> None:
    code = "import tunesmith, sys; assert 'torch' not in sys.modules\n"
    code += "print(*(getattr(tunesmith, name).__name__ for name in tunesmith.__all__))"
    done = python("-c", code)
    assert (done.returncode, done.stdout.split()) == (0, tunesmith.__all__), done.stderr
    assert {"finetune", "run_stages"} <= set(tunesmith.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'fintune'"):
        _ = tunesmith.fintune  # type: ignore[attr-defined]


def test_version_and_verbs() -> None:
    assert CliRunner().invoke(app, ["--version"]).stdout == f"tunesmith {tunesmith.__version__}\n"
    page = CliRunner().invoke(app, ["--help"]).stdout
    for word in (*VERBS, *PANELS):
        assert word in page
    assert len(VERBS) <= 20


def group_for(sub: typer.models.CommandFunctionType) -> typer.Typer:
    own = typer.Typer(cls=Verbs, pretty_exceptions_enable=False)

    @own.callback()
    def common(debug: bool = False) -> None: ...

    own.command("fail")(sub)
    return own


@pytest.mark.parametrize(("raised", "code", "said"), [
    (errors.TunesmithError("x"), 1, "error: x"),
    (errors.RecipeError("the key"), 2, "error: the key"),
    (errors.DataError("x"), 2, "error: x"), (errors.ModelError("x"), 2, "error: x"),
    (errors.PartError("x"), 2, "error: x"), (errors.BusyError("x"), 3, "error: x"),
    (errors.MemoryNeeded("x"), 4, "error: x"), (errors.Diverged("x"), 5, "error: x"),
    (errors.DiskError("x"), 6, "error: x"), (MemoryError(), 4, "error: out of memory"),
    (OSError(28, "No space left", "/data"), 6, "error: /data: no space left"),
    (KeyboardInterrupt(), 130, "Stopped by Ctrl-C"),
], ids=lambda value: type(value).__name__)  # fmt: skip
def test_each_error_has_its_exit_code_and_its_sentence_on_stderr(raised: BaseException, code: int, said: str) -> None:
    def fail() -> None:
        raise raised

    done = CliRunner().invoke(group_for(fail), ["fail"])
    assert (done.exit_code, done.stdout) == (code, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    if isinstance(raised, errors.TunesmithError):
        assert "Traceback" in CliRunner().invoke(group_for(fail), ["--debug", "fail"]).stderr


@pytest.mark.parametrize("words", [["runn"], ["runs", "--jsn"], ["run"], ["chat", "x", "--temperature", "-1"]])
def test_wrong_words_leave_with_2(words: list[str]) -> None:
    assert CliRunner().invoke(app, words).exit_code == 2


UNFORESEEN = """
from tunesmith.cli import main as door
@door.app.command()
def boom() -> None:
    raise KeyError("a secret place")
@door.app.command()
def wait() -> None:
    import time
    print("ready", flush=True)
    time.sleep(30)
import sys
sys.argv = ["tunesmith", *sys.argv[1:]]
door.main()
"""


def test_an_unforeseen_exception_is_one_sentence_and_a_file(tmp_path: Path) -> None:
    done = python("-c", UNFORESEEN, "boom", env={**os.environ, "TMPDIR": str(tmp_path)})
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 1)
    assert done.stderr.startswith("error: KeyError: 'a secret place'. This is a bug in Tunesmith.")
    match = re.search(r"in (\S+\.txt);", done.stderr)
    assert match is not None
    assert "Traceback (most recent call last)" in Path(match[1]).read_text()


def test_debug_shows_the_traceback_instead() -> None:
    done = python("-c", UNFORESEEN, "--debug", "boom")
    assert done.returncode == 1
    assert "Traceback (most recent call last)" in done.stderr


@pytest.mark.parametrize(("number", "code", "said"), [(signal.SIGINT, 130, "Ctrl-C"), (signal.SIGTERM, 143, "SIGTERM")])
def test_signals_leave_with_their_exit_code(number: signal.Signals, code: int, said: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", UNFORESEEN, "wait"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        time.sleep(0.05)
        child.send_signal(number)
        _, stderr = child.communicate(timeout=20)
    assert child.returncode == code
    assert f"Stopped by {said}." in stderr
