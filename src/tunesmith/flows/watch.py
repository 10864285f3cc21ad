"""How a flow tells what it is doing, without knowing who listens."""

from typing import Protocol

from tunesmith.core.report import CurvePoint


class Watcher(Protocol):
    def stage(self, name: str, detail: str = "") -> None: ...
    def step(self, point: CurvePoint, total_steps: int, tokens_per_second: float) -> None: ...
    def note(self, text: str) -> None: ...


class Noting:
    """Hands everything on, and keeps the notes for the report."""

    def __init__(self, to: Watcher) -> None:
        self.to = to
        self.notes: list[str] = []

    def stage(self, name: str, detail: str = "") -> None:
        self.to.stage(name, detail)

    def step(self, point: CurvePoint, total_steps: int, tokens_per_second: float) -> None:
        self.to.step(point, total_steps, tokens_per_second)

    def note(self, text: str) -> None:
        self.notes.append(text)
        self.to.note(text)


class Silent:
    """Listens to nothing."""

    def stage(self, name: str, detail: str = "") -> None:
        return

    def step(self, point: CurvePoint, total_steps: int, tokens_per_second: float) -> None:
        return

    def note(self, text: str) -> None:
        return
