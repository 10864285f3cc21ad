import math

import pytest
import yaml
from huggingface_hub import ModelCard

import sample_report as sample
from tunesmith.core.recipe import DataRecipe, MethodRecipe, ObjectiveRecipe
from tunesmith.core.report import Estimate
from tunesmith.present.model_card import model_card

HOSTILE = [
    "---", "a: b # c", "- x\n- y", "*anchor", "!!python/object:os.system", "'\"", "\u2028\x85\x00", "yes", "2e-4",
    "[x](javascript:1)",
    "emoji 👩‍🚀", "\ud800", sample.SCRIPT, sample.BIDI, sample.LONG, "null", "", "{a: ]", "%TAG", "```\nrm -rf /\n```",
]  # fmt: skip


def front(card: str) -> dict[str, object]:
    start, end = card.index("---\n") + 4, card.index("\n---\n", 4)
    loaded = yaml.safe_load(card[start:end])
    assert isinstance(loaded, dict)
    return loaded


def test_front_matter_is_what_the_hub_expects() -> None:
    card = model_card(sample.build())
    found = front(card)
    assert (
        found["base_model"] == "tunesmith-base" and found["library_name"] == "peft" and found["license"] == "apache-2.0"
    )
    assert found["pipeline_tag"] == "text-generation" and found["tags"] == ["tunesmith", "lora", "sft"]
    results = ModelCard(card).data.eval_results
    tuned = sample.systems()[-1]
    assert {r.metric_type: r.metric_value for r in results} == pytest.approx(
        {n: e.value for n, e in tuned.metrics.items()}
    )
    exact = next(r for r in results if r.metric_type == "exact_match")
    assert exact.metric_args == {"n": 214, "low": 0.777, "high": 0.872}
    assert exact.metric_name == "Exact match (95% interval 77.7% to 87.2%, n = 214)"
    assert exact.dataset_name == "tickets.jsonl" and exact.dataset_revision == sample.build().test_hash


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_front_matter_is_valid_for_any_name(name: str) -> None:
    report = sample.build()
    report = report.model_copy(
        update={
            "card": report.card.model_copy(update={"name": name, "licence": name}),
            "recipe": report.recipe.model_copy(
                update={"data": DataRecipe(train=f"/secret/folder/{name}"), "objective": ObjectiveRecipe(name=name)}
            ),
            "run_id": name,
            "warnings": (name,),
        }
    )
    card = model_card(report)
    found = front(card)
    assert isinstance(found["base_model"], str) and all(isinstance(tag, str) for tag in found["tags"])  # type: ignore[attr-defined]
    assert found["model-index"][0]["results"][0]["metrics"][0]["value"] == 0.827  # type: ignore[index]
    assert "/secret" not in card and "<script" not in "".join(card.split("\n---\n", 1)[1].split("```")[::2])
    assert card.count("\n```") == 4 and "\u202e" not in card
    card.encode("utf-8")


def test_an_unusual_licence_is_named_beside_other() -> None:
    report = sample.build()
    named = report.model_copy(update={"card": report.card.model_copy(update={"licence": "My own: no use on Mondays"})})
    found = front(model_card(named))
    assert (found["license"], found["license_name"]) == ("other", "My own: no use on Mondays")


def test_full_fine_tuning_and_classification_name_their_library_and_classes() -> None:
    report = sample.build()
    recipe = report.recipe.model_copy(update={"method": MethodRecipe(name="full"), "task": "classify"})
    card = model_card(report.model_copy(update={"recipe": recipe, "adapter": "model"}))
    assert front(card)["library_name"] == "transformers" and front(card)["pipeline_tag"] == "text-classification"
    assert "AutoModelForCausalLM.from_pretrained" in card and "head.safetensors" in card and "peft" not in card
    assert "sft" not in card and "classify" in front(card)["tags"]  # type: ignore[operator]


def test_the_body_tells_verdict_evaluation_and_limits() -> None:
    card = model_card(sample.build("HOLD"))
    order = ["**Verdict: HOLD.**", "## Data", "## Training", "## Evaluation", "## Limits", "## How to load"]
    assert [card.index(part) for part in order] == sorted(card.index(part) for part in order)
    for system in sample.systems():
        assert f"| {system.name.replace('_', chr(92) + '_')} |" in card
    assert "82.7% (77.7% to 87.2%, n = 214)" in card
    assert (
        "- The verdict is HOLD" in card
        and "PeftModel.from_pretrained" in card
        and "tunesmith chat 20260301-141502-ab12cd" in card
    )
    assert "kettle" not in card, "no row of the data stands in the card"


def test_an_undefined_metric_stays_out_of_the_front_matter() -> None:
    report = sample.build()
    bad = Estimate(value=math.nan, low=math.nan, high=math.inf, n=0)
    tuned = report.systems[-1].model_copy(
        update={"metrics": {"exact_match": bad, "chrf": Estimate(value=0.5, low=math.nan, high=0.6, n=9)}}
    )
    card = model_card(report.model_copy(update={"systems": (tuned,)}))
    metrics = front(card)["model-index"][0]["results"][0]["metrics"]  # type: ignore[index]
    assert [(m["type"], m["args"]) for m in metrics] == [("chrf", {"n": 9, "high": 0.6})]
    assert "model-index" not in front(model_card(report.model_copy(update={"systems": ()})))
