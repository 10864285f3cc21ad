"""``torch.compile`` layer by layer: one compilation serves all layers of a network, which share their code.

Notable: only the layers' own ``forward`` is replaced, and only while the model trains; looks at dev, sampling and
saving meet the plain modules. Sizes are dynamic from the start, for packed rows differ in length from batch to batch.
"""

import torch
from torch import nn


class CompiledLayers:
    """The ``count`` layers of ``network``: the first list of that many modules of one kind. None of them where there is
    no such list; then nothing is ever compiled, and ``len`` says so."""

    def __init__(self, network: nn.Module, count: int) -> None:
        lists = (m for m in network.modules() if isinstance(m, nn.ModuleList) and len(m) == count)
        found: nn.ModuleList | tuple[nn.Module, ...] = next((m for m in lists if len({type(x) for x in m}) == 1), ())
        self._pairs = [(layer, torch.compile(layer.forward, dynamic=True)) for layer in found]

    def __len__(self) -> int:
        return len(self._pairs)

    def use(self, on: bool) -> None:
        """Put the compiled ``forward`` in, or take it out again, so that the class's own shows."""
        for layer, compiled in self._pairs:
            if on:
                layer.forward = compiled
            else:
                vars(layer).pop("forward", None)
