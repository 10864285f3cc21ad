"""The page and the table of a forecast, and the chart of its parts."""

import re

from rich.console import Console

from tunesmith.core.recipe import Recipe
from tunesmith.flows.plan import Asked, plan
from tunesmith.present.forecast import forecast_summary, render_forecast
from tunesmith.present.shares import shares

RECIPE = Recipe.parse({"model": "mistralai/Mixtral-8x7B-v0.1", "data": {"train": "none.jsonl"}})
FOUND = plan(RECIPE, Asked(device="h200", rows=5000, tokens=800, fit=True, devices=True))


def test_the_table_says_what_the_page_says() -> None:
    console = Console(width=200, record=True, file=None)
    with console.capture() as held:
        console.print(forecast_summary(FOUND, "page.html"))
    table, page = held.get(), render_forecast(FOUND)
    for text in ("46.7B parameters", "at work a token", "NVIDIA H200", "Assumed:"):
        assert text in table, text
    assert all(name in table for name in FOUND.activations)
    for text in ("46.7B parameters", "NVIDIA T4", "learning_rate", *FOUND.memory, *FOUND.activations, *FOUND.time):
        assert text in page, text


def test_names_are_data_and_cannot_write_into_the_page() -> None:
    evil = FOUND.model_copy(update={"model": "<script>alert(1)</script>", "assumed": ("<b>bold</b>",)})
    page = render_forecast(evil)
    assert "<script>" not in page
    assert "<b>bold" not in page


def test_bars_are_in_order_and_the_limit_is_marked() -> None:
    drawn = shares("Memory", {"small": (1.0, "1 GiB"), "large": (3.0, "3 GiB")}, "4 GiB", (5.0, "5 GiB"))
    assert drawn.index("large") < drawn.index("small") < drawn.index("together")
    widths = [float(w) for w in re.findall(r'<rect [^>]*width="([0-9.]+)"', drawn)]
    assert widths[0] == max(widths[:2]) and widths[2] == round(widths[0] + widths[1], 2)
    assert "there are 5 GiB" in drawn
    assert "there are" not in shares("Memory", {"small": (1.0, "1 GiB")}, "1 GiB", (50.0, "50 GiB"))  # far away
    assert shares("Memory", {}, "0") == ""
