"""Passes worked out by hand on a toy, and bounds by the counts of the shape on real networks."""

import pytest

from plan import toy
from tunesmith.plan import decoding, passes
from tunesmith.plan.devices import find
from tunesmith.plan.known import find as find_model
from tunesmith.plan.passes import Net, add, backward, forward, head, product, seconds, times
from tunesmith.plan.rates import of_device
from tunesmith.plan.shape import Experts, Weight


def net(**changes: object) -> Net:
    told: dict[str, object] = {"shape": toy.shape(), "rates": toy.rates(), "precision": "float32"}
    return Net(**(told | changes))  # type: ignore[arg-type]


def test_constants_are_those_of_the_engine() -> None:
    from tunesmith.generate import prompts, sampler

    assert (sampler.CACHE_BYTES, sampler.MOST_ROWS) == (decoding.CACHE_BYTES, decoding.MOST_ROWS)
    assert prompts.READ_TOKENS == decoding.READ_TOKENS


def test_a_product_takes_the_longer_of_its_operations_and_its_bytes() -> None:
    # 3 x (8 x 4): 2 x 96 operations; 4 x (32 + 3 x 12) bytes
    assert product(net(), 3, 8, 4) == pytest.approx(0.192)
    assert product(net(rates=toy.rates(bandwidth=272.0)), 3, 8, 4) == pytest.approx(1.0)


def test_forward_and_backward_by_hand() -> None:
    # 16 tokens: two layers of 2 x 16 x 32 = 1024 operations
    assert forward(net(), 16, 8)["products"] == pytest.approx(2.048)
    assert backward(net(trained=1.0), 16, 8)["products"] == pytest.approx(4.096)  # of inputs and of weights
    assert backward(net(), 16, 8)["products"] == pytest.approx(2.048)  # of inputs alone
    assert backward(net(trained=0.25), 16, 8)["products"] == pytest.approx(2.56)


def test_the_first_layer_is_not_asked_for_the_gradient_of_a_frozen_embedding() -> None:
    query = Weight("layers.{}.self_attn.q_proj", (4, 4), "linear", layers=(0, 1))
    shape = toy.shape(weights=(toy.EMBEDDING, query, toy.LINEAR))
    # 16 tokens x 16 numbers x 2 = 512 operations less, of 2 x (512 + 1024)
    assert backward(net(shape=shape), 16, 8)["products"] == pytest.approx(3.072 - 0.512)
    assert backward(net(shape=shape, trained=1.0), 16, 8)["products"] == pytest.approx(6.144)


def test_adapters_by_hand() -> None:
    # 48 weights: 2 x 16 x 48 operations forward, twice as many back
    assert forward(net(adapter=48), 16, 8)["adapters"] == pytest.approx(1.536)
    assert backward(net(adapter=48), 16, 8)["adapters"] == pytest.approx(3.072)
    slow = net(adapter=48, rates=toy.rates(passing=1000.0))
    # bytes of a token and layer: 4 x (4 + 2 x 8) forward, 4 x (3 x 4 + 2 x 8) back
    assert forward(slow, 16, 8)["adapters"] == pytest.approx(16 * 2 * 80 / 1000)
    assert backward(slow, 16, 8)["adapters"] == pytest.approx(16 * 2 * 112 / 1000)


def test_short_rows_on_a_processor_are_plain_products_without_causality() -> None:
    # 16 tokens x 2 x (4 + 4) x 8 looked at x 2 layers
    assert forward(net(), 16, 8)["attention"] == pytest.approx(4.096)
    assert backward(net(), 16, 8)["attention"] == pytest.approx(8.192)
    scores = net(rates=toy.rates(passing=1000.0))
    assert forward(scores, 16, 8)["attention"] == pytest.approx(4.096 + 4 * 6 * 16 * 8 * 2 / 1000)


def test_long_rows_and_gpus_look_back_alone_in_one_kernel() -> None:
    gpu = net(rates=toy.rates(kind="cuda"))
    flops = toy.shape().attention_flops(8)
    assert forward(gpu, 16, 8)["attention"] == pytest.approx(16 * flops / 600)
    assert backward(gpu, 16, 8)["attention"] == pytest.approx(2.5 * 16 * flops / 600)
    assert forward(net(), 400, 200)["attention"] == pytest.approx(400 * toy.shape().attention_flops(200) / 500)


