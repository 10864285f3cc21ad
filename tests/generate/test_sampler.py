"""The sampler: the tokens of transformers' own generate, independence of the batch, stops, agreement with training."""

import random
from typing import Any

import pytest
import torch

from tunesmith.core.batch import TokenRow
from tunesmith.core.errors import ModelError, RecipeError
from tunesmith.data.batches import collate
from tunesmith.generate import sampler
from tunesmith.generate.sampler import BLOCK, Sampling, Token, answers, drawn, sample, stream
from tunesmith.models.model import Model

NEVER = (8191,)


def prompts(lengths: list[int], seed: int = 0) -> list[list[int]]:
    rng = random.Random(seed)
    return [[1, *(rng.randrange(5, 8000) for _ in range(n - 1))] for n in lengths]


def reference(model: Model, prompt: list[int], new: int, stop: tuple[int, ...]) -> list[int]:
    """What transformers' generate writes, up to the first stop."""
    ids = torch.tensor([prompt])
    settings: dict[str, Any] = {"do_sample": False, "max_new_tokens": new, "eos_token_id": list(stop)}
    out = model.network.generate(ids, attention_mask=torch.ones_like(ids), use_cache=True, pad_token_id=0, **settings)
    written = out[0, len(prompt) :].tolist()
    ends = [i for i, t in enumerate(written) if t in stop]
    return written[: ends[0]] if ends else written


def test_greedy_answers_are_those_of_transformers_token_for_token(llama: Model) -> None:
    asked = prompts([3, 40, 3, 17, 1, 28, 9])
    found = sample(llama, asked, Sampling(24, NEVER))
    assert found == [reference(llama, p, 24, NEVER) for p in asked]
    assert len({tuple(a) for a in found}) == len(asked)  # the model tells the prompts apart


def test_stop_ids_end_a_row_and_leave_the_others_running(llama: Model) -> None:
    """Each stop is a token that some row would write, at different places; ended rows leave batch and cache."""
    asked = prompts([5, 30, 12, 7, 21], seed=3)
    free = sample(llama, asked, Sampling(16, NEVER))
    stops = (free[0][2], free[1][9], free[2][0], free[3][15])
    found = sample(llama, asked, Sampling(16, stops))
    for answer, whole, prompt in zip(found, free, asked, strict=True):
        first = next((i for i, t in enumerate(whole) if t in stops), 16)
        assert answer == whole[:first] == reference(llama, prompt, 16, stops)
    assert found[2] == []
    assert len(found[0]) <= 2


def test_one_new_token_and_no_prompts(llama: Model) -> None:
    assert [len(a) for a in sample(llama, prompts([4, 9]), Sampling(1, NEVER))] == [1, 1]
    assert sample(llama, [], Sampling(4, NEVER)) == []


@pytest.mark.parametrize("slots", [1, 2, 5])
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_rows_that_wait_for_a_slot_get_the_same_answers(
    llama: Model, monkeypatch: pytest.MonkeyPatch, slots: int, temperature: float
) -> None:
    asked = prompts([3, 40, 3, 17, 28, 9, 12, 33], seed=5)
    free = answers(llama, asked, Sampling(12, NEVER, temperature=temperature))
    stops = (free[0].ids[2], free[1].ids[9], free[2].ids[0], free[5].ids[4])  # rows of unequal length
    sampling = Sampling(12, stops, temperature=temperature)
    together = answers(llama, asked, sampling)
    assert len({len(a.ids) for a in together}) > 2
    monkeypatch.setattr(sampler, "MOST_ROWS", slots)
    found = answers(llama, asked, sampling)
    assert [a.ids for a in found] == [a.ids for a in together]
    for one, other in zip(found, together, strict=True):
        assert one.logp == pytest.approx(other.logp, abs=1e-4)
        assert (one.finish, one.ended and one.ended[0]) == (other.finish, other.ended and other.ended[0])


