"""Judging rows with tools: what is asked is what was trained, and a call is scored against the text of its turn."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests import small

from tunesmith.core.errors import DataError
from tunesmith.core.example import Example, Message, Place
from tunesmith.data.render import Renderer
from tunesmith.evaluate.score import score
from tunesmith.flows import judging
from tunesmith.generate import local
from tunesmith.models import load as loading
from tunesmith.models.model import Model, adapters_off

TOOL = {"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return loading.load(str(small.llama(tmp_path_factory.mktemp("judging") / "base", max_position_embeddings=512)))


def row(line: int, *, tools: bool = True) -> Example:
    call = {"type": "function", "function": {"name": "find", "arguments": {"n": line}}}
    turns = (Message(role="user", content=f"Where is {line}?"), Message(role="assistant", tool_calls=(call,)))
    return Example(place=Place(file="calls.jsonl", line=line), messages=turns, tools=(TOOL,) if tools else ())


def test_a_model_that_writes_what_was_trained_is_right_on_every_call(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    renderer = Renderer(model.tokenizer)
    rows = [renderer.spelled(row(n, tools=n > 1)) for n in range(1, 4)]
    trained = [renderer.rows(r).rows[0] for r in rows]
    starts = [next(i for i, weight in enumerate(t.weight) if weight > 0) for t in trained]
    asked: list[list[int]] = []

    def perfect(_model: Model, prompts: list[list[int]], *_rest: Any) -> list[list[int]]:
        asked.extend(prompts)
        return [list(t.ids[start:]) for t, start in zip(trained, starts, strict=True)]

    monkeypatch.setattr(local, "sample", perfect)
    prepared: Any = SimpleNamespace(recipe=SimpleNamespace(task="generate"), max_new_tokens=64, company=None)
    answers = judging.answer(model, prepared, rows, ["perplexity"])
    assert asked == [list(t.ids[:start]) for t, start in zip(trained, starts, strict=True)]
    references = judging.references(rows, "generate")
    assert all(r.startswith("<tool_call>") and r.endswith("</tool_call>") for r in references)
    assert score(answers, references, ["exact_match"], seed=0)["exact_match"].value == 1.0
    assert [a.nll_tokens for a in answers] == [sum(w > 0 for w in t.weight) for t in trained]


def test_a_call_whose_text_nobody_knows_is_refused() -> None:
    with pytest.raises(DataError, match=r"^calls.jsonl line 2: the answer is a tool call, .* Leave such rows out"):
        judging.references([row(2)], "generate")
    assert judging.references([row(2).model_copy(update={"written": "find 2"})], "generate") == ["find 2"]


@pytest.mark.parametrize("method", ["prompt", "prefix", "lora"])
def test_general_text_fits_beside_soft_tokens(method: str, tmp_path: Path) -> None:
    model = small.decoder(small.llama(tmp_path / "short", max_position_embeddings=48), method, rank=8)
    with adapters_off(model):
        before = judging.general_bits(model)
    small.stir(model, size=0.5)
    found = judging.forgotten(model, before)
    assert found is not None
    room = 48 - (0 if method == "lora" else 8)
    assert len(judging._general(model)[0]) < room
    assert found.before.value == pytest.approx(sum(before) / sum(map(len, judging._general(model))))
    assert found.after.value != found.before.value
