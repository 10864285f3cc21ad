"""The parts that trials are trained on: nested, stratified, apart from what is scored."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from tests.flows.conftest import MakeRecipe, labelled, write_jsonl

from tunesmith.core.errors import ModelError
from tunesmith.core.report import Prediction
from tunesmith.data import near
from tunesmith.decide.advise import FEWEST_ROWS, FEWEST_SCORED
from tunesmith.evaluate.baselines._context import BaselineContext
from tunesmith.evaluate.baselines.nearest_neighbour import answer as nearest
from tunesmith.evaluate.similarity import Remembered
from tunesmith.evaluate.systems import able, find_baseline
from tunesmith.flows import judging
from tunesmith.flows import trials as trials_module
from tunesmith.flows.prepare import ground
from tunesmith.flows.trials import TIMED, Trials, _in_turns, _turns, bars, is_kept, part, planned
from tunesmith.generate.local import LocalModel
from tunesmith.models import load as loading
from tunesmith.models.model import Model


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


def test_half_is_scored_on_and_the_largest_part_is_still_there(found: Trials) -> None:
    rows = found.rows
    assert 0.45 * rows < len(found.asked.test) <= 0.5 * rows
    assert max(n for n, _ in found.sizes) == round(0.4 * rows) <= len(found.asked.splits.train)


def test_ways_that_look_rows_up_have_all_at_hand_but_those_asked_and_what_repeats_them(
    found: Trials, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = judging.context_of(loading.load(found.asked.recipe.model), found.asked)
    asked: list[BaselineContext] = []
    way = replace(find_baseline("nearest_neighbour"), answer=lambda one: asked.append(one) or nearest(one))
    answers = _in_turns(way, context, _turns(context.test, found.rows))
    assert [p.id for p in answers] == [e.id for e in found.asked.test]
    for one in asked:
        assert len(one.train) + len(one.test) == found.rows and 0 < len(one.test) <= 0.25 * found.rows
        assert not near.touching([e.input_text for e in one.train], [e.input_text for e in one.test]).any()
        alone = {p.id: p.answer for p in nearest(one)}
        assert all(alone[p.id] == p.answer for p in answers if p.id in alone)
    assert sorted(e.id for one in asked for e in one.test) == sorted(e.id for e in found.asked.test)


def test_the_constant_answer_is_that_of_the_rows_that_are_not_held_back(
    make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    """Of the others of a turn the commonest label is the one that the turn has least of: with two labels that are
    equally common that would lie below chance."""
    rows = [{"text": f"{row['text']} {n}", "label": ("yes", "no")[n % 2]} for n, row in enumerate(labelled(200))]
    recipe = make_recipe(str(write_jsonl(tmp_path / "r.jsonl", rows)), model="bert")
    trials = planned(ground(recipe.model_copy(update={"task": "classify"})), fewest=60)
    held = Counter(e.label for e in trials.asked.splits.train).most_common(1)[0][0]
    constant = next(
        b for b in bars(loading.load(recipe.model), trials, tmp_path / "kept") if b.system.name == "majority"
    )
    assert {p.answer for p in constant.predictions} == {held}


def test_each_way_is_kept_as_it_is_done_and_not_asked_again(
    found: Trials, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = loading.load(found.asked.recipe.model)
    wanted, real = able("auto", judging.context_of(model, found.asked), found.asked.metrics), able

    def fails(_: BaselineContext) -> tuple[Prediction, ...]:
        raise ModelError("no answer")

    broken = [*wanted[0][:-1], replace(wanted[0][-1], answer=fails)]
    monkeypatch.setattr(trials_module, "able", lambda *_: (broken, *wanted[1:]))
    with pytest.raises(ModelError):
        bars(model, found, tmp_path)
    assert is_kept(tmp_path, broken[0].name) and not is_kept(tmp_path, broken[-1].name)
    only_last = [*(replace(way, answer=fails) for way in wanted[0][:-1]), wanted[0][-1]]
    monkeypatch.setattr(trials_module, "able", lambda *_: (only_last, *wanted[1:]))
    assert {b.system.name for b in bars(model, found, tmp_path)} == {
        way.name for way in real("auto", *_of(model, found))[0]
    }


def test_an_encoder_reads_each_row_once_but_where_its_time_is_taken(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = write_jsonl(tmp_path / "r.jsonl", labelled(200))
    recipe = make_recipe(str(rows), model="bert").model_copy(update={"task": "classify"})
    trials = planned(ground(recipe), fewest=60)
    read: list[str] = []
    real = LocalModel.embed
    monkeypatch.setattr(LocalModel, "embed", lambda self, texts: read.extend(texts) or real(self, texts))
    model = loading.load(recipe.model)
    found = bars(model, trials, tmp_path / "kept", Remembered(LocalModel(model)))
    assert {"zero_shot", "nearest_neighbour"} <= {b.system.name for b in found}
    timed = {e.input_text for e in trials.asked.test[: TIMED + 1]}
    rows_read = Counter(read)
    assert {e.input_text for e in trials.whole.splits.train} <= set(rows_read)
    scored = {e.input_text for e in trials.asked.test}  # read by its name, and to be looked up
    names = {label.replace("_", " ") for label in trials.asked.labels}
    assert {text: times for text, times in rows_read.items() if times > 1} == {
        **dict.fromkeys(scored, 2),
        **dict.fromkeys(timed, 3),
        **dict.fromkeys(names, 2),
    }
    assert all((b.latency is not None) == (b.system.name == "zero_shot") for b in found)


def _of(model: Model, found: Trials) -> tuple[BaselineContext, tuple[str, ...]]:
    return judging.context_of(model, found.asked), found.asked.metrics


def test_a_group_that_holds_most_rows_is_trained_on_and_the_others_are_scored_on(
    make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    rows = [{**row, "who": 0 if n < 120 else n} for n, row in enumerate(labelled(220))]
    held = write_jsonl(tmp_path / "held.jsonl", [{**row, "who": -1} for row in labelled(30, seed=9)])
    data = {"split": {"group_by": "who", "dev": 0}, "test": str(held)}
    recipe = make_recipe(str(write_jsonl(tmp_path / "r.jsonl", rows)), model="bert", data=data)
    trials = planned(ground(recipe.model_copy(update={"task": "classify"})), fewest=60)
    assert "0" not in {str(e.group) for e in trials.asked.test} and len(trials.asked.test) >= 50


def test_rows_in_a_few_large_groups_are_not_scored_on(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    rows = [{**row, "who": n % 8} for n, row in enumerate(labelled(200))]
    held = write_jsonl(tmp_path / "held.jsonl", [{**row, "who": -1} for row in labelled(30, seed=9)])
    data = {"split": {"group_by": "who", "dev": 0}, "test": str(held)}
    recipe = make_recipe(str(write_jsonl(tmp_path / "r.jsonl", rows)), model="bert", data=data)
    trials = planned(ground(recipe.model_copy(update={"task": "classify"})), fewest=60)
    assert (trials.sizes, trials.how) == ((), "its rows belong together in fewer than 10 units")


def _of_rows(make_recipe: MakeRecipe, folder: Path, count: int, limit: int | None = None) -> Trials:
    held = write_jsonl(folder / "held.jsonl", labelled(30, seed=9))
    path = write_jsonl(folder / "r.jsonl", labelled(count))
    recipe = make_recipe(
        str(path), model="bert", data={"split": {"dev": 0}, "test": str(held)}, evaluate={"limit": limit}
    )
    return planned(ground(recipe.model_copy(update={"task": "classify"})), fewest=FEWEST_ROWS)


def test_no_small_run_is_made_where_no_curve_can_come_of_it(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    enough, fewer = (_of_rows(make_recipe, tmp_path, FEWEST_ROWS - n) for n in (0, 1))
    assert [n for n, seed in enough.sizes if seed == 0] == [16, 24, 47] and enough.scored >= FEWEST_SCORED
    assert (fewer.sizes, fewer.scored) == ((), 0)
    unscored = _of_rows(make_recipe, tmp_path, 200, limit=FEWEST_SCORED - 10)
    assert (unscored.sizes, unscored.scored) == ((), FEWEST_SCORED - 10)  # ways without training are asked
    assert f"{FEWEST_SCORED} rows to score on are needed" in unscored.how


def test_no_small_run_is_made_where_too_few_rows_are_left_to_train_on(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunesmith.flows.trials.HELD", 0.7)  # as large units make it
    found = _of_rows(make_recipe, tmp_path, FEWEST_ROWS)
    assert not found.sizes and found.scored >= FEWEST_SCORED
    assert "3 sizes are needed, and too many rows belong together to train on 47" in found.how


def test_sizes_that_few_rows_round_to_nearly_the_same_are_one(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    assert _of_rows(make_recipe, tmp_path, 170).sizes == ((16, 0), (34, 0), (68, 0), (16, 1), (34, 1))  # not 17


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
