"""What a plan says of methods and objectives, against the files of both: counts on all families, errors included."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tests.plan.networks import card, network, skeleton, small

from tunesmith.core import parts
from tunesmith.core.errors import RecipeError
from tunesmith.core.recipe import MethodRecipe
from tunesmith.models.model import Model
from tunesmith.models.skeleton import outline
from tunesmith.plan.families import KNOWN, shape_of
from tunesmith.plan.known import known_models
from tunesmith.plan.objectives import OBJECTIVES, objective_facts
from tunesmith.plan.outline import of_shape
from tunesmith.plan.trained import METHODS, method_facts, trained

NAMES = parts.names("models.adapters")
CHOICES: list[dict[str, Any]] = [
    {"rank": 3},
    {"rank": 8, "target_modules": ("q_proj", "down_proj")},
    {"rank": 2, "target_modules": ("model.layers.0.self_attn.v_proj",), "modules_to_save": ("lm_head",)},
    {"rank": 2, "rank_pattern": {"up_proj": 4, "0.mlp.up_proj": 1}, "new_tokens": ("a", "b")},
    {"rank": 2, "new_tokens": ("a",), "modules_to_save": ("embed_tokens", "norm")},
    {"rank": 2, "target_modules": ("q_proj", "query", "qkv_proj"), "modules_to_save": ("mlp",)},
    {"rank": 2, "target_modules": ("query", "dense"), "new_tokens": ("a",)},
    {"rank": 2, "target_modules": ("Wo", "q_lin", "o")},
    {"rank": 2, "target_modules": ("last-1", "norm", "all-linear")},
    {"rank": 1, "target_modules": ("mlp", "lm_head")},
    {"rank": 2, "target_modules": ("experts", "embeddings")},
    {"rank": 1, "target_modules": ("lm_head",)},
    {"target_modules": ("last-99",)},
    {"target_modules": ("q_prj",)},
    {"target_modules": ()},
    {"rank": 1, "modules_to_save": ("nothing",)},
    {"rank": 1, "modules_to_save": ("mlp",)},
    {"rank": 1, "rank_pattern": {"lm_head": 2}},
    {"rank": 1, "alpha_pattern": {"lm_head": 2}},
    {"rank": 1, "target_modules": ("dense_h_to_4h", "fc1", "o_proj"), "rank_pattern": {"o_proj": 99}},
]


def outcome(count: Callable[[], int]) -> int | str:
    """A number, or the sentence of an error."""
    try:
        return count()
    except RecipeError as error:
        return str(error)


@pytest.mark.parametrize("name", KNOWN)
def test_counts_are_those_of_the_methods_errors_included(name: str) -> None:
    numbers = 0
    for seed, choice in enumerate(CHOICES):
        config = small(name, seed)
        shape = shape_of(config)
        built = skeleton(config)
        for head in (False, True):
            built.head = head or None
            for method in NAMES:
                recipe = MethodRecipe(name=method, **choice)
                planned = outcome(lambda s=shape, r=recipe, h=head: trained(s, r, "it", classifies=h))
                own = outcome(lambda b=built, r=recipe: parts.find("models.adapters", r.name).count(b, r))
                assert planned == own, (config, recipe)
                numbers += isinstance(planned, int)
    assert numbers > len(NAMES)


@pytest.mark.parametrize(("place", "name"), list(enumerate(KNOWN)))
def test_what_is_attached_is_what_was_counted(place: int, name: str) -> None:
    """On networks with weights: the methods' own work, which knows nothing of the count. A third of the methods on each
    family."""
    config = small(name, 1)
    for method in NAMES[place % 3 :: 3]:
        part = parts.find("models.adapters", method)
        options = {"modules_to_save": ("norm",)} if "modules_to_save" in part.reads and "llama" in name else {}
        recipe = MethodRecipe(name=method, rank=2, **options)
        model = Model(network(config, device="cpu"), None, card(config))
        drawn = torch.Generator().manual_seed(0)
        model.scores = {n: torch.rand(shape, generator=drawn) for n, shape in outline(model).linear.items()}
        planned = outcome(lambda r=recipe: trained(shape_of(config), r, "it", classifies=False))

        def attached(part: Any = part, model: Model = model, recipe: MethodRecipe = recipe) -> int:
            part.attach(model, recipe, 0)
            return sum(p.numel() for _, p in model.trainable())

        found = outcome(attached)
        assert found == planned or str(found).startswith(f"method.name: {method}: "), (config, recipe)


@pytest.mark.parametrize("name", KNOWN)
def test_outlines_of_a_file_and_of_a_network_are_equal(name: str) -> None:
    for seed in range(6):
        config = small(name, seed)
        for head in (False, True):
            assert of_shape(shape_of(config), "it", head=head) == outline(skeleton(config, head=head))


@pytest.mark.parametrize("name", ["llama", "gemma2", "phi3", "qwen2_moe", "gpt_neox"])
def test_lora_counts_are_those_of_peft(name: str) -> None:
    config, rank = small(name, 4), 3
    gates = ["shared_expert_gate"] if name == "qwen2_moe" else None  # of one output, which takes no rank
    lora = LoraConfig(r=rank, target_modules="all-linear", exclude_modules=gates, task_type="CAUSAL_LM")
    theirs = get_peft_model(network(config), lora).get_nb_trainable_parameters()[0]
    assert trained(shape_of(config), MethodRecipe(rank=rank), "it", classifies=False) == theirs


def test_published_models_by_hand() -> None:
    """LoRA of rank 16 on q, k, v, o, gate, up and down of Llama-3.1-8B is the example of the QLoRA notebooks."""
    shape = known_models()["meta-llama/Llama-3.1-8B"].shape()

    def count(name: str, rank: int = 16, **options: Any) -> int:
        return trained(shape, MethodRecipe(name=name, rank=rank, **options), "it", classifies=False)

    assert count("lora") == count("qlora") == count("pissa") == count("shira") == 41_943_040
    assert count("dora") - count("lora") == 32 * (4096 + 2 * 1024 + 4096 + 2 * 14336 + 4096)
    assert count("full") == count("lisa") == 8_030_261_248
    assert count("bitfit") == 65 * 4096
    assert count("prompt") == 16 * 4096
    assert count("prefix") == 32 * 2 * 16 * 1024
    assert count("bottleneck") == 32 * 16 * (2 * 4096 + 1)
    assert count("partial", target_modules=("last-2",)) == 2 * 218_112_000
    assert count("lora", new_tokens=("a", "b")) - count("lora") == 2 * 2 * 4096


def test_a_head_of_its_own_leaves_the_output_matrix_idle() -> None:
    shape = shape_of(small("llama", 0) | {"tie_word_embeddings": False})
    for name, options in (("lora", {"new_tokens": ("a", "b", "c"), "rank": 2}), ("full", {})):
        recipe = MethodRecipe(name=name, **options)
        free, headed = (trained(shape, recipe, "it", classifies=c) for c in (False, True))
        assert free - headed == (3 if name == "lora" else shape.vocabulary) * shape.width
    whole = MethodRecipe(modules_to_save=("lm_head",), rank=2)
    with pytest.raises(RecipeError, match="takes no part below a classification head"):
        trained(shape, whole, "it", classifies=True)


@pytest.mark.parametrize("name", parts.names("models.adapters"))
def test_the_table_knows_each_method_as_its_file_does(name: str) -> None:
    facts, part = method_facts(name), parts.find("models.adapters", name)
    for key in ("is_adapter", "rate", "most_rate", "four_bits", "soft"):
        assert getattr(facts, key) == getattr(part, key), key


@pytest.mark.parametrize("name", parts.names("objectives"))
def test_the_table_knows_each_objective_as_its_file_does(name: str) -> None:
    facts, part = objective_facts(name), parts.find("objectives", name)
    for key in ("needs", "unit", "reference", "rate", "adds_up"):
        assert getattr(facts, key) == getattr(part, key), key


def test_the_tables_name_nothing_that_has_no_file() -> None:
    assert set(METHODS) <= set(NAMES)
    assert set(OBJECTIVES) <= set(parts.names("objectives"))


def test_what_a_plan_does_not_know_is_a_sentence() -> None:
    with pytest.raises(RecipeError, match=r'method\.name: "lorra" is none that .* Did you mean "lora"\? It knows: ada'):
        method_facts("lorra")
    with pytest.raises(RecipeError, match=r'objective\.name: "mine" is none that a plan knows .* or run the recipe\.'):
        objective_facts("mine")