def test_the_head_takes_two_products_or_three_or_four(monkeypatch: pytest.MonkeyPatch) -> None:
    once = 2 * 8 * 40 / 1000  # 8 tokens x (10 x 4)
    assert head(net(), 8, learns=False, gradient=False) == pytest.approx(once)
    assert head(net(), 8, learns=False) == pytest.approx(2 * once)
    assert head(net(), 8, learns=True) == pytest.approx(3 * once)
    monkeypatch.setitem(passes.CHUNK, "cpu", 79)
    assert head(net(), 8, learns=True) == pytest.approx(4 * once)
    assert head(net(), 8, learns=False) == pytest.approx(2 * once)


def test_bytes_between_the_products_by_hand() -> None:
    slow = net(rates=toy.rates(passing=1.0))
    norms, keys, inner = 2 * 4 * 34, 2 * 4, 2 * 8
    told = norms + 4 * (2 * (6 * 4 + (10 + 4) * keys) + 10 * inner)
    assert forward(slow, 1, 1)["elementwise"] == pytest.approx(told)
    assert backward(slow, 1, 1)["elementwise"] == pytest.approx(2 * told)
    compiled = net(rates=toy.rates(passing=1.0), compiled=True)
    assert forward(compiled, 1, 1)["elementwise"] < 0.6 * told


def test_weights_of_four_bits_are_made_dense_each_way() -> None:
    slow = net(four_bits=True, rates=toy.rates(bandwidth=1.0))
    assert forward(slow, 1, 1)["dequantisation"] == pytest.approx(64 * 18.5)
    assert backward(slow, 1, 1)["dequantisation"] == pytest.approx(64 * 18.5)
    assert forward(net(rates=toy.rates(bandwidth=1.0)), 1, 1)["dequantisation"] == 0


def test_experts_work_for_their_share_and_move_all_their_bytes() -> None:
    experts = Weight("layers.{}.experts", (4, 8, 4), "experts", layers=(0, 1))
    shape = toy.shape(weights=(toy.EMBEDDING, experts), experts=Experts(4, 2, 8, 0, (0, 1)))
    # 16 tokens ask 2 of 4: 4 experts x 8 tokens x 2 x 32, in two layers
    assert forward(net(shape=shape), 16, 8)["products"] == pytest.approx(4.096)
    moved = 4 * (32 + 8 * 12) * 4 * 2
    slow = net(shape=shape, rates=toy.rates(bandwidth=float(moved), products={"float32": ((1, 1e30), (2, 1e30))}))
    assert forward(slow, 16, 8)["products"] == pytest.approx(1.0)


@pytest.mark.parametrize("name", ["Llama-3.1-8B", "Qwen3-30B-A3B", "bert-base-uncased", "gpt2", "DeepSeek-V3"])
def test_products_and_attention_are_those_that_the_shape_counts(name: str) -> None:
    shape = find_model(name).shape()
    flat = toy.rates(kind="cuda", products={"bfloat16": ((1, 1e12), (2, 1e12))})
    whole = net(shape=shape, rates=flat, precision="bfloat16")
    tokens, context = 4096, 256
    once = forward(whole, tokens, context)
    logits = head(whole, tokens, learns=False, gradient=False) if shape.kind == "decoder" else 0.0
    took = once["products"] + passes.FLASH["cuda"] * once["attention"] + logits
    assert took * 1e12 == pytest.approx(tokens * shape.forward_flops(context), rel=1e-6)


def test_a_gpu_waits_for_launches_only_where_they_take_longer() -> None:
    found = {"products": 2.0, "overhead": 3.0}
    assert seconds(found, toy.rates()) == 5
    assert seconds(found, toy.rates(kind="cuda")) == 3
    assert seconds(found | {"products": 4.0}, toy.rates(kind="cuda")) == 4


def test_sums_and_multiples() -> None:
    assert add({"a": 1}, {"a": 2, "b": 3}) == {"a": 3, "b": 3}
    assert times(2, {"a": 1.5}) == {"a": 3}


def test_one_token_a_row_is_bound_by_the_bytes_of_the_weights() -> None:
    shape, rates = find_model("Llama-2-7b-hf").shape(), of_device(find("a100-80gb"))
    one = forward(Net(shape, rates, "bfloat16"), 1, 1)["products"]
    inner = 2 * (shape.parameters - 2 * shape.vocabulary * shape.width)
    assert one == pytest.approx(inner / rates.bandwidth, rel=0.01)
