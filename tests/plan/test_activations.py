"""The table of what layers keep, against the networks themselves, on sizes that it was not made from."""

import random
from dataclasses import replace

import pytest
from tests.plan.saved import KEYS, NO_LINEAR, RANK, USUAL, drawn, kept, model_of, saved_bytes

from tunesmith.plan.activations import Held
from tunesmith.plan.families import KNOWN, shape_of
from tunesmith.plan.trained import METHODS, method_facts

ROUGH = {  # foreseen over counted, at least and at most; all others agree within 3%
    **dict.fromkeys(("bert", "camembert", "distilbert", "gpt2", "roberta", "xlm-roberta"), (0.95, 1.7)),  # dropout in
    # attention keeps shares, of which short rows have fewer
    **dict.fromkeys(("gpt_neox", "phi3"), (0.97, 1.4)),  # queries, keys and values are one piece of memory
    "phi": (0.97, 1.1),
    "modernbert": (0.75, 1.2),  # runs padded, and keeps masks
}
COUNTED = [name for name in KNOWN if name != "deepseek_v3"]  # whose attention has sizes of its own


@pytest.mark.parametrize("name", COUNTED)
def test_layers_keep_what_the_table_says(name: str) -> None:
    """One uneven batch of long rows and one of short ones; bf16 and float32 in turn."""
    rng = random.Random(f"other {name}")
    for n, lengths in enumerate(([230, 210], [40, 24, 40])):
        precision = ("float32", "bfloat16")[n]
        config = drawn(name, rng)
        layers = KEYS.get(name, USUAL)[1]
        for method in ("full",) if name in NO_LINEAR else ("full", "lora"):
            found = []
            for count in (2, 4):
                model, _ = model_of({**config, layers: count}, precision, method)
                found.append(saved_bytes(model, lengths))
            shape = shape_of({**config, layers: 4})
            adapted = RANK * len(shape.linear_layers()) / shape.layers if method == "lora" else None
            held = Held(sum(lengths), len(lengths) * max(lengths), max(lengths))
            foreseen = kept(shape, held, precision, "cpu", adapted) * (4, 2)[n]  # type: ignore[arg-type]
            low, high = ROUGH.get(name, (0.97, 1.03))
            assert low <= foreseen / ((found[1] - found[0]) / 2) <= high, (precision, method, config)


def test_a_family_that_was_not_counted_borrows() -> None:
    shape = shape_of({"model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
                      "num_attention_heads": 4})  # fmt: skip
    other = replace(shape, model_type="something")
    held = Held(10, 10, 10)
    assert kept(other, held, "float32", "cpu", None) == kept(shape, held, "float32", "cpu", None)


@pytest.mark.parametrize("name", [name for name in METHODS if not name.startswith("shira")])  # sparse: not countable
def test_what_methods_keep_beside_lora_or_full_fine_tuning(name: str) -> None:
    """Within a tenth of a layer, on llama's network."""
    sizes = {"hidden_size": 80, "intermediate_size": 192, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = {"model_type": "llama", "vocab_size": 60, "max_position_embeddings": 1024, "pad_token_id": 0} | sizes
    found = []
    for layers in (2, 4):
        model, shape = model_of({**config, "num_hidden_layers": layers}, "float32", name)
        found.append(saved_bytes(model, [230, 210]))
    linear = list(shape.linear_layers().values())
    adapted = RANK * len(linear) / shape.layers if method_facts(name).is_adapter else None
    foreseen = kept(shape, Held(440, 460, 230), "float32", "cpu", adapted)
    foreseen += method_facts(name).keeps * 440 * sum(outputs for outputs, _ in linear) / shape.layers
    assert 0.9 <= 4 * foreseen / ((found[1] - found[0]) / 2) <= 1.1
