"""Rows without padding: the network sees one flat row of real tokens; attention alone looks at the rows apart.

Notable: a batch stays [B, T] for whoever makes it and for every objective. ``Packed`` leaves the pads out, positions
start again with each row, and an attention function in transformers' registry pads queries, keys and values for its
own products only: linear layers, norms and the loss never see a pad, and no token sees another row. What rows of a
unit (two answers to one prompt) begin with alike lies in the flat row once and is handed to the attention of each.
Models that do not come through the registry, or do not pass the rows on, are found by ``Model``'s probe and run padded.
Legend: B rows, T longest row, N flat tokens of all rows, H heads, G key-value heads, E head width, C copies.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "tunesmith"
SHORT_ROW = {torch.bfloat16: 512, torch.float32: 192}  # up to here batched products beat PyTorch's CPU flash attention
UNKNOWN = ("softcap", "s_aux", "position_bias")  # what some families add to their scores, and this function does not
LAYERS = {"full_attention", "sliding_attention"}  # others, such as chunked or linear attention, need their own masks
_packed: ContextVar[bool] = ContextVar("packed", default=False)


class Unpackable(Exception):
    """A network asks its attention for what packed rows do not allow; ``install`` then lets them run padded."""


@dataclass(frozen=True, slots=True)
class Packed:
    """``row_BT[b, t]`` is the flat place of token t of row b (of the row's last token where t is a pad), and
    ``place_N`` the way back: b x T + t of each flat token. ``real_BT`` is true there. ``copy_C`` are the places
    b x T + t that hold a token of another row; None where rows share none."""

    ids_N: Tensor
    position_N: Tensor
    row_BT: Tensor
    place_N: Tensor
    real_BT: Tensor
    copy_C: Tensor | None = None

    def to(self, device: str) -> "Packed":
        """The same rows with their tensors on ``device``."""
        held: Any = (getattr(self, name) for name in self.__slots__)
        moved: Any = [None if x is None else x.to(device, non_blocking=True) for x in held]
        return Packed(*moved)

    def arguments(self) -> dict[str, Any]:
        """What the network is called with."""
        return {
            "input_ids": self.ids_N[None],
            "position_ids": self.position_N[None],
            "row_BT": self.row_BT,
            "place_N": self.place_N,
            "real_BT": None if len(self.place_N) == self.row_BT.numel() else self.real_BT,
            "copy_C": self.copy_C,
        }


def pack(ids_BT: Tensor, length_B: Tensor, prefix_B: Tensor | None = None, unit: int = 1) -> Packed:
    """Right-padded rows as one flat row. Row b begins with ``prefix_B[b]`` tokens of the first of its ``unit`` rows.

    >>> packed = pack(torch.tensor([[5, 6, 0], [7, 8, 9]]), torch.tensor([2, 3]))
    >>> packed.ids_N.tolist(), packed.position_N.tolist(), packed.row_BT.tolist(), packed.place_N.tolist()
    ([5, 6, 7, 8, 9], [0, 1, 0, 1, 2], [[0, 1, 1], [2, 3, 4]], [0, 1, 3, 4, 5])
    >>> packed = pack(torch.tensor([[5, 6, 7], [5, 6, 8]]), torch.tensor([3, 3]), torch.tensor([0, 2]), unit=2)
    >>> packed.ids_N.tolist(), packed.position_N.tolist(), packed.row_BT.tolist(), packed.copy_C.tolist()
    ([5, 6, 7, 8], [0, 1, 2, 2], [[0, 1, 2], [0, 1, 3]], [3, 4])
    """
    place_T = torch.arange(ids_BT.shape[1], device=ids_BT.device)
    real_BT = within(ids_BT, length_B)
    own_B, copy_C = length_B, None
    if prefix_B is not None:
        copied_BT = place_T < prefix_B[:, None]
        copy_C = copied_BT.flatten().nonzero()[:, 0]
        real_BT, own_B = real_BT & ~copied_BT, length_B - prefix_B
    place_N = real_BT.flatten().nonzero()[:, 0]
    start_B = own_B.cumsum(0) - length_B  # of a row's first token, were all of it its own
    row_BT = start_B[:, None] + torch.minimum(place_T, length_B[:, None] - 1)
    if copy_C is not None:
        row_BT = torch.where(copied_BT, row_BT[::unit].repeat_interleave(unit, 0), row_BT)
    return Packed(ids_BT.flatten()[place_N], place_N % ids_BT.shape[1], row_BT, place_N, real_BT, copy_C)


def within(ids_BT: Tensor, length_B: Tensor) -> Tensor:
    """[B, T], true where a row is, false where it is padded."""
    return torch.arange(ids_BT.shape[1], device=ids_BT.device) < length_B[:, None]


@contextmanager
def packed_masks() -> Iterator[None]:
    """Inside, networks build no mask: the attention function knows the rows."""
    token = _packed.set(True)
    try:
        yield
    finally:
        _packed.reset(token)


class _Pad(torch.autograd.Function):
    """Flat [N, ...] to rows [B, T, ...]. Pads repeat a real token; no gradient comes back from them (see _Unpad).
    Copies do send theirs back: other rows looked at them."""

    @staticmethod
    def forward(ctx: Any, x_N: Tensor, row_BT: Tensor, place_N: Tensor, copy_C: Tensor | None) -> Tensor:
        ctx.save_for_backward(place_N, copy_C, None if copy_C is None else row_BT.flatten()[copy_C])
        return x_N[row_BT]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        place_N, copy_C, source_C = ctx.saved_tensors
        grad_n = grads[0].flatten(0, 1)
        grad_N = grad_n[place_N]
        if copy_C is not None:
            grad_N.index_add_(0, source_C, grad_n[copy_C])
        return grad_N, None, None, None


class _Unpad(torch.autograd.Function):
    """Rows [B, T, ...] to flat [N, ...]; the gradient of a pad or a copy is zero."""

    @staticmethod
    def forward(ctx: Any, x_BT: Tensor, row_BT: Tensor, place_N: Tensor, real_BT: Tensor) -> Tensor:
        ctx.save_for_backward(row_BT, real_BT)
        return x_BT.flatten(0, 1)[place_N]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        (grad_N,) = grads
        row_BT, real_BT = ctx.saved_tensors
        shape = (*real_BT.shape, *(1,) * (grad_N.ndim - 1))
        return grad_N[row_BT] * real_BT.view(shape).to(grad_N.dtype), None, None, None


def attention(
    module: nn.Module,
    query_1HNE: Tensor,
    key_1GNE: Tensor,
    value_1GNE: Tensor,
    attention_mask: Tensor | None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attention within each row. Signature and result ([1, N, H, E]) are those of transformers' registry.

    Without ``row_BT`` the call is not packed and goes to transformers' own SDPA function; but for one new token a row
    on a CPU, where that function would copy every key and value once a query head.
    """
    row_BT = options.get("row_BT")
    odd = [name for name in UNKNOWN if options.get(name) is not None]
    if row_BT is None:
        known = attention_mask is None or attention_mask.dtype == torch.bool
        if odd or not known or query_1HNE.shape[2] > 1 or query_1HNE.device.type != "cpu":
            return sdpa_attention_forward(module, query_1HNE, key_1GNE, value_1GNE, attention_mask, **options)
        out_BH1E = _products(query_1HNE, key_1GNE, value_1GNE, attention_mask, causal=False, **_numbers(options))
        return out_BH1E.transpose(1, 2), None
    if odd:
        raise Unpackable(f"packed attention does not know {odd[0]}")
    place_N, real_BT, copy_C = options["place_N"], options["real_BT"], options["copy_C"]
    query, key, value = (_rows(x, row_BT, place_N, real_BT, copy_C) for x in (query_1HNE, key_1GNE, value_1GNE))
    causal = options.get("is_causal")
    causal = bool(getattr(module, "is_causal", True) if causal is None else causal)
    mask = _mask(real_BT, row_BT, causal, options.get("sliding_window"))
    out_BHTE = _attend(query, key, value, mask, causal=causal, **_numbers(options))
    out_BTHE = out_BHTE.transpose(1, 2)
    if real_BT is None:
        return out_BTHE.flatten(0, 1)[None], None
    return _Unpad.apply(out_BTHE, row_BT, place_N, real_BT)[None], None  # type: ignore[no-untyped-call]


def _numbers(options: dict[str, Any]) -> dict[str, Any]:
    return {"scaling": options.get("scaling"), "dropout": options.get("dropout", 0.0)}


def _rows(x_1HNE: Tensor, row_BT: Tensor, place_N: Tensor, real_BT: Tensor | None, copy_C: Tensor | None) -> Tensor:
    x_NHE = x_1HNE[0].transpose(0, 1)
    if real_BT is None:  # rows of one length: no pad to make
        return x_NHE.view(*row_BT.shape, *x_NHE.shape[1:]).transpose(1, 2)
    x_BTHE: Tensor = _Pad.apply(x_NHE, row_BT, place_N, copy_C)  # type: ignore[no-untyped-call]
    return x_BTHE.transpose(1, 2)


def _mask(real_BT: Tensor | None, row_BT: Tensor, causal: bool, window: int | None) -> Tensor | None:
    """[B or 1, 1, T, T], true where a token may look; None where that follows from ``causal`` alone: pads stand behind
    every real token, so no real token sees one."""
    if window is not None and not (causal and window >= row_BT.shape[1]):
        if not causal:
            raise Unpackable("packed attention knows no window that looks both ways")
        place_T = torch.arange(row_BT.shape[1], device=row_BT.device)
        distance_TT = place_T[:, None] - place_T[None, :]
        return ((distance_TT >= 0) & (distance_TT < window))[None, None]
    if causal or real_BT is None:
        return None
    return real_BT[:, None, None, :].expand(-1, 1, row_BT.shape[1], -1)


def _attend(
    query_BHTE: Tensor,
    key_BGTE: Tensor,
    value_BGTE: Tensor,
    mask: Tensor | None,
    *,
    causal: bool,
    scaling: float | None,
    dropout: float,
) -> Tensor:
    """Softmax attention [B, H, T, E]; query heads of one group share their key-value head."""
    if query_BHTE.device.type == "cpu" and query_BHTE.shape[2] <= SHORT_ROW.get(query_BHTE.dtype, 0):
        return _products(query_BHTE, key_BGTE, value_BGTE, mask, causal=causal, scaling=scaling, dropout=dropout)
    groups = query_BHTE.shape[1] // key_BGTE.shape[1]
    if groups > 1 and mask is not None and query_BHTE.device.type != "cpu":  # no fast kernel takes both
        key_BGTE, value_BGTE, groups = (*(x.repeat_interleave(groups, 1) for x in (key_BGTE, value_BGTE)), 1)
    out: Tensor = nn.functional.scaled_dot_product_attention(
        query_BHTE,
        key_BGTE,
        value_BGTE,
        attn_mask=mask,
        dropout_p=dropout,
        is_causal=causal and mask is None,
        scale=scaling,
        enable_gqa=groups > 1,
    )
    return out


def _products(
    query_BHTE: Tensor,
    key_BGTE: Tensor,
    value_BGTE: Tensor,
    mask: Tensor | None,
    *,
    causal: bool,
    scaling: float | None,
    dropout: float,
) -> Tensor:
    """Attention as two batched products, one a key-value head. The softmax adds up in float32, whatever the type."""
    batch, heads, size, width = query_BHTE.shape
    groups = key_BGTE.shape[1]
    shared = heads // groups
    scaled = query_BHTE * (width**-0.5 if scaling is None else scaling)
    query = scaled.reshape(batch * groups, shared * size, width)
    key, value = (x.flatten(0, 1) for x in (key_BGTE, value_BGTE))
    if mask is None and causal:
        mask = torch.ones(size, size, dtype=torch.bool, device=query.device).tril()[None, None]
    if mask is None:
        score = query @ key.mT
    else:
        bias = torch.zeros_like(mask, dtype=query.dtype).masked_fill_(~mask, torch.finfo(query.dtype).min)
        bias = bias.expand(-1, shared, -1, -1).flatten(1, 2)
        score = torch.baddbmm(bias if len(bias) == 1 else bias.repeat_interleave(groups, 0), query, key.mT)
    share = nn.functional.dropout(score.softmax(-1), dropout)
    return (share @ value).view(batch, heads, size, -1)


def _no_mask_when_packed(*args: Any, **options: Any) -> Tensor | None:
    mask: Tensor | None = None if _packed.get() else sdpa_mask(*args, **options)
    return mask


def install(network: Any, proven: Callable[[], bool]) -> bool:
    """Route the network's attention through ``attention``; back to its own where ``proven`` then says no, or fails."""
    own = network.config._attn_implementation
    kinds = set(getattr(network.config.get_text_config(), "layer_types", None) or ())
    if not getattr(network, "_supports_attention_backend", False) or kinds - LAYERS:
        return False
    network.set_attn_implementation(NAME)
    try:
        packs = network.config._attn_implementation == NAME and proven()
    except (TypeError, ValueError, Unpackable, RuntimeError):  # a family that does not hand the rows on
        packs = False
    if not packs:
        network.set_attn_implementation(own)
    return packs


AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, _no_mask_when_packed)