def test_rows_that_come_later_share_what_all_begin_with(llama: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    (start,) = prompts([30], seed=6)
    asked = [start + tail for tail in prompts([3, 17, 1, 9, 4], seed=7)]
    monkeypatch.setattr(sampler, "MOST_ROWS", 2)
    assert sample(llama, asked, Sampling(12, NEVER)) == [reference(llama, p, 12, NEVER) for p in asked]


def test_what_all_prompts_begin_with_is_computed_once_and_changes_no_answer(
    llama: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    (start,) = prompts([30], seed=6)
    asked = [start + tail for tail in prompts([3, 17, 1, 9], seed=7)] + [[*start, 7]]
    computed: list[int] = []
    own = llama.backbone.forward

    def counted(*args: Any, **options: Any) -> Any:
        computed.append(options["input_ids"].numel())
        return own(*args, **options)

    monkeypatch.setattr(llama.backbone, "forward", counted)
    found = sample(llama, asked, Sampling(12, NEVER))
    assert computed[:2] == [len(start), 5 * 17]
    assert found == [reference(llama, p, 12, NEVER) for p in asked]
    twins = sample(llama, [asked[0], asked[0]], Sampling(12, NEVER))  # one token of each is its own all the same
    assert twins == [found[0], found[0]]


def test_equal_prompts_are_read_once_and_answered_apart(llama: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = prompts([9, 14], seed=8)
    asked = [*[first] * 3, *[second] * 3]
    draw = Sampling(6, NEVER, temperature=1.0)
    alone = [sample(llama, [p], draw, [i])[0] for i, p in enumerate(asked)]
    computed: list[tuple[int, ...]] = []
    own = llama.backbone.forward

    def counted(*args: Any, **options: Any) -> Any:
        computed.append(tuple(options["input_ids"].shape))
        return own(*args, **options)

    monkeypatch.setattr(llama.backbone, "forward", counted)
    assert sample(llama, asked, draw) == alone
    assert computed[0] == (2, 14)  # two prompts for six answers
    assert computed[1] == (6, 1)
    assert len({tuple(a) for a in alone}) > 2
    monkeypatch.setattr(sampler, "MOST_ROWS", 2)
    assert sample(llama, asked, draw) == alone  # copies that wait for a slot are read when it is free


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.5])
def test_a_row_does_not_depend_on_its_neighbours(llama: Model, temperature: float) -> None:
    """Row n draws from stream n, so the same prompt at the same place gets the same answer in any company."""
    asked = prompts([6, 25, 14, 3], seed=8)
    sampling = Sampling(12, NEVER, temperature=temperature, seed=11)
    together = sample(llama, asked, sampling)
    assert sample(llama, asked[:1], sampling) == together[:1]
    others = prompts([30, 2, 14, 60], seed=9)
    assert sample(llama, [*others[:2], asked[2], others[3]], sampling)[2] == together[2]


@pytest.mark.parametrize("kind", ["llama", "gemma2"])
@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_log_probabilities_are_the_trainers(request: pytest.FixtureRequest, kind: str, temperature: float) -> None:
    """Of each token and of the stop, under softmax(logits / temperature), within 1e-4."""
    model = request.getfixturevalue(kind)
    asked = prompts([6, 25, 14, 3], seed=4)
    free = answers(model, asked, Sampling(10, NEVER, temperature=temperature))
    stop = free[0].ids[5]
    for prompt, answer in zip(
        asked, answers(model, asked, Sampling(10, (stop,), temperature=temperature)), strict=True
    ):
        ids = answer.ids + ([answer.ended[0]] if answer.ended else [])
        found = answer.logp + ([answer.ended[1]] if answer.ended else [])
        with torch.no_grad():
            logits_TV = model.network(input_ids=torch.tensor([[*prompt, *ids]])).logits[0, len(prompt) - 1 : -1].float()
        logp_TV = (logits_TV / (temperature or 1.0)).log_softmax(-1)
        assert found == pytest.approx(logp_TV[range(len(ids)), ids].tolist(), abs=1e-4)


def test_a_stream_tells_each_token_at_once_and_each_end(llama: Model) -> None:
    asked = prompts([6, 25, 3], seed=4)
    whole = answers(llama, asked, Sampling(8, NEVER, temperature=0.7))
    told = list(stream(llama, asked, Sampling(8, NEVER, temperature=0.7)))
    for row, answer in enumerate(whole):
        own = [t for t in told if t.row == row]
        assert [t.id for t in own[:-1]] == answer.ids
        assert own[-1] == Token(row, None, finish="length", kept=8)
    assert {t.row for t in told[:3]} == {0, 1, 2}  # all have begun before one has ended


def test_rows_may_differ_in_how_long_they_write(llama: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = prompts([6, 25, 3, 9], seed=4)
    free = sample(llama, asked, Sampling(8, NEVER))
    monkeypatch.setattr(sampler, "MOST_ROWS", 2)
    found = answers(llama, asked, Sampling(8, NEVER), most=[8, 1, 3, 5])
    assert [a.ids for a in found] == [a[:n] for a, n in zip(free, [8, 1, 3, 5], strict=True)]


def test_a_stop_text_ends_a_row_before_it(llama: Model) -> None:
    asked = prompts([6, 25], seed=4)
    free = answers(llama, asked, Sampling(10, NEVER))
    text = llama.tokenizer.decode(free[0].ids[4:6])
    found = answers(llama, asked, Sampling(10, NEVER, stops=(text,)))
    assert found[0].finish == "stop"
    assert text not in llama.tokenizer.decode(found[0].ids)
    assert found[0].ids == free[0].ids[: len(found[0].ids)] and len(found[0].ids) <= 4
    assert found[1].ids == free[1].ids
    told = list(stream(llama, asked, Sampling(10, NEVER, stops=(text,))))
    for row, answer in enumerate(found):
        *written, end = [t for t in told if t.row == row]
        assert [t.id for t in written][: end.kept] == answer.ids
        assert (end.id, end.finish, end.kept) == (None, answer.finish, len(answer.ids))


@pytest.mark.parametrize("cut", [{"top_k": 3}, {"top_p": 0.5}, {"min_p": 0.3}])
def test_what_is_cut_off_is_never_drawn(llama: Model, cut: dict[str, Any]) -> None:
    prompt, sampling = prompts([6], seed=2)[0], Sampling(1, NEVER, temperature=1.0, **cut)
    with torch.no_grad():
        logp_1V = llama.network(input_ids=torch.tensor([prompt])).logits[:, -1].float().log_softmax(-1)
    allowed = set(sampler.cut(logp_1V, sampling)[0].isfinite().nonzero()[:, 0].tolist())
    drawn = {a[0] for a in sample(llama, [prompt] * 300, sampling)}
    assert drawn <= allowed and len(allowed) < 8192
    assert len(drawn) > 1 or len(allowed) == 1


def test_sampling_follows_its_seed_and_its_row(llama: Model) -> None:
    asked = [prompts([6])[0]] * 4
    once = sample(llama, asked, Sampling(8, NEVER, temperature=1.0, seed=1))
    assert sample(llama, asked, Sampling(8, NEVER, temperature=1.0, seed=1)) == once
    assert sample(llama, asked, Sampling(8, NEVER, temperature=1.0, seed=2)) != once
    assert len({tuple(a) for a in once}) > 1  # equal prompts, each with a stream of its own


@pytest.mark.parametrize("kind", ["llama", "gemma2"])  # gemma2 bends its logits behind the head
def test_draws_follow_the_models_shares(request: pytest.FixtureRequest, kind: str) -> None:
    """The first tokens of 600 draws, against softmax(logits / temperature): chi-square over the likeliest ones."""
    model = request.getfixturevalue(kind)
    prompt, count, temperature = prompts([6], seed=2)[0], 600, 0.3
    drawn = torch.tensor([a[0] for a in sample(model, [prompt] * count, Sampling(1, NEVER, temperature=temperature))])
    with torch.no_grad():
        share_V = (model.network(input_ids=torch.tensor([prompt])).logits[0, -1].double() / temperature).softmax(-1)
    top = share_V.topk(5).indices
    observed = torch.stack([(drawn == t).sum() for t in top]).double()
    expected = share_V[top].double() * count
    assert bool((expected > 5).all())
    assert float(((observed - expected) ** 2 / expected).sum()) < 22  # 5 cells and the rest: p < 0.001 beyond


def test_what_is_sampled_greedily_is_the_argmax_of_what_is_trained(llama: Model) -> None:
    """Train and inference agree: ``token_logp`` of each written token is the row's maximum, to 1e-4."""
    asked = prompts([6, 25, 14, 3], seed=4)
    written = sample(llama, asked, Sampling(10, NEVER))
    rows = [TokenRow((*p, *a), (0.0,) * len(p) + (1.0,) * len(a)) for p, a in zip(asked, written, strict=True)]
    batch = collate(rows, 0)
    with torch.no_grad():
        logp_BT = llama.token_logp(batch)
        best_BT = llama.network(input_ids=batch.ids_BT).logits.log_softmax(-1).max(-1).values
    chosen = batch.weight_BT > 0
    assert int(chosen.sum()) == 40
    assert torch.allclose(logp_BT[chosen], best_BT[chosen], atol=1e-4, rtol=0)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("draw", [{}, {"temperature": 1.0}, {"temperature": 1.0, "top_p": 0.9, "top_k": 5}])
def test_logits_that_are_not_finite_are_told(llama: Model, draw: dict[str, Any], bad: float) -> None:
    def spoil(module: torch.nn.Module, given: Any, logits: torch.Tensor) -> torch.Tensor:
        spoilt = logits.clone()
        spoilt[-1, ..., 7] = bad
        return spoilt

    hook = llama.backbone.norm.register_forward_hook(spoil)
    try:
        with pytest.raises(ModelError, match=r"Prompt [12] of 2, new token 1: the model's logits are not finite.*load"):
            sample(llama, prompts([4, 9]), Sampling(4, NEVER, **draw))
    finally:
        hook.remove()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"temperature": 1e-45}, "temperature is 1e-45; expected 0 .* or a number from 0.01 up"),
        ({"temperature": float("inf")}, "temperature is inf"),
        ({"top_k": -3}, "top_k is -3"),
        ({"top_p": 0.0}, "top_p is 0.0"),
        ({"top_p": 2.0}, "top_p is 2.0"),
        ({"min_p": 5.0}, "min_p is 5.0"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"stops": ("",)}, "a stop is an empty text"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(RecipeError, match=told):
        Sampling(**{"max_new_tokens": 4, "stop_ids": (), **settings})


def test_tokens_are_drawn_by_their_shares_whatever_the_batch() -> None:
    """More tokens than a block holds; a share of 0 is never drawn, not even by a number next to 1."""
    share_V = torch.zeros(3 * BLOCK + 7)
    share_V[[0, 5, BLOCK - 1, BLOCK, 2 * BLOCK + 3, 3 * BLOCK + 6]] = torch.tensor([0.1, 0.2, 0.05, 0.15, 0.3, 0.2])
    chance_B = torch.cat([torch.linspace(0, 1, 20_001, dtype=torch.float64), torch.tensor([1 - 2**-53])])
    found_B = drawn(share_V.repeat(len(chance_B), 1), chance_B)
    counts_V = torch.bincount(found_B, minlength=len(share_V)) / len(chance_B)
    assert torch.allclose(counts_V, share_V, atol=2e-4)
    assert not counts_V[share_V == 0].any()
    assert torch.equal(found_B, found_B.sort().values)  # a running sum, from token to token
    alone = torch.cat([drawn(share_V[None], chance_B[i : i + 1]) for i in range(0, len(chance_B), 997)])
    assert torch.equal(alone, found_B[::997])
