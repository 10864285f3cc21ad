"""How the untuned model is asked, with or without shots; zero_shot is few_shot with none.

Notable: a prompted baseline that writes differs from the tuned system by its prompt alone, and is offered the tools of
the row that is asked, whatever tools its shots had. What does not fit the context is dropped in the order of least
harm: the least similar shots first, then the list of allowed answers; where references are scored, room is left for the
whole of them. ``classify`` compares the likelihood of the labels per byte of label: an untuned model's sum would favour
short labels, and bytes, unlike tokens, are the same for every tokenizer (lm-eval's acc_norm).
"""

from bisect import bisect_right
from collections.abc import Sequence

import numpy as np

from tunesmith.core.example import Example, Message
from tunesmith.core.protocols import Completer, Completion, Conversation, Writer
from tunesmith.core.report import Prediction
from tunesmith.data.preferences import said
from tunesmith.evaluate.baselines._context import BaselineContext
from tunesmith.evaluate.forms import is_plain_text
from tunesmith.evaluate.prompts import instruction, with_system
from tunesmith.evaluate.similarity import nearest


def prompted(
    context: BaselineContext, completer: Completer, shots: Sequence[Sequence[Example]]
) -> tuple[Prediction, ...]:
    """Answers of the untuned model to each test row; that row's ``shots`` (most similar last) are earlier turns."""
    prompts = _prompts(context, completer, shots)
    if context.task == "classify":
        answers = _choose(context, completer, prompts)
    else:
        answers = _write(context, completer, prompts)
    if not context.likelihood:
        return tuple(answers)
    tools = [row.tools for row in context.test]
    likelihoods = completer.likelihood(prompts, [row.target for row in context.test], tools=tools)
    return tuple(
        answer.model_copy(update={"nll": -found.logp, "nll_tokens": found.tokens})
        for answer, found in zip(answers, likelihoods, strict=True)
    )


def written(context: BaselineContext, writer: Writer, shots: Sequence[Sequence[Example]]) -> tuple[Prediction, ...]:
    """As ``prompted`` of a model that says nothing of likelihoods: labels are written as well."""
    return tuple(_write(context, writer, _prompts(context, writer, shots)))


def similar(context: BaselineContext) -> list[list[Example]]:
    """The most similar training rows of each test row, at most ``context.shots`` of them, the most similar last."""
    if not context.train:
        return [[] for _ in context.test]
    found = nearest([row.input_text for row in context.test], [e.input_text for e in context.train], context.shots)
    return [[context.train[n] for n in reversed(own)] for own in found]


def likelier(context: BaselineContext, completer: Completer) -> tuple[Prediction, ...]:
    """Of two answers the one that the untuned model finds likelier, per byte, for its sum would favour short ones."""
    answers = [(row.answer, row.rejected.content if row.rejected else "") for row in context.test]
    prompts, tools = [row.prompt for row in context.test], [row.tools for row in context.test]
    sides = [completer.likelihood(prompts, [pair[side] for pair in answers], tools=tools) for side in (0, 1)]
    found = []
    for row, texts, better, worse in zip(context.test, answers, *sides, strict=True):
        mean = [x.logp / max(1, len(text.encode())) for x, text in zip((better, worse), texts, strict=True)]
        word = said(mean[0] - mean[1])
        found.append(Prediction(id=row.id, answer=word, prompt_tokens=2 * completer.count_tokens(row.prompt)))
    return tuple(found)


def as_turns(shot: Example) -> tuple[Message, ...]:
    """A training row as the turns before a question: its own, without system, ending with its answer."""
    turns = tuple(m for m in shot.messages if m.role != "system")
    if shot.label is None and turns and turns[-1].role == "assistant":
        return turns
    return (*turns, Message(role="assistant", content=shot.answer))


def _prompts(context: BaselineContext, completer: Writer, shots: Sequence[Sequence[Example]]) -> list[Conversation]:
    full = context.prompt or instruction(context.train, context.task, context.labels)
    short = context.prompt or instruction(context.train, context.task, context.labels, lists=False)
    return [_fitted(context, completer, row, own, (full, short)) for row, own in zip(context.test, shots, strict=True)]


def _fitted(
    context: BaselineContext, completer: Writer, row: Example, shots: Sequence[Example], texts: tuple[str, str]
) -> Conversation:
    """The prompt with as many ``shots`` as fit, counted from the last; with the shorter text where even none fits."""
    if is_plain_text(row):
        return ()
    space = completer.context - max(context.max_new_tokens, _reference_tokens(context, completer, row))

    def build(kept: int, text: str) -> Conversation:
        turns = [turn for shot in shots[len(shots) - kept :] for turn in as_turns(shot)]
        system = sum(m.role == "system" for m in row.prompt[:1])
        return with_system((*row.prompt[:system], *turns, *row.prompt[system:]), text)

    def size(kept: int) -> int:
        return completer.count_tokens(build(kept, texts[0]), tools=row.tools)

    if size(len(shots)) <= space:
        return build(len(shots), texts[0])
    fit = bisect_right(range(len(shots)), space, key=size)  # how many of 0, 1, 2, ... shots leave room
    return build(fit - 1, texts[0]) if fit else build(0, texts[1])


def _reference_tokens(context: BaselineContext, completer: Writer, row: Example) -> int:
    """What the reference takes where its likelihood is asked; a cut one would be scored on fewer words."""
    if not context.likelihood:
        return 0
    turn = Message(role="assistant", content=row.target) if isinstance(row.target, str) else row.target
    alone, answered = (completer.count_tokens(turns, tools=row.tools) for turns in (row.prompt, (*row.prompt, turn)))
    return answered - alone


def _write(context: BaselineContext, completer: Writer, prompts: Sequence[Conversation]) -> list[Prediction]:
    asked = [n for n, row in enumerate(context.test) if not is_plain_text(row)]
    tools = [context.test[n].tools for n in asked]
    limit = context.max_new_tokens
    written = completer.complete([prompts[n] for n in asked], max_new_tokens=limit, tools=tools) if asked else []
    by_row: dict[int, Completion] = dict(zip(asked, written, strict=True))
    silent = Completion(text="", prompt_tokens=0, new_tokens=0)
    return [
        Prediction(
            id=row.id,
            answer=done.text,
            prompt_tokens=done.prompt_tokens,
            new_tokens=done.new_tokens,
            finish=done.finish,
        )
        for row, done in ((row, by_row.get(n, silent)) for n, row in enumerate(context.test))
    ]


def _choose(context: BaselineContext, completer: Completer, prompts: Sequence[Conversation]) -> list[Prediction]:
    logp = np.asarray(
        completer.label_logp(prompts, context.labels, tools=[row.tools for row in context.test]), dtype=np.float64
    )
    size = np.asarray([max(len(label.encode()), 1) for label in context.labels])
    best = (logp / size).argmax(axis=1)
    return [
        Prediction(
            id=row.id, answer=context.labels[choice], prompt_tokens=completer.count_tokens(prompt, tools=row.tools)
        )
        for row, prompt, choice in zip(context.test, prompts, best, strict=True)
    ]
