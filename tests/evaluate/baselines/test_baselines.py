"""Every baseline as a part, then what each one does."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from tests import small

from tunesmith.core import parts
from tunesmith.core.example import Example, Message, Place
from tunesmith.core.protocols import Completion, Embedder
from tunesmith.data.render import Renderer
from tunesmith.evaluate.baselines._context import Baseline, BaselineContext
from tunesmith.evaluate.baselines.rival import _label
from tunesmith.evaluate.systems import able

NAMES = parts.names("evaluate.baselines")
ASKED = [name for name in NAMES if name != "start"]  # which needs a run to go on from
MakeContext = Callable[..., BaselineContext]
Make = Callable[..., Example]


def find(name: str) -> Baseline:
    return parts.find("evaluate.baselines", name)  # type: ignore[no-any-return]


@pytest.fixture
def contexts(
    make_context: MakeContext, make_labelled: Make, letters: Embedder, parrot: Any
) -> dict[str, BaselineContext]:
    rows = [make_labelled(n, f"{label} text {n}", label) for n in range(8) for label in ("lost_card", "fee")]
    labels = {"task": "classify", "train": tuple(rows[:8]), "test": tuple(rows[8:]), "labels": ("fee", "lost_card")}
    rival = type(parrot)(4_000)
    return {
        "decoder generates": make_context(rival=rival),
        "decoder chooses": make_context(**labels, rival=rival),
        "encoder chooses": make_context(**labels, completer=None, embedder=letters, rival=rival),
        "open text": make_context(train=tuple(make_context().train[:3]), test=make_context().test, rival=rival),
    }


@pytest.mark.parametrize("name", NAMES)
def test_part_says_who_it_is(name: str) -> None:
    assert find(name).name == name
    assert find(name).description.endswith(".")


def test_start_answers_as_the_run_that_training_goes_on_from(make_context: MakeContext, parrot: Any) -> None:
    alone = make_context()
    assert find("start").applies(alone) == "training does not go on from a run (start)"
    assert not find("start").wanted(alone)
    context = make_context(start=parrot, completer=None, likelihood=True)
    assert find("start").applies(context) is None and find("start").wanted(context)
    predictions = find("start").answer(context)
    assert [p.id for p in predictions] == [row.id for row in context.test]
    assert [list(seen) for seen in parrot.seen] == [list(row.prompt) for row in context.test]  # no instruction is added
    assert all(p.nll is not None for p in predictions)
    assert find("start").applies(replace(context, task="classify")) == "it is asked where something is written"


@pytest.mark.parametrize("name", ASKED)
@pytest.mark.parametrize("case", ["decoder generates", "decoder chooses", "encoder chooses", "open text"])
def test_one_prediction_a_row_in_order_and_repeatable(
    name: str, case: str, contexts: dict[str, BaselineContext]
) -> None:
    part, context = find(name), contexts[case]
    reason = part.applies(context)
    if reason is not None:
        assert context.task not in part.tasks or (name, case) == ("few_shot", "encoder chooses")
        return
    predictions = part.answer(context)
    assert [p.id for p in predictions] == [row.id for row in context.test]
    assert part.answer(context) == predictions
    if context.task == "classify":
        assert {p.answer for p in predictions} <= set(context.labels)


@pytest.mark.parametrize("name", ASKED)
def test_never_looks_at_the_test_answers(name: str, contexts: dict[str, BaselineContext], make_chat: Make) -> None:
    context = contexts["decoder generates"]
    hidden = tuple(make_chat(row.place.line, row.input_text, "hidden") for row in context.test)
    assert find(name).answer(replace(context, test=hidden)) == find(name).answer(context)


@pytest.mark.parametrize("name", ASKED)
def test_reasons_not_to_run(name: str, make_context: MakeContext, letters: Embedder, parrot: Any) -> None:
    encoder = make_context(completer=None, embedder=letters)
    expected = {"zero_shot": "an encoder cannot be prompted", "few_shot": "an encoder cannot be prompted"}
    expected["longer"] = expected["shorter"] = "the test rows have no two answers to choose from"
    expected["rival"] = "no endpoint is named (evaluate.rival)"
    assert find(name).applies(encoder) == expected.get(name)
    nothing = find(name).applies(make_context(train=(), rival=parrot))
    assert (nothing is None) == (name in ("zero_shot", "rival"))


def test_a_rival_is_asked_as_few_shot_is_and_without_likelihoods(make_context: MakeContext, parrot: Any) -> None:
    context = make_context(rival=type(parrot)(4_000), completer=parrot, likelihood=True)
    assert find("rival").wanted(context) and not find("rival").wanted(make_context())
    told, shown = find("rival").answer(context), find("few_shot").answer(replace(context, likelihood=False))
    assert [p.answer for p in told] == [p.answer for p in shown]
    assert [list(p) for p in parrot.seen] == [list(p) for p in context.rival.seen]  # type: ignore[union-attr]
    assert all(p.nll is None for p in told)
    assert len(find("rival").answer(replace(context, train=()))) == len(context.test)


def test_a_label_that_a_rival_writes_in_other_letters_counts_and_another_word_does_not(
    contexts: dict[str, BaselineContext],
) -> None:
    class Says:
        context = 9999

        def complete(self, prompts: Any, *, max_new_tokens: int, tools: Any = ()) -> list[Completion]:
            assert max_new_tokens == 1024  # also for a label, as some think before they answer
            texts = ['"Lost Card".', "FEE\n", "a fee, I think", "lost_card"]
            return [Completion(text=texts[n % 4], prompt_tokens=9, new_tokens=2) for n in range(len(prompts))]

        def count_tokens(self, prompt: Any, *, tools: Any = ()) -> int:
            return 9

    found = find("rival").answer(replace(contexts["encoder chooses"], rival=Says()))
    assert [p.answer for p in found[:4]] == ["lost_card", "fee", "a fee, I think", "lost_card"]


@pytest.mark.parametrize(
    ("labels", "said"),
    [(("-1", "0", "1"), "-1"), (("c", "c++", "c#"), "c++"), (("👍", "👎"), "👍"), (("<5", "≥5"), "≥5")],
)
def test_labels_that_read_the_same_without_their_marks_are_taken_as_they_are_written(
    labels: tuple[str, ...], said: str
) -> None:
    assert _label(f" {said}\n", labels) == said
    assert _label("", labels) == ""
    assert _label(f"{said}?", ("c", "c++", "c#")) == f"{said}?"  # of three that are alike none is chosen


def test_a_rival_is_not_asked_where_likelihoods_decide(make_context: MakeContext, parrot: Any) -> None:
    context = make_context(rival=parrot)
    for metrics, asked in ((("perplexity",), False), (("exact_match", "perplexity"), True)):
        found, _, notes = able("auto", context, metrics)
        assert ("rival" in [part.name for part in found]) is asked
        assert asked or "rival was left out: it tells no likelihoods, which perplexity is made of." in notes
    assert able("auto", context, ("exact_match",))[0][0].name == "rival"  # its key and address are found out first


def test_a_rival_is_not_asked_where_nothing_can_be_compared(make_context: MakeContext, parrot: Any) -> None:
    plain = tuple(Example(place=Place(file="t", line=n), text="words") for n in range(3))
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": {}}}
    calls = Example(place=Place(file="t", line=1), messages=(
        Message(role="user", content="q"), Message(role="assistant", tool_calls=(call,)),
    ))  # fmt: skip
    for changes, told in (
        ({"task": "prefer"}, "none is written"), ({"test": plain}, "no questions"), ({"test": (calls,)}, "call tools")
    ):  # fmt: skip
        assert told in str(find("rival").applies(make_context(rival=parrot, **changes)))


def test_majority_composes_json_and_is_empty_for_open_text(make_context: MakeContext, make_chat: Make) -> None:
    answers = [{"intent": "refund", "n": 1}, {"intent": "refund", "n": 2}, {"intent": "card", "n": 2}]
    train = tuple(make_chat(n, "q", json.dumps(a)) for n, a in enumerate(answers))
    assert json.loads(find("majority").answer(make_context(train=train))[0].answer) == {"intent": "refund", "n": 2}
    text = tuple(make_chat(n, "q", f"A long answer, number {n}.") for n in range(4))
    assert find("majority").answer(make_context(train=text))[0].answer == ""


def test_nearest_neighbour_copies_the_closest_answer(make_context: MakeContext, letters: Embedder) -> None:
    for embedder in (None, letters):
        context = make_context(embedder=embedder)
        predictions = find("nearest_neighbour").answer(context)
        assert [p.answer for p in predictions] == [row.answer for row in context.test]


def test_zero_shot_of_an_encoder_reads_label_names(contexts: dict[str, BaselineContext]) -> None:
    context = contexts["encoder chooses"]
    assert [p.answer for p in find("zero_shot").answer(context)] == [row.label for row in context.test]


def test_zero_shot_merges_the_instruction_and_adds_nothing_else(
    make_context: MakeContext, make_chat: Make, parrot: Any
) -> None:
    test = (make_chat(1, "Hello", "x", system="Be kind."),)
    predictions = find("zero_shot").answer(make_context(test=test, completer=parrot, prompt="Use JSON."))
    assert [(m.role, m.content) for m in parrot.seen[0]] == [("system", "Be kind.\n\nUse JSON."), ("user", "Hello")]
    assert predictions[0].prompt_tokens == 5
    assert predictions[0].nll is None


def test_few_shot_shows_the_most_similar_last(make_context: MakeContext, parrot: Any) -> None:
    context = make_context(completer=parrot)
    predictions = find("few_shot").answer(context)
    assert [p.answer for p in predictions] == [row.answer for row in context.test]  # the parrot repeats the last one
    assert [m.role for m in parrot.seen[0]] == ["system", *["user", "assistant"] * 3, "user"]


@pytest.mark.parametrize(("room", "shown"), [(400, 3), (59, 2), (53, 1), (47, 0)])
def test_few_shot_drops_the_least_similar_until_it_fits(
    make_context: MakeContext, parrot: Any, room: int, shown: int
) -> None:
    """A turn pair has 6 words, the instruction 9 + 4 answers, the question 5; 20 are kept for the answer."""
    parrot.context = room
    context = make_context(completer=parrot, prompt=" ".join(["word"] * 16))
    find("few_shot").answer(context)
    for prompt, row in zip(parrot.seen, context.test, strict=True):
        answers = [m.content for m in prompt if m.role == "assistant"]
        assert len(answers) == shown
        assert answers[-1:] == ([row.answer] if shown else [])


def test_a_short_context_loses_the_list_of_answers_first(make_context: MakeContext, parrot: Any) -> None:
    parrot.context = 36
    find("zero_shot").answer(make_context(completer=parrot))
    assert parrot.seen[0][0].content.startswith("Answer with exactly one label, such as")


def test_choice_is_per_byte_so_long_labels_are_not_punished(
    make_context: MakeContext, make_labelled: Make, parrot: Any
) -> None:
    labels = ("no", "a_very_long_label")
    parrot.label_logp = lambda prompts, _labels, tools: [[-2.0, -5.0]] * len(prompts)
    context = make_context(task="classify", labels=labels, test=(make_labelled(1, "t", "no"),), completer=parrot)
    assert find("zero_shot").answer(context)[0].answer == "a_very_long_label"  # 5/17 a byte against 2/2


def test_likelihoods_come_when_asked_for(make_context: MakeContext) -> None:
    predictions = find("zero_shot").answer(make_context(likelihood=True))
    assert {(p.nll, p.nll_tokens) for p in predictions} == {(2.0, 1)}


def test_plain_text_is_scored_without_a_prompt(make_context: MakeContext, parrot: Any) -> None:
    rows = tuple(Example(place=Place(file="b.txt", line=n), text="three plain words") for n in (1, 2))
    context = make_context(train=rows, test=rows, completer=parrot, likelihood=True)
    predictions = find("zero_shot").answer(context)
    assert parrot.seen == []
    assert [(p.answer, p.nll_tokens) for p in predictions] == [("", 3), ("", 3)]
    assert find("few_shot").applies(context) == "plain text has no questions and answers to show"


def test_shots_keep_their_own_turns_without_system(make_context: MakeContext, make_labelled: Make) -> None:
    from tunesmith.evaluate.baselines._prompting import as_turns

    turns = (
        Message(role="system", content="s"),
        Message(role="user", content="u"),
        Message(role="assistant", content="a"),
    )
    shot = Example(place=Place(file="f", line=1), messages=turns)
    assert as_turns(shot) == turns[1:]
    assert [m.content for m in as_turns(make_labelled(1, "text", "label"))] == ["text", "label"]


TOOL = {"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}


@pytest.fixture
def calling(make_context: MakeContext) -> BaselineContext:
    """Rows whose answer calls a tool; the test rows have a tool of their own, and the last has none."""

    def row(line: int, name: str) -> Example:
        tool = {"type": "function", "function": {**TOOL["function"], "name": name}}
        call = {"type": "function", "function": {"name": name, "arguments": {"n": line}}}
        turns = (Message(role="user", content=f"find {line}"), Message(role="assistant", tool_calls=(call,)))
        return Example(
            place=Place(file="calls.jsonl", line=line), messages=turns, tools=(tool,), written=f"{name} {line}"
        )

    test = (row(8, "seek"), row(9, "look"), row(10, "find").model_copy(update={"tools": ()}))
    return make_context(train=tuple(row(n, "find") for n in range(1, 8)), test=test)


@pytest.mark.parametrize("name", ["zero_shot", "few_shot"])
def test_a_prompted_baseline_is_shown_the_tools_of_its_row_as_training_shows_them(
    name: str, calling: BaselineContext
) -> None:
    from transformers import AutoTokenizer

    renderer = Renderer(AutoTokenizer.from_pretrained(small.ASSETS))
    find(name).answer(calling)
    parrot: Any = calling.completer
    assert parrot.offered == [row.tools for row in calling.test]
    for row, prompt, tools in zip(calling.test, parrot.seen, parrot.offered, strict=True):
        asked = renderer.prompt_ids(prompt, tools)
        trained = renderer.rows(row.model_copy(update={"messages": (*prompt, row.messages[-1])})).rows[0]
        assert list(trained.ids[: len(asked)]) == asked
        text = renderer.tokenizer.decode(asked)
        assert ("<tools>" in text) == bool(row.tools)
        assert text.count("<tool_call>") == (calling.shots if name == "few_shot" else 0)


def test_the_likelihood_of_a_tool_call_is_that_of_its_turn(calling: BaselineContext) -> None:
    predictions = find("zero_shot").answer(replace(calling, likelihood=True))
    words = [len(str(row.messages[-1].tool_calls).split()) for row in calling.test]
    assert [p.nll_tokens for p in predictions] == words
    parrot: Any = calling.completer
    assert parrot.offered == [row.tools for row in calling.test] * 2


def test_room_for_the_tools_is_kept(calling: BaselineContext) -> None:
    roomy, parrot = find("few_shot").answer(calling), calling.completer
    parrot.context = max(p.prompt_tokens for p in roomy) + calling.max_new_tokens - 1  # type: ignore[union-attr]
    parrot.seen.clear()  # type: ignore[union-attr]
    find("few_shot").answer(calling)
    assert min(sum(m.role == "assistant" for m in prompt) for prompt in parrot.seen) < calling.shots  # type: ignore[union-attr]


def test_copied_tool_calls_are_copied_as_they_are_written(calling: BaselineContext) -> None:
    assert {p.answer for p in find("nearest_neighbour").answer(calling)} <= {row.written for row in calling.train}
