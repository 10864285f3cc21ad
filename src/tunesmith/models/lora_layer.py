"""One adapted linear layer of the LoRA family: a frozen base, A and B, and what the family's members add to them.

Notable: a start that is not zero (PiSSA, OLoRA) is subtracted as a second, frozen update instead of being taken out of
the base's weights: the gradients are the same, the base stays what it is bit for bit, and the result is saved as plain
LoRA of twice the rank. DoRA's norms of W + s B A come from three thin products; the sum itself is never formed.
Legend: I inputs, O outputs, R rank.
"""

import torch
from torch import Tensor, nn

from tunesmith.models.frozen_linear import bits_of, dense, frozen_linear
from tunesmith.models.lora_linear import lora_linear, lora_update


class LoraLinear(nn.Module):
    """``base(x) + scale * dropout(x) A^T B^T``; ``base`` is frozen."""

    def __init__(self, base: nn.Linear, *, rank: int, scale: float, dropout: float, generator: torch.Generator) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.scale = scale
        self.dropout = dropout
        self.enabled = True
        a_RI = torch.empty(rank, base.in_features)
        nn.init.kaiming_uniform_(a_RI, a=5**0.5, generator=generator)
        device = base.weight.device
        self.lora_A = nn.Parameter(a_RI.to(device))
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, rank, device=device))
        self.magnitude: Magnitude | None = None
        self.start: tuple[Tensor, Tensor] | None = None

    def begin_at(self, a_RI: Tensor, b_OR: Tensor) -> None:
        """Start from these A and B; what they add to the base is taken off again."""
        with torch.no_grad():
            self.lora_A.copy_(a_RI)
            self.lora_B.copy_(b_OR)
        self.start = (self.lora_A.detach().clone(), self.lora_B.detach().clone())

    def decompose(self) -> None:
        """Train the length of each row of the sum beside its direction (DoRA)."""
        self.magnitude = Magnitude(self)

    def forward(self, x: Tensor) -> Tensor:
        if not self.enabled:
            return frozen_linear(x, self.base)
        read = nn.functional.dropout(x, self.dropout, self.training) if self.dropout else x
        if self.start is not None:
            y = frozen_linear(x, self.base) + (self._update(read) - lora_update(read, *self.start, self.scale))
        elif read is not x:  # the update sees another input than the base
            y = frozen_linear(x, self.base) + self._update(read)
        else:
            y = lora_linear(x, self.base, self.lora_A, self.lora_B, self.scale)
        return y if self.magnitude is None else self._scaled(y, x, read)

    def _update(self, x: Tensor) -> Tensor:
        return lora_update(x, self.lora_A, self.lora_B, self.scale)

    def _scaled(self, y: Tensor, x: Tensor, read: Tensor) -> Tensor:
        """Each output's direction at its trained length; the bias is no part of it. Where dropout thins the input, it
        thins that of the whole term, as PEFT has it."""
        assert self.magnitude is not None  # the caller asks only then
        more_O = (self.magnitude.gain_O() - 1).to(y.dtype)  # exactly 0 at the start
        if read is x:
            return y + more_O * (y if self.base.bias is None else y - self.base.bias)
        core = frozen_linear(read, self.base)
        core = core if self.base.bias is None else core - self.base.bias
        return y + more_O * (core + self._update(read))

    @torch.no_grad()
    def weight_OI(self) -> Tensor:
        """The base's weight, dense, in float32."""
        return dense(self.base.weight, bits_of(self.base)).float()

    def plain(self) -> tuple[Tensor, Tensor]:
        """A and B of one plain update that equals this one, in float32."""
        a_RI, b_OR = self.lora_A.detach().float(), self.lora_B.detach().float()
        if self.start is None:
            return a_RI, b_OR
        return torch.cat([a_RI, self.start[0]]), torch.cat([b_OR, -self.start[1]], dim=1)


class Magnitude(nn.Module):
    """DoRA (Liu et al., 2024): ``m * (W + s B A) / ||W + s B A||``, row by row; no gradient flows through the norm."""

    def __init__(self, layer: LoraLinear) -> None:
        super().__init__()
        self.layer = (layer,)  # no submodule: it holds this one
        self.square_O = layer.weight_OI().square().sum(1)
        self.weight = nn.Parameter(self.square_O.sqrt())
        self.known: tuple[tuple[int, int], Tensor] | None = None

    def gain_O(self) -> Tensor:
        return self.weight / self.norm_O()

    @torch.no_grad()
    def norm_O(self) -> Tensor:
        """Computed anew for each pass in training, and once for all in between."""
        (layer,) = self.layer
        version = (layer.lora_A._version, layer.lora_B._version)
        if self.training or self.known is None or self.known[0] != version:
            a_RI, b_OR, scale = layer.lora_A.float(), layer.lora_B.float(), layer.scale
            weight = dense(layer.base.weight, bits_of(layer.base))
            cross_O = ((weight @ a_RI.to(weight.dtype).T).float() * b_OR).sum(1)
            own_O = ((b_OR @ (a_RI @ a_RI.T)) * b_OR).sum(1)
            norm_O = (self.square_O + 2 * scale * cross_O + scale * scale * own_O).clamp_(min=0).sqrt()
            self.known = (version, norm_O)
        return self.known[1]

    def train(self, mode: bool = True) -> "Magnitude":
        self.known = None
        return super().train(mode)
