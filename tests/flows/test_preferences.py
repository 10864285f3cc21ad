"""Learning from preferences on tiny models: what is compared with what, and what the runs say."""

import dataclasses
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.flows.conftest import MakeRecipe, judged, preferred, write_jsonl
from tests.flows.test_finetune import Told

from tunesmith.core import parts, recipe_file
from tunesmith.core.batch import TokenRow
from tunesmith.core.errors import DataError, ModelError, RecipeError
from tunesmith.core.report import Report
from tunesmith.data.batches import collate
from tunesmith.flows import judging, preferring
from tunesmith.flows import prepare as prepare_module
from tunesmith.flows.chat import open_chat
from tunesmith.flows.export import order
from tunesmith.flows.finetune import finetune
from tunesmith.flows.prepare import Prepared, prepare
from tunesmith.flows.rewarding import before
from tunesmith.flows.training import attach
from tunesmith.models import artefact
from tunesmith.models import load as loading
from tunesmith.models.model import Model, adapters_off
from tunesmith.objectives._pairs import total

DIRECT = [n for n in parts.names("objectives") if parts.find("objectives", n).unit == "pair" and n != "reward"]


def ready(make_recipe: MakeRecipe, store: Path, rows: str = "preferred", **groups: Any) -> tuple[Model, Prepared]:
    prepared = prepare(make_recipe(rows, **groups))
    model = loading.load(prepared.recipe.model)
    attach(model, prepared)
    return model, preferring.referenced(model, prepared, store / "reference")


def report_of(run: Any) -> Report:
    return Report.load(Path(run.folder) / "report.json")


# -- going on from a run -----------------------------------------------------------------------------------------------


def test_the_reference_is_the_run_that_training_goes_on_from(
    make_recipe: MakeRecipe, finished: Callable[[str], str], tmp_path: Path
) -> None:
    recipe = make_recipe("preferred", objective="dpo", start=finished("sft"))
    prepared, model = prepare(recipe), loading.load(recipe.model)
    prepared = dataclasses.replace(prepared, before=before(model, recipe))
    attach(model, prepared)
    told = preferring.referenced(model, prepared, tmp_path)
    alone = artefact.load(Path(finished("sft")) / "adapter")
    found = preferring.likelihoods(alone, told.train_rows, 4096, alone)
    base = preferring.likelihoods(alone, told.train_rows, 4096)
    for unit in told.train_rows:
        for row in unit.unit:
            key = (row.ids, row.weight)
            assert row.reference == pytest.approx(found[key], abs=1e-4)
    assert max(abs(found[key] - base[key]) for key in found) > 1e-2
    gains = [value for row in preferring._values(model, told, told.train_rows[:8]) for value in row]
    assert gains == pytest.approx([0.0] * len(gains), abs=1e-4)  # the policy begins as its reference
    # another start is another reference: nothing is taken over from the store
    other = dataclasses.replace(prepared, recipe=make_recipe("preferred", objective="dpo"), before=None)
    rows = preferring.referenced(model, other, tmp_path).train_rows
    assert max(abs(a.reference - b.reference) for a, b in zip(rows, told.train_rows, strict=True)) > 1e-2


# -- rows --------------------------------------------------------------------------------------------------------------


