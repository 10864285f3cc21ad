"""Rows of a whole set: the same whether one process renders them or several, and whether they were kept or not."""

import os
import resource
from importlib import resources
from pathlib import Path

import pytest

from tunesmith.core.example import Example, Message, Place
from tunesmith.data import rendered
from tunesmith.data.render import Renderer

BUNDLED = Path(str(resources.files("tunesmith") / "assets" / "base"))


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    from transformers import AutoTokenizer

    return Renderer(AutoTokenizer.from_pretrained(BUNDLED))


def chat(n: int) -> Example:
    turns = (Message(role="user", content=f"Where is order {n}? ü"), Message(role="assistant", content=f"At {n * n}."))
    return Example(place=Place(file="a.jsonl", line=n + 1), messages=turns)


def refused(n: int) -> Example:
    """The assistant comes first and is to be learnt: nothing asks for it."""
    return Example(place=Place(file="a.jsonl", line=n + 1), messages=(Message(role="assistant", content="Hello."),))


ROWS = [refused(n) if n % 17 == 3 else chat(n) for n in range(90)]


@pytest.fixture
def few_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendered, "MANY", 30)
    monkeypatch.setattr(rendered, "PIECE", 7)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(4)))


def alone(renderer: Renderer) -> list[rendered.Found]:
    return [rendered._whole(row, renderer, -1) for row in ROWS]


def test_refused_rows_are_sentences_and_the_others_what_the_renderer_gives(renderer: Renderer) -> None:
    found = rendered.render_all(ROWS, renderer)
    assert found == alone(renderer)
    assert [n for n, one in enumerate(found) if isinstance(one, str)] == list(range(3, 90, 17))
    assert found[0] == renderer.whole(ROWS[0])


@pytest.mark.usefixtures("few_are_many")
def test_several_processes_give_the_same_rows(renderer: Renderer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendered, "_whole", lambda *args, own=rendered._whole: _signed(own(*args)))
    signed = rendered.render_all(ROWS, renderer)
    pids = {row[0].example_id for row in signed if not isinstance(row, str)}
    assert str(os.getpid()) not in pids
    assert len(pids) > 1
    monkeypatch.undo()
    assert [_unsigned(one) for one in signed] == [_unsigned(one) for one in alone(renderer)]
    assert "TOKENIZERS_PARALLELISM" not in os.environ


def _signed(found: rendered.Found) -> rendered.Found:
    from dataclasses import replace

    return found if isinstance(found, str) else tuple(replace(row, example_id=str(os.getpid())) for row in found)


def _unsigned(found: rendered.Found) -> object:
    return found if isinstance(found, str) else [(row.ids, row.weight, row.label) for row in found]


@pytest.mark.usefixtures("few_are_many")
def test_a_child_that_dies_costs_time_and_no_row(renderer: Renderer, monkeypatch: pytest.MonkeyPatch) -> None:
    parent, own = os.getpid(), rendered._whole

    def dying(example: Example, using: Renderer, label: int) -> rendered.Found:
        if os.getpid() != parent and example.place.line == 40:
            os.kill(os.getpid(), 9)
        return own(example, using, label)

    monkeypatch.setattr(rendered, "_whole", dying)
    assert rendered.render_all(ROWS, renderer) == alone(renderer)


@pytest.mark.usefixtures("few_are_many")
def test_a_kept_set_is_taken_as_it_was(renderer: Renderer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = rendered.render_all(ROWS, renderer, store=tmp_path, identity="t")
    monkeypatch.setattr(rendered, "_rendered", lambda *_: pytest.fail("rendered again"))
    assert rendered.render_all(ROWS, renderer, store=tmp_path, identity="t") == first


@pytest.mark.usefixtures("few_are_many")
@pytest.mark.parametrize("change", ["row", "identity", "label"])
def test_whatever_the_rows_depend_on_makes_another_set(renderer: Renderer, tmp_path: Path, change: str) -> None:
    rendered.render_all(ROWS, renderer, store=tmp_path, identity="t")
    rows = [chat(1000), *ROWS[1:]] if change == "row" else ROWS
    label = 0 if change == "label" else -1
    identity = "u" if change == "identity" else "t"
    found = rendered.render_all(rows, renderer, label=label, store=tmp_path, identity=identity)
    assert found == [rendered._whole(row, renderer, label) for row in rows]
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.usefixtures("few_are_many")
@pytest.mark.parametrize("damage", ["flip", "truncate", "delete", "manifest"])
def test_a_damaged_set_is_rendered_again_and_mended(renderer: Renderer, tmp_path: Path, damage: str) -> None:
    first = rendered.render_all(ROWS, renderer, store=tmp_path, identity="t")
    (place,) = tmp_path.iterdir()
    path = place / ("MANIFEST.json" if damage == "manifest" else "rows.safetensors")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    if damage == "delete":
        path.unlink()
    else:
        path.write_bytes(data[:100] if damage == "truncate" else data)
    assert rendered.render_all(ROWS, renderer, store=tmp_path, identity="t") == first
    assert rendered._read(place, ROWS, -1) == first


@pytest.mark.usefixtures("few_are_many")
def test_old_sets_go(renderer: Renderer, tmp_path: Path) -> None:
    for n in range(rendered.KEPT + 3):
        rendered.render_all(ROWS, renderer, store=tmp_path, identity=str(n))
        for place in tmp_path.iterdir():
            os.utime(place, (n, n)) if place.stat().st_mtime > 1e6 else None
    assert len(list(tmp_path.iterdir())) == rendered.KEPT


@pytest.mark.usefixtures("few_are_many")
def test_a_full_disk_costs_the_kept_set_and_no_row(renderer: Renderer, tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))  # the library that writes has errors of its own
    try:
        found = rendered.render_all(ROWS, renderer, store=tmp_path, identity="t")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert found == alone(renderer)
    assert list(tmp_path.iterdir()) == []


def test_small_sets_are_not_kept(renderer: Renderer, tmp_path: Path) -> None:
    rendered.render_all(ROWS, renderer, store=tmp_path / "rows", identity="t")
    assert not (tmp_path / "rows").exists()
