"""Log-probabilities of chosen tokens straight from hidden states, in chunks: full-vocabulary logits never exist at
once.

Notable: the forward pass keeps one number a position (the log-normaliser); the backward pass makes each chunk of
logits again. Memory is one chunk, whatever the vocabulary. Equal to ``log_softmax(h @ W.T).gather(target)`` within
float error, both ways (``tests/models/test_linear_logp.py``).
Legend: N positions, D width, V vocabulary.
"""

from typing import Any

import torch
from torch import Tensor

CHUNK_ELEMENTS = 1 << 22  # 16 MB of float32 logits: stays in the last-level cache of a small CPU


def _wide(logits_nV: Tensor) -> Tensor:
    """At least float32; float64 stays what it is."""
    return logits_nV.to(torch.promote_types(logits_nV.dtype, torch.float32))


class _LinearLogp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden_ND: Tensor, weight_VD: Tensor, target_N: Tensor) -> Tensor:
        rows = max(1, CHUNK_ELEMENTS // weight_VD.shape[0])
        logp, normaliser = [], []
        for h_nD, target_n in zip(torch.split(hidden_ND, rows), torch.split(target_N, rows), strict=True):
            logits_nV = _wide(h_nD @ weight_VD.T)
            lse_n = logits_nV.logsumexp(-1)
            logp.append(logits_nV.gather(1, target_n[:, None])[:, 0] - lse_n)
            normaliser.append(lse_n)
        ctx.save_for_backward(hidden_ND, weight_VD, target_N, torch.cat(normaliser))
        return torch.cat(logp)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor | None, None]:
        (grad_N,) = grads
        hidden_ND, weight_VD, target_N, normaliser_N = ctx.saved_tensors
        grad_hidden_ND = torch.empty_like(hidden_ND)
        grad_weight_VD = torch.zeros_like(_wide(weight_VD)) if ctx.needs_input_grad[1] else None
        rows = max(1, CHUNK_ELEMENTS // weight_VD.shape[0])
        for start in range(0, len(target_N), rows):
            part = slice(start, start + rows)
            logits_nV = _wide(hidden_ND[part] @ weight_VD.T)
            share_nV = logits_nV.sub_(normaliser_N[part, None]).exp_().mul_(-grad_N[part, None])
            share_nV.scatter_add_(1, target_N[part, None], grad_N[part, None].to(share_nV.dtype))
            share_nV = share_nV.to(hidden_ND.dtype)
            grad_hidden_ND[part] = share_nV @ weight_VD
            if grad_weight_VD is not None:
                grad_weight_VD += _wide(share_nV.T @ hidden_ND[part])
        return grad_hidden_ND, None if grad_weight_VD is None else grad_weight_VD.to(weight_VD.dtype), None


def linear_logp(hidden_ND: Tensor, weight_VD: Tensor, target_N: Tensor) -> Tensor:
    """Log-probability (float32 or wider, [N]) of ``target_N`` under ``softmax(hidden_ND @ weight_VD.T)``.

    Matrix products run in the autocast type when autocast is on, in ``hidden_ND``'s type otherwise.

    >>> linear_logp(torch.zeros(1, 2), torch.ones(4, 2), torch.tensor([3])).exp()
    tensor([0.2500])
    """
    if hidden_ND.shape[0] == 0:
        return _wide(hidden_ND.sum(-1))
    device = hidden_ND.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden_ND.dtype
    with torch.autocast(device, enabled=False):
        logp_N: Tensor = _LinearLogp.apply(hidden_ND.to(dtype), weight_VD.to(dtype), target_N)  # type: ignore[no-untyped-call]
    return logp_N
