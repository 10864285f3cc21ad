import math
from xml.etree import ElementTree

import pytest

import sample_report as sample
from tunesmith.core.report import Confusion, Estimate
from tunesmith.present import charts
from tunesmith.present.svg import ticks

NASTY = [sample.SCRIPT, sample.BIDI, sample.LONG, "", "&<>\"'", "\ud800\x00]]>"]


def parse(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)


def texts(svg: str) -> list[str]:
    return [node.text or "" for node in parse(svg).iter("text")]


def check(svg: str) -> None:
    """Valid XML, a spoken title first, and every coordinate a finite number."""
    root = parse(svg)
    assert root[0].tag == "title" and root[0].text
    for node in root.iter():
        assert node.tag in {"svg", "title", "text", "line", "rect", "circle", "polyline"}
        for name in ("x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "width", "height"):
            if name in node.attrib:
                assert math.isfinite(float(node.attrib[name])), ElementTree.tostring(node)
    for node in root.iter("rect"):
        assert float(node.attrib["width"]) >= 0 and float(node.attrib["height"]) >= 0


CURVES = {
    "one point": ((3.0, 1.0),),
    "flat": ((0.0, 2.0), (1.0, 2.0)),
    "zero": ((0.0, 0.0), (1.0, 0.0)),
    "huge": ((0.0, 1e30), (1e9, -1e30)),
    "tiny": ((0.0, 1e-12), (5.0, 2e-12)),
    "holes": ((0.0, math.nan), (1.0, 1.0), (2.0, math.inf), (3.0, 0.5)),
    "backwards": ((5.0, 1.0), (1.0, 2.0)),
}


@pytest.mark.parametrize("points", CURVES.values(), ids=list(CURVES))
def test_lines_survive_any_curve(points: tuple[tuple[float, float], ...]) -> None:
    check(charts.lines("Loss", "step", "loss (nats)", [charts.Series("train", points, "series-a")], (2, "best")))


def test_lines_name_axes_series_and_n() -> None:
    a = charts.Series("train", ((0.0, 2.0), (10.0, 1.0), (20.0, math.nan)), "series-a")
    b = charts.Series("dev", ((10.0, 1.5),), "series-b", dots=True)
    found = texts(charts.lines("Loss", "optimiser step", "loss (nats)", [a, b], (10, "best step 10")))
    assert {"Loss", "optimiser step", "loss (nats)", "train", "dev", "best step 10"} <= set(found)
    assert "train: n = 2 points; dev: n = 1 points" in found


def test_a_long_curve_is_thinned_and_says_so() -> None:
    points = tuple((float(k), 1.0 / (k + 1)) for k in range(20_001))
    svg = charts.lines("Loss", "step", "loss", [charts.Series("train", points, "series-a")])
    drawn = parse(svg).find("polyline")
    assert drawn is not None and 300 < len(drawn.attrib["points"].split()) <= charts.MOST_POINTS + 1
    assert drawn.attrib["points"].split()[-1].startswith("744.0,"), "the last step stands at the right edge"
    assert any("n = 20,001 points; train thinned" in t for t in texts(svg))


@pytest.mark.parametrize("nothing", [(), ((math.nan, 1.0),), ((0.0, math.inf),)])
def test_nothing_to_draw_is_an_empty_string(nothing: tuple[tuple[float, float], ...]) -> None:
    assert charts.lines("Loss", "step", "loss", [charts.Series("train", nothing, "series-a")]) == ""
    assert charts.histogram("Lengths", [], "tokens") == ""
    assert charts.bars("Balance", {}, "rows") == ""
    assert charts.whiskers("accuracy", []) == ""
    assert charts.heat_map(Confusion(field="x", labels=(), counts=())) == ""
    assert charts.heat_map(Confusion(field="x", labels=("a",), counts=((0,),))) == ""


def test_whiskers_stand_where_the_numbers_say() -> None:
    rows = [
        ("tuned", Estimate(value=0.8, low=0.7, high=0.9, n=50), True),
        ("b", Estimate(value=0.4, low=0.2, high=0.6, n=50), False),
    ]
    svg = charts.whiskers("accuracy", rows, 0.4)
    check(svg)
    dots = [float(node.attrib["cx"]) for node in parse(svg).iter("circle")]
    bars = [
        (float(n.attrib["x1"]), float(n.attrib["x2"]))
        for n in parse(svg).iter("line")
        if "whisker" in n.attrib["class"]
    ]
    spans = [bar for bar in bars if bar[0] != bar[1]]
    assert dots[0] > dots[1]
    assert spans[0][0] < dots[0] < spans[0][1] and math.isclose(sum(spans[0]) / 2, dots[0], abs_tol=0.02)
    assert "80.0% (70.0% to 90.0%)" in texts(svg) and "Accuracy" in texts(svg)
    assert any("n = 50" in t for t in texts(svg))


def test_a_reference_beside_all_whiskers_lies_in_the_picture() -> None:
    svg = charts.whiskers("win_rate", [("a", Estimate(value=1.0, low=0.76, high=1.0, n=12), True)], 0.5, "half")
    check(svg)
    (dashed,) = (float(n.attrib["x1"]) for n in parse(svg).iter("line") if n.attrib["class"] == "mark")
    assert 190 < dashed < min(float(n.attrib["x1"]) for n in parse(svg).iter("line") if "whisker" in n.attrib["class"])
    assert any(t.endswith("dashed: half") for t in texts(svg))


def test_the_text_of_a_mark_stands_above_all_points() -> None:
    points = tuple((float(x), min(x, 5.0)) for x in range(1, 11))
    svg = charts.lines(
        "Title", "step", "reward", [charts.Series("dev", points, "series-a", dots=True)], (5, "best step 5")
    )
    check(svg)
    highest = min(float(node.attrib["cy"]) for node in parse(svg).iter("circle"))
    (text,) = (float(n.attrib["y"]) for n in parse(svg).iter("text") if n.text == "best step 5")
    assert text < highest - 3  # the radius of a dot


def test_whiskers_without_a_defined_interval() -> None:
    bad = Estimate(value=math.nan, low=math.nan, high=math.nan, n=0)
    fine = Estimate(value=5.0, low=math.nan, high=math.nan, n=3)
    svg = charts.whiskers("perplexity", [("a", bad, True), ("b", fine, False)], math.nan)
    check(svg)
    assert {"not defined", "5.00"} <= set(texts(svg)) and any("n = 0 to 3" in t for t in texts(svg))


@pytest.mark.parametrize("values", [[5], [5, 5, 5], [0], list(range(1000)), [1, 100_000], [3] * 10_000 + [4096]])
def test_histogram_bars_add_up_to_n(values: list[int]) -> None:
    svg = charts.histogram("Lengths", values, "tokens a row", (64, "max_length 64"))
    check(svg)
    bars = list(parse(svg).iter("rect"))
    assert len(bars) <= 41
    counted = sum(int((node.findtext("title") or "").rsplit(" ", 2)[1]) for node in bars)
    assert counted == len(values)
    assert {"Lengths", "tokens a row"} <= set(texts(svg))


def test_bars_sum_what_does_not_fit() -> None:
    svg = charts.bars("Class balance", {f"label {k}": k + 1 for k in range(77)}, "rows")
    check(svg)
    found = texts(svg)
    assert "label 76" in found and "label 0" not in found and "47 more labels" in found
    assert "n = 3,003 rows, 77 labels" in found


def test_heat_map_shows_counts_labels_and_the_diagonal() -> None:
    svg = charts.heat_map(Confusion(field="urgency", labels=("low", "high"), counts=((7, 2), (0, 11))))
    check(svg)
    found = texts(svg)
    assert [t for t in found if t.isdigit()] == ["7", "2", "11"]
    assert found.count("low") == 2 and found.count("high") == 2
    assert "n = 20 rows, 18 on the diagonal; shade: share of the row" in found
    assert "expected low, predicted high: 2 of 9" in [node.text for node in parse(svg).iter("title")]


def test_heat_map_of_many_labels_keeps_those_with_errors() -> None:
    size = 77
    counts = [[40 if i == j else 0 for j in range(size)] for i in range(size)]
    counts[70][75] = 9
    svg = charts.heat_map(
        Confusion(field="label", labels=tuple(f"L{k}" for k in range(size)), counts=tuple(map(tuple, counts)))
    )
    check(svg)
    assert {"L70", "L75", "9"} <= set(texts(svg)) and "L60" not in texts(svg)
    assert any("n = 3,089 rows, 3,080 on the diagonal" in t and "24 of 77 labels" in t for t in texts(svg))


@pytest.mark.parametrize("text", NASTY, ids=range(len(NASTY)))
def test_hostile_texts_stay_text(text: str) -> None:
    estimate = Estimate(value=0.5, low=0.4, high=0.6, n=9)
    check(charts.whiskers(text, [(text, estimate, True)]))
    check(charts.lines(text, text, text, [charts.Series(text, ((0.0, 1.0), (1.0, 2.0)), "series-a")], (1, text)))
    check(charts.histogram(text, [1, 2, 3], text, (2, text)))
    check(charts.bars(text, {text: 3, "b": 1}, text))
    check(charts.heat_map(Confusion(field=text, labels=(text, "b"), counts=((1, 2), (3, 4)))))


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (-3, 8), (0, 1e-9), (1e9, 1e9 + 1), (0, 0), (5, 4), (0.1, 0.1000001)]
)
def test_ticks_are_few_and_inside(low: float, high: float) -> None:
    found = ticks(low, high)
    assert 1 <= len(found) <= 8
    assert all(low - 1e-6 * abs(low) <= t <= max(high, low) * (1 + 1e-6) for t in found)


def test_long_names_in_a_legend_do_not_run_into_each_other() -> None:
    names = ("train, from step 1,234", "dev", "a third one")
    drawn = charts.lines("t", "x", "y", [charts.Series(n, ((0, 1.0), (1, 2.0)), "series-a") for n in names])
    texts = [t for t in ElementTree.fromstring(drawn).iter() if t.tag.endswith("text") and t.get("y") == "72"]
    places = {str(t.text): float(str(t.get("x"))) for t in texts}
    assert list(places) == list(names)
    starts = list(places.values())
    assert all(b - a > 26 + 6.5 * len(name) for name, a, b in zip(names, starts, starts[1:], strict=False))
    assert starts[-1] + 6.5 * len(names[-1]) < charts.WIDTH
