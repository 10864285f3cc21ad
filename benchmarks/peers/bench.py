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
        """One measured process. Every module but ``ours`` is a peer's."""
        found = run(module, dict(spec), self.work, name, hopeless)
        found |= {"name": name, "side": "ours" if module == "ours" else "peer"}
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


def tell(text: str) -> None:
    """Progress, to stderr."""
    print(text, file=sys.stderr, flush=True)
