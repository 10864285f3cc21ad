"""A training that was stopped goes on with the bits of one that never was; and what is kept on the way.

Notable: shuffled rows, dropout in LoRA and in the encoder, packed rows, micro-batches and looks at dev are in play.
"""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import small
from tunesmith.core.batch import Batch
from tunesmith.core.errors import DiskError, Interrupted, ModelError
from tunesmith.data.batches import Steps, collate
from tunesmith.models.model import Model
from tunesmith.objectives.classify import PART as CLASSIFY
from tunesmith.objectives.sft import PART as SFT
from tunesmith.train.loop import Hooks, fit
from tunesmith.train.optimiser import adamw, adamw_8bit
from tunesmith.train.saver import Saver
from tunesmith.train.state import DevResult, Progress, Snapshot

ROWS = small.rows(24, classes=3)
PLAN = small.plan(steps=14, warmup_steps=2, learning_rate=5e-3, eval_every=3)
KINDS = {
    "full": lambda llama, bert: (small.decoder(llama), SFT),
    "lora": lambda llama, bert: (small.decoder(llama, "lora", dropout=0.2), SFT),
    "lisa": lambda llama, bert: (small.decoder(llama, "lisa"), SFT),
    "adalora": lambda llama, bert: (small.decoder(llama, "adalora"), SFT),
    "encoder": lambda llama, bert: (small.encoder(bert), CLASSIFY),
}


def source() -> Steps:
    """Five or so steps an epoch, each of several micro-batches."""
    return Steps(ROWS, batch_tokens=90, micro_tokens=40, pad_id=0, seed=3)


def dev(model: Model, objective: Any) -> DevResult:
    batch = collate(ROWS[:6], 0)
    with torch.no_grad():
        logp = getattr(model, objective.needs)(batch)
    loss = float(objective.loss(logp, batch))
    return DevResult(loss, (loss,))


def run(
    made: tuple[Model, Any], resume: Snapshot | None = None, **hooks: Any
) -> tuple[Model, Progress, list[Snapshot]]:
    model, objective = made
    taken: list[Snapshot] = []
    if resume is None:
        torch.manual_seed(5)
    else:
        torch.manual_seed(99)  # wherever the process is: the snapshot's state counts
    every = {"after_step": lambda _step, _last, snapshot: taken.append(small.through_json(snapshot(True)))}
    looks = Hooks(evaluate=lambda: dev(model, objective), resume=resume, **{**every, **hooks})
    progress = fit(model, objective, source(), PLAN, looks)
    return model, progress, taken


def told(progress: Progress) -> list[tuple[Any, ...]]:
    return [(p.step, p.tokens, p.loss, p.dev_loss, p.learning_rate) for p in progress.curve]


@pytest.mark.parametrize("kind", KINDS)
def test_resuming_after_any_step_gives_the_same_bits(kind: str, llama: Path, bert: Path) -> None:
    model, progress, taken = run(KINDS[kind](llama, bert))
    ends = small.weights(model)
    epochs = [s.progress["epoch"] for s in taken]
    assert len(taken) == 14 and max(epochs) >= 2
    last_of_epoch = epochs.index(1) - 1
    for at in {0, last_of_epoch, last_of_epoch + 2, epochs.index(1) + 3, 12, 13}:
        again, went, later = run(KINDS[kind](llama, bert), taken[at])
        assert len(later) == 13 - at
        assert all(torch.equal(p, ends[n]) for n, p in again.trainable()), (kind, at)
        assert told(went) == told(progress)
        assert (went.best, went.best_step, went.stopped) == (progress.best, progress.best_step, progress.stopped)


def test_resuming_what_was_resumed_gives_the_same_bits(llama: Path, bert: Path) -> None:
    model, _, taken = run(KINDS["lora"](llama, bert))
    _, _, later = run(KINDS["lora"](llama, bert), taken[2])
    _, _, latest = run(KINDS["lora"](llama, bert), later[3])
    assert latest[0].step == 8
    again, _, _ = run(KINDS["lora"](llama, bert), latest[1])
    assert all(torch.equal(p, small.weights(model)[n]) for n, p in again.trainable())
    for key, tensor in taken[8].tensors.items():
        assert torch.equal(latest[1].tensors[key], tensor), key


