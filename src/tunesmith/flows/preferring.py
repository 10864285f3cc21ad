"""What comes before and after learning from preferences: the likelihoods of the model that training starts from, and
what the trained one prefers.

Notable: reference and policy are one network with its adapter off and on; the reference's likelihoods are computed once
for each row, before a weight moves, and kept in the workspace under a hash of the model and of the rows. A trained
model prefers the answer that its objective makes more of: that has gained more over the reference (DPO, and what
compares no answers, such as SFT), is likelier a token (SimPO), or is scored higher by its head.
Legend: B sequences.
"""

import contextlib
import hashlib
import json
import math
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from tunesmith.core import files, parts
from tunesmith.core.batch import Batch, TokenRow
from tunesmith.core.errors import DiskError
from tunesmith.core.example import Example
from tunesmith.core.report import Prediction
from tunesmith.data.batches import in_order
from tunesmith.data.preferences import JUDGED, PAIR, said
from tunesmith.flows.prepare import Prepared
from tunesmith.flows.rewarding import start_hash
from tunesmith.models.model import Model
from tunesmith.models.twin import reference
from tunesmith.objectives._pairs import gained, total

Key = tuple[tuple[int, ...], tuple[float, ...]]
MISMATCHED = 256  # training rows by which a judged answer's gain is measured
NOISE = 5e-4  # nats of a sum in float32: the same weights give the same row another one in another batch


def referenced(model: Model, prepared: Prepared, store: Path) -> Prepared:
    """``prepared`` with the reference's log-likelihood of each answer; as it is where none is asked for. ``store``
    keeps them."""
    objective = prepared.objective
    if not prepared.compared or prepared.uses_head or not (objective.reference or objective.value is None):
        return prepared
    learned = (*prepared.train_rows, *prepared.dev_rows) if objective.reference else ()
    found = _stored(model, (*learned, *prepared.compared.values()), prepared, store)
    compared = {place: with_reference(unit, found) for place, unit in prepared.compared.items()}
    if not objective.reference:
        return replace(prepared, compared=compared)
    return replace(
        prepared,
        train_rows=tuple(with_reference(unit, found) for unit in prepared.train_rows),
        dev_rows=tuple(with_reference(unit, found) for unit in prepared.dev_rows),
        compared=compared,
    )


def answers(model: Model, prepared: Prepared, examples: Sequence[Example]) -> tuple[Prediction, ...]:
    """What the trained model says of each row: which answer is chosen, or whether it is wanted."""
    units = [prepared.compared[e.place] for e in examples]
    values = _values(model, prepared, units)
    moved = 0.0
    if any(not unit.others for unit in units):  # as the objective does: against mismatched answers
        mixed = [unit.others[0] for unit in prepared.train_rows[:MISMATCHED] if unit.others]
        gains = [gain for (gain,) in _values(model, prepared, [replace(row, prefix=0) for row in mixed])]
        moved = max(0.0, sum(gains) / max(len(gains), 1))
    return tuple(
        _prediction(example, unit, value, moved, prepared)
        for example, unit, value in zip(examples, units, values, strict=True)
    )


def _prediction(
    example: Example, unit: TokenRow, values: Sequence[float], moved: float, prepared: Prepared
) -> Prediction:
    lead = values[0] - (values[1] if unit.others else moved)
    beta = 1.0 if prepared.uses_head else prepared.objective.settings.get("beta", 1.0)
    known = prepared.objective.odds and bool(unit.others)
    sums = (prepared.objective.value or gained) is gained and not prepared.uses_head
    if sums and prepared.plan.precision == "float32" and abs(lead) <= NOISE:
        lead = 0.0
    return Prediction(
        id=example.id,
        answer=said(lead, PAIR if unit.others else JUDGED),
        prompt_tokens=unit.size,
        log_odds=lead * beta if known else None,
    )


def _values(model: Model, prepared: Prepared, units: Sequence[TokenRow]) -> list[tuple[float, ...]]:
    """Of the rows of each unit: the head's score, or what the objective makes of their likelihood."""
    worth = prepared.objective.value or gained

    def values(batch: Batch) -> Tensor:
        if prepared.uses_head:
            return model.score(batch)
        return worth(model.token_logp(batch), batch.to(model.device))

    return _of_units(model, units, 2 * prepared.plan.micro_tokens, values)


