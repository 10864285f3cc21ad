"""The table of well-known models: each row against its published count, the look-up, and the file itself."""

import json
from importlib import resources

import pytest

from tunesmith.core.errors import ModelError
from tunesmith.plan.families import KNOWN
from tunesmith.plan.known import find, known_models

MODELS = known_models()
ACTIVE = {  # as published on the cards and in the papers
    "mistralai/Mixtral-8x7B-v0.1": 12.9e9,
    "Qwen/Qwen1.5-MoE-A2.7B": 2.7e9,
    "Qwen/Qwen3-30B-A3B": 3.3e9,
    "Qwen/Qwen3-235B-A22B": 22e9,
    "deepseek-ai/DeepSeek-V3": 37e9,
}


@pytest.mark.parametrize("name", MODELS)
def test_the_published_count_is_met_within_a_percent_or_a_reason_stands_there(name: str) -> None:
    known = MODELS[name]
    off = abs(known.shape().parameters / known.parameters - 1)
    assert off < 0.01 or (known.reason and off < 0.02)
    assert not known.reason or off >= 0.01  # a reason that nobody needs


@pytest.mark.parametrize("name", ACTIVE)
def test_the_published_active_count_is_met_within_two_percent(name: str) -> None:
    assert MODELS[name].shape().active_parameters == pytest.approx(ACTIVE[name], rel=0.02)


def test_the_table_spans_the_families_and_the_sizes() -> None:
    shapes = [known.shape() for known in MODELS.values()]
    assert len(MODELS) >= 40
    assert set(KNOWN) - {shape.model_type for shape in shapes} == {"camembert", "olmo3"}
    sizes = sorted(shape.parameters for shape in shapes)
    assert sizes[0] < 100e6
    assert sizes[-1] > 405e9


def test_each_row_says_where_it_is_from_and_no_name_stands_twice() -> None:
    rows = json.loads((resources.files("tunesmith.plan") / "known_models.json").read_text("utf-8"))
    names = [row["name"].casefold() for row in rows]
    assert len(set(names)) == len({name.rpartition("/")[2] for name in names}) == len(names) == len(MODELS)
    for known in MODELS.values():
        assert known.source.startswith("https://")
        assert known.licence
        assert "2018-01" <= known.released <= "2026-12"
        stated = known.config.get("text_config", known.config)
        assert {"max_position_embeddings", "n_positions"} & set(stated)
        assert set(stated) & {"vocab_size"}


def test_a_mirror_and_any_case_find_the_model() -> None:
    for name in ("meta-llama/Llama-3.1-405B", "LLAMA-3.1-405b", "unsloth/llama-3.1-405B", " Llama-3.1-405B "):
        assert find(name).name == "meta-llama/Llama-3.1-405B"
    assert find("google/gemma-3-27b-it").shape().assumed
    assert find("Qwen/Qwen2.5-7B-Instruct").shape().context == 32768 < find("Qwen2.5-7B").shape().context


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("meta-llama/Lama-3.1-405B", 'Did you mean "meta-llama/Llama-3.1-405B"?'),
        ("qwen3-8b-bse", 'Did you mean "Qwen/Qwen3-8B"?'),
        ("xyz", "Name a folder"),
    ],
)
def test_an_unknown_name_is_a_sentence_with_the_nearest(name: str, hint: str) -> None:
    with pytest.raises(ModelError, match="is not among the") as caught:
        find(name)
    assert f'"{name}"' in str(caught.value)
    assert hint in str(caught.value)
