"""A head that starts as a nearest-class-mean classifier, or as what tells two answers apart, instead of at random.

Notable: fine-tuning then begins from what the base already knows (linear probing before fine-tuning keeps pre-trained
features intact: Kumar et al., 2022), and needs fewer passes. The scale is the one of a small grid with the least
cross-entropy. Where classes have hardly two rows each, means are the rows themselves: their spread would be none and
every scale right, and a head that is sure of all its rows has nothing left to learn from.
Legend: N rows, D width, C classes, P pairs.
"""

import torch
from torch import Tensor, nn

SCALES = tuple(2.0**k for k in range(-6, 7))
FEW, SCALE_OF_FEW = 2, 4.0  # rows a class, and the scale for fewer


def class_means(feature_ND: Tensor, label_N: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Weight [C, D] and bias [C] with ``weight @ x + bias`` largest for the class whose mean is nearest to x, scaled to
    the least cross-entropy on these rows. A class without rows scores as the mean of all.

    >>> weight, bias = class_means(torch.tensor([[0.0], [1.0], [9.0]]), torch.tensor([0, 0, 1]), 2)
    >>> [int(torch.argmax(weight @ torch.tensor([x]) + bias)) for x in (1.0, 4.0, 6.0)]
    [0, 0, 1]
    """
    middle_D = feature_ND.mean(0)
    member_NC = nn.functional.one_hot(label_N, classes).float()
    count_C = member_NC.sum(0)
    mean_CD = torch.where(count_C[:, None] > 0, member_NC.T @ feature_ND / count_C.clamp(min=1)[:, None], middle_D)
    few = len(label_N) < FEW * int((count_C > 0).sum())
    around = middle_D if few else mean_CD[label_N]
    spread = (feature_ND - around).pow(2).sum(-1).mean().clamp(min=1e-6)
    weight_CD = (mean_CD - middle_D) / spread
    bias_C = (middle_D.pow(2).sum() - mean_CD.pow(2).sum(-1)) / (2 * spread)
    if few:
        return SCALE_OF_FEW * weight_CD, SCALE_OF_FEW * bias_C
    score_NC = feature_ND @ weight_CD.T + bias_C
    losses = [float(nn.functional.cross_entropy(scale * score_NC, label_N)) for scale in SCALES]
    best = SCALES[losses.index(min(losses))]
    return best * weight_CD, best * bias_C


def better_mean(better_PD: Tensor, worse_PD: Tensor) -> Tensor:
    """Weight [D] that points from the worse answers' mean to the better ones', scaled to the least cross-entropy of the
    better one winning.

    >>> weight = better_mean(torch.tensor([[2.0, 0.0], [3.0, 1.0]]), torch.tensor([[1.0, 0.0], [1.0, 1.0]]))
    >>> float(weight[0]) > 0, float(weight[1])
    (True, 0.0)
    """
    lead_PD = better_PD - worse_PD
    weight_D = lead_PD.mean(0) / lead_PD.pow(2).sum(1).mean().clamp(min=1e-6)
    losses = [float(nn.functional.softplus(-scale * lead_PD @ weight_D).mean()) for scale in SCALES]
    return SCALES[losses.index(min(losses))] * weight_D
