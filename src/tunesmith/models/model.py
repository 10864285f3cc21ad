"""A loaded model: network, tokenizer, card, and, for classes, a head. It turns batches into log-probabilities.

Notable: no pad reaches the network (``packing``), and token log-probabilities come from hidden states at the trained
positions alone (``linear_logp``). Probes at construction prove that both equal the network's own answers; networks
where they do not (attention of their own, logit soft-caps, scaled heads) take the plain path. In bf16 the network's
weights are bf16, and ``masters`` holds the float32 copies of those that are trained.
Legend: B sequences, T tokens, C classes, D width, V vocabulary, N real tokens of all rows.
"""

import inspect
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tunesmith.core.batch import Batch
from tunesmith.core.card import ModelCard
from tunesmith.core.errors import ModelError
from tunesmith.models import packing
from tunesmith.models.compiled import CompiledLayers
from tunesmith.models.linear_logp import linear_logp
from tunesmith.models.lora_stack import LoraStack
from tunesmith.models.masters import Masters
from tunesmith.models.schedule import Schedule
from tunesmith.models.soft_tokens import SoftTokens, led, with_soft

Precision = Literal["float32", "bfloat16"]
PROBE_SIZE = 1000.0  # largest logit of the probe; soft-caps stand at 15 to 50
PROBE_ROWS = (7, 3, 12)
CHECKED_UNITS = 4  # of the first batch of a run
NARROW = 2**-6  # of a state: what bf16 may round; it adds up as the root of the number of layers
FIRST_POSITION_AFTER_PAD = ("roberta", "xlm-roberta", "camembert", "mpnet")  # the first position is pad_token_id + 1


class ClassifierHead(nn.Module):
    """Scores C classes linearly from pooled hidden states (mean of the real tokens, or the last one for a decoder). One
    class alone is a reward: only its differences count, so its bias stays 0."""

    def __init__(self, width: int, classes: int, *, pool: Literal["mean", "last"], generator: torch.Generator) -> None:
        super().__init__()
        self.pool = pool
        self.score = nn.Linear(width, classes)
        nn.init.normal_(self.score.weight, std=0.02, generator=generator)
        nn.init.zeros_(self.score.bias)
        self.score.bias.requires_grad_(classes > 1)


def pooled(hidden_ND: Tensor, length_B: Tensor, pool: Literal["mean", "last"]) -> Tensor:
    """One vector a row [B, D], in float32, of the states of all rows' real tokens one after the other."""
    if pool == "last":
        return hidden_ND[length_B.cumsum(0) - 1].float()
    means: Tensor = torch.segment_reduce(hidden_ND.float(), "mean", lengths=length_B, unsafe=True)
    return means


