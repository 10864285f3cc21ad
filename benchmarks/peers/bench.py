"""One call of the benchmark: how much is run, where it lies, and how one measured process is started and told of.

Notable: the side a result belongs to follows from the module that made it, so no caller can mislabel it.
"""

import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peers import figures
from peers.configurations import RANK, Shape, Sizes
from peers.processes import Hopeless, Result, run

PROCESS = ("peak_bytes", "process_seconds")  # which every process tells of itself
PATIENCE = 120.0  # seconds of training before a configuration may be stopped as far too slow
SHARE_LEFT = 1 / 3  # a configuration of the peer that is slower than this share of the fastest may be stopped


@dataclass(frozen=True)
class Bench:
    """``work`` keeps models, rows, logs and raw results; ``shared`` holds the real sets."""

    sizes: Sizes
    work: Path
    shared: Path
    repeats: int

    def material(self, name: str, shape: Shape, rows: str, **what: Any) -> tuple[dict[str, str], dict[str, Any]]:
        """Paths of a model, its adapter and ``rows``.jsonl, and facts of the rows; ``what`` goes to ``material``."""
        paths = {"model": f"model-{name}", "adapter": f"adapter-{name}", "rows": f"{rows}.jsonl"}
        wanted: dict[str, Any] = {key: str(self.work / below) for key, below in paths.items()}
        wanted |= {"work": str(self.work), "shared": str(self.shared), "books": self.sizes.books, "rank": RANK}
        facts = run("material", wanted | {"shape": shape} | what, self.work, "material")
        return {key: wanted[key] for key in paths}, {k: v for k, v in facts.items() if k not in PROCESS}

    def go(self, module: str, name: str, spec: Mapping[str, Any], hopeless: Hopeless | None = None) -> Result:
        """One measured process. A module whose name does not begin with ``ours`` is a peer's."""
        found = run(module, dict(spec), self.work, name, hopeless)
        found |= {"name": name, "side": "ours" if module.startswith("ours") else "peer"}
        memory, seconds = f"{found['peak_bytes'] / 2**30:.2f} GiB", f"{found['process_seconds']:.0f} s in all"
        if "stopped_after" in found:
            tell(f"  {name}: stopped in training after {found['stopped_after']:.0f} s, {memory}, {seconds}")
        else:
            unit = "rows" if "rows" in found and "trained" not in found else "tokens"
            tell(f"  {name}: {figures.rate(found, unit):,.4g} {unit}/s, {memory}, {seconds}")
        return found

    def again(
        self, ours: Callable[[], Result], peer: Callable[[], Result], found: Iterable[Result] = ()
    ) -> list[Result]:
        """``found`` and ours and the peer in turn until each has run ``repeats`` times (``found`` is one round)."""
        held = list(found) or [ours(), peer()]
        for _ in range(self.repeats - 1):
            held += [ours(), peer()]
        return held


def slower(best: float, step: float, patience: float) -> Hopeless:
    """Whether a process that has trained for ``patience`` seconds runs below ``SHARE_LEFT`` of ``best`` units a second,
    the step of ``step`` units that it is in counted as done."""
    return lambda seconds, done: seconds > patience and (done + 1) * step < SHARE_LEFT * best * seconds


def tried(
    go: Callable[[Any, Hopeless], Result], peers: Iterable[Any], runs: list[Result], step: float, what: str
) -> list[dict[str, Any]]:
    """Run each of ``peers``, whose optimiser step has ``step`` rows (``what``), and add it to ``runs``; returns what is
    known of those that were stopped as far too slow. One whose ``leaner`` was stopped is not tried."""
    stopped: list[dict[str, Any]] = []
    for peer in peers:
        if any(told["name"] == peer.leaner for told in stopped):
            stopped.append({"name": peer.name, "because": f"{peer.leaner} was stopped"})
            continue
        best = max((figures.rate(run, "rows") for run in runs if run["side"] == "peer"), default=0.0)
        found = go(peer, slower(best, step, PATIENCE))
        if "stopped_after" in found:
            below = (found["steps_done"] + 1) * step / found["stopped_after"]
            told = {f"{what}_per_s_below": round(below, 3), "peak_bytes_at_least": found["peak_bytes"]}
            stopped.append({"name": peer.name} | told)
        else:
            runs.append(found)
    return stopped


def tell(text: str) -> None:
    """Progress, to stderr."""
    print(text, file=sys.stderr, flush=True)
