"""The keys and values of rows that are being written, in slots of one length each; rows come and go one by one.

Notable: the slots lie in one piece of memory, those in use at its beginning, so a step looks at them without a copy; a
row that has ended gives its place to the last one. Reading a prompt and writing a token are one operation: a slot is
extended by some tokens. Any network that takes a cache from its caller takes this one. Keys and values are those of the
slot's adapter, so the slot has it as long as it is in use.
Legend: S slots, R rows of a call, G key-value heads, T tokens, t new tokens, E head width.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from transformers import Cache
from transformers.cache_utils import DynamicLayer

from tunesmith.models.model import Model

TILE = {"cpu": 1024}  # tokens of the vocabulary in one product: a wide one is a third slower for few rows


class _Layer(DynamicLayer):  # type: ignore[no-untyped-call]
    """Keys and values [S, G, T, E] of one layer; ``update`` writes where its ``Slots`` say."""

    keys: Any
    values: Any

    def __init__(self, slots: "Slots") -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.slots = slots

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        slots = self.slots
        if not self.is_initialized:
            heads, width = key_states.shape[1], key_states.shape[3]
            self.keys = key_states.new_zeros((slots.count, heads, slots.room, width))
            self.values = value_states.new_zeros((slots.count, heads, slots.room, value_states.shape[3]))
            self.is_initialized = True
        rows = slice(slots.first, slots.first + len(key_states))
        keys, values = self.keys[rows], self.values[rows]
        keys[slots.row_R1, :, slots.place_Rt] = key_states.transpose(1, 2)
        values[slots.row_R1, :, slots.place_Rt] = value_states.transpose(1, 2)
        return keys[:, :, : slots.reach], values[:, :, : slots.reach]


class Slots(Cache):
    """``count`` slots of ``room`` tokens for the layers of ``model``. ``length`` is that of each slot in use,
    ``adapters`` names whose it is (None: the base's)."""

    def __init__(self, model: Model, count: int, room: int) -> None:
        text = model.network.config.get_text_config()
        self.count, self.room = count, room
        self.length: list[int] = []
        self.adapters: list[str | None] = []
        self.first = self.reach = 0
        self.row_R1 = self.place_Rt = torch.zeros(1, 1, dtype=torch.long)
        self._model = model
        self._window = getattr(text, "sliding_window", None)
        self._kinds = set(getattr(text, "layer_types", None) or ())
        self._memory_SV: Tensor | None = None  # of logits: fresh pages cost as much as a product of few rows
        self._held = [_Layer(self) for _ in range(text.num_hidden_layers)]
        super().__init__(layers=list(self._held))

    def get_seq_length(self, *_: Any, **__: Any) -> int:
        return 0  # positions and masks are given with each call

    def open(self, adapters: Sequence[str | None]) -> range:
        """An empty slot for each of ``adapters`` behind those in use."""
        held = len(self.length)
        self.length += [0] * len(adapters)
        self.adapters += adapters
        return range(held, len(self.length))

    def extend(self, first: int, tokens: Sequence[Sequence[int]]) -> Tensor:
        """Read ``tokens[r]`` behind what slot ``first + r`` holds; logits [R, V] after the last of each, in float32."""
        device, rows = self._model.device, len(tokens)
        wide = max(map(len, tokens))
        before_R1 = torch.tensor(self.length[first : first + rows], device=device)[:, None]
        size_R1 = torch.tensor([len(t) for t in tokens], device=device)[:, None]
        ids_Rt = torch.tensor([[*t, *[0] * (wide - len(t))] for t in tokens], device=device)
        step_t = torch.arange(wide, device=device)
        self.first = first
        self.row_R1 = torch.arange(rows, device=device)[:, None]
        self.place_Rt = (before_R1 + step_t).clamp(max=self.room - 1)  # pads, which the next token overwrites
        self.length[first : first + rows] = [n + len(t) for n, t in zip(self.length[first:], tokens, strict=False)]
        self.reach = max(self.length[first : first + rows])
        last_R = size_R1[:, 0] - 1
        stack = self._model.stack
        own = nullcontext() if stack is None else stack.rows(self.adapters[first : first + rows], wide, self.adapters)
        with own:
            return self._logits(
                last_R,
                input_ids=ids_Rt,
                attention_mask=self._masks(before_R1 + step_t),
                position_ids=before_R1 + torch.minimum(step_t, last_R[:, None]),
                past_key_values=self,
                use_cache=True,
            )

    def _logits(self, last_R: Tensor, **asked: Any) -> Tensor:
        """Of the token at ``last_R`` of each row, in float32; where the head is plain, until the next call."""
        row_R = torch.arange(len(last_R), device=last_R.device)
        if not self._model.head_is_linear:  # the whole network, which bends or scales the logits behind its head
            kept = torch.unique(last_R)
            logits_RkV = self._model.network(**asked, logits_to_keep=kept).logits
            bent: Tensor = logits_RkV[row_R, torch.searchsorted(kept, last_R)].float()
            return bent
        states_RD = self._model.backbone(**asked).last_hidden_state[row_R, last_R]
        weight_VD = self._model.network.get_output_embeddings().weight
        if self._memory_SV is None:
            self._memory_SV = states_RD.new_empty(self.count, len(weight_VD))
        logits_RV, size = self._memory_SV[: len(row_R)], TILE.get(self._model.device, len(weight_VD))
        for tile_vD, part_Rv in zip(weight_VD.split(size), logits_RV.split(size, 1), strict=True):
            torch.mm(states_RD, tile_vD.T, out=part_Rv)
        return logits_RV.float()

    def _masks(self, place_Rt: Tensor) -> Any:
        """Where each new token may look [R, 1, t, T]: at itself and what stands before it, within the window."""
        key_T = torch.arange(self.reach, device=place_Rt.device)
        whole = key_T <= place_Rt[..., None]
        if self._window is None:
            return self._as_taken(whole)
        near = whole & (key_T > place_Rt[..., None] - self._window)
        if len(self._kinds) > 1:
            return {"full_attention": self._as_taken(whole), "sliding_attention": self._as_taken(near)}
        return self._as_taken(whole if self._kinds == {"full_attention"} else near)

    def _as_taken(self, mask_RtT: Tensor) -> Tensor:
        if self._model.packs:
            return mask_RtT[:, None]
        dtype = self._model.network.dtype  # attention of the network's own may add its mask
        return torch.zeros_like(mask_RtT, dtype=dtype).masked_fill_(~mask_RtT, torch.finfo(dtype).min)[:, None]

    def share(self, source: int, targets: Sequence[int], size: int) -> None:
        """Let ``targets`` hold the first ``size`` tokens of ``source``."""
        for layer in self._held:
            for held in (layer.keys, layer.values):
                held[list(targets), :, :size] = held[source, :, :size]
        for target in targets:
            self.length[target] = size

    def close(self, slot: int) -> None:
        """Drop ``slot``; the last one takes its place."""
        last = len(self.length) - 1
        if slot != last:
            size = self.length[last]
            for layer in self._held:
                for held in (layer.keys, layer.values):
                    held[slot, :, :size] = held[last, :, :size]
            self.length[slot], self.adapters[slot] = size, self.adapters[last]
        self.length.pop()
        self.adapters.pop()
