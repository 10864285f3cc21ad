"""The recipe: what it takes, what it refuses and in which words; the set of public knobs is frozen here."""

import pytest

from tunesmith.core.errors import RecipeError
from tunesmith.core.noun import Noun
from tunesmith.core.recipe import Recipe, seconds, size
from tunesmith.core.sentences import leaves

DATA = {"data": {"train": "a.jsonl"}}

KNOBS = """
model start task objective.name objective.beta objective.label_smoothing objective.target_margin objective.sft_weight
objective.unwanted_weight objective.clip objective.clip_high objective.value_clip objective.value_weight
objective.kl_target objective.gamma objective.lam objective.entropy
data.train data.dev data.test data.format data.columns data.split.dev data.split.test data.split.group_by
data.split.seed data.on_bad_row data.allow data.limit
method.name method.rank method.alpha method.dropout method.target_modules method.rank_pattern method.alpha_pattern
method.modules_to_save method.new_tokens method.b_rate
reward.rules reward.model reward.weight reward.label reward.judge reward.judge_label reward.seconds
rollout.prompts rollout.answers rollout.passes rollout.steps rollout.kl_limit
train.epochs train.learning_rate train.batch_tokens train.warmup train.weight_decay train.clip_norm train.patience
train.max_length train.precision train.memory train.compile train.save_every train.seed
evaluate.metrics evaluate.baselines evaluate.shots evaluate.max_new_tokens evaluate.prompt evaluate.min_gain
evaluate.limit evaluate.rival.url evaluate.rival.model evaluate.rival.key budget.memory budget.time
""".split()  # noqa: SIM905


def groups(model: type[Noun]) -> list[type[Noun]]:
    below = [f.annotation for f in model.model_fields.values()]
    return [model, *(g for a in below if isinstance(a, type) and issubclass(a, Noun) for g in groups(a))]


def test_the_public_knobs_are_frozen() -> None:
    found = [".".join(path) for path, _ in leaves(Recipe)]
    assert found == KNOBS, "a new knob needs an entry here, a reason in the change log and a test that it acts"
    assert len(found) <= 120


def test_no_group_has_more_than_fifteen_fields_and_each_field_is_described() -> None:
    assert {g.__name__: len(g.model_fields) for g in groups(Recipe) if len(g.model_fields) > 15} == {}
    assert [".".join(path) for path, field in leaves(Recipe) if not field.description] == []


def test_no_field_is_boolean_as_the_refusal_of_booleans_assumes() -> None:
    assert [".".join(path) for path, field in leaves(Recipe) if "bool" in str(field.annotation)] == []


BAD = [
    (
        {"train": {"epoch": 3}},
        'train.epoch is an unknown key. Did you mean "epochs"? Known here: epochs, learning_rate,',
    ),
    ({"epochs": 3}, "epochs is an unknown key. Did you mean train.epochs? Known here: model, start, task,"),
    ({"data": {"train": "a", "split": {"tset": 0.1}}}, 'data.split.tset is an unknown key. Did you mean "test"?'),
    ({"data": {}}, "data.train is missing. Add it"),
    (
        {"method": {"rank": 0}},
        "method.rank is 0; expected a whole number of at least 1 (rank of the update, or what stands for it in docs",
    ),
    ({"method": {"rank": -8}}, "method.rank is -8; expected a whole number of at least 1"),
    ({"method": {"rank": 1.5}}, "method.rank is 1.5; expected a whole number"),
    ({"method": {"rank": "no"}}, "method.rank is 'no'; expected a whole number"),
    ({"method": {"rank": True}}, "method.rank is true; no key takes true or false."),
    ({"method": {"alpha": float("inf")}}, "method.alpha is inf; expected a finite number."),
    ({"method": {"dropout": 1}}, "method.dropout is 1; expected a number of at least 0 and below 1"),
    ({"method": {"target_modules": "q_proj"}}, "method.target_modules is 'q_proj'; expected a list of texts"),
    (
        {"train": {"learning_rate": "fast"}},
        "train.learning_rate is 'fast'; expected a number above 0 and at most 1, or auto",
    ),
    ({"train": {"learning_rate": 0}}, "train.learning_rate is 0; expected a number above 0"),
    ({"train": {"learning_rate": float("nan")}}, "train.learning_rate is nan; expected a number above 0"),
    ({"train": {"clip_norm": 1e309}}, "train.clip_norm is inf; expected a finite number."),
    ({"train": {"epochs": "inf"}}, "train.epochs is 'inf'; expected a number above 0 and at most 1000"),
    ({"train": {"precision": "fp8"}}, "train.precision is 'fp8'; expected auto, float32 or bfloat16"),
    ({"train": None}, "train is empty; expected keys such as epochs, learning_rate, batch_tokens."),
    ({"train": [1]}, "train is [1]; expected keys such as"),
    ({"model": 7}, "model is 7; expected a text; put it in quotes"),
    ({"data": {"train": "a", "columns": {"text": 3}}}, "data.columns.text is 3; expected a text; put it in quotes"),
    ({"data": {"train": "a", "columns": ["x"]}}, "data.columns is ['x']; expected a mapping of text to text"),
    ({"evaluate": {"metrics": [1]}}, "evaluate.metrics.0 is 1; expected a text"),
    ({"evaluate": {"baselines": 1}}, "evaluate.baselines is 1; expected a list of texts, such as [a, b], or auto"),
    ({"task": "generat"}, "task is 'generat'; expected generate, classify or prefer"),
    ({"budget": {"time": "30x"}}, "budget.time is '30x'; expected a time such as 30m, 2h,"),
    ({"budget": {"time": "0m"}}, "budget.time is 0.0; expected a number above 0"),
    ({"budget": {"time": -1}}, "budget.time is -1; expected a number above 0"),
    ({"budget": {"memory": "8GX"}}, "budget.memory is '8GX'; expected a size such as 8GB, 512MiB"),
    ({"budget": {"memory": "0GB"}}, "budget.memory is 0; expected a whole number above 0"),
    (
        {"budget": {"memory": "8GB"}, "train": {"memory": "fast"}},
        "budget.memory has no effect beside train.memory.",
    ),
    ({"budget": {"memory": "9" * 400 + "GB"}}, "budget.memory is "),
    (
        {"evaluate": {"shots": 2, "baselines": ["majority"]}},
        "evaluate.shots has no effect without the baseline few_shot.",
    ),
    ({"evaluate": {"prompt": "Say", "baselines": ["majority"]}}, "evaluate.prompt has no effect without a prompted"),
    (
        {"task": "classify", "evaluate": {"max_new_tokens": 9}},
        "evaluate.max_new_tokens has no effect with task: classify",
    ),
    (
        {"train": {"patience": 2}, "data": {"train": "a", "split": {"dev": 0}}},
        "train.patience has no effect without dev",
    ),
    ({"method": {"alpha_pattern": {"q_proj": float("inf")}}}, "method.alpha_pattern.q_proj is inf; expected a finite"),
    ({"method": {"rank_pattern": 8}}, "method.rank_pattern is 8; expected a mapping of text to a whole number of at"),
    (
        {"method": {"rank_pattern": {"q_proj": 0}}},
        "method.rank_pattern.q_proj is 0; expected a whole number of at least 1",
    ),
    ({"data": {"train": "a", "dev": "b", "split": {"dev": 0.3}}}, "data.split.dev has no effect beside data.dev"),
    (
        {"data": {"train": "a", "split": {"dev": 0.5, "test": 0.5}}},
        "data.split has dev + test = 0.5 + 0.5; expected a sum",
    ),
]


