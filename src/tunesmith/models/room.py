"""Memory of a processor that is used again and again for what lives a moment.

Notable: large blocks that come and go between others that stay leave holes in the heap, which nothing else fits.
"""

import threading

import torch
from torch import Tensor


class Room(threading.local):
    """One piece a type; what was there is overwritten by the next who asks."""

    def __init__(self) -> None:
        self.held: dict[torch.dtype, Tensor] = {}

    def room(self, count: int, dtype: torch.dtype) -> Tensor:
        """``count`` numbers, whatever they hold."""
        if dtype not in self.held or self.held[dtype].numel() < count:
            self.held.pop(dtype, None)
            self.held[dtype] = torch.empty(count, dtype=dtype)
        return self.held[dtype][:count]
