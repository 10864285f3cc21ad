"""A frozen linear layer and its low-rank update as one autograd function.

Notable: autograd would keep the layer's input, both products and a scaled copy; this keeps the input (which the layer
before holds anyway) and ``x A^T``, rank numbers a token. A weight held in four bits is made dense for one product and
again for its gradient. Batches mixed over several adapters are ``lora_stack``'s.
Legend: N tokens, I inputs, O outputs, R rank.
"""

from typing import Any

import torch
from torch import Tensor, nn

from tunesmith.models.frozen_linear import bits_of, passing_dense


class _LoraLinear(torch.autograd.Function):
    """One adapter: y = x W^T + bias + scale (x A^T) B^T."""

    @staticmethod
    def forward(
        ctx: Any,
        x_NI: Tensor,
        weight: Tensor,
        bias_O: Tensor | None,
        a_RI: Tensor,
        b_OR: Tensor,
        how: tuple[Any, float],
    ) -> Tensor:
        bits, scale = how
        low_NR = x_NI @ a_RI.to(x_NI.dtype).T
        ctx.save_for_backward(x_NI, weight, a_RI, b_OR, low_NR)
        ctx.bits, ctx.scale = bits, scale
        y_NO = torch.nn.functional.linear(x_NI, passing_dense(weight, bits), bias_O)
        if torch.compiler.is_compiling():  # torch 2.11 gives an output that was changed in place no gradient
            return torch.addmm(y_NO, low_NR, b_OR.to(x_NI.dtype).T, alpha=scale)
        return y_NO.addmm_(low_NR, b_OR.to(x_NI.dtype).T, alpha=scale)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, None, None, Tensor, Tensor, None]:
        (grad_NO,) = grads
        x_NI, weight, a_RI, b_OR, low_NR = ctx.saved_tensors
        grad_low_NR = (grad_NO @ b_OR.to(grad_NO.dtype)).mul_(ctx.scale)
        grad_b_OR = ctx.scale * (grad_NO.T @ low_NR).to(b_OR.dtype)
        grad_a_RI = (grad_low_NR.T @ x_NI).to(a_RI.dtype)
        grad_x_NI = None
        if ctx.needs_input_grad[0]:
            grad_x_NI = (grad_NO @ passing_dense(weight, ctx.bits)).addmm_(grad_low_NR, a_RI.to(grad_NO.dtype))
        return grad_x_NI, None, None, grad_a_RI, grad_b_OR, None


def lora_linear(x: Tensor, base: nn.Linear, a_RI: Tensor, b_OR: Tensor, scale: float) -> Tensor:
    """``x W^T + bias + scale x A^T B^T`` for ``x`` shaped [..., I]; W and the bias are those of ``base``, frozen.

    >>> base, a, b = torch.nn.Linear(2, 2, bias=False), torch.ones(1, 2), torch.tensor([[1.0], [0.0]])
    >>> _ = torch.nn.init.eye_(base.weight.requires_grad_(False))
    >>> lora_linear(torch.ones(1, 2), base, a, b, 0.5)
    tensor([[2., 1.]])
    """
    bits, bias_O = bits_of(base), base.bias
    flat: Tensor = _LoraLinear.apply(x.flatten(0, -2), base.weight, bias_O, a_RI, b_OR, (bits, scale))  # type: ignore[no-untyped-call]
    return flat.view(*x.shape[:-1], -1)


def lora_update(x: Tensor, a_RI: Tensor, b_OR: Tensor, scale: float) -> Tensor:
    """``scale x A^T B^T`` alone."""
    return (x @ a_RI.to(x.dtype).T) @ b_OR.to(x.dtype).T * scale
