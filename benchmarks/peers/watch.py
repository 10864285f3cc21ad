"""The clock of both peers: transformers' trainer says when a step ended and what its loss was."""

from typing import Any

from transformers import TrainerCallback

from peers.common import Clock


class Watch(TrainerCallback):
    """Reads ``clock`` at the trainer's own events."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.clock.begin()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.clock.step()

    def on_log(self, *_: Any, logs: dict[str, Any] | None = None, **__: Any) -> None:
        if logs and "loss" in logs:
            self.clock.losses.append(float(logs["loss"]))