def test_a_step_that_was_cut_off_half_way_is_taken_again_whole(llama: Path, bert: Path) -> None:
    """Killed in the second micro-batch of step 7: the snapshot of step 6 leads to the same bits."""
    model, _, _ = run(KINDS["lora"](llama, bert))
    seen, stopped = [], KINDS["lora"](llama, bert)
    own = stopped[0].token_logp

    def dying(batch: Batch) -> torch.Tensor:
        seen.append(batch)
        if len(taken) == 6 and len(seen) >= 2 and seen[-2] is not None and stopped[0].network.training:
            raise KeyboardInterrupt
        return own(batch)

    taken: list[Snapshot] = []
    stopped[0].token_logp = dying  # type: ignore[method-assign]

    def keep(_step: int, _last: bool, snapshot: Any) -> None:
        taken.append(small.through_json(snapshot(True)))
        seen[:] = [None]  # type: ignore[list-item]

    with pytest.raises(KeyboardInterrupt):
        run(stopped, after_step=keep)
    again, _, _ = run(KINDS["lora"](llama, bert), taken[-1])
    assert all(torch.equal(p, small.weights(model)[n]) for n, p in again.trainable())


def test_bfloat16_masters_and_eight_bit_moments_come_back(llama: Path) -> None:
    from tunesmith.models import load as loading

    def made() -> tuple[Model, Any]:
        return small.attach(loading.load(str(llama), precision="bfloat16"), "full"), SFT

    for optimisers in (adamw, adamw_8bit):
        model, _, taken = run(made(), make_optimisers=optimisers)
        again, _, _ = run(made(), taken[5], make_optimisers=optimisers)
        assert all(torch.equal(p, small.weights(model)[n]) for n, p in again.trainable())
        own, other = model.network.state_dict(), again.network.state_dict()
        assert all(torch.equal(other[n], t) for n, t in own.items())


def test_a_snapshot_of_other_weights_is_refused(llama: Path, bert: Path) -> None:
    _, _, taken = run(KINDS["lora"](llama, bert))
    with pytest.raises(ModelError, match=r"other weights than this training has, such as weight/"):
        run(KINDS["full"](llama, bert), taken[0])


def test_progress_survives_json_with_what_is_not_finite() -> None:
    progress = Progress(step=3, best=DevResult(math.inf, (0.25, math.inf)), stopped="x")
    assert Progress.of_plain(json.loads(json.dumps(progress.plain()))) == progress


# --- The saver ------------------------------------------------------------------------------------------------------


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


EMPTY = Snapshot({"step": 1}, {}, None, {})


def saver(clock: Clock, failing: Iterator[bool] | None = None, **options: Any) -> tuple[Saver, list[int], list[str]]:
    written, notes = [], []

    def write(snapshot: Snapshot) -> float:
        if failing is not None and next(failing):
            raise DiskError("Cannot write x: No space left on device. Free space.")
        written.append(snapshot.step)
        return 0.5

    return Saver(write, notes.append, clock=clock, **options), written, notes


def at(one: Saver, clock: Clock, now: float, step: int, *, last: bool = False) -> None:
    clock.now = now
    one.after_step(step, last=last, capture=lambda _copy: Snapshot({"step": step}, {}, None, {}))
    one.finish()


def test_saves_are_due_by_the_clock_and_never_take_more_than_their_share() -> None:
    clock = Clock()
    one, written, _ = saver(clock, every=10.0)
    for now in range(1, 41):
        at(one, clock, now, now)
    assert written == [10, 35]  # half a second a save: 25 s are due between two
    at(one, clock, 41, 41, last=True)
    assert written == [10, 35, 41]  # the end is worth one, for more than a quarter of the time has gone
    assert one.saved_step == 41


def test_a_short_run_is_saved_once_at_its_end() -> None:
    clock = Clock()
    one, written, _ = saver(clock, every=100.0)
    at(one, clock, 20, 1, last=True)
    assert written == []
    at(one, clock, 30, 2, last=True)
    assert written == [2]


def test_a_full_disk_costs_a_note_and_three_in_a_row_the_run() -> None:
    clock = Clock()
    one, written, notes = saver(clock, iter([False, True, True, False, True, True, True]), every=0.0, as_asked=True)
    for step in range(1, 7):
        at(one, clock, float(step), step)
    assert written == [1, 4]
    assert len(notes) == 4  # of steps 2, 3, 5 and 6
    assert "Step 2 could not be saved" in notes[0] and "the last checkpoint is step 1" in notes[0]
    with pytest.raises(DiskError, match=r"That was the save no\. 3 to fail; the last good is step 4") as caught:
        at(one, clock, 7.0, 7)
    assert caught.value.exit_code == 6


def test_a_signal_saves_at_once_and_ends_the_run() -> None:
    clock = Clock()
    one, written, _ = saver(clock, every=1000.0)
    at(one, clock, 1.0, 1)
    one.stop = 15
    with pytest.raises(Interrupted, match="Interrupted at step 2; the last checkpoint is step 2") as caught:
        at(one, clock, 2.0, 2)
    assert written == [2] and caught.value.exit_code == 143


