"""A loaded model: network, tokenizer, card, and, for classes, a head. It turns batches into log-probabilities.

Notable: token log-probabilities come from hidden states at the trained positions alone (``linear_logp``); a probe at
construction proves that this equals the network's own logits, and networks where it does not (logit soft-caps, scaled
heads) take their own path.
Legend: B sequences, T tokens, C classes, D width, V vocabulary, N trained positions.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from tunesmith.core.batch import Batch
from tunesmith.core.card import ModelCard
from tunesmith.core.errors import ModelError
from tunesmith.models.linear_logp import linear_logp

Precision = Literal["float32", "bfloat16"]
SHORT_ROW = 192
PROBE_SIZE = 1000.0  # largest logit of the probe; soft-caps stand at 15 to 50


class ClassifierHead(nn.Module):
    """Pools hidden states (mean of the real tokens, or the last one for a decoder) and scores C classes linearly."""

    def __init__(self, width: int, classes: int, *, pool: Literal["mean", "last"], generator: torch.Generator) -> None:
        super().__init__()
        self.pool = pool
        self.score = nn.Linear(width, classes)
        nn.init.normal_(self.score.weight, std=0.02, generator=generator)
        nn.init.zeros_(self.score.bias)

    def forward(self, hidden_BTD: Tensor, length_B: Tensor) -> Tensor:
        logits: Tensor = self.score(pooled(hidden_BTD, length_B, self.pool).to(self.score.weight.dtype))
        return logits


def pooled(hidden_BTD: Tensor, length_B: Tensor, pool: Literal["mean", "last"]) -> Tensor:
    """One vector a row [B, D], in float32."""
    if pool == "last":
        return hidden_BTD[torch.arange(len(length_B)), length_B - 1].float()
    real_BT = torch.arange(hidden_BTD.shape[1], device=length_B.device)[None, :] < length_B[:, None]
    return (hidden_BTD.float() * real_BT[..., None]).sum(1) / length_B[:, None].float()


class Model:
    """See the module's docstring. ``labels`` names the classes of ``head``."""

    def __init__(self, network: Any, tokenizer: Any, card: ModelCard, *, precision: Precision = "float32") -> None:
        self.network = network
        self.tokenizer = tokenizer
        self.card = card
        self.precision: Precision = precision
        self.head: ClassifierHead | None = None
        self.labels: tuple[str, ...] = ()
        self.adapted: dict[str, Any] = {}
        self.adapter_config: dict[str, Any] = {}
        self._head_is_linear = card.kind == "decoder" and self._probe()

    @property
    def device(self) -> str:
        return str(next(self.network.parameters()).device)

    @property
    def backbone(self) -> Any:
        """The network without its language-model head."""
        return self.network.get_decoder() if self.card.kind == "decoder" else self.network

    def add_head(self, labels: Sequence[str], *, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        pool: Literal["mean", "last"] = "mean" if self.card.kind == "encoder" else "last"
        self.head = ClassifierHead(self.card.width, len(labels), pool=pool, generator=generator).to(self.device)
        self.labels = tuple(labels)

    def modules(self) -> Iterator[nn.Module]:
        yield self.network
        if self.head is not None:
            yield self.head

    def train(self, mode: bool = True) -> None:
        for module in self.modules():
            module.train(mode)

    def trainable(self) -> list[tuple[str, nn.Parameter]]:
        own = [(n, p) for n, p in self.network.named_parameters() if p.requires_grad]
        return own + ([] if self.head is None else [(f"head.{n}", p) for n, p in self.head.named_parameters()])

    def autocast(self) -> AbstractContextManager[object]:
        device = torch.device(self.device).type
        return torch.autocast(device, torch.bfloat16, enabled=self.precision == "bfloat16")

    def hidden(self, ids_BT: Tensor, length_B: Tensor) -> Tensor:
        """Last hidden states [B, T, D] of right-padded rows."""
        with attention_for(ids_BT):
            return self._states(ids_BT, length_B)

    def _states(self, ids_BT: Tensor, length_B: Tensor) -> Tensor:
        if self.card.kind == "decoder":  # causal and right-padded: no real token sees a pad, so no mask is needed
            states: Tensor = self.backbone(input_ids=ids_BT, use_cache=False).last_hidden_state
            return states
        mask_BT = None
        if int(length_B.min()) < ids_BT.shape[1]:
            mask_BT = (torch.arange(ids_BT.shape[1], device=ids_BT.device)[None, :] < length_B[:, None]).long()
        encoded: Tensor = self.backbone(input_ids=ids_BT, attention_mask=mask_BT).last_hidden_state
        return encoded

    def token_logp(self, batch: Batch) -> Tensor:
        """Log-probability [B, T] of each target whose weight is not zero; zero elsewhere."""
        chosen_BT = batch.weight_BT != 0
        hidden_BTD = self.hidden(batch.ids_BT, batch.length_B)
        if self._head_is_linear:
            logp_N = linear_logp(
                hidden_BTD[chosen_BT], self.network.get_output_embeddings().weight, batch.target_BT[chosen_BT]
            )
        else:
            logits_BTV = self.network(input_ids=batch.ids_BT, use_cache=False).logits
            logp_N = logits_BTV[chosen_BT].float().log_softmax(-1).gather(1, batch.target_BT[chosen_BT][:, None])[:, 0]
        return torch.zeros_like(batch.weight_BT).masked_scatter(chosen_BT, logp_N)

    def class_logp(self, batch: Batch) -> Tensor:
        """Log-probability [B, C] of each class."""
        if self.head is None:
            raise ModelError("This model has no classification head; objective classify needs task: classify.")
        hidden_BTD = self.hidden(batch.ids_BT, batch.length_B)
        with torch.autocast(hidden_BTD.device.type, enabled=False):
            logits_BC: Tensor = self.head(hidden_BTD, batch.length_B)
        return logits_BC.log_softmax(-1)

    def _probe(self) -> bool:
        """Whether ``hidden @ head.T`` equals the network's own logits on a few tokens.

        The head's output is scaled up to ``PROBE_SIZE`` for the occasion: a soft-cap hardly bends the small logits of
        a young network.
        """
        output = self.network.get_output_embeddings()
        if not isinstance(output, nn.Linear) or output.bias is not None:
            return False
        ids_BT = torch.arange(1, 9, device=self.device)[None] % self.card.vocabulary
        training = self.network.training
        self.network.eval()
        with torch.no_grad():
            hidden_BTD = self.backbone(input_ids=ids_BT, use_cache=False).last_hidden_state
            scale = PROBE_SIZE / max(float(output(hidden_BTD).abs().max()), 1e-9)
            hook = output.register_forward_hook(lambda _module, _inputs, logits_BTV: logits_BTV * scale)
            own = self.network(input_ids=ids_BT, use_cache=False).logits.float()
            ours = output(hidden_BTD).float()
            hook.remove()
        self.network.train(training)
        return bool(torch.allclose(own, ours, atol=1e-4 * PROBE_SIZE, rtol=1e-3))


def attention_for(ids_BT: Tensor) -> AbstractContextManager[None]:
    """Batched products for short rows on a CPU, where the backward pass of its flash attention takes several times as
    long; PyTorch's own choice otherwise."""
    if ids_BT.device.type == "cpu" and ids_BT.shape[1] <= SHORT_ROW:
        return sdpa_kernel(SDPBackend.MATH)
    return nullcontext()


@contextmanager
def adapters_off(model: Model) -> Iterator[None]:
    """The same weights without their adapters: the base, with no second copy in memory."""
    for layer in model.adapted.values():
        layer.enabled = False
    try:
        yield
    finally:
        for layer in model.adapted.values():
            layer.enabled = True
