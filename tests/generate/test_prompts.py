"""Prompts that wait, with an adapter each: every row is answered as by its adapter alone, whatever runs beside it."""

import random
from pathlib import Path
from typing import Any

import pytest
from tests import small

from tunesmith.core.errors import ModelError
from tunesmith.generate import sampler
from tunesmith.generate.sampler import Answer, Sampling, answers, sample, stream
from tunesmith.models import load as loading
from tunesmith.models import many
from tunesmith.models.adapters import _lora_files as lora_files
from tunesmith.models.lora_stack import Update
from tunesmith.models.model import Model

NEVER = (8191,)
Alone = dict[str | None, Model]
SETTINGS: dict[str, dict[str, Any]] = {
    "small": {"rank": 2},
    "large": {"rank": 8, "alpha": 4.0, "target_modules": ("q_proj", "v_proj", "down_proj")},
    "late": {"rank": 3, "target_modules": ("gate_proj",)},
}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Alone:
    """A model for each adapter, and the base (None)."""
    folder = small.llama(tmp_path_factory.mktemp("many") / "base", max_position_embeddings=128)
    models: Alone = {None: loading.load(str(folder))}
    for seed, (name, settings) in enumerate(SETTINGS.items()):
        models[name] = small.stir(small.decoder(folder, "lora", seed=seed, **settings), seed=seed, size=0.2)
    return models


@pytest.fixture(scope="module")
def together(alone: Alone) -> Model:
    """All of them on one base."""
    base = alone[None]
    assert base is not None
    model = loading.load(base.card.path)
    for name, tuned in alone.items():
        if name is not None:
            updates = {n: Update(*one.plain(), one.scale) for n, one in lora_files.layers(tuned).items()}
            many.put(model, name, updates)
    return model


def prompts(lengths: list[int], seed: int = 0) -> list[list[int]]:
    rng = random.Random(seed)
    return [[1, *(rng.randrange(5, 8000) for _ in range(n - 1))] for n in lengths]


def apart(alone: Alone, asked: list[list[int]], names: list[str | None], sampling: Sampling) -> list[Answer]:
    """Each row by the model that has its adapter alone, with the row's own stream."""
    return [
        answers(alone[name], [prompt], sampling, [number])[0]
        for number, (prompt, name) in enumerate(zip(asked, names, strict=True))
    ]


def assert_same(found: list[Answer], expected: list[Answer]) -> None:
    assert [a.ids for a in found] == [a.ids for a in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.logp == pytest.approx(other.logp, abs=1e-4)
        assert (one.finish, one.ended and one.ended[0]) == (other.finish, other.ended and other.ended[0])


LENGTHS = [3, 40, 3, 17, 28, 9, 12, 33, 1, 21, 6, 40]
NAMES: list[str | None] = [
    "small",
    "large",
    None,
    "late",
    "small",
    "large",
    None,
    "late",
    "late",
    None,
    "large",
    "small",
]


@pytest.mark.parametrize("slots", [1, 2, 5, 256])
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_rows_of_several_adapters_get_the_answers_of_each_alone(
    alone: Alone, together: Model, monkeypatch: pytest.MonkeyPatch, slots: int, temperature: float
) -> None:
    """Three adapters of unlike ranks and layers, and the base; rows of unlike lengths come and go."""
    asked = prompts(LENGTHS, seed=5)
    free = apart(alone, asked, NAMES, Sampling(12, NEVER, temperature=temperature))
    stops = (free[0].ids[2], free[1].ids[9], free[2].ids[0], free[5].ids[4])
    sampling = Sampling(12, stops, temperature=temperature)
    expected = apart(alone, asked, NAMES, sampling)
    assert len({len(a.ids) for a in expected}) > 2
    monkeypatch.setattr(sampler, "MOST_ROWS", slots)
    assert_same(answers(together, asked, sampling, adapters=NAMES), expected)


def test_one_prompt_has_another_answer_from_each_adapter(alone: Alone, together: Model) -> None:
    (prompt,) = prompts([9], seed=2)
    names = list(alone)
    found = answers(together, [prompt] * len(names), Sampling(12, NEVER), adapters=names)
    assert len({tuple(a.ids) for a in found}) == len(names)
    assert_same(found, apart(alone, [prompt] * len(names), names, Sampling(12, NEVER)))


@pytest.mark.parametrize("slots", [2, 4, 256])
def test_a_beginning_is_shared_within_one_adapter_alone(
    alone: Alone, together: Model, monkeypatch: pytest.MonkeyPatch, slots: int
) -> None:
    """All prompts begin alike; so do some of one adapter for longer, and one adapter has a single row."""
    start, more = prompts([30], seed=6)[0], prompts([20], seed=8)[0]
    tails = prompts([3, 17, 1, 9, 4, 11, 2, 8], seed=7)
    names: list[str | None] = ["small", None, "large", "small", "large", None, "late", "large"]
    asked = [start + (more if name == "large" else []) + tail for tail, name in zip(tails, names, strict=True)]
    expected = apart(alone, asked, names, Sampling(12, NEVER))
    computed: list[int] = []
    own = together.backbone.forward

    def counted(*args: Any, **options: Any) -> Any:
        computed.append(options["input_ids"].numel())
        return own(*args, **options)

    monkeypatch.setattr(together.backbone, "forward", counted)
    monkeypatch.setattr(sampler, "MOST_ROWS", slots)
    assert_same(answers(together, asked, Sampling(12, NEVER), adapters=names), expected)
    if slots == 256:  # the beginnings of small, large and the base in one pass; of late there is one row
        assert computed[:2] == [3 * 50, 8 * 32]


def test_rows_without_a_name_are_the_bases_and_a_stream_knows_names(alone: Alone, together: Model) -> None:
    asked = prompts([6, 25, 3], seed=4)
    base = alone[None]
    assert sample(together, asked, Sampling(8, NEVER)) == sample(base, asked, Sampling(8, NEVER))
    names: list[str | None] = ["late", None, "small"]
    told = list(stream(together, asked, Sampling(8, NEVER), adapters=names))
    expected = apart(alone, asked, names, Sampling(8, NEVER))
    assert [[t.id for t in told if t.row == row][:-1] for row in range(3)] == [a.ids for a in expected]


def test_in_bf16_answers_are_those_of_each_alone_within_rounding(alone: Alone) -> None:
    base = alone[None]
    assert base is not None
    model = loading.load(base.card.path, precision="bfloat16")
    layers = lora_files.layers(alone["large"])
    many.put(model, "large", {n: Update(*one.plain(), one.scale) for n, one in layers.items()})
    asked = prompts([6, 25], seed=4)
    found = answers(model, asked, Sampling(1, NEVER), adapters=["large", None])
    expected = apart(alone, asked, ["large", None], Sampling(1, NEVER))
    for one, other in zip(found, expected, strict=True):
        assert one.logp == pytest.approx(other.logp, abs=0.1)


def test_names_that_are_not_there_are_sentences(alone: Alone, together: Model, tmp_path: Path) -> None:
    asked = prompts([6, 25], seed=4)
    with pytest.raises(ModelError, match=r'No adapter called "smal" is on the base\. Did you mean "small"\?'):
        answers(together, asked, Sampling(2, NEVER), adapters=[None, "smal"])
    with pytest.raises(ModelError, match="none was put onto"):
        answers(alone[None], asked, Sampling(2, NEVER), adapters=["small", None])
    with pytest.raises(ValueError, match="zip"):
        answers(together, asked, Sampling(2, NEVER), adapters=["small"])
