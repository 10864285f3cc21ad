"""Batches: shifted targets, every row once an epoch, an order that depends on seed and epoch alone, little padding."""

import random
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import pytest
import torch

from tunesmith.core.batch import Batch, TokenRow
from tunesmith.data.batches import Steps, collate, cut, in_order


def rows_of(lengths: Sequence[int], seed: int = 0) -> list[TokenRow]:
    rng = random.Random(seed)
    return [
        TokenRow(
            tuple(rng.randrange(5, 900) for _ in range(n)),
            tuple(float(t >= n // 2) for t in range(n)),
            label=i % 3,
            example_id=f"r:{i}",
        )
        for i, n in enumerate(lengths)
    ]


def realistic(count: int, seed: int = 1) -> list[TokenRow]:
    """A log-normal mix, 8 to 900 tokens, as chats and tickets have."""
    rng = random.Random(seed)
    return rows_of([min(900, max(8, int(rng.lognormvariate(4.3, 0.7)))) for _ in range(count)])


def steps(rows: Sequence[TokenRow], batch: int = 2048, micro: int = 2048, seed: int = 0) -> Steps:
    return Steps(rows, batch_tokens=batch, micro_tokens=micro, pad_id=0, seed=seed)


def padded(batches: Sequence[Batch]) -> int:
    return sum(b.ids_BT.numel() for b in batches)


def test_targets_and_weights_are_those_of_the_next_token_and_the_padding_weighs_nothing() -> None:
    rows = rows_of([5, 2, 9])
    batch = collate(rows, pad_id=7)
    assert batch.ids_BT.shape == batch.target_BT.shape == batch.weight_BT.shape == (3, 9)
    for i, row in enumerate(rows):
        n = len(row.ids)
        assert batch.ids_BT[i].tolist() == [*row.ids, *[7] * (9 - n)]
        assert batch.target_BT[i, : n - 1].tolist() == list(row.ids[1:])
        assert batch.weight_BT[i].tolist() == [*row.weight[1:], *[0.0] * (9 - n + 1)]
    assert batch.length_B.tolist() == [5, 2, 9]
    assert batch.label_B.tolist() == [0, 1, 2]
    assert batch.example_ids == ("r:0", "r:1", "r:2")
    assert int((batch.weight_BT > 0).sum()) == sum(r.trained for r in rows)


def test_a_pad_that_is_also_a_real_token_keeps_its_weight() -> None:
    """Masks go by position, never by id: the stop token of models whose pad is their eos is trained."""
    batch = collate([TokenRow((5, 0), (0.0, 1.0)), TokenRow((5, 6, 0), (0.0, 0.0, 1.0))], pad_id=0)
    assert batch.weight_BT.tolist() == [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]


@pytest.mark.parametrize("epoch", [0, 1, 5])
def test_every_row_comes_exactly_once_an_epoch(epoch: int) -> None:
    rows = realistic(500)
    seen = Counter(name for step in steps(rows)(epoch) for b in step for name in b.example_ids)
    assert seen == Counter(r.example_id for r in rows)


def order(source: Steps, epoch: int) -> list[str]:
    return [name for step in source(epoch) for b in step for name in b.example_ids]


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    rows = realistic(300)
    source = steps(rows)
    first = order(source, 0)
    order(source, 3)
    random.seed(5)
    torch.manual_seed(5)
    assert order(source, 0) == order(steps(rows), 0) == first
    assert order(source, 1) != first
    assert order(steps(rows, seed=1), 0) != first


def test_steps_are_not_served_by_length() -> None:
    """Lengths are grouped within a step and mixed between steps, so no step order favours short rows."""
    means = [sum(len(r.ids) for r in g) / len(g) for g in steps(realistic(2000)).groups(0)]
    rises = sum(b > a for a, b in pairwise(means))
    assert 0.3 < rises / (len(means) - 1) < 0.7


def test_squared_up_for_attention_a_realistic_mix_is_at_most_six_percent_pads() -> None:
    rows = realistic(4000)
    real = sum(len(r.ids) for r in rows)
    for batch, micro in ((512, 512), (2048, 2048), (8192, 4096)):
        whole = padded([b for step in steps(rows, batch, micro)(0) for b in step])
        assert whole >= real
        assert 1 - real / whole <= 0.06, batch


def test_steps_fill_their_budget_with_real_tokens() -> None:
    groups = steps(realistic(4000), 4096, 4096).groups(0)
    sizes = sorted(sum(len(r.ids) for r in g) for g in groups)
    assert sizes[-1] <= 4096
    assert sum(sizes) / len(sizes) >= 0.95 * 4096


@pytest.mark.parametrize(("batch", "micro"), [(512, 512), (2048, 512), (4096, 1000)])
def test_steps_and_micro_batches_keep_their_budgets(batch: int, micro: int) -> None:
    rows = realistic(400)
    source = steps(rows, batch, micro)
    for group in source.groups(0):
        assert len(group) == 1 or sum(len(r.ids) for r in group) <= batch
    for step in source(0):
        for b in step:
            assert len(b.length_B) == 1 or int(b.length_B.sum()) <= micro


def test_a_step_holds_the_same_rows_whatever_the_micro_batches() -> None:
    rows = realistic(300)
    one = [sorted(n for b in step for n in b.example_ids) for step in steps(rows, 2048, 2048)(2)]
    many = [sorted(n for b in step for n in b.example_ids) for step in steps(rows, 2048, 300)(2)]
    assert one == many
    assert sum(1 for _ in steps(rows, 2048, 2048)(2)) < sum(len(step) for step in steps(rows, 2048, 300)(2))


def test_the_number_of_steps_is_that_of_the_first_pass() -> None:
    source = steps(realistic(300))
    assert source.per_epoch() == sum(1 for _ in source(0))
    assert abs(source.per_epoch() - sum(1 for _ in source(1))) <= 2


def test_a_row_beyond_the_budget_stands_alone_and_no_group_is_empty() -> None:
    rows = rows_of([4, 50, 4, 4])
    assert [[len(r.ids) for r in g] for g in cut(rows, 12)] == [[4], [50], [4, 4]]
    assert cut([], 12) == []
    assert list(steps([])(0)) == []


def test_evaluation_batches_hold_every_row_once_in_order_of_length() -> None:
    rows = realistic(200)
    batches = list(in_order(rows, budget=1500, pad_id=0))
    lengths = [n for b in batches for n in b.length_B.tolist()]
    assert lengths == sorted(len(r.ids) for r in rows)
    assert sorted(n for b in batches for n in b.example_ids) == sorted(r.example_id for r in rows)
    assert all(len(b.length_B) == 1 or int(b.length_B.sum()) <= 1500 for b in batches)
