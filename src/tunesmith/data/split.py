"""Train, dev and test: seeded, stratified, and with everything alike on one side. The test is locked by a hash.

Notable: rows are not drawn one by one. Rows of one group and rows that are (near-)duplicates form a unit, through
each other too, and whole units are assigned, the largest first. A unit goes where (2 have + its rows) / target is
smallest, summed over its labels and the total: for single rows this is the divisor method of Sainte-Lague (Webster,
1832), which gives each label its share to the nearest row, and the term for the total keeps many small labels from
rounding the test away. A label's last row never leaves train.

With a test or dev file of its own it is train that gives way: its rows that are (near-)duplicates of held-out rows,
or of their group, are taken out and counted in ``Splits.moved``; ``overlap`` says so in a finding.
"""

from __future__ import annotations

import json
import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tunesmith.core import files, seeds
from tunesmith.core.errors import DataError
from tunesmith.core.example import Dataset, Example, Splits
from tunesmith.core.noun import content_hash
from tunesmith.core.recipe import DataRecipe
from tunesmith.core.report import Finding
from tunesmith.data import near
from tunesmith.data.checks._check import answered, closed_set, contrary, counted, finding, judgement

LOCK = "splits.json"
TOTAL_WEIGHT = 4.0
Rows = tuple[Example, ...]


def lock(
    train: Dataset,
    recipe: DataRecipe,
    *,
    task: str,
    dev: Dataset | None = None,
    test: Dataset | None = None,
) -> Splits:
    """Train, dev and test rows of a run; the same for the same rows and recipe, whatever the seed of the training.

    ``dev`` and ``test`` are files of their own; what is not given is taken out of ``train`` by the recipe's shares.
    Raises DataError when rows are too few, or when a label stands in dev or test and not in train.
    """
    kept, held, how, moved = _give_way(train.examples, task, dev, test)
    left = {e.place for e in kept}
    repeats = tuple(e for e in train.examples if e.place not in left)
    shares = {
        "dev": 0.0 if dev is not None else recipe.split.dev,
        "test": 0.0 if test is not None else recipe.split.test,
    }
    if sum(shares.values()) >= 1:
        raise DataError(
            f"data.split: dev {shares['dev']} and test {shares['test']} leave no rows for train. Lower them."
        )
    strata = _strata(kept)
    if any(shares.values()):
        assigned, sentence = _assign(kept, shares, strata, recipe.split.seed)
        how.append(sentence)
        held |= {
            name: tuple(e for e, s in zip(kept, assigned, strict=True) if s == name) for name in shares if shares[name]
        }
        own = [s == "train" for s in assigned]
        kept, strata = _where(kept, own), [s for s, mine in zip(strata, own, strict=True) if mine]
    if recipe.limit is not None and recipe.limit < len(kept):
        how.append(f"{recipe.limit:,} of {len(kept):,} training rows drawn by the seed (data.limit)")
        kept = _where(kept, _draw(strata, recipe.limit, recipe.split.seed))
    splits = Splits(
        train=kept,
        dev=held.get("dev", ()),
        test=held.get("test", ()),
        test_hash="",
        how="; ".join(how),
        moved=moved,
        repeats=repeats,
    )
    _check_labels(splits, train.examples, task)
    return splits.model_copy(update={"test_hash": hash_rows(splits.test)})


def lock_as(train: Dataset, recipe: DataRecipe, then: Mapping[str, str], *, task: str) -> Splits:
    """The split of an earlier run, so that what that run has learned from is not tested on. ``then`` gives the part by
    hash of a row's input; rows that the run did not have are trained on, unless they (nearly) repeat held-out ones.
    Raises DataError."""
    part = [then.get(input_hash(e), "new") for e in train.examples]
    held = {n: _where(train.examples, [p == n for p in part]) for n in ("train", "dev", "test", "new")}
    new = held.pop("new")
    if not held["test"]:
        raise DataError(
            "The run that training goes on from has tested on none of these rows, and has trained on some. Give it a "
            "file of its own to test on (data.test)."
        )
    how = ["rows of the run that training goes on from are split as there"]
    if new:
        fresh = _without(new, (*held["dev"], *held["test"]), "train", how)
        how.append(f"{counted(len(fresh))} that it did not have are trained on")
        held["train"] = (*held["train"], *fresh)
    if recipe.limit is not None and recipe.limit < len(held["train"]):
        how.append(f"{recipe.limit:,} of {len(held['train']):,} training rows drawn by the seed (data.limit)")
        chosen = _draw(_strata(held["train"]), recipe.limit, recipe.split.seed)
        held["train"] = _where(held["train"], chosen)
    splits = Splits(**held, test_hash=hash_rows(held["test"]), how="; ".join(how))
    _check_labels(splits, train.examples, task)
    return splits


