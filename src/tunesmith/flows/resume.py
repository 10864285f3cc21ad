"""A run that stopped half-way goes on: from its newest whole checkpoint, with the baselines that it has measured.

Notable: whatever the run stands on is looked at first, and a change is refused by name: going on with other rows or
another base would give a result that nobody asked for. On a processor the result has the bits of a run that never
stopped.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tunesmith.core import files, recipe_file
from tunesmith.core.errors import DataError
from tunesmith.core.origin import check_same, plan_after
from tunesmith.core.run import Run
from tunesmith.flows import keeping
from tunesmith.flows.checkpointing import room
from tunesmith.flows.finetune import Clock, carry_out, checkpointing, made_ready, recorded, versions
from tunesmith.flows.prepare import Prepared
from tunesmith.flows.watch import Silent, Watcher
from tunesmith.present.words import duration
from tunesmith.records.folder import RunFolder, read_jsonl
from tunesmith.train.state import Snapshot


def resume(
    path: Path | str,
    *,
    allow: Sequence[str] = (),
    strict: bool = False,
    dry_run: bool = False,
    watch: Watcher | None = None,
) -> Run:
    """Go on with the run in the folder ``path``. ``allow`` names keys of its recipe that may have changed; ``strict``
    refuses an older checkpoint where the newest is damaged; ``dry_run`` tells and changes nothing of the run.

    Raises the errors of ``core.errors``: DataError for a run that is done or whose files are damaged, RecipeError with
    everything that has changed, BusyError where another process has the run.
    """
    watch, folder = watch or Silent(), RunFolder(Path(path).absolute())
    workspace, clock = folder.path.parent.parent, Clock(watch)
    with folder.lock():
        run, then = _unfinished(folder), keeping.read_origin(folder)
        hashes, now = (then.content_hash(), *then.before), then

        def settle(fresh: Prepared) -> Prepared:
            """The plan is the one that the run began with, whatever this machine would plan."""
            nonlocal now
            found = keeping.origin(fresh, versions())
            changed = check_same(then, found, allow)
            for told in changed.values():
                clock.watch.note(f"Allowed: {told}.")
            plan = plan_after(then.plan, fresh.plan, list(changed))
            if changed:
                now = found.model_copy(update={"plan": plan, "before": hashes})
            return replace(fresh, plan=plan)

        prepared, model = made_ready(recipe_file.load(folder.recipe), workspace, clock, settle)
        kept = checkpointing(folder, prepared, now, watch)
        snapshot = kept.latest(hashes, strict=strict)
        watch.note(_told(folder, prepared, snapshot))
        if dry_run:
            return run
        folder.check_space(room(model))
        with recorded(folder, prepared, workspace, run.created) as record:
            if now is not then:
                keeping.write_origin(folder, now)
                prepared.plan.save(folder.resolved)
            if snapshot is not None:
                kept.checkpoints.set_aside(newer_than=snapshot.step)
            curve = snapshot.progress["curve"] if snapshot is not None else []
            files.write_text(folder.metrics, "".join(f"{json.dumps(point)}\n" for point in curve))
            step = 0 if snapshot is None else snapshot.step
            told = [p.model_dump_json() for p in folder.rollout_points() if p.step < step]
            files.write_text(folder.rollouts, "".join(f"{line}\n" for line in told))
            return carry_out(folder, model, prepared, record, clock, kept, snapshot)


def _unfinished(folder: RunFolder) -> Run:
    try:
        run = Run.load(folder.run)
    except (OSError, ValueError) as error:
        raise DataError(f"{folder.run} cannot be read ({str(error).splitlines()[0]}). Start a new run.") from error
    if run.status == "done":
        raise DataError(f"Run {folder.id} is done; there is nothing to resume. See tunesmith show {folder.id}.")
    return run


def _told(folder: RunFolder, prepared: Prepared, snapshot: Snapshot | None) -> str:
    """What will be done again, and what is left."""
    rows = read_jsonl(folder.metrics)
    seen = max((int(r["step"]) for r in rows if isinstance(r.get("step"), int)), default=0)
    step = 0 if snapshot is None else snapshot.step
    paces = [r["seconds"] / r["step"] for r in rows[-1:] if r.get("step") and isinstance(r.get("seconds"), float)]
    again, left = max(seen - step, 0), max(prepared.plan.steps - step, 0)

    def told(steps: int, what: str) -> str:
        number = f"{steps} steps are" if steps > 1 else "1 step is" if steps else "no step is"
        return f"{number} {what}" + (f", about {duration(paces[0] * steps)}" if paces and steps else "")

    start = "No checkpoint was made yet" if snapshot is None else f"Going on from step {step} of {prepared.plan.steps}"
    return f"{start}: {told(again, 'done again')}; {told(left, 'left')}."
