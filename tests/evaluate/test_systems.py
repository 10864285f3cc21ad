"""Running and scoring systems."""

from collections.abc import Callable

import pytest

from tunesmith.core.errors import PartError, RecipeError
from tunesmith.core.protocols import Embedder
from tunesmith.core.report import Prediction
from tunesmith.evaluate.baselines._context import BaselineContext
from tunesmith.evaluate.forms import known_answers
from tunesmith.evaluate.systems import Ruler, run_baselines, system_result

MakeContext = Callable[..., BaselineContext]


def ruler(context: BaselineContext, *metrics: str) -> Ruler:
    known = known_answers(context.train, context.task, context.labels)
    return Ruler(tuple(row.answer for row in context.test), metrics, 0, known)


def test_auto_runs_all_that_apply(make_context: MakeContext) -> None:
    context = make_context()
    results, predictions, notes = run_baselines("auto", context, ruler(context, "exact_match", "perplexity"))
    assert [r.name for r in results] == ["few_shot", "majority", "nearest_neighbour", "zero_shot"]
    assert set(predictions) == {r.name for r in results}
    assert notes == ()
    by_name = {r.name: r for r in results}
    assert by_name["nearest_neighbour"].metrics["exact_match"].value == 1.0
    assert by_name["zero_shot"].invalid == len(context.test)  # "hm" is none of the known answers
    assert by_name["zero_shot"].metrics["perplexity"].value == pytest.approx(2.718281828**2)
    assert "perplexity" not in by_name["majority"].metrics
    assert by_name["few_shot"].prompt_tokens > by_name["zero_shot"].prompt_tokens > 0
    assert all(r.kind == "baseline" and r.seconds >= 0 for r in results)


def test_an_encoder_leaves_prompted_ones_out_with_the_reason(make_context: MakeContext, letters: Embedder) -> None:
    context = make_context(completer=None, embedder=letters)
    results, _, notes = run_baselines(("few_shot", "majority"), context, ruler(context, "exact_match"))
    assert [r.name for r in results] == ["majority"]
    assert notes == ("few_shot was left out: an encoder cannot be prompted.",)


def test_wrong_names_and_empty_lists_stop_before_anything_runs(make_context: MakeContext) -> None:
    context = make_context()
    with pytest.raises(PartError, match=r'No baseline called "zero_shots". Did you mean "zero_shot"'):
        run_baselines(("majority", "zero_shots"), context, ruler(context, "exact_match"))
    with pytest.raises(PartError, match="exact_mach"):
        run_baselines("auto", context, ruler(context, "exact_mach"))
    with pytest.raises(RecipeError, match="expected at least one"):
        run_baselines((), context, ruler(context, "exact_match"))


def test_the_tuned_system_is_scored_by_the_same_function() -> None:
    predictions = [
        Prediction(id="a", answer="x", prompt_tokens=4, new_tokens=2, finish="length"),
        Prediction(id="b", answer="", prompt_tokens=0, new_tokens=0, finish="context"),
    ]
    result = system_result("tuned", predictions, Ruler(("x", "y"), ("exact_match",), 0, known=("x", "y")), seconds=2.0)
    assert result.kind == "tuned"
    assert (result.prompt_tokens, result.new_tokens, result.invalid) == (2.0, 1.0, 1)
    assert result.note == (
        "1 of 2 cut off at the longest answer allowed; 1 of 2 not answered, for the prompt did not fit the context"
    )