@pytest.mark.parametrize(("raw", "sentence"), BAD, ids=[s.split(" is ")[0] + str(i) for i, (_, s) in enumerate(BAD)])
def test_a_bad_value_gives_one_sentence(raw: dict[str, object], sentence: str) -> None:
    with pytest.raises(RecipeError) as caught:
        Recipe.parse({**DATA, **raw}, "x.yaml")
    assert str(caught.value).startswith(f"x.yaml: {sentence}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("raw", [None, [], "text", 3])
def test_what_is_no_mapping_is_refused(raw: object) -> None:
    with pytest.raises(
        RecipeError, match=r"^x.yaml: found (nothing|list|str|int); expected keys such as model and data"
    ):
        Recipe.parse(raw, "x.yaml")


def test_every_bad_key_is_told_at_once() -> None:
    with pytest.raises(RecipeError) as caught:
        Recipe.parse({**DATA, "train": {"epochs": 0, "seed": -1}, "nodel": "x"}, "x.yaml")
    assert len(str(caught.value).splitlines()) == 3


def test_the_place_of_a_key_is_told_where_it_is_known() -> None:
    places = {("train",): "x.yaml line 3", ("train", "epochs"): "x.yaml line 4"}
    with pytest.raises(RecipeError, match=r"^x.yaml line 4: train.epochs is 0"):
        Recipe.parse({**DATA, "train": {"epochs": 0}}, "x.yaml", places)
    with pytest.raises(RecipeError, match=r"^x.yaml line 3: train.seed is -1"):
        Recipe.parse({**DATA, "train": {"seed": -1}}, "x.yaml", places)


def test_a_full_recipe_with_the_default_dials_of_lora_is_accepted() -> None:
    full = Recipe.parse({**DATA, "method": {"name": "full"}})
    assert Recipe.parse(full.model_dump(mode="json")) == full


@pytest.mark.parametrize(
    ("text", "value"),
    [("30m", 1800), ("2h", 7200), ("90s", 90), ("1h30m", 5400), ("1.5h", 5400), ("20", 20), ("2 H", 7200)],
)
def test_times(text: str, value: float) -> None:
    assert seconds(text) == value
    assert Recipe.parse({**DATA, "budget": {"time": text}}).budget.time == value


@pytest.mark.parametrize(
    ("text", "value"),
    [("8GB", 8 * 10**9), ("8 GiB", 8 * 2**30), ("512MiB", 2**29), ("1.5k", 1500), ("2t", 2 * 10**12), ("700", 700)],
)
def test_sizes(text: str, value: int) -> None:
    assert size(text) == value
    assert Recipe.parse({**DATA, "budget": {"memory": text}}).budget.memory == value


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "1e9", "8XB", "8G B B", "٣GB"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="expected a size such as"):
        size(text)


@pytest.mark.parametrize("text", ["", "m", "30", "h30", "30m2h", "-3m", "1e3s", "٣m"])
def test_what_is_no_time(text: str) -> None:
    if text == "30":
        assert seconds(text) == 30
        return
    with pytest.raises(ValueError, match="expected a time such as"):
        seconds(text)