def input_hash(row: Example) -> str:
    """Of what a row asks, whatever its file, its answers and its task are."""
    return content_hash([row.input_text, list(row.tools)])


def hash_rows(rows: Sequence[Example]) -> str:
    """A hash over inputs and answers, whatever their order and file."""
    plain = [
        [e.text, [m.model_dump(mode="json") for m in e.messages], e.label, list(e.tools), *_preference(e)] for e in rows
    ]
    return content_hash(sorted(content_hash(row) for row in plain))


def _preference(row: Example) -> list[Any]:
    if row.rejected is None and row.wanted is None:
        return []
    return [row.rejected and row.rejected.model_dump(mode="json"), row.wanted, row.tie, row.margin]


# -- own test and dev files --------------------------------------------------------------------------------------------


def _give_way(
    train: Rows, task: str, dev: Dataset | None, test: Dataset | None
) -> tuple[Rows, dict[str, Rows], list[str], int]:
    """Train and dev without what (nearly) stands in test, and train without what stands in dev.

    Returns train, the held-out rows, what was done, and how many rows went.
    """
    held: dict[str, Rows] = {}
    how: list[str] = []
    if test is not None:
        held["test"] = test.examples
        how.append(f"test is a file of its own ({len(test.examples):,} rows)")
    if dev is not None:
        held["dev"] = _without(dev.examples, held.get("test", ()), "dev", how)
        how.append(f"dev is a file of its own ({len(dev.examples):,} rows)")
    kept = _without(train, [e for rows in held.values() for e in rows], "train", how)
    gone = {e.label for e in train} - {e.label for e in kept} if task == "classify" else set()
    for name, rows in held.items():
        held[name] = _where(rows, [e.label not in gone for e in rows])
        if lost := len(rows) - len(held[name]):
            how.append(
                f"{counted(lost)} of {name} left out: no other training row has their label, so they test nothing"
            )
        if not held[name]:
            raise DataError(
                f"data.{name}: no row of it can be held out, for train (nearly) repeats all. Name other files."
            )
    before = len(train) + sum(len(d.examples) for d in (dev, test) if d is not None)
    return kept, held, how, before - len(kept) - sum(len(rows) for rows in held.values())


def _without(rows: Rows, others: Sequence[Example], name: str, how: list[str]) -> Rows:
    """``rows`` without (near-)duplicates of ``others`` and rows of their groups; ``how`` gets the sentence."""
    alike = _alike(rows, others) if others else [False] * len(rows)
    if all(alike):
        raise DataError(
            f"data.{name}: every row (nearly) repeats a held-out row, or shares its group. Name another file."
        )
    if any(alike):
        how.append(f"{counted(sum(alike))} of {name} left out: they (nearly) repeat held-out rows or share their group")
    return _where(rows, [not a for a in alike])


def _alike(rows: Sequence[Example], others: Sequence[Example]) -> list[bool]:
    """Whether each row is a (near-)duplicate of one of ``others``, or of their group."""
    groups = {e.group for e in others} - {None}
    touching = near.touching([e.input_text for e in rows], [e.input_text for e in others])
    return [bool(t) or e.group in groups for t, e in zip(touching, rows, strict=True)]


def _where(rows: Sequence[Example], keep: Sequence[bool]) -> Rows:
    return tuple(e for e, k in zip(rows, keep, strict=True) if k)


