"""An advice end to end on networks of a few thousand weights: what is measured, what is kept, what is refused."""

import math
from pathlib import Path
from typing import Any

import pytest
from tests.endpoint import said, serving
from tests.flows.conftest import MakeRecipe, asked, labelled, write_jsonl

import sample_advice as sample
from tunesmith.core.advice import Advice, Bar, Facts
from tunesmith.core.errors import Diverged, RecipeError
from tunesmith.core.recipe import Recipe
from tunesmith.core.report import CurvePoint
from tunesmith.flows import trials
from tunesmith.flows.advise import _use, advise, plan
from tunesmith.flows.finetune import finetune
from tunesmith.flows.prepare import leaving
from tunesmith.flows.watch import Watcher

STAGES = ("Read and check", "Load", "Look at the rows", "Without training")


class Told:
    """What a flow says; ``stop_at`` raises as Ctrl-C would when that stage begins."""

    def __init__(self, stop_at: str = "") -> None:
        self.stages: list[str] = []
        self.notes: list[str] = []
        self.stop_at = stop_at

    def stage(self, name: str, detail: str = "") -> None:
        self.stages.append(name)
        if name == self.stop_at:
            raise KeyboardInterrupt

    def step(self, point: CurvePoint, total_steps: int, tokens_per_second: float) -> None:  # type: ignore[override]
        return

    def note(self, text: str) -> None:
        self.notes.append(text)

    @property
    def trials(self) -> list[str]:
        return [name for name in self.stages if name.startswith("Trial")]


