"""The page and the table of a comparison: whole, harmless, and with every number; and names that do not collide."""

from xml.etree import ElementTree

from tests.present.test_html import Page
from tests.present.test_terminal import shown

import sample_comparison as sample
from tunesmith.core.report import Estimate
from tunesmith.present.comparison import charts, comparison_summary, render_comparison
from tunesmith.present.scatter import Chart, Dot, scatter


def exact(value: float) -> Estimate:
    return Estimate(value=value, low=value, high=value, n=10)


def test_the_page_shows_every_method_and_runs_nothing() -> None:
    found = sample.build()
    html = render_comparison(found)
    page = Page(html)
    assert page.stack == []
    assert not {tag for tag, _ in page.tags} & {"script", "img", "link", "iframe"}
    assert not [a for _, attrs in page.tags for a in attrs if a in ("src", "onerror", "onclick")]
    for method in found.methods[:-1]:
        assert method.quality is not None and method.forgetting is not None
        text = f"{method.name} {100 * method.quality.value:.1f}% {100 * method.quality.low:.1f}%"
        assert text in page.text
        assert f"{method.forgetting.value:+.3f} {method.forgetting.low:+.3f} to" in page.text
        assert f"{method.trainable_parameters:,}" in page.text
        assert all(a.run_id in page.text for a in method.attempts)
    assert "hra, seed 0: failed (20260301-141599-hra). <script>" in page.text
    assert "hra no result" in page.text


def test_both_charts_name_every_method_and_the_best_baseline() -> None:
    for svg in charts(sample.build()).values():
        texts = [t.text for t in ElementTree.fromstring(svg).iter("text")]
        assert set(sample.METHODS) <= set(texts)
        assert any((text or "").endswith("dashed: the best baseline, nearest_neighbour") for text in texts)


def test_names_cover_neither_points_nor_one_another() -> None:
    dots = [Dot(f"method_{i}", exact(1 + 0.002 * i), exact(0.5 + 0.003 * (i % 3))) for i in range(12)]
    tree = ElementTree.fromstring(scatter(Chart("A", "x", "y"), dots, percent=True))
    names = [(float(t.get("x", 0)), float(t.get("y", 0)), len(t.text or "")) for t in tree.iter("text")
             if (t.text or "").startswith("method_")]  # fmt: skip
    assert len(names) == 12
    boxes = [(x, y - 9, x + 6 * n, y) for x, y, n in names]
    points = [(float(c.get("cx", 0)), float(c.get("cy", 0))) for c in tree.iter("circle")]
    boxes += [(x - 4, y - 4, x + 4, y + 4) for x, y in points]
    for i, a in enumerate(boxes[:12]):
        for b in boxes[i + 1 :]:
            assert not (a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3])


def test_points_without_a_number_are_left_out_and_none_is_no_chart() -> None:
    assert scatter(Chart("A", "x", "y"), [Dot("a", exact(float("nan")), exact(1))], percent=False) == ""
    assert scatter(Chart("A", "x", "y"), [Dot("a", exact(1), exact(1))], percent=False).count("<circle") == 1


def test_the_table_fits_and_tells_what_failed() -> None:
    text = shown(comparison_summary(sample.build()), 80)
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text  # no number is cut
    assert "hra, seed 0: failed" in text
    assert all(name in text for name in sample.METHODS)
