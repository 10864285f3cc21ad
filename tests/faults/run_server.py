"""``python -m tests.faults.run_server kill|stop TRIALS FOLDER``: the process from which ``runs`` has its runs forked.

Notable: one thread and no pool before the fork, so that the children find torch as a fresh process would.
"""

import hashlib
import json
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import torch
from tests import small
from tests.flows.conftest import asked, write_jsonl

from tunesmith.core.run import Run
from tunesmith.flows import finetune, resume  # noqa: F401  imported before the fork
from tunesmith.models import load, model  # noqa: F401
from tunesmith.records.folder import as_it_stands

METHODS = {
    "lora": "{name: lora, rank: 4, dropout: 0.1}",
    "full": "{name: full}",
}
RECIPE = """
model: MODEL
data: {train: rows.jsonl}
method: METHOD
train: {epochs: 2, batch_tokens: 512, precision: float32, save_every: 0, learning_rate: 3e-3}
evaluate: {baselines: [majority, zero_shot], max_new_tokens: 4, limit: 6}
"""
RESULTS = ("adapter_model.safetensors", "model.safetensors", "tuned.jsonl", "zero_shot.jsonl")
PATIENCE = 120.0
STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def main() -> None:
    kind, count, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    torch.set_num_threads(1)
    small.llama(folder / "llama", max_position_embeddings=256)
    wanted = {method: _untouched(folder / method, method, folder / "llama") for method in METHODS}
    faults, violations = 0, []
    for number in range(count):
        method = list(METHODS)[number % len(METHODS)]
        digest, seconds = wanted[method]
        work = _project(folder / f"trial-{number}", method, folder / "llama")
        trial = _Trial(work, seconds, random.Random(number))
        try:
            (trial.kill if kind == "kill" else trial.stop)()
            found = _digest(trial.folder())
            if found != digest:
                trial.violations.append(f"the result differs: {found}, untouched {digest}")
        except (AssertionError, OSError, ValueError) as error:
            trial.violations.append(f"{type(error).__name__}: {error}")
        faults += trial.faults
        violations += [f"trial {number} ({method}): {told}" for told in trial.violations]
    print(json.dumps({"faults": faults, "violations": violations}))


def _project(work: Path, method: str, base: Path) -> Path:
    work.mkdir()
    write_jsonl(work / "rows.jsonl", asked(60))
    text = RECIPE.replace("MODEL", str(base)).replace("METHOD", METHODS[method])
    (work / "r.yaml").write_text(text, encoding="utf-8")
    return work


def _untouched(work: Path, method: str, base: Path) -> tuple[dict[str, str], float]:
    """What a run gives that nobody touches, and how long its folder lives until it is done."""
    _project(work, method, base)
    pid = _fork(work, "run", "r.yaml")
    folder = _wait_for(lambda: next(iter(work.glob("runs/*/run.json")), None)).parent
    started = time.monotonic()
    code = _ended(pid)
    assert code in (0, 7), (work / "said").read_text()
    return _digest(folder), time.monotonic() - started


def _digest(folder: Path) -> dict[str, str]:
    """Hashes of the weights and of what was answered."""
    files = [p for p in folder.rglob("*") if p.name in RESULTS and "checkpoints" not in p.parts]
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest()[:16] for p in sorted(files)}


def _fork(work: Path, *arguments: str) -> int:
    """A child that is ``tunesmith ARGUMENTS`` in ``work``; what it says is added to ``said``."""
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        os.chdir(work)
        said = os.open("said", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for stream in (1, 2):
            os.dup2(said, stream)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        from tunesmith.cli.main import main as command

        sys.argv = ["tunesmith", *arguments]
        command()
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException:  # noqa: BLE001  whatever it is, the child says it and ends
        traceback.print_exc()
    finally:
        os._exit(code)


def _ended(pid: int) -> int:
    """Its exit code, or the negative number of the signal that ended it."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    raise AssertionError(f"a process did not end within {PATIENCE:.0f} s")


def _wait_for(look: Callable[[], Path | None]) -> Path:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        found = look()
        if found is not None:
            return found
        time.sleep(0.001)
    raise AssertionError(f"nothing came within {PATIENCE:.0f} s")


class _Trial:
    """One run in ``work`` that lives about ``seconds``."""

    def __init__(self, work: Path, seconds: float, draw: random.Random) -> None:
        self.work, self.seconds, self.draw = work, seconds, draw
        self.faults = 0
        self.violations: list[str] = []

    def folder(self) -> Path:
        return _wait_for(lambda: next(iter(self.work.glob("runs/*/run.json")), None)).parent

    def begun(self) -> tuple[int, Path]:
        pid = _fork(self.work, "run", "r.yaml")
        return pid, self.folder()

    def resumed(self) -> int:
        return _fork(self.work, "resume", self.folder().name)

    def said(self) -> str:
        return (self.work / "said").read_text(encoding="utf-8")[-1500:]

    def kill(self) -> None:
        """Kill at a random moment of the run's life; at most two more kills hit its resumptions."""
        pid, folder = self.begun()
        for left in (2, 1, 0):
            time.sleep(self.draw.uniform(0, self.seconds))
            os.kill(pid, signal.SIGKILL)
            code = _ended(pid)
            if code == -signal.SIGKILL:
                self.faults += 1
                status = as_it_stands(Run.load(folder / "run.json")).status
                if status not in ("crashed", "done"):
                    self.violations.append(f"a killed run shows as {status}")
            if self._is_done(folder):
                return
            pid = self.resumed()
            if left == 0 or self.draw.random() < 0.5:
                break
        self._gets_through(pid, folder)

    def stop(self) -> None:
        """Ask to stop at a random moment, sometimes twice."""
        pid, folder = self.begun()
        sent = STOPS[self.draw.randrange(len(STOPS))]
        time.sleep(self.draw.uniform(0, self.seconds))
        twice = self.draw.random() < 0.3
        for _ in range(2 if twice else 1):
            os.kill(pid, sent)
            time.sleep(self.draw.uniform(0, 0.02))
        self.faults += 1
        code = _ended(pid)
        run = as_it_stands(Run.load(folder / "run.json"))
        if run.status == "done":
            return
        if code != 128 + sent:
            self.violations.append(f"{sent.name}: exit code {code}; {self.said()}")
        if run.status not in ("interrupted", "crashed") or (
            sent != signal.SIGHUP and run.status == "crashed" and not twice
        ):
            self.violations.append(f"{sent.name}: the run shows as {run.status}; {self.said()}")
        self._gets_through(self.resumed(), folder)

    def _is_done(self, folder: Path) -> bool:
        return Run.load(folder / "run.json").status == "done"

    def _gets_through(self, pid: int, folder: Path) -> None:
        code = _ended(pid)
        if code not in (0, 7) or not self._is_done(folder):
            self.violations.append(f"the resumption ended with {code}: {self.said()}")


if __name__ == "__main__":
    main()
