"""The tuned model that training goes on from, asked as the tuned one is: what the further training has to beat."""

from tunesmith.core.report import Prediction
from tunesmith.evaluate.baselines._context import Baseline, BaselineContext


def applies(context: BaselineContext) -> str | None:
    """Where training goes on from a run, and something is written."""
    if context.start is None:
        return "training does not go on from a run (start)"
    return None if context.task == "generate" else "it is asked where something is written"


def answer(context: BaselineContext) -> tuple[Prediction, ...]:
    """One answer a test row."""
    assert context.start is not None, "applies() admits no context without one"
    prompts, tools = [row.prompt for row in context.test], [row.tools for row in context.test]
    written = context.start.complete(prompts, max_new_tokens=context.max_new_tokens, tools=tools)
    found = [
        Prediction(id=row.id, answer=c.text, prompt_tokens=c.prompt_tokens, new_tokens=c.new_tokens, finish=c.finish)
        for row, c in zip(context.test, written, strict=True)
    ]
    if not context.likelihood:
        return tuple(found)
    known = context.start.likelihood(prompts, [row.target for row in context.test], tools=tools)
    return tuple(
        p.model_copy(update={"nll": -x.logp, "nll_tokens": x.tokens}) for p, x in zip(found, known, strict=True)
    )


PART = Baseline(
    "start",
    "The tuned model that training goes on from (start), where it does.",
    applies,
    answer,
    ("generate",),
    wanted=lambda context: context.start is not None,
)