def overlap(splits: Splits, recipe: DataRecipe) -> tuple[Finding, ...]:
    """The rows of the training file that gave way, first those that say the contrary of a held-out row."""
    roles = [role for role in ("dev", "test") if getattr(recipe, role) is not None]
    said = {judgement(e) for role in roles for e in getattr(splits, role) if not e.tie}
    against = [not e.tie and contrary(judgement(e)) in said for e in splits.repeats]
    file = f"{' or '.join(roles)} file"
    message = (
        f"{counted(len(splits.repeats))} of the training file (nearly) repeat rows of the {file}, or "
        "share their group; they are left out of training. Remove them from one of the files."
    )
    if any(against):
        message += f" {sum(against):,} of them stand there with the opposite preference: decide which is right."
    rows = [*_where(splits.repeats, against), *_where(splits.repeats, [not a for a in against])]
    return finding("overlap", "warning", rows, message)


# -- shares of one file ------------------------------------------------------------------------------------------------


def _assign(rows: Rows, shares: dict[str, float], strata: list[str], seed: int) -> tuple[list[str], str]:
    """The split of each row, and the sentence that says how."""
    members: dict[int, list[int]] = defaultdict(list)
    for i, unit in enumerate(units(rows)):
        members[unit].append(i)
    together = list(members.values())
    rng = random.Random(seeds.stream(seed, "split"))
    order = rng.sample(together, len(together))
    order.sort(key=len, reverse=True)
    targets = {"train": 1 - sum(shares.values()), **{name: share for name, share in shares.items() if share}}
    assigned = _greedy(order, strata, targets)
    sizes = Counter(assigned)
    empty = [name for name in targets if not sizes[name]]
    if empty:
        raise DataError(
            f"{counted(len(rows))} in {counted(len(order), 'unit')} that must stay together are too few for "
            f"{', '.join(f'{n} {share:.0%}' for n, share in targets.items())}: {' and '.join(empty)} would be empty. "
            "Add rows, or name files of their own with data.dev and data.test."
        )
    kinds = len(set(strata))
    how = f"split by the seed into {', '.join(f'{name} {sizes[name]:,}' for name in targets)}"
    how += f", stratified over {kinds:,} answers" if kinds > 1 else ""
    joined = sum(len(u) for u in order if len(u) > 1)
    how += f"; {counted(joined)} kept together with their (near-)duplicates or group" if joined else ""
    large = order[0]
    how += f"; {len(large):,} of them are one unit, all in {assigned[large[0]]}" if len(large) > 0.1 * len(rows) else ""
    return assigned, how


def units(rows: Rows) -> tuple[int, ...]:
    """The unit of each row: rows of one group or with (near-)duplicate inputs share it, transitively."""
    union = near.Union(len(rows))
    for i, root in enumerate(near.clusters([e.input_text for e in rows]).tolist()):
        union.join(i, root)
    first: dict[str, int] = {}
    for i, example in enumerate(rows):
        if example.group is not None:
            union.join(i, first.setdefault(example.group, i))
    return tuple(union.roots().tolist())


def _greedy(order: list[list[int]], strata: list[str], shares: dict[str, float]) -> list[str]:
    counts = Counter(strata)
    outside: Counter[str] = Counter()
    have: dict[str, Counter[str]] = {name: Counter() for name in shares}
    size = dict.fromkeys(shares, 0)
    assigned = [""] * len(strata)
    for unit in order:
        inside = Counter(strata[i] for i in unit)
        best, best_cost = "train", float("inf")
        for name, share in shares.items():
            if name != "train" and any(counts[s] - outside[s] <= n for s, n in inside.items()):
                continue
            cost = TOTAL_WEIGHT * len(unit) * (2 * size[name] + len(unit)) / (share * len(strata))
            cost += sum(n * (2 * have[name][s] + n) / (share * counts[s]) for s, n in inside.items())
            if cost < best_cost:
                best, best_cost = name, cost
        have[best].update(inside)
        size[best] += len(unit)
        if best != "train":
            outside.update(inside)
        for i in unit:
            assigned[i] = best
    return assigned


