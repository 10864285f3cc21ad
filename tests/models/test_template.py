"""Chat templates that would hang or fill the machine are refused at load; sound ones cost little and pass."""

import os
import time
from importlib import resources
from pathlib import Path

import pytest

import small
from tunesmith.core.errors import ModelError
from tunesmith.models import load as loading
from tunesmith.models import template as templates
from tunesmith.models import template_probe

SOUND = (resources.files("tunesmith") / "assets" / "base" / "chat_template.jinja").read_text("utf-8")
DOUBLED = "{% set n = namespace(t='a') %}{% for _ in range(40) %}{% set n.t = n.t ~ n.t %}{% endfor %}{{ n.t|length }}"
LOOPS = "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}{% endfor %}{% endfor %}"
BY_ROW = (
    "{% for m in messages %}{% for a in range(m.content|length) %}{% for b in range(m.content|length) %}"
    "{% for c in range(m.content|length) %}{% endfor %}{% endfor %}{% endfor %}{% endfor %}"
)
WRONG = {
    "loops": (LOOPS + "{% endfor %}", "still rendering a probe of a few turns after"),
    "loops over what a row holds": (BY_ROW, "still rendering"),
    "a text doubled": (DOUBLED, "MiB"),
    "a constant": ("{{ 'a' * 10**10 }}", "MiB"),
    "a wide filter": ("{{ 'a'|center(10**11) }}", "MiB"),
    "a long text": ("{{ 'a'|center(10**7) }}", "writes 10,000,000 characters"),
    "a macro that calls itself": ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "calls itself without end"),
    "a syntax error": ("{% for m in messages %}", "is no template (line 1: "),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_template_that_overruns_is_refused_at_load(
    name: str, llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text, words = WRONG[name]
    if "still" in words:
        monkeypatch.setattr(templates, "SECONDS", 1)
    folder = small.copy(llama, tmp_path / "spoiled")
    (folder / "chat_template.jinja").write_text(text)
    with pytest.raises(ModelError) as caught:
        loading.card_of(str(folder))
    sentence = str(caught.value)
    assert words in sentence and str(folder) in sentence and "use another model" in sentence, sentence
    assert sentence.endswith(".") and "\n" not in sentence


@pytest.mark.parametrize(
    "text",
    [
        SOUND,
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('none') }}{% endif %}{{ m.content }}"
        "{% endfor %}",
        "{% generation %}{{ messages|tojson(indent=2) }}{% endgeneration %}{{ strftime_now('%Y') }}{{ dict(a=1) }}"
        "{% set n = namespace(x=1) %}{% set n.x = 2 %}{% for m in messages %}{% break %}{% endfor %}{{ bos_token }}",
        "{{ 1 / 0 }}",  # the rows tell
    ],
)
def test_a_template_that_ends_passes_and_is_probed_once(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    templates._fault.cache_clear()
    templates.check_template(Path("here"), text, {"bos_token": "<s>"})
    monkeypatch.setattr(templates, "PROGRAM", Path("nowhere"))  # a second process would fail
    templates.check_template(Path("there"), text, {"bos_token": "<s>"})


def test_the_bundled_template_is_not_probed(monkeypatch: pytest.MonkeyPatch, llama: Path) -> None:
    monkeypatch.setattr(templates, "PROGRAM", Path("nowhere"))
    templates._fault.cache_clear()
    assert loading.card_of("bundled")[0].template_hash == loading.card_of(str(llama))[0].template_hash


def test_a_probe_costs_little() -> None:
    """Counted in the child's own processor time, which other load does not change."""
    templates._fault.cache_clear()
    before, started = os.times(), time.perf_counter()
    templates.check_template(Path("here"), SOUND, {})
    after = os.times()
    print(f"{time.perf_counter() - started:.3f} s")
    assert after.children_user + after.children_system - before.children_user - before.children_system < 0.6


def test_the_probe_renders_as_transformers_does() -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    for turns, tools in templates.PROBES:
        (theirs,), _ = render_jinja_template([turns], tools=tools, chat_template=SOUND, add_generation_prompt=True)
        ours = template_probe.sandbox().from_string(SOUND)
        assert ours.render(messages=turns, tools=tools, documents=None, add_generation_prompt=True) == theirs


@pytest.mark.parametrize(
    "text", ["{{ dict.__class__.x }}", "{% set n = namespace(_x=1) %}", "{{ ''.__class__.__mro__ }}"]
)
def test_the_probe_is_no_way_out_of_the_sandbox(text: str) -> None:
    import jinja2

    with pytest.raises(jinja2.exceptions.SecurityError):
        template_probe.sandbox().from_string(text).render()
