"""The head's start against the nearest class mean, worked out plainly."""

import torch
from torch import Tensor

from tunesmith.models.head_start import class_means

N, D, C = 60, 8, 4


def clusters(spread: float = 1.0) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    centre_CD = 3 * torch.randn(C, D, generator=draw) + 5
    label_N = torch.arange(N) % C
    return centre_CD[label_N] + spread * torch.randn(N, D, generator=draw), label_N


def test_it_answers_with_the_nearest_mean() -> None:
    feature_ND, label_N = clusters(spread=4.0)
    weight_CD, bias_C = class_means(feature_ND, label_N, C)
    mean_CD = torch.stack([feature_ND[label_N == c].mean(0) for c in range(C)])
    nearest_N = torch.cdist(feature_ND, mean_CD).argmin(-1)
    assert torch.equal((feature_ND @ weight_CD.T + bias_C).argmax(-1), nearest_N)
    assert not torch.equal(nearest_N, label_N)


def test_its_scale_is_neither_timid_nor_sure_of_itself() -> None:
    """Half or double the scale gives more cross-entropy."""
    feature_ND, label_N = clusters(spread=4.0)
    weight_CD, bias_C = class_means(feature_ND, label_N, C)
    score_NC = feature_ND @ weight_CD.T + bias_C
    losses = [float(torch.nn.functional.cross_entropy(k * score_NC, label_N)) for k in (0.5, 1.0, 2.0)]
    assert losses[1] == min(losses)


def test_a_class_without_rows_is_neutral_and_rows_that_agree_stay_finite() -> None:
    feature_ND, label_N = clusters()
    weight_CD, bias_C = class_means(feature_ND, label_N, C + 1)
    assert weight_CD.shape == (C + 1, D)
    assert not weight_CD[C].any()
    assert float(bias_C[C]) == 0.0
    weight_CD, bias_C = class_means(torch.ones(4, D), torch.tensor([0, 0, 1, 1]), 2)
    assert torch.isfinite(weight_CD).all()
    assert torch.isfinite(bias_C).all()


def test_with_a_row_a_class_it_leaves_something_to_learn() -> None:
    """Sure of every row, it would have no gradient, and no sense of a row that it has not seen."""
    draw = torch.Generator().manual_seed(1)
    label_N = torch.tensor([*range(30), *range(10)])
    feature_ND = 3 * torch.randn(30, 16, generator=draw)[label_N] + torch.randn(40, 16, generator=draw)
    weight_CD, bias_C = class_means(feature_ND, label_N, 30)
    score_NC = feature_ND @ weight_CD.T + bias_C
    assert 1e-3 < float(torch.nn.functional.cross_entropy(score_NC, label_N)) < 1.0
    assert float((score_NC.argmax(-1) == label_N).float().mean()) > 0.9
    strange_ND = 3 * torch.randn(40, 16, generator=draw)
    assert float(torch.nn.functional.cross_entropy(strange_ND @ weight_CD.T + bias_C, label_N)) < 50