def _strata(rows: Rows) -> list[str]:
    """What is balanced over the splits: labels, answers of a small closed set, or a telling field of JSON answers."""
    answers = [answered(e).strip() for e in rows]
    if closed_set(rows):
        return answers
    objects = [_object(a) for a in answers]
    usual = Counter(key for o in objects for key in o)
    values = {
        k: [json.dumps(o.get(k), sort_keys=True) for o in objects] for k, n in usual.items() if n > 0.9 * len(rows)
    }
    kinds = {k: len(set(v)) for k, v in values.items() if 5 * len(set(v)) <= len(rows)}
    return values[max(kinds, key=lambda k: kinds[k])] if kinds else [""] * len(rows)


def _object(answer: str) -> dict[str, Any]:
    if not answer.startswith("{"):
        return {}
    try:
        value = json.loads(answer)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _draw(strata: Sequence[str], limit: int, seed: int) -> list[bool]:
    """``limit`` rows spread evenly over the strata, each of them present while the limit allows."""
    rng = random.Random(seeds.stream(seed, "limit"))
    by_stratum: dict[str, list[int]] = defaultdict(list)
    for i, stratum in enumerate(strata):
        by_stratum[stratum].append(i)
    ranked: list[tuple[float, float, int]] = []
    for members in by_stratum.values():
        rng.shuffle(members)
        offset = rng.random()
        ranked += [((k + offset) / len(members) if k else -1.0, rng.random(), i) for k, i in enumerate(members)]
    chosen = np.zeros(len(strata), dtype=bool)
    chosen[[i for _, _, i in sorted(ranked)[:limit]]] = True
    return [bool(c) for c in chosen]


def _check_labels(splits: Splits, before: Rows, task: str) -> None:
    """Every label that dev or test asks for must be learnable from train."""
    if task != "classify":
        return
    known = {e.label for e in splits.train}
    ever = {e.label for e in before}
    for name, rows in (("test", splits.test), ("dev", splits.dev)):
        lost = sorted({e.label or "" for e in rows} - known)
        if not lost:
            continue
        example = next(e for e in rows if e.label == lost[0])
        which = f"{', '.join(repr(s) for s in lost[:5])}{f' and {len(lost) - 5:,} more' if len(lost) > 5 else ''}"
        what = "label" if len(lost) == 1 else "labels"
        if lost[0] not in ever:
            reason = f"not in train, so the model can never choose {'it' if len(lost) == 1 else 'them'}"
            way_out = "Add such training rows, correct the labels, or remove the rows"
        else:
            reason = "not among the training rows that were drawn (data.limit)"
            way_out = "Raise data.limit"
        raise DataError(
            f"{example.place}: {what} {which} stand{'s' if len(lost) == 1 else ''} in {name} and {reason}. {way_out}."
        )


# -- the lock on disk --------------------------------------------------------------------------------------------------


def _locked(splits: Splits) -> dict[str, object]:
    parts = {"train": splits.train, "dev": splits.dev, "test": splits.test}
    return {
        "schema_version": 1,
        "test_hash": splits.test_hash,
        "hashes": {name: hash_rows(rows) for name, rows in parts.items()},
        "how": splits.how,
        "moved": splits.moved,
        **{name: [e.id for e in rows] for name, rows in parts.items()},
        "inputs": {name: [input_hash(e) for e in rows] for name, rows in parts.items()},
    }


def write_lock(splits: Splits, folder: Path) -> Path:
    """Write ``splits.json`` (ids and hashes of each split) into ``folder``, atomically. Raises DiskError."""
    path = folder / LOCK
    files.write_text(path, json.dumps(_locked(splits), indent=1, ensure_ascii=False) + "\n")
    return path


def check_lock(splits: Splits, folder: Path) -> None:
    """Raise DataError unless ``splits`` are those that were locked in ``folder``."""
    path = folder / LOCK
    try:
        locked = dict(json.loads(path.read_text(encoding="utf-8"))["hashes"])
    except FileNotFoundError:
        raise DataError(f"{path} is missing: the splits of this run were never locked. Start a new run.") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged ({error}). Start a new run.") from None
    now = {"train": splits.train, "dev": splits.dev, "test": splits.test}
    changed = [name for name, rows in now.items() if locked.get(name) != hash_rows(rows)]
    if changed:
        raise DataError(
            f"{path}: {' and '.join(changed)} differ from the rows locked when this run began (hash of the test rows "
            f"{locked.get('test')}, now {hash_rows(splits.test)}). Put data and split back, or start a new run."
        )
