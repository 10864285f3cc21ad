"""How a flow tells what it is doing, without knowing who listens."""

from typing import Protocol

from tunesmith.core.report import CurvePoint


class Watcher(Protocol):
    def stage(self, name: str, detail: str = "") -> None: ...
    def step(self, point: CurvePoint, total_steps: int, tokens_per_second: float) -> None: ...
    def note(self, text: str) -> None: ...


class Silent:
    """Listens to nothing."""

    def stage(self, name: str, detail: str = "") -> None:
        return

    def step(self, point: CurvePoint, total_steps: int, tokens_per_second: float) -> None:
        return

    def note(self, text: str) -> None:
        return