def test_a_large_snapshot_is_written_between_two_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    from tunesmith.train import saver as module

    clock, where, copied = Clock(), [], []

    def write(_: Snapshot) -> float:
        where.append(threading.current_thread() is threading.main_thread())
        return 0.1

    def capture(copy: bool) -> Snapshot:
        copied.append(copy)
        return Snapshot({"step": 1}, {"a": torch.ones(2)}, None, {})

    one = Saver(write, print, every=0.0, as_asked=True, clock=clock)
    for bound in (1 << 30, 0):
        monkeypatch.setattr(module, "BESIDE", bound)
        one.after_step(1, last=False, capture=capture)
        one.finish()
    assert where == [False, True]
    assert copied == [False, True, False]  # the large one is written as it stands


def test_an_interval_that_was_asked_for_is_kept() -> None:
    clock = Clock()
    one, written, _ = saver(clock, every=10.0, as_asked=True)
    for now in range(1, 41):
        at(one, clock, now, now)
    assert written == [10, 20, 30, 40]


def test_a_signal_after_the_last_step_is_not_lost() -> None:
    clock = Clock()
    one, _, _ = saver(clock, every=0.0, as_asked=True)
    at(one, clock, 1.0, 7)
    one.grant(7)
    one.stop = 15
    with pytest.raises(Interrupted, match=r"after step 7, the last one; the last checkpoint is step 7"):
        one.grant(7)


# --- What else a snapshot has to hold -------------------------------------------------------------------------------


def kept(taken: list[Snapshot], resume: Snapshot | None, **hooks: Any) -> Hooks:
    keep = lambda _step, _last, snapshot: taken.append(small.through_json(snapshot(True)))  # noqa: E731
    return Hooks(after_step=keep, resume=resume, **hooks)


def test_the_update_within_the_backward_pass_is_resumed(llama: Path) -> None:
    def train(resume: Snapshot | None = None) -> tuple[Model, list[Snapshot]]:
        model, taken = small.decoder(llama), []
        plan = small.plan(steps=8, memory="least", learning_rate=1e-3)
        fit(model, SFT, small.Passes(small.rows(12), step=4, micro=4), plan, kept(taken, resume))
        return model, taken

    model, taken = train()
    again, _ = train(taken[3])
    assert all(torch.equal(p, small.weights(model)[n]) for n, p in again.trainable())


def test_micro_batches_that_were_cut_stay_cut(llama: Path) -> None:
    def train(resume: Snapshot | None = None) -> tuple[Model, list[Snapshot], list[int]]:
        model, taken, seen = small.decoder(llama, "lora", dropout=0.2), [], []
        own = model.token_logp

        def tight(batch: Batch) -> torch.Tensor:
            seen.append(len(batch.length_B))
            if len(batch.length_B) > 2:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return own(batch)

        model.token_logp = tight  # type: ignore[method-assign]
        torch.manual_seed(0)
        source = small.Passes(small.rows(12), step=6, micro=6)
        fit(model, SFT, source, small.plan(steps=6), kept(taken, resume))
        return model, taken, seen

    model, taken, _ = train()
    again, _, seen = train(taken[2])
    assert set(seen) == {1, 2}  # nothing was tried whole again
    assert all(torch.equal(p, small.weights(model)[n]) for n, p in again.trainable())


def test_patience_that_was_used_up_in_part_goes_on(llama: Path) -> None:
    losses = [5.0, 4.0, 4.5, 4.4, 4.3, 4.2, 4.1, 4.05, 4.02, 4.01, 4.005, 4.001]

    def train(resume: Snapshot | None = None, patience: int = 6) -> tuple[Progress, list[Snapshot]]:
        model, taken = small.decoder(llama, "lora"), [resume] * (resume.step if resume else 0)

        def look() -> DevResult:
            return DevResult(losses[len(taken)], (losses[len(taken)],))

        plan = small.plan(steps=12, eval_every=1, patience=patience)
        source = small.Passes(small.rows(4), step=4, micro=4)
        return fit(model, SFT, source, plan, kept(taken, resume, evaluate=look)), taken

    whole, taken = train()
    assert (whole.step, whole.stopped, whole.best_step, whole.since_best) == (8, "no improvement on dev", 2, 6)
    for at in (3, 6, 7):
        again, _ = train(taken[at])
        assert (again.step, again.stopped, again.best_step, again.since_best) == (8, whole.stopped, 2, 6)
    longer, _ = train(taken[7], patience=9)  # what had stopped goes on where more patience is allowed
    assert (longer.step, longer.since_best) == (11, 9)
