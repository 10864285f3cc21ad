"""The page and the summary of an advice: whole, harmless, and with every number."""

import pytest
from tests.present.test_html import Page
from tests.present.test_terminal import shown

import sample_advice as sample
from tunesmith.core.advice import Facts
from tunesmith.decide.advise import advise
from tunesmith.decide.economics import economics
from tunesmith.present.advice import advice_summary, cost_chart, curve_chart, forecasts, render_advice


def test_the_page_shows_decision_forecast_lists_and_money_and_runs_nothing() -> None:
    found = sample.build()
    html = render_advice(found)
    page = Page(html)
    assert page.stack == []
    assert not {tag for tag, _ in page.tags} & {"script", "img", "link", "iframe"}
    assert not [a for _, attrs in page.tags for a in attrs if a in ("src", "onerror", "onclick")]
    for text in (found.sentence, found.rule, found.next, found.economics.sentence, "61.0% to 71.0%"):
        assert " ".join(text.split()) in page.text
    for items in found.lists.values():
        assert all(r.topic in page.text and r.sentence in page.text for r in items)
    assert html.count("<svg") == 2
    assert "<script>alert" in page.text  # as text


def test_the_chart_has_every_run_and_every_way() -> None:
    svg = curve_chart(sample.evidence())
    assert svg.count("<circle") == 5
    assert all(name in svg for name in ("few_shot", "nearest_neighbour", "majority", "zero_shot", "all 1,240 rows"))


def test_where_no_model_was_prompted_page_and_summary_say_what_would_fill_the_gap() -> None:
    found = advise(sample.evidence(task="classify", bars=sample.evidence().bars[:1]), economics(None, Facts()))
    for text in (Page(render_advice(found)).text, " ".join(shown(advice_summary(found), 2000).split())):
        assert "prompting reaches at which cost, and the break-even, are open" in text
        assert "-s evaluate.rival.url=URL -s evaluate.rival.model=NAME" in text


@pytest.mark.parametrize(
    "changes",
    [
        {"curve": None},
        {"curve": None, "points": (), "bars": (), "tuned": None},
        {"metric": "perplexity", "higher_is_better": False},
        {"facts": Facts()},
        {"curve": sample.curve(within=0.0, overtakes=float("inf"))},
    ],
)
def test_a_page_with_less_to_show_is_whole(changes: dict[str, object]) -> None:
    found = sample.build(**changes)  # type: ignore[arg-type]
    page = Page(render_advice(found))
    assert page.stack == []
    text = shown(advice_summary(found), 100)
    assert found.decision.upper() in text


def test_what_is_out_of_reach_is_said() -> None:
    rows = forecasts(sample.evidence(curve=sample.curve(within=0.0, overtakes=float("inf"))))
    assert rows[-1][1] == "out of reach"


def test_without_prices_there_is_no_chart_of_costs() -> None:
    assert cost_chart(sample.build(Facts()).economics, None) == ""


def test_the_summary_fits_and_tells_the_rule() -> None:
    found = sample.build()
    text = shown(advice_summary(found), 80)
    assert max(map(len, text.splitlines())) <= 80
    flat = " ".join(text.split())
    assert "TUNE" in flat and "Rule: gain" in flat
    assert all(r.topic in text for items in found.lists.values() for r in items)
    assert "What 1,000 more rows bring: +3.0 points (80%: +1.0 to +5.0 points)." in " ".join(
        flat.replace("│", " ").split()
    )
    assert "1,000 more rows" not in shown(advice_summary(sample.build(curve=None)), 80)


def test_the_money_says_whose_seconds_it_counts() -> None:
    found = sample.build()
    assert "those of this machine, which answers one at a time" in found.economics.assumes
    assert found.economics.assumes in Page(render_advice(found)).text
    assert found.economics.assumes in " ".join(shown(advice_summary(found), 2000).split())