class Model:
    """See the module's docstring. ``labels`` names the classes of ``head``, ``adapted`` the layers with an adapter;
    ``rates`` are learning rates of single weights in times the training's, ``scores`` tell a method
    that asks for it how much each weight of its layers matters, ``wrapped`` is PEFT's model around
    ``network``, where PEFT has changed it; ``schedule`` is what the method does around the steps, ``soft`` are
    trained tokens that stand before every row; ``stack`` holds adapters of which each sampled row has its own
    (``many``); ``twinned`` says that other models stand on the same tensors."""

    def __init__(self, network: Any, tokenizer: Any, card: ModelCard, *, precision: Precision = "float32") -> None:
        self.network = network
        self.tokenizer = tokenizer
        self.card = card
        self.precision: Precision = precision
        self.head: ClassifierHead | None = None
        self.labels: tuple[str, ...] = ()
        self.adapted: dict[str, Any] = {}
        self.adapter_settings: dict[str, Any] = {}
        self.rates: dict[str, float] = {}
        self.scores: dict[str, Tensor] = {}
        self.wrapped: Any = None
        self.masters = Masters({})
        self.schedule = Schedule()
        self.soft: SoftTokens | None = None
        self.stack: LoraStack | None = None
        self.twinned = False
        self._compiled: CompiledLayers | None = None
        narrow(network, precision)
        after_pad = network.config.model_type in FIRST_POSITION_AFTER_PAD
        self._first_position = network.config.pad_token_id + 1 if after_pad else 0
        self.head_is_linear = card.kind == "decoder" and self._probe_head()
        self._own_attention = network.config._attn_implementation
        self.packs = packing.install(network, self._probe_packing)

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
        if self._compiled is not None:
            self._compiled.use(mode)

    def compile(self) -> int:
        """Compile the layers: from now on they run so while the model trains. Returns how many there are."""
        self._compiled = CompiledLayers(self.network, self.card.layers)
        return len(self._compiled)

    def compile_no_more(self) -> None:
        """Back to plain layers."""
        if self._compiled is not None:
            self._compiled.use(False)
        self._compiled = None

    def trainable(self) -> list[tuple[str, nn.Parameter]]:
        """What the optimiser moves: float32 masters where the network holds bf16 copies of them."""
        own = [(n, p) for n, p in self.network.named_parameters() if p.requires_grad]
        own = [(n, self.masters.of.get(n, p)) for n, p in own]
        head = [] if self.head is None else self.head.named_parameters()
        return own + [(f"head.{n}", p) for n, p in head if p.requires_grad]

    @property
    def may_rest(self) -> Collection[str]:
        """Names of trained weights that some steps do not touch: rows of tokens that few rows hold, and what the
        method says."""
        return {*self.masters.rows, *self.schedule.may_rest}

    def on_gradient(self, then: Callable[[nn.Parameter], None]) -> None:
        """Call ``then`` in each backward pass with every trained weight as soon as its gradient is whole."""
        masters = set(map(id, self.masters.of.values()))
        self.masters.then = then
        for _, parameter in self.trainable():
            if id(parameter) not in masters:
                parameter.register_post_accumulate_grad_hook(then)  # type: ignore[no-untyped-call]

    def recompute(self, every: int) -> None:
        """Recompute in the backward pass the activations of every ``every``-th layer instead of keeping them."""
        enable = getattr(self.network, "activation_checkpointing_enable", None)
        try:
            if enable is not None:
                enable(every_n_layers=every)
            else:  # transformers before 5.20 knows all layers or none
                self.network.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        except ValueError as error:
            raise ModelError(
                f"train.memory: {self.card.architecture} cannot recompute its activations. Set train.memory: fast."
            ) from error

    def refresh(self) -> None:
        """After a step: the network takes over what its masters are now."""
        self.masters.copy_down()

    @property
    def soft_ids(self) -> tuple[int, ...]:
        """What the network must read before every row; empty while adapters are off."""
        return self.soft.ids if self.soft is not None and self.soft.enabled else ()

    def hidden(self, ids_BT: Tensor, length_B: Tensor) -> Tensor:
        """Last hidden states [N, D] of the real tokens of right-padded rows, one row after the other."""
        soft = self.soft_ids
        ids_BT, length_B = with_soft(ids_BT, length_B, soft)
        packed = packing.pack(ids_BT, length_B).to(self.device)
        states_ND = self._run(packed, ids_BT, self.backbone)
        return states_ND[packed.position_N >= len(soft)] if soft else states_ND

    def _run(self, packed: packing.Packed, ids_BT: Tensor, network: Any) -> Tensor:
        return self._packed(packed, network) if self.packs else self._padded(packed, ids_BT.to(self.device), network)

    def _packed(self, packed: packing.Packed, network: Any, **more: Any) -> Tensor:
        arguments = packed.arguments() | more
        arguments["position_ids"] = arguments["position_ids"] + self._first_position
        with packing.packed_masks():
            return _states(network(**arguments, use_cache=False))[0]

    def _padded(self, packed: packing.Packed, ids_BT: Tensor, network: Any) -> Tensor:
        mask_BT = None if self.card.kind == "decoder" else packed.real_BT.long()  # causal rows do not see their pads
        options = {"use_cache": False} if self.card.kind == "decoder" else {}
        states_BTD = _states(network(input_ids=ids_BT, attention_mask=mask_BT, **options))
        return states_BTD.flatten(0, 1)[packed.place_N]

    def token_logp(self, batch: Batch) -> Tensor:
        """Log-probability [B, T] of each target whose weight is not zero; zero elsewhere.

        ``batch`` is best on the CPU still: which tokens are real and trained is then known without waiting for a GPU.
        """
        batch, packed, place_n = self._trained(batch)
        chosen_n = packed.row_BT.flatten()[place_n].to(self.device)
        target_n = batch.target_BT.flatten()[place_n].to(self.device)
        states_nD = self._chosen(packed.to(self.device), batch.ids_BT, chosen_n)
        if self.head_is_linear:
            logp_n = linear_logp(states_nD, self.network.get_output_embeddings().weight, target_n)
        else:
            logp_n = states_nD.float().log_softmax(-1).gather(1, target_n[:, None])[:, 0]
        return self._spread(batch, place_n, logp_n)

    def token_score(self, batch: Batch) -> Tensor:
        """The one output of the head before each target whose weight is not zero [B, T]; zero elsewhere."""
        batch, packed, place_n = self._trained(batch)
        chosen_n = packed.row_BT.flatten()[place_n].to(self.device)
        states_nD = self._run(packed.to(self.device), batch.ids_BT, self.backbone)[chosen_n]
        return self._spread(batch, place_n, self._headed(states_nD)[:, 0])

    def _trained(self, batch: Batch) -> tuple[Batch, packing.Packed, Tensor]:
        """The batch as the network reads it, packed, and the places b x T + t of targets with weight."""
        batch = led(batch, self.soft_ids)
        packed = packing.pack(batch.ids_BT, batch.length_B, batch.prefix_B, batch.unit)
        real_BT = packing.within(batch.ids_BT, batch.length_B)
        return batch, packed, ((batch.weight_BT != 0) & real_BT).flatten().nonzero()[:, 0]

    def _spread(self, batch: Batch, place_n: Tensor, values_n: Tensor) -> Tensor:
        """``values_n`` at their places [B, T] of the batch as it was given."""
        found = torch.zeros(batch.weight_BT.numel(), device=self.device).index_put((place_n.to(self.device),), values_n)
        return found.view_as(batch.weight_BT)[:, len(self.soft_ids) :]

    def _chosen(self, packed: packing.Packed, ids_BT: Tensor, chosen_n: Tensor) -> Tensor:
        """Of some of the real tokens: hidden states, or logits where the head is not linear."""
        if self.head_is_linear:
            return self._run(packed, ids_BT, self.backbone)[chosen_n]
        if self.packs and "logits_to_keep" in inspect.signature(self.network.forward).parameters:
            return self._packed(packed, self.network, logits_to_keep=chosen_n)
        return self._run(packed, ids_BT, self.network)[chosen_n]

    def features(self, batch: Batch) -> Tensor:
        """What a head reads of each row, in float32 [B, D]: the mean of an encoder's states, a decoder's last one."""
        if self.card.kind == "encoder":
            return pooled(self.hidden(batch.ids_BT, batch.length_B), batch.length_B.to(self.device), "mean")
        batch = led(batch, self.soft_ids)
        packed = packing.pack(batch.ids_BT, batch.length_B, batch.prefix_B, batch.unit)
        last_B = packed.row_BT.gather(1, batch.length_B[:, None] - 1)[:, 0].to(self.device)
        return self._run(packed.to(self.device), batch.ids_BT, self.backbone)[last_B].float()

    def _scored(self, batch: Batch) -> Tensor:
        """The head's outputs [B, C]."""
        return self._headed(self.features(batch))

    def _headed(self, states: Tensor) -> Tensor:
        if self.head is None:
            raise ModelError("This model has no head; objectives classify and reward need one.")
        found: Tensor = self.head.score(states.to(self.head.score.weight.dtype))
        return found

    def class_logp(self, batch: Batch) -> Tensor:
        """Log-probability [B, C] of each class."""
        return self._scored(batch).log_softmax(-1)

    def score(self, batch: Batch) -> Tensor:
        """How good a head of one output finds each row [B]: differences are the log-odds of being preferred."""
        return self._scored(batch)[:, 0]

    @torch.no_grad()
    def packs_exactly(self, ids_BT: Tensor, length_B: Tensor, prefix_B: Tensor | None = None, unit: int = 1) -> bool:
        """Whether packed rows give the states of the same rows alone, within the rounding of the network's type."""
        own_B = torch.zeros_like(length_B) if prefix_B is None else prefix_B
        with _evaluating(self.network):
            packed = packing.pack(ids_BT, length_B, prefix_B, unit)
            together = self._packed(packed.to(self.device), self.backbone)
            options = {"use_cache": False} if self.card.kind == "decoder" else {}
            alone = torch.cat(
                [
                    _states(self.backbone(input_ids=row[None, :n].to(self.device), **options))[0, start:]
                    for row, n, start in zip(ids_BT, length_B.tolist(), own_B.tolist(), strict=True)
                ]
            )
        share = NARROW * self.card.layers**0.5 if alone.dtype == torch.bfloat16 else 1e-4
        size, error = alone.float().abs(), (together.float() - alone.float()).abs()
        return bool(error.max() <= 4 * share * size.max()) and bool(error.mean() <= share * size.mean())

    def check_packing(self, batch: Batch) -> bool:
        """Whether units of ``batch``, from the shortest to the longest, pack exactly. Where not, rows run padded from
        now on."""
        places = torch.linspace(0, batch.units - 1, min(CHECKED_UNITS, batch.units)).long()
        unit_U = batch.length_B.view(-1, batch.unit).sum(1).argsort()[places]
        chosen = (unit_U[:, None] * batch.unit + torch.arange(batch.unit)).flatten()
        prefix_B = None if batch.prefix_B is None else batch.prefix_B[chosen]
        if self.packs and not self.packs_exactly(batch.ids_BT[chosen], batch.length_B[chosen], prefix_B, batch.unit):
            self.network.set_attn_implementation(self._own_attention)
            self.packs = False
        return self.packs

    def slower(self) -> Iterator[str]:
        """A sentence for each fast path that this network does not take."""
        if not self.packs:
            yield f"{self.card.architecture} does not pack: rows run padded, and slower."
        if self.card.kind == "decoder" and self.head is None and not self.head_is_linear:
            yield (
                f"{self.card.architecture} bends or scales its logits: those of a whole micro-batch stand in memory "
                "at once, and training is slower."
            )

    def _probe_packing(self) -> bool:
        ids_BT = torch.arange(5, 41).view(3, 12) % self.card.vocabulary  # no special token
        return self.packs_exactly(ids_BT, torch.tensor(PROBE_ROWS))

    def _probe_head(self) -> bool:
        """Whether ``hidden @ head.T`` equals the network's own logits on a few tokens.

        The head's output is scaled up to ``PROBE_SIZE`` for the occasion: a soft-cap hardly bends the small logits of
        a young network.
        """
        output = self.network.get_output_embeddings()
        if not isinstance(output, nn.Linear) or output.bias is not None:
            return False
        ids_BT = torch.arange(1, 9, device=self.device)[None] % self.card.vocabulary
        with torch.no_grad(), _evaluating(self.network):
            hidden_BTD = self.backbone(input_ids=ids_BT, use_cache=False).last_hidden_state
            scale = PROBE_SIZE / max(float(output(hidden_BTD).abs().max()), 1e-9)
            hook = output.register_forward_hook(lambda _module, _inputs, logits_BTV: logits_BTV * scale)
            own = self.network(input_ids=ids_BT, use_cache=False).logits.float()
            ours = output(hidden_BTD).float()
            hook.remove()
        rtol = 2e-2 if output.weight.dtype == torch.bfloat16 else 1e-3
        return bool(torch.allclose(own, ours, atol=1e-4 * PROBE_SIZE, rtol=rtol))


def narrow(network: nn.Module, precision: Precision) -> None:
    """The network's weights in their type. Buffers, such as the frequencies of positions, stay what they are."""
    if precision == "bfloat16":
        for parameter in network.parameters():
            if parameter.is_floating_point():  # four bits stand in whole numbers
                parameter.data = parameter.data.bfloat16()


def _states(out: Any) -> Tensor:
    """A backbone's last hidden states, or the logits of a whole network."""
    found: Tensor = out.logits if hasattr(out, "logits") else out.last_hidden_state
    return found


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(training)


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
