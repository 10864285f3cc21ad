"""The chart over a logarithmic x: everything is drawn where it belongs, and nothing breaks it."""

import math
from xml.etree import ElementTree

from tunesmith.core.report import Estimate
from tunesmith.present.charts import Series
from tunesmith.present.logarithmic import Chart, Shown, logarithmic
from tunesmith.present.svg import WIDTH

CHART = Chart("Learning curve", "n = 3 runs", "rows", "accuracy", percent=True)


def drawn(chart: Chart, shown: Shown) -> ElementTree.Element:
    return ElementTree.fromstring(logarithmic(chart, shown))


def at(value: float) -> Estimate:
    return Estimate(value=value, low=value - 0.1, high=value + 0.1, n=9)


def test_powers_of_ten_are_equally_far_apart() -> None:
    tree = drawn(CHART, Shown(dots=((10, at(0.3)), (100, at(0.4)), (1000, at(0.5)))))
    x = [float(c.get("cx", 0)) for c in tree.iter("circle")]
    assert math.isclose(x[1] - x[0], x[2] - x[1], abs_tol=0.1)


def test_band_levels_and_mark_are_there_by_name() -> None:
    line = Series("forecast", ((10, 0.3), (1000, 0.5)), "series-a")
    shown = Shown(
        (line,), ((10, 0.2, 0.4), (1000, 0.4, 0.6)), (), ((0.45, "few_shot"), (0.451, "nearest")), (100, "all")
    )
    tree = drawn(CHART, shown)
    texts = {t.text: (float(t.get("x", 0)), float(t.get("y", 0))) for t in tree.iter("text")}
    assert {"forecast", "few_shot", "nearest", "all", "40%"} <= set(texts)
    assert abs(texts["few_shot"][1] - texts["nearest"][1]) >= 14  # names do not cover each other
    assert len(list(tree.iter("polygon"))) == 1
    assert all(0 <= x <= WIDTH for x, _ in texts.values())


def test_what_cannot_stand_on_the_axes_is_left_out() -> None:
    line = Series("a", ((0, 1.0), (10, math.nan), (10, 0.0), (100, 5.0)), "series-a")
    tree = drawn(Chart("t", "", "x", "y", tall=True), Shown((line,), mark=(0.0, "never")))
    (path,) = tree.iter("polyline")
    assert len((path.get("points") or "").split()) == 1
    assert "never" not in [t.text for t in tree.iter("text")]


def test_nothing_is_no_chart_and_one_point_is_one() -> None:
    assert logarithmic(CHART, Shown()) == ""
    assert logarithmic(CHART, Shown(dots=((-1, at(0.5)),))) == ""
    assert logarithmic(CHART, Shown(dots=((10, at(0.5)),))).count("<circle") == 1
