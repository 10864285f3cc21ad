"""What a run keeps beside its checkpoints so that it can go on after anything: its origin and its answers."""

import hashlib
import json
from array import array
from pathlib import Path

from tunesmith.core import files
from tunesmith.core.errors import DataError
from tunesmith.core.example import Message
from tunesmith.core.export import Question
from tunesmith.core.origin import Origin
from tunesmith.core.report import Prediction, SystemResult
from tunesmith.data.render import Renderer
from tunesmith.flows.judging import Baselines
from tunesmith.flows.prepare import Prepared
from tunesmith.flows.rewarding import start_hash
from tunesmith.records.folder import RunFolder

SYSTEMS = "systems.json"
QUESTIONS = 8  # held-out prompts by which an export is proven


def origin(prepared: Prepared, versions: dict[str, str]) -> Origin:
    """What ``prepared`` stands on."""
    recipe = prepared.recipe
    paths = {role: getattr(recipe.data, role) for role in ("train", "dev", "test")}
    follows = {"start": recipe.start, "reward.model": recipe.reward.model, "reward.judge": recipe.reward.judge}
    digest = hashlib.sha256()
    for row in (r for unit in (*prepared.train_rows, *prepared.dev_rows) for r in unit.unit):
        digest.update(array("q", (row.label, *row.ids)).tobytes())
        digest.update(array("d", row.weight).tobytes())
    card = prepared.card
    return Origin(
        recipe=recipe,
        files={role: files.sha256(Path(path)) for role, path in paths.items() if path is not None},
        plan=prepared.plan,
        model={"weights": card.fingerprint, "tokenizer": card.tokenizer_hash, "chat template": card.template_hash}
        | {key: start_hash(run) for key, run in follows.items() if run is not None},
        rows=digest.hexdigest()[:16],
        test=prepared.splits.test_hash,
        versions=versions,
    )


def write_origin(folder: RunFolder, found: Origin) -> None:
    """One file, whole or not at all, with its own hash in it. Raises DiskError."""
    sealed = {"hash": found.content_hash(), "origin": found.model_dump(mode="json")}
    files.write_text(folder.origin, json.dumps(sealed, indent=1) + "\n")


def read_origin(folder: RunFolder) -> Origin:
    """Raises DataError where it is not what was written."""
    try:
        sealed = json.loads(folder.origin.read_text(encoding="utf-8"))
        found = Origin.model_validate(sealed["origin"])
        if found.content_hash() != sealed["hash"]:
            raise DataError(f"{folder.origin} is damaged: its hash is not that of what it holds. Start a new run.")
    except (OSError, ValueError, LookupError, TypeError) as error:
        if isinstance(error, DataError):
            raise
        first = str(error).splitlines()[0]
        raise DataError(
            f"{folder.origin}: what this run stands on cannot be read ({first}). Start a new run."
        ) from error
    return found


def write_predictions(folder: RunFolder, bars: Baselines, tuned: tuple[Prediction, ...] | None = None) -> None:
    """Every answer, one file a system, and what the baselines scored: whole or not at all. Raises DiskError."""
    answers = bars.predictions if tuned is None else bars.predictions | {"tuned": tuned}
    systems = {"results": [r.model_dump(mode="json") for r in bars.results], "notes": list(bars.notes)}
    with files.publish(folder.predictions) as temporary:
        for name, predictions in answers.items():
            lines = (json.dumps(p.model_dump(mode="json"), ensure_ascii=False) + "\n" for p in predictions)
            text = "".join(lines)
            (temporary / f"{name}.jsonl").write_bytes(text.encode("utf-8", "surrogatepass"))
        (temporary / SYSTEMS).write_text(json.dumps(systems), encoding="utf-8")


def read_baselines(folder: RunFolder) -> Baselines | None:
    """What ``write_predictions`` left of the baselines; None where it is not there or not whole."""
    try:
        files.verify(folder.predictions)
        kept = json.loads((folder.predictions / SYSTEMS).read_text(encoding="utf-8"))
        results = tuple(SystemResult.model_validate(r) for r in kept["results"])
        answers = {r.name: read_predictions(folder, r.name) for r in results}
    except (DataError, OSError, ValueError, LookupError):
        return None
    return Baselines(results, answers, tuple(kept["notes"]))


def write_questions(folder: RunFolder, prepared: Prepared) -> None:
    """The prompts of the first locked test rows, without their answers. A text that holds a special token's string is
    no question: other programs take it for the token. Raises DiskError."""
    renderer = Renderer(prepared.tokenizer)
    lines: list[str] = []
    for row in prepared.splits.test:
        whole = prepared.uses_head or not row.prompt
        asked = Question(text=row.input_text) if whole else Question(messages=row.prompt, tools=row.tools)
        shown = asked.messages or (Message(role="user", content=asked.text or ""),)
        if len(lines) < QUESTIONS and not renderer.holds_specials(shown, asked.tools):
            lines.append(json.dumps(asked.model_dump(mode="json"), ensure_ascii=False) + "\n")
    files.write_text(folder.questions, "".join(lines))


def read_questions(folder: RunFolder) -> tuple[Question, ...]:
    """Raises DataError where there are none, or they are not what was written."""
    try:
        lines = folder.questions.read_bytes().decode("utf-8", "surrogatepass").split("\n")[:-1]
        found = tuple(Question.model_validate_json(line) for line in lines)
    except (OSError, ValueError) as error:
        raise DataError(
            f"{folder.questions}: the prompts that prove an export cannot be read ({str(error).splitlines()[0]}). "
            "Start a new run."
        ) from error
    if not found:
        raise DataError(f"{folder.questions} is empty: no test row can prove an export. Start a run with other rows.")
    return found


def read_predictions(folder: RunFolder, system: str) -> tuple[Prediction, ...]:
    """The answers of one system of a run."""
    lines = (folder.predictions / f"{system}.jsonl").read_bytes().decode("utf-8", "surrogatepass").split("\n")
    return tuple(Prediction.model_validate_json(line) for line in lines[:-1])