def test_a_pair_is_one_unit_whose_last_turns_alone_have_weight(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    _, prepared = ready(make_recipe, tmp_path)
    decode = prepared.tokenizer.decode
    for unit in prepared.train_rows:
        (worse,) = unit.others
        assert "the topic is" in decode([i for i, w in zip(unit.ids, unit.weight, strict=True) if w > 0])
        assert unit.ids[: worse.prefix] == worse.ids[: worse.prefix]
        assert unit.ids[worse.prefix] != worse.ids[worse.prefix]
        assert worse.prefix > 10
        assert unit.size == len(unit.ids) + len(worse.ids) - worse.prefix


def test_margins_and_ties_travel_with_the_pair(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    rows = preferred(60)
    rows[1]["tie"] = True
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    prepared = prepare(make_recipe(str(path), task="prefer"))
    units = {u.example_id: u for u in (*prepared.train_rows, *prepared.dev_rows, *prepared.compared.values())}
    assert units["rows.jsonl:1"].margin == 0.5 and units["rows.jsonl:1"].sure == 1.0
    assert units["rows.jsonl:2"].margin == 0.0 and units["rows.jsonl:2"].sure == 0.5


def test_ties_and_margins_that_an_objective_cannot_use_are_told(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", [{**r, "tie": i % 3 == 0} for i, r in enumerate(preferred(90))])
    known = prepare(make_recipe(str(path), task="prefer"))
    unknown = prepare(make_recipe(str(path), task="prefer", objective="ipo"))
    assert {u.sure for u in known.train_rows} == {0.5, 1.0} and {u.sure for u in unknown.train_rows} == {1.0}
    assert any("ties are not trained on: ipo knows none" in w for w in unknown.warnings)
    assert any("margins of" in w for w in known.warnings)
    reads = prepare(make_recipe(str(path), "bert", task="prefer", objective="reward"))
    assert not any("margins" in w or "not trained" in w for w in reads.warnings)


def test_a_tie_is_not_tested(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", [{**r, "tie": i % 2 == 0} for i, r in enumerate(preferred(90))])
    prepared = prepare(make_recipe(str(path), task="prefer"))
    assert 0 < len(prepared.test) < len(prepared.splits.test)
    assert any("are ties" in w for w in prepared.warnings)


def test_judged_rows_stand_beside_a_mismatched_answer(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    _, prepared = ready(make_recipe, tmp_path, "judged", objective="kto")
    assert {unit.label for unit in prepared.train_rows} == {0, 1}
    for unit, following in zip(prepared.train_rows, prepared.train_rows[1:], strict=False):
        (mixed,) = unit.others
        start = next(i for i, w in enumerate(unit.weight) if w > 0)
        theirs = next(i for i, w in enumerate(following.weight) if w > 0)
        assert mixed.ids[:start] == unit.ids[:start]
        assert following.ids[theirs:][: len(mixed.ids) - start] == mixed.ids[start:]


def test_kto_takes_a_pair_as_two_judgements(make_recipe: MakeRecipe) -> None:
    prepared = prepare(make_recipe("preferred", objective="kto"))
    assert len(prepared.train_rows) == 2 * len(prepared.splits.train)
    assert [u.label for u in prepared.train_rows[:4]] == [1, 0, 1, 0]


def test_supervised_fine_tuning_learns_the_better_answer_alone(make_recipe: MakeRecipe) -> None:
    prepared = prepare(make_recipe("preferred", task="generate"))
    assert prepared.objective.name == "sft"
    assert all(unit.others == () for unit in prepared.train_rows)
    assert len(prepared.train_rows) == len(prepared.splits.train)


def test_the_better_answers_alone_may_be_learned_and_compared(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    _, prepared = ready(make_recipe, tmp_path, objective="sft")
    _, pairs = ready(make_recipe, tmp_path)
    assert [u.ids for u in prepared.train_rows] == [u.ids for u in pairs.train_rows]
    assert all(u.others == () for u in prepared.train_rows)
    assert all(len(u.others) == 1 and u.reference < 0 for u in prepared.compared.values())
    _, judged_rows = ready(make_recipe, tmp_path, "judged", objective="sft")
    assert len(judged_rows.train_rows) == sum(e.wanted is True for e in judged_rows.splits.train)


# -- the reference -----------------------------------------------------------------------------------------------------


def test_the_reference_is_the_base_and_the_loss_starts_at_log_two(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    model, prepared = ready(make_recipe, tmp_path)
    batch = collate(prepared.train_rows[:4], 0)
    with torch.no_grad(), adapters_off(model):
        alone = torch.cat(
            [total(model.token_logp(b), b) for b in (collate([bare(r)], 0) for r in rows_of(batch, prepared))]
        )
    assert batch.reference_B is not None
    torch.testing.assert_close(batch.reference_B, alone, rtol=1e-5, atol=1e-4)
    loss = prepared.objective.loss(model.token_logp(batch), batch) / prepared.objective.weight(batch)
    assert float(loss.detach()) == pytest.approx(math.log(2), abs=1e-5)


def rows_of(batch: Any, prepared: Prepared) -> list[TokenRow]:
    return [row for unit in prepared.train_rows[: batch.units] for row in unit.unit]


def bare(row: TokenRow) -> TokenRow:
    return TokenRow(row.ids, row.weight)


def test_the_reference_is_computed_once_for_a_model_and_its_rows(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, first = ready(make_recipe, tmp_path)
    assert len(list((tmp_path / "reference").iterdir())) == 1
    monkeypatch.setattr(preferring, "likelihoods", lambda *_: pytest.fail("computed again"))
    _, again = ready(make_recipe, tmp_path, objective="ipo")
    assert [u.reference for u in again.train_rows] == [u.reference for u in first.train_rows]


@pytest.mark.parametrize("damage", ["", "[]", "[1.0", '["a"]', "[NaN]"])
def test_a_damaged_store_is_computed_anew(make_recipe: MakeRecipe, tmp_path: Path, damage: str) -> None:
    _, first = ready(make_recipe, tmp_path)
    (kept,) = (tmp_path / "reference").iterdir()
    kept.write_text(damage)
    _, again = ready(make_recipe, tmp_path)
    assert [u.reference for u in again.train_rows] == [u.reference for u in first.train_rows]
    assert len(json.loads(kept.read_text())) > 10


def test_the_reference_of_what_is_neither_learned_from_nor_asked_is_not_computed(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare_module, "SAMPLE", 4)
    _, tuned = ready(make_recipe, tmp_path, objective="dpo", evaluate={"limit": 3})
    assert len(tuned.compared) == 4 + 4 + 3
    assert all(unit.reference < 0 for unit in (*tuned.train_rows, *tuned.compared.values()))
    _, taught = ready(make_recipe, tmp_path, objective="sft", evaluate={"limit": 3})
    assert all(unit.reference < 0 for unit in taught.compared.values())
    assert all(unit.reference == 0 for unit in taught.train_rows)


def test_another_base_has_other_references(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    ready(make_recipe, tmp_path)
    recipe = make_recipe("preferred", train={"precision": "bfloat16"})
    prepared = prepare(recipe)
    model = loading.load(recipe.model, precision="bfloat16")
    attach(model, prepared)
    preferring.referenced(model, prepared, tmp_path / "reference")
    assert len(list((tmp_path / "reference").iterdir())) == 2


# -- runs --------------------------------------------------------------------------------------------------------------

LEARNS = {"epochs": 4, "batch_tokens": 512, "learning_rate": 5e-3}


@pytest.mark.parametrize("name", DIRECT)
def test_each_direct_objective_learns_which_answer_is_better(
    make_recipe: MakeRecipe, tmp_path: Path, name: str
) -> None:
    told = Told()
    run = finetune(make_recipe("preferred", objective=name, train=LEARNS), workspace=tmp_path, watch=told)
    found = report_of(run)
    losses = [p.loss for p in found.fit.curve if p.loss is not None]
    assert sum(losses[-3:]) < sum(losses[:3])
    assert found.fit.train_score is not None and found.fit.train_score.low > 0.5  # of guessing
    assert {s.name for s in found.systems} == {"tuned", "zero_shot", "longer", "shorter"}
    assert found.primary == "accuracy"
    assert all(s.invalid == 0 for s in found.systems if s.name not in ("longer", "shorter")) and found.confusions == ()
    assert found.preferences is not None and found.preferences.longer.n == found.split_sizes["test"]
    assert (Path(run.folder) / "report.html").read_text().count("Preferences") >= 1


def test_kto_learns_from_judgements(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    run = finetune(make_recipe("judged", objective="kto", train=LEARNS), workspace=tmp_path)
    found = report_of(run)
    assert found.fit.train_score is not None and found.fit.train_score.value >= 0.75
    assert {s.name for s in found.systems} == {"tuned", "majority"}
    assert set(found.confusions[0].labels) == {"wanted", "unwanted"}
    assert all(s.invalid == 0 for s in found.systems)
    assert found.preferences is None


@pytest.mark.parametrize(("model", "method"), [("bert", "full"), ("llama", "lora")])
def test_a_reward_model_learns_and_says_how_sure_it_is(
    make_recipe: MakeRecipe, tmp_path: Path, model: str, method: str
) -> None:
    train = LEARNS | {"learning_rate": 2e-3 if method == "full" else 5e-3}
    recipe = make_recipe("preferred", model, objective="reward", method={"name": method}, train=train)
    run = finetune(recipe, workspace=tmp_path)
    found = report_of(run)
    assert found.fit.train_score is not None and found.fit.train_score.value >= 0.8
    assert found.preferences is not None and found.preferences.error is not None
    assert sum(b.accuracy.n for b in found.preferences.bins) == found.split_sizes["test"]
    with pytest.raises(ModelError, match="scores answers and writes none"):
        open_chat(Path(run.folder))
    with pytest.raises(ModelError, match="holds a reward model"):
        order(Path(run.folder), "merged")


WORTH: dict[str, Callable[[float, int, float], float]] = {  # of an answer's likelihood, tokens and reference, by hand
    "dpo": lambda logp, _, before: logp - before,
    "robust_dpo": lambda logp, _, before: logp - before,
    "ipo": lambda logp, tokens, before: (logp - before) / tokens,
    "cpo": lambda logp, *_: logp,
    "simpo": lambda logp, tokens, _: logp / tokens,
    "orpo": lambda logp, tokens, _: logp / tokens - math.log(1 - math.exp(logp / tokens)),
}


@pytest.mark.parametrize("name", DIRECT)
def test_answers_follow_what_the_objective_makes_of_them(make_recipe: MakeRecipe, tmp_path: Path, name: str) -> None:
    model, prepared = ready(make_recipe, tmp_path, objective=name)
    for _, parameter in model.trainable():
        torch.nn.init.normal_(parameter, std=0.1)
    for example, prediction in zip(prepared.test, judging.answer(model, prepared, prepared.test), strict=True):
        unit = prepared.compared[example.place]
        with torch.no_grad():
            logp = [float(total(model.token_logp(b), b)) for r in unit.unit for b in [collate([bare(r)], 0)]]
        better, worse = (WORTH[name](p, r.trained, r.reference) for p, r in zip(logp, unit.unit, strict=True))
        assert prediction.answer == ("chosen" if better > worse else "rejected")
        if prepared.objective.odds:
            assert prediction.log_odds == pytest.approx(0.1 * (better - worse), abs=1e-3)


@pytest.mark.parametrize("name", DIRECT)
def test_only_an_objective_that_has_a_reference_computes_one(
    make_recipe: MakeRecipe, tmp_path: Path, name: str
) -> None:
    ready(make_recipe, tmp_path, objective=name)
    assert (tmp_path / "reference").exists() == (name in ("dpo", "ipo", "robust_dpo"))


# -- bad input ---------------------------------------------------------------------------------------------------------

REFUSED: dict[str, tuple[str, dict[str, Any], type[Exception], str]] = {
    "pairs needed": ("judged", {"objective": "dpo"}, DataError, "learns from a better and a worse answer.*Name kto"),
    "preferences needed": ("asked", {"task": "prefer"}, DataError, "objective dpo learns from a better and a worse"),
    "task": ("asked", {"objective": "dpo"}, RecipeError, "dpo learns from preferences. Set task: prefer"),
    "head": ("preferred", {"objective": "classify"}, RecipeError, "a head chooses labels. Set task: classify"),
    "encoder": (
        "preferred",
        {"model": "bert"},
        RecipeError,
        "is an encoder, which cannot write; expected objective: r",
    ),
    "setting": (
        "preferred",
        {"objective": {"name": "dpo", "sft_weight": 1.0}},
        RecipeError,
        "objective.sft_weight has no effect with objective.name: dpo. Leave it out. It reads: beta, label_smoothing",
    ),
    "metric": (
        "preferred",
        {"evaluate": {"metrics": ["perplexity"]}},
        RecipeError,
        "scores written text and task is p",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_go_together_is_refused_in_a_sentence(make_recipe: MakeRecipe, case: str) -> None:
    rows, groups, error, text = REFUSED[case]
    with pytest.raises(error, match=text):
        prepare(make_recipe(rows, **groups))


def test_an_unwanted_answer_is_not_learned_by_heart(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", judged(20))
    with pytest.raises(DataError, match="false, an answer that is not wanted; expected answers to learn"):
        prepare(make_recipe(str(path), task="generate"))


def test_a_recipe_names_an_objective_short_or_with_settings(make_recipe: MakeRecipe) -> None:
    short = make_recipe("preferred", objective="ipo")
    assert short.objective.name == "ipo" and short.objective.given == {}
    long = recipe_file.override(short, ["objective.beta=0.3"])
    assert long.objective.given == {"beta": 0.3}


# -- edges ------------------------------------------------------------------------------------------------------------


def test_new_tokens_change_the_reference(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    ready(make_recipe, tmp_path)
    method = {"name": "lora", "rank": 4, "new_tokens": ["<a>", "<b>"]}
    model, prepared = ready(make_recipe, tmp_path, method=method)
    assert len(list((tmp_path / "reference").iterdir())) == 2
    assert {p.answer for p in judging.answer(model, prepared, prepared.test)} == {"neither"}  # nothing was learned yet


def test_a_lead_of_rounding_is_no_preference(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, prepared = ready(make_recipe, tmp_path)
    leads = [4e-4, -4e-4, 6e-4, -6e-4]
    monkeypatch.setattr(preferring, "_values", lambda *_: [(lead, 0.0) for lead in leads])
    found = preferring.answers(model, prepared, prepared.test[:4])
    assert [p.answer for p in found] == ["neither", "neither", "chosen", "rejected"]
    assert [p.log_odds for p in found] == pytest.approx([0.0, 0.0, 6e-5, -6e-5])  # times DPO's beta
    means = replace(prepared, objective=parts.find("objectives", "simpo"))  # of tokens: far smaller leads are leads
    found = preferring.answers(model, means, prepared.test[:4])
    assert [p.answer for p in found] == ["chosen", "rejected", "chosen", "rejected"]


def test_a_judged_answer_is_measured_from_what_mismatched_ones_have_gained(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, prepared = ready(make_recipe, tmp_path, "judged", objective="kto")

    def values(_model: Model, _prepared: Prepared, units: Any) -> list[tuple[float, ...]]:
        return [(2.0,) if unit in mixed else (1.0,) for unit in units]

    mixed = [dataclasses.replace(u.others[0], prefix=0) for u in prepared.train_rows]
    monkeypatch.setattr(preferring, "_values", values)
    assert {p.answer for p in judging.answer(model, prepared, prepared.test)} == {"unwanted"}  # 1 is less than 2


def test_a_run_that_never_beats_its_start_is_held(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    run = finetune(make_recipe("preferred", train={"epochs": 1, "learning_rate": 1.0}), workspace=tmp_path)
    found = report_of(run)
    assert found.fit.best_step == 0
    assert found.verdict.decision == "HOLD" and "the weights that training began with" in found.verdict.sentence


@pytest.mark.parametrize(
    ("objective", "told"),
    [("dpo", "Every test row is a tie"), ("ipo", "No row is left to train on: ipo knows no ties")],
)
def test_ties_alone_are_a_sentence(make_recipe: MakeRecipe, tmp_path: Path, objective: str, told: str) -> None:
    path = write_jsonl(tmp_path / "rows.jsonl", [{**r, "tie": True} for r in preferred(60)])
    with pytest.raises(DataError, match=told):
        prepare(make_recipe(str(path), task="prefer", objective=objective))


def test_what_the_rows_lack_is_told(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "wanted.jsonl", [r for r in judged(120) if r["label"]])
    assert any(
        "All judged answers are alike" in w
        for w in prepare(make_recipe(str(path), task="prefer", objective="kto")).warnings
    )
    long = [{**r, "chosen": r["chosen"] + " and so on" * 200} for r in preferred(30, seed=5)]
    held = write_jsonl(tmp_path / "long.jsonl", long)
    prepared = prepare(make_recipe("preferred", data={"test": str(held)}))
    assert any("do not fit the context" in w for w in prepared.warnings)


def test_an_encoder_reads_all_turns(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    rows = [{**r, "system": "be kind", "who": None} for r in preferred(60)]
    path = write_jsonl(tmp_path / "rows.jsonl", rows)
    prepared = prepare(make_recipe(str(path), "bert", task="prefer", objective="reward", method={"name": "full"}))
    assert all("be kind" in prepared.tokenizer.decode(u.ids) for u in prepared.train_rows)


def test_only_objectives_of_log_odds_are_said_to_be_sure(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    for name, known in (("dpo", True), ("ipo", False), ("simpo", False)):
        model, prepared = ready(make_recipe, tmp_path, objective=name)
        said = judging.answer(model, prepared, prepared.test)
        assert all((p.log_odds is not None) == known for p in said), name
