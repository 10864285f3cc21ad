"""From a recipe to rows: what is refused before a weight is read, what is set aside, and what is left alone."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.flows.conftest import TOPICS, MakeRecipe, asked, labelled, write_jsonl

from tunesmith.core.errors import DataError, MemoryNeeded, PartError, RecipeError
from tunesmith.core.example import Example, Message, Place
from tunesmith.core.recipe import Recipe
from tunesmith.flows.check import check
from tunesmith.flows.prepare import prepare
from tunesmith.flows.rows import to_train


def long(words: int, **row: Any) -> dict[str, Any]:
    return {"prompt": "Where is it? " + "word " * words, "completion": "There.", **row}


def test_the_splits_hold_each_row_once_and_the_rows_are_those_of_the_splits(make_recipe: MakeRecipe) -> None:
    ready = prepare(make_recipe())
    ids = [e.id for rows in (ready.splits.train, ready.splits.dev, ready.splits.test) for e in rows]
    assert len(ids) == len(set(ids)) == 90
    assert [r.example_id for r in ready.train_rows] == [e.id for e in ready.splits.train]
    assert {r.example_id for r in ready.dev_rows} == {e.id for e in ready.splits.dev}
    assert ready.test == ready.splits.test
    assert ready.plan.steps == round(2 * ready.plan.steps / 2) > 4
    assert 0 < (ready.data.trained_share or 0) < 1
    assert ready.data.token_lengths == tuple(map(len, (r.ids for r in rows_in_file_order(ready))))


def rows_in_file_order(ready: Any) -> list[Any]:
    from tunesmith.data.render import Renderer

    examples = (*ready.splits.train, *ready.splits.dev, *ready.splits.test)
    renderer = Renderer(ready.tokenizer)
    return [renderer.rows(e).rows[0] for e in sorted(examples, key=lambda e: e.place.line)]


def test_a_head_learns_numbers_and_a_language_model_learns_the_labels_as_answers(make_recipe: MakeRecipe) -> None:
    head, words = prepare(make_recipe("labelled")), prepare(make_recipe("labelled", objective="sft"))
    assert head.labels == words.labels == tuple(sorted(TOPICS))
    by_id = {e.id: e.label for e in head.splits.train}
    assert all(head.labels[r.label] == by_id[r.example_id] for r in head.train_rows)
    for row in words.train_rows:
        trained = [i for i, w in zip(row.ids, row.weight, strict=True) if w]
        assert words.tokenizer.decode(trained) == f"{by_id[row.example_id]}<|im_end|>"
    assert {r.label for r in words.train_rows} == {-1}


def test_a_labelled_row_becomes_a_conversation_and_others_stay() -> None:
    row = Example(place=Place(file="f", line=1), messages=(Message(role="user", content="a"),), label="b")
    assert [m.content for m in to_train(row).messages] == ["a", "b"]
    assert to_train(to_train(row)) == to_train(row)


def test_a_prompt_beyond_the_context_stops_or_is_set_aside_with_its_reason(
    make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    path = str(write_jsonl(tmp_path / "rows.jsonl", [*asked(60), long(400), long(300)]))
    with pytest.raises(DataError) as stopped:
        prepare(make_recipe(path))
    assert str(stopped.value).startswith(
        f"{path} line 61: no token would be trained; its answer lies beyond the first 256"
    )
    assert "2 such rows. Or set data.on_bad_row: quarantine." in str(stopped.value)
    ready = prepare(make_recipe(path, data={"on_bad_row": "quarantine"}))
    assert [b.place.line for b in ready.bad_rows] == [61, 62]
    assert "its answer lies beyond" in ready.bad_rows[0].reason
    assert ready.data.quarantined == 2
    assert ready.data.rows == 60


def test_rows_that_are_cut_are_told_and_keep_trained_tokens(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    rows = [{"prompt": f"Tell me about {r['prompt']}", "completion": r["prompt"] * 2} for r in asked(60)]
    ready = prepare(make_recipe(str(write_jsonl(tmp_path / "rows.jsonl", rows)), train={"max_length": 100}))
    assert all(r.trained > 0 and len(r.ids) <= 100 for r in ready.train_rows)
    assert ready.warnings[0].endswith("tokens at the ends of rows longer than 100 were cut off.")
    assert [f.severity for f in ready.data.findings if f.check == "lengths"] == ["warning"]


def test_bad_rows_of_a_dev_or_test_file_are_set_aside_too(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    held = write_jsonl(tmp_path / "held.jsonl", asked(20, seed=9))
    with held.open("a") as stream:
        stream.write('{"prompt": "cut\n')
    for role in ("dev", "test"):
        ready = prepare(make_recipe(data={role: str(held), "on_bad_row": "quarantine"}))
        assert [(Path(b.place.file).name, b.place.line) for b in ready.bad_rows] == [("held.jsonl", 21)]
        assert ready.data.quarantined == 1


def test_a_test_row_too_long_for_the_model_stays_in_the_test(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    held = str(write_jsonl(tmp_path / "held.jsonl", [*asked(20, seed=9), long(400)]))
    assert len(prepare(make_recipe(data={"test": held})).test) == 21
    with pytest.raises(DataError, match=r"held.jsonl line 21: no token would be trained"):
        prepare(make_recipe(data={"dev": held}))


def test_a_test_file_without_answers_is_refused(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    rows = [{**r, "completion": ""} for r in asked(20, seed=9)]
    with pytest.raises(DataError, match="empty answer"):
        prepare(make_recipe(data={"test": str(write_jsonl(tmp_path / "held.jsonl", rows))}))


def test_when_every_row_is_set_aside_nothing_is_left(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    path = str(write_jsonl(tmp_path / "rows.jsonl", [long(400, n=i) for i in range(30)]))
    with pytest.raises(DataError, match=r"(?s)no token would be trained.*30 such rows. No row is left to train on."):
        prepare(make_recipe(path, data={"on_bad_row": "quarantine"}))


def test_the_longest_answer_follows_the_training_answers_and_the_context(
    make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    ready = prepare(make_recipe())
    longest = max(len(ready.tokenizer(e.answer).input_ids) for e in ready.splits.train)
    assert longest < ready.max_new_tokens <= 2 * longest
    rows = [{"prompt": r["prompt"][:40], "completion": r["prompt"] * 3} for r in asked(60)]
    assert prepare(make_recipe(str(write_jsonl(tmp_path / "long.jsonl", rows)))).max_new_tokens == 256 // 3
    assert prepare(make_recipe(evaluate={"max_new_tokens": 9000})).max_new_tokens == 255


@pytest.mark.parametrize(("data", "model", "changes", "kind", "said"), [
    ("asked", "bert", {}, RecipeError, "model: bert is an encoder, which cannot write; expected task: classify"),
    ("labelled", "bert", {"objective": "sft"}, RecipeError, "model: bert is an encoder, which cannot write"),
    ("asked", "llama", {"objective": "classify"}, RecipeError, "objective is classify and task is generate"),
    ("asked", "llama", {"objective": "sfft"}, PartError, 'No objective called "sfft". Did you mean "sft"?'),
    ("asked", "llama", {"method": {"name": "lorra"}}, PartError, 'No adapter called "lorra". Did you mean "lora"?'),
    ("asked", "llama", {"evaluate": {"metrics": ["exact_mach"]}}, PartError, 'Did you mean "exact_match"?'),
    ("asked", "llama", {"evaluate": {"baselines": ["few_shots"]}}, PartError, 'Did you mean "few_shot"?'),
    ("asked", "llama", {"data": {"allow": ["emty"]}}, PartError, 'Did you mean "empty"?'),
    ("asked", "llama", {"data": {"format": "chatt"}}, PartError, 'Did you mean "chat"?'),
    ("asked", "llama", {"data": {"split": {"test": 0}}}, RecipeError, "data.split.test is 0, so nothing"),
    ("labelled", "llama", {"evaluate": {"metrics": ["perplexity"]}}, RecipeError, "perplexity scores written text"),
])  # fmt: skip
def test_what_cannot_be_right_is_refused(
    make_recipe: MakeRecipe, data: str, model: str, changes: dict[str, Any], kind: type[Exception], said: str
) -> None:
    with pytest.raises(kind) as caught:
        prepare(make_recipe(data, model, **changes))
    assert said in str(caught.value)


def test_without_dev_rows_a_run_can_be_planned(make_recipe: MakeRecipe) -> None:
    ready = prepare(make_recipe(data={"split": {"dev": 0}}))
    assert (ready.dev_rows, len(ready.splits.dev)) == ((), 0)


# -- check ------------------------------------------------------------------------------------------------------------


def test_check_reports_and_marks_the_trained_tokens(make_recipe: MakeRecipe) -> None:
    report, rows = check(make_recipe(), show_mask=2)
    assert report == prepare(make_recipe()).data
    assert [r.id for r in rows] == ["asked.jsonl:1", "asked.jsonl:2"]
    for row, source in zip(rows, asked(2), strict=True):
        assert [text for text, trained in row.pieces if trained] == [source["completion"] + "<|im_end|>"]
        assert source["prompt"] in "".join(text for text, _ in row.pieces)
        assert 0 < row.trained < row.tokens


def test_check_shows_labels_and_plain_text_as_they_are_trained(make_recipe: MakeRecipe) -> None:
    (head,) = check(make_recipe("labelled", "bert"), show_mask=1)[1]
    assert (head.trained, head.pieces[0][1]) == (0, False)
    (words,) = check(make_recipe("labelled", objective="sft"), show_mask=1)[1]
    assert [t for t, trained in words.pieces if trained] == [labelled(1)[0]["label"] + "<|im_end|>"]
    (text,) = check(make_recipe("plain"), show_mask=1)[1]
    assert text.trained == text.tokens - 1


def test_what_is_found_in_a_test_file_of_its_own_is_told_with_its_role(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    held = asked(30)[-12:]
    twice = write_jsonl(tmp_path / "held.jsonl", [*held, held[0]])
    ready = prepare(make_recipe(data={"test": str(twice)}))
    assert any(f.message.startswith("In the test file: ") for f in ready.data.findings if f.check == "exact_duplicates")


@pytest.mark.parametrize("role", ["dev", "test"])
def test_training_rows_that_stand_in_a_held_out_file_are_told(
    make_recipe: MakeRecipe, tmp_path: Path, role: str
) -> None:
    held = [*asked(20, seed=9), *asked(60)[:3]]
    recipe = make_recipe(data={role: str(write_jsonl(tmp_path / "held.jsonl", held))})
    (found,) = [f for f in check(recipe)[0].findings if f.check == "overlap"]
    ready = prepare(recipe)
    assert (found.count, found.severity) == (len(ready.splits.repeats), "warning") and found.count >= 3
    assert found.message.startswith(f"{found.count} rows of the training file (nearly) repeat rows of the {role} file")
    assert found.message in ready.warnings


def test_a_pair_that_stands_the_other_way_round_in_the_test_file_is_told(
    make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    recipe = make_recipe("preferred")
    rows = [json.loads(line) for line in Path(recipe.data.train).read_text().splitlines()]
    new = [{"prompt": f"{n} {r['prompt'][::-1]}", "chosen": "yes", "rejected": "no"} for n, r in enumerate(rows[:9])]
    turned = {**rows[1], "chosen": rows[1]["rejected"], "rejected": rows[1]["chosen"]}
    held = write_jsonl(tmp_path / "held.jsonl", [rows[0], turned, *new])
    told = check(make_recipe("preferred", data={"test": str(held)}))[0].findings
    (found,) = [f for f in told if f.check == "overlap"]
    assert " 1 of them stand there with the opposite preference: decide which is right." in found.message
    assert found.rows[0].endswith(":2")  # the first to look at
    held = write_jsonl(tmp_path / "ties.jsonl", [rows[0], {**turned, "tie": True}, *new])
    told = check(make_recipe("preferred", data={"test": str(held)}))[0].findings
    (found,) = [f for f in told if f.check == "overlap"]
    assert "opposite preference" not in found.message  # a tie contradicts nothing


def test_a_check_of_a_recipe_looks_at_its_test_file_too(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    rows = [{**r, "completion": ""} for r in asked(20, seed=9)]
    data, _ = check(make_recipe(data={"test": str(write_jsonl(tmp_path / "held.jsonl", rows))}))
    assert [f.message[:17] for f in data.blocking if f.check == "empty"] == ["In the test file:"]


def test_a_part_of_the_test_rows_is_told(make_recipe: MakeRecipe) -> None:
    ready = prepare(make_recipe(evaluate={"limit": 4}))
    assert any(w.startswith("4 of ") and "test rows are asked" in w for w in ready.warnings)


def test_a_limit_draws_test_rows_by_the_seed_and_takes_not_the_first(make_recipe: MakeRecipe) -> None:
    whole = [e.id for e in prepare(make_recipe()).test]
    drawn = [
        [e.id for e in prepare(make_recipe(data={"split": {"seed": 0}}, evaluate={"limit": n})).test] for n in (4, 5, 6)
    ]
    assert all(set(ids) <= set(whole) for ids in drawn)
    assert any(ids != whole[: len(ids)] for ids in drawn)


def test_what_does_not_fit_is_refused_with_what_would() -> None:
    tickets = Path(__file__).resolve().parents[2] / "src" / "tunesmith" / "assets" / "helpdesk" / "tickets.jsonl"
    data = {"train": str(tickets), "on_bad_row": "quarantine", "limit": 100}
    whole = {"data": data, "method": {"name": "full"}}
    with pytest.raises(MemoryNeeded, match=r"nothing fits .* It would fit with method\.name: lora"):
        prepare(Recipe.parse({**whole, "budget": {"memory": "890MiB"}}))
    with pytest.raises(MemoryNeeded, match=r"nothing fits .* Even the leanest settings need about"):
        prepare(Recipe.parse({**whole, "budget": {"memory": "300MiB"}}))
