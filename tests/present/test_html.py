import base64
import hashlib
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

import sample_report as sample
from tunesmith.core.report import DataReport, Decision, Report
from tunesmith.present.html import render_html
from tunesmith.present.words import count, score

VOID = {"meta", "br", "img", "link", "input", "hr"}


class Page(HTMLParser):
    """Tags, attributes and texts as a browser's parser sees them; checks that elements close in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.stack: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.stack:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def page() -> str:
    return render_html(sample.build())


def test_the_page_is_well_formed_and_has_all_sections(page: str) -> None:
    parsed = Page(page)
    assert parsed.stack == []
    ids = {attrs["id"] for _, attrs in parsed.tags if "id" in attrs}
    linked = {(attrs["href"] or "")[1:] for tag, attrs in parsed.tags if tag == "a"}
    assert ids == linked == {"systems", "learned", "rows", "data", "plan", "environment"}


def test_nothing_executes_and_nothing_is_loaded(page: str) -> None:
    assert "<script" not in page.lower()
    allowed = {
        "meta",
        "html",
        "head",
        "title",
        "style",
        "body",
        "header",
        "section",
        "nav",
        "a",
        "h1",
        "h2",
        "h3",
        "p",
        "div",
        "span",
    }
    allowed |= {"strong", "ul", "li", "table", "thead", "tbody", "tr", "th", "td", "figure", "pre"}
    allowed |= {"svg", "text", "line", "rect", "circle", "polyline"}
    for tag, attrs in Page(page).tags:
        assert tag in allowed
        assert not {name for name in attrs if name.startswith("on")} | (
            attrs.keys() & {"src", "srcset", "style", "xlink:href"}
        )
        assert (attrs.get("href") or "#").startswith("#")
    style = page[page.index("<style>") : page.index("</style>")]
    assert "url(" not in style and "@import" not in style and "http" not in style


def test_the_policy_admits_exactly_our_style_sheet(page: str) -> None:
    policy = next(
        a["content"] for t, a in Page(page).tags if t == "meta" and a.get("http-equiv") == "Content-Security-Policy"
    )
    css = page[page.index("<style>") + 7 : page.index("</style>")]
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def test_hostile_texts_are_shown_and_do_nothing(page: str) -> None:
    assert sample.SCRIPT in Page(page).text
    assert page.count("</style>") == 1 and page.count("</title><meta") == 0 and "<img" not in page
    assert "⟨U+202E⟩gnp.exe" in page and "\u202e" not in page and "\x1b" not in page and "\x00" not in page
    assert "x" * 1000 not in page and "99,507 more characters" in page
    assert "(empty)" in page and sample.RTL in page
    page.encode("utf-8")


def test_every_text_field_of_the_report_is_escaped() -> None:
    """Each string of the report, wherever it is printed, is replaced by a payload; no element may come of it."""
    payload = "\"'><b onx=1>\ud800</title></pre>{{ 7*7 }}{% x %}"

    def poison(value: object) -> object:
        if isinstance(value, str):
            return value if value in KEEP else payload
        if isinstance(value, dict):
            return {key: poison(v) for key, v in value.items()}
        return [poison(v) for v in value] if isinstance(value, list) else value

    KEEP = {
        "SHIP",
        "HOLD",
        "blocking",
        "warning",
        "info",
        "baseline",
        "tuned",
        "decoder",
        "float32",
        "generate",
        "stop",
        "exact_match",
    }
    KEEP |= {"auto", "fast"}
    dumped = sample.build().model_dump(mode="json")
    poisoned = Report.model_validate(poison(dumped))
    parsed = Page(render_html(poisoned))
    assert parsed.stack == []
    assert not [attrs for tag, attrs in parsed.tags if tag == "b" or "onx" in attrs]
    assert parsed.text.count("{{ 7*7 }}") > 40


def test_every_number_of_the_systems_appears(page: str) -> None:
    text = Page(page).text
    report = sample.build()
    for system in report.systems:
        for metric, estimate in system.metrics.items():
            for value in (estimate.value, estimate.low, estimate.high):
                assert score(metric, value) in text
            assert f"n = {count(estimate.n)}" in text
        for value in (system.prompt_tokens, system.new_tokens, system.invalid):
            assert count(value) in text
    assert "58.9 s" in text and "310 ms" in text


def test_the_tuned_system_comes_first_then_the_best_baseline(page: str) -> None:
    head = page[page.index("<thead>") : page.index("</thead>")]
    assert re.findall(r">([a-z_]+)</th>", head) == ["metric", "tuned", "nearest_neighbour", "few_shot", "zero_shot"]


@pytest.mark.parametrize(("decision", "tone"), [("SHIP", "ship"), ("HOLD", "hold"), ("NOT ENOUGH EVIDENCE", "unsure")])
def test_the_banner_tells_the_verdict(decision: Decision, tone: str) -> None:
    page = render_html(sample.build(decision))
    assert f'<section class="banner {tone}"' in page and f'<div class="decision">{decision}</div>' in page
    verdict, text = sample.build().verdict, Page(page).text
    assert verdict.sentence in text and verdict.rule in text and verdict.cost_sentence in text
    assert "+34.1 points (95% interval +26.6 points to +41.6 points, n = 214, p < 0.001)" in text


def test_each_chart_is_valid_xml_with_a_spoken_title(page: str) -> None:
    charts = re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)
    assert len(charts) == 6
    titles = [ElementTree.fromstring(chart).findtext("title") or "" for chart in charts]
    assert [t.split(". ")[0] for t in titles] == [
        "Exact match of each system", "Loss on train and dev", "Learning rate", "Confusions of intent",
        "Lengths of the rows",        "Class balance",
    ]  # fmt: skip
    assert all("n = " in t for t in titles)


def test_the_same_report_gives_the_same_bytes(page: str) -> None:
    assert render_html(sample.build()) == page
    assert render_html(Report.model_validate_json(sample.build().model_dump_json())) == page


def test_findings_plan_reasons_and_hashes_are_told(page: str) -> None:
    text, report = Page(page).text, sample.build()
    assert text.index("personal_data") < text.index("contradictions") < text.index("token_length")
    for reason in report.plan.reasons.values():
        assert reason in text
    for wanted in (
        report.test_hash,
        report.card.fingerprint,
        report.recipe.content_hash(),
        "on_bad_row: stop",
        "1 min 35 s",
    ):
        assert wanted in text


def test_an_almost_empty_report_renders() -> None:
    report = sample.build().model_copy(
        update={
            "systems": (), "confusions": (), "wins": (), "losses": (), "best": (), "worst": (),
            "seconds": {}, "environment": {},
            "warnings": (), "adapter": "", "split_sizes": {},
            "fit": sample.fit().model_copy(update={"curve": (), "train_score": None, "dev_score": None}),
            "data": DataReport(rows=0, format="csv", why="", quarantined=0, findings=()),
        }
    )  # fmt: skip
    parsed = Page(render_html(report))
    assert parsed.stack == [] and "svg" not in {tag for tag, _ in parsed.tags}
    assert "No check found anything." in parsed.text and "No loss was recorded." in parsed.text


def test_the_time_until_the_first_step_is_told() -> None:
    report = sample.build()
    first = report.fit.curve[0].model_copy(update={"step": 1, "seconds": 17.0})
    fit = report.fit.model_copy(update={"curve": (first, *report.fit.curve[1:])})
    text = Page(render_html(report.model_copy(update={"fit": fit}))).text
    assert "17 s until the first step" in text or "17.0 s until the first step" in text
    assert "until the first step" not in Page(render_html(report)).text
