"""Log-probabilities of chosen tokens straight from hidden states, in chunks: full-vocabulary logits never exist at
once.

Notable: while a chunk of logits is there, the forward pass also makes the gradient of each log-probability with
respect to its hidden state (one row a position); the backward pass scales it. So a frozen head costs two products, not
three, for every objective. A trained head needs them once more for its own gradient: kept where one chunk holds all,
made again where not. Memory is one chunk, whatever the vocabulary. Equal to ``log_softmax(h @ W.T).gather(target)``
within float error, both ways (``tests/models/test_linear_logp.py``).
Legend: N positions, D width, V vocabulary.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

CHUNK_ELEMENTS = {"cpu": 1 << 24, "cuda": 1 << 27}  # of logits in the network's type: enough rows for a fast product
WIDE_ELEMENTS = {"cpu": 1 << 20, "cuda": 1 << 27}  # of these at a time in float32: 4 MB stay in a small CPU's cache


def _wide(logits_nV: Tensor) -> Tensor:
    """At least float32; float64 stays what it is."""
    return logits_nV.to(torch.promote_types(logits_nV.dtype, torch.float32))


class _LinearLogp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden_ND: Tensor, weight_VD: Tensor, target_N: Tensor) -> Tensor:
        wanted, ctx.trained_head, _ = ctx.needs_input_grad
        whole = ctx.trained_head and len(hidden_ND) <= _rows_at_once(weight_VD)
        logp_N = hidden_ND.new_empty(len(hidden_ND), dtype=_wide(hidden_ND[:0]).dtype)
        unit_ND = torch.empty_like(hidden_ND) if wanted else None
        slope_NV = None
        for part, logits_nV in _logits(hidden_ND, weight_VD):
            logp_N[part] = _logp(logits_nV, target_N[part], to_gradient=wanted or whole)
            if unit_ND is not None:
                torch.mm(logits_nV, weight_VD, out=unit_ND[part])
            slope_NV = logits_nV if whole else None
        ctx.save_for_backward(unit_ND, slope_NV, *((hidden_ND, weight_VD, target_N) if ctx.trained_head else ()))
        return logp_N

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        (grad_N,) = grads
        unit_ND, slope_NV, *rest = ctx.saved_tensors
        grad_hidden_ND = None if unit_ND is None else (unit_ND * grad_N[:, None]).to(unit_ND.dtype)
        return grad_hidden_ND, _grad_weight(grad_N, slope_NV, *rest) if ctx.trained_head else None, None


def _rows_at_once(weight_VD: Tensor) -> int:
    return max(1, CHUNK_ELEMENTS[weight_VD.device.type] // len(weight_VD))


def _logits(hidden_ND: Tensor, weight_VD: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Chunks of logits [n, V] with their place, all in one piece of memory: fresh pages cost as much as a pass."""
    rows = _rows_at_once(weight_VD)
    memory_nV = hidden_ND.new_empty(min(rows, len(hidden_ND)), len(weight_VD))
    for start in range(0, len(hidden_ND), rows):
        part = slice(start, min(start + rows, len(hidden_ND)))
        yield part, torch.mm(hidden_ND[part], weight_VD.T, out=memory_nV[: part.stop - part.start])


def _logp(logits_nV: Tensor, target_n: Tensor, *, to_gradient: bool) -> Tensor:
    """Log-probability of each target, in float32 or wider. ``to_gradient`` overwrites the logits with its gradient with
    respect to them: one-hot less softmax."""
    rows = max(1, WIDE_ELEMENTS[logits_nV.device.type] // logits_nV.shape[1])
    found = []
    for narrow, target in zip(torch.split(logits_nV, rows), torch.split(target_n[:, None], rows), strict=True):
        wide = torch.empty_like(narrow, dtype=_wide(narrow[:0]).dtype).copy_(narrow)
        top, chosen = wide.amax(1, keepdim=True), wide.gather(1, target)
        total = wide.sub_(top).exp_().sum(1, keepdim=True)
        found.append(chosen - top - total.log())
        if to_gradient:
            wide.mul_(-1 / total).scatter_add_(1, target, torch.ones_like(total))
            narrow.copy_(wide)
    return torch.cat(found)[:, 0]


def _grad_weight(
    grad_N: Tensor, slope_NV: Tensor | None, hidden_ND: Tensor, weight_VD: Tensor, target_N: Tensor
) -> Tensor:
    """Gradient of the head. ``slope_NV``, where one chunk held all positions, is each log-probability's gradient with
    respect to its logits; otherwise the chunks are made again."""
    scaled_ND = (hidden_ND * grad_N[:, None]).to(hidden_ND.dtype)
    if slope_NV is not None:
        return slope_NV.T @ scaled_ND
    total_VD = torch.zeros_like(weight_VD, dtype=_wide(weight_VD[:0]).dtype)
    for part, logits_nV in _logits(hidden_ND, weight_VD):
        _logp(logits_nV, target_N[part], to_gradient=True)
        total_VD += logits_nV.T @ scaled_ND[part]
    return total_VD.to(weight_VD.dtype)


def linear_logp(hidden_ND: Tensor, weight_VD: Tensor, target_N: Tensor) -> Tensor:
    """Log-probability (float32 or wider, [N]) of ``target_N`` under ``softmax(hidden_ND @ weight_VD.T)``.

    Matrix products run in ``hidden_ND``'s type.

    >>> linear_logp(torch.zeros(1, 2), torch.ones(4, 2), torch.tensor([3])).exp()
    tensor([0.2500])
    """
    if not torch.is_grad_enabled():  # a function of autograd's is told of wanted gradients even then
        weight_VD = weight_VD.detach()
    logp_N: Tensor = _LinearLogp.apply(hidden_ND, weight_VD.to(hidden_ND.dtype), target_N)  # type: ignore[no-untyped-call]
    return logp_N
