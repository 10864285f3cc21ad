"""A run's model in another format, proven: whatever does not answer as the trained model does is not published.

Notable: the trained model is asked first and let go before the export is opened, so two copies never stand beside a
third. QLoRA is merged into the four-bit weights it was trained on, written out; how far the other ways would have led
away is measured and told.
"""

import contextlib
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from tunesmith.core import files, parts
from tunesmith.core.errors import DataError, ModelError, RecipeError
from tunesmith.core.export import Proof
from tunesmith.core.report import Report
from tunesmith.data.render import Renderer
from tunesmith.flows import keeping, proving
from tunesmith.flows.watch import Silent, Watcher
from tunesmith.models import artefact
from tunesmith.models.adapters._method import Method
from tunesmith.models.exports._export import Export, Subject
from tunesmith.models.few_bits import four_bits_and_back
from tunesmith.models.merge import merged, on_dense_weights
from tunesmith.models.model import Model
from tunesmith.present.model_card import model_card
from tunesmith.records.folder import RunFolder

CARD, PROOF = "README.md", "proof.json"


@dataclass(frozen=True)
class Order:
    """An export that can be made: of which run, how, and into which folder."""

    run: RunFolder
    report: Report
    part: Export
    weights: str
    out: Path

    @property
    def trained(self) -> Path:
        return self.run.path / self.report.adapter

    @property
    def method(self) -> Method:
        found: Method = parts.find("models.adapters", self.report.recipe.method.name)
        return found


@dataclass(frozen=True)
class _Written:
    """What is kept of the trained model once the export lies on disk."""

    renderer: Renderer
    asked: list[proving.Asked]
    others: dict[str, float]
    use: str


def order(folder: Path, to: str, *, weights: str | None = None, out: Path | None = None) -> Order:
    """Everything that can be refused before weights are read. Raises ModelError, PartError, RecipeError, DataError."""
    run = RunFolder(folder)
    part: Export = parts.find("models.exports", to)
    report = run.finished("export")
    if report.recipe.objective.name == "reward":
        raise ModelError(f"{folder} holds a reward model, and no other tool scores with its head. Keep the run itself.")
    if weights is not None and weights not in part.types:
        offered = f"Expected one of: {', '.join(part.types)}." if part.types else "Leave it out."
        own = "" if part.types else f" {to} keeps the numbers that the run was trained with."
        raise RecipeError(f"--type is {weights}.{own} {offered}")
    chosen = weights or (part.types[0] if part.types else report.plan.precision)
    named = f"{to}-{chosen}" if part.types else to
    made = Order(run, report, part, chosen, out or folder / "export" / named)
    if part.merges and made.method.unmergeable:
        raise ModelError(
            f"The method {made.method.name} {made.method.unmergeable}. Use --to peft where PEFT knows it; "
            "tunesmith chat runs it as it is."
        )
    part.check(report, made.trained)
    if made.out.exists():
        raise DataError(f"{made.out} exists already. Name another folder with --out, or delete it.")
    keeping.read_questions(run)
    return made


def export(made: Order, watch: Watcher | None = None) -> Proof:
    """Write, open, prove, publish. Raises ModelError where the proof fails; nothing is then left behind."""
    watch = watch or Silent()
    within = made.out.is_relative_to(made.run.path)
    with made.run.lock() if within else contextlib.nullcontext(), files.publish(made.out) as temporary:
        watch.stage("Load and ask", made.report.card.name)
        written = _write(made, temporary, watch)
        watch.stage("Prove", f"{len(written.asked)} held-out prompts")
        proof = _proven(made, temporary, written)
        proof.save(temporary / PROOF)
        card = model_card(made.report, library=made.part.library, loading=_loading(written.use, proof))
        (temporary / CARD).write_text(card, encoding="utf-8")
    return proof


def _write(made: Order, folder: Path, watch: Watcher) -> _Written:
    """The trained model exists in here only."""
    model = artefact.load(made.trained, made.report.recipe.model)
    renderer = Renderer(model.tokenizer)
    asked = proving.ask(model, renderer, keeping.read_questions(made.run))
    if made.part.merges:
        on_dense_weights(model)
    watch.stage("Write", str(made.out))
    stops = renderer.stop_ids() if model.card.kind == "decoder" else ()
    made.part.write(Subject(model, made.trained, renderer.template, stops, made.weights), folder)
    use = made.part.use(model, made.run.id)
    others = _other_ways(made, model, asked) if made.part.merges and made.method.four_bits and not model.head else {}
    return _Written(renderer, asked, others, use)


def _other_ways(made: Order, model: Model, asked: list[proving.Asked]) -> dict[str, float]:
    """KL from the adapter on four bits, in nats a token, of what else could be merged; ``model`` is used up."""
    with merged(model) as network:
        dense = proving.mean_kl(asked, proving.logits(model))
        output = network.get_output_embeddings()
        for layer in (m for m in network.modules() if isinstance(m, nn.Linear) and m is not output):
            layer.weight.data = four_bits_and_back(layer.weight.data)
        again = proving.mean_kl(asked, proving.logits(model))
    original = artefact.load(made.trained, made.report.recipe.model, four_bits=False)
    with merged(original):
        full = proving.mean_kl(asked, proving.logits(original))
    return {
        "merged into the dequantised weights": dense,
        "merged into the original weights": full,
        "merged and quantised again": again,
    }


def _proven(made: Order, folder: Path, written: _Written) -> Proof:
    """Raises ModelError, with what differs, where the export does not answer as the trained model."""
    reader = made.part.open(folder)
    if isinstance(reader, str):
        return Proof(format=made.part.name, weights=made.weights, others=written.others, unproven=reader)
    numbers = (made.report.plan.precision, made.weights)
    proof = proving.compare(reader, written.renderer, written.asked, made.part.name, numbers)
    if proof.faults:
        raise ModelError(
            f"The {made.part.name} export does not answer as the trained model: {'; '.join(proof.faults)}. Nothing was "
            "published. Try another format or --type."
        )
    return proof.model_copy(update={"others": written.others})


def _loading(use: str, proof: Proof) -> str:
    told = "\n".join(f"- {name}: KL {kl:.1e} nats a token" for name, kl in proof.others.items())
    ways = f"\n\nWays to merge an adapter trained on four bits, by their distance from it:\n\n{told}" if told else ""
    return f"{use}\n\n## Proof\n\n{proof.sentence}. The numbers are in `{PROOF}`.{ways}"
