"""The parts that trials are trained on: nested, stratified, apart from what is scored."""

from pathlib import Path

import pytest
from tests.flows.conftest import MakeRecipe, labelled, write_jsonl

from tunesmith.data import near
from tunesmith.flows import judging
from tunesmith.flows.prepare import ground
from tunesmith.flows.trials import Trials, _turn, _turns, bars, part, planned
from tunesmith.models import load as loading


@pytest.fixture(scope="module")
def found(make_recipe: MakeRecipe, tmp_path_factory: pytest.TempPathFactory) -> Trials:
    rows = labelled(260)
    rows += [{**row, "text": f"{row['text']} please"} for row in rows[:40]]  # near repeats
    path = write_jsonl(tmp_path_factory.mktemp("rows") / "labelled.jsonl", rows)
    recipe = make_recipe(str(path), model="bert", train={"seed": 3}).model_copy(update={"task": "classify"})
    return planned(ground(recipe), fewest=60)


def ids(trials: Trials, rows: int, seed: int) -> set[str]:
    return {e.id for e in part(trials, rows, seed).splits.train}


def test_parts_of_one_seed_are_nested_and_of_another_are_others(found: Trials) -> None:
    few, some, many = (ids(found, n, 0) for n in (12, 30, 80))
    assert (len(few), len(some), len(many)) == (12, 30, 80)
    assert few < some < many
    assert ids(found, 30, 1) != some


def test_each_label_is_in_the_smallest_part_and_a_seed_trains_with_its_own(found: Trials) -> None:
    smallest = part(found, 12, 1)
    assert {e.label for e in smallest.splits.train} == {"card", "fee", "login"}
    assert (part(found, 12, 0).plan.seed, smallest.plan.seed) == (3, 4)
    assert len(smallest.train_rows) == 12


def test_nothing_that_is_trained_on_nearly_repeats_a_scored_row(found: Trials) -> None:
    train, scored = ([e.input_text for e in rows] for rows in (found.asked.splits.train, found.asked.test))
    assert not near.touching(train, scored).any()


def test_more_than_half_is_scored_on_and_the_largest_part_is_still_there(found: Trials) -> None:
    rows = found.rows
    assert 0.5 * rows < len(found.asked.test) < 0.6 * rows
    assert max(n for n, _ in found.sizes) == round(0.4 * rows) <= len(found.asked.splits.train)


def test_ways_without_training_have_all_rows_at_hand_but_those_asked_and_what_repeats_them(found: Trials) -> None:
    asked, rows = found.asked, found.rows
    turns = _turns(asked.test, rows)
    assert sorted(n for turn in turns for n in turn) == list(range(len(asked.test)))
    for turn in turns:
        one = _turn(asked, turn)
        assert [e.id for e in one.test] == [asked.test[n].id for n in turn]
        assert len(one.splits.train) + len(one.test) == rows
        assert len(one.test) <= 0.25 * rows
        assert not near.touching([e.input_text for e in one.splits.train], [e.input_text for e in one.test]).any()


def test_answers_of_all_turns_are_those_of_their_rows_in_order(found: Trials, tmp_path: Path) -> None:
    model = loading.load(found.asked.recipe.model)
    looked_up = next(b for b in bars(model, found, tmp_path) if b.system.name == "nearest_neighbour")
    assert [p.id for p in looked_up.predictions] == [e.id for e in found.asked.test]
    turn = max(_turns(found.asked.test, found.rows), key=len)
    alone = judging.baselines(model, _turn(found.asked, turn)).predictions["nearest_neighbour"]
    assert [looked_up.predictions[n].answer for n in turn] == [p.answer for p in alone]
    right = [p.answer == e.answer for p, e in zip(looked_up.predictions, found.asked.test, strict=True)]
    assert looked_up.system.metrics["accuracy"].value == pytest.approx(sum(right) / len(right))
    assert (tmp_path / "bars").is_dir()


def test_the_plan_of_a_part_is_that_of_a_run_on_so_many_rows(found: Trials) -> None:
    assert part(found, 12, 0).plan.steps <= part(found, 80, 0).plan.steps <= found.whole.plan.steps
    assert part(found, 12, 0).metrics == found.whole.metrics[:1]


def test_labels_that_a_part_has_not_are_no_fault(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    rows = [{**row, "label": f"{row['label']} {i % 7}"} for i, row in enumerate(labelled(300))]
    recipe = make_recipe(str(write_jsonl(tmp_path / "r.jsonl", rows)), model="bert")
    trials = planned(ground(recipe.model_copy(update={"task": "classify"})), fewest=60)
    assert len(part(trials, 8, 0).labels) == 8 < len(trials.whole.labels) == 21


def test_one_group_that_holds_all_rows_leaves_nothing_to_score_on(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    rows = [{**row, "who": 0} for row in labelled(200)]
    held = write_jsonl(tmp_path / "held.jsonl", [{**row, "who": 1} for row in labelled(30, seed=9)])
    data = {"split": {"group_by": "who", "dev": 0}, "test": str(held)}
    recipe = make_recipe(str(write_jsonl(tmp_path / "r.jsonl", rows)), model="bert", data=data)
    trials = planned(ground(recipe.model_copy(update={"task": "classify"})), fewest=60)
    assert trials.sizes == ()
    assert "cannot be split once more" in trials.how