@torch.no_grad()
def _of_units(
    model: Model, units: Sequence[TokenRow], tokens: int, values: Callable[[Batch], Tensor]
) -> list[tuple[float, ...]]:
    """``values`` [B] of the rows of each unit, in the order of ``units``; ``tokens`` are computed at once."""
    model.train(False)
    found: dict[int, tuple[float, ...]] = {}
    for own in _of_one_kind(units):
        named = [replace(units[i], example_id=str(i)) for i in own]
        for batch in in_order(named, budget=tokens, pad_id=model.tokenizer.pad_token_id or 0):
            rows: list[list[float]] = values(batch).double().view(-1, batch.unit).tolist()
            names = batch.example_ids[:: batch.unit]
            found |= {int(name): tuple(row) for name, row in zip(names, rows, strict=True)}
    return [found[i] for i in range(len(units))]


def _of_one_kind(units: Sequence[TokenRow]) -> Iterable[list[int]]:
    """Places of pairs, and of rows that stand alone: a batch holds either."""
    for count in sorted({len(unit.others) for unit in units}):
        yield [i for i, unit in enumerate(units) if len(unit.others) == count]


# -- the reference -----------------------------------------------------------------------------------------------------


def _stored(model: Model, units: Sequence[TokenRow], prepared: Prepared, store: Path) -> dict[Key, float]:
    rows = list(dict.fromkeys(_key(row) for unit in units for row in unit.unit))
    place = store / f"{_hash(model, prepared, rows)}.json"
    kept = _read(place, len(rows))
    if kept is None:
        computed = likelihoods(model, units, 2 * prepared.plan.micro_tokens, prepared.before)
        kept = [computed[row] for row in rows]
        with contextlib.suppress(DiskError):  # a full disk costs the next run a pass, never this run
            files.write_text(place, json.dumps(kept))
    return dict(zip(rows, kept, strict=True))


def likelihoods(model: Model, units: Sequence[TokenRow], tokens: int, before: Model | None = None) -> dict[Key, float]:
    """The log-likelihood of each row's weighted tokens, by ids and weights, under the reference: the base of ``model``,
    or the model ``before``. ``tokens`` are computed at once."""
    fresh = list({tuple(map(_key, unit.unit)): unit for unit in units}.values())
    with reference(model, before) as asked:
        found = _of_units(asked, fresh, tokens, lambda batch: total(asked.token_logp(batch), batch.to(asked.device)))
    rows = (pair for unit, own in zip(fresh, found, strict=True) for pair in zip(unit.unit, own, strict=True))
    return {_key(row): value for row, value in rows}


def with_reference(unit: TokenRow, found: dict[Key, float]) -> TokenRow:
    others = tuple(replace(o, reference=found[_key(o)]) for o in unit.others)
    return replace(unit, reference=found[_key(unit)], others=others)


def _key(row: TokenRow) -> Key:
    return row.ids, row.weight


def _hash(model: Model, prepared: Prepared, rows: Sequence[Key]) -> str:
    digest = hashlib.sha256()
    four_bits = parts.find("models.adapters", prepared.recipe.method.name).four_bits
    more = prepared.recipe.method.new_tokens  # whose rows share out the probability anew
    start = "" if prepared.recipe.start is None else start_hash(prepared.recipe.start)
    told = (model.card.fingerprint, model.precision, four_bits, more, torch.__version__, model.device, start)
    digest.update("/".join(map(str, told)).encode())
    for ids, weight in rows:
        digest.update(array("q", (len(ids), *ids)).tobytes() + array("d", weight).tobytes())
    return digest.hexdigest()[:32]


def _read(place: Path, count: int) -> list[float] | None:
    try:
        values = json.loads(place.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    whole = isinstance(values, list) and len(values) == count
    return values if whole and all(isinstance(v, float) and math.isfinite(v) for v in values) else None