@pytest.fixture(scope="module")
def recipe(make_recipe: MakeRecipe, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    path = write_jsonl(tmp_path_factory.mktemp("rows") / "labelled.jsonl", labelled(420))
    found = make_recipe(str(path), model="bert", train={"epochs": 1})
    return found.model_copy(update={"task": "classify"})


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("advised")


@pytest.fixture(scope="module")
def first(recipe: Recipe, workspace: Path) -> tuple[Advice, Told]:
    told = Told()
    return advise(recipe, workspace=workspace, watch=told), told


def test_every_size_is_run_and_scored_on_rows_held_back_from_train(first: tuple[Advice, Told], recipe: Recipe) -> None:
    evidence = first[0].evidence
    rows = evidence.rows
    sizes = [max(16, round(share * rows)) for share in (0.05, 0.1, 0.2, 0.4)]
    assert [(p.rows, p.seed) for p in evidence.points] == [(n, 0) for n in sizes] + [(n, 1) for n in sizes[:2]]
    assert {p.score.n for p in evidence.points} == {b.score.n for b in evidence.bars} == {evidence.scored}
    assert {b.name for b in evidence.bars} == {"majority", "nearest_neighbour", "zero_shot"}
    assert evidence.test_rows == len(plan(recipe).whole.splits.test) > 0
    assert all(p.steps > 0 for p in evidence.points)


def test_the_forecast_the_lists_and_the_page_are_there(first: tuple[Advice, Told], workspace: Path) -> None:
    found = first[0]
    curve = found.evidence.curve
    assert curve is not None
    assert curve.at_full.low95 <= curve.at_full.low80 <= curve.at_full.value <= curve.at_full.high80
    assert curve.at_full.low95 >= 0 and curve.at_full.high95 <= 1
    assert [len(items) for items in found.lists.values()] == [7, 6]
    folder = workspace / "advise" / found.id
    assert Advice.load(folder / "advice.json") == found
    assert "<svg" in (folder / "advice.html").read_text(encoding="utf-8")
    assert not [p for p in (folder / "trials").iterdir() if p.is_dir()]  # checkpoints of trials that are done
    assert not (workspace / "runs").exists()  # no run


def test_no_row_of_the_locked_test_is_trained_on_or_asked(recipe: Recipe) -> None:
    found = plan(recipe)
    locked = {e.id for e in found.whole.splits.test}
    used = {e.id for name in ("train", "dev", "test") for e in getattr(found.asked.splits, name)}
    assert locked
    assert not locked & used
    assert {e.id for e in found.asked.test} <= {e.id for e in found.whole.splits.train}
    assert not {e.id for e in found.asked.test} & {e.id for e in found.asked.splits.train}


def test_asked_again_with_other_facts_nothing_is_measured_again(
    first: tuple[Advice, Told], recipe: Recipe, workspace: Path
) -> None:
    told = Told()
    found = advise(recipe, facts=Facts(facts_change="daily", calls_per_day=50), workspace=workspace, watch=told)
    assert told.trials == []
    assert found.id == first[0].id
    assert found.evidence.points == first[0].evidence.points
    assert found.rule.startswith("facts change")
    assert found.decision in ("prompt", "retrieve")


def test_an_advice_that_was_stopped_goes_on(recipe: Recipe, first: tuple[Advice, Told], tmp_path: Path) -> None:
    total = len(first[1].trials)
    with pytest.raises(KeyboardInterrupt):
        advise(recipe, workspace=tmp_path, watch=Told(stop_at=f"Trial 3 of {total}"))
    told = Told()
    found = advise(recipe, workspace=tmp_path, watch=told)
    assert told.trials == [f"Trial {n} of {total}" for n in range(3, total + 1)]
    then = [(p.rows, p.seed, p.score) for p in first[0].evidence.points]
    assert [(p.rows, p.seed, p.score) for p in found.evidence.points] == then  # as one that never stopped


def test_without_time_for_three_sizes_there_is_no_forecast(recipe: Recipe, tmp_path: Path) -> None:
    told = Told()
    found = advise(recipe, workspace=tmp_path, seconds=1e-6, watch=told)
    assert len(found.evidence.points) == 1
    assert (found.decision, found.evidence.curve) == ("not enough evidence", None)
    assert found.rule.startswith("no curve")
    assert len([note for note in found.notes if "are left (--time)" in note]) == 5
    assert set(found.notes[1:]) <= set(told.notes)


def test_a_small_run_that_breaks_is_left_out_with_its_reason(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = trials.trial

    def breaks(found: trials.Trials, rows: int, seed: int, folder: Path, watch: Watcher) -> trials.Answered:
        if rows == 16 and seed == 0:
            raise Diverged("The loss is no number.")
        return whole(found, rows, seed, folder, watch)

    monkeypatch.setattr(trials, "trial", breaks)
    found = advise(recipe, workspace=tmp_path)
    assert (16, 0) not in [(p.rows, p.seed) for p in found.evidence.points]
    assert "The small run on 16 rows, seed 0, was left out: The loss is no number." in found.notes


def test_answers_that_are_written_are_advised_on_too(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "asked.jsonl", asked(260))
    small = {"max_new_tokens": 6, "shots": 1, "limit": 40}
    recipe = make_recipe(str(path), train={"epochs": 1}, evaluate=small, data={"allow": ["lengths"]})
    facts = Facts(price_in=1.0, price_out=4.0, host_price=1.0, calls_per_day=1000, latency=5.0)
    found = advise(recipe, facts=facts, workspace=tmp_path, out=tmp_path / "page", watch=Told())
    evidence = found.evidence
    assert {b.name for b in evidence.bars} >= {"few_shot", "zero_shot", "nearest_neighbour", "majority"}
    prompted = next(b for b in evidence.bars if b.name == "few_shot")
    assert prompted.seconds is not None and evidence.tuned is not None
    assert prompted.tokens_in > evidence.tuned.tokens_in > 0
    assert found.economics.known and found.economics.tokens_share is not None
    assert found.decision != "tune"  # a network of random weights learns nothing from that
    assert (tmp_path / "page" / "advice.html").is_file()
    assert evidence.scored == 40


def test_a_rival_behind_an_endpoint_is_a_prompted_bar_with_its_own_tokens(
    make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    rows = asked(260)
    known = {row["prompt"]: row["completion"] for row in rows}

    def answer(body: dict[str, Any]) -> tuple[int, Any]:
        return 200, said(known[body["messages"][-1]["content"]], prompt_tokens=700, completion_tokens=3)

    with serving(answer) as server:
        rival = {"url": f"http://127.0.0.1:{server.server_port}/v1", "model": "large"}
        recipe = make_recipe(
            str(write_jsonl(tmp_path / "asked.jsonl", rows)),
            train={"epochs": 1},
            evaluate={"max_new_tokens": 6, "shots": 1, "limit": 40, "rival": rival},
            data={"allow": ["lengths"]},
        )
        found = advise(recipe, workspace=tmp_path, out=tmp_path / "page")
        asked_of = len(server.heard)
        again = advise(recipe, workspace=tmp_path, out=tmp_path / "page")
        assert len(server.heard) == asked_of  # what was paid for is kept
    bar = next(b for b in found.evidence.bars if b.name == "rival")
    assert (bar.score.value, bar.tokens_in, bar.tokens_out) == (1.0, 700, 3)
    assert bar.seconds is not None and again.decision == found.decision != "tune"
    assert [m["role"] for m in server.heard[0][2]["messages"]] == ["system", "user", "assistant", "user"]
    told = f"Rows that are asked, each with up to 1 training rows, are sent to {rival['url']}, where large answers"
    assert any(told in note for note in found.notes) and told in (tmp_path / "page" / "advice.html").read_text(
        encoding="utf-8"
    )


def test_what_the_checks_found_in_the_training_file_is_in_the_advice(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    rows = labelled(60)
    path = write_jsonl(tmp_path / "labelled.jsonl", [*rows, rows[0], rows[1]])
    recipe = make_recipe(str(path), model="bert").model_copy(update={"task": "classify"})
    found = advise(recipe, workspace=tmp_path)
    assert found.evidence.quality.rows == 62 and found.evidence.quality.found["exact_duplicates"] == 2
    (told,) = (r.sentence for r in found.lists["against tuning"] if r.topic == "data quality")
    assert told.startswith("Of 62 rows 2 repeat an earlier row")
    assert told in (tmp_path / "advise" / found.id / "advice.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("count", [60, 120])  # 120 are split: what is left gives two sizes
def test_few_rows_are_told_and_none_is_trained_on(make_recipe: MakeRecipe, tmp_path: Path, count: int) -> None:
    path = write_jsonl(tmp_path / "labelled.jsonl", labelled(count))
    recipe = make_recipe(str(path), model="bert").model_copy(update={"task": "classify"})
    told = Told()
    found = advise(recipe, workspace=tmp_path, watch=told)
    assert (found.decision, found.evidence.points, told.trials) == ("collect more data", (), [])
    assert found.rule.startswith("too few rows") and "until 118 are there to train on" in found.next


def test_where_too_few_rows_can_be_scored_on_ways_without_training_are_asked_and_none_is_trained(
    make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    path = write_jsonl(tmp_path / "labelled.jsonl", labelled(200))
    recipe = make_recipe(str(path), model="bert", evaluate={"limit": 30}).model_copy(update={"task": "classify"})
    told = Told()
    found = advise(recipe, workspace=tmp_path, watch=told)
    assert (found.decision, found.evidence.points, told.trials) == ("not enough evidence", (), [])
    assert found.evidence.scored == 30 and len(found.evidence.bars) == 3
    assert "the notes say why" in found.next and "40 rows to score on are needed" in found.notes[0]


@pytest.mark.parametrize(
    ("rows", "groups", "told"),
    [
        ("preferred", {}, "advise knows answers that are written"),
        (
            "asked",
            {"objective": "grpo", "reward": {"rules": {"exact_match": 1}}, "train": {"batch_tokens": "auto"}},
            "objective grpo",
        ),
        ("asked", {"start": "runs/some"}, "Leave start out"),
    ],
)
def test_what_no_small_run_can_tell_is_refused(
    make_recipe: MakeRecipe, tmp_path: Path, rows: str, groups: dict[str, Any], told: str
) -> None:
    with pytest.raises(RecipeError, match=told):
        advise(make_recipe(rows, **groups), workspace=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_absurd_facts_are_refused_before_anything_is_read(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="--calls-per-day is -1"):
        advise(recipe, facts=Facts(calls_per_day=-1), workspace=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_rivals_key_is_looked_for_first_and_not_where_all_is_kept(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run reads no row without it; advice that is there already needs none."""
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    rival = {"url": "http://127.0.0.1:9/v1", "model": "m", "key": "NO_SUCH_KEY"}
    rows = write_jsonl(tmp_path / "asked.jsonl", asked(200))
    recipe = make_recipe(str(rows), evaluate={"rival": rival}, data={"allow": ["lengths"]})
    for flow in (finetune, advise):
        with pytest.raises(RecipeError, match="variable NO_SUCH_KEY of the environment, which is not set"):
            flow(recipe, workspace=tmp_path)
    assert not (tmp_path / "runs").exists()
    monkeypatch.setattr(trials, "is_kept", lambda *_: True)
    monkeypatch.setattr(trials, "bars", lambda *_: ())
    monkeypatch.setattr(trials, "run", lambda *_: ())
    assert advise(recipe, workspace=tmp_path).decision == "not enough evidence"


def test_what_is_sent_is_said_and_nothing_is_where_no_rival_is_asked(make_recipe: MakeRecipe) -> None:
    rival = {"url": "https://host/v1", "model": "m", "key": "A_KEY"}
    (told,) = leaving(make_recipe("asked", evaluate={"rival": rival}))
    assert "are sent to https://host/v1, where m answers (evaluate.rival), with the key in A_KEY." in told
    (clear,) = leaving(make_recipe("asked", evaluate={"rival": rival | {"url": "http://host/v1"}}))
    assert clear.endswith("with the key in A_KEY, not encrypted.")
    chooses = make_recipe("preferred", evaluate={"rival": rival}).model_copy(update={"task": "prefer"})
    assert leaving(chooses) == leaving(make_recipe("asked")) == ()


@pytest.mark.parametrize(
    ("curve", "labels"),
    [
        (sample.curve(overtakes=2000), 760.0),  # beside 1,240 rows at hand
        (sample.curve(overtakes=300), 0.0),
        (sample.curve(overtakes=math.inf), None),
        (None, None),
    ],
)
def test_how_many_labels_are_needed_is_not_0_where_it_cannot_be_told(curve: Any, labels: float | None) -> None:
    use = _use(sample.evidence(curve=curve))
    assert use is not None
    assert (use.labels, use.forecast, use.rival) == (labels, curve is not None, False)


def test_whose_prompt_is_priced_is_known() -> None:
    rival = Bar(name="rival", score=sample.estimate(0.9), tokens_in=700, tokens_out=3, seconds=0.5)
    use = _use(sample.evidence(bars=(*sample.evidence().bars, rival)))
    assert use is not None and use.rival


def test_the_smallest_gain_is_in_the_units_of_the_verdict(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "asked.jsonl", asked(260))
    evaluate = {"metrics": ["perplexity"], "shots": 1, "limit": 40, "min_gain": 0.5}
    recipe = make_recipe(str(path), train={"epochs": 1}, evaluate=evaluate, data={"allow": ["lengths"]})
    evidence = advise(recipe, workspace=tmp_path).evidence
    assert evidence.curve is not None and not evidence.higher_is_better
    lowest = min(b.score.value for b in evidence.bars)
    assert evidence.curve.worth == pytest.approx(0.5 / lowest)  # the curve's gain is a share of a perplexity
