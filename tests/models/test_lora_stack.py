"""Many adapters on one base: each row against its own adapter alone, and what is refused."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from tunesmith.core.errors import ModelError
from tunesmith.models import lora_stack
from tunesmith.models.lora_stack import LoraStack, Update

INPUTS, OUTPUTS = 6, 5


class Two(nn.Module):
    """Two layers of which an adapter may have either."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(INPUTS, OUTPUTS), nn.Linear(OUTPUTS, INPUTS, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.second(self.first(x).tanh())
        return out


def update(rank: int, inputs: int, outputs: int, seed: int) -> Update:
    generator = torch.Generator().manual_seed(seed)
    a, b = (torch.randn(*shape, generator=generator) for shape in ((rank, inputs), (outputs, rank)))
    return Update(a, b, 0.5 + seed)


ADAPTERS: dict[str, dict[str, Update]] = {
    "low": {"first": update(1, INPUTS, OUTPUTS, 1), "second": update(2, OUTPUTS, INPUTS, 2)},
    "high": {"first": update(4, INPUTS, OUTPUTS, 3)},
    "middle": {"second": update(3, OUTPUTS, INPUTS, 4)},
}


def stacked(network: Two) -> LoraStack:
    linear = {"first": network.first, "second": network.second}
    stack = LoraStack(network, linear, torch.float32)
    for name, updates in ADAPTERS.items():
        stack.put(name, updates)
    return stack


def alone(x: Tensor, name: str | None) -> Tensor:
    """Merged weights."""
    network = Two()
    with torch.no_grad():
        for layer, (a, b, scale) in ADAPTERS.get(name or "", {}).items():
            network.get_parameter(f"{layer}.weight").add_(scale * b @ a)
        return network(x)  # type: ignore[no-any-return]


@pytest.mark.parametrize("copy", [0, 10**6])  # each row with a copy of its own adapter; all in one product
@pytest.mark.parametrize("tokens", [1, 7])
@pytest.mark.parametrize(
    "names",
    [
        ["low", None, "high", "middle", "low", None, "middle", "high", "high"],
        ["middle"] * 3,
        [None, "high"],
        [None, None],
    ],
)
def test_each_row_is_what_its_own_adapter_alone_gives(
    names: list[str | None], tokens: int, copy: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lora_stack, "COPY", copy)
    network, x = Two(), torch.randn(len(names), tokens, INPUTS)
    stack = stacked(network)
    expected = torch.stack([alone(row, name) for row, name in zip(x, names, strict=True)])
    with torch.no_grad(), stack.rows(names, tokens):
        torch.testing.assert_close(network(x), expected, rtol=1e-4, atol=1e-5)
        flat = network(x.flatten(0, 1))  # as a layer may see its rows
    torch.testing.assert_close(flat.view_as(expected), expected, rtol=1e-4, atol=1e-5)


def test_outside_of_rows_and_when_switched_off_it_is_the_base() -> None:
    network, x = Two(), torch.randn(2, 3, INPUTS)
    stack = stacked(network)
    assert torch.equal(network(x), Two()(x))
    with pytest.raises(KeyError), stack.rows(["low", "high"], 3):
        assert not torch.equal(network(x), Two()(x))
        for layer in stack.layers.values():
            layer.enabled = False
        assert torch.equal(network(x), Two()(x))
        for layer in stack.layers.values():
            layer.enabled = True
        raise KeyError
    assert torch.equal(network(x), Two()(x))


def answer(network: Two, stack: LoraStack, names: Sequence[str | None], x: Tensor) -> Tensor:
    with torch.no_grad(), stack.rows(names, x.shape[1]):
        out: Tensor = network(x)
        return out


def test_an_adapter_that_is_put_again_or_dropped_is_so_at_once() -> None:
    network, x = Two(), torch.ones(1, 1, INPUTS)
    stack = stacked(network)
    before = answer(network, stack, ["low"], x)
    other = update(2, INPUTS, OUTPUTS, 9)
    stack.put("low", {"first": other})
    after = answer(network, stack, ["low"], x)
    assert not torch.allclose(after, before)
    other.a_RI.zero_()  # what is held is a copy
    answer(network, stack, ["high"], x)  # and the stack is made anew
    assert torch.equal(answer(network, stack, ["low"], x), after)
    stack.drop("low")
    assert stack.names == ("high", "middle")
    with pytest.raises(ModelError, match=r'No adapter called "low" is on the base\. Put it there first'):
        stack.check(["middle", None, "low"])
    with pytest.raises(ModelError, match='"low"'), stack.rows(["low"], 1):
        pass


def test_the_stack_is_made_anew_only_when_an_adapter_is_missing_or_most_have_left() -> None:
    network, x = Two(), torch.ones(2, 1, INPUTS)
    stack = stacked(network)
    answer(network, stack, ["low", "high"], x)
    held = stack.layers["first"].held
    answer(network, stack, ["high", None], x)
    assert stack.layers["first"].held is held
    answer(network, stack, ["high", "middle"], x)
    assert stack.layers["first"].held is not held
    held = stack.layers["first"].held
    with stack.rows(["high"], 1, running=["middle", "high"]):
        assert stack.layers["first"].held is held
    answer(network, stack, ["low", "high"], x)
    with stack.rows(["low"], 1, running=["high", "middle", "low"]):
        pass
    assert len(stack.layers["first"].held[0]) == 3  # type: ignore[index]
    answer(network, stack, ["high", None], x)
    assert len(stack.layers["first"].held[0]) == 1  # type: ignore[index]


def test_a_layer_that_does_not_see_every_row_alike_is_refused() -> None:
    network = Two()
    stack = stacked(network)
    with stack.rows(["low", "high"], 3), pytest.raises(ModelError, match=r"first reads \[4\] tokens where there are 2"):
        network(torch.ones(4, INPUTS))


GOOD = ADAPTERS["low"]["first"]


@pytest.mark.parametrize(
    ("updates", "said"),
    [
        ({}, '"x" changes no layer'),
        ({"frist": GOOD}, 'changes frist, which is no linear layer of the base. Did you mean "first"'),
        ({"second": GOOD}, r"A and B of second are \[1, 6\] and \[5, 1\]; expected \[rank, 5\] and \[6, rank\]"),
        ({"first": Update(GOOD.a_RI, GOOD.b_OR.repeat(1, 2))}, r"are \[1, 6\] and \[5, 2\]"),
        ({"first": Update(GOOD.a_RI[:0], GOOD.b_OR[:, :0])}, r"are \[0, 6\]"),
        ({"first": GOOD, "second": Update(torch.full((1, OUTPUTS), torch.nan), torch.ones(INPUTS, 1))}, "not finite"),
        ({"first": Update(GOOD.a_RI, GOOD.b_OR, torch.inf)}, "not finite"),
    ],
)
def test_what_is_no_adapter_of_the_base_is_a_sentence(updates: dict[str, Update], said: str) -> None:
    network, x = Two(), torch.ones(1, 1, INPUTS)
    stack = stacked(network)
    with pytest.raises(ModelError, match=said):
        stack.put("x", updates)
    assert "x" not in stack.names
    assert torch.equal(network(x), Two()(x))
